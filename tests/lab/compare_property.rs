//! Random changes are all found, and nothing else is: PostgreSQL's own EXCEPT is the oracle.

use std::collections::BTreeSet;
use std::io::Write as _;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::Case;

const COLUMNS: &str = "id int PRIMARY KEY, at timestamp, s text, c char(5), n numeric, m numeric(9,3), f float8, g float4, \
     b boolean, z timestamptz, d date, i interval, y bytea, a int[], x text[], u uuid, j json, k jsonb, r bit varying, \
     e bigint, t time";
/// What of a row is compared by EXCEPT: json knows no equality.
const ROW: &str = "id, at, s, c, n, m, f, g, b, z, d, i, y, a, x, u, j::text, k, r, e, t, s IS NULL, length(s), \
     octet_length(n::text) IS NULL, float8send(f)";
const ROWS: i32 = 300;

/// What is done to one row, in the target: one for each type, and for each trap.
const CHANGES: &[&str] = &[
    "DELETE FROM t WHERE id = $",
    "INSERT INTO t (id, at, s) SELECT id + 10000, at, 'new' FROM t WHERE id = $",
    "UPDATE t SET s = CASE WHEN s IS NULL THEN '' WHEN s = '' THEN NULL ELSE '' END WHERE id = $",
    "UPDATE t SET s = s || ' ' WHERE id = $",
    "UPDATE t SET c = 'q' WHERE id = $",
    "UPDATE t SET n = n + 1e-20 WHERE id = $",
    "UPDATE t SET m = -m - 0.001 WHERE id = $",
    "UPDATE t SET f = f + f * 2.3e-16 WHERE id = $",
    "UPDATE t SET g = g + g * 1.3e-7 WHERE id = $",
    "UPDATE t SET b = NOT b WHERE id = $",
    "UPDATE t SET z = z + interval '1 microsecond' WHERE id = $",
    "UPDATE t SET d = 'infinity' WHERE id = $",
    "UPDATE t SET i = i + interval '1 microsecond' WHERE id = $",
    "UPDATE t SET y = y || '\\x00'::bytea WHERE id = $",
    "UPDATE t SET a = a || NULL::int WHERE id = $",
    "UPDATE t SET x = ARRAY['a,b'] WHERE id = $",
    "UPDATE t SET u = NULL WHERE id = $",
    "UPDATE t SET j = '{\"a\":  1}' WHERE id = $",
    "UPDATE t SET k = '{\"a\": 2}' WHERE id = $",
    "UPDATE t SET r = r || B'0' WHERE id = $",
    "UPDATE t SET e = -e - 1 WHERE id = $",
    "UPDATE t SET t = '24:00' WHERE id = $",
    // Over the edge of its window, by as little as can be; and within it.
    "UPDATE t SET at = date_trunc('day', at) + (extract(hour FROM at)::int / 4 * 4 + 4) * interval '1 hour' WHERE id = $",
    "UPDATE t SET at = date_trunc('day', at) + extract(hour FROM at)::int / 4 * 4 * interval '1 hour' - interval '1 microsecond' WHERE id = $",
    "UPDATE t SET at = at + interval '1 microsecond' WHERE id = $",
    // A character that moves from one column to the next, and values that change places.
    "UPDATE t SET s = 'ab', x = ARRAY['c'] WHERE id = $",
    "UPDATE t SET f = g, g = f WHERE id = $",
];

fn fill(case: &mut Case) {
    case.both(&format!("CREATE TABLE t ({COLUMNS})"));
    case.target.batch_execute("CREATE TABLE twin (LIKE t)").unwrap();
    case.source
        .batch_execute(&format!(
            "INSERT INTO t SELECT i, timestamp '2021-08-10 00:00' + i * interval '4.8 minutes', \
             CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'text ' || i END, 'c' || i % 90, i / 7.0, i / 7.0, i / 7.0::float8, \
             (i / 7.0)::float4, i % 2 = 0, timestamptz '2021-08-10 00:00+08' + i * interval '1 second', date '2021-08-10' + i, \
             i * interval '1 minute', decode(lpad(to_hex(i), 8, '0'), 'hex'), ARRAY[i, NULL, i + 1], ARRAY['a', 'b,c', NULL, ''], \
             md5(i::text)::uuid, '{{\"a\" : 1}}', '{{\"a\": 1}}', i::bit(12), i * 1000000007::bigint, time '00:00' + i * interval '1 second' \
             FROM generate_series(0, {ROWS} - 1) i"
        ))
        .unwrap();
    let table = "{ table: public.t, window: { column: at, length: 4h } }";
    case.inventory_with("", "    from: 2021-08-10 00:00:00\n    until: 2021-08-11 00:00:00\n", &[table]);
    case.gpferry(&["run"]).expect(0);
    // The source's rows beside the target's, so that one server can hold them against each other.
    let mut bytes = Vec::new();
    let copy = "COPY t TO STDOUT (FORMAT binary)";
    std::io::Read::read_to_end(&mut case.source.copy_out(copy).unwrap(), &mut bytes).unwrap();
    let mut twin = case.target.copy_in("COPY twin FROM STDIN (FORMAT binary)").unwrap();
    twin.write_all(&bytes).unwrap();
    twin.finish().unwrap();
}

/// Window, id, and how it differs.
type Found = BTreeSet<(String, String, String)>;

/// By the database itself.
fn oracle(case: &mut Case) -> Found {
    let window = "to_char(date_trunc('day', at) + extract(hour FROM at)::int / 4 * 4 * interval '1 hour', 'YYYY-MM-DD\"T\"HH24:MI:SS')";
    let within = "at >= '2021-08-10' AND at < '2021-08-11'";
    let differs = |one: &str, other: &str| {
        format!(
            "(SELECT w, id FROM (SELECT {window} AS w, {ROW} FROM {one} WHERE {within} EXCEPT ALL \
             SELECT {window} AS w, {ROW} FROM {other} WHERE {within}) d)"
        )
    };
    let sql = format!(
        "SELECT coalesce(s.w, t.w), coalesce(s.id, t.id)::text, CASE WHEN t.id IS NULL THEN 'missing' WHEN s.id IS NULL THEN 'extra' \
         ELSE 'changed' END FROM {} s FULL JOIN {} t ON s.id = t.id AND s.w = t.w",
        differs("twin", "t"),
        differs("t", "twin")
    );
    case.target.query(&sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

fn found(case: &Case, code: i32, more: &[&str]) -> Found {
    let args = [&["compare", "--deep", "--format", "json", "--limit", "1000"], more].concat();
    let ran = case.gpferry(&args).expect(code);
    let lines = ran.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines
        .filter(|line| line["what"] == "key")
        .map(|line| {
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            (text(&line["window"]["start"]), text(&line["key"]["id"]), text(&line["difference"]))
        })
        .collect()
}

#[test]
fn random_changes_are_all_found_and_nothing_else_is() {
    let mut case = Case::new("compare_property");
    fill(&mut case);
    assert_eq!(found(&case, 0, &[]), Found::new());
    // Each change by itself first, all at once: a row each.
    for (n, change) in CHANGES.iter().enumerate() {
        case.target.batch_execute(&change.replace('$', &(7 * n + 11).to_string())).unwrap();
    }
    let seen = oracle(&mut case);
    assert!(seen.len() >= CHANGES.len() - 1, "a change does nothing: {seen:?}");
    assert_eq!(found(&case, 4, &[]), seen);
    let mut runner = TestRunner::new(Config {
        cases: 10,
        max_shrink_iters: 10,
        failure_persistence: None,
        ..Config::default()
    });
    let changes = proptest::collection::vec((0..CHANGES.len(), 0..ROWS), 0..9);
    let case = std::cell::RefCell::new(case);
    runner
        .run(&changes, |changes| {
            let case = &mut *case.borrow_mut();
            case.target.batch_execute("TRUNCATE t; INSERT INTO t SELECT * FROM twin").unwrap();
            for (change, id) in &changes {
                // One that has been inserted before is there.
                let _ = case.target.batch_execute(&CHANGES[*change].replace('$', &id.to_string()));
            }
            let seen = oracle(case);
            prop_assert_eq!(found(case, if seen.is_empty() { 0 } else { 4 }, &[]), seen);
            Ok(())
        })
        .unwrap();
}
