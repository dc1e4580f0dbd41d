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
        ran.says("not by parts");
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
        ran.says("gpferry_pulled").says("all rows after line");
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

#[test]
fn what_another_constraint_refused_and_what_is_only_told_is_not_loaded_by_parts() {
    if greenplum::leaves_out("unique indexes over expressions", "they need the distribution key") {
        return;
    }
    let mut case = case("parts_odd", "DELETE FROM t; CREATE UNIQUE INDEX odd ON t ((-id))");
    case.source.batch_execute("DELETE FROM t WHERE v = 'again'").unwrap();
    case.target.batch_execute("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD UNIQUE (id, v)").unwrap();
    case.target.batch_execute("INSERT INTO t VALUES (600, 'other')").unwrap();
    let ran = case.gpferry(&["run", "-vv"]).expect(3).says("gpferry cannot sort rows by it");
    ran.silent_about("gpferry_pulled").silent_about("the whole file is staged");
    case.inventory(&["{ table: public.t, window: none }"]);
    case.target.batch_execute("DROP INDEX odd; DELETE FROM t; ALTER TABLE t ADD PRIMARY KEY (id)").unwrap();
    case.target
        .batch_execute("ALTER TABLE t DROP CONSTRAINT t_id_v_key; INSERT INTO t VALUES (600, 'x')")
        .unwrap();
    case.gpferry(&["run", "-vv"]).expect(3).says("1 of 997 rows collides").silent_about("gpferry_pulled");
}

#[test]
fn rows_before_the_line_that_collide_by_then_are_sorted_with_the_others() {
    // What is there is another row at each try: a sequence is not taken back.
    let mut case = case("parts_moving", "DELETE FROM t; CREATE SEQUENCE tries; GRANT ALL ON tries TO loader");
    case.source.batch_execute("DELETE FROM t WHERE v = 'again'").unwrap();
    let before = "INSERT INTO t SELECT 900 - 100 * nextval('tries'), 'theirs'";
    case.inventory(&[&format!(
        "{{ table: public.t, window: none, load: {{ on_pk_violation: quarantine, before: \"{before}\" }} }}"
    )]);
    let ran = case.gpferry(&["run", "-vv"]).expect(3);
    assert_eq!(case.count("SELECT count(*) FROM t"), 997);
    assert_eq!(case.count("SELECT count(*) FROM t WHERE id = 700 AND v = 'theirs'"), 1);
    staged_whole(ran);
}

#[test]
fn a_row_that_does_not_fit_after_one_that_collides_is_kept_out_too() {
    let mut case = Case::new("parts_misfit");
    case.source
        .batch_execute(
            "CREATE TABLE t (id text, v text); INSERT INTO t SELECT i, 'row' FROM generate_series(1, 400) i; \
             INSERT INTO t VALUES ('7', 'again'); \
             INSERT INTO t SELECT i, 'row' FROM generate_series(401, 6000) i; INSERT INTO t VALUES ('bad', 'last')",
        )
        .unwrap();
    case.target.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text)").unwrap();
    let load = "{ on_pk_violation: quarantine, reject_limit: 1 rows }";
    case.inventory(&[&format!("{{ table: public.t, window: none, load: {load} }}")]);
    case.gpferry(&["run"]).expect(3).says("1 of 1 unit loaded, 5999 rows").says("3 rows kept out");
    assert_eq!(case.count("SELECT count(*) FROM t"), 5999);
}

/// One row of a file that collides, wherever it stands, and whatever with: only that row is staged.
#[test]
fn a_single_row_that_collides_is_staged_alone() {
    let collides = [
        // The first, one in the middle, the last; of another row and of the same; and a row whose key stood before.
        ("first", "", "INSERT INTO t VALUES (1, 'other')", 1, 1),
        ("middle", "", "INSERT INTO t VALUES (500, 'other')", 1, 1),
        ("same", "", "INSERT INTO t VALUES (500, 'row')", 1, 1),
        ("last", "", "INSERT INTO t VALUES (1000, 'other')", 1, 1),
        (
            "twice",
            "INSERT INTO t VALUES (600, 'again'); INSERT INTO t SELECT i, 'row' FROM generate_series(1001, 1500) i",
            "",
            2,
            0,
        ),
    ];
    for (name, more, there, kept_out, before) in collides {
        let mut case = Case::new(&format!("alone_{name}"));
        case.source
            .batch_execute(&format!(
                "CREATE TABLE t (id int, v text); INSERT INTO t SELECT i, CASE WHEN i % 7 = 0 THEN E'two \"\\n\" lines' ELSE 'row' END \
                 FROM generate_series(1, 1000) i; {more}"
            ))
            .unwrap();
        case.target.batch_execute(&format!("CREATE TABLE t (id int PRIMARY KEY, v text); {there}")).unwrap();
        case.inventory(&["{ table: public.t, window: none, load: { on_pk_violation: quarantine } }"]);
        let ran = case.gpferry(&["run", "-vv"]).expect(3);
        let ran = ran.says(&format!("{kept_out} rows kept out").replace("1 rows", "1 row"));
        if !greenplum::is_target() {
            ran.says("gpferry_pulled").silent_about("not by parts");
        }
        let rows = case.source.query_one("SELECT count(*) FROM t", &[]).unwrap().get::<_, i64>(0);
        assert_eq!(case.count("SELECT count(*) FROM t"), rows - kept_out + before, "{name}");
        assert_eq!(case.count("SELECT rows_rejected FROM gpferry.load_log"), kept_out, "{name}");
        assert_eq!(case.count("SELECT count(*) FROM t WHERE id = 600"), i64::from(name != "twice"));
    }
}
