//! What every run has done so far, and so what is left to do. Embedded SQLite.
//!
//! A row is written *after* the fact it records is on disk or committed, never before, so the ledger may lag
//! behind but never runs ahead. The target's load log is the truth; this is the memory of how we got there. It
//! may be deleted, and nothing is loaded twice. It stands on a local disk, never on the mount: SQLite's locks
//! lie over NFS.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use thiserror::Error;

use crate::mount::Exported;
use crate::unit::UnitKey;

mod again;
pub mod alarms;
pub mod compared;
mod coverage;
pub mod history;
pub mod job_runs;
pub mod lock;
#[cfg(test)]
mod memory_tests;
pub mod overview;
mod owed;
pub mod prune;
mod record;
pub mod remains;
mod schema;
pub mod status;
#[cfg(test)]
mod tests;

pub use record::Logged;

/// The ledger's file, open.
#[derive(Debug)]
pub struct Ledger {
    connection: Connection,
    path: PathBuf,
}

/// Why the ledger cannot be used.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The file is damaged, or no ledger at all.
    #[error("ledger {} cannot be read: {why}", .path.display())]
    Corrupt {
        /// Its file.
        path: PathBuf,
        /// SQLite's own words.
        why: String,
    },
    /// SQLite refused.
    #[error("ledger {}: {error}", .path.display())]
    Sqlite {
        /// Its file.
        path: PathBuf,
        /// SQLite's own words.
        error: rusqlite::Error,
    },
    /// The file or its directory cannot be made.
    #[error("ledger {}: {error}", .path.display())]
    Io {
        /// Its file.
        path: PathBuf,
        /// The system's own words.
        error: std::io::Error,
    },
    /// A newer gpferry wrote it.
    #[error("ledger {} has version {found}, this gpferry knows up to {known}", .path.display())]
    Newer {
        /// Its file.
        path: PathBuf,
        /// Version in the file.
        found: i64,
        /// Newest version that is understood.
        known: i64,
    },
    /// Another process holds a job.
    #[error("job {job} is held by {holder}")]
    JobHeld {
        /// The job.
        job: String,
        /// Who holds it: host, pid, since when.
        holder: String,
    },
}

impl LedgerError {
    /// Sorts an error of SQLite.
    fn of(path: &Path, error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => {
                Self::Corrupt { path: path.to_owned(), why: error.to_string() }
            }
            Some(_) | None => Self::Sqlite { path: path.to_owned(), error },
        }
    }

    /// What to try.
    pub fn remedy(&self) -> String {
        match self {
            Self::Sqlite { path, .. } => format!(
                "check that {} is on a local disk with room, and is a ledger; moved aside, it is begun anew \
                 (the load log in the target keeps anything from being loaded twice)",
                path.display()
            ),
            Self::Corrupt { path, .. } => format!(
                "`gpferry rebuild-ledger` moves {} aside and makes a new one from the load log in the target, so that \
                 nothing is loaded twice; what is lost is the history",
                path.display()
            ),
            Self::Io { .. } => "give another place with --ledger or GPFERRY_LEDGER".into(),
            Self::Newer { .. } => "use the newer gpferry, or another ledger with --ledger".into(),
            Self::JobHeld { .. } => "wait for it to end, or stop that process; its lock goes with it".into(),
        }
    }
}

/// Where a unit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its export was begun.
    Exporting,
    /// Its file is published.
    Exported,
    /// Its load was begun.
    Loading,
    /// Its rows are in the target.
    Loaded,
    /// It was given up, for this run.
    Failed,
    /// Nothing is left to do for it: its rows are moved by units of other bounds.
    Replaced,
}

impl State {
    /// The word in the ledger and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            State::Exporting => "exporting",
            State::Exported => "exported",
            State::Loading => "loading",
            State::Loaded => "loaded",
            State::Failed => "failed",
            State::Replaced => "replaced",
        }
    }
}

/// Everything the ledger keeps of one attempt at one unit, as far as it got.
#[derive(Debug, Clone)]
pub struct Record {
    /// Which attempt within this run, from 1.
    pub attempt: u32,
    /// Where it stands.
    pub state: State,
    /// When the attempt began.
    pub started_at: Timestamp,
    /// The published file.
    pub exported: Option<Arc<Exported>>,
    /// Rows that are in the target.
    pub rows_loaded: Option<u64>,
    /// Rows that were kept out of it and are written down.
    pub rows_rejected: Option<u64>,
    /// How long the export took, in seconds.
    pub export_seconds: Option<f64>,
    /// How long the load took, in seconds.
    pub load_seconds: Option<f64>,
    /// The stage that failed, what failed, and what to try.
    pub failure: Option<Box<RecordedFailure>>,
}

/// A failure as the ledger keeps it: never with cell values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedFailure {
    /// `check`, `export` or `load`.
    pub stage: &'static str,
    /// What failed, on what.
    pub error: String,
    /// What to try.
    pub remedy: String,
    /// Was the unit given up by its own fault? Then it is tried again by as many runs as its `retries` say. What
    /// a host or a target that is down did to it does not count.
    pub counts: bool,
}

/// A run, as the ledger keeps it.
#[derive(Debug, Clone)]
pub struct Run {
    /// Unique: start time and a few random digits.
    pub id: String,
    /// `run`, `export`, `load`, `repair`.
    pub command: String,
    /// The inventory's path.
    pub inventory: String,
    /// The target, as [`crate::target::Address::shown`] names it.
    pub target_url: String,
    /// When it began.
    pub started_at: Timestamp,
}

impl Run {
    /// Does it move units again that are loaded?
    pub fn is_repair(&self) -> bool {
        self.command == "repair"
    }
}

impl Ledger {
    /// Opens a ledger, making it (0600) where there is none, and brings it to the newest version.
    ///
    /// # Errors
    /// [`LedgerError`]: a place that cannot be written, a file that is no ledger, one of a newer gpferry.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let io = |error| LedgerError::Io { path: path.to_owned(), error };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
        }
        OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(io)?;
        let sqlite = |error| LedgerError::of(path, error);
        let connection = Connection::open(path).map_err(sqlite)?;
        connection.busy_timeout(Duration::from_secs(30)).map_err(sqlite)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -512;",
            )
            .map_err(sqlite)?;
        let mut ledger = Self { connection, path: path.to_owned() };
        ledger.migrate()?;
        ledger.check()?;
        Ok(ledger)
    }

    /// Is the file whole? A large one is not read whole every time: damage there shows where it is met.
    fn check(&self) -> Result<(), LedgerError> {
        const SMALL: u64 = 16 << 20;
        if fs::metadata(&self.path).is_ok_and(|file| file.len() > SMALL) {
            return Ok(());
        }
        let said: String = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|error| self.error(error))?;
        match said.as_str() {
            "ok" => Ok(()),
            _ => Err(LedgerError::Corrupt { path: self.path.clone(), why: said.replace('\n', " ") }),
        }
    }

    /// One in memory, for what is known only for a moment.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn scratch() -> Result<Self, LedgerError> {
        let path = PathBuf::from(":memory:");
        let connection = Connection::open_in_memory().map_err(|error| LedgerError::of(&path, error))?;
        let mut ledger = Self { connection, path };
        ledger.migrate()?;
        Ok(ledger)
    }

    fn migrate(&mut self) -> Result<(), LedgerError> {
        let known = schema::STEPS.len();
        let path = self.path.clone();
        let sqlite = |error| LedgerError::of(&path, error);
        let transaction = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(sqlite)?;
        let found: i64 =
            transaction.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sqlite)?;
        let at = usize::try_from(found).ok().filter(|&at| at <= known).ok_or_else(|| LedgerError::Newer {
            path: path.clone(),
            found,
            known: i64::try_from(known).unwrap_or(i64::MAX),
        })?;
        for step in &schema::STEPS[at..] {
            transaction.execute_batch(step.sql).and_then(|()| (step.then)(&transaction)).map_err(sqlite)?;
        }
        transaction.execute_batch(&format!("PRAGMA user_version = {known}")).map_err(sqlite)?;
        transaction.commit().map_err(sqlite)
    }

    /// Closes the file, with everything in it: no `-wal` is left beside it.
    ///
    /// # Errors
    /// [`LedgerError`] where that does not succeed.
    pub fn close(self) -> Result<(), LedgerError> {
        let path = self.path;
        self.connection.close().map_err(|(_, error)| LedgerError::of(&path, error))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, error: rusqlite::Error) -> LedgerError {
        LedgerError::of(&self.path, error)
    }

    /// Writes down that a run began.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn begin_run(&self, run: &Run) -> Result<(), LedgerError> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.connection
            .execute(
                "INSERT INTO run (id, command, host, pid, inventory, started_at, target_url)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
                params![
                    run.id,
                    run.command,
                    host,
                    std::process::id(),
                    run.inventory,
                    run.started_at.to_string(),
                    run.target_url,
                ],
            )
            .map(drop)
            .map_err(|error| self.error(error))
    }

    /// Writes down that it ended, and how.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn end_run(&self, run: &str, exit_code: u8, now: Timestamp) -> Result<(), LedgerError> {
        self.connection
            .execute(
                "UPDATE run SET ended_at = ?, exit_code = ? WHERE id = ?",
                params![now.to_string(), exit_code, run],
            )
            .map(drop)
            .map_err(|error| self.error(error))
    }

    /// The file that an earlier run published for a unit, where its rows are not known to be in the target.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn exported(&self, key: &UnitKey) -> Result<Option<Exported>, LedgerError> {
        self.connection
            .query_row(
                "SELECT exported FROM unit WHERE source = ? AND id = ? AND state <> 'loaded'",
                params![key.source, key.id],
                |row| row.get::<_, Option<String>>(0),
            )
            .optional()
            .map(|found| found.flatten().and_then(|json| serde_json::from_str(&json).ok()))
            .map_err(|error| self.error(error))
    }
}
