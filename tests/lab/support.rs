//! The lab as tests use it: one pair of servers per test binary, one pair of databases and one directory on the
//! mount per test.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use postgres::{Client, NoTls};

use crate::greenplum;

/// What `lab.sh up` said.
pub(crate) struct Lab {
    env: HashMap<String, String>,
    /// The lab's directory goes with this process: `lab.sh` watches it.
    _directory: PathBuf,
}

/// The lab of this test binary. A lab that cannot start is a failed test.
pub(crate) fn lab() -> &'static Lab {
    lab_with(&[])
}

/// The same, started with more options of `lab.sh up` where nobody has started it yet.
pub(crate) fn lab_with(options: &[&str]) -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        let directory = tempfile::Builder::new().prefix("gpferry-lab.").tempdir().unwrap().keep();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/lab.sh");
        let output = Command::new("bash")
            .arg(script)
            .arg("up")
            .arg(&directory)
            .args(["--owner", &std::process::id().to_string()])
            .args(options)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "the lab did not start:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let text = fs::read_to_string(directory.join("lab.env")).unwrap();
        let mut env: HashMap<String, String> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        greenplum::instead_of_target(&mut env);
        Lab { env, _directory: directory }
    })
}

impl Lab {
    pub(crate) fn get(&self, key: &str) -> &str {
        self.env.get(key).unwrap_or_else(|| panic!("lab.env has no {key}"))
    }
}

/// One test's world: a database on each side, a directory on the mount, an inventory, a ledger.
pub(crate) struct Case {
    name: String,
    directory: tempfile::TempDir,
    pub(crate) source: Client,
    pub(crate) target: Client,
}

/// What a run of the binary left.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Fails with everything that was seen.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code\n--- stdout\n{}--- stderr\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        let all = format!("{}{}", self.stdout, self.stderr);
        let folded = all.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(folded.contains(text), "no `{text}` in\n{all}");
        self
    }

    #[track_caller]
    pub(crate) fn silent_about(self, text: &str) -> Self {
        let all = format!("{}{}", self.stdout, self.stderr);
        assert!(!all.contains(text), "`{text}` in\n{all}");
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

impl Case {
    /// A world of its own, named after the test.
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let lab = lab();
        let name = format!("{name}_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        for side in [Side::Source, Side::Target] {
            let mut admin = side.connect("postgres");
            admin.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        }
        let mount = Path::new(lab.get("LAB_MOUNT")).join(&name);
        fs::create_dir(&mount).unwrap();
        let owner = fs::metadata(lab.get("LAB_MOUNT")).unwrap();
        std::os::unix::fs::chown(
            &mount,
            Some(std::os::unix::fs::MetadataExt::uid(&owner)),
            Some(std::os::unix::fs::MetadataExt::gid(&owner)),
        )
        .unwrap();
        greenplum::let_segments_see(&mount);
        let mut case = Self {
            directory: tempfile::tempdir().unwrap(),
            source: Side::Source.connect(&name),
            target: Side::Target.connect(&name),
            name,
        };
        let user = lab.get("LAB_TARGET_USER");
        case.target
            .batch_execute(&format!(
                "GRANT CREATE ON DATABASE {} TO {user}; GRANT ALL ON SCHEMA public TO {user}; \
                 ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {user}",
                case.name
            ))
            .unwrap();
        case.source.batch_execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO gpadmin").unwrap();
        case
    }

    /// The same SQL on both sides.
    pub(crate) fn both(&mut self, sql: &str) {
        self.source.batch_execute(sql).unwrap_or_else(|error| panic!("source: {error:?}: {sql}"));
        self.target.batch_execute(sql).unwrap_or_else(|error| panic!("target: {error:?}: {sql}"));
    }

    /// The test's database name.
    pub(crate) fn database(&self) -> &str {
        &self.name
    }

    /// The mount's directory of this test, as the runner sees it.
    pub(crate) fn mount(&self) -> PathBuf {
        Path::new(lab().get("LAB_MOUNT")).join(&self.name)
    }

    /// A file of this test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes an inventory with one source on host a, and one job `j` of these tables (flow YAML, one a line).
    pub(crate) fn inventory(&self, tables: &[&str]) {
        self.inventory_with("", "", tables);
    }

    /// As [`Case::inventory`], with more lines for the source and for the job.
    pub(crate) fn inventory_with(&self, source: &str, job: &str, tables: &[&str]) {
        let lab = lab();
        let name = &self.name;
        let (mount, port) = (self.mount(), lab.get("LAB_TARGET_PORT"));
        let (socket, source_port) = (lab.get("LAB_SOURCE_SOCKET"), lab.get("LAB_SOURCE_PORT"));
        let (user, on_host) = (lab.get("LAB_TARGET_USER"), lab.get("LAB_MOUNT_A"));
        let tables: String = tables.iter().map(|table| format!("      - {table}\n")).collect();
        let text = format!(
            "version: 1\n\
             mount: {{ path: {} }}\n\
             target: {{ url: \"postgresql://{user}@127.0.0.1:{port}/{name}\" }}\n\
             sources:\n  s:\n    host: gp-a\n    engine: postgres\n    mount: {on_host}/{name}\n    database: {name}\n    \
             connection: {{ host: {socket}, port: {source_port}, user: gpadmin }}\n{source}\
             jobs:\n  j:\n    source: s\n{job}    tables:\n{tables}",
            mount.display()
        );
        fs::write(self.path("inventory.yml"), text).unwrap();
        if let Some(loader) = greenplum::forced_loader() {
            self.load_by(&loader);
        }
    }

    /// Loads by this loader; as a superuser where it takes one.
    pub(crate) fn load_by(&self, loader: &str) {
        let (user, admin) = (lab().get("LAB_TARGET_USER"), lab().get("LAB_TARGET_ADMIN"));
        let port = lab().get("LAB_TARGET_PORT");
        let place = format!("@127.0.0.1:{port}/{}\"", self.name);
        let (by, more) = match loader {
            "gpfdist" | "gpload" => {
                let home = greenplum::gphome(loader).expect("GPFERRY_LAB_GPHOME is needed for that");
                (user, format!(", {loader}: {{ {} }}", greenplum::program(&home, loader)))
            }
            other if greenplum::takes_a_superuser(other) => (admin, String::new()),
            _ => (user, String::new()),
        };
        self.edit_inventory(&format!("{user}{place}"), &format!("{by}{place}, loader: {loader}{more}"));
    }

    /// Changes the inventory's text.
    pub(crate) fn edit_inventory(&self, from: &str, to: &str) {
        let path = self.path("inventory.yml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "no `{from}` in {text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    /// The built binary, ready to run against this test's inventory.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let lab = lab();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpferry"));
        command
            .args(args)
            .arg("--inventory")
            .arg(self.path("inventory.yml"))
            .env("GPFERRY_SSH_CONFIG", lab.get("LAB_SSH_CONFIG"))
            .env("PGPASSFILE", lab.get("LAB_PGPASSFILE"))
            .env_remove("SSH_AUTH_SOCK")
            .stdin(std::process::Stdio::null());
        command
    }

    /// Runs the built binary, for two minutes at most: one that hangs has exit code 124, and its test fails.
    pub(crate) fn gpferry(&self, args: &[&str]) -> Ran {
        self.gpferry_with(args, &[])
    }

    /// As [`Case::gpferry`], with more environment variables.
    pub(crate) fn gpferry_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Ran {
        let mut inner = self.command(args);
        inner.envs(variables.iter().copied());
        let mut bounded = Command::new("timeout");
        bounded.args(["--kill-after=5", "120"]).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => bounded.env(name, value),
                None => bounded.env_remove(name),
            };
        }
        ran(bounded.stdin(std::process::Stdio::null()).output().unwrap())
    }

    /// Every row of a query, on each side, in COPY's binary form: PostgreSQL's own word for "identical".
    #[track_caller]
    pub(crate) fn assert_same(&mut self, query: &str) {
        let copy = format!("COPY ({query}) TO STDOUT (FORMAT binary)");
        let read = |client: &mut Client| {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut client.copy_out(copy.as_str()).unwrap(), &mut bytes).unwrap();
            bytes
        };
        let (source, target) = (read(&mut self.source), read(&mut self.target));
        assert!(
            source == target,
            "{query}: {} bytes in the source, {} in the target",
            source.len(),
            target.len()
        );
    }

    /// A number out of the target.
    pub(crate) fn count(&mut self, query: &str) -> i64 {
        self.target.query_one(query, &[]).unwrap().get(0)
    }

    /// Files below the mount, without manifests, relative to `file2GP`.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let root = self.mount().join("file2GP");
        let mut files = Vec::new();
        let mut directories = vec![root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten() {
                let entry = entry.unwrap();
                let path = entry.path();
                if entry.file_type().unwrap().is_dir() {
                    directories.push(path);
                } else if path.extension().is_none_or(|ending| ending != "jsonl") {
                    files.push(path.strip_prefix(&root).unwrap().to_owned());
                }
            }
        }
        files.sort();
        files
    }

    /// The only file that was published.
    #[track_caller]
    pub(crate) fn only_file(&self) -> PathBuf {
        let files = self.files();
        assert_eq!(files.len(), 1, "{files:?}");
        self.mount().join("file2GP").join(&files[0])
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        greenplum::drop_database(&self.name);
    }
}

pub(crate) fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Target,
}

impl Side {
    /// A superuser's session over the Unix socket.
    pub(crate) fn connect(self, database: &str) -> Client {
        self.open(database).unwrap_or_else(|error| panic!("{database}: {error:?}"))
    }

    /// The same, while the server may be down.
    pub(crate) fn open(self, database: &str) -> Result<Client, postgres::Error> {
        let lab = lab();
        let (socket, port, user) = match self {
            Side::Source => (lab.get("LAB_SOURCE_SOCKET"), lab.get("LAB_SOURCE_PORT"), "postgres"),
            Side::Target => {
                (lab.get("LAB_TARGET_SOCKET"), lab.get("LAB_TARGET_PORT"), lab.get("LAB_TARGET_ADMIN"))
            }
        };
        Client::connect(&format!("host={socket} port={port} user={user} dbname={database}"), NoTls)
    }
}
