//! Preflight against the real thing: each fault is set up, found with its id and its remedy, and nothing is left.

mod databases;
mod hosts;
mod limits;
mod mounts;

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::ends::wait_for;
use crate::support::{Case, Ran, lab, ran};

/// Adds a host to the lab and gives its alias. `options` are those of `lab.sh host`.
fn host(case: &Case, suffix: &str, options: &[&str]) -> String {
    let name = format!("{}_{suffix}", case.database());
    let output = Command::new("bash")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/lab.sh"))
        .args(["host", lab().get("LAB_DIR"), &name])
        .args(options)
        .output()
        .unwrap_or_else(|error| panic!("{error}"));
    ran(output).expect(0);
    format!("gp-{name}")
}

/// Where a lab host has its home directories.
fn home(case: &Case, suffix: &str) -> std::path::PathBuf {
    format!("{}/hosts/{}_{suffix}/home", lab().get("LAB_DIR"), case.database()).into()
}

/// A case whose table is as it should be on both sides.
fn ready(name: &str) -> Case {
    let mut case = Case::new(name);
    case.both("CREATE TABLE t (id int PRIMARY KEY, ts timestamp NOT NULL); CREATE INDEX ON t (ts)");
    case.inventory_with(
        "",
        "    from: 2026-01-01\n",
        &["{ table: public.t, window: { column: ts, length: 1d } }"],
    );
    case
}

/// As [`ready`], with the source on a host of its own.
fn ready_on(name: &str, options: &[&str]) -> (Case, String) {
    let case = ready(name);
    let options: Vec<&str> =
        options.iter().map(|option| if *option == "CASE" { case.database() } else { option }).collect();
    let alias = host(&case, "x", &options);
    case.edit_inventory("host: gp-a", &format!("host: {alias}"));
    (case, alias)
}

/// Runs preflight for its JSON.
fn preflight(case: &Case, more: &[&str]) -> (Ran, Value) {
    let ran = case.gpferry(&[&["preflight", "--format", "json"], more].concat());
    assert!(!ran.stdout.is_empty(), "no result: {}", ran.stderr);
    let json = ran.json();
    (ran, json)
}

/// The checks of one verdict: id, subject, what was seen, remedy.
fn checks(json: &Value, verdict: &str) -> Vec<[String; 4]> {
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or("").to_owned();
    let all = json["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter()
        .filter(|check| check["verdict"] == verdict)
        .map(|check| ["id", "subject", "seen", "remedy"].map(|key| text(check, key)))
        .collect()
}

/// Exactly one check has failed: this one, with these words in what was seen and in the remedy.
#[track_caller]
fn one_fault(case: &Case, id: &str, seen: &str, remedy: &str) {
    let (ran, json) = preflight(case, &[]);
    let failed = checks(&json, "fail");
    assert_eq!(failed.len(), 1, "{failed:#?}");
    ran.expect(13);
    found(&failed, id, seen, remedy);
    nothing_is_left(case);
}

/// One warning and nothing to mend.
#[track_caller]
fn one_warning(case: &Case, id: &str, seen: &str, remedy: &str) {
    let (ran, json) = preflight(case, &[]);
    ran.expect(0);
    let warned = checks(&json, "warn");
    assert_eq!(warned.len(), 1, "{warned:#?}");
    found(&warned, id, seen, remedy);
    nothing_is_left(case);
}

#[track_caller]
fn found(checks: &[[String; 4]], id: &str, seen: &str, remedy: &str) {
    let hit =
        checks.iter().any(|check| check[0] == id && check[2].contains(seen) && check[3].contains(remedy));
    assert!(hit, "no {id} with `{seen}` and `{remedy}` in {checks:#?}");
    assert!(!checks.iter().any(|check| check[3].contains("chown -R")), "{checks:#?}");
}

/// No nonce file below the case's mount.
#[track_caller]
fn nothing_is_left(case: &Case) {
    for directory in [case.mount(), case.mount().join("file2GP")] {
        let names: Vec<_> = std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .map(|one| one.map(|one| one.file_name()))
            .collect();
        assert!(!names.iter().flatten().any(|name| name.to_string_lossy().starts_with('.')), "{names:?}");
    }
}

/// Names of the processes on a host of its own, but for sshd and what the lab itself keeps there.
fn processes(case: &Case, suffix: &str) -> Vec<String> {
    let pids = std::fs::read_to_string(format!("{}/pids", lab().get("LAB_DIR"))).unwrap();
    let what = format!("sshd-{}_{suffix}", case.database());
    let line = pids.lines().find(|line| line.ends_with(&what)).unwrap();
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let own = namespace(line.split(' ').next().unwrap());
    assert!(own.is_some(), "the host is there");
    let all =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    all.filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()) && namespace(pid) == own)
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !["sshd", "sleep"].contains(&name.as_str()))
        .collect()
}

#[test]
fn a_clean_lab_reports_nothing_and_is_left_as_it_was() {
    let case = ready("clean");
    let fresh = host(&case, "x", &[]);
    case.edit_inventory("host: gp-a", &format!("host: {fresh}"));
    let (ran, json) = preflight(&case, &[]);
    for verdict in ["fail", "warn", "skipped"] {
        assert_eq!(checks(&json, verdict), <[[String; 4]; 0]>::default(), "{verdict}");
    }
    ran.expect(0);
    let log = std::fs::read_to_string(home(&case, "x").with_file_name("sshd.log")).unwrap();
    assert_eq!(log.matches("Accepted publickey").count(), 1, "one session for everything: {log}");
    // A check of every area was made, not left out.
    for id in [
        "reach.login",
        "reach.roundtrip",
        "reach.sessions",
        "host.bash",
        "host.psql",
        "host.compressor",
        "host.cache",
        "host.noexec",
        "host.clock",
        "host.load",
        "host.tmp",
        "mount.exists",
        "mount.point",
        "mount.options",
        "mount.space",
        "mount.inodes",
        "mount.subdir",
        "mount.nonce",
        "mount.identity",
        "source.database",
        "source.table",
        "source.window",
        "source.index",
        "target.database",
        "target.log",
        "target.encoding",
        "target.table",
        "target.key",
        "target.columns",
    ] {
        assert!(checks(&json, "ok").iter().any(|check| check[0] == id), "no {id} in {json:#}");
    }
    let names = |path: std::path::PathBuf| -> Vec<_> {
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert!(names(case.mount()).is_empty(), "{:?}", names(case.mount()));
    wait_for("no process is left", Duration::from_secs(5), || processes(&case, "x").is_empty());
    assert_eq!(names(home(&case, "x").join("gpadmin")), [".ssh"], "nothing was put into the home");
    let mut case = case;
    let made = "SELECT count(*) FROM pg_namespace WHERE nspname = 'gpferry'";
    assert_eq!(case.count(made), 0, "no schema was made in the target");
    let shown = case.gpferry(&["preflight"]).expect(0).silent_about("FAIL").silent_about("WARN").stdout;
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
}

#[test]
fn only_what_was_asked_for_is_looked_at() {
    let mut case = ready("only");
    case.target.batch_execute("DROP TABLE t").unwrap();
    case.gpferry(&["preflight"]).expect(13).says("FAIL target.table: public.t").says("try:");
    let (ran, json) = preflight(&case, &["--only", "reach,mount"]);
    ran.expect(0);
    let areas: std::collections::BTreeSet<String> =
        checks(&json, "ok").iter().map(|check| check[0].split('.').next().unwrap().to_owned()).collect();
    assert_eq!(areas.into_iter().collect::<Vec<_>>(), ["mount", "reach"]);
    case.gpferry(&["preflight", "--host", "nobody*"]).expect(2).says("no host matches");
    case.gpferry(&["preflight", "--host", "gp-a", "--only", "reach"]).expect(0).says("of 2 hosts");
    case.gpferry(&["preflight", "--job", "nosuch"]).expect(2);
}
