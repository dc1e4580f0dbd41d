//! Each way of loading, and what follows a collision, broken in the middle: nothing of the unit stays, and it loads
//! once what broke it is gone.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postgres::Client;

use crate::greenplum;
use crate::proxy::Proxy;
use crate::support::{Case, Ran, Side, lab, ran};

/// A way, and what it makes of rows 1 to 6 (`new`) where the target has 4 (`old`, or the same row).
struct Way {
    name: &'static str,
    load: &'static str,
    /// What stands in row 4 before.
    before: &'static str,
    /// Broken in what follows the rollback, not in the first try.
    again: bool,
    rows: &'static [&'static str],
    /// Exit code once nothing breaks it.
    code: i32,
}

const ALL_NEW: &[&str] = &["(1,new)", "(2,new)", "(3,new)", "(4,new)", "(5,new)", "(6,new)"];
const KEPT: &[&str] = &["(1,new)", "(2,new)", "(3,new)", "(4,old)", "(5,new)", "(6,new)"];

const WAYS: &[Way] = &[
    Way { name: "insert", load: "{ mode: insert }", before: "", again: false, rows: ALL_NEW, code: 0 },
    Way {
        name: "update",
        load: "{ mode: update }",
        before: "old",
        again: false,
        rows: &["(4,new)"],
        code: 0,
    },
    Way { name: "merge", load: "{ mode: merge }", before: "old", again: false, rows: ALL_NEW, code: 0 },
    Way { name: "replace", load: "{ mode: replace }", before: "old", again: false, rows: ALL_NEW, code: 0 },
    Way {
        name: "quarantine",
        load: "{ on_pk_violation: quarantine }",
        before: "old",
        again: true,
        rows: KEPT,
        code: 3,
    },
    Way {
        name: "skip",
        load: "{ on_pk_violation: skip_identical }",
        before: "new",
        again: true,
        rows: ALL_NEW,
        code: 0,
    },
    Way {
        name: "then_merge",
        load: "{ on_pk_violation: merge }",
        before: "old",
        again: true,
        rows: ALL_NEW,
        code: 0,
    },
];

impl Way {
    /// A case of this way, whose statements on the table end by waiting for an advisory lock.
    fn case(&self, name: &str) -> Case {
        let mut case = Case::new(&format!("{name}_{}", self.name));
        case.both("CREATE TABLE t (id int PRIMARY KEY, v text)");
        case.source.batch_execute("INSERT INTO t SELECT i, 'new' FROM generate_series(1, 6) i").unwrap();
        if !self.before.is_empty() {
            case.target.execute("INSERT INTO t VALUES (4, $1)", &[&self.before]).unwrap();
        }
        // Only where rows are staged has the first try been taken back.
        let there = if self.again { "to_regclass('pg_temp.gpferry_stage') IS NOT NULL" } else { "true" };
        // Greenplum has no triggers of statements; those of rows run, and lock, on its segments.
        let each = if greenplum::is_target() { "ROW" } else { "STATEMENT" };
        case.target
            .batch_execute(&format!(
                "CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {there} THEN \
                 PERFORM pg_advisory_xact_lock(42); END IF; RETURN NULL; END $$; \
                 CREATE TRIGGER wait_here AFTER INSERT OR UPDATE ON t FOR EACH {each} EXECUTE PROCEDURE wait_here()"
            ))
            .unwrap();
        case.inventory(&[&format!("{{ table: public.t, window: none, load: {} }}", self.load)]);
        case
    }

    fn before(&self) -> Vec<String> {
        if self.before.is_empty() { Vec::new() } else { vec![format!("(4,{})", self.before)] }
    }

    fn nothing_stays(&self, case: &mut Case) {
        assert_eq!(rows(case), self.before(), "{}", self.name);
        assert_eq!(case.count("SELECT count(*) FROM gpferry.load_log"), 0, "{}", self.name);
    }

    fn loads(&self, case: &mut Case) {
        case.gpferry(&["run"]).expect(self.code);
        assert_eq!(rows(case), self.rows, "{}", self.name);
        assert_eq!(case.count("SELECT count(*) FROM gpferry.load_log"), 1, "{}", self.name);
    }
}

fn rows(case: &mut Case) -> Vec<String> {
    let rows = case.target.query("SELECT CAST(t AS text) FROM t ORDER BY 1", &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn load(case: &Case) -> Child {
    let password = std::fs::read_to_string(lab().get("LAB_PGPASSFILE")).unwrap();
    let password = password.lines().next().unwrap().rsplit(':').next().unwrap().to_owned();
    // So that all that follows is loading.
    case.gpferry_with(&["export"], &[("PGPASSWORD", &password)]).expect(0);
    let mut command = case.command(&["load"]);
    command.env("PGPASSWORD", password).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Looks again and again until there is something, for a minute at most.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The end of a run, in the midst of which `meanwhile` goes on.
fn end(what: &str, mut run: Child, mut meanwhile: impl FnMut()) -> Ran {
    until(what, || {
        meanwhile();
        run.try_wait().unwrap()
    });
    ran(run.wait_with_output().unwrap())
}

/// How many sessions of gpferry wait for the lock that a test holds; `each` is asked of each of them.
fn waiting(each: &str) -> String {
    let session = if greenplum::is_target() { "l.mppsessionid = a.sess_id" } else { "l.pid = a.pid" };
    format!(
        "SELECT count({each}) FROM pg_stat_activity a WHERE a.datname = current_database() \
         AND EXISTS (SELECT 1 FROM pg_locks l WHERE l.locktype = 'advisory' AND NOT l.granted AND {session})"
    )
}

/// Takes the lock that triggers wait for, or gives it back: where triggers run.
fn advisory(client: &mut Client, done: &str) {
    let place = if greenplum::is_target() { "FROM gp_dist_random('gp_id')" } else { "" };
    client.batch_execute(&format!("SELECT pg_advisory_{done}(42) {place}")).unwrap();
}

#[test]
fn a_killed_backend_leaves_nothing_of_the_unit_in_any_way() {
    for way in WAYS {
        let mut case = way.case("backend");
        let mut hold = Side::Target.connect(case.database());
        advisory(&mut hold, "lock");
        let mut killed = 0;
        let run = load(&case);
        // As often as it tries: then the unit has failed.
        end(way.name, run, || {
            killed += case.count(&waiting("pg_terminate_backend(a.pid)"));
        })
        .expect(3)
        .says("1 failed");
        assert!(killed > 0, "{}: nobody came that far", way.name);
        way.nothing_stays(&mut case);
        advisory(&mut hold, "unlock");
        way.loads(&mut case);
    }
}

#[test]
fn a_cut_connection_leaves_nothing_of_the_unit_in_any_way() {
    for way in WAYS {
        let mut case = way.case("line");
        let direct = format!("127.0.0.1:{}/{}", lab().get("LAB_TARGET_PORT"), case.database());
        let proxy = Proxy::new("127.0.0.1", lab().get("LAB_TARGET_PORT").parse().unwrap());
        let over = format!("127.0.0.1:{}/{}?sslmode=disable", proxy.port(), case.database());
        case.edit_inventory(&direct, &over);
        let mut hold = Side::Target.connect(case.database());
        advisory(&mut hold, "lock");
        let run = load(&case);
        until(way.name, || (case.count(&waiting("*")) > 0).then_some(()));
        proxy.refuse();
        let ended = end(way.name, run, || ());
        assert_ne!(ended.code, 0, "{}: {}{}", way.name, ended.stdout, ended.stderr);
        // The server's side has not heard of it: it goes on, up to where it should hear of a COMMIT.
        advisory(&mut hold, "unlock");
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'gpferry'";
        until(way.name, || (case.count(sessions) == 0).then_some(()));
        way.nothing_stays(&mut case);
        case.edit_inventory(&over, &direct);
        way.loads(&mut case);
    }
}

/// A file system of its own for a tablespace of the target; gone with the test.
struct Small(PathBuf);

impl Small {
    fn new() -> Self {
        let small = Self(PathBuf::from(lab().get("LAB_DIR")).join("small"));
        std::fs::create_dir(&small.0).unwrap();
        // The owner of the server's data.
        let data: String = Side::Target
            .connect("postgres")
            .query_one("SELECT current_setting('data_directory')", &[])
            .unwrap()
            .get(0);
        let owner = std::fs::metadata(data).unwrap();
        let own = |of: &dyn Fn(&std::fs::Metadata) -> u32| of(&owner);
        let (uid, gid) =
            (own(&std::os::unix::fs::MetadataExt::uid), own(&std::os::unix::fs::MetadataExt::gid));
        let options = format!("size=8m,mode=700,uid={uid},gid={gid}");
        let path = small.0.display().to_string();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs", &path]).status();
        assert!(done.unwrap().success(), "cannot mount a tmpfs");
        small
    }

    fn fill(&self) {
        // To the last block, whatever the file system calls a block.
        let ballast = std::fs::File::create(self.0.join("ballast")).unwrap();
        let full = std::io::copy(&mut std::io::repeat(0), &mut &ballast).unwrap_err();
        assert_eq!(full.raw_os_error(), Some(28), "{full}");
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // A server that is not the lab's own keeps it otherwise.
        if let Ok(mut admin) = Side::Target.open("postgres") {
            let _ = admin.batch_execute("DROP TABLESPACE small");
        }
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_nothing_of_the_unit_in_any_way() {
    let small = Small::new();
    let mut admin = Side::Target.connect("postgres");
    admin.batch_execute(&format!("CREATE TABLESPACE small LOCATION '{}'", small.0.display())).unwrap();
    let user = lab().get("LAB_TARGET_USER");
    admin.batch_execute(&format!("GRANT CREATE ON TABLESPACE small TO {user}")).unwrap();
    for way in WAYS {
        let mut case = way.case("disk");
        // What follows a collision needs room to stage the rows, what comes before it room in the table.
        if way.again {
            let set =
                format!("ALTER ROLE {user} IN DATABASE {} SET temp_tablespaces = small", case.database());
            case.target.batch_execute(&set).unwrap();
        } else {
            // Rows of a page of the target each, which no compression helps.
            let page = case.count("SELECT CAST(current_setting('block_size') AS bigint)");
            let row = format!(
                "SELECT string_agg(md5(i::text), '') FROM generate_series(1, {}) i",
                (page - 96) / 32
            );
            case.source
                .batch_execute(&format!("ALTER TABLE t ADD w text; UPDATE t SET w = ({row})"))
                .unwrap();
            case.target
                .batch_execute("ALTER TABLE t ADD w text; ALTER TABLE t ALTER w SET STORAGE PLAIN")
                .unwrap();
            case.target
                .batch_execute("DROP TRIGGER wait_here ON t; ALTER TABLE t SET TABLESPACE small")
                .unwrap();
        }
        small.fill();
        let ran = case.gpferry(&["run"]);
        small.empty();
        if !way.again {
            case.target.batch_execute("ALTER TABLE t SET TABLESPACE pg_default").unwrap();
        }
        ran.expect(3).says("SQLSTATE 53100").says("the target's disk is full: make room");
        assert_eq!(case.count("SELECT count(*) FROM gpferry.load_log"), 0, "{}", way.name);
        let kept = case.target.query("SELECT CAST(id AS text) || v FROM t", &[]).unwrap();
        let kept: Vec<String> = kept.iter().map(|row| row.get(0)).collect();
        let expected = if way.before.is_empty() { vec![] } else { vec![format!("4{}", way.before)] };
        assert_eq!(kept, expected, "{}", way.name);
        case.gpferry(&["run"]).expect(way.code);
        let loaded = way.rows.len();
        assert_eq!(case.count("SELECT count(*) FROM t"), i64::try_from(loaded).unwrap(), "{}", way.name);
    }
}
