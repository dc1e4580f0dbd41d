//! Segments read from gpfdist: on a Greenplum that the tester brings, with the gpfdist of an installation beside it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::greenplum::{gphome, program};
use crate::support::{Case, Ran, lab, ran};
use crate::ways::{EXTERNAL, awkward, damage};

/// A table of 1,000 awkward rows in the source, that gpfdist is to serve.
fn case(name: &str) -> Option<Case> {
    gphome(&format!("gpfdist, {name}"))?;
    Some(awkward(&format!("gpfdist_{name}"), "gpfdist", "v"))
}

/// No process.
const NONE: [u32; 0] = [];

/// Processes of gpfdist that serve this test's mount: by number, those of gpferry alone where it is asked for.
fn serving(case: &Case, gpferrys: bool) -> Vec<u32> {
    let mounts = [case.mount(), Path::new(lab().get("LAB_MOUNT_A")).join(case.database())];
    let directories = mounts.map(|mount| mount.join("file2GP").display().to_string());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let words = String::from_utf8_lossy(&read("cmdline")).into_owned();
        let mut words = words.split('\0');
        let is_gpfdist = words.next().is_some_and(|program| program.ends_with("/gpfdist"));
        let marked = String::from_utf8_lossy(&read("environ")).contains("GPFERRY_GUARD=");
        if is_gpfdist && words.any(|word| directories.iter().any(|one| one == word)) && (marked || !gpferrys)
        {
            found.push(pid);
        }
    }
    found
}

/// Waits until something holds; a test that waits for longer than two minutes has failed.
#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < until, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap().success(), "{pid}");
}

/// The parent of a process.
fn parent(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

/// Makes every row of the target's table take its time, so that a load can be met half way.
fn slow_down(case: &mut Case) {
    case.target
        .batch_execute(
            "CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.02); \
             RETURN NULL; END $$; CREATE TRIGGER wait_here AFTER INSERT ON t FOR EACH ROW EXECUTE PROCEDURE wait_here()",
        )
        .unwrap();
}

/// A load that runs, met while its rows go in.
fn met_half_way(case: &mut Case) -> Child {
    let mut run =
        case.command(&["load", "-v"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let reading = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE \
                   'INSERT INTO%gpferry_read%' AND pid <> pg_backend_pid()";
    wait_until("the segments read", || {
        assert!(run.try_wait().unwrap().is_none(), "the load ended early");
        case.count(reading) > 0
    });
    run
}

/// Another gpfdist, of nobody's, over a directory; and its URL.
fn another(home: &Path, directory: &Path) -> (Child, String) {
    let mut server = Command::new(home.join("bin/gpfdist"))
        .args(["-p", "35000", "-P", "35999", "-d"])
        .arg(directory)
        .env("LD_LIBRARY_PATH", home.join("lib"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let serving = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with("Serving")).unwrap();
    // What it says later must not meet a closed pipe.
    std::thread::spawn(move || lines.for_each(drop));
    let port = serving.trim_start_matches("Serving HTTP on port ").split(',').next().unwrap().to_owned();
    (server, format!("gpfdist://127.0.0.1:{port}/"))
}

#[test]
fn what_gpfdist_serves_is_what_was_in_the_source_and_it_ends_with_the_run() {
    let Some(mut case) = case("rows") else { return };
    case.gpferry(&["run", "-vv"]).expect(0).says("1 of 1 unit loaded, 1000 rows").says("LOCATION");
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_eq!(case.count(EXTERNAL), 0);
    assert_eq!(serving(&case, true), NONE);
    case.gpferry(&["plan"]).expect(0);
    case.gpferry(&["preflight"]).expect(0);
    assert_eq!(serving(&case, true), NONE);
}

#[test]
fn names_of_any_letters_are_served() {
    let Some(mut case) = case("names") else { return };
    let names = ["Ünï täble", "it's", "100%", "a^b", "q\"uote", "表", "x%41y", "a*b?[c]"];
    let mut tables = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let quoted = name.replace('"', "\"\"");
        case.both(&format!("CREATE TABLE \"{quoted}\" (id int PRIMARY KEY)"));
        case.source.batch_execute(&format!("INSERT INTO \"{quoted}\" VALUES ({number})")).unwrap();
        let written = serde_json::to_string(&format!("public.\"{quoted}\"")).unwrap();
        tables.push(format!("{{ table: {written}, window: none }}"));
    }
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    case.inventory(&tables);
    if crate::greenplum::forced_loader().is_none() {
        case.load_by("gpfdist");
    }
    case.gpferry(&["run"]).expect(0).says("8 of 8 units loaded, 8 rows");
    for name in names {
        case.assert_same(&format!("SELECT * FROM \"{}\"", name.replace('"', "\"\"")));
    }
}

#[test]
fn one_on_another_host_is_started_over_ssh_and_ended() {
    let Some(mut case) = case("ssh") else { return };
    let on_host = format!("{}/{}", lab().get("LAB_MOUNT_A"), case.database());
    case.edit_inventory("gpfdist: { ", &format!("gpfdist: {{ host: gp-a, mount: {on_host}, "));
    case.gpferry(&["run", "-v"]).expect(0).says("1000 rows");
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_eq!(serving(&case, true), NONE);
}

#[test]
fn one_that_runs_already_is_used_and_left_alone() {
    let Some(mut case) = case("given") else { return };
    case.gpferry(&["export"]).expect(0);
    let home = gphome("a given one").unwrap();
    let (mut server, url) = another(&home, &case.mount());
    let url = format!("{url}file2GP");
    case.edit_inventory(
        &format!("gpfdist: {{ {} }}", program(&home, "gpfdist")),
        &format!("gpfdist: {{ url: \"{url}\" }}"),
    );
    case.gpferry(&["load"]).expect(0).says("1000 rows");
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert!(server.try_wait().unwrap().is_none(), "it was ended");
    server.kill().unwrap();
    server.wait().unwrap();
    // Nobody serves there any more.
    case.target.batch_execute("TRUNCATE t; TRUNCATE gpferry.load_log").unwrap();
    case.gpferry(&["preflight"])
        .expect(13)
        .says("target.loader")
        .says("every segment's host must reach gpfdist");
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
fn what_gpfdist_drops_in_silence_is_counted() {
    let Some(mut case) = case("counted") else { return };
    case.both("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY)");
    case.source.batch_execute("INSERT INTO t SELECT generate_series(1, 100)").unwrap();
    case.gpferry(&["export"]).expect(0);
    // The end of data, to a COPY of old: all behind it is left out without a word.
    let rows: String =
        (1..=100).map(|row| if row == 61 { "\\.\n".into() } else { format!("{row}\n") }).collect();
    publish(&case, rows.as_bytes(), 100);
    case.gpferry(&["load"]).expect(3).says("the source reported 100 rows, the target 60");
    // A whole gzip member less: gpfdist reads to the end that is there.
    case.gpferry(&["export"]).expect(0);
    let rows: String = (1..=60).map(|row| format!("{row}\n")).collect();
    publish(&case, rows.as_bytes(), 100);
    case.gpferry(&["load"]).expect(3).says("the source reported 100 rows, the target 60");
    assert_eq!(case.count("SELECT count(*) FROM t"), 0);
    case.gpferry(&["run"]).expect(0);
    assert_eq!(case.count("SELECT count(*) FROM t"), 100);
}

/// Puts other data in the place of the only file, with a ledger that takes it for what was exported.
fn publish(case: &Case, data: &[u8], rows: u64) {
    let mut member = GzEncoder::new(Vec::new(), Compression::fast());
    member.write_all(data).unwrap();
    let bytes = member.finish().unwrap();
    fs::write(case.only_file(), &bytes).unwrap();
    let tail = &bytes[bytes.len() - 8..];
    let word = |at: usize| u32::from_le_bytes(tail[at..at + 4].try_into().unwrap());
    let ledger = rusqlite::Connection::open(case.path("inventory.ledger.sqlite")).unwrap();
    let trailer = serde_json::json!({ "bytes": bytes.len(), "crc32": word(0), "isize": word(4) }).to_string();
    ledger
        .execute(
            "UPDATE unit SET exported = json_set(exported, '$.trailer', json(?), '$.rows', ?)",
            rusqlite::params![trailer, rows],
        )
        .unwrap();
}

#[test]
fn a_row_that_is_too_long_waits_until_gpfdist_may_take_it() {
    let Some(mut case) = case("long") else { return };
    case.source.batch_execute("INSERT INTO t (id, v) SELECT 0, repeat('x', 3000000)").unwrap();
    case.gpferry(&["run"]).expect(3).says("line too long").says("raise target.gpfdist.max_line");
    assert_eq!(case.count("SELECT count(*) FROM t"), 0);
    case.edit_inventory("gpfdist: { ", "gpfdist: { max_line: 8MiB, ");
    case.gpferry(&["load"]).expect(0).says("1001 rows");
    case.assert_same("SELECT * FROM t ORDER BY id");
}

#[test]
fn one_that_serves_another_directory_loads_nothing() {
    let Some(mut case) = case("elsewhere") else { return };
    let other = tempfile::tempdir().unwrap();
    fs::create_dir(other.path().join("file2GP")).unwrap();
    case.edit_inventory("gpfdist: { ", &format!("gpfdist: {{ mount: {}, ", other.path().display()));
    case.gpferry(&["run"])
        .expect(3)
        .says("404")
        .says("see that target.gpfdist.mount is the mount on its host");
    assert_eq!(case.count("SELECT count(*) FROM t"), 0);
    case.gpferry(&["preflight"]).expect(13).says("target.loader").says("target.gpfdist.mount");
}

#[test]
fn one_that_is_not_there_is_looked_for_once_and_said() {
    let Some(mut case) = case("absent") else { return };
    let path = format!("path: {}/bin/gpfdist", gphome("one that is not there").unwrap().display());
    case.edit_inventory(&path, "path: /nowhere/gpfdist");
    case.gpferry(&["run"]).expect(3).says("/nowhere/gpfdist: command not found").says("target.gpfdist.path");
    assert_eq!(case.count("SELECT count(*) FROM t"), 0);
    case.gpferry(&["preflight"]).expect(13).says("target.loader").says("target.gpfdist.path");
    // Everything that was exported waits.
    case.edit_inventory("path: /nowhere/gpfdist", &path);
    case.gpferry(&["load"]).expect(0).says("1000 rows");
}

#[test]
fn who_may_make_external_tables_needs_no_more() {
    let Some(mut case) = case("rights") else { return };
    let (admin, user) = (lab().get("LAB_TARGET_ADMIN"), lab().get("LAB_TARGET_USER"));
    let role = format!("{}_loader", case.database());
    case.target
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN; GRANT CREATE, TEMPORARY ON DATABASE {} TO {role}; GRANT INSERT ON t TO {role}",
            case.database()
        ))
        .unwrap();
    case.edit_inventory(&format!("postgresql://{user}@"), &format!("postgresql://{role}@"));
    let said = "the loading user may not make external tables";
    let first = case.gpferry(&["run"]);
    let preflight = case.gpferry(&["preflight"]);
    case.target.batch_execute(&format!("ALTER ROLE {role} CREATEEXTTABLE")).unwrap();
    let second = case.gpferry(&["load"]);
    case.target
        .batch_execute(&format!(
            "REASSIGN OWNED BY {role} TO {admin}; DROP OWNED BY {role}; DROP ROLE {role}"
        ))
        .unwrap();
    first.expect(3).says(said).says("ALTER ROLE <the loading user> CREATEEXTTABLE");
    preflight.expect(13).says(said);
    second.expect(0).says("1000 rows");
}

#[test]
fn what_a_killed_runner_leaves_ends_by_itself() {
    let Some(mut case) = case("killed") else { return };
    case.gpferry(&["export"]).expect(0);
    slow_down(&mut case);
    let mut run = met_half_way(&mut case);
    assert_eq!(serving(&case, true).len(), 1);
    run.kill().unwrap();
    run.wait().unwrap();
    wait_until("its gpfdist ends", || serving(&case, true).is_empty());
    case.target.batch_execute("ALTER TABLE t DISABLE TRIGGER wait_here").unwrap();
    case.gpferry(&["load"]).expect(0);
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_eq!(case.count(EXTERNAL), 0);
}

#[test]
fn a_signal_ends_gpfdist_with_the_run() {
    for signal in ["INT", "TERM"] {
        let Some(mut case) = case(&format!("signal_{}", signal.to_lowercase())) else { return };
        case.gpferry(&["export"]).expect(0);
        slow_down(&mut case);
        let run = met_half_way(&mut case);
        kill(signal, run.id());
        ended(run);
        assert_eq!(serving(&case, true), NONE, "{signal}");
        case.target.batch_execute("ALTER TABLE t DISABLE TRIGGER wait_here").unwrap();
        case.gpferry(&["load"]).expect(0);
        case.assert_same("SELECT * FROM t ORDER BY id");
    }
}

/// The end of a run that was told to end.
fn ended(run: Child) -> Ran {
    let pid = run.id();
    let late = std::thread::spawn(move || ran(run.wait_with_output().unwrap()));
    wait_until(&format!("run {pid} ends"), || late.is_finished());
    late.join().unwrap()
}

#[test]
fn a_gpfdist_that_dies_is_replaced_and_the_unit_tried_again() {
    let Some(mut case) = case("dies") else { return };
    // More than gpfdist hands out at once, so that segments still need it when it dies.
    case.source
        .batch_execute("INSERT INTO t SELECT i, repeat(md5(i::text), 100) FROM generate_series(1001, 4000) i")
        .unwrap();
    case.gpferry(&["export"]).expect(0);
    // A trigger would wait once all was read: a CHECK waits while rows come.
    let check = |waits: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION wait_here(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS \
             $$ BEGIN {waits} RETURN true; END $$;"
        )
    };
    let slow = check("PERFORM pg_sleep(0.005);") + "ALTER TABLE t ADD CONSTRAINT waits CHECK (wait_here(id))";
    case.target.batch_execute(&slow).unwrap();
    let run = met_half_way(&mut case);
    let first = serving(&case, true);
    assert_eq!(first.len(), 1, "{first:?}");
    kill("KILL", first[0]);
    wait_until("another serves", || serving(&case, true).iter().any(|pid| *pid != first[0]));
    // The table is locked by the load, so the function is made fast instead.
    case.target.batch_execute(&check("")).unwrap();
    ended(run).expect(0).says("4000 rows").says("trying again");
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_eq!(serving(&case, true), NONE);
}

#[test]
fn the_next_run_ends_what_one_left_whose_guards_were_killed_and_nothing_else() {
    let Some(mut case) = case("orphan") else { return };
    case.gpferry(&["export"]).expect(0);
    let (mut foreign, _) = another(&gphome("an orphan").unwrap(), &case.mount().join("file2GP"));
    slow_down(&mut case);
    let mut run = met_half_way(&mut case);
    let [orphan] = serving(&case, true)[..] else { panic!("not one gpfdist") };
    let guard = parent(orphan);
    let all = [parent(guard), guard, run.id()].map(|pid| pid.to_string());
    // At once, so that none sees another die.
    assert!(Command::new("kill").args(["-s", "KILL"]).args(all).status().unwrap().success());
    run.wait().unwrap();
    // It is left behind, unless the run of another test has ended it already.
    case.target.batch_execute("ALTER TABLE t DISABLE TRIGGER wait_here").unwrap();
    case.gpferry(&["load"]).expect(0);
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_eq!(serving(&case, true), NONE);
    assert!(foreign.try_wait().unwrap().is_none(), "somebody else's was ended");
    foreign.kill().unwrap();
    foreign.wait().unwrap();
}
