//! The exit codes of gpferry: an interface for cron and monitors, so never renumbered.

use std::fmt;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, nothing failed.
    Done = 0,
    /// Unforeseen: a bug worth reporting.
    Unforeseen = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Some units failed; the same command resumes them.
    UnitsFailed = 3,
    /// Both sides were read, and they differ.
    Differ = 4,
    /// The inventory is invalid.
    Inventory = 10,
    /// Another process holds the job.
    JobHeld = 11,
    /// No source host could be reached.
    Unreachable = 12,
    /// Preflight found what must be mended first.
    Preflight = 13,
    /// The target is unreachable or refuses.
    Target = 14,
    /// The ledger is unusable.
    Ledger = 15,
    /// Interrupted (SIGINT), after an orderly stop.
    Interrupted = 130,
    /// Terminated (SIGTERM), after an orderly stop.
    Terminated = 143,
}

impl Exit {
    /// Every one, in the order of their numbers: for the help text and the README.
    pub const ALL: [Exit; 13] = [
        Exit::Done,
        Exit::Unforeseen,
        Exit::Usage,
        Exit::UnitsFailed,
        Exit::Differ,
        Exit::Inventory,
        Exit::JobHeld,
        Exit::Unreachable,
        Exit::Preflight,
        Exit::Target,
        Exit::Ledger,
        Exit::Interrupted,
        Exit::Terminated,
    ];

    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What it means, in a few words.
    pub fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "done, nothing failed",
            Exit::Unforeseen => "unforeseen: a bug worth reporting",
            Exit::Usage => "usage",
            Exit::UnitsFailed => "some units failed; the same command resumes them",
            Exit::Differ => "both sides were read, and they differ",
            Exit::Inventory => "inventory invalid",
            Exit::JobHeld => "another process holds the job",
            Exit::Unreachable => "no source host could be reached",
            Exit::Preflight => "preflight found what must be mended first",
            Exit::Target => "target unreachable or refusing",
            Exit::Ledger => "ledger unusable",
            Exit::Interrupted => "interrupted, after an orderly stop",
            Exit::Terminated => "terminated, after an orderly stop",
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>3}  {}", self.code(), self.meaning())
    }
}
