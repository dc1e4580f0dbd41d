//! Programs and files; and a run whose sinks all fail.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{colliding, file, lines, mend, password, phases};
use crate::ends::wait_for;
use crate::support::Case;

/// A program of this test.
fn program(case: &Case, name: &str, body: &str) -> PathBuf {
    let path = case.path(name);
    fs::write(&path, format!("#!/bin/bash\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn command(path: &std::path::Path, more: &str) -> String {
    format!("c: {{ kind: command, command: [ {}, 7, \"a b; $(x)\" ]{more} }}", path.display())
}

#[test]
fn a_program_reads_the_document_and_gets_its_arguments_as_they_are() {
    let case = colliding("alarm_command", "");
    let directory = case.path("");
    let path = program(
        &case,
        "hook",
        &format!("cd {} && cat >>got && printf '%s\\n' \"$@\" >args && env >env", directory.display()),
    );
    case.edit_inventory("sinks: {  }", &format!("sinks: {{ {} }}", command(&path, "")));
    case.gpferry_with(&["run"], &[("PGPASSWORD", &password())]).expect(3);
    let got: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(case.path("got")).unwrap()).unwrap();
    assert_eq!((&got["version"], got["alarms"].as_array().unwrap().len()), (&1.into(), 1));
    assert_eq!(
        (&got["alarms"][0]["phase"], &got["alarms"][0]["condition"]),
        (&"raised".into(), &"failed".into())
    );
    assert_eq!(fs::read_to_string(case.path("args")).unwrap(), "7\na b; $(x)\n");
    assert!(!fs::read_to_string(case.path("env")).unwrap().contains("PGPASSWORD="));
}

#[test]
fn a_program_that_fails_hangs_or_is_not_there_is_said_and_told_again_and_the_run_is_as_it_was() {
    let case = colliding("alarm_command_bad", "");
    let path = program(&case, "hook", "echo so-and-so >&2; exit 9");
    let hang =
        program(&case, "hang", &format!("echo $$ >{}; sleep 300 & sleep 300", case.path("pid").display()));
    let sinks = format!(
        "{}, hang: {{ kind: command, command: [ {} ], timeout: 1s }}, none: {{ kind: command, command: [ /nonexistent/x ] }}",
        command(&path, ""),
        hang.display()
    );
    case.edit_inventory("sinks: {  }", &format!("sinks: {{ {sinks} }}"));
    let began = Instant::now();
    case.gpferry(&["run"])
        .expect(3)
        .says("sink c of alarms was not told, and is tried again the next time")
        .says("ended with exit code 9")
        .says("did not end in time, and was killed")
        .says("/nonexistent/x cannot be started: No such file");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    // Nothing of it is left, what it started neither.
    let group = fs::read_to_string(case.path("pid")).unwrap().trim().to_owned();
    wait_for("the group to end", Duration::from_secs(5), || {
        let members = std::process::Command::new("pgrep").args(["-g", &group]).output().unwrap();
        members.stdout.is_empty()
    });
    case.gpferry(&["alarm", "check"]).expect(4).says("sink hang has not heard 1 message");
    program(&case, "hook", &format!("cat >{}", case.path("got").display()));
    let sent = case.gpferry(&["alarm", "send"]).expect(13);
    sent.says("c: 1 message told").says("hang: FAILED:").says("none: FAILED:");
    assert!(fs::read_to_string(case.path("got")).unwrap().contains("\"raised\""));
    // What was heard is not told again; of a sink that is gone nothing waits any more.
    fs::remove_file(case.path("got")).unwrap();
    case.edit_inventory(", hang: {", ", other: {");
    case.gpferry(&["alarm", "send"])
        .expect(13)
        .says("hang is no sink any more: 1 message(s)")
        .says("none: FAILED");
    assert!(!case.path("got").exists());
}

#[test]
fn a_program_that_reads_nothing_may_succeed_however_much_it_is_told() {
    let case = colliding("alarm_command_deaf", "");
    let path = program(&case, "hook", "exit 0");
    case.edit_inventory("sinks: {  }", &format!("sinks: {{ {} }}", command(&path, ", timeout: 50s")));
    case.gpferry(&["run"]).expect(3);
    // More than a pipe holds.
    let ledger = rusqlite::Connection::open(case.path("inventory.ledger.sqlite")).unwrap();
    ledger
        .execute_batch(
            "UPDATE alarm_message SET text = printf('%.*c', 500000, 'x'); UPDATE alarm_delivery SET told_at = NULL",
        )
        .unwrap();
    drop(ledger);
    let began = Instant::now();
    case.gpferry(&["alarm", "send"]).expect(0).says("c: 1 message told");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn a_file_on_a_full_disk_or_in_no_directory_is_said_and_told_later() {
    let mut case = colliding("alarm_file", "full: { kind: file, path: /dev/full }");
    let missing = case.path("later/alarms.jsonl");
    let sink =
        format!("full: {{ kind: file, path: /dev/full }}, m: {{ kind: file, path: {} }}", missing.display());
    case.edit_inventory("full: { kind: file, path: /dev/full }", &sink);
    case.gpferry(&["run"]).expect(3).says("No space left on device").says("No such file or directory");
    fs::create_dir(case.path("later")).unwrap();
    // Somebody's half line, as a full disk leaves it.
    fs::write(&missing, "{\"half\":").unwrap();
    case.gpferry(&["alarm", "send"]).expect(13).says("m: 1 message told").says("full: FAILED");
    let text = fs::read_to_string(&missing).unwrap();
    assert!(
        text.starts_with("{\"half\":\n{\"") && text.ends_with("}\n") && text.lines().count() == 2,
        "{text}"
    );
    mend(&mut case);
    case.gpferry(&["run"]).expect(0);
    assert_eq!(fs::read_to_string(&missing).unwrap().lines().count(), 3);
}

#[test]
fn a_sink_is_tried_without_anything_being_wrong() {
    let case = colliding("alarm_test", "");
    let sinks = format!("{}, bad: {{ kind: file, path: /dev/full }}", file(&case));
    case.edit_inventory("sinks: {  }", &format!("sinks: {{ {sinks} }}"));
    case.gpferry(&["alarm", "test", "f"]).expect(0).says("f: 1 message told");
    case.gpferry(&["alarm", "test"]).expect(13).says("bad: FAILED: /dev/full cannot be appended to");
    case.gpferry(&["alarm", "test", "x"]).expect(2).says("the sinks of").says("are: f, bad");
    assert_eq!(phases(&lines(&case)), ["test test", "test test"]);
    assert!(!case.path("inventory.ledger.sqlite").exists());
}
