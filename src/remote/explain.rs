//! What an ending means, what leads there and what to try: in one place, which errors and `gpferry explain` read.

use super::ending::signal_number;
use super::{Cause, Ending, Status};

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
