//! What an operator reads: one report with everything in it.

use super::*;

fn report(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

/// A dozen and more faults at once.
const BAD: &str = "\
version: 1
timezone: Asia/Shanghia
mount:
  path: mnt/dataTransfer
  subdir: file2GP/new
target:
  url: postgresql://loader:geheim@gp6:5432/qmsprd
  password: geheim
  sessions: 0
sources:
  fab1:
    host: -oProxyCommand=x
    engine: oracle
    database: qmsprd
    host: gp4-etl
defaults:
  window: { column: evt_timestamp, length: 4 hrs of work, lag: 5m }
  load: { mode: insret, on_pk_violation: rollback }
  export: { timeout: 30m, slice_bytes: 256M }
jobs:
  hms_array:
    source: fab2
    from: 2021-09-10 00:00:00
    until: 2021-08-10 00:00:00
    houres: 00:00-04:00
    tables:
      - sor.wpp_adefect_glass_f
      - table: eda.wpp_fdefect_f_n
        where: \"valid_flag = 'Y'; drop table x\"
        every: 1d
      - tiny.d*
      - sor.wpp_adefect_glass_f
";

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    insta::assert_snapshot!(report(BAD), @r#"
    inventory.yml:2:11: timezone: `Asia/Shanghia` is not a time zone
        try: did you mean `Asia/Shanghai`?
    inventory.yml:4:9: mount.path: `mnt/dataTransfer` is not an absolute path
        try: start at / and write no `..`, as in path: /mnt/dataTransfer
    inventory.yml:5:11: mount.subdir: `file2GP/new` is not one plain directory name
        try: letters, digits, `_`, `-` and `.`, not starting with `-` or `.`, as in
             subdir: file2GP
    inventory.yml:7:8: target.url: a password stands in the URL, before the `@`
        try: remove it; for the target set PGPASSWORD, or name a file in PGPASSFILE,
             or keep it in ~/.pgpass (mode 0600)
    inventory.yml:8:3: target.password: a secret does not belong in an inventory
        try: remove it; for the target set PGPASSWORD, or name a file in PGPASSFILE,
             or keep it in ~/.pgpass (mode 0600)
    inventory.yml:9:13: target.sessions: `0` is out of range
        try: a whole number from 1 to 256, as in sessions: 4
    inventory.yml:12:11: sources.fab1.host: `-oProxyCommand=x` starts with `-` or
        holds a blank
        try: write it as host: "gpadmin@gp4-etl:22"
    inventory.yml:13:13: sources.fab1.engine: `oracle` is not a word that is known
        here
        try: one of: greenplum, postgres, mysql, tdengine
    inventory.yml:15:5: sources.fab1.host: this key is written twice, first in line
        12
        try: keep one of the two
    inventory.yml:17:44: defaults.window.length: `4 hrs of work` is not a length of
        time (write 500ms, 90s, 15m, 4h, 1d, 2w, or a bare number of hours)
        try: write it as length: 4h
    inventory.yml:18:17: defaults.load.mode: `insret` is not a word that is known
        here
        try: did you mean `insert`? One of: insert, update, merge, replace
    inventory.yml:19:40: defaults.export.slice_bytes: `256M` is not a number of
        bytes
        try: a whole number with B, kB, MB, GB, TB or KiB, MiB, GiB, TiB, as in
             slice_bytes: 256MiB
    inventory.yml:22:13: jobs.hms_array.source: there is no source `fab2`
        try: did you mean `fab1`?
    inventory.yml:23:11: jobs.hms_array.from: 2021-09-10 00:00:00 is not before
        2021-08-10 00:00:00, which is `until`: no window lies between them
        try: make `until` later than `from`, or leave it out for a job that goes on
             for ever
    inventory.yml:25:5: jobs.hms_array.houres: this key is not known
        try: did you mean `hours`?
    inventory.yml:29:16: jobs.hms_array.tables[1].where: `;` cannot stand in a
        condition: it would end the statement
        try: one condition over the table's columns, as in where: "valid_flag = 'Y'"
    inventory.yml:30:16: jobs.hms_array.tables[1].every: `every` is for tables that
        are moved whole, and this one has a window
        try: remove it (windows come due by themselves), or write `window: none`
             beside it
    inventory.yml:31:9: jobs.hms_array.tables[2]: `tiny.d*` is a pattern, and one
        table is named here
        try: write `{ tables: "tiny.d*" }`; a name that really holds such a
             character stands in double quotes
    inventory.yml:32:9: jobs.hms_array.tables[3]: the same source table of source
        `fab2` goes to the same place by jobs.hms_array.tables[0] in line 27
        try: remove one of the two, or give both a `where` so that no row is in both
    "#);
}

#[test]
fn what_is_no_yaml_is_shown_with_its_line() {
    insta::assert_snapshot!(report("version: 1\nmount:\n  path: /mnt/x\n subdir: x\n"), @r#"
    inventory.yml:4:2: this is not YAML: while parsing a block mapping, did not find
        expected key
        4 |  subdir: x
          |  ^
        try: look at this line and the one above it: the indentation (blanks only,
             no TABs), brackets and quotes that are not closed, a text with a colon
             or # in it that needs quotes
    "#);
    insta::assert_snapshot!(report("version: 1\ntables: [ a.b, *.c ]\n"), @r#"
    inventory.yml:2:16: this alias (`*name`) has no anchor (`&name`) above it
        2 | tables: [ a.b, *.c ]
          |                ^
        try: write the value out; a text that starts with * needs quotes, as in
             `{ tables: "*.f_*" }`
    "#);
    insta::assert_snapshot!(report("target:\n  password: 'geheim\n"), @r#"
    inventory.yml:3:1: this is not YAML: invalid indentation in multiline quoted
        scalar (the line is not shown: there is a password in the file)
        try: look at this line and the one above it: the indentation (blanks only,
             no TABs), brackets and quotes that are not closed, a text with a colon
             or # in it that needs quotes
    "#);
}

#[test]
fn an_empty_file_is_told_where_to_start() {
    insta::assert_snapshot!(report("# nothing yet\n"), @r#"
    inventory.yml:1:1: the inventory is empty
        try: start from inventory/first.yml, which comes with gpferry
    "#);
}
