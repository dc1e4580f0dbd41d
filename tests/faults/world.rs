//! What a campaign hurts: two source hosts, a source and a target database, the runner, and the lines between them.
//!
//! The runner lives in a network namespace of its own where the machine allows that, so that its packets can be
//! dropped; every connection of it goes through a proxy, so that lines can be cut.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use postgres::Client;

use crate::greenplum;
use crate::proxy::Proxy;
use crate::support::{Case, Lab, Side, lab_with};

/// A table, its columns, and its rows.
type Table = (&'static str, &'static str, &'static str);

/// Only the one that is merged has a key: what is loaded twice is there twice. Every row is another.
const TABLES: [Table; 5] = [
    (
        "w",
        "at timestamp, id int, v text",
        "SELECT timestamp '2021-08-10' + i * interval '2 seconds', i, md5(i::text) || md5((i + 7)::text) FROM generate_series(0, 43199) i",
    ),
    ("big", "id int, v text", "SELECT i, md5(i::text) FROM generate_series(1, 80000) i"),
    (
        "late",
        "at timestamp, id int, v text",
        "SELECT timestamp '2021-08-10' + i * interval '1 minute', i, repeat('x', i % 90) FROM generate_series(0, 1439) i",
    ),
    ("other", "id int, v text", "SELECT i, md5(i::text) || E'\\n\"' FROM generate_series(1, 60000) i"),
    ("keyed", "id int PRIMARY KEY, v text", "SELECT i, 'v' || i FROM generate_series(1, 5000) i"),
];
/// Tables of a few rows, which share sessions and transactions.
const SMALL: usize = 14;

pub(crate) struct World {
    pub(crate) case: Case,
    pub(crate) lab: &'static Lab,
    pub(crate) ssh: [Proxy; 2],
    pub(crate) target: Proxy,
    pub(crate) net: Option<Net>,
    pub(crate) tables: Vec<String>,
    pub(crate) rows: i64,
    hosts: Vec<Host>,
}

struct Host {
    sshd: i32,
    namespace: PathBuf,
    mount: String,
}

/// A process on a source host that belongs to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) name: String,
}

/// A network namespace; it goes when this is dropped, or with this process.
pub(crate) struct Net {
    holder: Child,
    address: String,
    /// As what this side knows the runner.
    inside: String,
}

impl Net {
    /// `None` where the machine has no network namespaces or no `nft`.
    fn new() -> Option<Self> {
        let number = std::process::id() % 250;
        let (ours, theirs) = (format!("10.213.{number}.1"), format!("10.213.{number}.2"));
        let holder = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let net = Self { holder, address: ours.clone(), inside: theirs.clone() };
        let pid = net.holder.id();
        let own = fs::read_link("/proc/self/ns/net").ok()?;
        let began = std::time::Instant::now();
        while fs::read_link(format!("/proc/{pid}/ns/net")).ok()? == own {
            if began.elapsed().as_secs() > 5 {
                return None;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let set_up = format!(
            "ip link add gpf{pid} type veth peer name inside netns {pid} && ip addr add {ours}/30 dev gpf{pid} && \
             ip link set gpf{pid} up && nsenter -t {pid} -n sh -c 'ip link set lo up && ip addr add {theirs}/30 dev \
             inside && ip link set inside up && nft add table inet f && \
             nft add chain inet f incoming \"{{ type filter hook input priority 0; }}\"'"
        );
        let done = Command::new("sh").args(["-c", &set_up]).stderr(Stdio::null()).status().ok()?;
        done.success().then_some(net)
    }

    /// Of 100 packets that come in, so many are lost from now on.
    pub(crate) fn lose(&self, percent: u32) {
        self.nft("flush chain inet f incoming");
        match percent {
            0 => {}
            1..100 => self.nft(&format!(
                "add rule inet f incoming iifname inside numgen random mod 100 < {percent} drop"
            )),
            _ => self.nft("add rule inet f incoming iifname inside drop"),
        }
    }

    fn nft(&self, rule: &str) {
        let pid = self.holder.id().to_string();
        let done = Command::new("nsenter").args(["-t", &pid, "-n", "nft", rule]).status().unwrap();
        assert!(done.success(), "nft {rule}");
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let lab = lab_with(&["--tmpfs", "256m"]);
        let mut case = Case::new("faults");
        let net = Net::new();
        let address = net.as_ref().map_or("127.0.0.1".to_owned(), |net| net.address.clone());
        let proxy = |key: &str| Proxy::new(&address, lab.get(key).parse().unwrap());
        let (ssh, target) = ([proxy("LAB_PORT_A"), proxy("LAB_PORT_B")], proxy("LAB_TARGET_PORT"));
        let tables = fill(&mut case);
        let ledgers = PathBuf::from(lab.get("LAB_DIR")).join("ledgers");
        fs::create_dir(&ledgers).unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=16m", "tmpfs", &ledgers.display().to_string()]);
        let hosts = hosts(lab);
        let mut world = Self { case, lab, ssh, target, net, tables, rows: 0, hosts };
        world.rows =
            world.tables.iter().map(|table| world_count(&mut world.case, &format!("expected.{table}"))).sum();
        world.write_inventory(&address);
        world.write_access(&address);
        world
    }

    fn write_inventory(&self, address: &str) {
        let (name, lab, port) = (self.case.database(), self.lab, self.target.port());
        let source = |source: &str, host: &str, mount: &str| {
            format!(
                "  {source}:\n    host: gp-{host}\n    engine: postgres\n    mount: {mount}/{name}\n    database: {name}\n    \
                 connection: {{ host: {}, port: {}, user: gpadmin }}\n    sessions: 2\n",
                lab.get("LAB_SOURCE_SOCKET"),
                lab.get("LAB_SOURCE_PORT")
            )
        };
        let small = |numbers: std::ops::Range<usize>| -> String {
            numbers.map(|n| format!("      - {{ table: public.s{n}, window: none }}\n")).collect()
        };
        let text = format!(
            "version: 1\nmount: {{ path: {} }}\n\
             target: {{ url: \"postgresql://{}@{address}:{port}/{name}?sslmode=disable\", sessions: 3, loader: {} }}\n\
             sources:\n{}{}\
             jobs:\n  ja:\n    source: s\n    from: 2021-08-10 00:00:00\n    until: 2021-08-11 00:00:00\n    tables:\n\
             \x20     - {{ table: public.w, window: {{ column: at, length: 6h }} }}\n\
             \x20     - {{ table: public.big, window: none }}\n{}\
             \x20 jb:\n    source: t\n    from: 2021-08-10 00:00:00\n    until: 2021-08-11 00:00:00\n    tables:\n\
             \x20     - {{ table: public.late, window: {{ column: at, length: 4h }}, load: {{ mode: replace }} }}\n\
             \x20     - {{ table: public.other, window: none }}\n      - {{ table: public.keyed, window: none, load: {{ mode: merge }} }}\n{}",
            self.case.mount().display(),
            lab.get("LAB_TARGET_USER"),
            self.loader(),
            source("s", "a", lab.get("LAB_MOUNT_A")),
            source("t", "b", lab.get("LAB_MOUNT_B")),
            small(0..SMALL / 2),
            small(SMALL / 2..SMALL),
        );
        fs::write(self.case.path("inventory.yml"), text).unwrap();
    }

    /// How the hosts are reached through the proxies, and the password for the target behind one.
    fn write_access(&self, address: &str) {
        let read = |key: &str| fs::read_to_string(self.lab.get(key)).unwrap();
        let (mut config, mut known) = (read("LAB_SSH_CONFIG"), String::new());
        config = config.replace("HostName 127.0.0.1", &format!("HostName {address}"));
        for (proxy, port) in self.ssh.iter().zip(["LAB_PORT_A", "LAB_PORT_B"]) {
            let port = self.lab.get(port);
            config = config.replace(&format!("Port {port}"), &format!("Port {}", proxy.port()));
            for line in read("LAB_KNOWN_HOSTS")
                .lines()
                .filter(|line| line.starts_with(&format!("[127.0.0.1]:{port} ")))
            {
                known +=
                    &line.replace(&format!("[127.0.0.1]:{port} "), &format!("[{address}]:{} ", proxy.port()));
                known.push('\n');
            }
        }
        let known_path = self.case.path("known_hosts");
        config = config.replace(self.lab.get("LAB_KNOWN_HOSTS"), &known_path.display().to_string());
        fs::write(known_path, known).unwrap();
        fs::write(self.case.path("ssh_config"), config).unwrap();
        let pass = read("LAB_PGPASSFILE");
        let password = pass.lines().next().unwrap().rsplit(':').next().unwrap();
        let path = self.case.path("pgpass");
        fs::write(&path, format!("{address}:{}:*:*:{password}\n", self.target.port())).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    /// The file system that the ledger has for itself.
    pub(crate) fn ledgers(&self) -> PathBuf {
        PathBuf::from(self.lab.get("LAB_DIR")).join("ledgers")
    }

    /// Starts `gpferry run` with a ledger of this name, in its network namespace. What it says goes to the files
    /// `<heard>.out` and `<heard>.err`.
    pub(crate) fn start(&self, fake_time: bool, ledger: &str, heard: &str) -> Child {
        let inner = self.case.command(&["run", "-v"]);
        let mut command = match &self.net {
            None => Command::new(inner.get_program()),
            Some(net) => {
                let mut command = Command::new("nsenter");
                command.arg("-t").arg(net.holder.id().to_string()).arg("-n").arg(inner.get_program());
                command
            }
        };
        command.args(inner.get_args()).arg("--ledger").arg(self.ledgers().join(ledger));
        command.env_remove("SSH_AUTH_SOCK").env_remove("PGPASSWORD");
        command
            .env("GPFERRY_SSH_CONFIG", self.case.path("ssh_config"))
            .env("PGPASSFILE", self.case.path("pgpass"));
        if fake_time {
            command.env("LD_PRELOAD", FAKE_TIME).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_TIMESTAMP_FILE", self.case.path("clock"));
        }
        let stdout = fs::File::create(self.case.path(&format!("{heard}.out"))).unwrap();
        let stderr = fs::File::create(self.case.path(&format!("{heard}.err"))).unwrap();
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap()
    }

    /// A database's session for the tests themselves, made anew where the server was restarted.
    pub(crate) fn session(&mut self, side: Side) -> &mut Client {
        // A session may have lost its segments alone.
        let asks_all = if side == Side::Target && greenplum::is_target() {
            "SELECT count(*) FROM gp_dist_random('gp_id')"
        } else {
            "SELECT 1"
        };
        let name = self.case.database().to_owned();
        let client = match side {
            Side::Source => &mut self.case.source,
            Side::Target => &mut self.case.target,
        };
        if client.simple_query(asks_all).is_err() {
            let began = std::time::Instant::now();
            *client = loop {
                if let Ok(mut new) = side.open(&name)
                    && new.simple_query(asks_all).is_ok()
                {
                    break new;
                }
                assert!(began.elapsed().as_secs() < 30, "the database {name} did not come back");
                std::thread::sleep(std::time::Duration::from_millis(50));
            };
        }
        client
    }

    /// How rows get into the target: what follows `loader:`.
    fn loader(&self) -> String {
        let Some(loader) = greenplum::forced_loader() else { return "auto".into() };
        if !["gpfdist", "gpload"].contains(&loader.as_str()) {
            return loader;
        }
        let home = greenplum::gphome(&loader).expect("GPFERRY_LAB_GPHOME is needed for that");
        let here = self.net.as_ref().map_or("127.0.0.1", |net| &net.inside);
        let program = greenplum::program(&home, &loader).replace("127.0.0.1", here);
        format!("{loader}, {loader}: {{ {program} }}")
    }

    /// Everything that runs on a source host, but for the servers themselves.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let Ok(namespace) = fs::read_link(entry.path().join("ns/mnt")) else { continue };
            let of_host = self.hosts.iter().any(|host| host.namespace == namespace && host.sshd != pid);
            if let (true, Ok(name)) = (of_host, fs::read_to_string(entry.path().join("comm"))) {
                found.push(Process { pid, name: name.trim().to_owned() });
            }
        }
        found
    }

    /// Backends of the runner, or of its exports, those at work first.
    pub(crate) fn backends(&mut self, side: Side) -> Vec<i32> {
        // Greenplum 6 shows clients alone, and not which kind of backend each is.
        let clients = if side == Side::Target && greenplum::is_target() {
            ""
        } else {
            "AND backend_type = 'client backend'"
        };
        let query = format!(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'gpferry%' \
             AND datname = current_database() {clients} ORDER BY state <> 'active', pid"
        );
        self.session(side)
            .query(query.as_str(), &[])
            .map_or_else(|_| Vec::new(), |rows| rows.iter().map(|row| row.get(0)).collect())
    }

    /// Mounts the mount anew on both hosts, `ro` or `rw`; a file that is being written delays that.
    pub(crate) fn remount_hosts(&self, how: &str) -> bool {
        self.hosts.iter().all(|host| {
            let options = format!("remount,{how},bind");
            let args =
                ["-t", &host.sshd.to_string(), "-m", "mount", "-o", &options, &host.mount].map(str::to_owned);
            (0..200).any(|_| {
                let done =
                    Command::new("nsenter").args(&args).stderr(Stdio::null()).status().unwrap().success();
                if !done {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                done
            })
        })
    }

    /// Everything as before the first run.
    pub(crate) fn reset(&mut self) {
        for process in self.processes() {
            signal("KILL", process.pid);
        }
        for side in [Side::Source, Side::Target] {
            for backend in self.backends(side) {
                let _ = self.session(side).execute("SELECT pg_terminate_backend($1)", &[&backend]);
            }
        }
        let tables = self.tables.join(", ");
        let wipe = format!(
            "SET statement_timeout = '20s'; TRUNCATE {tables}; DROP SCHEMA IF EXISTS gpferry CASCADE"
        );
        self.session(Side::Target).batch_execute(&wipe).unwrap();
        for entry in fs::read_dir(self.ledgers()).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        let _ = fs::remove_dir_all(self.case.mount().join("file2GP"));
    }
}

/// Where Debian's package `faketime` puts what is preloaded.
pub(crate) const FAKE_TIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

fn world_count(case: &mut Case, table: &str) -> i64 {
    case.count(&format!("SELECT count(*) FROM {table}"))
}

/// Makes the tables on both sides; the target also gets, under `expected`, what the source holds.
fn fill(case: &mut Case) -> Vec<String> {
    let small = (0..SMALL).map(|n| {
        let rows = format!("SELECT i, 'row ' || i FROM generate_series(1, {}) i", n * 23);
        (format!("s{n}"), "id int, v text".to_owned(), rows)
    });
    let large =
        TABLES.iter().map(|&(name, columns, rows)| (name.to_owned(), columns.to_owned(), rows.to_owned()));
    let all: Vec<_> = large.chain(small).collect();
    case.target.batch_execute("CREATE SCHEMA expected").unwrap();
    for (name, columns, rows) in &all {
        case.both(&format!("CREATE TABLE {name} ({columns})"));
        case.source.batch_execute(&format!("INSERT INTO {name} {rows}; ANALYZE {name}")).unwrap();
        case.target
            .batch_execute(&format!(
                "CREATE TABLE expected.{name} ({columns}); INSERT INTO expected.{name} {rows}"
            ))
            .unwrap();
        let read = |client: &mut Client, table: &str| {
            let copy = format!("COPY (SELECT * FROM {table} x ORDER BY id) TO STDOUT (FORMAT binary)");
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut client.copy_out(copy.as_str()).unwrap(), &mut bytes).unwrap();
            bytes
        };
        let same = read(&mut case.source, name) == read(&mut case.target, &format!("expected.{name}"));
        assert!(same, "what is expected of {name} is not what the source holds");
    }
    case.source.batch_execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO gpadmin").unwrap();
    all.into_iter().map(|(name, ..)| name).collect()
}

fn hosts(lab: &Lab) -> Vec<Host> {
    let pids = fs::read_to_string(PathBuf::from(lab.get("LAB_DIR")).join("pids")).unwrap();
    ["a", "b"]
        .iter()
        .zip(["LAB_MOUNT_A", "LAB_MOUNT_B"])
        .map(|(name, mount)| {
            let line = pids.lines().find(|line| line.ends_with(&format!(" sshd-{name}"))).unwrap();
            let sshd = line.split(' ').next().unwrap().parse().unwrap();
            let namespace = fs::read_link(format!("/proc/{sshd}/ns/mnt")).unwrap();
            Host { sshd, namespace, mount: lab.get(mount).to_owned() }
        })
        .collect()
}

/// Sends a signal; to nobody, where the process has ended.
pub(crate) fn signal(name: &str, pid: i32) -> bool {
    let numbers = [("KILL", 9), ("INT", 2), ("TERM", 15), ("STOP", 19), ("CONT", 18)];
    let number = numbers.iter().find(|(known, _)| *known == name).map(|(_, number)| *number).unwrap();
    let Some(signal) = rustix::process::Signal::from_named_raw(number) else { return false };
    rustix::process::Pid::from_raw(pid).is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
}

#[track_caller]
pub(crate) fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
