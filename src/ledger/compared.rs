//! What comparisons found: the last one of each table, and every window that was ever found to differ.
//!
//! A window that differs stays open until its digests agree: that its rows are as many again says too little. Windows
//! that never differed are not kept one by one, so this does not grow with the history.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{Transaction, params};
use serde::Serialize;

use super::coverage::at;
use super::status::SeriesKey;
use super::{Ledger, LedgerError};
use crate::interval::{Interval, merged};
use crate::measure::Measure;

mod groups;

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
            note(&transaction, target_url, compared)?;
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

fn note(transaction: &Transaction<'_>, target_url: &str, compared: &Compared) -> rusqlite::Result<()> {
    let (of, when, measure) = (&compared.of, at(compared.at), compared.of.measure.to_string());
    let error = compared.error.as_ref();
    transaction.execute(
        "INSERT OR REPLACE INTO compared (target_url, source, series, measure, job, table_name, target, compared_at,
                                          verdict, deep, windows, differing, rows_source, rows_target, missing, extra,
                                          changed, exact, error, remedy)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)",
        params![
            target_url,
            of.source,
            of.series,
            measure,
            of.job,
            of.table,
            of.target,
            when,
            compared.verdict.word(),
            compared.deep,
            compared.windows,
            compared.differing.len(),
            compared.rows.source,
            compared.rows.target,
            compared.rows.missing,
            compared.rows.extra,
            compared.rows.changed,
            compared.rows.exact,
            error.map(|(error, _)| error.as_str()),
            error.map(|(_, remedy)| remedy.as_str()),
        ],
    )?;
    let seen = compared.agreeing.iter().chain(compared.differing.iter().map(|(window, ..)| window));
    let series = (of.source.as_str(), of.series.as_str(), measure.as_str());
    let mut settle = transaction.prepare_cached(
        "UPDATE difference SET missing = 0, extra = 0, changed = 0, exact = 1, compared_at = ?7, settled_at = ?7
         WHERE target_url = ?1 AND source = ?2 AND series = ?3 AND measure = ?4 AND first >= ?5 AND last <= ?6
           AND settled_at IS NULL",
    )?;
    for part in merged(seen.copied().collect()) {
        settle.execute(params![target_url, of.source, of.series, measure, part.start(), part.end(), when])?;
        groups::forget(transaction, target_url, series, part)?;
    }
    // What was settled by this very look has not been closed in between: it keeps the time it was found at.
    let mut open = transaction.prepare_cached(
        "INSERT INTO difference (target_url, source, series, measure, first, last, job, table_name, target, rows_source,
                                 rows_target, missing, extra, changed, exact, found_at, compared_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?16)
         ON CONFLICT (target_url, source, series, measure, first, last) DO UPDATE SET
             job = ?7, table_name = ?8, target = ?9, rows_source = ?10, rows_target = ?11, missing = ?12, extra = ?13,
             changed = ?14, exact = ?15, compared_at = ?16,
             found_at = CASE WHEN settled_at = ?16 THEN found_at ELSE ?16 END, settled_at = NULL",
    )?;
    for (window, rows, groups) in &compared.differing {
        groups::note(transaction, target_url, series, *window, groups)?;
        open.execute(params![
            target_url,
            of.source,
            of.series,
            measure,
            window.start(),
            window.end(),
            of.job,
            of.table,
            of.target,
            rows.source,
            rows.target,
            rows.missing,
            rows.extra,
            rows.changed,
            rows.exact,
            when,
        ])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of() -> Of {
        Of {
            source: "s".into(),
            series: "d^public^t".into(),
            measure: "time:at".parse().unwrap(),
            job: "j".into(),
            table: "public.t".into(),
            target: "public.t".into(),
        }
    }

    fn interval(start: i64, end: i64) -> Interval<i64> {
        Interval::new(start, end).unwrap()
    }

    fn groups() -> Vec<Group> {
        let one = Rows { missing: 1, exact: true, ..Rows::default() };
        [Some("OP1".into()), None].map(|value| Group { value, rows: one }).to_vec()
    }

    fn compared(second: i64, agreeing: &[(i64, i64)], differing: &[(i64, i64)]) -> Compared {
        let one = Rows { missing: 1, exact: true, ..Rows::default() };
        Compared {
            of: of(),
            at: Timestamp::from_second(second).unwrap(),
            verdict: if differing.is_empty() { Verdict::Equal } else { Verdict::Different },
            deep: true,
            windows: 3,
            rows: one,
            agreeing: agreeing.iter().map(|one| interval(one.0, one.1)).collect(),
            differing: differing.iter().map(|at| (interval(at.0, at.1), one, groups())).collect(),
            error: None,
        }
    }

    #[test]
    fn a_difference_is_open_until_digests_agree() {
        let mut ledger = Ledger::scratch().unwrap();
        let open = |ledger: &Ledger| -> Vec<(i64, i64, String)> {
            let open = ledger.open_differences("t").unwrap();
            open.into_iter().map(|one| (one.window.start(), one.window.end(), one.found_at)).collect()
        };
        let time = |second: i64| at(Timestamp::from_second(second).unwrap());
        ledger.note_compared("t", &compared(1, &[(0, 4)], &[(4, 8), (8, 12)])).unwrap();
        assert_eq!(open(&ledger), [(4, 8, time(1)), (8, 12, time(1))]);
        assert_eq!(open(&Ledger::scratch().unwrap()), []);
        // Rows alone say nothing: they are in neither list.
        ledger.note_compared("t", &compared(2, &[], &[])).unwrap();
        assert_eq!(open(&ledger).len(), 2);
        // Cut otherwise by now: what lies within windows that agree is settled, by however many.
        ledger.note_compared("t", &compared(3, &[(0, 6), (6, 9)], &[(8, 12)])).unwrap();
        assert_eq!(open(&ledger), [(8, 12, time(1))]);
        assert_eq!(ledger.open_differences("t").unwrap()[0].groups, groups());
        let table = &ledger.differing_tables("t").unwrap()[0];
        assert_eq!((table.windows, table.rows.missing, &table.since), (1, 1, &time(1)));
        ledger.note_compared("t", &compared(4, &[(8, 12)], &[])).unwrap();
        assert_eq!((open(&ledger).len(), ledger.differing_tables("t").unwrap().len()), (0, 0));
        let last = ledger.last_compared("t").unwrap();
        let last = &last[&("s".to_owned(), "d^public^t".to_owned())];
        assert_eq!((last.verdict, last.open, &last.at), (Verdict::Equal, 0, &time(4)));
        let kept = |ledger: &Ledger| -> i64 {
            let count = |row: &rusqlite::Row<'_>| row.get(0);
            ledger.connection.query_row("SELECT count(*) FROM difference_group", [], count).unwrap()
        };
        assert_eq!(kept(&ledger), 0);
        // What is mended goes with other old history; what is open stays however old it is.
        let late = Timestamp::from_second(100).unwrap();
        let gone = |ledger: &mut Ledger, look| ledger.prune(late, &[], look).unwrap().differences;
        ledger.note_compared("t", &compared(4, &[], &[(20, 24)])).unwrap();
        assert_eq!((gone(&mut ledger, true), gone(&mut ledger, false), gone(&mut ledger, false)), (2, 2, 0));
        assert_eq!(open(&ledger), [(20, 24, time(4))]);
        ledger.note_compared("t", &compared(4, &[(20, 24)], &[])).unwrap();
        // More groups than anybody would read are told as one.
        let mut many = compared(4, &[], &[(30, 34)]);
        many.differing[0].2 = groups().into_iter().cycle().take(101).collect();
        ledger.note_compared("t", &many).unwrap();
        assert_eq!(ledger.open_differences("t").unwrap()[0].groups, []);
        ledger.note_compared("t", &compared(4, &[(30, 34)], &[])).unwrap();
        // A new one is a new one.
        ledger.note_compared("t", &compared(5, &[], &[(8, 12)])).unwrap();
        assert_eq!(open(&ledger), [(8, 12, time(5))]);
    }
}
