//! What was done: units, attempts and runs, newest first.

use globset::GlobMatcher;
use jiff::Timestamp;
use rusqlite::{Row, params};
use serde::Serialize;

use super::coverage::at;
use super::{Ledger, LedgerError};

/// What of the history is asked for. Empty lists mean everything.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Globs over job names.
    pub jobs: Vec<GlobMatcher>,
    /// Globs over `schema.table`.
    pub tables: Vec<GlobMatcher>,
    /// Source names.
    pub sources: Vec<String>,
    /// Words of [`super::State`].
    pub states: Vec<String>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// Of this run.
    pub run: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// What was found, and whether there is more.
#[derive(Debug, Clone, PartialEq)]
pub struct Found<T> {
    /// The newest, newest first.
    pub rows: Vec<T>,
    /// Were older ones left off?
    pub more: bool,
}

/// A unit, or one attempt at it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Done {
    /// The job.
    pub job: String,
    /// The source.
    pub source: String,
    /// The table in the source.
    pub table: String,
    /// The table in the target, of a unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The unit's id.
    pub unit: String,
    /// Start of its window: a time, or an id.
    pub window_start: Option<String>,
    /// Its end.
    pub window_end: Option<String>,
    /// Where it stands.
    pub state: String,
    /// `check`, `export` or `load`, where it failed.
    pub stage: Option<String>,
    /// Of an attempt: which one of its run, from 1. Of a unit: how many there were over all runs.
    pub attempt: u64,
    /// Rows that the source's COPY reported.
    pub rows_exported: Option<u64>,
    /// Rows in the target.
    pub rows_loaded: Option<u64>,
    /// Rows that were kept out of it.
    pub rows_rejected: Option<u64>,
    /// Compressed bytes of its file.
    pub bytes: Option<u64>,
    /// How long the export took.
    pub export_seconds: Option<f64>,
    /// How long the load took.
    pub load_seconds: Option<f64>,
    /// The run; of a unit, the last one.
    pub run: String,
    /// When the attempt began; of a unit, its first one in the last run.
    pub started_at: Option<String>,
    /// When it ended; of a unit, when something last happened to it.
    pub ended_at: Option<String>,
    /// What failed, on what.
    pub error: Option<String>,
    /// What to try.
    pub remedy: Option<String>,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunDone {
    /// Its id.
    pub run: String,
    /// `run`, `export`, `load`.
    pub command: String,
    /// The machine.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// The inventory's path.
    pub inventory: String,
    /// The target, without parameters.
    pub target: Option<String>,
    /// When it began.
    pub started_at: String,
    /// When it ended; `None` while it works, or where it was killed.
    pub ended_at: Option<String>,
    /// How long it took.
    pub seconds: Option<f64>,
    /// How it ended.
    pub exit_code: Option<u8>,
}

impl Wanted {
    fn takes(&self, one: &Done) -> bool {
        let any = |globs: &[GlobMatcher], text: &str| {
            globs.is_empty() || globs.iter().any(|glob| glob.is_match(text))
        };
        let listed = |list: &[String], text: &String| list.is_empty() || list.contains(text);
        any(&self.jobs, &one.job)
            && any(&self.tables, &one.table)
            && listed(&self.sources, &one.source)
            && listed(&self.states, &one.state)
            && self.run.as_ref().is_none_or(|run| *run == one.run)
    }

    /// Both ends as they are compared: what has no end has none that sorts.
    fn times(&self) -> [String; 2] {
        [self.since.map(at).unwrap_or_default(), self.until.map_or_else(|| "~".into(), at)]
    }

    fn collect<T>(
        &self,
        mut rows: rusqlite::Rows<'_>,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
        takes: impl Fn(&T) -> bool,
    ) -> rusqlite::Result<Found<T>> {
        let mut found = Found { rows: Vec::new(), more: false };
        while let Some(row) = rows.next()? {
            let one = read(row)?;
            if !takes(&one) {
                continue;
            }
            if found.rows.len() == self.limit {
                found.more = true;
                break;
            }
            found.rows.push(one);
        }
        Ok(found)
    }
}

impl Ledger {
    /// Units, by when something last happened to them.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn units_done(&self, wanted: &Wanted) -> Result<Found<Done>, LedgerError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "SELECT job, source, table_name, target, id,
                        coalesce(window_start, CASE WHEN measure LIKE 'id:%' THEN CAST(first AS TEXT) END),
                        coalesce(window_end, CASE WHEN measure LIKE 'id:%' THEN CAST(last AS TEXT) END),
                        state, stage, rows, rows_loaded, bytes, run, updated_at, error, remedy, rows_rejected
                 FROM unit WHERE updated_at >= ?1 AND updated_at < ?2 ORDER BY updated_at DESC",
            )?;
            let rows = statement.query(params![wanted.times()[0], wanted.times()[1]])?;
            let mut found = wanted.collect(rows, unit, |one| wanted.takes(one))?;
            let mut attempts = self.connection.prepare(
                "SELECT count(*), min(started_at) FILTER (WHERE run = ?3) FROM attempt WHERE source = ?1 AND unit = ?2",
            )?;
            let mut seconds = self.connection.prepare(
                "SELECT (SELECT export_seconds FROM attempt WHERE source = ?1 AND unit = ?2 AND export_seconds IS NOT NULL
                         ORDER BY started_at DESC LIMIT 1),
                        (SELECT load_seconds FROM attempt WHERE source = ?1 AND unit = ?2 AND load_seconds IS NOT NULL
                         ORDER BY started_at DESC LIMIT 1)",
            )?;
            for one in &mut found.rows {
                let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
                (one.attempt, one.started_at) =
                    attempts.query_row(params![one.source, one.unit, one.run], read)?;
                let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
                (one.export_seconds, one.load_seconds) =
                    seconds.query_row(params![one.source, one.unit], read)?;
            }
            Ok(found)
        };
        read().map_err(|error| self.error(error))
    }

    /// Attempts, by when they began.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn attempts_done(&self, wanted: &Wanted) -> Result<Found<Done>, LedgerError> {
        let read = || {
            // Older ledgers kept an attempt's job and table with its unit alone.
            let mut statement = self.connection.prepare(
                "SELECT coalesce(a.job, u.job, ''), a.source, coalesce(a.table_name, u.table_name, ''), NULL, a.unit,
                        coalesce(u.window_start, CASE WHEN u.measure LIKE 'id:%' THEN CAST(u.first AS TEXT) END),
                        coalesce(u.window_end, CASE WHEN u.measure LIKE 'id:%' THEN CAST(u.last AS TEXT) END),
                        a.state, a.stage, a.rows, a.rows_loaded, a.bytes, a.run, a.ended_at, a.error, a.remedy,
                        a.rows_rejected, a.attempt, a.started_at, a.export_seconds, a.load_seconds
                 FROM attempt a LEFT JOIN unit u ON u.source = a.source AND u.id = a.unit
                 WHERE a.started_at >= ?1 AND a.started_at < ?2 ORDER BY a.started_at DESC",
            )?;
            let rows = statement.query(params![wanted.times()[0], wanted.times()[1]])?;
            let read = |row: &Row<'_>| {
                Ok(Done {
                    attempt: row.get(17)?,
                    started_at: row.get(18)?,
                    export_seconds: row.get(19)?,
                    load_seconds: row.get(20)?,
                    ..unit(row)?
                })
            };
            wanted.collect(rows, read, |one| wanted.takes(one))
        };
        read().map_err(|error| self.error(error))
    }

    /// Runs, by when they began. Jobs, tables and sources do not matter.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn runs_done(&self, wanted: &Wanted) -> Result<Found<RunDone>, LedgerError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "SELECT id, command, host, pid, inventory, target_url, started_at, ended_at, exit_code
                 FROM run WHERE started_at >= ?1 AND started_at < ?2 ORDER BY started_at DESC",
            )?;
            let rows = statement.query(params![wanted.times()[0], wanted.times()[1]])?;
            let is_wanted = |one: &RunDone| wanted.run.as_ref().is_none_or(|run| *run == one.run);
            wanted.collect(rows, run, is_wanted)
        };
        read().map_err(|error| self.error(error))
    }
}

fn unit(row: &Row<'_>) -> rusqlite::Result<Done> {
    Ok(Done {
        job: row.get(0)?,
        source: row.get(1)?,
        table: row.get(2)?,
        target: row.get(3)?,
        unit: row.get(4)?,
        window_start: row.get(5)?,
        window_end: row.get(6)?,
        state: row.get(7)?,
        stage: row.get(8)?,
        rows_exported: row.get(9)?,
        rows_loaded: row.get(10)?,
        bytes: row.get(11)?,
        run: row.get(12)?,
        ended_at: row.get(13)?,
        error: row.get(14)?,
        remedy: row.get(15)?,
        rows_rejected: row.get(16)?,
        ..Done::default()
    })
}

fn run(row: &Row<'_>) -> rusqlite::Result<RunDone> {
    let (started_at, ended_at): (String, Option<String>) = (row.get(6)?, row.get(7)?);
    let took = |ended: &String| {
        let between = ended.parse::<Timestamp>().ok()?.duration_since(started_at.parse().ok()?);
        Some((between.as_secs_f64() * 100.0).round() / 100.0)
    };
    Ok(RunDone {
        run: row.get(0)?,
        command: row.get(1)?,
        host: row.get(2)?,
        pid: row.get(3)?,
        inventory: row.get(4)?,
        target: row.get(5)?,
        seconds: ended_at.as_ref().and_then(took),
        started_at,
        ended_at,
        exit_code: row.get(8)?,
    })
}
