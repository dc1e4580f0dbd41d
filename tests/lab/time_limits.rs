//! Each thing that may take for ever has a limit, and the error names it and the key that sets it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::ends::wait_for;
use crate::greenplum;
use crate::support::{Case, Side, lab, ran};

/// A table of one row that waits in the mount's queue, and its inventory entry with these load rules.
fn one_row(name: &str, rules: &str) -> Case {
    let mut case = Case::new(name);
    case.both("CREATE TABLE t (id int)");
    case.source.batch_execute("INSERT INTO t VALUES (1)").unwrap();
    case.inventory(&[&format!("{{ table: public.t, window: none, {rules} }}")]);
    case
}

#[test]
fn a_load_that_waits_too_long_for_a_lock_names_its_limit() {
    if greenplum::leaves_out("load.lock_timeout", "version 6 knows none") {
        return;
    }
    let mut case = one_row("lock_limit", "load: { lock_timeout: 1s }");
    let mut holder = Side::Target.connect(case.database());
    holder.batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").unwrap();
    let begin = Instant::now();
    case.gpferry(&["run"]).expect(3).says("the limit is 1 s: load.lock_timeout").says("pg_locks");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    holder.batch_execute("ROLLBACK").unwrap();
    // The file was good, and only has to be loaded.
    case.gpferry(&["load"]).expect(0).says("1 of 1 unit loaded, 1 row");
    assert_eq!(case.count("SELECT count(*) FROM t"), 1);
}

#[test]
fn a_load_that_takes_too_long_names_its_limit_and_is_stopped_on_the_server() {
    let mut case = one_row("load_limit", "load: { timeout: 1s }");
    case.target
        .batch_execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$; \
             CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW EXECUTE PROCEDURE slow()",
        )
        .unwrap();
    let begin = Instant::now();
    case.gpferry(&["run"])
        .expect(3)
        .says("the limit is 1 s: load.timeout")
        .says("raise `load.timeout`")
        // The server noticed by itself.
        .silent_about("is cancelled");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%' AND state = 'active'";
    assert_eq!(case.count(busy), 0);
    case.target.batch_execute("DROP TRIGGER slow ON t").unwrap();
    case.gpferry(&["run"]).expect(0);
    assert_eq!(case.count("SELECT count(*) FROM t"), 1);
}

#[test]
fn an_export_that_takes_too_long_names_its_limit_and_is_not_tried_again() {
    let mut case = Case::new("export_limit");
    case.source
        .batch_execute("CREATE VIEW t AS SELECT i AS id FROM generate_series(1, 100000) i WHERE pg_sleep(0.05) IS NOT NULL; CREATE VIEW u AS SELECT 1 AS id")
        .unwrap();
    case.target.batch_execute("CREATE TABLE t (id int); CREATE TABLE u (id int)").unwrap();
    // In one database session, were their limits equal.
    case.inventory_with(
        "    sessions: 1\n",
        "",
        &[
            "{ table: public.t, window: none, export: { timeout: 1s } }",
            // Longer than a statement_timeout can be: it must not become a negative one.
            "{ table: public.u, window: none, export: { timeout: 30d } }",
        ],
    );
    let begin = Instant::now();
    case.gpferry(&["run"]).expect(3).says("the limit is 1 s: export.timeout").says("1 of 2 units loaded");
    let ledger = rusqlite::Connection::open(case.path("inventory.ledger.sqlite")).unwrap();
    let tried: u32 = ledger.query_row("SELECT max(attempt) FROM attempt", [], |row| row.get(0)).unwrap();
    assert_eq!(tried, 1, "what took too long would do so again");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'gpferry%' AND datname = current_database()";
    assert_eq!(case.source.query_one(sessions, &[]).unwrap().get::<_, i64>(0), 0);
}

#[test]
fn a_load_that_is_tried_again_is_on_record() {
    let mut case = one_row("load_again", "export: { retries: 1 }");
    case.target
        .batch_execute(
            "CREATE FUNCTION is_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53300'; END $$; \
             CREATE TRIGGER is_full BEFORE INSERT ON t FOR EACH ROW EXECUTE PROCEDURE is_full()",
        )
        .unwrap();
    case.gpferry(&["run"]).expect(3).says("(attempt 1; trying again)").says("no room");
}

#[test]
fn a_stop_between_two_attempts_is_no_failure() {
    let mut case = Case::new("stop_between");
    case.source
        .batch_execute(
            "CREATE FUNCTION busy() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53300'; END $$; \
             CREATE VIEW t AS SELECT busy() AS id; GRANT SELECT ON t TO gpadmin",
        )
        .unwrap();
    case.target.batch_execute("CREATE TABLE t (id int)").unwrap();
    case.inventory(&["{ table: public.t, window: none, export: { retries: 50 } }"]);
    let mut child = case.command(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let path = case.path("inventory.ledger.sqlite");
    wait_for("it is tried again and again", Duration::from_secs(30), || {
        let query = "SELECT count(*) FROM attempt WHERE state = 'failed'";
        rusqlite::Connection::open(&path)
            .and_then(|ledger| ledger.query_row(query, [], |row| row.get::<_, i64>(0)))
            .is_ok_and(|attempts| attempts >= 3)
    });
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    wait_for("it ended", Duration::from_secs(10), || child.try_wait().unwrap().is_some());
    ran(child.wait_with_output().unwrap())
        .expect(130)
        .says("1 not finished")
        .says("0 failed")
        .silent_about("FAILED");
}

#[test]
fn ctrl_c_ends_a_run_whose_target_stands_still() {
    let mut case = one_row("frozen", "load: { mode: insert }");
    let mut holder = Side::Target.connect(case.database());
    holder.batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").unwrap();
    let mut child = case.command(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waiting = format!(
        "SELECT coalesce(max(pid), 0)::bigint FROM pg_stat_activity WHERE {} AND datname = current_database()",
        greenplum::waits_for_a_lock()
    );
    wait_for("the load waits", Duration::from_secs(20), || case.count(&waiting) > 0);
    let backend = case.count(&waiting).to_string();
    let kill = |signal: &str, pid: &str| {
        assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
    };
    kill("-STOP", &backend);
    let begin = Instant::now();
    kill("-INT", &child.id().to_string());
    wait_for("it ended", Duration::from_secs(20), || child.try_wait().unwrap().is_some());
    let took = begin.elapsed();
    kill("-CONT", &backend);
    ran(child.wait_with_output().unwrap()).expect(130).says("the same command resumes what is left");
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    holder.batch_execute("ROLLBACK").unwrap();
    case.gpferry(&["run"]).expect(0);
    assert_eq!(case.count("SELECT count(*) FROM t"), 1);
}

#[test]
fn a_line_that_is_lost_while_the_catalog_is_read_is_asked_again() {
    let case = one_row("lost_catalog", "load: { mode: insert }");
    // A psql that takes its own SSH session with it, the first time.
    let name = format!("psql-once-{}", case.database());
    let psql = format!("{}/hosts/a/home/gpadmin/{name}", lab().get("LAB_DIR"));
    let real = format!("{}/psql", lab().get("LAB_PG_BIN"));
    fs::write(
        &psql,
        format!(
            "#!/bin/bash\nif mkdir \"$HOME/{name}.done\" 2>/dev/null; then\n  p=$$\n  \
             until [ \"$(cat /proc/$p/comm)\" = sshd ]; do p=$(awk '{{ print $4 }}' /proc/$p/stat); done\n  \
             kill -9 $p\n  sleep 5\nfi\nexec {real} \"$@\"\n"
        ),
    )
    .unwrap();
    fs::set_permissions(&psql, fs::Permissions::from_mode(0o755)).unwrap();
    case.edit_inventory("user: gpadmin }", &format!("user: gpadmin, psql: /home/gpadmin/{name} }}"));
    case.gpferry(&["run"]).expect(0).says("(attempt 1; trying again)").says("1 of 1 unit loaded");
}

#[test]
fn a_wrong_password_is_not_tried_again_and_a_target_that_is_down_is() {
    if greenplum::leaves_out("passwords", "how to log in there is the tester's own affair") {
        return;
    }
    let case = one_row("wrong", "load: { mode: insert }");
    let with = |password: &str| {
        let mut command = case.command(&["run"]);
        ran(command.env_remove("PGPASSFILE").env("PGPASSWORD", password).output().unwrap())
    };
    with("wrong").expect(14).says("password authentication failed").silent_about("trying again");
    let port = format!("127.0.0.1:{}/", lab().get("LAB_TARGET_PORT"));
    case.edit_inventory(&port, "127.0.0.1:1/");
    with("any").expect(14).says("(attempt 2; trying again)");
}
