//! How a command on a host can end: a typed value for every ending, with what it means and what to try.
//!
//! One function, [`Ending::explanation`], holds the words; errors and `gpferry explain` both read them there.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use super::{Cause, Status};

/// How a command on a host ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Exit code 0. Over SSH, whoever needs certainty asks for a trailer as well (see [`Status::Exited`]).
    Success,
    /// Exit code 1, or 2 where stderr says more; stderr decides what it was.
    General(Cause),
    /// Exit code 2: a shell builtin was misused.
    Misuse,
    /// Exit code 2 of psql, which said that it lost its server.
    DatabaseLost,
    /// 3–125 and 193–254: the script's own code.
    Script(u8),
    /// 126: found, but not executable.
    NotExecutable,
    /// 127: not found.
    NotFound,
    /// 128: an invalid argument to `exit`.
    InvalidExit,
    /// 129–192: the shell says that a signal killed the command.
    Signalled {
        /// The signal.
        number: u8,
        /// Its name, with SIG.
        name: &'static str,
    },
    /// 255 and above: out of the range of exit codes. Never "unreachable".
    OutOfRange(u32),
    /// The server itself named the signal.
    ServerSignal {
        /// Its name, without SIG.
        name: String,
    },
    /// No status came: nobody knows whether the command finished.
    Lost,
    /// gpferry stopped it.
    TimedOut {
        /// After how long.
        after: Duration,
    },
}

/// What an ending means, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// In a few words.
    pub title: String,
    /// In a sentence.
    pub meaning: String,
    /// What usually leads there.
    pub causes: Vec<String>,
    /// What to try.
    pub remedies: Vec<String>,
}

/// What a remote exit code means and what to try: `gpferry explain N`.
pub fn explain(code: u32) -> Explanation {
    Ending::of(&Status::Exited(code), "").explanation()
}

impl Ending {
    /// Reads an ending out of a status and what the command wrote to stderr.
    pub fn of(status: &Status, stderr: &str) -> Self {
        match status {
            Status::Exited(code) => Self::of_code(*code, stderr),
            Status::Signalled(name) => Self::ServerSignal { name: name.clone() },
            Status::Unknown => Self::Lost,
        }
    }

    fn of_code(code: u32, stderr: &str) -> Self {
        let Ok(short) = u8::try_from(code) else { return Self::OutOfRange(code) };
        match short {
            0 => Self::Success,
            1 => Self::General(Cause::from_text(stderr, None)),
            2 => Self::of_two(stderr),
            3..=125 | 193..=254 => Self::Script(short),
            126 => Self::NotExecutable,
            127 => Self::NotFound,
            128 => Self::InvalidExit,
            129..=192 => {
                let number = short - 128;
                Self::Signalled { number, name: signal_name(number) }
            }
            255 => Self::OutOfRange(code),
        }
    }

    /// 2 is "misuse" to a shell, "connection lost or never made" to psql, and a plain error to `ls` and `tar`.
    fn of_two(stderr: &str) -> Self {
        match Cause::from_text(stderr, None) {
            Cause::DatabaseLost => Self::DatabaseLost,
            Cause::Unknown => Self::Misuse,
            cause @ (Cause::PermissionDenied { .. }
            | Cause::NoSuchFile
            | Cause::NoSpace
            | Cause::Quota
            | Cause::StaleHandle
            | Cause::ReadOnly
            | Cause::DatabaseRefused
            | Cause::DatabaseAuthentication
            | Cause::DatabaseError { .. }) => Self::General(cause),
        }
    }

    /// Can the same command succeed a little later, with nobody doing anything?
    pub fn can_retry(&self) -> bool {
        match self {
            Self::General(cause) => cause.can_retry(),
            Self::DatabaseLost
            | Self::Signalled { .. }
            | Self::ServerSignal { .. }
            | Self::Lost
            | Self::TimedOut { .. } => true,
            // A script may use any code for anything, also for what passes.
            Self::Script(_) | Self::OutOfRange(_) => true,
            Self::Success | Self::Misuse | Self::NotExecutable | Self::NotFound | Self::InvalidExit => false,
        }
    }

    /// What to try.
    pub fn remedy(&self) -> String {
        self.explanation().remedies.join("; ")
    }

    /// What it means, what leads there and what to try.
    pub fn explanation(&self) -> Explanation {
        match self {
            Self::Success => text(self, "The command says that it did what it was asked.", &[], &[]),
            Self::General(cause) => general(self, cause),
            Self::Misuse => text(
                self,
                "A shell builtin was misused or a script has a syntax error; `ls`, `grep` and `tar` use 2 for trouble \
                 of any kind; psql for a connection that it lost or never got (then stderr says so).",
                &[
                    "a script written for another shell",
                    "a missing or wrong option",
                    "a database that went away",
                ],
                &["run `bash -n` on the script", "read the last lines of stderr"],
            ),
            Self::DatabaseLost => text(
                self,
                "psql lost its server in the middle of its work.",
                &["the database restarted", "an administrator ended the session", "a network that broke"],
                &[&Cause::DatabaseLost.remedy()],
            ),
            Self::Script(_) => text(
                self,
                "The script's own code; what it means is written in that script.",
                &["a check of the script failed"],
                &[
                    "look the code up in the script (`grep -n 'exit N'`)",
                    "if it means success there, add it to `script.ok`",
                ],
            ),
            Self::NotExecutable => text(
                self,
                "The command was found but could not be executed.",
                &[
                    "the file has no x bit",
                    "its file system is mounted noexec",
                    "its first line names an interpreter that cannot run",
                    "it is a binary for another machine",
                ],
                &["`chmod +x` it", "check `mount | grep noexec`", "check its first line and `file` on it"],
            ),
            Self::NotFound => text(
                self,
                "The command, its interpreter or a library of it was not found.",
                &[
                    "it is not installed",
                    "a login without terminal reads other startup files, so PATH is shorter",
                    "the script has Windows line ends (`bash\\r`)",
                ],
                &[
                    "give the full path, or set PATH where non-interactive shells read it (~/.bashrc, before its \
                     test for interactive)",
                    "run `ldd` on it",
                ],
            ),
            Self::InvalidExit => text(
                self,
                "`exit` was called with something that is not a number.",
                &["an empty or unset variable after `exit`"],
                &["look for `exit $…` in the script"],
            ),
            Self::Signalled { number, .. } => signalled(self, *number),
            Self::OutOfRange(_) => text(
                self,
                "A code out of the range of exit codes: the command ended with -1, or `ssh` itself was run by the \
                 script and failed. It does not mean that this host was unreachable.",
                &[
                    "`exit -1` or `return -1`",
                    "a program that returns -1",
                    "an `ssh` or `scp` inside the script",
                ],
                &["read the last lines of stderr", "look for a nested ssh or for `exit -1` in the script"],
            ),
            Self::ServerSignal { name } => signalled(self, signal_number(name)),
            Self::Lost => text(
                self,
                "The connection went away before a status came: nobody knows whether the command finished.",
                &[
                    "the network broke",
                    "the host or its sshd restarted",
                    "sshd closed the channel (ChannelTimeout)",
                ],
                &["run again: what was finished is recognised", "read the log of sshd on that host"],
            ),
            Self::TimedOut { .. } => text(
                self,
                "gpferry stopped the command because its time was over.",
                &["more rows than the limit allows for", "a lock in the database", "a mount that hangs"],
                &["raise `export.timeout` or make the windows shorter", "look for locks in the database"],
            ),
        }
    }
}

fn text(ending: &Ending, meaning: &str, causes: &[&str], remedies: &[&str]) -> Explanation {
    Explanation {
        title: ending.to_string(),
        meaning: meaning.into(),
        causes: causes.iter().map(ToString::to_string).collect(),
        remedies: remedies.iter().map(ToString::to_string).collect(),
    }
}

/// Exit code 1: one cause where it is known, all of them where it is not.
fn general(ending: &Ending, cause: &Cause) -> Explanation {
    if *cause != Cause::Unknown {
        return text(
            ending,
            "A general error; stderr says which.",
            &[&cause.to_string()],
            &[&cause.remedy()],
        );
    }
    let usual = [
        Cause::PermissionDenied { process: None, owner: None },
        Cause::NoSuchFile,
        Cause::NoSpace,
        Cause::Quota,
        Cause::StaleHandle,
        Cause::ReadOnly,
        Cause::DatabaseRefused,
        Cause::DatabaseAuthentication,
        Cause::DatabaseError { sqlstate: None },
    ];
    Explanation {
        title: ending.to_string(),
        meaning: "A general error; stderr decides further.".into(),
        causes: usual.iter().map(ToString::to_string).collect(),
        remedies: std::iter::once(cause.remedy())
            .chain(usual.iter().map(|cause| format!("{cause}: {}", cause.remedy())))
            .collect(),
    }
}

/// A signal, however we heard of it.
fn signalled(ending: &Ending, number: u8) -> Explanation {
    let (meaning, causes, remedies): (&str, &[&str], &[&str]) = match number {
        1 => ("The terminal or session went away.", &["the connection of a parent closed"], &["run again"]),
        2 => (
            "It was interrupted.",
            &["Ctrl+C", "gpferry's own stop, which begins with SIGINT"],
            &["run again; nothing of it was published"],
        ),
        9 => (
            "It was killed without being asked.",
            &["the kernel's OOM killer", "an administrator", "a job that did not end on SIGTERM"],
            &["look for `Out of memory` in `dmesg` on that host", "give it less to do at once (`sessions`)"],
        ),
        13 => (
            "It wrote into a pipe that nobody read any more.",
            &["a later command of the pipe died first", "the reader stopped"],
            &["look for the first error in stderr, which is the cause"],
        ),
        15 => (
            "It was asked to end.",
            &["a shutdown of the host", "an administrator", "a timeout"],
            &["run again"],
        ),
        4 | 6 | 7 | 8 | 11 | 31 => (
            "The program crashed.",
            &["a bug in it", "a binary for another processor", "broken memory or disk"],
            &["look for a core dump and at `dmesg` on that host", "try another compressor or client version"],
        ),
        24 | 25 => (
            "It ran into a limit of its account.",
            &["`ulimit -t` or `ulimit -f`"],
            &["look at `ulimit -a` and /etc/security/limits.conf on that host"],
        ),
        _ => (
            "A signal ended it.",
            &["another process sent it"],
            &["read the last lines of stderr; run again"],
        ),
    };
    text(ending, meaning, causes, remedies)
}

/// Signals 1 to 31 by their numbers on Linux (signal(7), x86 and ARM).
const SIGNALS: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// The name of a signal, with SIG.
pub(super) fn signal_name(number: u8) -> &'static str {
    usize::from(number).checked_sub(1).and_then(|at| SIGNALS.get(at)).copied().unwrap_or("a real-time signal")
}

/// The number of a signal named without SIG, or 0.
fn signal_number(name: &str) -> u8 {
    let at = SIGNALS.iter().position(|signal| signal.strip_prefix("SIG") == Some(name));
    at.and_then(|at| u8::try_from(at + 1).ok()).unwrap_or(0)
}

/// What happened, in a few words.
impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("success"),
            Self::General(cause) => cause.fmt(f),
            Self::Misuse => f.write_str("exit code 2: misuse of a shell builtin"),
            Self::DatabaseLost => f.write_str("exit code 2: psql lost its server"),
            Self::Script(code) => write!(f, "exit code {code}: the script's own"),
            Self::NotExecutable => f.write_str("exit code 126: found, but not executable"),
            Self::NotFound => f.write_str("exit code 127: command, interpreter or library not found"),
            Self::InvalidExit => f.write_str("exit code 128: invalid argument to exit"),
            Self::Signalled { number, name } => write!(f, "exit code {}: killed by {name}", 128 + number),
            Self::OutOfRange(code) => write!(f, "exit code {code}: out of range"),
            Self::ServerSignal { name } => write!(f, "killed by SIG{name}"),
            Self::Lost => f.write_str("connection lost before a status came"),
            Self::TimedOut { after } => write!(f, "stopped after {:.2} s", after.as_secs_f64()),
        }
    }
}

/// How many lines of stderr an error keeps.
const TAIL: usize = 10;

/// A command ran on a host and did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} on `{host}`: {ending}{}", indented(stderr_tail))]
pub struct CommandFailed {
    /// The host, as the inventory writes it.
    pub host: String,
    /// What was run, in our words.
    pub what: String,
    /// How it ended.
    pub ending: Ending,
    /// The last lines of its stderr.
    pub stderr_tail: Vec<String>,
}

impl CommandFailed {
    /// Keeps the last lines of `stderr`, without control characters: a terminal must not obey them.
    pub fn new(host: &str, what: &str, ending: Ending, stderr: &str) -> Self {
        let lines: Vec<&str> = stderr.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let clean = |line: &&str| line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let stderr_tail = lines[lines.len().saturating_sub(TAIL)..].iter().map(clean).collect();
        Self { host: host.into(), what: what.into(), ending, stderr_tail }
    }

    /// Can the same command succeed a little later?
    pub fn can_retry(&self) -> bool {
        self.ending.can_retry()
    }

    /// What to try.
    pub fn remedy(&self) -> String {
        self.ending.remedy()
    }
}

fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n    {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u32, stderr: &str) -> Ending {
        Ending::of(&Status::Exited(code), stderr)
    }

    #[test]
    fn every_code_has_the_ending_of_its_row() {
        assert_eq!(of(0, "warning: Permission denied"), Ending::Success);
        assert_eq!(of(1, "No space left on device"), Ending::General(Cause::NoSpace));
        assert_eq!(of(2, "sh: syntax error"), Ending::Misuse);
        assert_eq!(of(2, "server closed the connection unexpectedly"), Ending::DatabaseLost);
        assert_eq!(of(2, "psql: could not connect to server"), Ending::General(Cause::DatabaseRefused));
        assert_eq!(of(99, ""), Ending::Script(99));
        assert_eq!((of(126, ""), of(127, "")), (Ending::NotExecutable, Ending::NotFound));
        assert_eq!(of(128, ""), Ending::InvalidExit);
        for (code, name) in [(130, "SIGINT"), (137, "SIGKILL"), (141, "SIGPIPE"), (143, "SIGTERM")] {
            assert_eq!(of(code, ""), Ending::Signalled { number: u8::try_from(code - 128).unwrap(), name });
        }
        assert_eq!((of(255, ""), of(256, "")), (Ending::OutOfRange(255), Ending::OutOfRange(256)));
        assert_eq!(Ending::of(&Status::Unknown, ""), Ending::Lost);
        let killed = Ending::of(&Status::Signalled("KILL".into()), "");
        assert!(killed.remedy().contains("Out of memory"), "{}", killed.remedy());
    }

    #[test]
    fn explain_and_the_remedy_of_an_error_say_the_same() {
        for code in 0..=255 {
            let explanation = explain(code);
            assert!(!explanation.meaning.is_empty(), "{code}");
            assert_eq!(explanation.remedies.is_empty(), code == 0, "{code}: {explanation:?}");
            assert_eq!(of(code, "").remedy(), explanation.remedies.join("; "));
        }
    }

    #[test]
    fn a_remote_255_is_never_called_unreachable() {
        let ending = of(255, "");
        assert!(!ending.to_string().contains("reach"), "{ending}");
        assert!(explain(255).meaning.contains("does not mean"), "{}", explain(255).meaning);
    }

    #[test]
    fn a_failure_says_what_where_and_how_with_the_last_lines() {
        let noise: String = (0..40).map(|n| format!("line {n}\n")).collect();
        let failed =
            CommandFailed::new("gp4-etl", "the export", of(127, ""), &(noise + "sh: \x1b[2Jpsql: no\n\n"));
        let shown = failed.to_string();
        assert!(shown.starts_with("the export on `gp4-etl`: exit code 127"), "{shown}");
        assert!(shown.ends_with("sh:  [2Jpsql: no"), "{shown}");
        assert_eq!(failed.stderr_tail.len(), TAIL);
        assert!(!failed.can_retry());
    }
}
