//! A unit's way from failed to mended, as those see it who are told, who ask, and who take note.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{colliding, file, lines, mend, phases, with};
use crate::support::Case;

fn ledger(case: &Case) -> rusqlite::Connection {
    rusqlite::Connection::open(case.path("inventory.ledger.sqlite")).unwrap()
}

#[test]
fn a_failed_unit_is_told_once_acknowledged_and_told_when_it_is_over() {
    let mut case = colliding("alarm_life", "");
    let sink = file(&case);
    case.edit_inventory("sinks: {  }", &format!("sinks: {{ {sink} }}"));
    case.gpferry(&["run"]).expect(3).says("alarms: 1 raised, 0 over; 1 stand");
    let told = lines(&case);
    assert_eq!(phases(&told), ["raised failed"]);
    let unit = format!("{}^public^t^all", case.database());
    assert_eq!(
        (&told[0]["job"], &told[0]["unit"], &told[0]["version"]),
        (&"j".into(), &unit.clone().into(), &1.into())
    );
    assert!(told[0]["text"].as_str().unwrap().contains("collides with the unique constraint"), "{told:?}");
    assert!(!told[0].to_string().contains("(7)"), "a cell value: {told:?}");
    let mode = fs::metadata(case.path("alarms.jsonl")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // It fails again, and somebody asks: nobody is told anything new.
    case.gpferry(&["run"]).expect(3);
    let check = case.gpferry(&["alarm", "check", "--since", "24h"]).expect(4);
    let first = check.stdout.lines().next().unwrap();
    assert!(
        first.starts_with("ABNORMAL: 1 failed; since ") && first.ends_with(": 1 raised, 0 over"),
        "{first}"
    );
    assert_eq!(lines(&case).len(), 1);

    let json = case.gpferry(&["alarm", "list", "--format", "json"]).expect(0).json();
    let number = json["alarms"][0]["number"].to_string();
    case.gpferry(&["alarm", "ack", "99"]).expect(2).says("no alarm 99 stands");
    case.gpferry_with(&["alarm", "ack", &number], &[("USER", "anna")])
        .expect(0)
        .says("acknowledged by anna@");
    case.gpferry(&["alarm", "check"]).expect(4).says("ABNORMAL: 1 failed (1 acknowledged)");
    case.gpferry(&["alarm", "check", "--unacknowledged"]).expect(0).says("NORMAL: 1 failed (1 acknowledged)");

    mend(&mut case);
    case.gpferry(&["run"]).expect(0).says("alarms: 0 raised, 1 over; 0 stand");
    assert_eq!(phases(&lines(&case)), ["raised failed", "over failed"]);
    assert_eq!(lines(&case)[0]["alarm"], lines(&case)[1]["alarm"]);
    let json = case.gpferry(&["alarm", "check", "--format", "json"]).expect(0).json();
    assert_eq!((&json["verdict"], &json["raised"], &json["over"]), (&"NORMAL".into(), &1.into(), &1.into()));
    case.gpferry(&["alarm", "check", "--since", "soon"]).expect(2).says("neither a time nor a length");
    case.gpferry(&["alarm", "list"]).expect(0).says("no alarm stands");
    case.gpferry(&["alarm", "list", "--all"]).expect(0).says(", over at ");
}

#[test]
fn what_cannot_be_read_is_not_normal() {
    let case = colliding("alarm_unknown", "f: { kind: file, path: /nonexistent/f }");
    let check = || case.gpferry(&["alarm", "check"]);
    check().expect(15).silent_about("NORMAL").says("No such file");
    assert!(!case.path("inventory.ledger.sqlite").exists(), "a check made a ledger");
    fs::write(case.path("inventory.ledger.sqlite"), "x".repeat(5000)).unwrap();
    check().expect(15).silent_about("NORMAL");
    fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
    case.gpferry(&["run"]).expect(3);
    check().expect(4);
    // One table of it is damaged: what is read last counts too.
    ledger(&case).execute_batch("DROP TABLE alarm_delivery").unwrap();
    check().expect(15).silent_about("NORMAL");
    case.edit_inventory("jobs:", "jbos:");
    check().expect(10).silent_about("NORMAL");
}

#[test]
fn a_late_table_and_a_job_that_is_not_run_are_found_by_the_check_alone() {
    let mut case = Case::new("alarm_late");
    case.both("CREATE TABLE t (id int, ts timestamp); CREATE TABLE w (id int)");
    let window = "{ table: public.t, window: { column: ts, length: 1d } }";
    let whole = "{ table: public.w, window: none, every: 1h, load: { mode: replace }, late_after: 3h }";
    let job = "    from: 2021-08-01\n    until: 2021-08-03\n    late_after: 1d\n";
    case.inventory_with("", job, &[window, whole]);
    let sink = file(&case);
    with(&case, &sink);
    case.gpferry(&["run"]).expect(0);
    case.gpferry(&["alarm", "check"]).expect(0).says("NORMAL: no alarm stands");
    // Two more days of windows, which nobody moves; the whole table was moved five hours ago.
    case.edit_inventory("until: 2021-08-03", "until: 2021-08-05\n    expect_every: 1h");
    let older = "UPDATE tally SET loaded_at = strftime('%Y-%m-%dT%H:%M:%S.000000Z', 'now', '-5 hours') WHERE measure = 'all'; \
                 UPDATE covered SET first = first - 18000000000, last = last - 18000000000 WHERE measure = 'all'";
    ledger(&case).execute_batch(older).unwrap();
    ledger(&case)
        .execute_batch(
            "UPDATE job_run SET ran_at = '2021-08-05T00:00:00Z', expected_since = '2021-08-04T00:00:00Z'",
        )
        .unwrap();
    let check = case.gpferry(&["alarm", "check"]).expect(4);
    assert!(check.stdout.starts_with("ABNORMAL: 2 late;"), "{}", check.stdout);
    check.says("is loaded up to 2021-08-03 00:00:00").says("has been due for 4h, and 3h is allowed");
    // `until` is past: nobody waits for a run. Without it somebody does, since the last one.
    case.edit_inventory("    until: 2021-08-05\n", "");
    let again = case.gpferry(&["alarm", "check"]).expect(4);
    assert!(again.stdout.starts_with("ABNORMAL: 2 late, 1 not_run;"), "{}", again.stdout);
    // A run of one table is not what was expected.
    case.gpferry(&["run", "--table", "public.w"]).expect(0);
    let still = case.gpferry(&["alarm", "check"]).expect(4);
    assert!(still.stdout.starts_with("ABNORMAL: 1 late, 1 not_run;"), "{}", still.stdout);
    case.edit_inventory("    expect_every", "    until: 2021-08-05\n    expect_every");
    case.gpferry(&["run"]).expect(0);
    case.gpferry(&["alarm", "check"]).expect(0).says("NORMAL: no alarm stands");
    let mut told = phases(&lines(&case));
    told.sort();
    assert_eq!(
        told,
        ["over late", "over late", "over not_run", "raised late", "raised late", "raised not_run"]
    );
}

#[test]
fn many_who_ask_at_once_raise_and_tell_it_once() {
    let case = colliding("alarm_many", "");
    let sink = file(&case);
    case.edit_inventory("sinks: {  }", "sinks: { x: { kind: file, path: /dev/null } }");
    case.gpferry(&["run"]).expect(3);
    case.edit_inventory("x: { kind: file, path: /dev/null }", &sink);
    // The unit's alarm is one that nobody was ever told of.
    ledger(&case).execute_batch("DELETE FROM alarm; DELETE FROM alarm_message").unwrap();
    let asking: Vec<_> = (0..8).map(|_| case.command(&["alarm", "check"]).spawn().unwrap()).collect();
    for mut one in asking {
        assert_eq!(one.wait().unwrap().code(), Some(4));
    }
    case.gpferry(&["alarm", "send"]).expect(0);
    assert_eq!(phases(&lines(&case)), ["raised failed"]);
}

#[test]
fn a_unit_on_its_way_is_neither_mended_nor_failed_anew() {
    let mut case = colliding("alarm_way", "");
    let sink = file(&case);
    case.edit_inventory("sinks: {  }", &format!("sinks: {{ {sink} }}"));
    case.gpferry(&["run"]).expect(3);
    for state in ["exporting", "exported", "loading"] {
        ledger(&case).execute("UPDATE unit SET state = ?", [state]).unwrap();
        case.gpferry(&["alarm", "check"]).expect(4);
    }
    ledger(&case).execute_batch("UPDATE unit SET state = 'failed'").unwrap();
    case.gpferry(&["alarm", "check"]).expect(4);
    assert_eq!(phases(&lines(&case)), ["raised failed"]);
    mend(&mut case);
    case.gpferry(&["run"]).expect(0);
    assert_eq!(phases(&lines(&case)), ["raised failed", "over failed"]);
}

#[test]
fn a_lateness_that_nobody_can_judge_is_named() {
    let mut case = Case::new("alarm_ids");
    case.both("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)");
    case.inventory(&[
        "{ table: public.t, window: { column: id, type: id, step: 10 }, late_after: 1h }",
        "{ table: public.u, window: { column: id, type: id, step: 10 } }",
    ]);
    case.gpferry(&["run"]).expect(0);
    let check = case.gpferry(&["alarm", "check"]).expect(0).says("NORMAL");
    check.says("`late_after` says nothing of public.t (j): windows of ids");
    let json = case.gpferry(&["alarm", "check", "--format", "json"]).expect(0).json();
    assert_eq!(json["never_late"], serde_json::json!(["public.t (j)"]));
}
