//! The ways a run can end otherwise than well: hosts, users and units that fail, locks, signals, lost lines.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::greenplum;
use crate::support::{Case, Ran, Side, lab, ran};

/// Waits for a fact.
#[track_caller]
pub(crate) fn wait_for(what: &str, limit: Duration, mut fact: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !fact() {
        assert!(begin.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A source view whose export takes for ever, until somebody ends it.
fn endless(case: &mut Case) {
    case.source
        .batch_execute(
            "CREATE VIEW slow AS SELECT i AS id FROM generate_series(1, 100000) i WHERE pg_sleep(0.05) IS NOT NULL",
        )
        .unwrap();
    case.target.batch_execute("CREATE TABLE slow (id int)").unwrap();
}

/// Sessions of gpferry in the source database.
pub(crate) fn sessions(case: &mut Case) -> i64 {
    let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'gpferry%' AND datname = current_database()";
    case.source.query_one(query, &[]).unwrap().get(0)
}

/// Processes of the lab hosts that carry this test's database name: psql of its exports.
fn nothing_is_left(case: &mut Case) {
    wait_for("a database session is left", Duration::from_secs(15), || sessions(case) == 0);
    wait_for("a file is left", Duration::from_secs(15), || case.files().is_empty());
}

#[test]
fn a_unit_that_fails_does_not_end_its_batch() {
    let mut case = Case::new("one_bad");
    for name in ["a", "b", "c"] {
        case.both(&format!("CREATE TABLE {name} (id int)"));
        case.source.batch_execute(&format!("INSERT INTO {name} VALUES (1)")).unwrap();
    }
    case.source.batch_execute("REVOKE SELECT ON b FROM gpadmin; CREATE VIEW v AS SELECT 1/0 AS id").unwrap();
    case.target.batch_execute("CREATE TABLE v (id int)").unwrap();
    case.inventory(&[
        "{ table: public.a, window: none }",
        "{ table: public.v, window: none }",
        "{ table: public.b, window: none }",
        "{ table: public.c, window: none }",
    ]);
    case.gpferry(&["run"])
        .expect(3)
        .says("2 of 4 units loaded")
        .says("permission denied for table b")
        .says("division by zero");
    case.gpferry(&["status"]).expect(0).says("FAILED in export").says("try:");
}

#[test]
fn permission_denied_on_the_mount_names_both_sides_numbers() {
    let mut case = Case::new("denied");
    case.both("CREATE TABLE t (id int)");
    case.inventory(&["{ table: public.t, window: none }"]);
    // The seed case: the directory belongs to user1 by number 530; on host b user1 is 540.
    let directory = case.mount().join("file2GP");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(case.mount(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(lab().get("LAB_MOUNT"), fs::Permissions::from_mode(0o2775)).unwrap();
    chown(&directory, Some(530), Some(530)).unwrap();
    case.edit_inventory("host: gp-a", "host: user1@gp-b");
    case.edit_inventory(lab().get("LAB_MOUNT_A"), lab().get("LAB_MOUNT_B"));
    case.gpferry(&["run"])
        .expect(3)
        .says("Permission denied")
        .says("uid=540")
        .says("gid=2180")
        .says("uid=530");
    case.edit_inventory("host: user1@gp-b", "host: user1@gp-a");
    case.edit_inventory(lab().get("LAB_MOUNT_B"), lab().get("LAB_MOUNT_A"));
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded");
}

#[test]
fn what_a_login_shell_prints_does_no_harm() {
    let mut case = Case::new("noise");
    case.both("CREATE TABLE t (id int)");
    case.source.batch_execute("INSERT INTO t VALUES (1)").unwrap();
    let bashrc = format!("{}/hosts/b/home/gpadmin/.bashrc", lab().get("LAB_DIR"));
    fs::write(
        &bashrc,
        "echo 'Welcome to fab 1'; echo 'ok\t0\t5\t5\t1'; printf 'half a line'; echo careful >&2\n",
    )
    .unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    case.edit_inventory("host: gp-a", "host: gp-b");
    case.edit_inventory(lab().get("LAB_MOUNT_A"), lab().get("LAB_MOUNT_B"));
    let ran = case.gpferry(&["run"]);
    fs::remove_file(bashrc).unwrap();
    ran.expect(0).says("1 of 1 unit loaded, 1 row");
}

#[test]
fn a_second_run_of_a_job_is_told_who_holds_it() {
    let mut case = Case::new("held");
    endless(&mut case);
    case.inventory(&["{ table: public.slow, window: none }"]);
    let mut first = case.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the export began", Duration::from_secs(20), || sessions(&mut case) > 0);
    case.gpferry(&["run"]).expect(11).says(&format!("pid {}", first.id()));
    first.kill().unwrap();
    first.wait().unwrap();
    nothing_is_left(&mut case);
    // The lock went with its holder.
    case.edit_inventory("public.slow", "public.nosuch");
    case.gpferry(&["run"]).expect(3);
}

#[test]
fn ctrl_c_ends_in_order_and_leaves_nothing() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut case = Case::new("signal");
        endless(&mut case);
        case.both("CREATE TABLE t (id int)");
        case.inventory(&["{ table: public.slow, window: none }", "{ table: public.t, window: none }"]);
        let child = case.command(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for("the export began", Duration::from_secs(20), || sessions(&mut case) > 0);
        let begin = Instant::now();
        let sent =
            Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let ended: Ran = ran(child.wait_with_output().unwrap());
        ended.expect(code).says("the same command resumes them");
        assert!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
        wait_for("a database session is left", Duration::from_secs(15), || sessions(&mut case) == 0);
        wait_for("a part is left", Duration::from_secs(15), || {
            case.files().iter().all(|file| !file.to_string_lossy().contains(".part"))
        });
    }
}

#[test]
fn ctrl_c_ends_a_load_that_waits_for_a_lock() {
    let mut case = Case::new("locked");
    case.both("CREATE TABLE t (id int)");
    case.source.batch_execute("INSERT INTO t VALUES (1)").unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    let mut holder = Side::Target.connect(case.database());
    holder.batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").unwrap();
    let mut child = case.command(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE {} AND datname = current_database()",
        greenplum::waits_for_a_lock()
    );
    wait_for("the load waits", Duration::from_secs(20), || case.count(&waiting) > 0);
    let begin = Instant::now();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    wait_for("it ended", Duration::from_secs(20), || child.try_wait().unwrap().is_some());
    ran(child.wait_with_output().unwrap())
        .expect(130)
        .says("1 exported and waiting to be loaded")
        .silent_about("FAILED");
    assert!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
    holder.batch_execute("ROLLBACK").unwrap();
    // What was exported is still there to be loaded.
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded, 1 row");
}

#[test]
fn a_source_that_is_down_does_not_hold_up_another() {
    let mut case = Case::new("two_sources");
    case.both("CREATE TABLE t (id int)");
    case.source.batch_execute("INSERT INTO t VALUES (1)").unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    let path = case.path("inventory.yml");
    let text = fs::read_to_string(&path).unwrap();
    let down = "  down: { host: \"x@127.0.0.1:1\", engine: postgres, database: d }\njobs:\n  \
                k: { source: down, tables: [ { tables: \"public.*\", window: none } ] }\n";
    fs::write(&path, text.replace("jobs:\n", down)).unwrap();
    case.gpferry(&["run"]).expect(3).says("1 of 1 unit loaded").says("127.0.0.1").says("could not be asked");
    case.gpferry(&["run", "--job", "k"]).expect(12);
}

#[test]
fn a_value_that_the_source_quotes_in_an_error_is_left_out() {
    let mut case = Case::new("quoted");
    case.source
        .batch_execute("CREATE VIEW t AS SELECT v::int AS id FROM (VALUES ('1'), ('SECRETCELL')) x (v)")
        .unwrap();
    case.target.batch_execute("CREATE TABLE t (id int)").unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    case.gpferry(&["run", "-vv"]).expect(3).says("invalid input syntax").silent_about("SECRETCELL");
}

#[test]
fn a_runner_that_is_killed_leaves_nothing_on_the_host() {
    let mut case = Case::new("kill9");
    endless(&mut case);
    case.inventory(&["{ table: public.slow, window: none }"]);
    let mut child = case.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the export began", Duration::from_secs(20), || {
        sessions(&mut case) > 0 && !case.files().is_empty()
    });
    child.kill().unwrap();
    child.wait().unwrap();
    nothing_is_left(&mut case);
    assert_eq!(case.count("SELECT count(*) FROM slow"), 0);
}

#[test]
fn a_line_that_is_cut_in_the_middle_is_tried_again() {
    let mut case = Case::new("cut");
    case.source
        .batch_execute(
            "CREATE VIEW t AS SELECT i AS id FROM generate_series(1, 40) i WHERE pg_sleep(0.05) IS NOT NULL",
        )
        .unwrap();
    case.target.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    let child = case.command(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the export began", Duration::from_secs(20), || {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%public%\"t\"%'";
        case.source.query_one(running, &[]).unwrap().get::<_, i64>(0) > 0
    });
    // The sshd child that serves this runner: the one whose socket it holds.
    let script = "peers=$(ss -tnpH | awk -v pid=pid=\"$1\", 'index($0, pid) { print $4 }'); \
                  for peer in $peers; do ss -tnpH | awk -v peer=\"$peer\" '$5 == peer' | grep -o 'sshd\",pid=[0-9]*' | grep -o '[0-9]*$'; done | sort -u | xargs -r kill -9";
    let cut = Command::new("bash").args(["-c", script, "cut", &child.id().to_string()]).status().unwrap();
    assert!(cut.success());
    ran(child.wait_with_output().unwrap()).expect(0).says("trying again").says("1 of 1 unit loaded, 40 rows");
    assert_eq!(case.count("SELECT count(*) FROM t"), 40);
    assert_eq!(case.files().len(), 1, "{:?}", case.files());
}

#[test]
fn no_source_host_is_exit_code_12_and_the_host_is_tried_once() {
    let mut case = Case::new("down");
    let tables: Vec<String> = (0..40).map(|n| format!("{{ table: public.t{n}, window: none }}")).collect();
    case.both("CREATE TABLE t0 (id int)");
    case.inventory(&tables.iter().map(String::as_str).collect::<Vec<_>>());
    case.edit_inventory("host: gp-a", "host: gpadmin@127.0.0.1:1");
    let begin = Instant::now();
    case.gpferry(&["run"]).expect(12).says("127.0.0.1").says("refused");
    assert!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
}

#[test]
fn an_unknown_host_key_is_refused_until_it_is_trusted() {
    let mut case = Case::new("trust");
    case.both("CREATE TABLE t (id int)");
    case.inventory(&["{ table: public.t, window: none }"]);
    let config = fs::read_to_string(lab().get("LAB_SSH_CONFIG")).unwrap();
    let known = case.path("known_hosts");
    let own = case.path("ssh_config");
    fs::write(&own, config.replace(lab().get("LAB_KNOWN_HOSTS"), &known.display().to_string())).unwrap();
    let with = |args: &[&str]| ran(case.command(args).env("GPFERRY_SSH_CONFIG", &own).output().unwrap());
    with(&["run"]).expect(12).says("gpferry trust");
    with(&["trust", "s"]).expect(2).says("nobody is there to compare");
    assert!(!known.exists(), "nothing is recorded without being asked");
    with(&["trust", "s", "--fingerprint", "SHA256:wrong"]).expect(2);
    let shown = with(&["trust", "s"]).stdout;
    let fingerprint = shown.split_whitespace().find(|word| word.starts_with("SHA256:")).unwrap().to_owned();
    with(&["trust", "s", "--fingerprint", &fingerprint]).expect(0).says("recorded");
    // The others were compared by nobody.
    assert_eq!(fs::read_to_string(&known).unwrap().lines().count(), 1);
    with(&["run"]).expect(0);
}

#[test]
fn a_full_disk_fails_the_unit_and_leaves_no_file() {
    let mut case = Case::new("full");
    case.source
        .batch_execute("CREATE TABLE t AS SELECT md5(i::text) || md5((i+1)::text) AS v FROM generate_series(1, 60000) i; GRANT SELECT ON t TO gpadmin")
        .unwrap();
    let mount = case.path("small");
    fs::create_dir(&mount).unwrap();
    let lab = lab();
    let (socket, port) = (lab.get("LAB_SOURCE_SOCKET"), lab.get("LAB_SOURCE_PORT"));
    let set = |name: &str, value: &str| format!("set\t{name}\t{value}\n");
    let path = mount.display();
    let export = |no: u32, sql: &str| format!("export\t{no}\t{path}/file2GP/s/{no}.csv.gz\tauto\t{sql}\n");
    let requests = [
        "hello\t1\tN\t20\t60\n".to_owned(),
        set("PGHOST", socket),
        set("PGPORT", port),
        set("PGUSER", "gpadmin"),
        set("PGDATABASE", case.database()),
        set("MOUNT", &path.to_string()),
        set("PART", "r.1"),
        export(0, "SELECT v FROM t"),
        export(1, "SELECT v FROM t LIMIT 10"),
        "end\n".to_owned(),
    ]
    .concat();
    fs::write(case.path("requests"), requests).unwrap();
    // The script alone, in a namespace of its own with a file system of one megabyte at the mount's place.
    let script = "mount -t tmpfs -o size=1m tmpfs \"$1\" && { cat \"$2\"; sleep 5; } | bash \"$3\" export; \
                  find \"$1\" -type f";
    let output = Command::new("unshare")
        .args(["--mount", "bash", "-c", script, "full"])
        .arg(&mount)
        .arg(case.path("requests"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/greenplum.sh"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("N\terror\t0\t1\t-\t") && said.contains("No space left on device"), "{said}");
    assert!(said.contains("N\tok\t1\t10\t"), "the next unit went on: {said}");
    assert!(said.contains("N\tend\t0"), "{said}");
    let files: Vec<&str> = said.lines().filter(|line| line.starts_with('/')).collect();
    assert_eq!(files, [format!("{path}/file2GP/s/1.csv.gz")]);
}

#[test]
fn a_quota_that_only_the_flush_tells_of_fails_the_unit_and_leaves_no_file() {
    let mut case = Case::new("quota");
    case.source
        .batch_execute(
            "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i; GRANT SELECT ON t TO gpadmin",
        )
        .unwrap();
    let mount = case.path("mount");
    fs::create_dir(&mount).unwrap();
    let lab = lab();
    let set = |name: &str, value: &str| format!("set\t{name}\t{value}\n");
    let path = mount.display();
    let requests = [
        "hello\t1\tN\t20\t60\n".to_owned(),
        set("PGHOST", lab.get("LAB_SOURCE_SOCKET")),
        set("PGPORT", lab.get("LAB_SOURCE_PORT")),
        set("PGUSER", "gpadmin"),
        set("PGDATABASE", case.database()),
        set("MOUNT", &path.to_string()),
        set("PART", "r.1"),
        format!("export\t0\t{path}/file2GP/s/0.csv.gz\tauto\tSELECT * FROM t\n"),
        "end\n".to_owned(),
    ]
    .concat();
    fs::write(case.path("requests"), requests).unwrap();
    // No file system here can have quotas: the kernel's answer is put in by strace, for every flush.
    let script = "{ cat \"$1\"; sleep 5; } | strace -f -qq -o /dev/null -e trace=fsync -e inject=fsync:error=EDQUOT \
                  bash \"$2\" export; find \"$3\" -type f";
    let output = Command::new("bash")
        .args(["-c", script, "quota"])
        .arg(case.path("requests"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/greenplum.sh"))
        .arg(&mount)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("N\terror\t0\t1\t-\t") && said.contains("Disk quota exceeded"), "{said}");
    assert!(said.contains("N\tend\t0"), "{said}");
    assert!(!said.lines().any(|line| line.starts_with('/')), "{said}");
}

#[test]
fn an_old_psql_without_row_counts_is_understood() {
    let mut case = Case::new("old_psql");
    case.both("CREATE TABLE t (id int, v text); CREATE TABLE u (id int)");
    case.source
        .batch_execute("INSERT INTO t VALUES (1, E'two\\nlines'), (2, 'quo\"te'), (3, NULL); CREATE VIEW big AS SELECT * FROM t; GRANT SELECT ON big TO gpadmin")
        .unwrap();
    case.target.batch_execute("CREATE TABLE big (id int, v text)").unwrap();
    // The psql of PostgreSQL 8.3 prints no `COPY n`.
    let psql = format!("{}/hosts/a/home/gpadmin/psql83-{}", lab().get("LAB_DIR"), case.database());
    let real = format!("{}/psql", lab().get("LAB_PG_BIN"));
    fs::write(
        &psql,
        format!("#!/bin/bash\nset -o pipefail\n{real} \"$@\" 2>&1 | grep --line-buffered -v '^COPY [0-9]'\n"),
    )
    .unwrap();
    fs::set_permissions(&psql, fs::Permissions::from_mode(0o755)).unwrap();
    case.inventory(&[
        "{ table: public.t, window: none }",
        "{ table: public.u, window: none }",
        "{ table: public.big, window: none }",
    ]);
    let on_host = format!("/home/gpadmin/psql83-{}", case.database());
    case.edit_inventory("user: gpadmin }", &format!("user: gpadmin, psql: {on_host} }}"));
    case.gpferry(&["run"]).expect(0).says("3 of 3 units loaded, 6 rows");
    case.assert_same("SELECT * FROM t ORDER BY id");
}

#[test]
fn every_compressor_makes_files_that_load() {
    let mut case = Case::new("compressors");
    for word in ["igzip", "pigz", "gzip", "auto"] {
        case.target.batch_execute(&format!("CREATE TABLE {word} (id int, v text)")).unwrap();
        case.source
            .batch_execute(&format!(
                "CREATE VIEW {word} AS SELECT i AS id, md5(i::text) AS v FROM generate_series(1, 30000) i; \
                 GRANT SELECT ON {word} TO gpadmin"
            ))
            .unwrap();
    }
    let tables = ["igzip", "pigz", "gzip", "auto"]
        .map(|word| format!("{{ table: public.{word}, window: none, export: {{ compressor: {word} }} }}"));
    case.inventory(&tables.each_ref().map(String::as_str));
    case.gpferry(&["run"]).expect(0).says("4 of 4 units loaded, 120000 rows");
    for word in ["igzip", "pigz", "gzip", "auto"] {
        case.assert_same(&format!("SELECT * FROM \"{word}\" ORDER BY id"));
    }
}
