//! `compare`: what differs is found, by key, and nothing else is.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::{Case, Ran};

/// Objects of JSON lines, of one kind.
fn lines(ran: &Ran, what: &str) -> Vec<Value> {
    let lines = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["what"] == what).collect()
}

/// A table of a day in windows of four hours, moved.
fn moved(name: &str, rows: u32, more: &str) -> Case {
    let mut case = Case::new(name);
    case.both("CREATE TABLE t (id int PRIMARY KEY, at timestamp, station text, v text, f float8)");
    case.source
        .batch_execute(&format!(
            "INSERT INTO t SELECT i, timestamp '2021-08-10' + i * interval '24 hours' / {rows}, 'OP' || i % 3, 'v' || i, i / 7.0 \
             FROM generate_series(0, {rows} - 1) i"
        ))
        .unwrap();
    let table = format!("{{ table: public.t, window: {{ column: at, length: 4h }}{more} }}");
    case.inventory_with("", "    from: 2021-08-10 00:00:00\n    until: 2021-08-11 00:00:00\n", &[&table]);
    case.gpferry(&["run"]).expect(0);
    case
}

#[test]
fn what_was_moved_is_equal() {
    let case = moved("compare_equal", 240, "");
    case.gpferry(&["compare"]).expect(0).says("1 of 1 table equal").says("--deep");
    case.gpferry(&["compare", "--deep"]).expect(0).says("6 digests 240 240 0 0 0 equal");
}

#[test]
fn levels_go_down_to_the_keys_that_differ() {
    let mut case = moved("compare_levels", 240, ", compare: { group: station }");
    case.target
        .batch_execute(
            "DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (1000, '2021-08-10 05:00', 'OP1', 'x', 0); \
             UPDATE t SET v = '' WHERE id = 200",
        )
        .unwrap();
    // The window of the row that only changed has as many rows as ever: numbers do not tell.
    let ran = case.gpferry(&["compare"]).expect(4);
    let ran = ran
        .says("1 only in the target")
        .says("missing (id)=(3)")
        .says("extra (id)=(1000)")
        .silent_about("(200)");
    ran.says("station 'OP0': 1 missing").says("station 'OP1': 1 only in the target");
    let ran = case.gpferry(&["compare", "--deep", "--show-values", "--format", "json"]).expect(4);
    let keys = lines(&ran, "key");
    assert_eq!(keys.len(), 3, "{}", ran.stdout);
    let changed = keys.iter().find(|key| key["difference"] == "changed").unwrap();
    assert_eq!(changed["key"]["id"], "200");
    assert_eq!(changed["columns"][0]["column"], "v");
    assert_eq!(
        (&changed["columns"][0]["source"], &changed["columns"][0]["target"]),
        (&"v200".into(), &"".into())
    );
    assert_eq!(changed["window"]["start"], "2021-08-10T20:00:00");
    assert_eq!(lines(&ran, "window").len(), 3);
    // What was found to differ is looked at by digests from then on.
    case.gpferry(&["compare"]).expect(4).says("changed (id)=(200)");
    case.target.batch_execute("UPDATE t SET v = 'v200' WHERE id = 200").unwrap();
    let file = case.path("keys.csv");
    let ran = case.gpferry(&["compare", "--keys", file.to_str().unwrap(), "--limit", "1"]).expect(4);
    ran.silent_about("(200)");
    let csv = fs::read_to_string(&file).unwrap();
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    case.gpferry(&["compare", "--keys", file.to_str().unwrap()]).expect(2).says("a new file");
    let log = fs::read(case.path("inventory.ledger.sqlite")).unwrap();
    assert!(!log.windows(4).any(|bytes| bytes == b"v200"));
    case.target
        .batch_execute(
            "DELETE FROM t WHERE id = 1000; INSERT INTO t VALUES (3, '2021-08-10 00:18', 'OP0', 'v3', 3/7.0)",
        )
        .unwrap();
    case.gpferry(&["compare", "--deep"]).expect(0).says("1 of 1 table equal");
}

#[test]
fn large_buckets_are_cut_until_their_rows_can_be_read() {
    let mut case = Case::new("compare_large");
    case.both(
        "CREATE TABLE one_time (id int PRIMARY KEY, at timestamp, v text); CREATE TABLE by_text (id text PRIMARY KEY, v text); \
         CREATE TABLE by_number (id bigint PRIMARY KEY, v text); CREATE TABLE spread (at timestamptz, id int, v text, PRIMARY KEY (at, id))",
    );
    case.source
        .batch_execute(
            "INSERT INTO one_time SELECT i, '2021-08-10 01:00', md5(i::text) FROM generate_series(1, 60000) i; \
             INSERT INTO by_text SELECT 'k' || i, md5(i::text) FROM generate_series(1, 60000) i; \
             INSERT INTO by_number SELECT i * 1000, md5(i::text) FROM generate_series(1, 60000) i; \
             INSERT INTO spread SELECT timestamptz '2021-08-10 00:00+08' + i * interval '1 second', i, md5(i::text) FROM generate_series(1, 60000) i; \
             ANALYZE",
        )
        .unwrap();
    case.inventory_with(
        "",
        "    from: 2021-08-10 00:00:00\n    until: 2021-08-11 00:00:00\n",
        &[
            "{ table: public.one_time, window: { column: at, length: 1d } }",
            "{ table: public.by_text, window: none }",
            "{ table: public.by_number, window: none }",
            "{ table: public.spread, window: { column: at, length: 4h } }",
        ],
    );
    case.edit_inventory("version: 1\n", "version: 1\ntimezone: Asia/Shanghai\n");
    case.gpferry(&["run"]).expect(0);
    case.gpferry(&["compare", "--deep"]).expect(0).says("4 of 4 tables equal");
    case.target
        .batch_execute(
            "UPDATE one_time SET v = 'x' WHERE id = 777; UPDATE by_text SET v = NULL WHERE id = 'k777'; \
             DELETE FROM by_number WHERE id = 777000; DELETE FROM spread WHERE id = 14399; \
             INSERT INTO spread VALUES ('2021-08-10 04:00+08', 70000, 'x')",
        )
        .unwrap();
    let ran =
        case.gpferry(&["compare", "--deep"]).expect(4).says("changed (id)=(777)").says("changed (id)=(k777)");
    let ran = ran.says("missing (id)=(777000)").says("missing (at, id)=(2021-08-09 19:59:59, 14399)");
    ran.says("extra (at, id)=(2021-08-09 20:00:00, 70000)");
    // Half of it gone: counted to the row, and only some shown.
    case.target
        .batch_execute(
            "DELETE FROM one_time WHERE id % 2 = 0; DELETE FROM by_text WHERE substr(id, 2)::int % 2 = 0",
        )
        .unwrap();
    let ran =
        case.gpferry(&["compare", "--limit", "3", "--format", "json", "--table", "public.*e*t*"]).expect(4);
    for table in lines(&ran, "table").iter().filter(|one| one["table"] != "public.spread") {
        assert_eq!(table["difference"]["missing"], 30000, "{table}");
        assert_eq!(table["difference"]["exact"], true);
    }
}

#[test]
fn nothing_and_what_is_not_there_have_their_words() {
    let mut case = Case::new("compare_nothing");
    case.both("CREATE TABLE empty (id int PRIMARY KEY, at timestamp); CREATE TABLE half (id int PRIMARY KEY, at timestamp)");
    case.both("CREATE TABLE gone (id int); CREATE TABLE lost (id int); CREATE TABLE never (id int)");
    case.source.batch_execute("INSERT INTO half VALUES (1, '2021-08-10 01:00')").unwrap();
    let window = "window: { column: at, length: 4h }";
    case.inventory_with(
        "",
        "    from: 2021-08-10 00:00:00\n    until: 2021-08-11 00:00:00\n",
        &[
            &format!("{{ table: public.empty, {window} }}"),
            &format!("{{ table: public.half, {window} }}"),
            "{ table: public.gone, window: none }",
            "{ table: public.lost, window: none }",
        ],
    );
    case.gpferry(&["compare"]).expect(0).says("nothing of it is loaded");
    case.gpferry(&["run"]).expect(0);
    case.gpferry(&["compare", "--deep"]).expect(0).says("4 of 4 tables equal");
    // A window that is empty on one side, and on the other.
    case.target.batch_execute("TRUNCATE half; INSERT INTO empty VALUES (7, '2021-08-10 05:00')").unwrap();
    let ran = case.gpferry(&["compare"]).expect(4).says("1 rows in the source, 0 in the target: 1 missing");
    ran.says("0 rows in the source, 1 in the target: 1 only in the target");
    case.target.batch_execute("DROP TABLE gone").unwrap();
    case.source.batch_execute("DROP TABLE lost").unwrap();
    // What could not be read comes before what differs.
    let ran =
        case.gpferry(&["compare"]).expect(3).says("the table public.gone is not in the target database");
    ran.says("the table public.lost is not in the source database").says("NOT COMPARED").says("1 missing");
    case.gpferry(&["compare", "--table", "public.nix"]).expect(2).says("no table matches");
}

#[test]
fn what_is_not_comparable_is_never_equal() {
    let mut case = Case::new("compare_types");
    case.source
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, j json, n numeric(9,4), f real, c char(5), z timestamptz)",
        )
        .unwrap();
    case.target
        .batch_execute(
            "CREATE TABLE t (id bigint PRIMARY KEY, j jsonb, n numeric, f float8, c text, z timestamp)",
        )
        .unwrap();
    case.source
        .batch_execute("INSERT INTO t VALUES (1, '{\"b\":1, \"a\":2}', 1.5, 0.1, 'ab', '2021-08-10 08:00+08'), (2, NULL, 100, 'NaN', '', 'infinity')")
        .unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    case.gpferry(&["run"]).expect(0);
    let ran = case.gpferry(&["compare", "--deep"]).expect(3).says("equal in part");
    let ran = ran.says("not comparable: j: json on one side and jsonb on the other");
    ran.says("compared f: to 6 significant digits").says("compared c: without the blanks");
    case.target.batch_execute("UPDATE t SET n = 1.50001 WHERE id = 1").unwrap();
    case.gpferry(&["compare", "--deep", "--show-values"]).expect(4).says("n: '1.5' -> '1.50001'");
    case.target.batch_execute("UPDATE t SET n = 1.500 WHERE id = 1").unwrap();
    case.edit_inventory("window: none }", "window: none, compare: { except: [j] } }");
    case.gpferry(&["compare", "--deep"]).expect(0).says("1 of 1 table equal").silent_about("not comparable");
    case.target.batch_execute("ALTER TABLE t ADD COLUMN more int; ALTER TABLE t DROP COLUMN c").unwrap();
    let ran = case.gpferry(&["compare", "--deep"]).expect(3).says("not comparable: c: only in the source");
    ran.says("not comparable: more: only in the target");
    case.edit_inventory("except: [j]", "except: [j, c, more], group: nix");
    case.gpferry(&["compare", "--deep"]).expect(3).says("`compare.group` names \"nix\"");
}

#[test]
fn nulls_in_keys_and_equal_keys_are_counted() {
    let mut case = Case::new("compare_nulls");
    case.both("CREATE TABLE t (a int, b text, v text)");
    case.source
        .batch_execute("INSERT INTO t VALUES (1, NULL, 'x'), (1, '', 'x'), (2, 'k', 'same'), (2, 'k', 'same'), (NULL, NULL, 'n')")
        .unwrap();
    case.inventory(&["{ table: public.t, window: none, compare: { key: [a, b] } }"]);
    case.gpferry(&["run"]).expect(0);
    case.gpferry(&["compare", "--deep"]).expect(0);
    case.target
        .batch_execute("INSERT INTO t VALUES (2, 'k', 'same'); UPDATE t SET v = 'y' WHERE a IS NULL; UPDATE t SET b = '' WHERE b IS NULL AND a = 1")
        .unwrap();
    let ran = case
        .gpferry(&["compare", "--deep"])
        .expect(4)
        .says("extra (a, b)=(2, k)")
        .says("changed (a, b)=(NULL, NULL)");
    let ran = ran.says("missing (a, b)=(1, NULL)").says("extra (a, b)=(1, )").says("with NULL in the key");
    ran.says("keys of several rows");
}

#[test]
fn only_rows_of_the_entry_are_compared() {
    let mut case = Case::new("compare_entries");
    case.both("CREATE TABLE t (id int PRIMARY KEY, flag text, site text); CREATE TABLE u (id int PRIMARY KEY, flag text, site text)");
    case.source
        .batch_execute(
            "INSERT INTO t VALUES (1, 'Y', 'a'), (2, 'N', 'a'); INSERT INTO u VALUES (3, 'Y', 'b')",
        )
        .unwrap();
    case.inventory(&["{ table: public.t, window: none, where: \"flag = 'Y'\" }"]);
    case.gpferry(&["run"]).expect(0);
    case.gpferry(&["compare", "--deep"]).expect(0).says("1 1 0 0 0 equal");
    // Another entry fills the same table, and nothing says whose rows are whose.
    case.inventory(&[
        "{ table: public.t, window: none }",
        "{ table: public.u, target: public.t, window: none }",
    ]);
    case.target.batch_execute("TRUNCATE t; DROP SCHEMA gpferry CASCADE").unwrap();
    fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
    case.gpferry(&["run"]).expect(0);
    let ran = case.gpferry(&["compare"]).expect(3).says("the target receives s:public.u as well");
    ran.says("compare: { where: … }");
    let told = |site: &str| format!("window: none, compare: {{ where: \"site = '{site}'\" }} }}");
    case.inventory(&[
        &format!("{{ table: public.t, {}", told("a")),
        &format!("{{ table: public.u, target: public.t, {}", told("b")),
    ]);
    case.gpferry(&["compare", "--deep"]).expect(0).says("2 of 2 tables equal");
    case.target.batch_execute("DELETE FROM t WHERE id = 3").unwrap();
    case.gpferry(&["compare"]).expect(4).says("missing (id)=(3)");
    case.inventory(&["{ table: public.t, window: none, load: { mode: update, match: [id] } }"]);
    case.gpferry(&["compare"]).expect(3).says("not comparable: mode `update`");
}

#[test]
fn a_range_narrows_what_is_compared_and_lag_keeps_the_last_minutes_out() {
    let mut case = moved("compare_range", 240, "");
    case.target.batch_execute("DELETE FROM t WHERE at >= '2021-08-10 20:00'").unwrap();
    case.gpferry(&["compare", "--until", "2021-08-10 20:00"]).expect(0).says("5 rows 200 200");
    case.gpferry(&["compare", "--from", "2021-08-10 19:59"]).expect(4).says("2 rows 80 40 40 0 0 DIFFERENT");
    case.gpferry(&["compare", "--from", "2021-09-01"])
        .expect(0)
        .says("nothing of it is loaded in that range");
    // A hundred years: nothing is old enough.
    case.edit_inventory("length: 4h", "length: 4h, lag: 36500d");
    case.gpferry(&["compare"]).expect(0).says("younger than `lag`");
}

#[test]
fn a_side_that_cannot_be_asked_is_told_as_such() {
    let mut case = moved("compare_down", 24, "");
    case.source.batch_execute("REVOKE SELECT ON t FROM gpadmin").unwrap();
    case.gpferry(&["compare"]).expect(3).says("permission denied").says("NOT COMPARED");
    case.source.batch_execute("GRANT SELECT ON t TO gpadmin").unwrap();
    case.target.batch_execute("REVOKE SELECT ON t FROM loader").unwrap();
    case.gpferry(&["compare"]).expect(3).says("the target refused to count rows");
    case.target.batch_execute("GRANT SELECT ON t TO loader").unwrap();
    case.edit_inventory("host: gp-a", "host: nowhere.invalid");
    case.gpferry(&["compare"]).expect(12);
    case.edit_inventory("host: nowhere.invalid", "host: gp-a");
    let port = crate::support::lab().get("LAB_TARGET_PORT").to_owned();
    case.edit_inventory(&format!("127.0.0.1:{port}"), "127.0.0.1:1");
    // Another target: the ledger has to read its load log first.
    case.gpferry(&["compare"]).expect(14);
}

#[test]
fn status_tells_of_the_last_comparison() {
    let mut case = moved("compare_status", 24, "");
    case.gpferry(&["status"]).expect(0).silent_about("COMPARED");
    case.gpferry(&["compare", "--deep"]).expect(0);
    case.gpferry(&["status"]).expect(0).says("COMPARED").says("equal");
    case.target.batch_execute("DELETE FROM t WHERE id = 3").unwrap();
    case.gpferry(&["compare"]).expect(4);
    case.gpferry(&["status"]).expect(0).says("1 window differs");
    let status = case.gpferry(&["status", "--format", "json"]).expect(0).json();
    let compared = &status["tables"][0]["compared"];
    assert_eq!(
        (&compared["verdict"], &compared["rows"]["missing"]),
        (&"different".into(), &1.into()),
        "{compared}"
    );
}

#[test]
fn what_a_role_or_a_database_has_set_changes_no_verdict() {
    if crate::greenplum::leaves_out("arrays of floats", "which it and a newer source write in other digits") {
        return;
    }
    let mut case = Case::new("compare_settings");
    case.both(
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN pos AS int; CREATE TYPE pair AS (a int, b text); \
         CREATE TABLE t (id int PRIMARY KEY, m mood, mm mood[], p pos, r pair, f float8[], g point, b bytea[], z timestamptz, \
         zz timestamptz[], d date[], i interval, o money)",
    );
    case.source
        .batch_execute(
            "INSERT INTO t SELECT i, 'ok', '{sad,ok}', i, ROW(i, 'a, \"b\"')::pair, ARRAY[i / 7.0, '-0'::float8, 0.1 + 0.2], \
             point(i / 3.0, 1e-300), ARRAY[decode('00ff5c', 'hex')], timestamptz '2021-03-28 01:30+00' + i * interval '1 hour', \
             ARRAY[timestamptz '1890-01-01 00:00+00', 'infinity'], ARRAY[date '0044-03-15 BC', '2021-08-10'], \
             interval '1 mon -1 day 00:00:00.000001' * i, i::money FROM generate_series(1, 50) i",
        )
        .unwrap();
    let name = case.database().to_owned();
    let set = |settings: &[&str]| -> String {
        settings.iter().map(|one| format!("ALTER DATABASE {name} SET {one}; ")).collect()
    };
    let dates = ["TimeZone = 'Asia/Shanghai'", "DateStyle = 'SQL, DMY'", "extra_float_digits = 0"];
    case.source.batch_execute(&set(&dates)).unwrap();
    let others = [
        "TimeZone = 'America/New_York'",
        "DateStyle = 'German'",
        "IntervalStyle = iso_8601",
        "extra_float_digits = -3",
        "bytea_output = escape",
        "search_path = pg_catalog",
        "enable_hashagg = off",
    ];
    case.target.batch_execute(&set(&others)).unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    case.gpferry(&["run"]).expect(0);
    let ran = case.gpferry(&["compare", "--deep"]).expect(0).says("50 50 0 0 0 equal");
    ran.silent_about("not comparable");
    // The last bit in an array, which fewer digits do not show; and it is moved again under the same settings.
    case.target
        .batch_execute("UPDATE t SET f[1] = f[1] + 1e-16 WHERE id = 1; DELETE FROM t WHERE id = 2")
        .unwrap();
    case.gpferry(&["compare", "--deep"]).expect(4).says("changed (id)=(1)").says("missing (id)=(2)");
    case.gpferry(&["repair"]).expect(0).says("1 window: repaired");
    case.gpferry(&["compare", "--deep"]).expect(0);
}

#[test]
fn what_a_table_holds_does_not_play_with_the_terminal() {
    let mut case = Case::new("compare_terminal");
    case.both("CREATE TABLE t (id text PRIMARY KEY, g text, v text)");
    case.inventory(&["{ table: public.t, window: none, compare: { group: g } }"]);
    case.gpferry(&["run"]).expect(0);
    case.target
        .batch_execute("INSERT INTO t VALUES (E'k\\n      id: forged', E'\\u001b[2Jg\\n', 'x')")
        .unwrap();
    let ran = case.gpferry(&["compare", "--deep", "--show-values"]).expect(4);
    assert!(!ran.stdout.contains('\u{1b}') && !ran.stdout.contains("\n      id: forged"), "{}", ran.stdout);
    let ran = case.gpferry(&["alarm", "list"]).expect(0);
    assert!(!ran.stdout.contains('\u{1b}'), "{}", ran.stdout);
    let ran = case.gpferry(&["compare", "--deep", "--format", "json"]).expect(4);
    assert_eq!(lines(&ran, "key")[0]["key"]["id"], "k\n      id: forged");
}
