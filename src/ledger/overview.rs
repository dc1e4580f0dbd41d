//! How far each table is, and how late: from the inventory and what the ledger knows. Pure.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::compared::LastCompared;
use super::status::{FailedUnit, Known, SeriesKey};
use crate::interval::{Grid, Interval, merged};
use crate::inventory::{Cut, Inventory, Job, NullWindow, TableEntry, WindowBy, WindowRule};
use crate::measure::{Measure, Scale};
use crate::names::TableName;
use crate::plan::{Catalog, IdColumn, owners, resolve};
use crate::unit::{series_of, variant};
use crate::window::{civil, instant, micros};

/// One table of one job.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TableStatus {
    /// The job.
    pub job: String,
    /// The source.
    pub source: String,
    /// The table in the source.
    pub table: String,
    /// The table in the target.
    pub target: String,
    /// By what its windows are cut, as `time:evt_timestamp`; `None` for a whole table.
    pub measure: Option<String>,
    /// End of the unbroken run of loaded windows that holds the job's `from`: a time, or an id. `None` without a
    /// window, or before the first.
    pub watermark: Option<String>,
    /// For how long the oldest missing window has been due; `None` where nothing is late, or nobody can say.
    pub late_seconds: Option<u64>,
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
    /// Rows that were kept out of the target, and are written down.
    pub rejected: u64,
    /// Of those in the target, the ones that were loaded since midnight.
    pub rows_today: u64,
    /// Compressed bytes of its files.
    pub bytes: u64,
    /// Rows of the source that have no value in the window column; `None` where they were not counted.
    pub null_rows: Option<u64>,
    /// When that was counted.
    pub null_rows_at: Option<String>,
    /// Are they moved all the same, as a unit of their own?
    pub nulls_included: bool,
    /// When rows of it were loaded last.
    pub loaded_at: Option<String>,
    /// What the last comparison of it found, and what of all of them is open.
    pub compared: Option<LastCompared>,
    /// Does the inventory move it? `None` where there was no inventory to read, or where one of its
    /// `catalog:` may do so: those are not asked.
    pub in_inventory: Option<bool>,
    /// What of its source is told apart.
    #[serde(skip)]
    pub series: String,
    /// How late it may be before that is an alarm.
    #[serde(skip)]
    pub late_after: Option<Duration>,
}

/// Every table of the inventory, and every other that the ledger knows; by job and name.
pub fn overview(inventory: Option<&Inventory>, known: &Known, now: Timestamp) -> Vec<TableStatus> {
    let mut tables = Vec::new();
    let mut shown = HashSet::new();
    if let Some(inventory) = inventory {
        each_series(inventory, known, |job, entry, table, key| {
            let mut one = numbers(known, &key);
            (one.job, one.source, one.table) = (job.name.clone(), job.source.clone(), table.to_string());
            one.target = entry.target.as_ref().unwrap_or(table).to_string();
            one.in_inventory = Some(true);
            one.late_after = entry.late_after;
            if let WindowRule::By(by) = &entry.window {
                windows(&mut one, by, job, inventory, known, &key, now);
            }
            if let WindowRule::None { every: Some(every) } = entry.window {
                // Never moved yet: nobody can say since when it is due.
                let moved: Option<Timestamp> = one.loaded_at.as_ref().and_then(|at| at.parse().ok());
                one.late_seconds = moved.and_then(|at| late(at.checked_add(every.as_duration()).ok()?, now));
            }
            tables.push(one);
            shown.insert(key);
        });
    }
    let others = known.tallies.keys().chain(known.open.keys()).filter(|key| !shown.contains(*key));
    for key in others.collect::<HashSet<_>>() {
        let mut one = numbers(known, key);
        // Jobs of catalogs are not asked for.
        one.in_inventory = inventory.filter(|inventory| inventory.catalogs.is_empty()).map(|_| false);
        without_inventory(&mut one, known, key);
        tables.push(one);
    }
    tables.sort_by(|one, other| {
        (&one.job, &one.table, &one.target, &one.source).cmp(&(
            &other.job,
            &other.table,
            &other.target,
            &other.source,
        ))
    });
    tables
}

/// Says of failed units how often they are tried.
pub fn tell_tries(inventory: &Inventory, known: &Known, failed: &mut [FailedUnit]) {
    let mut allowed = BTreeMap::new();
    each_series(inventory, known, |_, entry, _, key| {
        allowed.insert(key, entry.export.retries.saturating_add(1));
    });
    for unit in failed {
        let key = unit.series.clone().map(|series| (unit.source.clone(), series));
        unit.allowed = key.and_then(|key| allowed.get(&key).copied());
        unit.given_up = unit.allowed.is_some_and(|allowed| unit.tries >= allowed);
    }
}

/// Every table that the inventory moves, by the entry that does; patterns mean the tables that the ledger knows.
fn each_series(
    inventory: &Inventory,
    known: &Known,
    mut each: impl FnMut(&Job, &TableEntry, &TableName, SeriesKey),
) {
    let catalog = catalog(known);
    let owners = owners(inventory, &catalog);
    for (job_no, job) in inventory.jobs.iter().enumerate() {
        let Some(source) = inventory.source(&job.source) else { continue };
        let there = catalog.get(&source.name).map_or(&[][..], Vec::as_slice);
        for (entry_no, entry) in job.tables.iter().enumerate() {
            for table in resolve(entry, there) {
                let series = series_of(&source.database, &table, variant(entry, &table).as_deref());
                if owners.get(&(source.name.as_str(), series.clone())) == Some(&(job_no, entry_no)) {
                    each(job, entry, &table, (source.name.clone(), series));
                }
            }
        }
    }
}

/// The tables that the ledger knows, by source: what patterns are matched against without asking anybody.
fn catalog(known: &Known) -> Catalog {
    let tallies = known.tallies.iter().map(|((source, _), tally)| (source, &tally.table));
    let open = known.open.iter().map(|((source, _), open)| (source, &open.table));
    let mut catalog = Catalog::new();
    for (source, table) in tallies.chain(open) {
        if let Ok(table) = TableName::parse(table) {
            catalog.entry(source.clone()).or_default().push(table);
        }
    }
    for tables in catalog.values_mut() {
        tables.sort_unstable();
        tables.dedup();
    }
    catalog
}

/// What is simply counted.
fn numbers(known: &Known, key: &SeriesKey) -> TableStatus {
    let compared = known.compared.get(key).cloned();
    let (source, series) = key.clone();
    let mut one = TableStatus { source, series, compared, ..TableStatus::default() };
    if let Some(open) = known.open.get(key) {
        (one.job, one.table, one.target) = (open.job.clone(), open.table.clone(), open.target.clone());
        (one.exported, one.unfinished, one.failed) = (open.exported, open.unfinished, open.failed);
    }
    if let Some(tally) = known.tallies.get(key) {
        (one.job, one.table, one.target) = (tally.job.clone(), tally.table.clone(), tally.target.clone());
        (one.loaded, one.rows, one.bytes) = (tally.units, tally.rows, tally.bytes);
        one.loaded_at = Some(tally.loaded_at.clone());
        one.rejected = known.rejected.get(key).copied().unwrap_or(0);
        one.rows_today = known.recent.get(key).copied().unwrap_or(0);
    }
    one
}

/// What is loaded by a measure; what an older ledger kept without one counts for it.
fn loaded(known: &Known, key: &SeriesKey, measure: &Measure) -> Vec<Interval<i64>> {
    let Some(series) = known.facts.series(&key.0, &key.1) else { return Vec::new() };
    let by = series.loaded_by(measure).map_or(&[][..], |loaded| &loaded.intervals);
    merged(by.iter().chain(&series.unmeasured).copied().collect())
}

/// How far a table is without a gap: the end of what holds `from`; where that is not known, of what comes first.
fn reached(loaded: &[Interval<i64>], from: Option<i64>) -> Option<i64> {
    let holds = |one: &&Interval<i64>| from.is_none_or(|from| one.start() <= from && from < one.end());
    loaded.iter().find(holds).map(Interval::end)
}

fn windows(
    one: &mut TableStatus,
    by: &WindowBy,
    job: &Job,
    inventory: &Inventory,
    known: &Known,
    key: &SeriesKey,
    now: Timestamp,
) {
    let measure = by.measure();
    let loaded = loaded(known, key, &measure);
    one.measure = Some(measure.to_string());
    one.nulls_included = by.null_window == NullWindow::Include;
    let column = IdColumn { source: key.0.clone(), table: one.table.clone(), column: by.column.clone() };
    if let Some(nulls) = known.nulls.get(&column) {
        (one.null_rows, one.null_rows_at) = (nulls.rows, Some(nulls.at.clone()));
    }
    match by.cut {
        Cut::Ids { from, .. } => one.watermark = reached(&loaded, from).map(|id| id.to_string()),
        Cut::Time { length, .. } => {
            let from = job.from.map(micros);
            let until = job.until.map(micros);
            let reached = reached(&loaded, from);
            one.watermark = reached.map(|micros| civil(micros).to_string());
            let Some(at) = reached.or(from).filter(|at| until.is_none_or(|until| *at < until)) else {
                return;
            };
            let end = length.map(|length| {
                let grid = Grid { origin: from.unwrap_or(at), step: Some(length.micros()) };
                grid.floor(at).saturating_add(length.micros())
            });
            let Some(end) = end.into_iter().chain(until).min() else { return };
            let due = instant(civil(end), &inventory.timezone).and_then(|end| end.checked_add(by.lag).ok());
            one.late_seconds = due.and_then(|due| late(due, now));
        }
    }
}

/// For how many seconds something has been due.
fn late(due: Timestamp, now: Timestamp) -> Option<u64> {
    u64::try_from(now.duration_since(due).as_secs()).ok().filter(|late| *late > 0)
}

/// As far as the ledger alone can say: the measure of the last unit, and the first run of windows.
fn without_inventory(one: &mut TableStatus, known: &Known, key: &SeriesKey) {
    let measure = known.tallies.get(key).and_then(|tally| tally.measure.clone());
    let by = known.facts.series(&key.0, &key.1).and_then(|series| {
        let by = |measure: &&Measure| matches!(measure, Measure::By(..));
        measure.as_ref().filter(by).or_else(|| series.loaded.iter().map(|one| &one.measure).find(by))
    });
    let Some(measure) = by else {
        // An older ledger did not say by what, and then it was time.
        let unmeasured = known.facts.series(&key.0, &key.1).and_then(|series| series.unmeasured.first());
        one.watermark = unmeasured.map(|first| civil(first.end()).to_string());
        return;
    };
    one.measure = Some(measure.to_string());
    let is_id = matches!(measure, Measure::By(Scale::Id, _));
    let shown = |end: i64| if is_id { end.to_string() } else { civil(end).to_string() };
    one.watermark = reached(&loaded(known, key, measure), None).map(shown);
}
