//! A file of which only the last part can collide is loaded by its parts, with the same outcome as by the whole.

use crate::greenplum;
use crate::support::{Case, Ran, Side};

/// 1000 rows, some of two lines; 400 and 990 stand twice, the second of 990 is the last row; 900 and 950 are in the
/// target, 950 as it is. The COPY gets as far as the second 400, which stands after 800.
fn case(name: &str, more: &str) -> Case {
    let mut case = Case::new(name);
    case.source
        .batch_execute(
            "CREATE TABLE t (id int, v text, at serial); \
             INSERT INTO t SELECT i, CASE WHEN i % 7 = 0 THEN E'two \"\\n\" lines' ELSE 'row' END FROM generate_series(1, 800) i; \
             INSERT INTO t VALUES (400, 'again'); \
             INSERT INTO t SELECT i, 'row' FROM generate_series(801, 997) i; INSERT INTO t VALUES (990, 'again'), (NULL, 'x'); \
             ALTER TABLE t DROP COLUMN at; DELETE FROM t WHERE id IS NULL",
        )
        .unwrap();
    case.target
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (900, 'other'), (950, 'row')",
        )
        .unwrap();
    case.target.batch_execute(more).unwrap();
    case.inventory(&["{ table: public.t, window: none, load: { on_pk_violation: quarantine } }"]);
    case
}

/// What must be there whichever way it went.
fn sorted(case: &mut Case, ran: &Ran) {
    assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
    let log = "SELECT rows_exported || ' ' || rows_loaded || ' ' || rows_rejected FROM gpferry.load_log";
    let logged: String = case.target.query_one(log, &[]).unwrap().get(0);
    assert_eq!(logged, "999 993 6");
    assert_eq!(case.count("SELECT count(*) FROM t"), 995);
    assert_eq!(case.count("SELECT count(*) FROM t WHERE id IN (400, 990)"), 0);
    assert_eq!(case.count("SELECT count(*) FROM t WHERE id = 900 AND v = 'other'"), 1);
    assert_eq!(case.count("SELECT count(*) FROM t WHERE v = E'two \"\\n\" lines'"), 114);
}

/// That the way by parts was begun, and left; on Greenplum it is never begun.
fn staged_whole(ran: Ran) {
    let ran = ran.silent_about("gpferry_pulled");
    if !greenplum::is_target() {
        ran.says("the whole file is staged");
    }
}

#[test]
fn only_what_can_collide_is_staged_and_rows_before_it_go_back_to_it() {
    let mut case = case("parts", "");
    let ran = case.gpferry(&["run", "-vv"]);
    sorted(&mut case, &ran);
    if greenplum::is_target() {
        // Its COPY does not tell the line of a collision.
        ran.silent_about("gpferry_pulled");
    } else {
        ran.says("gpferry_pulled").silent_about("the whole file is staged");
    }
}

#[test]
fn whoever_may_not_take_rows_away_stages_the_whole_file() {
    let mut case = case("parts_rights", "REVOKE ALL ON t FROM loader; GRANT INSERT, SELECT ON t TO loader");
    let ran = case.gpferry(&["run", "-vv"]);
    sorted(&mut case, &ran);
    staged_whole(ran);
}

#[test]
fn who_writes_into_the_table_meanwhile_is_not_waited_for() {
    let mut case = case("parts_writer", "");
    let mut other = Side::Target.connect(case.database());
    other.batch_execute("BEGIN; INSERT INTO t VALUES (5000, 'theirs')").unwrap();
    let ran = case.gpferry(&["run", "-vv"]);
    other.batch_execute("ROLLBACK").unwrap();
    sorted(&mut case, &ran);
    staged_whole(ran);
}

#[test]
fn two_constraints_see_the_whole_file() {
    let mut case = case("parts_two", "CREATE UNIQUE INDEX other ON t (id, v)");
    let ran = case.gpferry(&["run", "-vv"]);
    sorted(&mut case, &ran);
    ran.silent_about("gpferry_pulled");
}

/// A long file whose last row collides, and how often the table was vacuumed until it was loaded.
fn vacuumed(name: &str, more: &str) -> i64 {
    let mut case = Case::new(name);
    case.both("CREATE TABLE t (id int PRIMARY KEY, v text)");
    case.source.batch_execute("INSERT INTO t SELECT i, 'row' FROM generate_series(1, 30000) i").unwrap();
    case.target
        .batch_execute(&format!(
            "ALTER TABLE t SET (autovacuum_enabled = off); INSERT INTO t VALUES (30000, 'other'); {more}"
        ))
        .unwrap();
    case.inventory(&["{ table: public.t, window: none, load: { on_pk_violation: quarantine } }"]);
    case.gpferry(&["run"]).expect(3).says("1 row kept out");
    assert_eq!(
        case.count("SELECT count(*) FROM t WHERE (id < 30000) = (v = 'row')"),
        30_000 + case.count(BEFORE)
    );
    // The run's sessions are over, and have told what they did.
    case.target.batch_execute("SELECT pg_stat_clear_snapshot()").unwrap();
    case.count("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 't'")
}

/// Rows that were there before, other than the one that collides.
const BEFORE: &str = "SELECT count(*) FROM t WHERE id < 0 AND v = 'row'";

#[test]
fn dead_rows_of_a_long_file_are_taken_away_before_its_rows_come_again() {
    if greenplum::leaves_out("VACUUM after a collision", "its COPY tells no line") {
        return;
    }
    assert_eq!(vacuumed("dead", "ALTER TABLE t OWNER TO loader"), 1);
}

#[test]
fn another_s_table_and_one_much_larger_than_the_file_are_not_vacuumed() {
    if greenplum::leaves_out("VACUUM after a collision", "its COPY tells no line") {
        return;
    }
    assert_eq!(vacuumed("dead_others", ""), 0);
    let large =
        "ALTER TABLE t OWNER TO loader; INSERT INTO t SELECT -i, 'row' FROM generate_series(1, 400000) i";
    assert_eq!(vacuumed("dead_large", large), 0);
}
