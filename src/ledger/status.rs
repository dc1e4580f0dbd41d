//! What the ledger knows of each table: how much, what waits, what failed. How far a table is and how late is worked
//! out from that and the inventory in [`super::overview`].
//!
//! Sums are kept as units are written down, so nothing here grows with the history.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use serde::Serialize;

use super::compared::LastCompared;
use super::coverage::at;
use super::{Ledger, LedgerError};
use crate::measure::Measure;
use crate::plan::{Facts, IdColumn};

/// A source's name and a series: what one line of `status` is about.
pub type SeriesKey = (String, String);

/// Everything that `status` is made of, for one target.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// What is loaded, as intervals, and what is open.
    pub facts: Facts,
    /// How much is loaded.
    pub tallies: HashMap<SeriesKey, Tally>,
    /// What is open, in numbers.
    pub open: HashMap<SeriesKey, OpenUnits>,
    /// Rows that were loaded since a given time.
    pub recent: HashMap<SeriesKey, u64>,
    /// Rows that were kept out of the target.
    pub rejected: HashMap<SeriesKey, u64>,
    /// Rows whose window column is NULL.
    pub nulls: HashMap<IdColumn, NullRows>,
    /// What the last comparison found.
    pub compared: HashMap<SeriesKey, LastCompared>,
}

/// How much of a series is loaded, over all time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The job that loaded it last.
    pub job: String,
    /// The table in the source.
    pub table: String,
    /// The table in the target.
    pub target: String,
    /// By what its rows were told apart last.
    pub measure: Option<Measure>,
    /// Units.
    pub units: u64,
    /// Rows.
    pub rows: u64,
    /// Compressed bytes of their files.
    pub bytes: u64,
    /// When the last of them was loaded.
    pub loaded_at: String,
}

/// Units of a series that were begun and are not loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenUnits {
    /// Their job.
    pub job: String,
    /// The table in the source.
    pub table: String,
    /// The table in the target.
    pub target: String,
    /// Their file waits to be loaded.
    pub exported: u64,
    /// They were begun and not finished.
    pub unfinished: u64,
    /// They failed.
    pub failed: u64,
}

/// Rows of a table that have no value in the window column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NullRows {
    /// When they were counted.
    pub at: String,
    /// How many; `None` where counting took too long.
    pub rows: Option<u64>,
}

/// A unit that failed, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedUnit {
    /// The job.
    pub job: String,
    /// The source.
    pub source: String,
    /// The table in the source.
    pub table: String,
    /// The unit's id.
    pub unit: String,
    /// Its series.
    #[serde(skip)]
    pub series: Option<String>,
    /// `check`, `export` or `load`.
    pub stage: String,
    /// What failed, on what.
    pub error: String,
    /// What to try.
    pub remedy: String,
    /// Attempts so far, over all runs that the history holds.
    pub attempts: u64,
    /// In how many runs it failed by its own fault, one after the other.
    pub tries: u32,
    /// So many runs try it: `retries` and one. `None` where the inventory does not say.
    pub allowed: Option<u32>,
    /// Do runs leave it alone by now?
    pub given_up: bool,
}

impl Ledger {
    /// Everything that is known for one target; `since` is when "recent" begins.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn known(&self, target_url: &str, since: Timestamp) -> Result<Known, LedgerError> {
        let facts = self.facts(target_url)?;
        let compared = self.last_compared(target_url)?;
        let read = || {
            Ok(Known {
                facts,
                tallies: self.tallies(target_url)?,
                open: self.open_units()?,
                recent: self.recent(target_url, since)?,
                rejected: self.rejected(target_url)?,
                nulls: self.nulls()?,
                compared,
            })
        };
        read().map_err(|error| self.error(error))
    }

    fn tallies(&self, target_url: &str) -> rusqlite::Result<HashMap<SeriesKey, Tally>> {
        let mut statement = self.connection.prepare(
            "SELECT source, series, job, table_name, target, measure, units, rows, bytes, loaded_at
             FROM tally WHERE target_url = ?",
        )?;
        let rows = statement.query_map([target_url], |row| {
            let measure: Option<String> = row.get(5)?;
            let tally = Tally {
                job: row.get(2)?,
                table: row.get(3)?,
                target: row.get(4)?,
                measure: measure.and_then(|measure| measure.parse().ok()),
                units: row.get(6)?,
                rows: row.get(7)?,
                bytes: row.get(8)?,
                loaded_at: row.get(9)?,
            };
            Ok(((row.get(0)?, row.get(1)?), tally))
        })?;
        rows.collect()
    }

    fn open_units(&self) -> rusqlite::Result<HashMap<SeriesKey, OpenUnits>> {
        let mut statement = self.connection.prepare(
            "SELECT source, series, job, table_name, target,
                    count(*) FILTER (WHERE state = 'exported'),
                    count(*) FILTER (WHERE state IN ('exporting', 'loading')),
                    count(*) FILTER (WHERE state = 'failed')
             FROM unit WHERE state <> 'loaded' AND state <> 'replaced' AND series IS NOT NULL
             GROUP BY source, series",
        )?;
        let rows = statement.query_map([], |row| {
            let units = OpenUnits {
                job: row.get(2)?,
                table: row.get(3)?,
                target: row.get(4)?,
                exported: row.get(5)?,
                unfinished: row.get(6)?,
                failed: row.get(7)?,
            };
            Ok(((row.get(0)?, row.get(1)?), units))
        })?;
        rows.collect()
    }

    fn recent(&self, target_url: &str, since: Timestamp) -> rusqlite::Result<HashMap<SeriesKey, u64>> {
        let mut statement = self.connection.prepare(
            "SELECT source, series, coalesce(sum(rows_loaded), 0) FROM unit
             WHERE state = 'loaded' AND loaded_at >= ? AND target_url = ? AND series IS NOT NULL GROUP BY 1, 2",
        )?;
        let rows = statement
            .query_map(params![at(since), target_url], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
        rows.collect()
    }

    fn rejected(&self, target_url: &str) -> rusqlite::Result<HashMap<SeriesKey, u64>> {
        let mut statement = self.connection.prepare(
            "SELECT source, series, sum(rows_rejected) FROM unit
             WHERE rows_rejected > 0 AND state = 'loaded' AND target_url = ? AND series IS NOT NULL GROUP BY 1, 2",
        )?;
        let rows =
            statement.query_map(params![target_url], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
        rows.collect()
    }

    fn nulls(&self) -> rusqlite::Result<HashMap<IdColumn, NullRows>> {
        let mut statement =
            self.connection.prepare("SELECT source, table_name, column_name, at, rows FROM null_rows")?;
        let rows = statement.query_map([], |row| {
            let column = IdColumn { source: row.get(0)?, table: row.get(1)?, column: row.get(2)? };
            Ok((column, NullRows { at: row.get(3)?, rows: row.get(4)? }))
        })?;
        rows.collect()
    }

    /// The columns whose NULLs were counted, or tried to be, after a given time.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn nulls_counted_since(
        &self,
        since: Timestamp,
    ) -> Result<std::collections::HashSet<IdColumn>, LedgerError> {
        let since = at(since);
        let nulls = self.nulls().map_err(|error| self.error(error))?;
        Ok(nulls.into_iter().filter(|(_, seen)| seen.at >= since).map(|(column, _)| column).collect())
    }

    /// Notes how many rows have no value in a window column; `None`: nobody could say.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn note_nulls(&self, of: &IdColumn, rows: Option<u64>, now: Timestamp) -> Result<(), LedgerError> {
        self.connection
            .execute(
                "INSERT OR REPLACE INTO null_rows (source, table_name, column_name, at, rows) VALUES (?, ?, ?, ?, ?)",
                params![of.source, of.table, of.column, at(now), rows],
            )
            .map(drop)
            .map_err(|error| self.error(error))
    }

    /// The target that was served last, as [`crate::target::Address::shown`] names it: for a ledger without its
    /// inventory.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn last_target(&self) -> Result<Option<String>, LedgerError> {
        self.connection
            .query_row(
                "SELECT url FROM (
                     SELECT target_url AS url, started_at AS at FROM run WHERE target_url IS NOT NULL
                     UNION ALL SELECT url, caught_up_at FROM target
                     UNION ALL SELECT target_url, loaded_at FROM tally)
                 ORDER BY at DESC LIMIT 1",
                [],
                |row| row.get(0),
            )
            .optional()
            .map_err(|error| self.error(error))
    }

    /// Units that failed and have not been loaded since, oldest window first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn failed_units(&self) -> Result<Vec<FailedUnit>, LedgerError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "SELECT job, source, table_name, id, coalesce(stage, ''), coalesce(error, ''), coalesce(remedy, ''),
                        (SELECT count(*) FROM attempt a WHERE a.source = unit.source AND a.unit = unit.id),
                        tries, series
                 FROM unit WHERE state <> 'loaded' AND state = 'failed'
                 ORDER BY job, table_name, window_start, first, id",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(FailedUnit {
                    job: row.get(0)?,
                    source: row.get(1)?,
                    table: row.get(2)?,
                    unit: row.get(3)?,
                    series: row.get(9)?,
                    stage: row.get(4)?,
                    error: row.get(5)?,
                    remedy: row.get(6)?,
                    attempts: row.get(7)?,
                    tries: row.get(8)?,
                    allowed: None,
                    given_up: false,
                })
            })?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.error(error))
    }
}
