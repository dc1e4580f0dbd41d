//! Letting go of old history. What is loaded is never forgotten: a unit goes only where its interval is covered, and
//! the sums of `status` do not become smaller.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, TransactionBehavior, params_from_iter};

use super::coverage::at;
use super::{Ledger, LedgerError};

/// How much of the ledger is older than wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OldHistory {
    /// Units that are loaded and covered, or replaced by others.
    pub units: u64,
    /// Attempts.
    pub attempts: u64,
    /// Runs of which no attempt is left.
    pub runs: u64,
    /// Alarms that are over.
    pub alarms: u64,
    /// Differences that comparisons found and that are mended.
    pub differences: u64,
}

/// Units whose rows are remembered without them. All-or-nothing units stay: they are few, and their row is all there is.
const UNITS: &str = "FROM unit WHERE job NOT IN (SELECT value FROM temp.busy) AND (
    (state = 'replaced' AND updated_at < ?1) OR
    (state = 'loaded' AND loaded_at < ?1 AND measure NOT LIKE 'null:%' AND measure <> 'all' AND EXISTS (
        SELECT 1 FROM covered c WHERE c.target_url = unit.target_url AND c.source = unit.source
            AND c.series = unit.series AND c.measure = unit.measure AND c.first <= unit.first AND c.last >= unit.last)))";
const ATTEMPTS: &str =
    "FROM attempt WHERE started_at < ?1 AND coalesce(job, '') NOT IN (SELECT value FROM temp.busy)";
const RUNS: &str = "FROM run WHERE started_at < ?1 AND NOT EXISTS (
    SELECT 1 FROM attempt WHERE attempt.run = run.id AND NOT (attempt.started_at < ?1
        AND coalesce(attempt.job, '') NOT IN (SELECT value FROM temp.busy)))";

const ALARMS: &str = "FROM alarm WHERE over_at < ?1 AND job NOT IN (SELECT value FROM temp.busy)";

const DIFFERENCES: &str =
    "FROM difference WHERE settled_at < ?1 AND job NOT IN (SELECT value FROM temp.busy)";

/// What was told of alarms that are gone.
const ORPHANS: &str = "
DELETE FROM alarm_message WHERE alarm NOT IN (SELECT number FROM alarm);
DELETE FROM alarm_delivery WHERE message NOT IN (SELECT id FROM alarm_message)";

impl Ledger {
    /// Counts history that is older than `cut`, and removes it unless `only_look`. What belongs to the `busy` jobs
    /// stays.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing is removed then.
    pub fn prune(
        &mut self,
        cut: Timestamp,
        busy: &[String],
        only_look: bool,
    ) -> Result<OldHistory, LedgerError> {
        let path = self.path.clone();
        let mut prune = || {
            self.connection.execute_batch(
                "CREATE TEMP TABLE IF NOT EXISTS busy (value TEXT PRIMARY KEY); DELETE FROM temp.busy",
            )?;
            for job in busy {
                self.connection.execute("INSERT OR IGNORE INTO temp.busy VALUES (?)", [job])?;
            }
            let transaction = self.connection.transaction_with_behavior(if only_look {
                TransactionBehavior::Deferred
            } else {
                TransactionBehavior::Immediate
            })?;
            let cut = at(cut);
            let one = |what: &str| -> rusqlite::Result<u64> {
                if only_look {
                    return transaction
                        .query_row(&format!("SELECT count(*) {what}"), [&cut], |row| row.get(0));
                }
                let gone = transaction.execute(&format!("DELETE {what}"), params_from_iter([&cut]))?;
                Ok(gone as u64)
            };
            // Runs first: which of them go depends on the attempts.
            let runs = one(RUNS)?;
            let old = OldHistory {
                runs,
                units: one(UNITS)?,
                attempts: one(ATTEMPTS)?,
                alarms: one(ALARMS)?,
                differences: one(DIFFERENCES)?,
            };
            if old.alarms > 0 && !only_look {
                transaction.execute_batch(ORPHANS)?;
            }
            transaction.commit()?;
            Ok(old)
        };
        prune().map_err(|error| LedgerError::of(&path, error))
    }

    /// When old things were last looked for.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn pruned_at(&self) -> Result<Option<Timestamp>, LedgerError> {
        self.connection
            .query_row("SELECT at FROM pruned WHERE what = 'all'", [], |row| row.get::<_, String>(0))
            .optional()
            .map(|found| found.and_then(|at| at.parse().ok()))
            .map_err(|error| self.error(error))
    }

    /// Notes that old things were looked for.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn note_pruned(&self, now: Timestamp) -> Result<(), LedgerError> {
        self.connection
            .execute("INSERT OR REPLACE INTO pruned (what, at) VALUES ('all', ?)", [at(now)])
            .map(drop)
            .map_err(|error| self.error(error))
    }
}
