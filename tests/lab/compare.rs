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
