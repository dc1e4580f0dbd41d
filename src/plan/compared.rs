//! What is compared: inventory + catalog + ledger facts + now → the windows of each table that are loaded. Pure.
//!
//! A row belongs to a window by the same condition on both sides, whatever brought it there. So nothing is left out here
//! that was loaded by another column: the same rows of both sides are held against each other.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::{Catalog, Facts, Selection, Series, describe, matches, owners, resolve, selects};
use crate::interval::{Grid, Interval, merged};
use crate::inventory::{Cut, Inventory, Job, LoadMode, TableEntry, WindowBy, WindowRule};
use crate::measure::{Measure, Scale, all_numbers};
use crate::names::TableName;
use crate::unit::{Extent, Rows, Unit, UnitKey, series_of, unit_id, variant};
use crate::window::{Window, civil, micros, settled};

/// So many windows of a table are compared at once.
const MOST: usize = 200_000;

/// Windows of one table that are compared.
#[derive(Debug, Clone)]
pub struct Compared {
    /// The job.
    pub job: String,
    /// The source's name.
    pub source: String,
    /// The table in the source.
    pub table: TableName,
    /// The table in the target.
    pub target: TableName,
    /// Its entry in the inventory.
    pub entry: Arc<TableEntry>,
    /// By what its rows are told apart.
    pub rows: Arc<Rows>,
    /// The windows.
    pub windows: Windows,
}

/// Windows, in order. Thousands of tables have them: they are cut when their table's turn comes.
#[derive(Debug, Clone)]
pub enum Windows {
    /// These.
    Listed(Vec<Extent>),
    /// Cells of a grid.
    Cut {
        /// The grid.
        grid: Grid,
        /// What is loaded, in order.
        loaded: Vec<Interval<i64>>,
        /// Only cells that end here at the latest.
        over: i64,
        /// Only cells that touch this.
        range: Interval<i64>,
        /// Are they of ids?
        is_ids: bool,
    },
}

impl Windows {
    fn cells(&self) -> Box<dyn Iterator<Item = Extent> + '_> {
        match self {
            Windows::Listed(extents) => Box::new(extents.iter().copied()),
            Windows::Cut { grid, loaded, over, range, is_ids } => {
                let cells = loaded.iter().flat_map(|one| grid.cells(*one));
                let meant = |cell: &Interval<i64>| cell.end() <= *over && cell.overlaps(range);
                Box::new(cells.filter(meant).map(|cell| extent(*is_ids, cell)))
            }
        }
    }

    fn count(&self) -> usize {
        match self {
            Windows::Listed(extents) => extents.len(),
            Windows::Cut { grid, loaded, .. } => loaded.iter().map(|one| grid.count(*one)).sum(),
        }
    }
}

impl Compared {
    /// The windows, in order.
    pub fn extents(&self) -> Vec<Extent> {
        self.windows.cells().collect()
    }

    /// The unit that a window is.
    pub fn unit(&self, extent: Extent) -> Unit {
        let id = unit_id(&self.rows.series, &extent, self.rows.tag.as_deref());
        Unit {
            key: UnitKey { source: self.source.as_str().into(), id },
            job: self.job.as_str().into(),
            table: self.table.clone(),
            target: self.target.clone(),
            extent,
            waits: false,
            rows: Arc::clone(&self.rows),
            entry: Arc::clone(&self.entry),
        }
    }
}

/// A table that is not compared, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uncompared {
    /// The job.
    pub job: String,
    /// The source's name.
    pub source: String,
    /// The table, or the pattern that matched none.
    pub table: String,
    /// Why.
    pub why: NotCompared,
}

/// Why a table is not compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum NotCompared {
    /// Nothing of it is loaded.
    NothingLoaded,
    /// What is loaded lies outside of `--from` and `--until`, or is younger than `lag`.
    NoneInRange,
    /// `--from` and `--until` are times, and its windows are of ids.
    NotByTime,
    /// More windows than are held in memory.
    TooMany,
    /// No table of the source's catalog matches the glob.
    NoMatch,
    /// The source could not be asked for its tables.
    NotListed,
    /// Mode `update` puts no rows there, and leaves those alone that the source does not have.
    Updated,
    /// Others fill the target table too, and nothing tells whose rows are whose.
    Shared {
        /// The other tables, as `source:schema.table`.
        with: String,
    },
}

impl NotCompared {
    /// Is it something that should have been compared?
    pub fn is_open(&self) -> bool {
        match self {
            Self::NotListed | Self::TooMany | Self::Updated | Self::Shared { .. } => true,
            Self::NothingLoaded | Self::NoneInRange | Self::NotByTime | Self::NoMatch => false,
        }
    }

    /// In words.
    pub fn words(&self) -> String {
        match self {
            Self::NothingLoaded => "nothing of it is loaded".into(),
            Self::NoneInRange => "nothing of it is loaded in that range, or it is younger than `lag`".into(),
            Self::NotByTime => "its windows are of ids, and --from and --until are times".into(),
            Self::TooMany => format!("it has more than {MOST} windows: make the range shorter by --from and --until"),
            Self::NoMatch => "no table of the source matches".into(),
            Self::NotListed => "its source could not be asked for it".into(),
            Self::Updated => {
                "not comparable: mode `update` changes rows that are there, and neither side has to have the other's".into()
            }
            Self::Shared { with } => format!(
                "not comparable: the target receives {with} as well, and nothing tells whose rows are whose; write \
                 `compare: {{ where: … }}` with a condition on the target's rows"
            ),
        }
    }
}

/// What is compared, and what is not.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    /// In the order of the inventory.
    pub tables: Vec<Compared>,
    /// What is not.
    pub left_out: Vec<Uncompared>,
}

/// What is to be compared at `now`.
pub fn compared(
    inventory: &Inventory,
    selection: &Selection,
    catalog: &Catalog,
    facts: &Facts,
    now: Timestamp,
) -> Comparison {
    let owners = owners(inventory, catalog);
    let shared = fillers(inventory, catalog);
    let mut comparison = Comparison::default();
    for (job_no, job) in inventory.jobs.iter().enumerate().filter(|(_, job)| selects(selection, job)) {
        let Some(source) = inventory.source(&job.source) else { continue };
        for (entry_no, entry) in job.tables.iter().enumerate() {
            let found = resolve(entry, catalog.get(&source.name).map_or(&[][..], Vec::as_slice));
            let left_out = |table: String, why| Uncompared {
                job: job.name.clone(),
                source: source.name.clone(),
                table,
                why,
            };
            if found.is_empty() {
                let listed = catalog.contains_key(&source.name);
                let why = if listed { NotCompared::NoMatch } else { NotCompared::NotListed };
                comparison.left_out.push(left_out(describe(&entry.what), why));
            }
            for table in found {
                let series = series_of(&source.database, &table, variant(entry, &table).as_deref());
                let is_own = owners.get(&(source.name.as_str(), series.clone())) == Some(&(job_no, entry_no));
                let is_meant = selection.tables.is_empty() || matches(&selection.tables, &table.to_string());
                if !is_own || !is_meant {
                    continue;
                }
                let target = entry.target.clone().unwrap_or_else(|| table.clone());
                let piece = Piece {
                    job,
                    entry,
                    table: &table,
                    target: &target,
                    series: &series,
                    zone: &inventory.timezone,
                    now,
                };
                let others = shared.get(&target).map_or(&[][..], Vec::as_slice);
                match piece.windows(selection, facts.series(&source.name, &series), others) {
                    Ok(some) => comparison.tables.extend(some),
                    Err(why) => comparison.left_out.push(left_out(table.to_string(), why)),
                }
            }
        }
    }
    comparison
}

/// Every table that fills a table of the target: its source, its name, its series.
fn fillers<'a>(
    inventory: &'a Inventory,
    catalog: &Catalog,
) -> HashMap<TableName, Vec<(&'a str, TableName, String)>> {
    let mut fillers: HashMap<TableName, Vec<(&str, TableName, String)>> = HashMap::new();
    for job in &inventory.jobs {
        let Some(source) = inventory.source(&job.source) else { continue };
        for entry in &job.tables {
            for table in resolve(entry, catalog.get(&source.name).map_or(&[][..], Vec::as_slice)) {
                let series = series_of(&source.database, &table, variant(entry, &table).as_deref());
                let target = entry.target.clone().unwrap_or_else(|| table.clone());
                fillers.entry(target).or_default().push((&source.name, table, series));
            }
        }
    }
    fillers
}

struct Piece<'a> {
    job: &'a Job,
    entry: &'a Arc<TableEntry>,
    table: &'a TableName,
    target: &'a TableName,
    series: &'a str,
    zone: &'a TimeZone,
    now: Timestamp,
}

impl Piece<'_> {
    fn windows(
        &self,
        selection: &Selection,
        known: Option<&Series>,
        fillers: &[(&str, TableName, String)],
    ) -> Result<Vec<Compared>, NotCompared> {
        if self.entry.load.mode == LoadMode::Update {
            return Err(NotCompared::Updated);
        }
        let source = &self.job.source;
        let others: Vec<String> = fillers
            .iter()
            .filter(|(name, _, series)| *name != source || series != self.series)
            .map(|(name, table, _)| format!("{name}:{table}"))
            .collect();
        let told_apart = self.entry.compare.filter.is_some() || self.entry.filter.is_some();
        if !others.is_empty() && !told_apart {
            return Err(NotCompared::Shared { with: others.join(", ") });
        }
        let known = known.ok_or(NotCompared::NothingLoaded)?;
        let (mut some, mut by_ids) = (Vec::new(), false);
        for (measure, tag, loaded) in self.loaded(known) {
            let windows = match (&measure, &self.entry.window) {
                (Measure::All, _) => Windows::Listed(vec![Extent::Whole]),
                (Measure::Null(_), _) if selection.from.is_some() || selection.until.is_some() => continue,
                (Measure::Null(_), _) => Windows::Listed(vec![Extent::Nulls]),
                // Some slices of a table that is not there whole yet.
                (Measure::Slice(..), _) => continue,
                (Measure::By(Scale::Id, _), _) if selection.from.is_some() || selection.until.is_some() => {
                    by_ids = true;
                    continue;
                }
                (Measure::By(..), WindowRule::By(by)) if by.measure() == measure => {
                    self.cells(by, selection, loaded)
                }
                // By a column of before: what is known of its windows is where they end together.
                (Measure::By(scale, _), _) => {
                    let range = range(selection);
                    let meant = |one: &&Interval<i64>| *scale == Scale::Id || one.overlaps(&range);
                    let listed = loaded.iter().filter(meant).map(|one| extent(*scale == Scale::Id, *one));
                    Windows::Listed(listed.collect())
                }
            };
            if windows.count() > MOST {
                return Err(NotCompared::TooMany);
            }
            if windows.cells().next().is_none() {
                continue;
            }
            let rows = Rows { series: self.series.to_owned(), measure, tag, without: Vec::new() };
            some.push(Compared {
                job: self.job.name.clone(),
                source: source.clone(),
                table: self.table.clone(),
                target: self.target.clone(),
                entry: Arc::clone(self.entry),
                rows: Arc::new(rows),
                windows,
            });
        }
        match (some.is_empty(), by_ids, known.loaded.is_empty() && known.unmeasured.is_empty()) {
            (false, _, _) => Ok(some),
            (true, true, _) => Err(NotCompared::NotByTime),
            (true, false, true) => Err(NotCompared::NothingLoaded),
            (true, false, false) => Err(NotCompared::NoneInRange),
        }
    }

    /// What is loaded, by measure. What was kept without one counts for the entry's, where that is one of time.
    fn loaded(&self, known: &Series) -> Vec<(Measure, Option<String>, Vec<Interval<i64>>)> {
        let own = match &self.entry.window {
            WindowRule::By(by) => Some(by.measure()),
            WindowRule::None { .. } => None,
        };
        let mut loaded: Vec<_> = known
            .loaded
            .iter()
            .filter(|one| !one.intervals.is_empty())
            .map(|one| (one.measure.clone(), one.tag.clone(), one.intervals.clone()))
            .collect();
        if let Some(own) = own.filter(|own| own.is_time() && !known.unmeasured.is_empty()) {
            match loaded.iter_mut().find(|(measure, _, _)| *measure == own) {
                Some((_, _, intervals)) => {
                    *intervals = merged(intervals.iter().chain(&known.unmeasured).copied().collect());
                }
                None => loaded.push((own, None, known.unmeasured.clone())),
            }
        }
        loaded
    }

    /// Today's windows, as far as they are loaded, are over for `lag`, and touch the range that was asked for.
    fn cells(&self, by: &WindowBy, selection: &Selection, loaded: Vec<Interval<i64>>) -> Windows {
        let first = loaded.first().map_or(0, Interval::start);
        let (grid, over, is_ids) = match by.cut {
            Cut::Time { length, .. } => {
                let ripe = self.now.checked_sub(by.lag).unwrap_or(Timestamp::MIN);
                let origin = self.job.from.map_or(first, micros);
                let grid = Grid { origin, step: length.map(|length| length.micros()) };
                (grid, micros(settled(ripe, self.zone)), false)
            }
            Cut::Ids { step, from, .. } => {
                (Grid { origin: from.unwrap_or(first), step: Some(step) }, i64::MAX, true)
            }
        };
        let range = if is_ids { all_numbers() } else { range(selection) };
        let loaded = near(grid, loaded, range);
        Windows::Cut { grid, loaded, over, range, is_ids }
    }
}

/// What of the loaded intervals lies near a range, to whole cells: what is far from it is not cut at all.
fn near(grid: Grid, loaded: Vec<Interval<i64>>, range: Interval<i64>) -> Vec<Interval<i64>> {
    let loaded = loaded.into_iter().filter(|one| one.overlaps(&range));
    let Some(step) = grid.step else { return loaded.collect() };
    let (first, end) = (range.start().saturating_sub(step), range.end().saturating_add(step));
    let whole = |one: Interval<i64>| {
        let start = if one.start() < first { grid.floor(first) } else { one.start() };
        let end = if one.end() > end { grid.floor(end) } else { one.end() };
        Interval::new(start.max(one.start()), end.min(one.end()))
    };
    loaded.filter_map(whole).collect()
}

/// What `--from` and `--until` mean.
fn range(selection: &Selection) -> Interval<i64> {
    let start = selection.from.map_or(i64::MIN, micros);
    let end = selection.until.map_or(i64::MAX, micros);
    Interval::new(start, end).unwrap_or_else(all_numbers)
}

fn extent(is_ids: bool, cell: Interval<i64>) -> Extent {
    if is_ids {
        return Extent::Ids(cell);
    }
    // Both ends are the numbers of civil times, one before the other.
    Window::new(civil(cell.start()), civil(cell.end())).map_or(Extent::Ids(cell), Extent::Times)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What is cut only near a range has the edges that it has without one.
        #[test]
        fn a_range_chooses_windows_and_cuts_none(
            loaded in proptest::collection::vec((0i64..300, 1i64..90), 0..6), origin in 0i64..40, step in 1i64..30,
            over in 0i64..500, range in (-20i64..320, 1i64..200), is_open in any::<bool>(),
        ) {
            let loaded = merged(loaded.into_iter().filter_map(|(start, length)| Interval::new(start, start + length)).collect());
            let range = if is_open { all_numbers() } else { Interval::new(range.0, range.0 + range.1).unwrap() };
            let grid = Grid { origin, step: Some(step) };
            let all: Vec<_> = loaded.iter().flat_map(|one| grid.cells(*one)).collect();
            let wanted: Vec<Extent> =
                all.into_iter().filter(|cell| cell.end() <= over && cell.overlaps(&range)).map(Extent::Ids).collect();
            let near = near(grid, loaded, range);
            let cut = Windows::Cut { grid, loaded: near, over, range, is_ids: true };
            prop_assert!(cut.count() >= wanted.len());
            prop_assert_eq!(cut.cells().collect::<Vec<_>>(), wanted);
        }
    }
}
