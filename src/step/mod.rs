//! The steps a unit takes: checked, exported, loaded. Each takes the proof of the one before.
//!
//! A unit that fails is data, not an error that ends the run: [`UnitFailure`] goes to the ledger and the report,
//! and the others go on.

pub mod argv;
mod bounds;
pub mod check;
pub mod compare;
pub mod export;
pub mod load;
pub mod preflight;
pub mod snapshot;

use crate::gzip::GzipError;
use crate::mount::MountError;
use crate::source::SourceError;
use crate::sql;
use crate::target::{Kind, LogRow, TargetError};

/// Where a unit failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before anything was exported.
    Check,
    /// On the source host.
    Export,
    /// On the way into the target.
    Load,
}

impl Stage {
    /// The word in the ledger and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Check => "check",
            Stage::Export => "export",
            Stage::Load => "load",
        }
    }
}

/// Why a unit failed, and what to try.
#[derive(Debug, Clone)]
pub struct UnitFailure {
    /// Where.
    pub stage: Stage,
    /// What failed, on what. Never with cell values.
    pub error: String,
    /// What to try.
    pub remedy: String,
    /// Can the same thing succeed a moment later?
    pub can_retry: bool,
    /// The target's own code for it.
    pub sqlstate: Option<String>,
    /// Is it the unit's own fault, and no trouble that others share? Then it is given up after some runs.
    pub own: bool,
    /// Is the published file still good for another try at loading?
    pub file_is_good: bool,
    /// Units of the load log whose rows are among this one's: the ledger did not know of them.
    pub overlaps: Vec<LogRow>,
    /// The unique constraint that was violated.
    pub constraint: Option<String>,
    /// The line of the file at which the target refused it, as far as it says.
    pub line: Option<u64>,
    /// The first colliding keys: cell values, so shown to an operator who asks for them, and written down nowhere.
    pub keys: Vec<(Kind, String)>,
    /// Is it that rows do not fit their columns?
    pub misfit: bool,
    /// Does the error tell which keys collide, and how?
    pub told: bool,
}

impl UnitFailure {
    /// A failure that no retry helps.
    pub fn new(stage: Stage, error: impl ToString, remedy: impl Into<String>) -> Self {
        Self {
            stage,
            error: error.to_string(),
            remedy: remedy.into(),
            can_retry: false,
            sqlstate: None,
            own: true,
            file_is_good: false,
            overlaps: Vec::new(),
            constraint: None,
            line: None,
            keys: Vec::new(),
            misfit: false,
            told: false,
        }
    }

    /// Did somebody cancel it? After a stop, that was us.
    pub fn cancelled(&self) -> bool {
        self.sqlstate.as_deref().is_some_and(sql::is_cancelled)
    }

    /// Something went wrong on the source host.
    pub fn of_source(stage: Stage, error: &SourceError) -> Self {
        let own = error.is_units_own();
        Self { can_retry: error.can_retry(), own, ..Self::new(stage, error, error.remedy()) }
    }

    /// The target refused.
    pub fn of_target(stage: Stage, error: &TargetError) -> Self {
        let can_retry = error.can_retry();
        let constraint = error.violated_key().map(str::to_owned);
        let line = error.line();
        let file_is_good = !error.blames_rows();
        let (own, misfit) = (error.is_units_own(), error.is_misfit());
        let sqlstate = error.sqlstate().map(str::to_owned);
        Self {
            can_retry,
            own,
            sqlstate,
            file_is_good,
            constraint,
            line,
            misfit,
            ..Self::new(stage, error, error.remedy())
        }
    }

    /// The mount, or a file on it, is not as it should be.
    pub fn of_mount(stage: Stage, error: &MountError) -> Self {
        Self { own: false, ..Self::new(stage, error, error.remedy()) }
    }

    /// A published file is damaged.
    pub fn of_file(error: &GzipError) -> Self {
        Self::new(
            Stage::Load,
            error,
            "run again: the unit is exported afresh. If it comes back, look for something that writes or copies \
             below the mount, and for errors of its server",
        )
    }
}
