//! Many small units at once: what they share, and that what becomes of one is no other's business.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::ends::wait_for;
use crate::greenplum;
use crate::support::{Case, Side, lab, ran};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Small tables of two rows each, and one session that loads them.
fn small_tables(name: &str) -> Case {
    let mut case = Case::new(name);
    for name in NAMES {
        case.both(&format!("CREATE TABLE {name} (id int PRIMARY KEY, v text)"));
        case.source.batch_execute(&format!("INSERT INTO {name} VALUES (1, 'x'), (2, NULL)")).unwrap();
    }
    case.inventory(&["{ tables: \"public.?\", window: none }"]);
    one_session(&case);
    case
}

/// So that what waits is loaded as one group.
fn one_session(case: &Case) {
    let text = fs::read_to_string(case.path("inventory.yml")).unwrap();
    let line = text.lines().find(|line| line.contains("postgresql://")).unwrap();
    case.edit_inventory(line, &line.replacen(" }", ", sessions: 1 }", 1));
}

fn rows(case: &mut Case) -> Vec<i64> {
    NAMES.iter().map(|name| case.count(&format!("SELECT count(*) FROM {name}"))).collect()
}

#[test]
fn a_unit_that_fails_in_the_middle_of_a_group_takes_only_itself_back() {
    let mut case = small_tables("group_fails");
    case.gpferry(&["export"]).expect(0);
    case.target.batch_execute("INSERT INTO c VALUES (2, 'was here')").unwrap();
    case.gpferry(&["load", "-v"])
        .expect(3)
        .says("a group of 6 units is loaded one by one")
        .says("5 of 6 units loaded, 10 rows")
        .says("c_pkey");
    assert_eq!(rows(&mut case), [2, 2, 1, 2, 2, 2]);
    let logged = "SELECT count(*) FROM gpferry.load_log WHERE rows_loaded = 2 AND table_name <> 'public.c'";
    assert_eq!((case.count(logged), case.count("SELECT count(*) FROM gpferry.load_log")), (5, 5));
    case.target.batch_execute("DELETE FROM c").unwrap();
    case.gpferry(&["run", "--retry-failed"]).expect(0).says("1 of 1 unit loaded, 2 rows");
    assert_eq!(rows(&mut case), [2; 6]);
}

#[test]
fn a_file_that_is_damaged_takes_no_other_of_its_group_along() {
    let mut case = small_tables("group_damage");
    case.gpferry(&["export"]).expect(0);
    let file = case.files().into_iter().find(|file| file.to_string_lossy().contains("^d^all")).unwrap();
    let file = case.mount().join("file2GP").join(file);
    let mut bytes = fs::read(&file).unwrap();
    bytes[12] ^= 0x55;
    fs::write(&file, bytes).unwrap();
    case.gpferry(&["load"]).expect(3).says("5 of 6 units loaded, 10 rows");
    assert_eq!(rows(&mut case), [2, 2, 2, 0, 2, 2]);
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded, 2 rows");
}

#[test]
fn two_loaders_that_claim_one_unit_of_a_group_load_it_once() {
    let mut case = small_tables("group_claim");
    case.gpferry(&["export"]).expect(0);
    case.gpferry(&["load", "--table", "public.a"]).expect(0);
    // Another loader has claimed `c`, with its rows, and not committed yet.
    let mut other = Side::Target.connect(case.database());
    other
        .batch_execute(
            "BEGIN; INSERT INTO gpferry.load_log (source, unit, job, table_name, file, mode, rows_exported, rows_loaded, digest, \
             run, measure) SELECT source, replace(unit, '^a^', '^c^'), job, 'public.c', file, mode, 2, 2, digest, 'other', \
             measure FROM gpferry.load_log; INSERT INTO c VALUES (1, 'x'), (2, NULL)",
        )
        .unwrap();
    let child = case.command(&["load"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE {} AND datname = current_database()",
        greenplum::waits_for_a_lock()
    );
    wait_for("the load waits", Duration::from_secs(20), || case.count(&waiting) > 0);
    other.batch_execute("COMMIT").unwrap();
    ran(child.wait_with_output().unwrap()).expect(0).says("4 of 5 units loaded, 8 rows").says("already");
    assert_eq!(rows(&mut case), [2; 6]);
    assert_eq!(case.count("SELECT count(*) FROM gpferry.load_log WHERE run = 'other'"), 1);
}

#[test]
fn a_claim_that_another_loader_takes_back_is_loaded_though_the_group_had_to_wait() {
    if greenplum::leaves_out("a group that gives up waiting", "version 6 has no limit for waiting") {
        return;
    }
    let mut case = small_tables("group_waits");
    case.gpferry(&["export"]).expect(0);
    case.gpferry(&["load", "--table", "public.a"]).expect(0);
    let mut other = Side::Target.connect(case.database());
    other
        .batch_execute(
            "BEGIN; INSERT INTO gpferry.load_log (source, unit, job, table_name, file, mode, rows_exported, rows_loaded, \
             digest, run, measure) SELECT source, replace(unit, '^a^', '^c^'), job, 'public.c', file, mode, 2, 2, digest, \
             'other', measure FROM gpferry.load_log",
        )
        .unwrap();
    let child = case.command(&["load", "-v"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The group gives up after two seconds; then `c` waits by itself, with `b` in the same transaction.
    let alone = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE {} AND datname = current_database() \
                 AND query LIKE '%$18)'",
        greenplum::waits_for_a_lock()
    );
    wait_for("one unit waits by itself", Duration::from_secs(20), || case.count(&alone) > 0);
    other.batch_execute("ROLLBACK").unwrap();
    ran(child.wait_with_output().unwrap())
        .expect(0)
        .says("is loaded one by one")
        .says("5 of 5 units loaded, 10 rows");
    assert_eq!(rows(&mut case), [2; 6]);
}

#[test]
fn windows_that_overlap_what_the_ledger_does_not_know_stop_no_other_of_their_group() {
    let mut case = Case::new("group_overlap");
    case.both("CREATE TABLE t (id int, at timestamp); CREATE TABLE u (id int, at timestamp)");
    for table in ["t", "u"] {
        let insert = format!(
            "INSERT INTO {table} SELECT i, timestamp '2021-08-10' + i * interval '1 hour' FROM generate_series(0, 5) i"
        );
        case.source.batch_execute(&insert).unwrap();
    }
    let write = |until: &str, entries: &[(&str, &str)]| {
        let entry = |(table, length): &(&str, &str)| {
            format!("{{ table: public.{table}, window: {{ column: at, length: {length}, lag: 0s }} }}")
        };
        let entries: Vec<String> = entries.iter().map(entry).collect();
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        case.inventory_with(
            "",
            &format!("    from: 2021-08-10 00:00:00\n    until: 2021-08-10 {until}\n"),
            &entries,
        );
        one_session(&case);
    };
    let ledger = |name: &str| case.path(name).display().to_string();
    let (mine, other) = (ledger("mine.sqlite"), ledger("other.sqlite"));
    write("02:00:00", &[("u", "2h")]);
    case.gpferry(&["run", "--ledger", &mine]).expect(0).says("1 of 1 unit loaded, 2 rows");
    write("06:00:00", &[("t", "3h")]);
    case.gpferry(&["run", "--ledger", &other]).expect(0).says("2 of 2 units loaded, 6 rows");
    write("06:00:00", &[("t", "2h"), ("u", "2h")]);
    case.gpferry(&["export", "--ledger", &mine]).expect(0);
    case.gpferry(&["load", "--ledger", &mine])
        .expect(3)
        .says("overlaps what is loaded already")
        .says("2 of 5 units loaded, 4 rows");
    assert_eq!((case.count("SELECT count(*) FROM t"), case.count("SELECT count(*) FROM u")), (6, 6));
}

/// Has the script export four small units, one of them without a table, below a directory of its own: what it said.
fn packed_by_hand(case: &Case, before: &str) -> String {
    packed_by_hand_with(case, "", before)
}

/// As [`packed_by_hand`], with something beside it.
fn packed_by_hand_with(case: &Case, beside: &str, before: &str) -> String {
    let select = |table: &str| (table.to_owned(), format!("SELECT * FROM {table}"));
    asked_by_hand(case, &["a", "missing", "b", "c"].map(select), beside, before)
}

/// Has the script export small units: a directory, and a query, for each.
fn asked_by_hand(case: &Case, units: &[(String, String)], beside: &str, before: &str) -> String {
    let own = case.path("greenplum.sh");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/greenplum.sh"), &own).unwrap();
    let (lab, mount) = (lab(), case.path("mount"));
    fs::create_dir(&mount).unwrap();
    let set = |name: &str, value: &str| format!("set\t{name}\t{value}\n");
    let path = mount.display();
    let mut requests = "hello\t1\tN\t20\t60\n".to_owned();
    for (name, value) in [
        ("PGHOST", lab.get("LAB_SOURCE_SOCKET")),
        ("PGPORT", lab.get("LAB_SOURCE_PORT")),
        ("PGUSER", "gpadmin"),
        ("PGDATABASE", case.database()),
        ("MOUNT", &path.to_string()),
        ("PART", "r.1"),
        ("SMALL", "1"),
    ] {
        requests += &set(name, value);
    }
    for (no, (directory, sql)) in units.iter().enumerate() {
        requests += &format!("export\t{no}\t{path}/file2GP/s/{directory}/{no}.csv.gz\tauto\t{sql}\n");
    }
    fs::write(case.path("requests"), requests + "end\n").unwrap();
    let script = format!("{beside} {{ cat \"$1\"; sleep 5; }} | {before} bash \"$2\" export");
    let output = Command::new("bash")
        .args(["-c", &script, "packed"])
        .arg(case.path("requests"))
        .arg(own)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn files_below(case: &Case) -> Vec<String> {
    let found = Command::new("find").arg(case.path("mount")).args(["-type", "f"]).output().unwrap();
    let mut files: Vec<String> = String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect();
    files.sort();
    files
}

/// bash may read the end of a line and say in the same breath that its time is over: then the line is not lost.
#[test]
fn a_host_that_stands_still_now_and_then_loses_no_answer() {
    let case = small_tables("standstill");
    // Every half of a second that a `read` waits ends while bash stands still.
    let still = "(for i in 1 2 3 4 5 6; do sleep 0.1; pkill -STOP -f \"$2 export\"; sleep 0.7; pkill -CONT -f \"$2 export\"; done) &";
    let said = packed_by_hand_with(&case, still, "");
    assert_packed(&case, &said);
}

/// Every unit has its one answer, and its file holds its rows.
fn assert_packed(case: &Case, said: &str) {
    for no in [0, 2, 3] {
        assert!(said.contains(&format!("N\tok\t{no}\t2\t")), "{said}");
    }
    assert!(said.contains("N\terror\t1\t1\t42P01\t") && said.contains("N\tend\t0"), "{said}");
    let files = files_below(case);
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        let text = Command::new("gzip").args(["-dc", &file]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&text.stdout), "1,x\n2,\n", "{file}");
    }
}

#[test]
fn small_units_are_packed_by_perl() {
    let case = small_tables("packed");
    let said = packed_by_hand(&case, "");
    assert_packed(&case, &said);
}

/// More than psql is given at once; among them one that ends its session, one that is refused, one behind a link, one
/// whose name means no harm, and one that writes more than a pipe holds.
#[test]
fn what_is_not_plain_among_small_units_loses_no_other() {
    let case = small_tables("not_plain");
    let mut units: Vec<(String, String)> =
        (0..300).map(|n| (format!("d{n}"), format!("SELECT {n} AS n"))).collect();
    units[100].1 = "SELECT pg_terminate_backend(pg_backend_pid())".into();
    units[200].1 = "SELECT $$ $$".into();
    units[201].1 = "SELECT 201 AS \") TO PROGRAM 'x'\"".into();
    units[202].0 = "../s/d202".into();
    units[203].0 = "link".into();
    units[204].1 = "SELECT 204 AS n FROM generate_series(1, 100000)".into();
    let link = "mkdir -p \"${1%/*}/mount/file2GP/s\"; ln -s /tmp \"${1%/*}/mount/file2GP/s/link\";";
    let said = asked_by_hand(&case, &units, link, "");
    for no in 0..units.len() {
        let answer = match no {
            100 => "N\terror\t100\t2\t57P01\t".to_owned(),
            200 | 202 | 203 => format!("N\terror\t{no}\t1\t-\t"),
            204 => "N\tok\t204\t100000\t".into(),
            _ => format!("N\tok\t{no}\t1\t"),
        };
        assert_eq!(said.matches(&answer).count(), 1, "{answer} in {said}");
    }
    assert!(
        said.contains("dollar quote") && said.contains("symbolic link") && said.contains("N\tend\t0"),
        "{said}"
    );
    assert_eq!(files_below(&case).len(), units.len() - 4);
}

#[test]
fn and_by_gzip_where_perl_has_no_zlib() {
    let case = small_tables("no_zlib");
    let perl = case.path("perl");
    fs::write(&perl, "#!/bin/sh\ncase $2 in *Compress::Raw*) exit 2;; esac\nexec /usr/bin/perl \"$@\"\n")
        .unwrap();
    fs::set_permissions(&perl, fs::Permissions::from_mode(0o755)).unwrap();
    let said = packed_by_hand(&case, &format!("PATH={}:$PATH", case.path("").display()));
    assert_packed(&case, &said);
}

#[test]
fn a_flush_that_fails_fails_small_units_and_leaves_no_file() {
    let case = small_tables("small_quota");
    let strace = "strace -f -qq -o /dev/null -e trace=fsync -e inject=fsync:error=EDQUOT";
    let said = packed_by_hand(&case, strace);
    for no in [0, 2, 3] {
        assert!(said.contains(&format!("N\terror\t{no}\t1\t-\t")), "{said}");
    }
    assert!(said.contains("Disk quota exceeded") && said.contains("N\tend\t0"), "{said}");
    assert_eq!(files_below(&case), Vec::<String>::new());
}

/// A packer that dies says nothing of the units it holds: the batch ends without their answers, and they are asked for
/// again.
#[test]
fn a_packer_that_is_killed_ends_the_script_and_not_in_success() {
    let case = small_tables("packer_killed");
    // Killed when it first flushes a file: after everything was written, before anything was renamed.
    let strace = "strace -f -qq -o /dev/null -e trace=sync_file_range -e inject=sync_file_range:signal=KILL";
    let said = packed_by_hand(&case, strace);
    assert!(!said.contains("\tok\t") && said.contains("N\tend\t1"), "{said}");
    assert_eq!(files_below(&case), Vec::<String>::new());
}
