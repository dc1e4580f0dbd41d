//! Links that somebody planted below the mount, and names that would be commands: nothing leads outside.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use crate::support::{Case, Side, lab};

/// A directory that the hosts' user may write to, outside of `file2GP`.
fn outside(case: &Case) -> std::path::PathBuf {
    let outside = case.mount().join("outside");
    fs::create_dir(&outside).unwrap();
    for path in [case.mount(), outside.clone()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o2777)).unwrap();
    }
    outside
}

fn listing(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// A small table and a view, whose exports go different ways.
fn two_ways(name: &str) -> Case {
    let mut case = Case::new(name);
    case.both("CREATE TABLE t (id int); CREATE TABLE target (id int)");
    case.source
        .batch_execute(
            "INSERT INTO t VALUES (1); CREATE VIEW v AS SELECT * FROM t; GRANT SELECT ON v TO gpadmin",
        )
        .unwrap();
    case.inventory(&[
        "{ table: public.t, window: none }",
        "{ table: public.v, target: public.target, window: none }",
    ]);
    case
}

#[test]
fn a_link_at_a_directory_s_place_leads_no_file_outside() {
    let case = two_ways("planted_dir");
    let outside = outside(&case);
    fs::create_dir(case.mount().join("file2GP")).unwrap();
    fs::set_permissions(case.mount().join("file2GP"), fs::Permissions::from_mode(0o2777)).unwrap();
    // As a host sees it: a link that leads out of file2GP, still on the mount.
    symlink("../outside", case.mount().join("file2GP/s")).unwrap();
    case.gpferry(&["run"]).expect(3).says("is a symbolic link, and none is followed there").says("2 failed");
    assert!(listing(&outside).is_empty(), "{:?}", listing(&outside));
    fs::remove_file(case.mount().join("file2GP/s")).unwrap();
    case.gpferry(&["run"]).expect(0).says("2 of 2 units loaded, 2 rows");
}

#[test]
fn a_link_at_a_file_s_place_is_replaced_and_what_it_named_is_left_alone() {
    let mut case = two_ways("planted_file");
    let outside = outside(&case);
    let precious = outside.join("precious");
    fs::write(&precious, "as it was").unwrap();
    fs::set_permissions(&precious, fs::Permissions::from_mode(0o666)).unwrap();
    case.gpferry(&["export"]).expect(0);
    for file in case.files() {
        let path = case.mount().join("file2GP").join(file);
        fs::remove_file(&path).unwrap();
        symlink("../../../../../outside/precious", &path).unwrap();
    }
    // They are not read through …
    case.gpferry(&["load"]).expect(3).says("is a symbolic link");
    // … and not written through.
    case.gpferry(&["run"]).expect(0).says("2 of 2 units loaded");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "as it was");
    assert_eq!(case.count("SELECT count(*) FROM t"), 1);
}

/// Names that are commands to a shell, statements to a database, or ways out to a file system.
const HOSTILE: [&str; 8] =
    ["-rf", "$(touch x)", "`touch x`", "'; drop table x; --", "^", "../../up", "a;touch x", "\\! touch x"];

#[test]
fn names_that_would_be_commands_are_only_names() {
    let mut case = Case::new("hostile");
    let mut tables = Vec::new();
    for name in HOSTILE {
        let quoted = format!("\"{name}\"");
        case.both(&format!("CREATE TABLE {quoted} (at timestamp, {quoted} text)"));
        case.source
            .batch_execute(&format!("INSERT INTO {quoted} VALUES ('2021-08-10 01:00', '$(touch x)')"))
            .unwrap();
        let text = format!("public.\\\"{}\\\"", name.replace('\\', "\\\\"));
        tables.push(format!("{{ table: \"{text}\", window: {{ column: at, length: 1d }} }}"));
    }
    // A column that is compared, and whose name is a command.
    case.both("CREATE TABLE w (\"$(touch x)'; --\" timestamp)");
    case.source.batch_execute("INSERT INTO w VALUES ('2021-08-10 02:00')").unwrap();
    tables.push("{ table: public.w, window: { column: \"$(touch x)'; --\", length: 1d } }".to_owned());
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let days = "    from: 2021-08-10 00:00:00\n    until: 2021-08-11 00:00:00\n";
    case.inventory_with("", days, &tables);
    let before = everywhere(&case);
    let all = tables.len();
    case.gpferry(&["run", "-v"]).expect(0).says(&format!("{all} of {all} units loaded, {all} rows"));
    assert_eq!(everywhere(&case), before, "something was made outside of file2GP");
    for name in HOSTILE {
        case.assert_same(&format!("SELECT * FROM \"{name}\""));
    }
    for file in case.files() {
        let depth = file.components().count();
        assert!(file.starts_with("s/202108/10") && depth == 5, "{}", file.display());
    }
}

#[test]
fn a_database_whose_name_is_hostile_is_only_a_database() {
    let mut case = Case::new("hostile_db");
    let hostile = format!("a b\"c$(touch x)'{}", case.database());
    let create = format!("CREATE DATABASE \"{}\"", hostile.replace('"', "\"\""));
    case.source.batch_execute(&create).unwrap();
    let mut inside = Side::Source.connect(&format!("'{}'", hostile.replace('\'', "\\'")));
    inside
        .batch_execute("CREATE TABLE t (id int); INSERT INTO t VALUES (7); GRANT SELECT ON t TO gpadmin")
        .unwrap();
    case.target.batch_execute("CREATE TABLE t (id int)").unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    let (from, to) = (format!("database: {}\n", case.database()), format!("database: {hostile:?}\n"));
    case.edit_inventory(&from, &to);
    let before = everywhere(&case);
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded, 1 row");
    assert_eq!(everywhere(&case), before);
    assert_eq!(case.count("SELECT sum(id) FROM t"), 7);
}

#[test]
fn a_column_with_a_control_character_is_refused_before_anything_is_exported() {
    let mut case = Case::new("control");
    case.both("CREATE TABLE t (\"a\nstop\" int)");
    case.inventory(&["{ table: public.t, window: none }"]);
    case.gpferry(&["run"]).expect(3).says("column \"a\\nstop\" of public.t holds a control character");
    assert!(case.files().is_empty(), "{:?}", case.files());
}

/// What is on the mount of this test but not in `file2GP`, and in the homes of the hosts' users but for the cache.
fn everywhere(case: &Case) -> Vec<String> {
    let hosts = Path::new(lab().get("LAB_DIR")).join("hosts");
    let mut all = listing(&case.mount());
    all.retain(|name| name != "file2GP");
    for host in ["a", "b"] {
        all.extend(listing(&hosts.join(host).join("home/gpadmin")).into_iter().filter(|name| name == "x"));
    }
    all.sort();
    all
}

#[test]
fn what_a_run_makes_is_not_for_others_whatever_the_umask() {
    let case = two_ways("umask");
    let open = format!("umask 000; exec \"$@\" --ledger {}", case.path("open.sqlite").display());
    let inner = case.command(&["run"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &open, "sh"]).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    crate::support::ran(command.output().unwrap()).expect(0);
    let mut paths = vec![case.mount().join("file2GP")];
    let mut seen = 0;
    while let Some(path) = paths.pop() {
        let facts = fs::symlink_metadata(&path).unwrap();
        assert_eq!(facts.mode() & 0o007, 0, "{} has mode {:o}", path.display(), facts.mode());
        seen += 1;
        if facts.is_dir() {
            paths.extend(listing(&path).into_iter().map(|name| path.join(name)));
        }
    }
    assert!(seen > 8, "{seen}");
    let beside = case.path("open.sqlite");
    for name in listing(beside.parent().unwrap()).into_iter().filter(|name| name.starts_with("open.sqlite")) {
        let facts = fs::metadata(beside.with_file_name(&name)).unwrap();
        assert_eq!(facts.mode() & 0o077, 0, "{name} has mode {:o}", facts.mode());
    }
}

#[test]
fn what_a_dead_run_left_is_removed_by_the_next_and_nothing_else() {
    let case = two_ways("remains");
    case.gpferry(&["export"]).expect(0);
    let file = case.files().into_iter().find(|file| file.to_string_lossy().contains("^t^")).unwrap();
    let directory = case.mount().join("file2GP").join(file.parent().unwrap());
    // A run that died at once: on record, and nothing more.
    let (dead, unknown) = ("20210810T000000Z-00aa", "20210810T000000Z-00bb");
    let ledger = rusqlite::Connection::open(case.path("inventory.ledger.sqlite")).unwrap();
    let now: String = ledger.query_row("SELECT started_at FROM run", [], |row| row.get(0)).unwrap();
    let insert =
        "INSERT INTO run (id, command, host, pid, inventory, started_at) VALUES (?, 'run', 'h', 1, 'i', ?)";
    ledger.execute(insert, [dead, &now]).unwrap();
    let part = |run: &str| directory.join(format!(".x^public^t^all.csv.gz.{run}.1.part"));
    let stage = case.mount().join(format!("file2GP/.{dead}.1.abc.part"));
    fs::write(part(dead), "half").unwrap();
    fs::write(part(unknown), "another ledger's").unwrap();
    fs::create_dir_all(stage.join("plain")).unwrap();
    fs::write(stage.join("plain/a0.csv"), "half").unwrap();
    // Alive: its lock is held.
    let held = fs::File::create(case.path("inventory.ledger.sqlite.locks/.runs").join(dead)).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    case.gpferry(&["export"]).expect(0);
    assert!(part(dead).exists() && stage.exists(), "a run that is alive lost its files");
    drop(held);
    case.gpferry(&["run"]).expect(0);
    assert!(!part(dead).exists() && !stage.exists(), "{:?}", case.files());
    assert!(part(unknown).exists(), "a file of a run that is not of this ledger");
    assert!(!case.path("inventory.ledger.sqlite.locks/.runs").join(dead).exists());
}
