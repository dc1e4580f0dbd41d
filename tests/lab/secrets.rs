//! No password and no cell value anywhere but in the files and the databases.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::{Case, lab, ran};

/// Stands in cells alone.
const CELL: &str = "CELLVALUE-48151623";
/// Stands in a cell that the target refuses, and in a key that collides.
const REFUSED: &str = "REFUSED-42";

/// Every process's command line and environment, while the run goes on; but for the runner's own environment, which
/// holds the password because the operator put it there.
fn processes(runner: u32, seen: &mut BTreeSet<String>) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // What the tests themselves were started with is not the run's.
        if pid == std::process::id() {
            continue;
        }
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        seen.insert(String::from_utf8_lossy(&read("cmdline")).into_owned());
        // A test beside this one may have a runner of its own, with the same password for the same reason.
        if pid != runner && read("comm") != b"gpferry\n" {
            seen.insert(String::from_utf8_lossy(&read("environ")).into_owned());
        }
    }
}

fn below(directory: &Path, texts: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            below(&entry.path(), texts);
        } else {
            texts.push((entry.path().display().to_string(), fs::read(entry.path()).unwrap_or_default()));
        }
    }
}

#[test]
fn no_password_and_no_cell_value_is_in_what_a_run_leaves_or_shows() {
    let mut case = Case::new("secrets");
    case.source
        .batch_execute(&format!(
            "CREATE TABLE t AS SELECT i AS id, '{CELL}' || i AS v FROM generate_series(1, 30000) i; \
             CREATE TABLE bad (id text); INSERT INTO bad VALUES ('1'), ('{REFUSED}'); \
             CREATE TABLE keys (id text); INSERT INTO keys VALUES ('a'), ('{REFUSED}'); \
             CREATE VIEW broken AS SELECT v::int AS id FROM (VALUES ('1'), ('{REFUSED}')) x (v); \
             CREATE VIEW slow AS SELECT i AS id, '{CELL}' AS v FROM generate_series(1, 40) i WHERE pg_sleep(0.05) IS NOT NULL"
        ))
        .unwrap();
    case.target
        .batch_execute(&format!(
            "CREATE TABLE t (id int, v text); CREATE TABLE bad (id int); CREATE TABLE keys (id text PRIMARY KEY); \
             INSERT INTO keys VALUES ('{REFUSED}'); CREATE TABLE broken (id int); CREATE TABLE slow (id int, v text)"
        ))
        .unwrap();
    let tables = ["t", "bad", "keys", "broken", "slow"]
        .map(|name| format!("{{ table: public.{name}, window: none }}"));
    case.inventory(&tables.each_ref().map(String::as_str));
    let password = fs::read_to_string(lab().get("LAB_PGPASSFILE")).unwrap();
    let password = password.lines().next().unwrap().rsplit(':').next().unwrap().to_owned();
    let (out, err) = (case.path("run.out"), case.path("run.err"));
    let mut child = case
        .command(&["run", "-vv", "--format", "json"])
        .env("PGPASSWORD", &password)
        .env_remove("PGPASSFILE")
        .stdout(Stdio::from(fs::File::create(&out).unwrap()))
        .stderr(Stdio::from(fs::File::create(&err).unwrap()))
        .spawn()
        .unwrap();
    let mut seen = BTreeSet::new();
    let code = loop {
        processes(child.id(), &mut seen);
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(code, Some(3), "{}", fs::read_to_string(&err).unwrap());
    assert!(seen.iter().any(|text| text.contains("psql")), "the processes of the run were not seen");
    let mut texts: Vec<_> =
        seen.into_iter().map(|text| ("a process".to_owned(), text.into_bytes())).collect();
    // Ledger, its companions, both streams.
    below(out.parent().unwrap(), &mut texts);
    below(&case.mount().join("file2GP/manifest"), &mut texts);
    for args in [&["status"][..], &["status", "--format", "json"]] {
        let said = ran(case.command(args).output().unwrap());
        texts.push((format!("gpferry {args:?}"), format!("{}{}", said.stdout, said.stderr).into_bytes()));
    }
    assert!(texts.len() > 10, "{}", texts.len());
    for (place, bytes) in &texts {
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains(&password), "the password is in {place}");
        assert!(!text.contains(CELL), "a cell value is in {place}");
        // Colliding keys are shown to whoever runs the command, on stdout, and nowhere else.
        if !place.ends_with("run.out") {
            assert!(!text.contains(REFUSED), "a refused value is in {place}: {text}");
        }
    }
}
