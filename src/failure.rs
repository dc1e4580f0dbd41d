//! What ends a run: one type, its exit code and its remedy decided in the same place.

use thiserror::Error;

use crate::catalog::CatalogError;
use crate::exit::Exit;
use crate::inventory::InventoryError;
use crate::ledger::LedgerError;
use crate::mount::MountError;
use crate::remote::RemoteError;
use crate::source::SourceError;
use crate::step::preflight::Check;
use crate::target::TargetError;

/// Why a command could not do its work at all. A unit that failed is not one of these.
#[derive(Debug, Error)]
pub enum Failure {
    /// The inventory is invalid, or cannot be read.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// A database that holds jobs could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The ledger is unusable, or another process holds a job.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The target is unreachable or refuses.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The runner cannot use the mount.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A host could not be asked.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A source without which the command makes no sense could not be asked.
    #[error("source {name}: {error}")]
    Source {
        /// Its name.
        name: String,
        /// What went wrong.
        error: SourceError,
    },
    /// What a run looked at before it started must be mended first. Never empty.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  and "))]
    Preflight(Vec<Check>),
    /// Something on the command line does not fit the inventory.
    #[error("{what}")]
    Usage {
        /// What does not fit.
        what: String,
        /// What to try.
        remedy: String,
    },
    /// What nobody foresaw: stdout or a signal handler of this machine that cannot be used.
    #[error("{0:#}")]
    Unforeseen(#[from] anyhow::Error),
}

impl Failure {
    /// A source that could not be asked.
    pub fn source(name: &str, error: SourceError) -> Self {
        Self::Source { name: name.to_owned(), error }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Catalog(CatalogError::Stopped { exit, .. }) => *exit,
            // Without its jobs there is no inventory.
            Self::Inventory(_) | Self::Catalog(_) => Exit::Inventory,
            Self::Ledger(LedgerError::JobHeld { .. }) => Exit::JobHeld,
            Self::Ledger(_) => Exit::Ledger,
            Self::Target(_) => Exit::Target,
            Self::Mount(_) | Self::Preflight(_) => Exit::Preflight,
            Self::Remote(_) => Exit::Unreachable,
            Self::Source { error, .. } if error.is_unreachable() => Exit::Unreachable,
            Self::Source { .. } => Exit::Preflight,
            Self::Usage { .. } => Exit::Usage,
            Self::Unforeseen(_) => Exit::Unforeseen,
        }
    }

    /// What to try; `None` where the message says it all.
    pub fn remedy(&self) -> Option<String> {
        match self {
            // Every fault of an inventory carries its own.
            Self::Inventory(_) => None,
            Self::Catalog(error) => Some(error.remedy()),
            Self::Ledger(error) => Some(error.remedy()),
            Self::Target(error) => Some(error.remedy()),
            Self::Mount(error) => Some(error.remedy()),
            Self::Remote(error) => Some(error.remedy()),
            Self::Source { error, .. } => Some(error.remedy()),
            Self::Preflight(checks) => {
                let remedies: Vec<&str> = checks.iter().filter_map(|check| check.remedy.as_deref()).collect();
                Some(format!("{} (--no-preflight starts all the same)", remedies.join("; ")))
            }
            Self::Usage { remedy, .. } => Some(remedy.clone()),
            Self::Unforeseen(_) => None,
        }
    }
}
