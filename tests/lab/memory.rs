//! What is remembered: how far each table is, what was done, and a ledger that is lost and found.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::ends::wait_for;
use crate::support::{Case, ran};

/// A table of hours, from the first of August 2021 on.
pub(crate) fn hours(name: &str, rows: u32, keep: &str) -> Case {
    let mut case = Case::new(name);
    case.both("CREATE TABLE t (id int, ts timestamp)");
    case.source
        .batch_execute(&format!(
            "INSERT INTO t SELECT i, timestamp '2021-08-01' + i * interval '1 hour' FROM generate_series(0, {rows} - 1) i"
        ))
        .unwrap();
    let table = "{ table: public.t, window: { column: ts, length: 4h } }";
    case.inventory_with("", "    from: 2021-08-01\n    until: 2021-08-03\n", &[table]);
    if !keep.is_empty() {
        case.edit_inventory("version: 1\n", &format!("version: 1\nkeep: {keep}\n"));
    }
    case
}

fn ledger(case: &Case) -> rusqlite::Connection {
    rusqlite::Connection::open(case.path("inventory.ledger.sqlite")).unwrap()
}

#[test]
fn status_shows_every_table_how_far_it_is_and_what_failed() {
    let mut case = hours("status", 48, "");
    case.both("CREATE TABLE u (id int PRIMARY KEY, ts timestamp)");
    case.source
        .batch_execute("INSERT INTO u VALUES (1, '2021-08-01 05:00'), (1, NULL), (2, NULL)")
        .unwrap_err();
    case.source.batch_execute("INSERT INTO u VALUES (1, '2021-08-01 05:00'), (3, NULL), (2, NULL)").unwrap();
    case.target.batch_execute("INSERT INTO u VALUES (1, NULL)").unwrap();
    case.edit_inventory(
        "      - { table: public.t,",
        "      - { table: public.u, window: { column: ts, length: 4h }, export: { retries: 1 } }\n      - { table: public.t,",
    );
    case.gpferry(&["status"]).expect(2).says("there is no ledger");
    case.gpferry(&["run", "--table", "public.t"]).expect(0);
    let before = case.gpferry(&["status", "--format", "json"]).expect(0).json();
    assert_eq!(before["tables"][1]["table"], "public.u", "tables that never moved are shown too: {before}");
    assert!(
        before["tables"][1]["late_seconds"].as_u64() > Some(0) && before["tables"][1]["loaded"] == 0,
        "{before}"
    );
    case.gpferry(&["run"]).expect(3).says("2 rows of public.u in s have no ts");
    let json = case.gpferry(&["status", "--format", "json"]).expect(0).json();
    let [t, u] = [&json["tables"][0], &json["tables"][1]];
    assert_eq!(
        (&t["table"], &t["watermark"], &t["loaded"]),
        (&"public.t".into(), &"2021-08-03T00:00:00".into(), &12.into())
    );
    assert_eq!(
        (&t["rows"], &t["rows_today"], &t["late_seconds"]),
        (&48.into(), &48.into(), &serde_json::Value::Null)
    );
    assert_eq!(
        (&u["watermark"], &u["failed"], &u["null_rows"]),
        (&"2021-08-01T04:00:00".into(), &1.into(), &2.into())
    );
    // Due since five minutes after 08:00.
    let late = u["late_seconds"].as_u64().unwrap();
    let due: jiff::Timestamp = "2021-08-01T08:05:00Z".parse().unwrap();
    let now = jiff::Timestamp::now().duration_since(due).as_secs().unsigned_abs();
    assert!(now - late < 60, "{late} against {now}");
    let failed = &json["failed"][0];
    assert_eq!(
        (&failed["tries"], &failed["allowed"], &failed["given_up"]),
        (&1.into(), &2.into(), &false.into())
    );
    let shown = case.gpferry(&["status"]).expect(0).says("tried by 1 of 2 runs").says("LOADED UP TO").stdout;
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    case.gpferry(&["run"]).expect(3);
    case.gpferry(&["status"]).expect(0).says("given up after 2 runs").says("run --retry-failed");
    case.gpferry(&["status", "--table", "public.t"]).expect(0).silent_about("public.u");
    // The ledger alone.
    fs::rename(case.path("inventory.yml"), case.path("inventory.away")).unwrap();
    let alone = case.gpferry(&["status", "--format", "json"]).expect(0).says("only what the ledger knows");
    let alone: serde_json::Value = serde_json::from_str(&alone.stdout).unwrap();
    assert_eq!(alone["tables"][0]["watermark"], "2021-08-03T00:00:00");
    assert_eq!(alone["tables"][1]["in_inventory"], serde_json::Value::Null);
}

#[test]
fn nulls_are_counted_once_a_day_and_hold_nothing_up() {
    let mut case = hours("nulls", 1, "");
    case.source.batch_execute("INSERT INTO t VALUES (99, NULL)").unwrap();
    let nulls = |case: &Case| {
        let json = case.gpferry(&["status", "--format", "json"]).expect(0).json();
        (
            json["tables"][0]["null_rows"].as_u64(),
            json["tables"][0]["null_rows_at"].as_str().map(str::to_owned),
        )
    };
    case.gpferry(&["run", "--max-units", "1"]).expect(0);
    assert_eq!(nulls(&case).0, Some(1));
    case.source.batch_execute("INSERT INTO t VALUES (100, NULL)").unwrap();
    case.gpferry(&["run", "--max-units", "1"]).expect(0);
    assert_eq!(nulls(&case).0, Some(1), "not counted again on the same day");
    ledger(&case).execute_batch("UPDATE null_rows SET at = '2021-01-01T00:00:00.000000Z'").unwrap();
    case.gpferry(&["run", "--max-units", "1"]).expect(0);
    assert_eq!(nulls(&case).0, Some(2));
    case.gpferry(&["status"]).expect(0).says("NULL: rows of the source without a value");
}

#[test]
fn history_tells_units_attempts_and_runs_in_three_forms() {
    let case = hours("history", 48, "");
    case.gpferry(&["run"]).expect(0);
    case.gpferry(&["run"]).expect(0);
    let json = case.gpferry(&["history", "--format", "json"]).expect(0).json();
    assert_eq!((&json["version"], &json["more"]), (&1.into(), &false.into()));
    let units = json["units"].as_array().unwrap();
    assert_eq!(units.len(), 12);
    for unit in units {
        assert_eq!(
            (&unit["rows_exported"], &unit["rows_loaded"], &unit["attempt"]),
            (&4.into(), &4.into(), &1.into())
        );
        assert!(unit["export_seconds"].is_f64() && unit["load_seconds"].is_f64(), "{unit}");
        assert!(unit["bytes"].as_u64().unwrap() > 0 && unit["started_at"].is_string(), "{unit}");
    }
    let csv = case.gpferry(&["history", "--format", "csv", "--limit", "3"]).expect(0).stdout;
    let mut lines = csv.lines();
    assert!(lines.next().unwrap().starts_with("job,source,table,target,unit,window_start,"), "{csv}");
    assert_eq!(lines.count(), 3);
    case.gpferry(&["history", "--limit", "3"]).expect(0).says("older units than these 3 are left off");
    case.gpferry(&["history", "--attempts", "--state", "failed"]).expect(0).says("no attempts");
    case.gpferry(&["history", "--since", "24h", "--table", "public.*"]).expect(0).says("loaded 4 4");
    case.gpferry(&["history", "--until", "24h"]).expect(0).says("no units");
    case.gpferry(&["history", "--since", "soon"]).expect(2).says("--since soon");
    let runs = case.gpferry(&["history", "--runs", "--format", "json"]).expect(0).json();
    let runs = runs["runs"].as_array().unwrap().clone();
    assert_eq!(runs.len(), 2);
    for key in ["run", "command", "host", "pid", "started_at", "ended_at", "seconds", "exit_code"] {
        assert!(!runs[0][key].is_null(), "{key} in {}", runs[0]);
    }
    let first = runs[1]["run"].as_str().unwrap();
    let of_first = case.gpferry(&["history", "--run", first, "--format", "json"]).expect(0).json();
    assert_eq!(of_first["units"].as_array().unwrap().len(), 12);
    // CSV is for tables of lines, and only history is one.
    case.gpferry(&["status", "--format", "csv"]).expect(2).says("history");
}

#[test]
fn a_damaged_ledger_is_moved_aside_and_made_anew_from_the_load_log() {
    let mut case = hours("rebuild", 48, "");
    case.gpferry(&["run"]).expect(0);
    let before = case.gpferry(&["status", "--format", "json"]).expect(0).json();
    let path = case.path("inventory.ledger.sqlite");
    fs::write(&path, "no ledger at all").unwrap();
    for command in ["run", "status", "history"] {
        case.gpferry(&[command]).expect(15).says("gpferry rebuild-ledger");
    }
    // A target that is down leaves everything as it is.
    let port = crate::support::lab().get("LAB_TARGET_PORT");
    case.edit_inventory(&format!("127.0.0.1:{port}"), "127.0.0.1:1");
    case.gpferry(&["rebuild-ledger"]).expect(14);
    assert_eq!(fs::read_to_string(&path).unwrap(), "no ledger at all");
    case.edit_inventory("127.0.0.1:1/", &format!("127.0.0.1:{port}/"));
    case.gpferry(&["rebuild-ledger"]).expect(0).says("12 units from the load log").says("the old ledger is");
    let names: Vec<String> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("inventory.ledger.sqlite."))
        .collect();
    assert_eq!(names.len(), 2, "the old file and the locks: {names:?}");
    let after = case.gpferry(&["status", "--format", "json"]).expect(0).json();
    for key in ["watermark", "loaded", "rows"] {
        assert_eq!(before["tables"][0][key], after["tables"][0][key], "{key}");
    }
    case.gpferry(&["run"]).expect(0).says("0 of 0 units loaded");
    assert_eq!(case.count("SELECT count(*) FROM t"), 48);
}

/// A run that holds its job until it is killed.
fn endless(name: &str) -> (Case, std::process::Child) {
    let mut case = hours(name, 4, "{ files: 1s, history: 1s }");
    case.source
        .batch_execute("CREATE VIEW slow AS SELECT i AS id FROM generate_series(1, 100000) i WHERE pg_sleep(0.05) IS NOT NULL")
        .unwrap();
    case.target.batch_execute("CREATE TABLE slow (id int)").unwrap();
    let path = case.path("inventory.yml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        format!("{text}  k: {{ source: s, tables: [ {{ table: public.slow, window: none }} ] }}\n"),
    )
    .unwrap();
    let child =
        case.command(&["run", "--job", "k"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the job is held", Duration::from_secs(20), || {
        let held = case.path("inventory.ledger.sqlite.locks/k");
        fs::read_to_string(held).is_ok_and(|text| text.starts_with(&format!("pid {} ", child.id())))
    });
    (case, child)
}

#[test]
fn two_jobs_run_side_by_side_on_one_ledger_and_prune_leaves_the_held_one_alone() {
    let (mut case, mut child) = endless("side_by_side");
    for _ in 0..3 {
        case.gpferry(&["run", "--job", "j"]).expect(0);
    }
    assert_eq!(case.count("SELECT count(*) FROM t"), 4);
    let held = case.gpferry(&["run", "--job", "k"]).expect(11);
    held.says(&format!("pid {} on ", child.id())).says(" since 20");
    case.gpferry(&["rebuild-ledger"]).expect(11).says("job k is held by pid");
    case.gpferry(&["prune"]).expect(0).says("job k is held by pid").says("what is its stays");
    case.gpferry(&["status"]).expect(0);
    child.kill().unwrap();
    child.wait().unwrap();
    // No hand work: the next one takes over.
    case.edit_inventory("public.slow", "public.nosuch");
    case.gpferry(&["run", "--job", "k"]).expect(3);
    case.gpferry(&["prune"]).expect(0).silent_about("is held");
}

#[test]
fn many_runs_and_prunes_at_once_lose_nothing_and_double_nothing() {
    let mut case = hours("crowd", 48, "{ files: 1s, rejects: 1s, history: 1s }");
    let text = fs::read_to_string(case.path("inventory.yml")).unwrap();
    let mut jobs = String::new();
    for n in 0..3 {
        case.both(&format!("CREATE TABLE t{n} (LIKE t)"));
        case.source.batch_execute(&format!("INSERT INTO t{n} SELECT * FROM t")).unwrap();
        jobs.push_str(&format!(
            "  j{n}: {{ source: s, from: 2021-08-01, until: 2021-08-03, tables: [ {{ table: public.t{n}, window: {{ column: ts, length: 1h }} }} ] }}\n"
        ));
    }
    fs::write(case.path("inventory.yml"), format!("{text}{jobs}")).unwrap();
    // Status wants a ledger that is there.
    case.gpferry(&["run", "--job", "j"]).expect(0);
    let start =
        |args: &[&str]| case.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut children = Vec::new();
    for n in 0..3 {
        children.push(start(&["run", "--job", &format!("j{n}"), "--max-units", "30"]));
        children.push(start(&["prune"]));
    }
    children.push(start(&["status"]));
    for child in children {
        let ended = ran(child.wait_with_output().unwrap());
        assert!([0, 11].contains(&ended.code), "{}{}", ended.stdout, ended.stderr);
    }
    for _ in 0..2 {
        case.gpferry(&["run"]).expect(0);
        case.gpferry(&["prune"]).expect(0);
    }
    for n in 0..3 {
        case.assert_same(&format!("SELECT * FROM t{n} ORDER BY id"));
    }
}
