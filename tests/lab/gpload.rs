//! The site's own gpload: on a Greenplum that the tester brings, with the gpload of an installation beside it. What the
//! real one cannot be made to do at will is done by one that stands in for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::greenplum::gphome;
use crate::support::{Case, lab};
use crate::ways::awkward;

/// A table of 1,000 awkward rows in the source, that gpload is to load.
fn case(name: &str) -> Option<Case> {
    gphome(&format!("gpload, {name}"))?;
    Some(awkward(&format!("gpload_{name}"), "gpload", "\"V ü\""))
}

/// What gpload and gpferry make in a target, and must not leave there.
const LEFT: &str =
    "SELECT count(*) FROM pg_class WHERE relname LIKE 'ext_gpload%' OR relname LIKE 'gpload_%'";

/// A gpload of the test's own in the place of the real one, which it finds in `$REAL`, and its control file in `$CONTROL`.
fn stand_in(case: &Case, text: &str) -> PathBuf {
    let real = gphome("a gpload that stands in").unwrap().join("bin/gpload");
    let path = case.path("gpload");
    let (host, port) = (lab().get("LAB_TARGET_SOCKET"), lab().get("LAB_TARGET_PORT"));
    let (admin, database) = (lab().get("LAB_TARGET_ADMIN"), case.database());
    let sql = format!("psql -X -q -h {host} -p {port} -U {admin} -d {database} -c");
    let text =
        format!("#!/bin/bash\nREAL={} CONTROL=$2\nsql() {{ {sql} \"$1\"; }}\n{text}\n", real.display());
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    case.edit_inventory(&real.display().to_string(), &path.display().to_string());
    path
}

/// Puts the real one back.
fn real_again(case: &Case) {
    let real = gphome("the real gpload").unwrap().join("bin/gpload");
    case.edit_inventory(&case.path("gpload").display().to_string(), &real.display().to_string());
}

/// Processes of gpfdist that serve files of this test's mount.
fn serving(case: &Case) -> usize {
    let mount = case.mount().display().to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let words = entries.map(|entry| fs::read(entry.path().join("cmdline")).unwrap_or_default());
    words
        .filter(|words| {
            let words = String::from_utf8_lossy(words);
            words.split('\0').next().is_some_and(|name| name.ends_with("gpfdist")) && words.contains(&mount)
        })
        .count()
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < until, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_gpload_loads_is_what_was_in_the_source_and_nothing_of_it_stays() {
    let Some(mut case) = case("rows") else { return };
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded, 1000 rows");
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_eq!(case.count(LEFT), 0);
    assert_eq!(case.count("SELECT count(*) FROM gpferry.load_log WHERE rows_loaded = 1000"), 1);
    case.gpferry(&["plan"]).expect(0);
    case.gpferry(&["preflight"]).expect(0).silent_about("FAIL");
}

#[test]
fn a_table_is_merged_by_gpload() {
    let Some(mut case) = case("merged") else { return };
    case.target.batch_execute("INSERT INTO t VALUES (1, 'old', 0, NULL), (5000, 'kept', 0, NULL)").unwrap();
    case.edit_inventory("window: none }", "window: none, load: { mode: merge } }");
    case.gpferry(&["run"]).expect(0).says("1000 rows");
    assert_eq!(case.count("SELECT count(*) FROM t"), 1001);
    case.assert_same("SELECT * FROM t WHERE id <= 1000 ORDER BY id");
    assert_eq!(case.count(LEFT), 0);
}

#[test]
fn keys_that_collide_are_told_as_by_any_loader() {
    let Some(mut case) = case("collide") else { return };
    case.target.batch_execute("INSERT INTO t (id) VALUES (7)").unwrap();
    case.gpferry(&["run"]).expect(3).says("23505").says("another row");
    assert_eq!((case.count("SELECT count(*) FROM t"), case.count(LEFT)), (1, 0));
}

#[test]
fn rows_that_do_not_fit_are_named_or_kept_out() {
    let Some(mut case) = case("misfit") else { return };
    case.source
        .batch_execute("ALTER TABLE t ALTER id TYPE text; UPDATE t SET id = 'G777' WHERE id = '777'")
        .unwrap();
    case.edit_inventory("window: none }", "window: none, load: { mapping: { id: \"CAST(id AS int)\" } } }");
    let ran = case.gpferry(&["run"]);
    ran.expect(3).silent_about("G777");
    assert_eq!((case.count("SELECT count(*) FROM t"), case.count(LEFT)), (0, 0));
    case.edit_inventory(
        ", load: { mapping: { id: \"CAST(id AS int)\" } } }",
        ", load: { reject_limit: 2 rows } }",
    );
    case.gpferry(&["run"]).expect(3);
    assert_eq!(case.count("SELECT count(*) FROM t"), 999);
    assert_eq!(case.count("SELECT rows_rejected::bigint FROM gpferry.load_log"), 1);
    assert_eq!(case.count(LEFT), 0);
}

#[test]
fn a_gpload_that_commits_and_says_that_it_failed_has_loaded() {
    let Some(mut case) = case("says_2") else { return };
    stand_in(&case, "\"$REAL\" \"$@\"; exit 2");
    case.gpferry(&["run"]).expect(0).says("1000 rows").says("gpload did not end as it should");
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_eq!(case.count(LEFT), 0);
}

#[test]
fn a_gpload_that_drops_rows_and_says_that_it_succeeded_has_not() {
    let Some(mut case) = case("says_0") else { return };
    let staging =
        "grep -o 'TABLE\": *\"[^}]*' \"$CONTROL\" | head -1 | sed 's/.*TABLE\": *\"//; s/\"$//; s/\\\\//g'";
    stand_in(&case, &format!("\"$REAL\" \"$@\"; sql \"DELETE FROM $({staging}) WHERE c0 = 7\" >&2"));
    case.gpferry(&["run"])
        .expect(3)
        .says("gpload says that it succeeded, and 999 of 1000 rows are there")
        .says("the source reported 1000 rows, the target 999; rolled back");
    assert_eq!((case.count("SELECT count(*) FROM t"), case.count(LEFT)), (0, 0));
    real_again(&case);
    case.gpferry(&["run"]).expect(0).says("1000 rows");
}

#[test]
fn a_gpload_that_does_nothing_and_says_that_it_succeeded_has_not() {
    let Some(mut case) = case("nothing") else { return };
    stand_in(&case, "exit 0");
    case.gpferry(&["run"]).expect(3).says("0 of 1000 rows came in");
    assert_eq!((case.count("SELECT count(*) FROM t"), case.count(LEFT)), (0, 0));
}

#[test]
fn one_that_is_not_there_is_said() {
    let Some(mut case) = case("absent") else { return };
    let real = gphome("one that is not there").unwrap().join("bin/gpload").display().to_string();
    case.edit_inventory(&real, "/nowhere/gpload");
    case.gpferry(&["run"]).expect(3).says("/nowhere/gpload: command not found").says("target.gpload.path");
    case.gpferry(&["preflight"]).expect(13).says("target.loader").says("target.gpload.path");
    assert_eq!((case.count("SELECT count(*) FROM t"), case.count(LEFT)), (0, 0));
}

/// A load whose gpload waits before it begins, or after it has ended.
fn met(case: &Case, text: &str) -> Child {
    let here = case.path("here");
    stand_in(case, &text.replace("HERE", &format!("echo $PPID > {}; sleep 60", here.display())));
    let tmp = case.path("tmp");
    fs::create_dir_all(&tmp).unwrap();
    let mut command = case.command(&["load"]);
    let mut run = command.env("TMPDIR", &tmp).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("gpload is at work", || {
        assert!(run.try_wait().unwrap().is_none(), "the load ended early");
        fs::read_to_string(&here).is_ok_and(|pid| pid.ends_with('\n'))
    });
    run
}

#[test]
fn one_on_another_host_is_run_over_ssh() {
    let Some(mut case) = case("ssh") else { return };
    let on_host = format!("{}/{}", lab().get("LAB_MOUNT_A"), case.database());
    case.edit_inventory("gpload: { ", &format!("gpload: {{ host: gp-a, mount: {on_host}, "));
    case.gpferry(&["run"]).expect(0).says("1000 rows");
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_eq!(case.count(LEFT), 0);
}

#[test]
fn one_that_takes_too_long_is_ended_and_the_limit_named() {
    let Some(mut case) = case("slow") else { return };
    case.edit_inventory("window: none }", "window: none, load: { timeout: 3s } }");
    stand_in(&case, "sleep 100");
    case.gpferry(&["run"]).expect(3).says("its time limit was reached").says("raise `load.timeout`");
    assert_eq!((case.count("SELECT count(*) FROM t"), case.count(LEFT)), (0, 0));
}

#[test]
fn a_signal_ends_gpload_with_the_run_and_the_file_waits() {
    let Some(mut case) = case("signal") else { return };
    case.gpferry(&["export"]).expect(0);
    let run = met(&case, "HERE; \"$REAL\" \"$@\"");
    let pid = run.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    let late = std::thread::spawn(move || run.wait_with_output().unwrap());
    wait_until("the run ends", || late.is_finished());
    assert_eq!(late.join().unwrap().status.code(), Some(130));
    let control_files = fs::read_dir(case.path("tmp")).unwrap().count();
    assert_eq!((case.count("SELECT count(*) FROM t"), case.count(LEFT), control_files), (0, 0, 0));
    real_again(&case);
    case.gpferry(&["load"]).expect(0).says("1000 rows");
}

#[test]
fn what_a_killed_runner_leaves_goes_by_itself_or_with_the_next_run() {
    let Some(mut case) = case("killed") else { return };
    case.gpferry(&["export"]).expect(0);
    let tmp = case.path("tmp");
    for text in ["HERE; \"$REAL\" \"$@\"", "\"$REAL\" \"$@\"; HERE"] {
        let mut run = met(&case, text);
        run.kill().unwrap();
        run.wait().unwrap();
        let guard: u32 = fs::read_to_string(case.path("here")).unwrap().trim().parse().unwrap();
        wait_until("its gpload ends", || !PathBuf::from(format!("/proc/{guard}")).exists());
        assert!(case.count(LEFT) > 0, "{text}: nothing was left, so nothing is shown");
        let control_files = fs::read_dir(&tmp).unwrap().count();
        assert_eq!(
            (case.count("SELECT count(*) FROM t"), control_files, serving(&case)),
            (0, 0, 0),
            "{text}"
        );
        fs::remove_file(case.path("here")).unwrap();
        real_again(&case);
    }
    case.target.batch_execute("CREATE TABLE public.gpload_foreign (a int)").unwrap();
    case.gpferry(&["load", "-v"]).expect(0).says("1000 rows").says("which a load by gpload left that died");
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_eq!(case.count(LEFT), 1, "somebody else's table is not gpferry's to drop");
}

#[test]
fn a_gpload_that_is_killed_in_the_middle_is_tried_again() {
    let Some(mut case) = case("dies") else { return };
    let once = case.path("once");
    let text = format!(
        "if [ ! -e {0} ]; then touch {0}; \"$REAL\" \"$@\" & sleep 0.3; kill -9 $!; exit 137; fi; exec \"$REAL\" \"$@\"",
        once.display()
    );
    stand_in(&case, &text);
    case.gpferry(&["run"]).expect(0).says("1000 rows");
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_eq!(case.count(LEFT), 0);
    assert_eq!(serving(&case), 0, "a gpfdist of gpload stays");
}
