//! What comparisons found: the last one of each table, and every window that was ever found to differ.
//!
//! A window that differs stays open until its digests agree: that its rows are as many again says too little. Windows
//! that never differed are not kept one by one, so this does not grow with the history.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;

use super::status::SeriesKey;
use super::{Ledger, LedgerError};
use crate::interval::Interval;
use crate::measure::Measure;

mod groups;
mod write;

pub use groups::Group;

/// What came of comparing a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing differs.
    Equal,
    /// Something does.
    Different,
    /// Nothing differs, and some columns could not be compared.
    Partly,
    /// It could not be compared.
    Unread,
}

impl Verdict {
    /// All of them.
    const ALL: [Verdict; 4] = [Verdict::Equal, Verdict::Different, Verdict::Partly, Verdict::Unread];

    /// The word in the ledger and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Equal => "equal",
            Verdict::Different => "different",
            Verdict::Partly => "partly",
            Verdict::Unread => "unread",
        }
    }
}

/// Which windows: of which table, and how they are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Of {
    /// The source's name.
    pub source: String,
    /// The series.
    pub series: String,
    /// By what its windows are told apart.
    pub measure: Measure,
    /// The job.
    pub job: String,
    /// The table in the source.
    pub table: String,
    /// The table in the target.
    pub target: String,
}

/// How many rows differ, at least where that is not exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Rows {
    /// Rows of the source.
    pub source: u64,
    /// Rows of the target.
    pub target: u64,
    /// Rows that the target lacks.
    pub missing: u64,
    /// Rows that only the target has.
    pub extra: u64,
    /// Rows of one key that differ.
    pub changed: u64,
    /// Are these all?
    pub exact: bool,
}

/// A comparison of one table.
#[derive(Debug, Clone)]
pub struct Compared {
    /// Of what.
    pub of: Of,
    /// When.
    pub at: Timestamp,
    /// What came of it.
    pub verdict: Verdict,
    /// Were digests of all its windows compared, not only their numbers of rows?
    pub deep: bool,
    /// Windows that were compared.
    pub windows: u64,
    /// All of them together.
    pub rows: Rows,
    /// Windows whose digests agree.
    pub agreeing: Vec<Interval<i64>>,
    /// Windows that differ, and by which groups.
    pub differing: Vec<(Interval<i64>, Rows, Vec<Group>)>,
    /// Why it could not be compared, and what to try.
    pub error: Option<(String, String)>,
}

/// The last comparison of a table, and what is open of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastCompared {
    /// When.
    pub at: String,
    /// What came of it.
    pub verdict: Verdict,
    /// Were digests compared?
    pub deep: bool,
    /// Windows whose difference is open.
    pub open: u64,
    /// Rows that differ in them.
    pub rows: Rows,
}

/// A window whose difference is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenDifference {
    /// Of what.
    pub of: Of,
    /// The window, in numbers of its measure.
    pub window: Interval<i64>,
    /// How it differed last.
    pub rows: Rows,
    /// And by which groups, where that was told.
    pub groups: Vec<Group>,
    /// When it was first found to differ.
    pub found_at: String,
    /// When it was compared last.
    pub compared_at: String,
}

/// A table with an open difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DifferingTable {
    /// The job.
    pub job: String,
    /// The source's name.
    pub source: String,
    /// The table in the source.
    pub table: String,
    /// The table in the target.
    pub target: String,
    /// Windows that differ.
    pub windows: u64,
    /// Rows that differ in them.
    pub rows: Rows,
    /// When the first of them was found.
    pub since: String,
    /// When the last of them was compared.
    pub compared_at: String,
}

impl Ledger {
    /// Writes down what came of comparing a table. Windows that agree are open no longer.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn note_compared(&mut self, target_url: &str, compared: &Compared) -> Result<(), LedgerError> {
        let mut write = || {
            let transaction = self.connection.transaction()?;
            write::note(&transaction, target_url, compared)?;
            transaction.commit()
        };
        let written = write();
        written.map_err(|error| self.error(error))
    }

    /// Every window of this target whose difference is open, in the order of tables and windows.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn open_differences(&self, target_url: &str) -> Result<Vec<OpenDifference>, LedgerError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "SELECT source, series, measure, job, table_name, target, first, last, rows_source, rows_target, missing,
                        extra, changed, exact, found_at, compared_at
                 FROM difference WHERE target_url = ? AND settled_at IS NULL ORDER BY job, table_name, target, first",
            )?;
            let mut groups = groups::of_target(&self.connection, target_url)?;
            let mut rows = statement.query([target_url])?;
            let mut open = Vec::new();
            while let Some(row) = rows.next()? {
                let (Ok(measure), Some(window)) =
                    (row.get::<_, String>(2)?.parse(), Interval::new(row.get(6)?, row.get(7)?))
                else {
                    continue;
                };
                let place = ((row.get(0)?, row.get(1)?), row.get(2)?, row.get(6)?, row.get(7)?);
                open.push(OpenDifference {
                    groups: groups.remove(&place).unwrap_or_default(),
                    of: Of {
                        source: row.get(0)?,
                        series: row.get(1)?,
                        measure,
                        job: row.get(3)?,
                        table: row.get(4)?,
                        target: row.get(5)?,
                    },
                    window,
                    rows: rows_at(row, 8)?,
                    found_at: row.get(14)?,
                    compared_at: row.get(15)?,
                });
            }
            Ok(open)
        };
        read().map_err(|error| self.error(error))
    }

    /// Every table of this target that has an open difference: what an alarm is about.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn differing_tables(&self, target_url: &str) -> Result<Vec<DifferingTable>, LedgerError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "SELECT job, source, table_name, target, count(*), sum(rows_source), sum(rows_target), sum(missing),
                        sum(extra), sum(changed), min(exact), min(found_at), max(compared_at)
                 FROM difference WHERE target_url = ? AND settled_at IS NULL
                 GROUP BY job, source, table_name, target ORDER BY job, table_name, target, source",
            )?;
            let tables = statement.query_map([target_url], |row| {
                Ok(DifferingTable {
                    job: row.get(0)?,
                    source: row.get(1)?,
                    table: row.get(2)?,
                    target: row.get(3)?,
                    windows: row.get(4)?,
                    rows: rows_at(row, 5)?,
                    since: row.get(11)?,
                    compared_at: row.get(12)?,
                })
            })?;
            tables.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|error| self.error(error))
    }

    /// The last comparison of each series.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn last_compared(&self, target_url: &str) -> Result<HashMap<SeriesKey, LastCompared>, LedgerError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "SELECT c.source, c.series, max(c.compared_at), c.verdict, c.deep,
                        (SELECT count(*) FROM difference d WHERE d.target_url = c.target_url AND d.source = c.source
                         AND d.series = c.series AND d.settled_at IS NULL)
                 FROM compared c WHERE c.target_url = ? GROUP BY c.source, c.series",
            )?;
            let mut rows = statement.query([target_url])?;
            let mut last = HashMap::new();
            while let Some(row) = rows.next()? {
                let word: String = row.get(3)?;
                let Some(verdict) = Verdict::ALL.into_iter().find(|one| one.word() == word) else { continue };
                let one = LastCompared {
                    at: row.get(2)?,
                    verdict,
                    deep: row.get(4)?,
                    open: row.get(5)?,
                    rows: Rows::default(),
                };
                last.insert((row.get(0)?, row.get(1)?), one);
            }
            Ok(last)
        };
        let mut last: HashMap<SeriesKey, LastCompared> = read().map_err(|error| self.error(error))?;
        for open in self.open_differences(target_url)? {
            if let Some(one) = last.get_mut(&(open.of.source, open.of.series)) {
                one.rows = one.rows.with(open.rows);
            }
        }
        Ok(last)
    }
}

impl Rows {
    /// Both together.
    pub fn with(self, other: Rows) -> Rows {
        Rows {
            source: self.source + other.source,
            target: self.target + other.target,
            missing: self.missing + other.missing,
            extra: self.extra + other.extra,
            changed: self.changed + other.changed,
            exact: self.exact && other.exact,
        }
    }
}

fn rows_at(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Rows> {
    Ok(Rows {
        source: row.get(first)?,
        target: row.get(first + 1)?,
        missing: row.get(first + 2)?,
        extra: row.get(first + 3)?,
        changed: row.get(first + 4)?,
        exact: row.get(first + 5)?,
    })
}

#[cfg(test)]
mod tests;
