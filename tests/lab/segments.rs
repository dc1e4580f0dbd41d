//! Segments read the files of the mount themselves: on a Greenplum that the tester brings.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::greenplum::is_missing_for;
use crate::support::{Case, lab};
use crate::ways::{EXTERNAL, awkward, damage};

/// A table of 1,000 awkward rows in the source, that segments are to load.
fn case(name: &str) -> Option<Case> {
    if is_missing_for(&format!("segments that load, {name}")) {
        return None;
    }
    Some(awkward(&format!("segments_{name}"), "segments", "v"))
}

#[test]
fn what_segments_read_is_what_was_in_the_source() {
    let Some(mut case) = case("rows") else { return };
    case.gpferry(&["run", "-vv"]).expect(0).says("1 of 1 unit loaded, 1000 rows").says("ON SEGMENT");
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_eq!(case.count(EXTERNAL), 0);
    assert_eq!(case.count("SELECT count(*) FROM gpferry.load_log WHERE rows_loaded = 1000"), 1);
    assert_eq!(case.files().len(), 1, "{:?}", case.files());
}

#[test]
fn a_plan_says_by_what_way_rows_get_in() {
    let Some(case) = case("plan") else { return };
    case.gpferry(&["plan"])
        .expect(0)
        .says("the segments read every file themselves, since the inventory says so");
    case.edit_inventory("loader: segments", "loader: auto");
    case.gpferry(&["plan"]).expect(0).says("by COPY, since 2 segments on 1 host are too few");
}

#[test]
fn a_file_that_is_damaged_is_named_and_exported_again() {
    let Some(mut case) = case("damaged") else { return };
    case.gpferry(&["export"]).expect(0);
    let file = damage(&case);
    case.gpferry(&["load"]).expect(3).says("is damaged").says(&file);
    assert_eq!((case.count("SELECT count(*) FROM t"), case.count(EXTERNAL)), (0, 0));
    case.gpferry(&["run"]).expect(0);
    case.assert_same("SELECT * FROM t ORDER BY id");
}

#[test]
fn a_file_that_segments_may_not_read_waits_until_they_may() {
    let Some(mut case) = case("closed") else { return };
    case.gpferry(&["export"]).expect(0);
    let path = case.only_file();
    let open = fs::metadata(&path).unwrap().permissions();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let denied =
        case.gpferry(&["load"]).expect(3).says("Permission denied").says("on all of them, and readable");
    denied.says(path.file_name().unwrap().to_str().unwrap());
    assert_eq!(case.count("SELECT count(*) FROM t"), 0);
    fs::set_permissions(&path, open).unwrap();
    case.gpferry(&["load"]).expect(0).says("1000 rows");
}

#[test]
fn segments_that_see_another_directory_load_nothing() {
    let Some(mut case) = case("elsewhere") else { return };
    case.edit_inventory("loader: segments", "mount: /tmp, loader: segments");
    case.gpferry(&["run"]).expect(3).says("the segments do not see the mount").says("`mount` at the target");
    assert_eq!(case.count("SELECT count(*) FROM t"), 0);
    case.gpferry(&["preflight"]).expect(13).says("target.loader").says("the segments do not see the mount");
    case.edit_inventory("mount: /tmp, ", "");
    case.gpferry(&["preflight", "--verbose"]).expect(0);
    case.gpferry(&["load"]).expect(0).says("1000 rows");
}

#[test]
fn who_is_no_superuser_is_told_so_before_anything_is_tried() {
    let Some(case) = case("rights") else { return };
    let (user, admin) = (lab().get("LAB_TARGET_USER"), lab().get("LAB_TARGET_ADMIN"));
    case.edit_inventory(&format!("postgresql://{admin}@"), &format!("postgresql://{user}@"));
    case.gpferry(&["run"]).expect(3).says("only a superuser may have segments run commands");
    case.gpferry(&["preflight"]).expect(13).says("only a superuser may have segments run commands");
}

#[test]
fn what_a_killed_runner_leaves_is_nothing() {
    let Some(mut case) = case("killed") else { return };
    case.gpferry(&["export"]).expect(0);
    case.target
        .batch_execute(
            "CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.02); \
             RETURN NULL; END $$; CREATE TRIGGER wait_here AFTER INSERT ON t FOR EACH ROW EXECUTE PROCEDURE wait_here()",
        )
        .unwrap();
    let mut run = case.command(&["load"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let reading = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE \
                   'INSERT INTO%gpferry_read%' AND pid <> pg_backend_pid()";
    let until = Instant::now() + Duration::from_secs(60);
    while case.count(reading) == 0 {
        assert!(Instant::now() < until && run.try_wait().unwrap().is_none(), "the segments never began");
        std::thread::sleep(Duration::from_millis(20));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    case.target.batch_execute("ALTER TABLE t DISABLE TRIGGER wait_here").unwrap();
    case.gpferry(&["load"]).expect(0);
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_eq!(case.count(EXTERNAL), 0);
}

#[test]
fn a_target_without_segments_cannot_load_by_them() {
    if crate::greenplum::leaves_out("segments on PostgreSQL", "which is not the target") {
        return;
    }
    let mut case = Case::new("no_segments");
    case.both("CREATE TABLE t (id int)");
    case.source.batch_execute("INSERT INTO t VALUES (1)").unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    case.gpferry(&["plan"]).expect(0).says("by COPY, since the target has no segments");
    case.load_by("segments");
    case.gpferry(&["run"]).expect(3).says("`loader: segments` is not possible: the target has no segments");
    case.gpferry(&["preflight"]).expect(13).says("`loader: segments` is not possible");
}
