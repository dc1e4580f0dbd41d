//! What is older than `keep` says goes, and nothing is loaded twice for it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::ends::wait_for;
use crate::memory::hours;
use crate::support::{Case, Side, ran};

const LOG: &str = "SELECT count(*) FROM gpferry.load_log";

/// Makes everything that was loaded so many days older, in the load log and in the ledger.
fn age(case: &mut Case, days: u32) {
    case.target
        .batch_execute(&format!("UPDATE gpferry.load_log SET loaded_at = loaded_at - interval '{days} days'"))
        .unwrap();
    let ledger = rusqlite::Connection::open(case.path("inventory.ledger.sqlite")).unwrap();
    let older =
        |column: &str| format!("{column} = strftime('%Y-%m-%dT%H:%M:%f000Z', {column}, '-{days} days')");
    ledger
        .execute_batch(&format!(
            "UPDATE unit SET {}, {}; UPDATE attempt SET {}; UPDATE run SET {}; DELETE FROM pruned;",
            older("loaded_at"),
            older("updated_at"),
            older("started_at"),
            older("started_at"),
        ))
        .unwrap();
}

fn set_mtime(path: &Path, days: i64) {
    let then = std::time::SystemTime::now() - Duration::from_secs(days.unsigned_abs() * 86_400);
    fs::File::options().append(true).open(path).unwrap().set_modified(then).unwrap();
}

#[test]
fn files_go_only_when_the_load_log_holds_their_unit_under_that_path() {
    let mut case = hours("files", 48, "{ files: 7d }");
    case.gpferry(&["run"]).expect(0);
    assert_eq!(case.files().len(), 12);
    case.gpferry(&["prune"]).expect(0).says("nothing is older");
    age(&mut case, 8);
    let root = case.mount().join("file2GP");
    let days = root.join("s/202108");
    let files = case.files();
    // One unit that the load log does not hold, whatever the ledger says.
    let gone = files[0].file_name().unwrap().to_str().unwrap().trim_end_matches(".csv.gz").to_owned();
    case.target.execute("DELETE FROM gpferry.load_log WHERE unit = $1", &[&gone]).unwrap();
    // The same name in another place, a name that is none of ours, one that is still written, and another source's.
    let other = root.join(&files[1]);
    let copy = root.join("s/202107/01/t").join(other.file_name().unwrap());
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::copy(&other, &copy).unwrap();
    for name in
        ["01/t/notes.csv.gz", "01/t/.x.csv.gz.r.1.part", "01/t/d^a^t^20210801000000^20210801040000.csv.gz"]
    {
        fs::write(days.join(name), "x").unwrap();
    }
    // Symlinks lead nowhere: at a file, at a directory, at the place of a whole table's directory.
    let outside = case.path("outside");
    fs::create_dir(&outside).unwrap();
    let linked = root.join(&files[2]);
    fs::rename(&linked, outside.join("precious")).unwrap();
    symlink(outside.join("precious"), &linked).unwrap();
    let day = days.join("02");
    fs::rename(&day, outside.join("02")).unwrap();
    symlink(outside.join("02"), &day).unwrap();
    let before = case.files();
    let looked = case.gpferry(&["-v", "prune", "--dry-run"]).expect(0).says("would be removed: 4 files,");
    assert_eq!(case.files(), before, "a dry run touches nothing");
    let json = case.gpferry(&["-v", "prune", "--dry-run", "--format", "json"]).expect(0).json();
    let named = json["files"]["paths"].as_array().unwrap().clone();
    assert_eq!((named.len(), &json["files"]["files"], &json["dry_run"]), (4, &4.into(), &true.into()));
    assert!(looked.stdout.contains(named[0].as_str().unwrap()), "{}", looked.stdout);
    case.gpferry(&["prune"]).expect(0).says("removed: 4 files,");
    for path in named {
        assert!(!root.join(path.as_str().unwrap()).exists(), "{path}");
    }
    assert!(root.join(&files[0]).exists() && copy.exists() && outside.join("precious").exists());
    assert_eq!(fs::read_dir(outside.join("02/t")).unwrap().count(), 6, "behind the symlink");
    assert_eq!(case.files().len(), before.len() - 4);
    case.gpferry(&["prune"]).expect(0).says("nothing is older");
}

#[test]
fn directories_that_are_left_empty_go_too_and_a_run_prunes_by_itself() {
    let mut case = hours("rmdir", 48, "{ files: 7d, rejects: 2d }");
    case.gpferry(&["run"]).expect(0);
    age(&mut case, 8);
    let rejects = case.mount().join("file2GP/rejects/s");
    fs::create_dir_all(&rejects).unwrap();
    for (name, days) in [("old.csv.gz", 3), ("young.csv.gz", 1)] {
        fs::write(rejects.join(name), "1234").unwrap();
        set_mtime(&rejects.join(name), days);
    }
    let outside = case.path("outside");
    fs::write(&outside, "x").unwrap();
    set_mtime(&outside, 9);
    symlink(&outside, rejects.join("link")).unwrap();
    case.gpferry(&["run"]).expect(0).says("removed: 12 files,").says("1 file of rejects, 4 B");
    assert!(!case.mount().join("file2GP/s/202108").exists() && case.mount().join("file2GP/s").exists());
    assert!(
        rejects.join("young.csv.gz").exists() && !rejects.join("old.csv.gz").exists() && outside.exists()
    );
    case.gpferry(&["run"]).expect(0).silent_about("removed");
    case.assert_same("SELECT * FROM t ORDER BY id");
}

#[test]
fn pruned_history_never_makes_a_unit_load_twice() {
    let mut case = hours("never_twice", 48, "{ history: 400d }");
    case.both("CREATE TABLE w (id int); CREATE TABLE n (id bigint, ts timestamp)");
    case.source
        .batch_execute("INSERT INTO w VALUES (1); INSERT INTO n SELECT i, NULL FROM generate_series(1, 50) i")
        .unwrap();
    case.edit_inventory(
        "      - { table: public.t,",
        "      - { table: public.w, window: none }\n      \
         - { table: public.n, window: { column: id, type: id, step: 20, lag: 0s, null_window: skip } }\n      - { table: public.t,",
    );
    // The third window is missing, so two stretches are left.
    let missing = "ts >= '2021-08-01 08:00' AND ts < '2021-08-01 12:00'";
    case.target.batch_execute("ALTER TABLE t ADD CHECK (id NOT BETWEEN 8 AND 11)").unwrap();
    case.gpferry(&["run"]).expect(3);
    case.gpferry(&["run"]).expect(3);
    let (before, rows) = (case.count(LOG), "SELECT sum(rows_loaded)::bigint FROM gpferry.load_log");
    let sum = case.count(rows);
    age(&mut case, 401);
    let json = case.gpferry(&["prune", "--dry-run", "--format", "json"]).expect(0).json();
    assert_eq!(case.count(LOG), before);
    let status = |case: &Case| {
        let mut tables = case.gpferry(&["status", "--format", "json"]).expect(0).json()["tables"].take();
        // The clock goes on.
        tables.as_array_mut().unwrap().iter_mut().for_each(|table| table["late_seconds"] = 0.into());
        tables
    };
    let shown = status(&case);
    case.gpferry(&["prune"]).expect(0).says("of the load log into 3 rows");
    assert_eq!(json["load_log"]["into"], 3);
    // Whole tables stay, what touches is one: 0 to 8, 12 to 48 hours, and the ids.
    assert_eq!(case.count(LOG), 4);
    assert_eq!(case.count(rows), sum);
    assert_eq!(case.count(&format!("{LOG} WHERE mode = 'pruned'")), 3);
    assert_eq!(status(&case), shown);
    case.gpferry(&["history", "--state", "loaded"]).expect(0).says("^w^all").silent_about("^t^2021");
    case.gpferry(&["run", "--retry-failed"]).expect(3);
    // With a new ledger, with one that knows nothing and is told that it does, and by other bounds.
    case.target.batch_execute("ALTER TABLE t DROP CONSTRAINT t_id_check").unwrap();
    fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
    case.gpferry(&["run", "--max-units", "0"]).expect(0);
    let forgetful = "DELETE FROM covered; DELETE FROM unit; DELETE FROM tally";
    rusqlite::Connection::open(case.path("inventory.ledger.sqlite"))
        .unwrap()
        .execute_batch(forgetful)
        .unwrap();
    case.edit_inventory("length: 4h", "length: 3h");
    for _ in 0..3 {
        case.gpferry(&["run"]);
    }
    case.gpferry(&["run"]).expect(0).says("0 of 0 units");
    case.assert_same("SELECT * FROM t ORDER BY id");
    case.assert_same("SELECT * FROM w");
    case.assert_same("SELECT * FROM n ORDER BY id");
    assert_eq!(case.count(&format!("SELECT count(*) FROM t WHERE {missing}")), 4);
}

#[test]
fn what_was_put_together_is_put_together_again_and_its_files_still_go() {
    let mut case = hours("again", 24, "{ history: 400d }");
    case.edit_inventory("until: 2021-08-03", "until: 2021-08-02");
    case.gpferry(&["run"]).expect(0);
    age(&mut case, 401);
    case.gpferry(&["prune"]).expect(0).says("6 rows of the load log into 1 row");
    case.source
        .batch_execute("INSERT INTO t SELECT i, timestamp '2021-08-01' + i * interval '1 hour' FROM generate_series(24, 47) i")
        .unwrap();
    case.edit_inventory("until: 2021-08-02", "until: 2021-08-03");
    case.gpferry(&["run"]).expect(0).says("6 of 6 units loaded");
    age(&mut case, 401);
    case.gpferry(&["prune"]).expect(0).says("7 rows of the load log into 1 row");
    assert_eq!(case.count("SELECT rows_loaded FROM gpferry.load_log"), 48);
    assert_eq!(case.count("SELECT count(*) FROM gpferry.load_log WHERE digest = 'units:12'"), 1);
    assert_eq!(case.files().len(), 12);
    case.edit_inventory("keep: { history: 400d }", "keep: { history: 400d, files: 7d }");
    case.gpferry(&["prune"]).expect(0).says("removed: 12 files");
    case.gpferry(&["run"]).expect(0).says("0 of 0 units");
    case.assert_same("SELECT * FROM t ORDER BY id");
}

#[test]
fn old_manifests_attempts_and_runs_go() {
    let mut case = hours("manifests", 8, "{ history: 400d }");
    case.gpferry(&["run"]).expect(0);
    let manifests = case.mount().join("file2GP/manifest");
    for name in ["20200101T000000Z-ab12.jsonl", "notes.jsonl"] {
        fs::write(manifests.join(name), "{}\n").unwrap();
    }
    case.gpferry(&["prune"]).expect(0).says("removed: 1 manifest, 3 B");
    assert!(manifests.join("notes.jsonl").exists());
    assert_eq!(fs::read_dir(&manifests).unwrap().count(), 2);
    age(&mut case, 401);
    case.gpferry(&["prune"])
        .expect(0)
        .says("12 loaded units of the ledger")
        .says("12 attempts")
        .says("1 run of the ledger");
    case.gpferry(&["history", "--runs"]).expect(0).says("no runs");
    case.gpferry(&["run"]).expect(0).says("0 of 0 units");
}

#[test]
fn a_load_that_works_meanwhile_is_waited_for_and_never_held_up() {
    let mut case = hours("busy_log", 48, "{ history: 400d }");
    case.gpferry(&["run"]).expect(0);
    age(&mut case, 401);
    // A loader's transaction, with its claim.
    let mut loader = Side::Target.connect(case.database());
    loader
        .batch_execute("BEGIN; INSERT INTO gpferry.load_log (source, unit, job, table_name, file, mode, rows_exported, digest, run) VALUES ('x', 'x', 'x', 'x', '', 'insert', 0, '', 'x')")
        .unwrap();
    let child = case.command(&["prune"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let tried = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LOCK TABLE%' OR query LIKE 'ROLLBACK%'";
    wait_for("prune tries", Duration::from_secs(20), || case.count(tried) > 0);
    // Another loader does not wait behind it.
    case.target
        .batch_execute("SET lock_timeout = '1s'; INSERT INTO gpferry.load_log (source, unit, job, table_name, file, mode, rows_exported, digest, run) VALUES ('y', 'y', 'y', 'y', '', 'insert', 0, '', 'y')")
        .unwrap();
    ran(child.wait_with_output().unwrap()).expect(0).says("the load log is in use by loaders");
    assert_eq!(case.count(&format!("{LOG} WHERE source = 's'")), 12);
    loader.batch_execute("COMMIT").unwrap();
    case.gpferry(&["prune"]).expect(0).says("12 rows of the load log into 1 row");
}

#[test]
fn a_run_that_cannot_prune_is_no_failure_and_prune_says_what_it_lacks() {
    let mut case = hours("no_delete", 48, "{ history: 400d }");
    case.gpferry(&["run"]).expect(0);
    age(&mut case, 401);
    case.target
        .batch_execute("ALTER TABLE gpferry.load_log OWNER TO postgres; GRANT SELECT, INSERT ON gpferry.load_log TO loader")
        .unwrap();
    case.gpferry(&["run"]).expect(0).says("what is old is not all removed").says("SQLSTATE 42501");
    case.gpferry(&["prune"]).expect(14).says("permission denied");
    assert_eq!(case.count(LOG), 12);
    case.edit_inventory("keep: { history: 400d }\n", "");
    case.gpferry(&["prune"]).expect(2).says("has no `keep`");
}
