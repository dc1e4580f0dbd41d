//! What the binary says where no server is needed.

use std::fs;
use std::process::{Command, Output};

fn gpferry(args: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    gpferry_in(directory.path(), args)
}

fn gpferry_in(directory: &std::path::Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gpferry"))
        .args(args)
        .current_dir(directory)
        .env_clear()
        .env("HOME", directory)
        .env("PATH", std::env::var("PATH").unwrap_or_default())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An inventory that parses; nothing in it exists.
const INVENTORY: &str = "\
version: 1
timezone: Asia/Shanghai
mount: { path: /nonexistent/mount }
target: { url: postgresql://loader@127.0.0.1:1/d }
sources:
  fab1: { host: 127.0.0.1, engine: greenplum, database: qms }
jobs:
  array:
    source: fab1
    from: 2021-08-10 00:00:00
    until: 2021-08-11 00:00:00
    tables:
      - { table: sor.wpp_f, window: { column: evt_timestamp, length: 8h } }
      - { table: ref.product, window: none, target: dim.product }
";

#[test]
fn help_names_every_command_and_every_exit_code() {
    let output = gpferry(&["--help"]);
    let help = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    for word in [
        "plan",
        "run",
        "export",
        "load",
        "status",
        "history",
        "prune",
        "rebuild-ledger",
        "import",
        "trust",
        "explain",
        "GPFERRY_INVENTORY",
    ] {
        assert!(help.contains(word), "no {word} in {help}");
    }
    for exit in gpferry::exit::Exit::ALL {
        assert!(help.contains(&exit.to_string()), "no {exit} in {help}");
    }
}

#[test]
fn a_plan_needs_no_server_and_shows_half_open_windows() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("inventory.yml"), INVENTORY).unwrap();
    let output = gpferry_in(directory.path(), &["plan"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    insta::assert_snapshot!(text(&output.stdout), @r"
    array  2021-08-10 00:00:00 … 08:00:00             fab1:qms^sor^wpp_f^20210810000000^20210810080000
    array  2021-08-10 08:00:00 … 16:00:00             fab1:qms^sor^wpp_f^20210810080000^20210810160000
    array  2021-08-10 16:00:00 … 2021-08-11 00:00:00  fab1:qms^sor^wpp_f^20210810160000^20210811000000
    array  whole table                                fab1:qms^ref^product^all^vddf23648 -> dim.product

    4 units to move
    loading: not known, since the target is not there to say what it is: cannot connect to the target postgresql://loader@127.0.0.1:1/d: 127.0.0.1:1: Connection refused (os error 111)
    ");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "plan leaves nothing behind");
}

#[test]
fn an_offset_of_a_time_is_not_ignored() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("inventory.yml"), INVENTORY).unwrap();
    for from in
        ["2021-08-10 16:00", "2021-08-10T08:00Z", "2021-08-10 10:00:00+02", "2021-08-10T08:00:00-00:00"]
    {
        let output = gpferry_in(directory.path(), &["plan", "--table", "sor.*", "--from", from]);
        let said = text(&output.stdout);
        assert!(said.contains("1 unit to move") && said.contains("^20210810160000^"), "{from}: {said}");
    }
}

#[test]
fn an_invalid_inventory_is_exit_code_10_with_every_fault() {
    let directory = tempfile::tempdir().unwrap();
    let broken = INVENTORY.replace("mount:", "moutn:").replace("length: 8h", "length: soon");
    fs::write(directory.path().join("inventory.yml"), broken).unwrap();
    let output = gpferry_in(directory.path(), &["run"]);
    assert_eq!(output.status.code(), Some(10));
    let said = text(&output.stderr);
    for word in ["moutn", "mount", "soon", "inventory.yml:3:"] {
        assert!(said.contains(word), "no {word} in {said}");
    }
}

#[test]
fn usage_is_exit_code_2() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("inventory.yml"), INVENTORY).unwrap();
    for args in [
        &["fly"][..],
        &["plan", "--job", "nosuch"],
        &["plan", "--source", "nosuch"],
        &["plan", "--table", "sor.nosuch*"],
        &["plan", "--from", "tomorrow"],
        &["plan", "--from", "2021-08-10T08:00[Asia/Shanghai]"],
        &["plan", "--from", "2021-08-10 00:00:00.1234567"],
        &["plan", "--from", "2021-08-12", "--until", "2021-08-11"],
        &["plan", "--from", "2021-08-10T08:00Z", "--until", "2021-08-10T16:00"],
        &["status"],
    ] {
        let output = gpferry_in(directory.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
}

#[test]
fn an_unusable_mount_and_a_silent_target_have_their_codes() {
    let directory = tempfile::tempdir().unwrap();
    let inventory = directory.path().join("inventory.yml");
    fs::write(&inventory, INVENTORY).unwrap();
    let output = gpferry_in(directory.path(), &["run"]);
    assert_eq!(output.status.code(), Some(13), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("/nonexistent/mount"));
    fs::write(&inventory, INVENTORY.replace("/nonexistent/mount", "/tmp")).unwrap();
    let output = gpferry_in(directory.path(), &["run"]);
    assert_eq!(output.status.code(), Some(14), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("127.0.0.1:1"), "{}", text(&output.stderr));
}

#[test]
fn an_unusable_ledger_is_exit_code_15() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("inventory.yml"), INVENTORY).unwrap();
    fs::write(directory.path().join("not-a-ledger"), "this is no SQLite file, ".repeat(50)).unwrap();
    let output = gpferry_in(directory.path(), &["run", "--ledger", "not-a-ledger"]);
    assert_eq!(output.status.code(), Some(15), "{}", text(&output.stderr));
}

#[test]
fn explain_knows_every_code() {
    for code in 0..=255 {
        let output = gpferry(&["explain", &code.to_string()]);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).lines().count() >= 2, "{code}");
    }
    insta::assert_snapshot!(text(&gpferry(&["explain", "127"]).stdout), @r"
    exit code 127: command, interpreter or library not found
    The command, its interpreter or a library of it was not found.
      often: it is not installed
      often: a login without terminal reads other startup files, so PATH is shorter
      often: the script has Windows line ends (`bash\r`)
      try: give the full path, or set PATH where non-interactive shells read it
           (~/.bashrc, before its test for interactive)
      try: run `ldd` on it
    ");
}

#[test]
fn where_nothing_is_due_nothing_is_connected() {
    let directory = tempfile::tempdir().unwrap();
    // Neither target nor source can be reached, and the mount is not there.
    let inventory = INVENTORY
        .replace("from: 2021-08-10", "from: 2199-08-10")
        .replace("2021-08-11", "2199-08-11")
        .replace("      - { table: ref.product, window: none, target: dim.product }\n", "");
    fs::write(directory.path().join("inventory.yml"), inventory).unwrap();
    let path = directory.path().join("inventory.ledger.sqlite");
    let mut ledger = gpferry::ledger::Ledger::open(&path).unwrap();
    let now = jiff::Timestamp::now();
    let target = "postgresql://loader@127.0.0.1:1/d";
    ledger.catch_up(target, now, |_| Ok::<(), gpferry::ledger::LedgerError>(())).unwrap();
    drop(ledger);
    let output = gpferry_in(directory.path(), &["run"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("not due yet"), "{}", text(&output.stdout));
}
