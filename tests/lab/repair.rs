//! `repair`: what differs is moved again, whole or not at all, and nothing is lost on the way.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::greenplum;
use crate::proxy::{Cut, Proxy};
use crate::support::{Case, Side, lab};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, at timestamp, v text)";
const DAY: &str = "    from: 2021-08-10 00:00:00\n    until: 2021-08-11 00:00:00\n";

/// A day in windows of four hours, with 240 rows, moved.
fn moved(name: &str, create: &str) -> Case {
    let mut case = Case::new(name);
    case.both(create);
    case.source
        .batch_execute(
            "INSERT INTO t SELECT i, timestamp '2021-08-10' + i * interval '6 minutes', 'v' || i FROM generate_series(0, 239) i",
        )
        .unwrap();
    case.inventory_with("", DAY, &["{ table: public.t, window: { column: at, length: 4h } }"]);
    case.gpferry(&["run"]).expect(0);
    case
}

/// One row of the load log for each window, with its rows; and what `status` says.
#[track_caller]
fn assert_books(case: &mut Case, units: i64, rows: i64) {
    let log = "SELECT count(*)::bigint FROM gpferry.load_log";
    assert_eq!(case.count(log), units);
    assert_eq!(case.count("SELECT sum(rows_loaded)::bigint FROM gpferry.load_log"), rows);
    let status = case.gpferry(&["status", "--format", "json"]).expect(0).json();
    let table = &status["tables"][0];
    assert_eq!((table["loaded"].as_i64(), table["rows"].as_i64()), (Some(units), Some(rows)), "{table}");
    assert_eq!(table["failed"], 0);
}

#[test]
fn what_differs_is_moved_again_and_nothing_else() {
    let mut case = moved("repair", TABLE);
    case.gpferry(&["repair"]).expect(0).says("nothing is known to differ");
    case.target
        .batch_execute("DELETE FROM t WHERE id IN (3, 4); UPDATE t SET v = NULL WHERE id = 100")
        .unwrap();
    case.gpferry(&["compare", "--deep"]).expect(4);
    let untouched = "SELECT count(*) FROM gpferry.load_log WHERE mode = 'insert'";
    let ran = case.gpferry(&["repair", "--dry-run"]).expect(0).says("2 windows: would be moved again");
    ran.says("would be moved again (replace)");
    assert_eq!((case.count("SELECT count(*) FROM t"), case.count(untouched)), (238, 6));
    case.gpferry(&["repair"]).expect(0).says("moved again (40 rows), equal").says("2 windows: repaired");
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_eq!(case.count(untouched), 4);
    assert_books(&mut case, 6, 240);
    case.gpferry(&["compare", "--deep"]).expect(0);
    case.gpferry(&["repair"]).expect(0).says("nothing is known to differ");
    // Neither a run nor a ledger that was deleted finds anything to move.
    case.gpferry(&["run"]).expect(0).says("0 of 0 units");
    std::fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
    case.gpferry(&["run"]).expect(0).says("0 of 0 units");
    assert_books(&mut case, 6, 240);
}

#[test]
fn rows_that_only_the_target_has_stay_unless_that_is_said() {
    let mut case = moved("repair_extra", TABLE);
    case.target
        .batch_execute(
            "INSERT INTO t VALUES (1000, '2021-08-10 00:01', 'x'), (1001, '2021-08-10 05:01', 'x'); \
             UPDATE t SET v = 'y' WHERE id = 0",
        )
        .unwrap();
    case.gpferry(&["compare", "--deep"]).expect(4);
    let ran =
        case.gpferry(&["repair"]).expect(4).says("`--delete-extra` deletes what the source does not have");
    // The window with a changed row is merged: that row is right again, and the other is there still.
    ran.says("moved again, DIFFERS still: 0 missing, 1 only in the target, 0 changed");
    assert_eq!(case.count("SELECT count(*) FROM t WHERE id >= 1000 OR v = 'v0'"), 3);
    case.gpferry(&["repair", "--delete-extra"]).expect(0).says("2 windows: repaired");
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_books(&mut case, 6, 240);
}

#[test]
fn without_a_key_a_window_is_replaced_or_left() {
    let mut case = moved("repair_keyless", "CREATE TABLE t (id int, at timestamp, v text)");
    case.target.batch_execute("DELETE FROM t WHERE id = 3").unwrap();
    case.gpferry(&["compare"]).expect(4).says("1 missing");
    case.gpferry(&["repair"]).expect(0).says("moved again (40 rows), equal");
    case.target.batch_execute("UPDATE t SET v = 'y' WHERE id = 3").unwrap();
    case.gpferry(&["compare", "--deep"])
        .expect(4)
        .says("1 missing, 1 only in the target")
        .says("no key is known");
    case.gpferry(&["repair"]).expect(4).says("without a key nobody can tell which");
    case.gpferry(&["repair", "--delete-extra"]).expect(0);
    case.assert_same("SELECT * FROM t ORDER BY id");
}

#[test]
fn many_windows_are_moved_only_when_that_is_said() {
    let mut case = moved("repair_many", TABLE);
    case.target.batch_execute("DELETE FROM t WHERE id % 40 = 0").unwrap();
    case.gpferry(&["compare"]).expect(4);
    let ran = case.gpferry(&["repair", "--max-windows", "5"]).expect(2);
    ran.says("6 windows would be moved again, and --max-windows is 5").says("--yes");
    assert_eq!(case.count("SELECT count(*) FROM t"), 234);
    let some = ["--from", "2021-08-10 04:00", "--until", "2021-08-10 08:00"];
    case.gpferry(&[&["repair", "--max-windows", "1"], &some[..]].concat())
        .expect(0)
        .says("1 window: repaired");
    assert_eq!(case.count("SELECT count(*) FROM t"), 235);
    case.gpferry(&["repair", "--max-windows", "1", "--yes"]).expect(0).says("5 windows: repaired");
    case.assert_same("SELECT * FROM t ORDER BY id");
}

#[test]
fn a_repair_that_dies_leaves_what_was_there() {
    let mut case = moved("repair_killed", TABLE);
    case.target.batch_execute("DELETE FROM t WHERE id = 3; UPDATE t SET v = 'y' WHERE id = 5").unwrap();
    case.gpferry(&["compare", "--deep"]).expect(4);
    // It stops at the load log, with the rows of the window replaced and nothing committed.
    let mut holder = Side::Target.connect(case.database());
    holder.batch_execute("BEGIN; LOCK TABLE gpferry.load_log IN SHARE MODE").unwrap();
    let mut child = case.command(&["repair"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {} \
                   AND query LIKE 'DELETE FROM%load_log%'",
        greenplum::waits_for_a_lock()
    );
    let until = Instant::now() + Duration::from_secs(60);
    while case.count(&waiting) == 0 {
        assert!(
            Instant::now() < until && child.try_wait().unwrap().is_none(),
            "it never came to the load log"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    holder.batch_execute("ROLLBACK").unwrap();
    let gone = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'gpferry'";
    while case.count(gone) > 0 {
        assert!(Instant::now() < until, "its session never ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(case.count("SELECT count(*) FROM t WHERE v = 'y' OR id <> 5"), 239);
    assert_books(&mut case, 6, 240);
    case.gpferry(&["run"]).expect(0).says("0 of 0 units");
    case.gpferry(&["repair"]).expect(0).says("1 window: repaired");
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_books(&mut case, 6, 240);
}

#[test]
fn a_window_that_changes_after_it_was_compared_is_not_replaced() {
    let mut case = moved("repair_guard", TABLE);
    case.target.batch_execute("DELETE FROM t WHERE id = 3").unwrap();
    case.gpferry(&["compare"]).expect(4);
    // It waits for the table's lock, with its look at the window behind it.
    let mut holder = Side::Target.connect(case.database());
    holder.batch_execute("BEGIN; INSERT INTO t VALUES (2000, '2021-08-10 00:02', 'late')").unwrap();
    let command = case.command(&["repair"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {} \
                   AND query LIKE 'LOCK TABLE%'",
        greenplum::waits_for_a_lock()
    );
    let until = Instant::now() + Duration::from_secs(60);
    while case.count(&waiting) == 0 {
        assert!(Instant::now() < until, "it never came to the table");
        std::thread::sleep(Duration::from_millis(20));
    }
    holder.batch_execute("COMMIT").unwrap();
    let ran = crate::support::ran(command.wait_with_output().unwrap()).expect(3);
    ran.says("is not as it was compared in this window: 39 rows then, 40 now; nothing was taken away");
    assert_eq!(case.count("SELECT count(*) FROM t WHERE id = 2000"), 1);
    assert_books(&mut case, 6, 240);
}

#[test]
fn whole_tables_ids_and_rows_without_a_time_are_repaired_too() {
    let mut case = Case::new("repair_kinds");
    case.both("CREATE TABLE w (id int PRIMARY KEY, v text); CREATE TABLE n (id int PRIMARY KEY, at timestamp); CREATE TABLE i (id int PRIMARY KEY, v text)");
    case.source
        .batch_execute(
            "INSERT INTO w SELECT i, 'v' || i FROM generate_series(1, 50) i; \
             INSERT INTO n SELECT i, CASE WHEN i % 2 = 0 THEN timestamp '2021-08-10 01:00' END FROM generate_series(1, 50) i; \
             INSERT INTO i SELECT i, 'v' || i FROM generate_series(1, 50) i",
        )
        .unwrap();
    case.inventory_with(
        "",
        DAY,
        &[
            "{ table: public.w, window: none, every: 1d, load: { mode: replace } }",
            "{ table: public.n, window: { column: at, length: 1d, null_window: include } }",
            "{ table: public.i, window: { column: id, type: id, step: 20, lag: 0 } }",
        ],
    );
    case.gpferry(&["run"]).expect(0);
    case.gpferry(&["compare", "--deep"]).expect(0).says("4 of 4 tables equal");
    case.target
        .batch_execute(
            "UPDATE w SET v = NULL WHERE id = 7; DELETE FROM n WHERE id = 9; DELETE FROM i WHERE id IN (20, 21)",
        )
        .unwrap();
    let log = "SELECT count(*) FROM gpferry.load_log";
    let before = case.count(log);
    let ran = case.gpferry(&["compare", "--deep"]).expect(4).says("changed (id)=(7)");
    ran.says("missing (id)=(9)").says("missing (id)=(20)").says("missing (id)=(21)");
    case.gpferry(&["repair"]).expect(0);
    for table in ["w", "n", "i"] {
        case.assert_same(&format!("SELECT * FROM {table} ORDER BY id"));
    }
    assert_eq!(case.count(log), before);
    case.gpferry(&["run"]).expect(0).says("0 of 0 units");
}

/// The load log holds a row of that unit either way: only one of this run says that it was done.
fn a_commit_is_cut(name: &str, cut: Cut) {
    let mut case = Case::new(name);
    case.both(TABLE);
    case.source
        .batch_execute("INSERT INTO t SELECT i, '2021-08-10 01:00', 'v' || i FROM generate_series(1, 50) i")
        .unwrap();
    case.inventory_with("", DAY, &["{ table: public.t, window: { column: at, length: 4h } }"]);
    let proxy = Proxy::new("127.0.0.1", lab().get("LAB_TARGET_PORT").parse().unwrap());
    let direct = format!("127.0.0.1:{}/{}", lab().get("LAB_TARGET_PORT"), case.database());
    case.edit_inventory(&direct, &format!("127.0.0.1:{}/{}?sslmode=disable", proxy.port(), case.database()));
    let password = std::fs::read_to_string(lab().get("LAB_PGPASSFILE")).unwrap();
    let password = password.lines().next().unwrap().rsplit(':').next().unwrap().to_owned();
    let with = [("PGPASSWORD", password.as_str())];
    case.gpferry_with(&["run"], &with).expect(0);
    case.target.batch_execute("UPDATE t SET v = 'y' WHERE id = 3").unwrap();
    case.gpferry_with(&["compare", "--deep"], &with).expect(4);
    proxy.cut_at_commit(cut);
    let ran = case.gpferry_with(&["repair"], &with).expect(0);
    assert_eq!(proxy.hits(), 1, "no COMMIT passed the proxy");
    ran.says("moved again (50 rows), equal");
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_eq!(case.count("SELECT count(*) FROM gpferry.load_log WHERE mode = 'replace'"), 1);
}

#[test]
fn a_repair_whose_answer_was_lost_is_done() {
    a_commit_is_cut("repair_commit_after", Cut::After);
}

#[test]
fn a_repair_whose_commit_never_arrived_is_done_again() {
    a_commit_is_cut("repair_commit_before", Cut::Before);
}

#[test]
fn what_was_moved_in_slices_is_replaced_as_one() {
    let mut case = Case::new("repair_slices");
    case.both("CREATE TABLE t (id int PRIMARY KEY, v text)");
    case.source
        .batch_execute(
            "INSERT INTO t SELECT i, repeat('x', i % 90) FROM generate_series(1, 20000) i; ANALYZE t",
        )
        .unwrap();
    case.inventory(&["{ table: public.t, window: none, export: { slice_bytes: 256KiB } }"]);
    case.gpferry(&["run"]).expect(0);
    assert!(case.count("SELECT count(*) FROM gpferry.load_log") >= 3);
    case.target.batch_execute("DELETE FROM t WHERE id = 777; UPDATE t SET v = 'z' WHERE id = 19000").unwrap();
    case.gpferry(&["compare", "--deep"]).expect(4).says("missing (id)=(777)").says("changed (id)=(19000)");
    case.gpferry(&["repair"]).expect(0).says("moved again (20000 rows), equal");
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_books(&mut case, 1, 20_000);
    case.gpferry(&["run"]).expect(0).says("already loaded");
    std::fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
    case.gpferry(&["run"]).expect(0).says("already loaded");
}

#[test]
fn rows_of_others_in_the_same_table_are_never_taken_away() {
    let mut case = Case::new("repair_shared");
    case.both("CREATE TABLE t (id int PRIMARY KEY, v text, site text); CREATE TABLE u (id int PRIMARY KEY, v text, site text)");
    case.source
        .batch_execute("INSERT INTO t SELECT i, 'v', 'a' FROM generate_series(1, 9) i; INSERT INTO u SELECT i, 'v', 'b' FROM generate_series(11, 19) i")
        .unwrap();
    let told = |site: &str| format!("window: none, compare: {{ where: \"site = '{site}'\" }} }}");
    case.inventory(&[
        &format!("{{ table: public.t, {}", told("a")),
        &format!("{{ table: public.u, target: public.t, {}", told("b")),
    ]);
    case.gpferry(&["run"]).expect(0);
    case.target.batch_execute("DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (10, 'x', 'a')").unwrap();
    case.gpferry(&["compare"]).expect(0);
    case.gpferry(&["compare", "--deep"]).expect(4);
    case.gpferry(&["repair", "--delete-extra"]).expect(4).says("1 only in the target");
    assert_eq!(case.count("SELECT count(*) FROM t"), 19);
    case.gpferry(&["repair", "--delete-extra"]).expect(4).says("so it is not emptied");
    assert_eq!(case.count("SELECT count(*) FROM t"), 19);
}
