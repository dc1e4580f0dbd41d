//! Writing down where units stand.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::again;
use super::coverage::{Part, Stretch, at, cover, cover_all};
use super::{Ledger, LedgerError, Record, Run, State};
use crate::measure::Measure;
use crate::unit::{Named, Unit, UnitKey, read_id, table_of};

/// Units of a load log that are taken over together.
const AT_ONCE: usize = 2000;

/// A unit as the load log of a target has it.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Its source and id.
    pub key: UnitKey,
    /// The job that moved it.
    pub job: String,
    /// The target table.
    pub target: String,
    /// Its measure; `None` where an older load log did not say.
    pub measure: Option<Measure>,
    /// Rows in the target.
    pub rows: u64,
    /// Rows that were kept out of it.
    pub rejected: u64,
    /// When it was loaded.
    pub loaded_at: Timestamp,
    /// The run that did.
    pub run: String,
}

impl Ledger {
    /// Writes down where units stand, all in one transaction.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn record<'a>(
        &mut self,
        run: &Run,
        now: Timestamp,
        records: impl IntoIterator<Item = (&'a Unit, &'a Record)>,
    ) -> Result<(), LedgerError> {
        let write = || {
            let transaction = self.connection.transaction()?;
            for (unit, record) in records {
                if !run.is_repair() {
                    write_unit(&transaction, run, now, unit, record)?;
                } else if record.state == State::Loaded {
                    // Until then the target holds what it held, and the unit stands as it stood.
                    again::write(&transaction, run, now, unit, record)?;
                }
                write_attempt(&transaction, run, now, unit, record)?;
                if record.state == State::Loaded {
                    cover(&transaction, &part(run, unit, now))?;
                }
            }
            transaction.commit()
        };
        let written = write();
        written.map_err(|error| self.error(error))
    }

    /// Writes down that nothing is left to do for units that are not loaded: their rows move by others.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn replace(&mut self, run: &Run, now: Timestamp, keys: &[UnitKey]) -> Result<(), LedgerError> {
        let mut write = || {
            let transaction = self.connection.transaction()?;
            for key in keys {
                transaction.execute(
                    "UPDATE unit SET state = ?3, exported = NULL, run = ?4, updated_at = ?5
                     WHERE source = ?1 AND id = ?2 AND state <> 'loaded'",
                    params![key.source, key.id, State::Replaced.word(), run.id, at(now)],
                )?;
            }
            transaction.commit()
        };
        let written = write();
        written.map_err(|error| self.error(error))
    }

    /// Takes over what the load log of a target holds, whole: for a ledger that never saw it. What the ledger knows
    /// of units already stays. How many units that were.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`], or whatever `read` fails with; the target does not count as seen then.
    pub fn catch_up<E: From<LedgerError>>(
        &mut self,
        target_url: &str,
        now: Timestamp,
        read: impl FnOnce(&mut dyn FnMut(Logged)) -> Result<(), E>,
    ) -> Result<u64, E> {
        let (mut taken, mut some, mut failed) = (0, Vec::new(), None);
        read(&mut |logged| {
            if failed.is_some() {
                return;
            }
            taken += 1;
            some.push(logged);
            // In pieces: neither memory nor the wait of other runs of this ledger grows with the load log.
            if some.len() >= AT_ONCE {
                failed = self.take_over(target_url, &std::mem::take(&mut some)).err();
            }
        })?;
        failed.map_or_else(|| self.take_over(target_url, &some), Err)?;
        self.connection
            .execute(
                "INSERT OR REPLACE INTO target (url, caught_up_at) VALUES (?, ?)",
                [target_url, &at(now)],
            )
            .map_err(|error| self.error(error))?;
        Ok(taken)
    }

    fn take_over(&mut self, target_url: &str, some: &[Logged]) -> Result<(), LedgerError> {
        let mut write = || {
            let transaction = self.connection.transaction()?;
            let mut covered: Vec<(Stretch, Vec<_>, i64)> = Vec::new();
            let mut places: HashMap<Stretch, usize> = HashMap::new();
            for logged in some {
                let Some(named) = read_id(&logged.key.id) else { continue };
                write_logged(&transaction, target_url, logged, &named)?;
                let whole = named.extent.is_whole().then_some(Measure::All);
                let (source, measure) = (logged.key.source.to_string(), logged.measure.clone().or(whole));
                let stretch = Stretch { source, series: named.series, measure, tag: named.tag };
                // In the order of the load log: what has no measure takes the first one after it.
                let place = *places.entry(stretch.clone()).or_insert(covered.len());
                if place == covered.len() {
                    covered.push((stretch, Vec::new(), i64::MIN));
                }
                let (_, intervals, at) = &mut covered[place];
                intervals.push(named.extent.numbers_loaded(logged.loaded_at));
                *at = logged.loaded_at.as_microsecond().max(*at);
            }
            cover_all(&transaction, target_url, covered)?;
            transaction.commit()
        };
        let written = write();
        written.map_err(|error| self.error(error))
    }
}

fn part<'a>(run: &'a Run, unit: &'a Unit, now: Timestamp) -> Part<'a> {
    Part {
        target_url: &run.target_url,
        source: &unit.key.source,
        series: &unit.rows.series,
        measure: Some(&unit.rows.measure),
        tag: unit.rows.tag.as_deref(),
        interval: unit.extent.numbers_loaded(now),
        at: now.as_microsecond(),
    }
}

pub(super) fn write_unit(
    transaction: &Transaction<'_>,
    run: &Run,
    now: Timestamp,
    unit: &Unit,
    record: &Record,
) -> rusqlite::Result<()> {
    let failure = record.failure.as_ref();
    let interval = unit.extent.numbers();
    let mut statement = transaction.prepare_cached(
        "INSERT INTO unit (source, id, job, table_name, target, target_url, window_start, window_end, state, stage,
                           exported, rows, bytes, rows_loaded, error, remedy, run, updated_at, series, measure,
                           first, last, loaded_at, tries, tried_in, rows_rejected)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
                 ?22, CASE WHEN ?9 = 'loaded' THEN ?18 END, ?23, CASE WHEN ?23 THEN ?17 END, ?24)
         ON CONFLICT (source, id) DO UPDATE SET
             job = ?3, target = ?5, target_url = ?6, window_start = ?7, window_end = ?8, state = ?9, stage = ?10,
             exported = ?11, rows = ?12, bytes = ?13, rows_loaded = ?14, error = ?15, remedy = ?16, run = ?17,
             updated_at = ?18, series = ?19, measure = ?20, first = ?21, last = ?22,
             loaded_at = CASE WHEN ?9 <> 'loaded' THEN NULL WHEN state = 'loaded' THEN loaded_at ELSE ?18 END,
             tries = CASE WHEN ?9 = 'loaded' THEN 0 ELSE tries + (?23 AND tried_in IS NOT ?17) END,
             tried_in = CASE WHEN ?23 THEN ?17 ELSE tried_in END, rows_rejected = ?24",
    )?;
    statement.execute(params![
        unit.key.source,
        unit.key.id,
        unit.job,
        unit.table.to_string(),
        unit.target.to_string(),
        run.target_url,
        unit.extent.window().map(|window| window.start().to_string()),
        unit.extent.window().map(|window| window.end().to_string()),
        record.state.word(),
        failure.map(|failure| failure.stage),
        record.exported.as_ref().and_then(|exported| serde_json::to_string(&**exported).ok()),
        record.exported.as_ref().map(|exported| exported.rows),
        record.exported.as_ref().map(|exported| exported.trailer.bytes),
        record.rows_loaded,
        failure.map(|failure| failure.error.as_str()),
        failure.map(|failure| failure.remedy.as_str()),
        run.id,
        at(now),
        unit.rows.series,
        unit.rows.measure.to_string(),
        interval.start(),
        interval.end(),
        failure.is_some_and(|failure| failure.counts),
        record.rows_rejected,
    ])?;
    Ok(())
}

fn write_logged(
    transaction: &Transaction<'_>,
    target_url: &str,
    logged: &Logged,
    named: &Named,
) -> rusqlite::Result<()> {
    let interval = named.extent.numbers();
    let table = table_of(&named.series).map_or_else(|| logged.target.clone(), |table| table.to_string());
    let mut statement = transaction.prepare_cached(
        "INSERT INTO unit (source, id, job, table_name, target, target_url, window_start, window_end, state,
                           rows_loaded, run, updated_at, series, measure, first, last, loaded_at, rows_rejected)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'loaded', ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?11, ?16)
         ON CONFLICT (source, id) DO UPDATE SET
             state = 'loaded', target_url = ?6, rows_loaded = ?9, loaded_at = ?11, updated_at = ?11, tries = 0,
             stage = NULL, error = NULL, remedy = NULL, rows_rejected = ?16
         WHERE state <> 'loaded'",
    )?;
    statement.execute(params![
        logged.key.source,
        logged.key.id,
        logged.job,
        table,
        logged.target,
        target_url,
        named.extent.window().map(|window| window.start().to_string()),
        named.extent.window().map(|window| window.end().to_string()),
        logged.rows,
        logged.run,
        at(logged.loaded_at),
        named.series,
        logged.measure.as_ref().map(Measure::to_string),
        interval.start(),
        interval.end(),
        logged.rejected,
    ])?;
    Ok(())
}

fn write_attempt(
    transaction: &Transaction<'_>,
    run: &Run,
    now: Timestamp,
    unit: &Unit,
    record: &Record,
) -> rusqlite::Result<()> {
    let over = matches!(record.state, State::Loaded | State::Failed | State::Exported);
    let mut statement = transaction.prepare_cached(
        "INSERT OR REPLACE INTO attempt (run, source, unit, attempt, state, stage, rows, bytes, rows_loaded,
                                         export_seconds, load_seconds, error, started_at, ended_at, job,
                                         table_name, remedy, rows_rejected)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
    )?;
    statement.execute(params![
        run.id,
        unit.key.source,
        unit.key.id,
        record.attempt,
        record.state.word(),
        record.failure.as_ref().map(|failure| failure.stage),
        record.exported.as_ref().map(|exported| exported.rows),
        record.exported.as_ref().map(|exported| exported.trailer.bytes),
        record.rows_loaded,
        record.export_seconds.map(two_decimals),
        record.load_seconds.map(two_decimals),
        record.failure.as_ref().map(|failure| failure.error.as_str()),
        at(record.started_at),
        over.then(|| at(now)),
        unit.job,
        unit.table.to_string(),
        record.failure.as_ref().map(|failure| failure.remedy.as_str()),
        record.rows_rejected,
    ])?;
    Ok(())
}

fn two_decimals(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}
