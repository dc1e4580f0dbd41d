//! Scripts that people already have: called as they always were, and believed only for what their files hold.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::ends::wait_for;
use crate::support::{Case, lab, ran};

/// The head of a script of the older shape: arguments, directory and file as such scripts have them, and `export_csv`.
fn head(case: &Case) -> String {
    let lab = lab();
    format!(
        "#!/bin/bash\n\
         # {name}\n\
         start=$1 end=$2 table=$3 schema=$4 database=$5 column=$7\n\
         stamps=$(echo \"$6\" | tr -d ' :-')\n\
         dir={mount}/{name}/file2GP/$(echo \"$start\" | cut -c1-4,6-7)/$(echo \"$start\" | cut -c9-10)/$table\n\
         file=$dir/$database^$schema^$table^$stamps.csv.gz\n\
         export_csv() {{\n\
             psql -X -q -v ON_ERROR_STOP=1 -h {socket} -p {port} -U gpadmin -d \"$database\" -c \"COPY (SELECT * FROM \
         $schema.$table WHERE $column >= '$start' AND $column < '$end') TO STDOUT WITH CSV\"\n\
         }}\n",
        name = case.database(),
        mount = lab.get("LAB_MOUNT_A"),
        socket = lab.get("LAB_SOURCE_SOCKET"),
        port = lab.get("LAB_SOURCE_PORT"),
    )
}

/// What such a script does: its directory, the export, gzip; 99 is success and 100 is not.
const USUAL: &str = "mkdir -p \"$dir\" || exit 100\n\
                     export_csv >\"$dir/.tmp.$$\" && gzip -c \"$dir/.tmp.$$\" >\"$file\" && rm \"$dir/.tmp.$$\" && exit 99\n\
                     rm -f \"$dir/.tmp.$$\"\n\
                     exit 100\n";

/// A script on host a, and its path there.
fn script(case: &Case, body: &str) -> String {
    let name = format!("it's a script-{}.sh", case.database());
    let home = format!("{}/hosts/a/home/gpadmin", lab().get("LAB_DIR"));
    fs::write(Path::new(&home).join(&name), format!("{}{body}", head(case))).unwrap();
    format!("/home/gpadmin/{name}")
}

/// An inventory with this script, and one day of table `t` in windows of 12 hours; nothing is tried again.
fn inventory(case: &Case, body: &str, more: &str) {
    let path = script(case, body);
    let source = format!("    script: {{ path: \"{path}\", call: argv, ok: [99] }}\n");
    let job = format!("    from: 2021-08-10\n    until: 2021-08-11\n    export: {{ retries: 0{more} }}\n");
    case.inventory_with(&source, &job, &["{ table: public.t, window: { column: at, length: 12h } }"]);
}

/// A case with a table of two windows in Shanghai, six rows in each, and the first row after them.
fn two_windows(name: &str) -> Case {
    let mut case = Case::new(name);
    case.both("CREATE TABLE t (at timestamptz, v text, f float8)");
    case.source
        .batch_execute(
            "INSERT INTO t SELECT x, E'two\\r\\nlines, \"quoted\"', 1.0/3 FROM generate_series(\
             timestamptz '2021-08-09 16:00+00', '2021-08-10 16:00+00', '2 hours') x",
        )
        .unwrap();
    case
}

/// One table, one row in the first window.
fn one_row(name: &str) -> Case {
    let mut case = Case::new(name);
    case.both("CREATE TABLE t (at timestamp, v text)");
    case.source.batch_execute("INSERT INTO t VALUES ('2021-08-10 01:00', 'fresh')").unwrap();
    case
}

/// Where the first window's file stands, as the runner sees it.
fn first_file(case: &Case) -> PathBuf {
    let name = case.database();
    let file = format!("{name}^public^t^20210810000000^20210810120000.csv.gz");
    case.mount().join("file2GP/202108/10/t").join(file)
}

/// Processes on this machine whose command line holds this test's name and `sh`.
fn script_runs(case: &Case) -> bool {
    let pattern = format!("[s]h .*it's a script-{}", case.database());
    Command::new("pgrep").args(["-f", &pattern]).stdout(Stdio::null()).status().unwrap().success()
}

#[test]
fn a_script_of_the_older_shape_moves_windows() {
    let mut case = two_windows("argv");
    inventory(&case, USUAL, "");
    // Bounds are in the inventory's zone, for a session whose host has another.
    case.edit_inventory("version: 1\n", "version: 1\ntimezone: Asia/Shanghai\n");
    case.gpferry(&["run"]).expect(0).says("2 of 2 units loaded, 12 rows");
    case.assert_same(
        "SELECT * FROM t WHERE at >= '2021-08-09 16:00+00' AND at < '2021-08-10 16:00+00' ORDER BY at",
    );
    assert_eq!(case.count("SELECT count(*) FROM t"), 12);
    case.gpferry(&["run"]).expect(0).says("already loaded");
    let manifest =
        fs::read_dir(case.mount().join("file2GP/manifest")).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(manifest).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("\"rows\":6") && text.contains("it's a script"), "{text}");
}

#[test]
fn a_script_that_says_failure_is_one_with_its_last_words() {
    let case = one_row("argv_100");
    inventory(
        &case,
        "echo \"no space left on purpose\" >&2; echo 'DETAIL:  Key (a)=(SECRETCELL)' >&2; exit 100\n",
        "",
    );
    case.gpferry(&["run"])
        .expect(3)
        .says("exit code 100")
        .says("no space left on purpose")
        .says("it's a script")
        .silent_about("SECRETCELL");
}

#[test]
fn an_exit_code_that_does_not_mean_success_here_is_failure_even_0() {
    let mut case = one_row("argv_0");
    inventory(&case, &USUAL.replace("exit 99", "exit 0"), "");
    case.gpferry(&["run"]).expect(3).says("exit code 0");
    assert_eq!(case.count("SELECT count(*) FROM t"), 0);
}

#[test]
fn a_script_that_is_not_there_is_named() {
    let case = one_row("argv_gone");
    inventory(&case, USUAL, "");
    case.edit_inventory("it's a script", "no script");
    case.gpferry(&["run"]).expect(3).says("No such file or directory").says("no script");
}

#[test]
fn a_script_that_lies_is_a_failure_named_as_such() {
    let mut case = one_row("argv_lies");
    inventory(&case, "exit 99\n", "");
    case.gpferry(&["run"]).expect(3).says("said success (exit code 99), and").says("is not there");
    assert_eq!(case.count("SELECT count(*) FROM gpferry.load_log"), 0);
}

/// Puts a file at the first window's place, as an earlier attempt would have left it.
fn leave_stale(case: &Case) {
    let file = first_file(case);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let packed = Command::new("bash")
        .args([
            "-c",
            "echo '2021-08-10 01:00:00,stale' | gzip >\"$1\" && chown -R --reference=\"$2\" \"$2/file2GP\"",
            "stale",
        ])
        .args([&file, &case.mount()])
        .status()
        .unwrap();
    assert!(packed.success());
}

#[test]
fn a_file_that_an_earlier_attempt_left_is_not_taken_for_a_new_one() {
    // Ends with success where its directory is there already.
    let mut case = one_row("argv_stale");
    leave_stale(&case);
    inventory(&case, &format!("[ ! -d \"$dir\" ] || exit 99\n{USUAL}"), "");
    case.gpferry(&["run", "--retry-failed", "--until", "2021-08-10 12:00"])
        .expect(3)
        .says("is not there")
        .says("because");
    assert_eq!(case.count("SELECT count(*) FROM t"), 0);
    assert!(first_file(&case).exists(), "nobody's file is lost: {:?}", case.files());
    assert_eq!(case.files().len(), 1, "{:?}", case.files());
    // Ends with success where its file is there already: it is not, so the script exports.
    inventory(&case, &format!("[ ! -f \"$file\" ] || exit 99\n{USUAL}"), "");
    case.gpferry(&["run", "--retry-failed", "--until", "2021-08-10 12:00"]).expect(0).says("1 row");
    case.assert_same("SELECT * FROM t");
    assert_eq!(case.files().len(), 1, "{:?}", case.files());
}

#[test]
fn what_is_no_whole_gzip_file_of_csv_is_refused_by_name() {
    let mut case = one_row("argv_half");
    case.source
        .batch_execute(
            "INSERT INTO t SELECT '2021-08-10 02:00', md5(i::text) FROM generate_series(1, 2000) i",
        )
        .unwrap();
    let made = |how: &str| format!("mkdir -p \"$dir\" && {how} >\"$file\" && exit 99\nexit 100\n");
    for (how, words) in [
        ("export_csv | gzip | head -c 3000", "is truncated"),
        ("export_csv", "not valid gzip data"),
        (":", "is empty (0 bytes)"),
        ("{ export_csv; echo '2021-08-10 03:00:00,\"open'; } | gzip", "ends within a quoted field"),
    ] {
        inventory(&case, &made(how), "");
        case.gpferry(&["run", "--retry-failed", "--until", "2021-08-10 12:00"]).expect(3).says(words);
    }
    assert_eq!(case.count("SELECT count(*) FROM t"), 0);
    // A header is a row too many, and no timestamp.
    inventory(&case, &made("{ echo at,v; export_csv; } | gzip"), "");
    case.gpferry(&["run", "--retry-failed", "--until", "2021-08-10 12:00"]).expect(3).says("FAILED");
    // Two members are one file.
    inventory(&case, &made("{ export_csv | gzip; true | gzip; }"), "");
    case.gpferry(&["run", "--retry-failed", "--until", "2021-08-10 12:00"]).expect(0).says("2001 rows");
    case.assert_same("SELECT * FROM t ORDER BY at, v");
}

#[test]
fn what_half_failed_is_tried_again() {
    let case = one_row("argv_again");
    let once =
        "mkdir -p \"$dir\"\nif [ ! -e \"$dir/tried\" ]; then : >\"$dir/tried\"; : >\"$file\"; exit 99; fi\n";
    inventory(&case, &format!("{once}{USUAL}"), "");
    case.edit_inventory("retries: 0", "retries: 1");
    case.gpferry(&["run", "--retry-failed", "--until", "2021-08-10 12:00"]).expect(0).says("1 row");
}

#[test]
fn arguments_arrive_as_they_are_whatever_is_in_them() {
    let mut case = Case::new("argv_words");
    let table = "a'; touch x; ' $(touch y) `touch z` \\ \"q\" *";
    let quoted = format!("\"{}\"", table.replace('"', "\"\""));
    case.both(&format!("CREATE TABLE {quoted} (\"c ol\" timestamp)"));
    case.source.batch_execute(&format!("INSERT INTO {quoted} VALUES ('2021-08-10 01:00')")).unwrap();
    let body = "printf '%s\\n' \"$#\" \"$@\" >\"$0.words\"\n\
                dir=$(dirname \"$0\"); f=$(cat \"$0.file\"); mkdir -p \"$(dirname \"$f\")\"\n\
                echo '2021-08-10 01:00:00' | gzip >\"$f\"; exit 99\n";
    let path = script(&case, body);
    let source =
        format!("    script: {{ path: \"{path}\", call: argv, ok: [0, 99], file: \"x/{{unit}}.csv.gz\" }}\n");
    let written = table.replace('\'', "''");
    let entry =
        format!("{{ table: 'public.\"{}\"', window: {{ column: c ol }} }}", written.replace('"', "\"\""));
    case.inventory_with(&source, "    from: 2021-08-10\n    until: 2021-08-11\n", &[&entry]);
    let unit = case.gpferry(&["plan", "--format", "json"]).expect(0).json();
    let id = unit["units"][0]["unit"].as_str().unwrap_or_else(|| panic!("{unit}")).to_owned();
    let home = format!("{}/hosts/a{path}", lab().get("LAB_DIR"));
    let on_host = format!("{}/{}/file2GP/x/{id}.csv.gz", lab().get("LAB_MOUNT_A"), case.database());
    fs::write(format!("{home}.file"), on_host).unwrap();
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded, 1 row");
    let (start, end) = ("2021-08-10 00:00:00", "2021-08-11 00:00:00");
    let words =
        ["7", start, end, table, "public", case.database(), &format!("{start}^{end}"), "c ol"].join("\n");
    assert_eq!(fs::read_to_string(format!("{home}.words")).unwrap(), words + "\n");
    for name in ["x", "y", "z"] {
        assert!(!Path::new(&home).with_file_name(name).exists(), "{name} was made: an argument was run");
    }
}

/// Writes half a file and never comes to an end, in its process group and out of it.
const ENDLESS: &str = "mkdir -p \"$dir\"; echo half | gzip >\"$file\"\n\
                       trap '' TERM\n\
                       sleep 4242 & pids=$!\n\
                       setsid sleep 4242 & pids=\"$pids $!\"\n\
                       echo \"$$ $pids\" >\"$0.pids.tmp\"; mv \"$0.pids.tmp\" \"$0.pids\"\n\
                       sleep 4242\n";

fn pids(case: &Case) -> Vec<String> {
    let home =
        format!("{}/hosts/a/home/gpadmin/it's a script-{}.sh.pids", lab().get("LAB_DIR"), case.database());
    let text = fs::read_to_string(home).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

fn is_gone(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

#[track_caller]
fn nothing_is_left(case: &Case, pids: &[String]) {
    assert_eq!(pids.len(), 3, "{pids:?}");
    wait_for("a process is left", Duration::from_secs(20), || {
        !script_runs(case) && pids.iter().all(|pid| is_gone(pid))
    });
    wait_for("half a file is left", Duration::from_secs(20), || case.files().is_empty());
}

#[test]
fn a_call_that_overruns_its_time_is_stopped_and_leaves_nothing() {
    let case = one_row("argv_slow");
    inventory(&case, ENDLESS, ", timeout: 2s");
    let begin = Instant::now();
    case.gpferry(&["run", "--retry-failed", "--until", "2021-08-10 12:00"])
        .expect(3)
        .says("stopped after 2.00 s")
        .says("export.timeout");
    assert!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    nothing_is_left(&case, &pids(&case));
}

#[test]
fn ctrl_c_and_a_killed_runner_end_the_script() {
    for signal in ["INT", "KILL"] {
        let case = one_row("argv_stop");
        inventory(&case, ENDLESS, "");
        let mut child = case.command(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for("the script runs", Duration::from_secs(20), || !pids(&case).is_empty());
        let begin = Instant::now();
        assert!(
            Command::new("kill")
                .args([format!("-{signal}"), child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
        wait_for("it ended", Duration::from_secs(20), || child.try_wait().unwrap().is_some());
        assert!(begin.elapsed() < Duration::from_secs(12), "it took {:?}", begin.elapsed());
        let ended = ran(child.wait_with_output().unwrap());
        if signal == "INT" {
            ended.expect(130);
        }
        nothing_is_left(&case, &pids(&case));
    }
}

/// The script alone, whose supervisor is killed in the middle of a call: the undertaker does what it cannot do.
#[test]
fn a_killed_supervisor_leaves_no_process_and_no_half_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::write(path("x.csv.gz"), "of an earlier attempt").unwrap();
    fs::write(
        path("x.sh"),
        "echo half >\"$1\"; echo $$ >\"$1.pid.tmp\"; mv \"$1.pid.tmp\" \"$1.pid\"; sleep 4242\n",
    )
    .unwrap();
    let file = path("x.csv.gz");
    let mut supervisor = Command::new("bash")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/argv.sh"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let requests = format!("hello\t1\tN\t0\t0\ncall\t0\t{file}\t{}\t{file}\n", path("x.sh"));
    std::io::Write::write_all(supervisor.stdin.as_mut().unwrap(), requests.as_bytes()).unwrap();
    let pid = || fs::read_to_string(path("x.csv.gz.pid")).unwrap_or_default().trim().to_owned();
    wait_for("the script runs", Duration::from_secs(20), || !pid().is_empty());
    assert_eq!(fs::read_to_string(&file).unwrap(), "half\n");
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    wait_for("the script is left", Duration::from_secs(20), || is_gone(&pid()));
    wait_for("half a file is left", Duration::from_secs(20), || {
        fs::read_to_string(&file).unwrap_or_default() == "of an earlier attempt"
    });
}

#[test]
fn a_query_of_a_stopped_call_is_cancelled_in_the_database() {
    let mut case = one_row("argv_query");
    case.source.batch_execute("CREATE FUNCTION forever() RETURNS text LANGUAGE sql AS 'SELECT pg_sleep(4242)::text'; \
        ALTER TABLE t RENAME TO u; CREATE VIEW t AS SELECT at, v || forever() AS v FROM u; GRANT SELECT ON t TO gpadmin").unwrap();
    inventory(&case, USUAL, ", timeout: 3s");
    case.gpferry(&["run", "--retry-failed", "--until", "2021-08-10 12:00"])
        .expect(3)
        .says("stopped after 3.00 s");
    let query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%COPY (SELECT%' AND pid <> pg_backend_pid() \
                 AND datname = current_database() AND state = 'active'";
    let active = case.source.query_one(query, &[]).unwrap().get::<_, i64>(0);
    assert_eq!(active, 0, "the query goes on in the database");
}

#[test]
fn a_file_that_a_child_of_the_script_still_writes_is_waited_for() {
    let mut case = one_row("argv_later");
    inventory(&case, "mkdir -p \"$dir\"\n( sleep 1; export_csv | gzip >\"$file\" ) &\nexit 99\n", "");
    case.gpferry(&["run", "--retry-failed", "--until", "2021-08-10 12:00"]).expect(0).says("1 row");
    case.assert_same("SELECT * FROM t");
}

#[test]
fn a_script_that_closes_its_windows_on_both_ends_is_found_out() {
    let mut case = two_windows("argv_closed");
    inventory(&case, USUAL, "");
    case.edit_inventory("version: 1\n", "version: 1\ntimezone: Asia/Shanghai\n");
    let path = format!("{}/hosts/a/home/gpadmin/it's a script-{}.sh", lab().get("LAB_DIR"), case.database());
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("AND $column < '$end'", "AND $column <= '$end'")).unwrap();
    case.gpferry(&["run"]).expect(3).says("0 before its start, 1 at its end or after it").says("half-open");
    assert_eq!(case.count("SELECT count(*) FROM t"), 0);
}

#[test]
fn two_units_with_one_file_are_not_both_exported() {
    let mut case = one_row("argv_one_file");
    case.target.batch_execute("CREATE TABLE t2 (at timestamp, v text)").unwrap();
    let path = script(&case, USUAL);
    let file = "{yyyymm}/{dd}/{table}/{database}^{schema}^{table}^{start}^{end}.csv.gz";
    let source = format!("    script: {{ path: \"{path}\", call: argv, ok: [99], file: \"{file}\" }}\n");
    let window = "window: { column: at, length: 12h }";
    case.inventory_with(
        &source,
        "    from: 2021-08-10\n    until: 2021-08-10 12:00\n",
        &[
            &format!("{{ table: public.t, {window} }}"),
            &format!("{{ table: public.t, target: public.t2, {window} }}"),
        ],
    );
    case.gpferry(&["run"]).expect(3).says("1 of 2 units loaded").says("is the file of another unit as well");
}

#[test]
fn a_script_of_one_s_own_that_speaks_the_protocol_is_run_from_its_path() {
    let mut case = one_row("own_protocol");
    let name = format!("own script-{}.sh", case.database());
    let home = format!("{}/hosts/a/home/gpadmin/{name}", lab().get("LAB_DIR"));
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/greenplum.sh"), &home).unwrap();
    let source = format!("    script: {{ path: \"/home/gpadmin/{name}\", call: protocol }}\n");
    case.inventory_with(&source, "", &["{ table: public.t, window: none }"]);
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded, 1 row");
    let manifest =
        fs::read_dir(case.mount().join("file2GP/manifest")).unwrap().next().unwrap().unwrap().path();
    assert!(fs::read_to_string(manifest).unwrap().contains(&name));
    fs::remove_file(home).unwrap();
    case.target.batch_execute("TRUNCATE t; DROP SCHEMA gpferry CASCADE").unwrap();
    fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
    case.gpferry(&["run"]).expect(3).says("exit code 127");
}

#[test]
fn preflight_looks_at_the_script() {
    let case = one_row("argv_preflight");
    inventory(&case, USUAL, "");
    let all = case.gpferry(&["preflight", "--format", "json"]);
    assert!(all.stdout.contains("script.path"), "{}", all.stdout);
    case.edit_inventory("it's a script", "no script");
    case.gpferry(&["preflight"]).expect(13).says("script.path");
}
