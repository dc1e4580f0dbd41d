//! Which runs are dead, and where they may have left something on the mount.
//!
//! A run holds a lock of its own from before it is on record until it ends, and the kernel lets go of it however
//! the run dies. So a run whose lock is free is over, even where another job of the same ledger goes on beside it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rusqlite::params;

use super::lock::{Held, hold};
use super::{Ledger, LedgerError, Run};
use crate::unit::read_id;

/// Says that a run is alive, until the value is dropped.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
    path: PathBuf,
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // One that stays is taken for a dead run's, which it is.
        let _ = fs::remove_file(&self.path);
    }
}

/// A run that is over, and not yet swept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadRun {
    /// Its id, which stands in the names of what it left.
    pub id: String,
    /// The day it began, in the inventory's zone.
    pub day: Date,
    /// It never said that it ended, so the last that it did may not be on record.
    pub crashed: bool,
    /// Sources and days of files that it was writing and did not publish, as far as it is on record.
    pub days: BTreeSet<(String, Date)>,
}

impl Ledger {
    /// Holds a run, so that nobody takes it for dead.
    ///
    /// # Errors
    /// [`LedgerError::Io`].
    pub fn hold_run(&self, run: &Run) -> Result<RunLock, LedgerError> {
        let path = run_lock_path(self.path(), &run.id);
        match hold(&path).map_err(|error| LedgerError::Io { path: path.clone(), error })? {
            Held::Ours(file) => Ok(RunLock { _file: file, path }),
            Held::Anothers(_) => Err(LedgerError::JobHeld {
                job: run.id.clone(),
                holder: "another process of the same run id".into(),
            }),
        }
    }

    /// Runs that are over and may have left something.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn dead_runs(&self, current: &Run, zone: &TimeZone) -> Result<Vec<DeadRun>, LedgerError> {
        let read = || {
            let mut statement = self
                .connection
                .prepare("SELECT id, started_at, ended_at IS NULL FROM run WHERE NOT swept AND id <> ?")?;
            let rows = statement.query_map([&current.id], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let mut dead = Vec::new();
        for (id, started_at, crashed) in read().map_err(|error| self.error(error))? {
            if crashed && self.is_alive(&id) {
                continue;
            }
            let started_at: Timestamp = started_at.parse().unwrap_or(current.started_at);
            let day = started_at.to_zoned(zone.clone()).date();
            let days = self.unpublished(&id, day).map_err(|error| self.error(error))?;
            dead.push(DeadRun { id, day, crashed, days });
        }
        Ok(dead)
    }

    /// Notes that nothing is left of a run.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn note_swept(&self, run: &str) -> Result<(), LedgerError> {
        let noted = self.connection.execute("UPDATE run SET swept = 1 WHERE id = ?", params![run]);
        noted.map_err(|error| self.error(error))?;
        let _ = fs::remove_file(run_lock_path(self.path(), run));
        Ok(())
    }

    /// Is a process at work on this run?
    pub(super) fn is_alive(&self, run: &str) -> bool {
        let path = run_lock_path(self.path(), run);
        // A lock that cannot be looked at is left alone, and so is what it stands for.
        path.exists() && !matches!(hold(&path), Ok(Held::Ours(_)))
    }

    fn unpublished(&self, run: &str, day: Date) -> rusqlite::Result<BTreeSet<(String, Date)>> {
        let mut statement = self.connection.prepare(
            "SELECT DISTINCT source, unit FROM attempt \
             WHERE run = ? AND (state = 'exporting' OR (state = 'failed' AND stage = 'export'))",
        )?;
        let rows = statement.query_map([run], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        let start = |unit: &str| Some(read_id(unit)?.extent.window()?.start().date());
        rows.map(|row| row.map(|(source, unit)| (source, start(&unit).unwrap_or(day)))).collect()
    }
}

/// `<ledger>.locks/.runs/<id>`: no job's name begins with a dot.
fn run_lock_path(ledger: &Path, run: &str) -> PathBuf {
    let mut directory = ledger.as_os_str().to_owned();
    directory.push(".locks");
    PathBuf::from(directory).join(".runs").join(run)
}
