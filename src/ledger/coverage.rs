//! What is in the target, as intervals, and the units that are not: what a plan is made from.
//!
//! A unit's interval joins the others the moment the unit is noted as loaded, in the same transaction; so a plan over
//! years of windows reads a handful of rows a table, and the units themselves may be pruned.

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};

use super::{Ledger, LedgerError};
use crate::interval::{Interval, merged};
use crate::measure::{Loaded, Measure, all_numbers};
use crate::mount::Exported;
use crate::plan::{Assumed, Facts, IdColumn, Open, OpenState, SeenIds};
use crate::unit::{Extent, Unit, read_id};

/// A unit's interval as the ledger keeps it.
#[derive(Debug, Clone)]
pub(super) struct Part<'a> {
    pub(super) target_url: &'a str,
    pub(super) source: &'a str,
    pub(super) series: &'a str,
    /// `None`: nobody wrote it down.
    pub(super) measure: Option<&'a Measure>,
    pub(super) tag: Option<&'a str>,
    pub(super) interval: Interval<i64>,
    /// When it was loaded. Microseconds since 1970-01-01 UTC.
    pub(super) at: i64,
}

/// Joins an interval to what is covered. What was kept without a measure takes the first of time that is known.
pub(super) fn cover(transaction: &Transaction<'_>, part: &Part<'_>) -> rusqlite::Result<()> {
    let measure = part.measure.map(Measure::to_string).unwrap_or_default();
    let key = params![part.target_url, part.source, part.series, measure];
    if part.measure.is_some_and(Measure::is_time) {
        transaction
            .prepare_cached(
                "UPDATE OR REPLACE covered SET measure = ?4
                 WHERE target_url = ?1 AND source = ?2 AND series = ?3 AND measure = ''",
            )?
            .execute(key)?;
    }
    let mut neighbours = transaction.prepare_cached(
        "DELETE FROM covered WHERE target_url = ?1 AND source = ?2 AND series = ?3 AND measure = ?4
             AND first <= ?6 AND last >= ?5 RETURNING first, last",
    )?;
    let (first, last) = (part.interval.start(), part.interval.end());
    let found = neighbours
        .query_map(params![part.target_url, part.source, part.series, measure, first, last], interval)?;
    let (mut from, mut to) = (first, last);
    for one in found {
        let (first, last) = one?;
        (from, to) = (from.min(first), to.max(last));
    }
    let whole = all_numbers();
    if matches!(part.measure, Some(Measure::Slice(..))) && (from, to) == (whole.start(), whole.end()) {
        // The last slice: the table was moved whole, and a plan needs to know no more.
        let interval = Extent::Whole.numbers_loaded(Timestamp::from_microsecond(part.at).unwrap_or_default());
        return cover(transaction, &Part { measure: Some(&Measure::All), tag: None, interval, ..*part });
    }
    transaction
        .prepare_cached(
            "INSERT INTO covered (target_url, source, series, measure, first, last, tag)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![part.target_url, part.source, part.series, measure, from, to, part.tag])?;
    Ok(())
}

fn interval(row: &rusqlite::Row<'_>) -> rusqlite::Result<(i64, i64)> {
    Ok((row.get(0)?, row.get(1)?))
}

/// Covers what an older ledger's units say, and fills the columns that it did not have.
pub(super) fn of_units(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut units = transaction.prepare("SELECT source, id, target_url, state, updated_at FROM unit")?;
    let mut fill = transaction.prepare(
        "UPDATE unit SET series = ?3, measure = ?4, first = ?5, last = ?6, loaded_at = ?7
         WHERE source = ?1 AND id = ?2",
    )?;
    let mut rows = units.query([])?;
    while let Some(row) = rows.next()? {
        let (source, id, target_url): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let is_loaded = row.get::<_, String>(3)? == "loaded";
        let Some(named) = read_id(&id) else { continue };
        let measure = named.extent.is_whole().then_some(Measure::All);
        let interval = named.extent.numbers();
        fill.execute(params![
            source,
            id,
            named.series,
            measure.as_ref().map(Measure::to_string),
            interval.start(),
            interval.end(),
            is_loaded.then(|| row.get::<_, String>(4)).transpose()?,
        ])?;
        if is_loaded {
            let (measure, tag) = (measure.as_ref(), named.tag.as_deref());
            let (target_url, source, series) = (&target_url, &source, &named.series);
            let updated: String = row.get(4)?;
            let updated: Option<Timestamp> = updated.parse().ok();
            let interval = updated.map_or(interval, |at| named.extent.numbers_loaded(at));
            let at = updated.unwrap_or_default().as_microsecond();
            cover(transaction, &Part { target_url, source, series, measure, tag, interval, at })?;
        }
    }
    Ok(())
}

impl Ledger {
    /// Everything that a plan needs to know, as far as this target is concerned: what was loaded into another one is
    /// not loaded here, a file that waits on the mount waits for any.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn facts(&self, target_url: &str) -> Result<Facts, LedgerError> {
        let mut facts = Facts::default();
        let read = |facts: &mut Facts| {
            loaded(&self.connection, target_url, facts)?;
            open(&self.connection, facts)?;
            ids(&self.connection, facts)
        };
        read(&mut facts).map_err(|error| self.error(error))?;
        facts.owed = self.owed_keys(target_url)?;
        Ok(facts)
    }

    /// How much CSV the last windows of a unit's table held, in bytes for each number of their measure; `None` where
    /// none is known.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn bytes_per_number(&self, unit: &Unit) -> Result<Option<f64>, LedgerError> {
        let read = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT first, last, exported FROM unit
                 WHERE job = ?1 AND table_name = ?2 AND state = 'loaded' AND series = ?3 AND measure = ?4
                     AND exported IS NOT NULL AND last > first
                 ORDER BY window_start DESC, last DESC LIMIT 5",
            )?;
            let key =
                [&*unit.job, &unit.table.to_string(), &unit.rows.series, &unit.rows.measure.to_string()];
            let mut rows = statement.query(key)?;
            let (mut numbers, mut bytes) = (0.0, 0.0);
            while let Some(row) = rows.next()? {
                let exported: Option<Exported> = serde_json::from_str(&row.get::<_, String>(2)?).ok();
                let Some(exported) = exported else { continue };
                numbers += (row.get::<_, i64>(1)? as f64) - (row.get::<_, i64>(0)? as f64);
                bytes += exported.data_bytes();
            }
            Ok((numbers > 0.0).then(|| bytes / numbers))
        };
        read().map_err(|error| self.error(error))
    }

    /// Writes down by what windows were moved that an older gpferry kept without a measure: once it is known for this
    /// run, another column is another one.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn assume(&mut self, target_url: &str, assumed: &[Assumed]) -> Result<(), LedgerError> {
        if assumed.is_empty() {
            return Ok(());
        }
        let mut write = || {
            let transaction = self.connection.transaction()?;
            for Assumed { source, series, measure } in assumed {
                let mut unmeasured = transaction.prepare_cached(
                    "SELECT first, last, tag FROM covered
                     WHERE target_url = ? AND source = ? AND series = ? AND measure = ''",
                )?;
                let found: Vec<(i64, i64, Option<String>)> = unmeasured
                    .query_map([target_url, source, series], |row| {
                        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                    })?
                    .collect::<Result<_, _>>()?;
                transaction.execute(
                    "DELETE FROM covered WHERE target_url = ? AND source = ? AND series = ? AND measure = ''",
                    [target_url, source, series],
                )?;
                for (first, last, tag) in &found {
                    let Some(interval) = Interval::new(*first, *last) else { continue };
                    let (measure, tag, at) = (Some(measure), tag.as_deref(), 0);
                    cover(&transaction, &Part { target_url, source, series, measure, tag, interval, at })?;
                }
            }
            transaction.commit()
        };
        let written = write();
        written.map_err(|error| self.error(error))
    }

    /// Was the load log of this target read into this ledger once, as a whole?
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn has_caught_up(&self, target_url: &str) -> Result<bool, LedgerError> {
        self.connection
            .query_row("SELECT count(*) FROM target WHERE url = ?", [target_url], |row| row.get::<_, i64>(0))
            .map(|found| found > 0)
            .map_err(|error| self.error(error))
    }

    /// Notes what ids a table holds now. Looks that are older than one that is `lag` old are of no more use.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn note_ids(
        &self,
        of: &IdColumn,
        seen: SeenIds,
        lag: std::time::Duration,
    ) -> Result<(), LedgerError> {
        let ripe = seen.at.checked_sub(lag).unwrap_or(Timestamp::MIN);
        let note = || {
            let key = [&of.source, &of.table, &of.column];
            self.connection.execute(
                "INSERT OR REPLACE INTO seen_ids (source, table_name, column_name, at, lowest, highest)
                 VALUES (?, ?, ?, ?, ?, ?)",
                params![key[0], key[1], key[2], at(seen.at), seen.lowest, seen.highest],
            )?;
            self.connection.execute(
                "DELETE FROM seen_ids WHERE source = ?1 AND table_name = ?2 AND column_name = ?3 AND at < (
                     SELECT max(at) FROM seen_ids
                     WHERE source = ?1 AND table_name = ?2 AND column_name = ?3 AND at <= ?4)",
                params![key[0], key[1], key[2], at(ripe)],
            )
        };
        note().map(drop).map_err(|error| self.error(error))
    }
}

/// An instant as text that sorts as the instants do.
pub(super) fn at(time: Timestamp) -> String {
    format!("{time:.6}")
}

fn loaded(connection: &Connection, target_url: &str, facts: &mut Facts) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT source, series, measure, first, last, tag FROM covered WHERE target_url = ?
         ORDER BY source, series, measure, first",
    )?;
    let mut rows = statement.query([target_url])?;
    while let Some(row) = rows.next()? {
        let Some(interval) = Interval::new(row.get(3)?, row.get(4)?) else { continue };
        let series = facts.series_mut(&row.get::<_, String>(0)?, &row.get::<_, String>(1)?);
        let Ok(measure) = row.get::<_, String>(2)?.parse::<Measure>() else {
            series.unmeasured.push(interval);
            continue;
        };
        match series.loaded.last_mut() {
            Some(last) if last.measure == measure => last.intervals.push(interval),
            Some(_) | None => {
                series.loaded.push(Loaded { measure, tag: row.get(5)?, intervals: vec![interval] });
            }
        }
    }
    Ok(())
}

fn open(connection: &Connection, facts: &mut Facts) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT source, id, series, measure, first, last, tries,
                state IN ('exported', 'loading') OR (state = 'failed' AND stage = 'load' AND exported IS NOT NULL)
         FROM unit WHERE state <> 'loaded' AND state <> 'replaced' AND series IS NOT NULL",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Some(extent) = Interval::new(row.get(4)?, row.get(5)?) else { continue };
        let measure: Option<String> = row.get(3)?;
        let waits: bool = row.get(7)?;
        let open = Open {
            id: row.get(1)?,
            measure: measure.and_then(|measure| measure.parse().ok()),
            extent,
            state: if waits { OpenState::Exported } else { OpenState::Unfinished },
            tries: row.get(6)?,
        };
        facts.series_mut(&row.get::<_, String>(0)?, &row.get::<_, String>(2)?).open.push(open);
    }
    Ok(())
}

fn ids(connection: &Connection, facts: &mut Facts) -> rusqlite::Result<()> {
    let mut statement = connection
        .prepare("SELECT source, table_name, column_name, at, lowest, highest FROM seen_ids ORDER BY at")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Ok(at) = row.get::<_, String>(3)?.parse() else { continue };
        let column = IdColumn { source: row.get(0)?, table: row.get(1)?, column: row.get(2)? };
        let seen = SeenIds { at, lowest: row.get(4)?, highest: row.get(5)? };
        facts.ids.entry(column).or_default().push(seen);
    }
    Ok(())
}

/// What intervals of a load log belong to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Stretch {
    pub(super) source: String,
    pub(super) series: String,
    pub(super) measure: Option<Measure>,
    pub(super) tag: Option<String>,
}

/// Many intervals at once, from the load log, each stretch with the time of its last load in microseconds.
pub(super) fn cover_all(
    transaction: &Transaction<'_>,
    target_url: &str,
    all: Vec<(Stretch, Vec<Interval<i64>>, i64)>,
) -> rusqlite::Result<()> {
    for (of, intervals, at) in all {
        for interval in merged(intervals) {
            let (source, series) = (&of.source, &of.series);
            let (measure, tag) = (of.measure.as_ref(), of.tag.as_deref());
            cover(transaction, &Part { target_url, source, series, measure, tag, interval, at })?;
        }
    }
    Ok(())
}
