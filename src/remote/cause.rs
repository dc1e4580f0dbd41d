//! What a message says about why something failed: the words of the kernel, of databases and of our scripts,
//! turned into a type that knows whether trying again can help and what to do.
//!
//! Messages are read in English: the bundled scripts run under `LC_ALL=C`. What is not understood is
//! [`Cause::Unknown`], and the text itself is then the best there is to show.

use std::fmt;

/// Whom a process ran as, in numbers: names can hide that one user has two UIDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's name on that host.
    pub user: String,
    /// Its number there.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Every group, the primary one included. NFS with AUTH_SYS carries the first 16 only.
    pub groups: Vec<u32>,
}

/// Whom a file or directory belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// The path as that host sees it.
    pub path: String,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its mode in octal, as `stat -c %a` prints it.
    pub mode: String,
}

/// Why something on a host, or in its database, did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The kernel refused access to a file.
    PermissionDenied {
        /// Who was refused, where the script said so.
        process: Option<Identity>,
        /// What was refused, where the script said so.
        owner: Option<Ownership>,
    },
    /// A path is not there.
    NoSuchFile,
    /// The file system is full.
    NoSpace,
    /// A quota is used up.
    Quota,
    /// An NFS handle no longer means anything to its server.
    StaleHandle,
    /// The file system is mounted read-only.
    ReadOnly,
    /// The client program (`psql`) is not on that host.
    NoClient,
    /// The server has no database of that name.
    NoSuchDatabase,
    /// The database took no connection: not running, or full.
    DatabaseRefused,
    /// The database does not let this user in.
    DatabaseAuthentication,
    /// The database answered with an error.
    DatabaseError {
        /// Its SQLSTATE, where one was said.
        sqlstate: Option<String>,
    },
    /// The connection to the database went away.
    DatabaseLost,
    /// Nothing that we know.
    Unknown,
}

/// Words of the kernel (`strerror`), in lower case.
const KERNEL: &[(&str, Cause)] = &[
    ("disk quota exceeded", Cause::Quota),
    ("no space left on device", Cause::NoSpace),
    ("stale file handle", Cause::StaleHandle),
    ("stale nfs file handle", Cause::StaleHandle),
    ("read-only file system", Cause::ReadOnly),
];

/// Words of libpq, PostgreSQL and MySQL around a connection, in lower case.
const CONNECTION: &[(&str, Cause)] = &[
    ("password authentication failed", Cause::DatabaseAuthentication),
    ("no password supplied", Cause::DatabaseAuthentication),
    ("no pg_hba.conf entry", Cause::DatabaseAuthentication),
    ("peer authentication failed", Cause::DatabaseAuthentication),
    ("ident authentication failed", Cause::DatabaseAuthentication),
    ("access denied for user", Cause::DatabaseAuthentication),
    ("server closed the connection unexpectedly", Cause::DatabaseLost),
    ("terminating connection", Cause::DatabaseLost),
    ("connection to server was lost", Cause::DatabaseLost),
    ("could not receive data from server", Cause::DatabaseLost),
    ("could not send data to server", Cause::DatabaseLost),
    ("no connection to the server", Cause::DatabaseLost),
    ("ssl connection has been closed unexpectedly", Cause::DatabaseLost),
    ("lost connection to mysql server", Cause::DatabaseLost),
    ("mysql server has gone away", Cause::DatabaseLost),
    ("could not connect to server", Cause::DatabaseRefused),
    ("connection to server at", Cause::DatabaseRefused),
    ("connection to server on socket", Cause::DatabaseRefused),
    ("could not translate host name", Cause::DatabaseRefused),
    ("can't connect to", Cause::DatabaseRefused),
    ("too many connections", Cause::DatabaseRefused),
    ("too many clients already", Cause::DatabaseRefused),
    ("remaining connection slots are reserved", Cause::DatabaseRefused),
    ("the database system is", Cause::DatabaseRefused),
];

impl Cause {
    /// Reads a message: stderr of a command, or what a script replied, with the SQLSTATE it named.
    pub fn from_text(text: &str, sqlstate: Option<&str>) -> Self {
        if let Some(state) = sqlstate.filter(|state| is_sqlstate(state)) {
            return Self::from_sqlstate(state);
        }
        let lower = text.to_lowercase();
        if lower.contains("psql: command not found") || lower.contains("psql: no such file or directory") {
            return Self::NoClient;
        }
        if lower.contains("fatal:") && lower.contains(" does not exist") {
            if lower.contains("database \"") {
                return Self::NoSuchDatabase;
            }
            return Self::DatabaseAuthentication;
        }
        let find = |table: &[(&str, Cause)]| {
            table.iter().find(|(words, _)| lower.contains(words)).map(|(_, cause)| cause.clone())
        };
        if let Some(cause) = find(KERNEL).or_else(|| find(CONNECTION)) {
            return cause;
        }
        if let Some(state) = sqlstate_in(text) {
            return Self::from_sqlstate(&state);
        }
        // `permission denied for table x` is the database speaking, not the kernel.
        let denied = lower.replace("permission denied for ", "");
        if denied.contains("permission denied") || denied.contains("operation not permitted") {
            return Self::PermissionDenied { process: process_in(text), owner: owner_in(text) };
        }
        if lower.contains("no such file or directory") || lower.contains("no such directory") {
            return Self::NoSuchFile;
        }
        if ["ERROR:  ", "ERROR: ", "FATAL:  "].iter().any(|mark| text.contains(mark)) || denied != lower {
            return Self::DatabaseError { sqlstate: None };
        }
        Self::Unknown
    }

    /// By the class of an SQLSTATE (PostgreSQL, appendix "Error Codes").
    fn from_sqlstate(state: &str) -> Self {
        match state {
            "53100" => Self::NoSpace,
            "08006" | "08003" | "57P01" | "57P02" => Self::DatabaseLost,
            "53300" | "57P03" | "08001" | "08004" => Self::DatabaseRefused,
            "3D000" => Self::NoSuchDatabase,
            state if state.starts_with("28") => Self::DatabaseAuthentication,
            state => Self::DatabaseError { sqlstate: Some(state.into()) },
        }
    }

    /// Can the same attempt succeed a little later, with nobody doing anything?
    pub fn can_retry(&self) -> bool {
        match self {
            Self::StaleHandle | Self::DatabaseRefused | Self::DatabaseLost | Self::Unknown => true,
            Self::PermissionDenied { .. }
            | Self::NoSuchFile
            | Self::NoSpace
            | Self::Quota
            | Self::ReadOnly
            | Self::NoClient
            | Self::NoSuchDatabase
            | Self::DatabaseAuthentication => false,
            // Deadlocks and serialization, resources, operator, system: the classes that pass.
            // A statement that took too long, or that somebody cancelled, would be so again.
            Self::DatabaseError { sqlstate: Some(state) } if crate::sql::is_cancelled(state) => false,
            Self::DatabaseError { sqlstate: Some(state) } => {
                ["40", "53", "57", "58", "XX"].iter().any(|class| state.starts_with(class))
            }
            Self::DatabaseError { sqlstate: None } => true,
        }
    }

    /// What to try.
    pub fn remedy(&self) -> String {
        match self {
            Self::PermissionDenied { process, owner } => permission(process.as_ref(), owner.as_ref()),
            Self::NoSuchFile => {
                "check that the mount is mounted on that host and that the path is spelled as that host sees it"
                    .into()
            }
            Self::NoSpace => {
                "free space (and inodes: `df -i`) on the file system, or move fewer units at once".into()
            }
            Self::Quota => "raise the quota of the user on that file system, or free what it holds".into(),
            Self::StaleHandle => "mount the file system again on that host (`umount -l`, then `mount`)".into(),
            Self::ReadOnly => {
                "mount the file system read-write; if it turned read-only by itself, the kernel log says why"
                    .into()
            }
            Self::NoClient => {
                "install psql on that host, or say where it is: `connection: { psql: /path/to/psql }`".into()
            }
            Self::NoSuchDatabase => {
                "correct the source's `database` in the inventory; `psql -l` on that host lists them".into()
            }
            Self::DatabaseRefused => {
                "check that the database runs, and its host, port and connection limit in `connection:`".into()
            }
            Self::DatabaseAuthentication => {
                "check the user in `connection:`, its ~/.pgpass (mode 0600) on that host, and pg_hba.conf".into()
            }
            Self::DatabaseError { sqlstate: Some(state) } if state == "42501" => {
                "grant the user what it may not do yet (SELECT on the table, USAGE on the schema)".into()
            }
            Self::DatabaseError { .. } => "the message of the database says what it refused".into(),
            Self::DatabaseLost => {
                "the log of the database says why it let go: a restart, an administrator, memory".into()
            }
            Self::Unknown => "read the last lines of stderr; they are all that is known".into(),
        }
    }
}

/// Why this process may not touch that path, and what would help.
fn permission(process: Option<&Identity>, owner: Option<&Ownership>) -> String {
    match (process, owner) {
        (Some(process), Some(owner)) if process.uid == owner.uid => format!(
            "{} (uid {}) owns {}, whose mode {} forbids it: `chmod u+rwx` it, or look for an ACL or a read-only export",
            process.user, process.uid, owner.path, owner.mode
        ),
        (Some(process), Some(owner)) if process.uid == 0 => format!(
            "root is squashed on {} (owner uid {}, mode {}): connect as the user that owns it",
            owner.path, owner.uid, owner.mode
        ),
        (Some(process), Some(owner)) if process.groups.contains(&owner.gid) => format!(
            "{} is in group {} of {}, whose mode {} does not let the group in: `chmod g+rwxs` it",
            process.user, owner.gid, owner.path, owner.mode
        ),
        (Some(process), Some(owner)) => format!(
            "{} is uid {} gid {} on that host, but {} belongs to uid {} gid {} (mode {}): give the user the same UID \
             on both hosts, or put it into group {} and `chmod g+rwxs` the directory",
            process.user, process.uid, process.gid, owner.path, owner.uid, owner.gid, owner.mode, owner.gid
        ),
        (Some(process), None) => format!(
            "compare uid {} gid {} of {} on that host with the owner that `stat` shows there",
            process.uid, process.gid, process.user
        ),
        (None, Some(owner)) => format!(
            "{} belongs to uid {} gid {} (mode {}): compare with `id` on that host",
            owner.path, owner.uid, owner.gid, owner.mode
        ),
        (None, None) => {
            "compare `id` on that host with the owner that `stat` shows there: numbers, not names".into()
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PermissionDenied { process, owner } => {
                f.write_str("permission denied")?;
                if let Some(process) = process {
                    write!(f, " to {} (uid {} gid {})", process.user, process.uid, process.gid)?;
                }
                match owner {
                    Some(at) => {
                        write!(f, " on {} (owner uid {} gid {} mode {})", at.path, at.uid, at.gid, at.mode)
                    }
                    None => Ok(()),
                }
            }
            Self::NoSuchFile => f.write_str("no such file or directory"),
            Self::NoSpace => f.write_str("no space left"),
            Self::Quota => f.write_str("disk quota exceeded"),
            Self::StaleHandle => f.write_str("stale file handle"),
            Self::ReadOnly => f.write_str("read-only file system"),
            Self::NoClient => f.write_str("no psql"),
            Self::NoSuchDatabase => f.write_str("no such database"),
            Self::DatabaseRefused => f.write_str("the database took no connection"),
            Self::DatabaseAuthentication => f.write_str("the database did not let the user in"),
            Self::DatabaseError { sqlstate: Some(state) } => write!(f, "database error {state}"),
            Self::DatabaseError { sqlstate: None } => f.write_str("database error"),
            Self::DatabaseLost => f.write_str("the connection to the database was lost"),
            Self::Unknown => f.write_str("general error"),
        }
    }
}

/// Five digits and capitals, and not "success".
fn is_sqlstate(text: &str) -> bool {
    text.len() == 5
        && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
        && text.bytes().next().is_some_and(|b| b.is_ascii_digit() || matches!(b, b'F' | b'H' | b'P' | b'X'))
        && text != "00000"
}

/// `ERROR:  42P01: …` (psql with VERBOSITY verbose) or `ERROR 1146 (42S02) at line 1: …` (mysql).
fn sqlstate_in(text: &str) -> Option<String> {
    let after = |mark: &str| text.split_once(mark).map(|(_, rest)| rest.trim_start());
    let verbose = ["ERROR:", "FATAL:", "PANIC:"].iter().find_map(|mark| after(mark)?.split(':').next());
    let mysql = || after("ERROR ")?.split_once('(')?.1.split(')').next();
    verbose.filter(|state| is_sqlstate(state)).or_else(|| mysql().filter(|s| is_sqlstate(s))).map(Into::into)
}

/// The text between `[<what> ` and `]`.
fn bracket<'a>(text: &'a str, what: &str) -> Option<&'a str> {
    text.split_once(&format!("[{what} "))?.1.split_once(']').map(|(inside, _)| inside)
}

/// The word after `<key>=`.
fn field<'a>(inside: &'a str, key: &str) -> Option<&'a str> {
    inside.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// `[process uid=540 user=user1 gid=2180 groups=2180,27]`
fn process_in(text: &str) -> Option<Identity> {
    let inside = bracket(text, "process")?;
    let groups = field(inside, "groups").unwrap_or_default();
    Some(Identity {
        user: field(inside, "user")?.into(),
        uid: field(inside, "uid")?.parse().ok()?,
        gid: field(inside, "gid")?.parse().ok()?,
        groups: groups.split(',').filter_map(|gid| gid.parse().ok()).collect(),
    })
}

/// `[owner path=/mnt/x uid=530 gid=530 mode=0755]`; the path may hold blanks.
fn owner_in(text: &str) -> Option<Ownership> {
    let inside = bracket(text, "owner")?;
    let (path, numbers) = inside.strip_prefix("path=")?.rsplit_once(" uid=")?;
    let numbers = format!("uid={numbers}");
    Some(Ownership {
        path: path.into(),
        uid: field(&numbers, "uid")?.parse().ok()?,
        gid: field(&numbers, "gid")?.parse().ok()?,
        mode: field(&numbers, "mode")?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_problem_names_both_uids() {
        let text = "dd: /mnt/my data/x: Permission denied [process uid=540 user=user1 gid=2180 groups=2180,27] \
                    [owner path=/mnt/my data uid=530 gid=531 mode=0755]";
        let cause = Cause::from_text(text, None);
        let Cause::PermissionDenied { process: Some(process), owner: Some(owner) } = &cause else {
            panic!("{cause:?}");
        };
        assert_eq!((process.uid, process.user.as_str(), process.gid), (540, "user1", 2180));
        assert_eq!(process.groups, [2180, 27]);
        assert_eq!((owner.path.as_str(), owner.uid, owner.gid), ("/mnt/my data", 530, 531));
        assert_eq!(owner.mode, "0755");
        for number in ["540", "530", "531"] {
            assert!(cause.remedy().contains(number), "{}", cause.remedy());
        }
        assert!(!cause.can_retry());
    }

    #[test]
    fn brackets_that_are_cut_off_cost_only_what_they_held() {
        let text = "x: Permission denied [process uid=540 user=u gid=7 groups=7] [owner path=/mnt/x uid=5";
        let Cause::PermissionDenied { process, owner } = Cause::from_text(text, None) else { panic!() };
        assert_eq!((process.map(|p| p.uid), owner), (Some(540), None));
    }

    #[test]
    fn messages_are_understood_as_what_they_say() {
        let state = |state: &str| Cause::DatabaseError { sqlstate: Some(state.into()) };
        for (text, sqlstate, cause) in [
            ("gzip: stdout: No space left on device", None, Cause::NoSpace),
            ("dd: closing output: Disk quota exceeded", None, Cause::Quota),
            ("ls: cannot access '/mnt': Stale NFS file handle", None, Cause::StaleHandle),
            ("touch: Read-only file system", None, Cause::ReadOnly),
            ("sh: 1: cannot open /x: No such file or directory", None, Cause::NoSuchFile),
            (
                "psql: could not connect to server: No such file or directory\n\tIs the server running",
                None,
                Cause::DatabaseRefused,
            ),
            (
                "psql: error: connection to server at \"10.0.0.3\", port 5432 failed: Connection refused",
                None,
                Cause::DatabaseRefused,
            ),
            (
                "psql: error: connection to server on socket \"x\" failed: FATAL:  Peer authentication failed for user",
                None,
                Cause::DatabaseAuthentication,
            ),
            (
                "FATAL:  terminating connection due to administrator command\nserver closed",
                None,
                Cause::DatabaseLost,
            ),
            ("ERROR:  42P01: relation \"x\" does not exist", None, state("42P01")),
            ("ERROR 1146 (42S02) at line 1: Table 'a.b' doesn't exist", None, state("42S02")),
            ("ERROR:  permission denied for table t", None, Cause::DatabaseError { sqlstate: None }),
            ("permission denied for relation t", Some("42501"), state("42501")),
            ("anything", Some("53100"), Cause::NoSpace),
            ("Permission denied", Some("-"), Cause::PermissionDenied { process: None, owner: None }),
            ("Segmentation fault", None, Cause::Unknown),
            ("", None, Cause::Unknown),
        ] {
            assert_eq!(Cause::from_text(text, sqlstate), cause, "{text:?} {sqlstate:?}");
        }
    }

    #[test]
    fn a_deadlock_is_tried_again_and_a_missing_table_is_not() {
        assert!(Cause::from_sqlstate("40P01").can_retry());
        assert!(!Cause::from_sqlstate("42P01").can_retry());
    }
}
