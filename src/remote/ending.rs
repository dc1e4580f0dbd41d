//! How a command on a host can end: a typed value for every ending, with what it means and what to try.
//!
//! The words for a person are in [`super::explain()`].

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
            | Cause::NoClient
            | Cause::NoSuchDatabase
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
pub(super) fn signal_number(name: &str) -> u8 {
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
    use crate::remote::explain;

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
