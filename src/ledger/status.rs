//! What the ledger says of each job and table: how far, how much, what failed and what to do.

use rusqlite::params;
use serde::Serialize;

use super::{Ledger, LedgerError};

/// One table of one job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableStatus {
    /// The job.
    pub job: String,
    /// The source.
    pub source: String,
    /// The table in the source.
    pub table: String,
    /// End of its unbroken run of loaded windows; `None` without a window, or before the first.
    pub watermark: Option<String>,
    /// Units whose rows are in the target.
    pub loaded: u64,
    /// Units whose file waits to be loaded.
    pub exported: u64,
    /// Units that were begun and not finished.
    pub unfinished: u64,
    /// Units that failed.
    pub failed: u64,
    /// Rows in the target.
    pub rows: u64,
    /// Compressed bytes of its files.
    pub bytes: u64,
    /// When something last happened to it.
    pub updated_at: String,
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
    /// `check`, `export` or `load`.
    pub stage: String,
    /// What failed, on what.
    pub error: String,
    /// What to try.
    pub remedy: String,
    /// Attempts so far, over all runs.
    pub attempts: u64,
}

impl Ledger {
    /// Every table that a run ever touched, by job and name.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn tables(&self) -> Result<Vec<TableStatus>, LedgerError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "WITH ordered AS (
                     SELECT *, lag(window_end) OVER (PARTITION BY job, source, table_name ORDER BY window_start) AS before
                     FROM unit),
                 broken AS (
                     SELECT job, source, table_name, min(window_start) AS at FROM ordered
                     WHERE state <> 'loaded' OR before <> window_start GROUP BY 1, 2, 3)
                 SELECT u.job, u.source, u.table_name,
                        max(u.window_end) FILTER (WHERE u.window_start < coalesce(b.at, '9999-99')),
                        count(*) FILTER (WHERE u.state = 'loaded'),
                        count(*) FILTER (WHERE u.state = 'exported'),
                        count(*) FILTER (WHERE u.state IN ('exporting', 'loading')),
                        count(*) FILTER (WHERE u.state = 'failed'),
                        coalesce(sum(u.rows_loaded) FILTER (WHERE u.state = 'loaded'), 0),
                        coalesce(sum(u.bytes), 0),
                        max(u.updated_at)
                 FROM unit u LEFT JOIN broken b USING (job, source, table_name)
                 GROUP BY u.job, u.source, u.table_name ORDER BY 1, 3, 2",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(TableStatus {
                    job: row.get(0)?,
                    source: row.get(1)?,
                    table: row.get(2)?,
                    watermark: row.get(3)?,
                    loaded: row.get(4)?,
                    exported: row.get(5)?,
                    unfinished: row.get(6)?,
                    failed: row.get(7)?,
                    rows: row.get(8)?,
                    bytes: row.get(9)?,
                    updated_at: row.get(10)?,
                })
            })?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.error(error))
    }

    /// Units that failed and have not been loaded since, oldest window first.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn failed_units(&self, limit: u32) -> Result<Vec<FailedUnit>, LedgerError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "SELECT job, source, table_name, id, coalesce(stage, ''), coalesce(error, ''), coalesce(remedy, ''),
                        (SELECT count(*) FROM attempt a WHERE a.source = unit.source AND a.unit = unit.id)
                 FROM unit WHERE state = 'failed' ORDER BY job, table_name, window_start, id LIMIT ?",
            )?;
            let rows = statement.query_map(params![limit], |row| {
                Ok(FailedUnit {
                    job: row.get(0)?,
                    source: row.get(1)?,
                    table: row.get(2)?,
                    unit: row.get(3)?,
                    stage: row.get(4)?,
                    error: row.get(5)?,
                    remedy: row.get(6)?,
                    attempts: row.get(7)?,
                })
            })?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.error(error))
    }
}
