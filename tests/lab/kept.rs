//! Conversations with a source's script that go from hand to hand.

use std::process::Stdio;
use std::time::Duration;

use crate::ends::{sessions, wait_for};
use crate::greenplum;
use crate::support::{Case, ran};

/// How many scripts were begun, as a log of level debug says.
fn scripts(log: &str) -> usize {
    log.lines().filter(|line| line.contains("answers") && line.contains("script")).count()
}

#[test]
fn a_source_of_one_session_is_listed_described_and_exported_in_one_conversation() {
    let mut case = Case::new("one_talk");
    for n in 0..3 {
        case.both(&format!("CREATE TABLE t{n} (id int PRIMARY KEY)"));
        case.source.batch_execute(&format!("INSERT INTO t{n} VALUES (1), (2)")).unwrap();
    }
    case.inventory_with("    sessions: 1\n", "", &["{ tables: \"public.*\", window: none }"]);
    let ran = case.gpferry(&["run", "-vv"]).expect(0).says("3 of 3 units loaded, 6 rows");
    assert_eq!(scripts(&ran.stderr), 1, "{}", ran.stderr);
}

#[test]
fn an_export_in_a_kept_session_has_its_own_name_and_limit() {
    let mut case = Case::new("kept_settings");
    case.source
        .batch_execute(
            "CREATE VIEW v AS SELECT current_setting('application_name') AS app, current_setting('statement_timeout') AS most",
        )
        .unwrap();
    case.target.batch_execute("CREATE TABLE v (app text, most text)").unwrap();
    case.inventory(&["{ table: public.v, window: none, export: { timeout: 7m } }"]);
    let ran = case.gpferry(&["run", "-vv"]).expect(0).says("1 of 1 unit loaded, 1 row");
    assert_eq!(scripts(&ran.stderr), 1, "{}", ran.stderr);
    let run: String = case.target.query_one("SELECT run FROM gpferry.load_log", &[]).unwrap().get(0);
    let row = case.target.query_one("SELECT app, most FROM v", &[]).unwrap();
    assert_eq!((row.get::<_, String>(0), row.get::<_, String>(1)), (format!("gpferry {run}"), "7min".into()));
}

#[test]
fn a_conversation_that_was_left_too_long_is_not_taken_up_again() {
    let mut case = Case::new("left_long");
    case.source.batch_execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)").unwrap();
    case.inventory(&["{ table: public.t, window: none, export: { retries: 0 } }"]);
    // Between the questions to the source and its export the run waits in the target, until the script has given it up.
    case.target
        .batch_execute(
            "CREATE FUNCTION hold() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF current_query() LIKE '%\"t\"%' THEN PERFORM pg_advisory_lock(1); END IF; END $$; \
             CREATE EVENT TRIGGER hold ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE PROCEDURE hold(); \
             SELECT pg_advisory_lock(1)",
        )
        .unwrap();
    let args = ["run", "--create-tables", "-vv"];
    let child = case.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let held = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE {} AND datname = current_database()",
        greenplum::waits_for_a_lock()
    );
    wait_for("the run waits in the target", Duration::from_secs(60), || case.count(&held) > 0);
    wait_for("the script has given up", Duration::from_secs(60), || sessions(&mut case) == 0);
    case.target.batch_execute("SELECT pg_advisory_unlock(1)").unwrap();
    let ran = ran(child.wait_with_output().unwrap()).expect(0).says("1 of 1 unit loaded, 2 rows");
    assert_eq!(scripts(&ran.stderr), 2, "{}", ran.stderr);
}
