//! On an initial load that makes the table, its key is built after its rows; and whatever dies in between, it is built.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::ends::wait_for;
use crate::greenplum;
use crate::support::{Case, ran};

const ROWS: i64 = 30_000;

/// A table that is large enough, and that the source knows to be.
fn large(case: &mut Case, table: &str) {
    case.source
        .batch_execute(&format!(
            "CREATE TABLE {table} (a int, \"B b\" text, at timestamp, note text, PRIMARY KEY (\"B b\", a)); \
             INSERT INTO {table} SELECT i, 'k' || i % 10, timestamp '2021-08-10' + i % 2 * interval '1 hour', 'n' \
             FROM generate_series(1, {ROWS}) i; ANALYZE {table}"
        ))
        .unwrap();
}

fn has_key(case: &mut Case, table: &str) -> bool {
    let sql = "SELECT count(*) FROM pg_constraint WHERE contype = 'p' AND conrelid = to_regclass";
    case.count(&format!("{sql}('{table}')")) == 1
}

fn comments(case: &mut Case) -> i64 {
    case.count("SELECT count(*) FROM pg_description WHERE description LIKE 'gpferry%'")
}

/// Lets whoever builds a key over rows of `t` wait for an advisory lock that this test's session holds.
fn hold(case: &mut Case) {
    case.target
        .batch_execute(
            "CREATE FUNCTION hold() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF to_regclass('public.t') IS NOT NULL THEN IF EXISTS (SELECT 1 FROM public.t) THEN \
             PERFORM pg_advisory_lock(1); END IF; END IF; END $$; \
             CREATE EVENT TRIGGER hold ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE PROCEDURE hold(); \
             SELECT pg_advisory_lock(1)",
        )
        .unwrap();
}

/// Starts a run that comes to build the key of `t`.
fn building(case: &mut Case) -> Child {
    let args = ["run", "--create-tables"];
    let mut child = case.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE {} AND datname = current_database() AND query LIKE '%ADD PRIMARY KEY%'",
        greenplum::waits_for_a_lock()
    );
    wait_for("the key is being built", Duration::from_secs(60), || {
        assert!(child.try_wait().unwrap().is_none(), "the run is over");
        case.count(&waiting) > 0
    });
    child
}

fn let_go(case: &mut Case) {
    case.target.batch_execute("SELECT pg_advisory_unlock(1)").unwrap();
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'gpferry'";
    wait_for("the sessions are gone", Duration::from_secs(30), || case.count(others) == 0);
    case.target.batch_execute("DROP EVENT TRIGGER hold").unwrap();
}

/// A world whose table `t` is loaded and has no key, since the runner was killed between the two.
fn killed_between(name: &str) -> Case {
    let mut case = Case::new(name);
    large(&mut case, "t");
    case.inventory(&["{ table: public.t, window: none }"]);
    hold(&mut case);
    let mut run = building(&mut case);
    run.kill().unwrap();
    run.wait().unwrap();
    let_go(&mut case);
    assert_eq!(case.count("SELECT count(*) FROM t"), ROWS);
    assert!(!has_key(&mut case, "t"));
    case
}

#[test]
fn a_large_table_gets_its_key_after_its_rows_and_a_small_one_at_once() {
    if greenplum::leaves_out("when keys come", "its event triggers do not say of which table") {
        return;
    }
    let mut case = Case::new("keys");
    for table in ["t", "merged", "sorted"] {
        large(&mut case, table);
    }
    case.source
        .batch_execute("CREATE TABLE small (id int PRIMARY KEY); INSERT INTO small VALUES (1)")
        .unwrap();
    // Says which tables had rows when their key came.
    case.target
        .batch_execute(
            "CREATE TABLE late (name text); GRANT ALL ON late TO loader; \
             CREATE FUNCTION see() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE one record; n bigint; BEGIN \
             FOR one IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_identity LIKE 'public.%' LOOP \
             EXECUTE 'SELECT count(*) FROM ' || one.object_identity INTO n; \
             IF n > 0 THEN INSERT INTO late VALUES (one.object_identity); END IF; END LOOP; END $$; \
             CREATE EVENT TRIGGER see ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE PROCEDURE see()",
        )
        .unwrap();
    case.inventory(&[
        "{ table: public.t, window: none }",
        "{ table: public.small, window: none }",
        "{ table: public.merged, window: none, load: { mode: merge } }",
        "{ table: public.sorted, window: none, load: { on_pk_violation: skip_identical } }",
    ]);
    let ran = case.gpferry(&["run", "--create-tables", "--format", "json"]).expect(0).json();
    assert_eq!(ran["totals"]["keys_built"], 1, "{ran}");
    assert_eq!(ran["keys"][0]["table"], "public.t", "{ran}");
    assert_eq!(ran["keys"][0]["columns"], serde_json::json!(["B b", "a"]), "{ran}");
    assert_eq!(case.count("SELECT count(*) FROM late"), 1);
    for table in ["t", "merged", "sorted", "small"] {
        assert!(has_key(&mut case, table), "{table}");
        case.assert_same(&format!("SELECT * FROM {table} ORDER BY 1"));
    }
    assert_eq!(comments(&mut case), 0);
    case.gpferry(&["status"]).expect(0).silent_about("key owed");
}

#[test]
fn a_runner_that_is_killed_between_rows_and_key_leaves_word_of_it_and_the_next_run_builds_it() {
    let mut case = killed_between("keys_killed");
    for command in ["status", "plan"] {
        case.gpferry(&[command]).expect(0).says("key owed: public.t (B b, a)");
    }
    // The word of it is in the target: a ledger that is deleted changes nothing.
    std::fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
    case.gpferry(&["plan"]).expect(0).says("0 units to move").says("key owed: public.t (B b, a)");
    // Another job's run leaves it alone.
    let text = std::fs::read_to_string(case.path("inventory.yml")).unwrap();
    std::fs::write(
        case.path("inventory.yml"),
        text + "  other:\n    source: s\n    tables: [ { table: public.x, window: none } ]\n",
    )
    .unwrap();
    case.source.batch_execute("CREATE TABLE x (id int)").unwrap();
    case.gpferry(&["run", "--create-tables", "--job", "other"]).expect(0).silent_about("key built");
    assert!(!has_key(&mut case, "t"));
    case.gpferry(&["run"]).expect(0).says("0 of 0 units loaded, 0 rows, 0 B, 1 key built");
    assert!(has_key(&mut case, "t"));
    assert_eq!(comments(&mut case), 0);
    case.gpferry(&["status"]).expect(0).silent_about("key owed");
    case.gpferry(&["run"]).expect(0).silent_about("key");
}

#[test]
fn rows_that_share_a_key_are_counted_and_the_key_comes_once_they_are_gone() {
    let mut case = killed_between("keys_collide");
    case.target
        .batch_execute(
            "INSERT INTO t SELECT * FROM t WHERE a <= 3; INSERT INTO t SELECT * FROM t WHERE a = 1",
        )
        .unwrap();
    case.gpferry(&["run"])
        .expect(3)
        .says("KEY NOT BUILT: public.t")
        .says("keys that stand on more than one row: 3; rows that are too many: 5")
        .says("SELECT \"B b\", \"a\", count(*) FROM \"public\".\"t\" GROUP BY")
        .says("1 key not built");
    assert!(!has_key(&mut case, "t"));
    case.target
        .batch_execute(
            "CREATE TABLE once AS SELECT DISTINCT * FROM t; TRUNCATE t; INSERT INTO t SELECT * FROM once; DROP TABLE once",
        )
        .unwrap();
    case.gpferry(&["run"]).expect(0).says("1 key built");
    case.assert_same("SELECT * FROM t ORDER BY a");
}

#[test]
fn another_comment_is_kept_and_another_table_is_left_alone() {
    let mut case = killed_between("keys_comment");
    case.target.batch_execute("COMMENT ON TABLE t IS 'the operator''s own'").unwrap();
    case.gpferry(&["run"]).expect(0).says("1 key built");
    assert_eq!(
        case.count("SELECT count(*) FROM pg_description WHERE description = 'the operator''s own'"),
        1
    );
    let mut case = killed_between("keys_remade");
    case.target.batch_execute("CREATE TABLE u (LIKE t); DROP TABLE t; ALTER TABLE u RENAME TO t").unwrap();
    case.gpferry(&["run"]).expect(0).silent_about("key built");
    assert!(!has_key(&mut case, "t"));
    case.gpferry(&["status"]).expect(0).silent_about("key owed");
}

#[test]
fn a_stop_while_a_key_is_built_leaves_it_to_the_next_run() {
    let mut case = Case::new("keys_stop");
    large(&mut case, "t");
    case.inventory(&["{ table: public.t, window: none }"]);
    hold(&mut case);
    let mut run = building(&mut case);
    assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
    wait_for("it ended", Duration::from_secs(20), || run.try_wait().unwrap().is_some());
    ran(run.wait_with_output().unwrap()).expect(130).says("1 of 1 unit loaded").says("key owed: public.t");
    let_go(&mut case);
    assert!(!has_key(&mut case, "t"));
    case.gpferry(&["run"]).expect(0).says("1 key built");
}

#[test]
fn the_key_comes_though_a_window_failed_and_the_window_comes_after_it() {
    let mut case = Case::new("keys_failed");
    large(&mut case, "t");
    let window = "window: { column: at, length: 1h }";
    let entry = format!("{{ table: public.t, {window}, where: \"1 / (a - 5) IS NOT NULL\" }}");
    case.inventory_with("", "    from: 2021-08-10\n    until: 2021-08-10 02:00:00\n", &[&entry]);
    case.gpferry(&["run", "--create-tables"]).expect(3).says("1 of 2 units loaded").says("1 key built");
    assert!(has_key(&mut case, "t"));
    // What is in the target keeps its rows apart from those to come.
    case.source.batch_execute("UPDATE t SET a = 200000 WHERE a = 5").unwrap();
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded");
    case.assert_same("SELECT * FROM t ORDER BY a");
}

#[test]
fn slices_are_all_loaded_before_the_key_is_built() {
    let mut case = Case::new("keys_slices");
    large(&mut case, "t");
    // Says how many rows the table had when its key came.
    case.target
        .batch_execute(
            "CREATE TABLE at_key (n bigint); GRANT ALL ON at_key TO loader; \
             CREATE FUNCTION see() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF to_regclass('public.t') IS NOT NULL THEN INSERT INTO at_key SELECT count(*) FROM public.t; END IF; \
             END $$; CREATE EVENT TRIGGER see ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE PROCEDURE see()",
        )
        .unwrap();
    case.inventory(&["{ table: public.t, window: none, export: { slice_bytes: 256KiB } }"]);
    let ran = case.gpferry(&["run", "--create-tables", "--format", "json"]).expect(0).json();
    assert!(ran["totals"]["units"].as_u64().unwrap() > 1, "{ran}");
    assert_eq!(ran["totals"]["keys_built"], 1, "{ran}");
    assert_eq!(case.count("SELECT max(n) FROM at_key"), ROWS);
    case.assert_same("SELECT * FROM t ORDER BY a");
}

#[test]
fn what_needs_the_key_gets_it_before_its_rows() {
    let mut case = killed_between("keys_first");
    // It may or may not have heard of the load.
    std::fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
    case.edit_inventory("window: none }", "window: none, every: 1ms, load: { mode: merge } }");
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded, 30000 rows").says("1 key built");
    case.assert_same("SELECT * FROM t ORDER BY a");
}
