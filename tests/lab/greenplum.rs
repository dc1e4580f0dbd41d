//! A Greenplum that the tester brings, in place of the lab's own target: `GPFERRY_LAB_GREENPLUM=postgresql://…`, the
//! address of a coordinator and of a superuser that may make databases there. Each test makes its own database and
//! drops it at its end; the role `loader` is made where it is missing, and stays.

#![expect(clippy::print_stderr, reason = "which target was tested has to be seen")]

use std::collections::HashMap;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use postgres::config::Host;
use postgres::{Client, Config, NoTls};

use crate::support::Side;

/// The environment variable that names it.
const VARIABLE: &str = "GPFERRY_LAB_GREENPLUM";
/// The environment variable that names the user of this machine as whom its segments run, `gpadmin` by default: they
/// have to read the mount.
const SEGMENTS: &str = "GPFERRY_LAB_SEGMENTS_USER";
/// The environment variable that says by which loader every test loads there, as a superuser.
const LOADER: &str = "GPFERRY_LAB_LOADER";
/// The environment variable that names an installation with gpfdist and gpload, for this machine: `$GPHOME`.
const GPHOME: &str = "GPFERRY_LAB_GPHOME";

/// Whether the target of this run is a Greenplum. Where it is not, the tests that need one say so by name.
pub(crate) fn is_target() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// Whether this is left out, since only a Greenplum shows it; says so there.
pub(crate) fn is_missing_for(what: &str) -> bool {
    if !is_target() {
        eprintln!("left out without {VARIABLE}: {what}");
    }
    !is_target()
}

/// Where gpfdist and gpload are. Where nobody says so, what is left out is said once, by name.
pub(crate) fn gphome(what: &str) -> Option<PathBuf> {
    static SAID: OnceLock<()> = OnceLock::new();
    if is_missing_for(what) {
        return None;
    }
    let home = env::var_os(GPHOME).map(PathBuf::from);
    if home.is_none() {
        SAID.get_or_init(|| eprintln!("left out without {GPHOME}: all that needs gpfdist or gpload"));
    }
    home
}

/// What `target:` says beside `loader: gpfdist` or `loader: gpload`: where it is, and ports that the lab's servers do not
/// take.
pub(crate) fn program(home: &Path, name: &str) -> String {
    format!("path: {}/bin/{name}, address: 127.0.0.1, ports: 34000-34999", home.display())
}

/// Whether something about the rights of a user is left out, since all tests load as a superuser; says so there.
pub(crate) fn loads_as_superuser(what: &str) -> bool {
    let superuser = forced_loader().is_some_and(|loader| takes_a_superuser(&loader));
    if superuser {
        eprintln!("left out, since tests load as a superuser by {LOADER}: {what}");
    }
    superuser
}

/// Does this loader load for superusers alone?
pub(crate) fn takes_a_superuser(loader: &str) -> bool {
    loader == "segments" && is_target()
}

/// The loader that all tests are to use, where one is named.
pub(crate) fn forced_loader() -> Option<String> {
    env::var(LOADER).ok().filter(|_| is_target())
}

/// Lets the segments read a test's directory on the mount, and below it what is made later.
pub(crate) fn let_segments_see(mount: &Path) {
    if !is_target() {
        return;
    }
    let user = env::var(SEGMENTS).unwrap_or_else(|_| "gpadmin".into());
    let group = Command::new("id").args(["-g", &user]).output().unwrap().stdout;
    let group = String::from_utf8(group).unwrap().trim().parse().unwrap_or_else(|_| {
        panic!("{SEGMENTS}: this machine has no user {user} as whom the segments could run");
    });
    std::os::unix::fs::chown(mount, None, Some(group)).unwrap();
    fs::set_permissions(mount, fs::Permissions::from_mode(0o2770)).unwrap();
    fs::set_permissions(mount.parent().unwrap(), fs::Permissions::from_mode(0o2771)).unwrap();
}

/// Whether something has to be left out where the target is a Greenplum; says so there, and why.
pub(crate) fn leaves_out(what: &str, why: &str) -> bool {
    if is_target() {
        eprintln!("left out on this Greenplum: {what}, {why}");
    }
    is_target()
}

/// The condition on `pg_stat_activity` that finds who waits for a lock: here, or on a segment.
pub(crate) fn waits_for_a_lock() -> &'static str {
    if is_target() {
        "EXISTS (SELECT 1 FROM pg_locks l WHERE NOT l.granted AND l.mppsessionid = sess_id)"
    } else {
        "wait_event_type = 'Lock'"
    }
}

/// A database of a test's own on that Greenplum, to export from: how it is reached. Dropped with the value.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) client: Client,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) admin: String,
}

impl Source {
    /// `None`, said by name, where no Greenplum was brought.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let Ok(url) = env::var(VARIABLE) else {
            eprintln!("left out, since {VARIABLE} is not set: {name}");
            return None;
        };
        let (host, port, admin) = address(&url);
        let open = |database: &str| {
            Client::connect(&format!("host={host} port={port} user={admin} dbname={database}"), NoTls)
                .unwrap_or_else(|error| panic!("{VARIABLE}: {error:?}"))
        };
        open("postgres").batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        Some(Self { client: open(name), name: name.to_owned(), host, port, admin })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        drop_database(&self.name);
    }
}

/// Host, port and superuser of a coordinator.
fn address(url: &str) -> (String, u16, String) {
    let config: Config = url.parse().unwrap_or_else(|error| panic!("{VARIABLE}: {error}"));
    let host = match config.get_hosts() {
        [Host::Tcp(host)] => host.clone(),
        others => panic!("{VARIABLE} has to name one host, not {others:?}"),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    (host, port, config.get_user().unwrap_or("gpadmin").to_owned())
}

/// Puts its address where the lab's target stood.
pub(crate) fn instead_of_target(lab: &mut HashMap<String, String>) {
    let Ok(url) = env::var(VARIABLE) else {
        eprintln!("{VARIABLE} is not set: the target of these tests is PostgreSQL alone");
        return;
    };
    let (host, port, admin) = address(&url);
    let mut client = Client::connect(&format!("host={host} port={port} user={admin} dbname=postgres"), NoTls)
        .unwrap_or_else(|error| panic!("{VARIABLE}: {error:?}"));
    let version: String = client.query_one("SELECT version()", &[]).unwrap().get(0);
    assert!(version.contains("Greenplum"), "{VARIABLE} is {version}");
    eprintln!("the target of these tests is {version}");
    if client.query_opt("SELECT 1 FROM pg_roles WHERE rolname = 'loader'", &[]).unwrap().is_none() {
        client.batch_execute("CREATE ROLE loader LOGIN").unwrap();
    }
    let may = "SELECT 1 FROM pg_roles WHERE rolname = 'loader' AND rolcreaterextgpfd";
    if client.query_opt(may, &[]).unwrap().is_none() {
        client.batch_execute("ALTER ROLE loader CREATEEXTTABLE").unwrap();
    }
    if forced_loader().is_some_and(|loader| takes_a_superuser(&loader)) {
        lab.insert("LAB_TARGET_USER".to_owned(), admin.clone());
    }
    for (key, value) in
        [("LAB_TARGET_SOCKET", host), ("LAB_TARGET_PORT", port.to_string()), ("LAB_TARGET_ADMIN", admin)]
    {
        lab.insert(key.to_owned(), value);
    }
}

/// Drops a test's database there, with whatever still looks at it. What the lab started itself goes with the lab.
pub(crate) fn drop_database(name: &str) {
    if !is_target() {
        return;
    }
    let Ok(mut admin) = Side::Target.open("postgres") else { return };
    let others = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    for _ in 0..50 {
        let _ = admin.batch_execute(&others);
        if admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name}")).is_ok() {
            return;
        }
    }
    eprintln!("the database {name} stays on the Greenplum of {VARIABLE}");
}
