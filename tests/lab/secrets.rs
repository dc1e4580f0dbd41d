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
        // The same program is the runner itself, or a process that it is just about to start.
        let exe = |pid: &str| fs::read_link(Path::new("/proc").join(pid).join("exe")).ok();
        if exe(&pid.to_string()).is_none_or(|own| Some(own) != exe(&runner.to_string())) {
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

/// Stands in every key and value.
const MARK: &str = "MARK-1618033";

#[test]
fn no_cell_value_is_in_what_says_everything() {
    let mut case = Case::new("says_everything");
    let names = ["updated", "merged", "replaced", "quarantined", "skipped", "then_merged", "compared"];
    for name in names {
        case.both(&format!("CREATE TABLE {name} (k text PRIMARY KEY, v text)"));
        case.source
            .batch_execute(&format!(
                "INSERT INTO {name} SELECT '{MARK}-' || i, '{MARK}' || i FROM generate_series(1, 300) i"
            ))
            .unwrap();
    }
    for name in &names[..6] {
        case.target
            .batch_execute(&format!(
                "INSERT INTO {name} SELECT '{MARK}-' || i, '{MARK}' FROM generate_series(290, 310) i"
            ))
            .unwrap();
    }
    case.target.batch_execute(&format!("INSERT INTO skipped VALUES ('{MARK}-5', '{MARK}5')")).unwrap();
    let entries: Vec<String> = names
        .iter()
        .zip([
            "mode: update",
            "mode: merge",
            "mode: replace",
            "on_pk_violation: quarantine",
            "on_pk_violation: skip_identical",
            "on_pk_violation: merge",
            "mode: insert",
        ])
        .map(|(name, load)| format!("{{ table: public.{name}, window: none, load: {{ {load} }} }}"))
        .collect();
    case.inventory(&entries.iter().map(String::as_str).collect::<Vec<_>>());
    // Triggers may say what they see.
    case.target
        .batch_execute(
            "CREATE FUNCTION talk() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN RAISE WARNING ''row %'', NEW; RAISE INFO ''row %'', NEW; RETURN NEW; END'; \
             CREATE TRIGGER talk BEFORE INSERT OR UPDATE ON compared FOR EACH ROW EXECUTE FUNCTION talk(); \
             CREATE TRIGGER talk BEFORE INSERT OR UPDATE ON merged FOR EACH ROW EXECUTE FUNCTION talk()",
        )
        .unwrap();
    let silent = |args: &[&str], code: i32| {
        let ran = ran(case.command(args).output().unwrap()).expect(code);
        assert!(ran.stderr.contains("DEBUG"), "it does not say everything: {}", ran.stderr);
        let shown: Vec<&str> = ran.stderr.lines().filter(|line| line.contains(MARK)).take(5).collect();
        assert!(shown.is_empty(), "{args:?}: {shown:#?}");
        ran.stderr
    };
    let everything = silent(&["run", "-vv"], 3);
    assert!(
        everything.contains("the server said something (WARNING, SQLSTATE 01000)"),
        "no trigger was heard"
    );
    let mut target = crate::support::Side::Target.connect(case.database());
    target
        .batch_execute(&format!(
            "DELETE FROM compared WHERE k = '{MARK}-7'; UPDATE compared SET v = '{MARK}' WHERE k = '{MARK}-8'; \
             INSERT INTO compared VALUES ('{MARK}', '{MARK}')"
        ))
        .unwrap();
    silent(&["compare", "--deep", "-vv"], 3);
    silent(&["repair", "-vv"], 4);
    silent(&["repair", "--delete-extra", "-vv"], 0);
    assert_eq!(
        target
            .query_one(&format!("SELECT v FROM compared WHERE k = '{MARK}-8'"), &[])
            .unwrap()
            .get::<_, String>(0),
        format!("{MARK}8")
    );
}
