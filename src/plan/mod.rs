//! What is to be done now: inventory + catalog + ledger facts + now → [`Plan`]. Pure.
//!
//! `gpferry plan` prints what this returns and `gpferry run` executes it, so the two cannot disagree.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use globset::{Glob, GlobMatcher};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::inventory::{Inventory, Job, Source, TableEntry, TableSelector, WindowRule};
use crate::names::TableName;
use crate::unit::{Unit, UnitKey, series, unit_id, variant};
use crate::window::{Window, cut, last_instant};

mod tables;
#[cfg(test)]
mod tests;

pub use tables::{Needed, tables};

/// What an operator narrowed a command to. Empty lists mean everything.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Globs over job names.
    pub jobs: Vec<Glob>,
    /// Globs over `schema.table`.
    pub tables: Vec<Glob>,
    /// Source names.
    pub sources: Vec<String>,
    /// Instead of the job's `from`.
    pub from: Option<DateTime>,
    /// Instead of the job's `until`.
    pub until: Option<DateTime>,
    /// At most so many units.
    pub max_units: Option<usize>,
}

/// What is known of a unit from earlier runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Its rows are in the target.
    Loaded,
    /// Its file is on the mount, its rows are not in the target.
    Exported,
    /// It failed, or was begun and never finished.
    Unfinished,
}

/// Tables by source, as the source's catalog lists them: what globs are matched against. A source that could not
/// be asked is not in it.
pub type Catalog = BTreeMap<String, Vec<TableName>>;

/// Everything that is due, and what is not and why.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// What `run` executes, in the order it starts them.
    pub units: Vec<Unit>,
    /// What it leaves alone.
    pub skipped: Vec<Skipped>,
}

/// A table, or part of one, that is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The job.
    pub job: String,
    /// The table, or the glob that matched none.
    pub table: String,
    /// How many units that is; 0 where nobody can say.
    pub units: usize,
    /// Why.
    pub why: Why,
}

/// Why something is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Loaded by an earlier run.
    AlreadyLoaded,
    /// The window's end plus `lag` is still to come.
    NotDueYet,
    /// The job has no `from`, and no `--from` was given.
    NoStart,
    /// There is no `length` and no `until`, so no window ends.
    NoEnd,
    /// The source could not be asked for its tables.
    NotListed,
    /// No table of the source's catalog matches the glob.
    NoMatch,
    /// Another entry of the inventory already moves this table to the same target.
    MovedByAnotherEntry,
    /// Beyond `--max-units`.
    OverLimit,
}

impl Why {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Why::AlreadyLoaded => "already loaded",
            Why::NotDueYet => "not due yet",
            Why::NoStart => "no `from` in the job; give one, or --from",
            Why::NoEnd => "neither `length` nor `until`, so no window ever ends",
            Why::NotListed => "its source could not be asked for its tables",
            Why::NoMatch => "no table of the source matches",
            Why::MovedByAnotherEntry => "moved by another entry of the inventory",
            Why::OverLimit => "beyond --max-units",
        }
    }
}

/// Does a selection of jobs and sources leave this job in?
pub fn selects(selection: &Selection, job: &Job) -> bool {
    let by_job = selection.jobs.is_empty() || matches(&selection.jobs, &job.name);
    let by_source = selection.sources.is_empty() || selection.sources.contains(&job.source);
    by_job && by_source
}

/// The sources whose catalog a plan needs, because a selected job has a glob over it.
pub fn sources_with_globs<'a>(inventory: &'a Inventory, selection: &Selection) -> Vec<&'a Source> {
    let wanted: HashSet<&str> = inventory
        .jobs
        .iter()
        .filter(|job| selects(selection, job))
        .filter(|job| job.tables.iter().any(|entry| matches!(entry.what, TableSelector::Glob { .. })))
        .map(|job| job.source.as_str())
        .collect();
    inventory.sources.iter().filter(|source| wanted.contains(source.name.as_str())).collect()
}

/// What is due at `now`. Order: jobs and tables as written, windows by time.
pub fn plan(
    inventory: &Inventory,
    selection: &Selection,
    catalog: &Catalog,
    known: &HashMap<UnitKey, Known>,
    now: Timestamp,
) -> Plan {
    let mut planner = Planner {
        selection,
        known,
        covered: covered(known),
        zone: &inventory.timezone,
        now,
        taken: HashSet::new(),
        plan: Plan::default(),
    };
    for job in inventory.jobs.iter().filter(|job| selects(selection, job)) {
        let Some(source) = inventory.source(&job.source) else { continue };
        for entry in &job.tables {
            let tables = resolve(entry, catalog.get(&source.name).map_or(&[][..], Vec::as_slice));
            if tables.is_empty() {
                let why = if catalog.contains_key(&source.name) { Why::NoMatch } else { Why::NotListed };
                planner.skip(job, describe(&entry.what), 0, why);
            }
            let entry = Arc::new(entry.clone());
            for table in tables {
                if selection.tables.is_empty() || matches(&selection.tables, &table.to_string()) {
                    planner.add_table(source, job, &entry, table);
                }
            }
        }
    }
    planner.limit();
    planner.plan
}

/// The growing plan, and what it needs to know of the rest.
struct Planner<'a> {
    selection: &'a Selection,
    known: &'a HashMap<UnitKey, Known>,
    /// What is loaded of each series of a source: intervals that neither touch nor overlap, in order.
    covered: HashMap<(&'a str, String), Vec<Window>>,
    zone: &'a TimeZone,
    now: Timestamp,
    taken: HashSet<UnitKey>,
    plan: Plan,
}

impl Planner<'_> {
    fn add_table(&mut self, source: &Source, job: &Job, entry: &Arc<TableEntry>, table: TableName) {
        let windows = match self.windows(job, &entry.window) {
            Ok(windows) => windows,
            Err(why) => return self.skip(job, table.to_string(), 0, why),
        };
        let variant = variant(entry, &table);
        let (mut loaded, mut taken) = (0, 0);
        let id_of = |window: Option<&Window>| unit_id(&source.database, &table, window, variant.as_deref());
        for window in windows.due {
            let pieces = self.missing(&source.name, &id_of, window);
            loaded += usize::from(pieces.is_empty());
            for window in pieces {
                let key = UnitKey { source: source.name.clone(), id: id_of(window.as_ref()) };
                if !self.taken.insert(key.clone()) {
                    taken += 1;
                    continue;
                }
                let target = entry.target.clone().unwrap_or_else(|| table.clone());
                self.plan.units.push(Unit {
                    key,
                    job: job.name.clone(),
                    table: table.clone(),
                    target,
                    window,
                    entry: Arc::clone(entry),
                });
            }
        }
        for (units, why) in [
            (loaded, Why::AlreadyLoaded),
            (taken, Why::MovedByAnotherEntry),
            (windows.not_due, Why::NotDueYet),
        ] {
            if units > 0 {
                self.skip(job, table.to_string(), units, why);
            }
        }
    }

    /// What of a window is not loaded yet: all of it, none, or what windows of other bounds left of it. What is
    /// loaded keeps its bounds, whatever the inventory says now; nothing is moved twice.
    fn missing(
        &self,
        source: &'_ str,
        id_of: &impl Fn(Option<&Window>) -> String,
        window: Option<Window>,
    ) -> Vec<Option<Window>> {
        let id = id_of(window.as_ref());
        let series = series(&id);
        if self.known.get(&UnitKey { source: source.to_owned(), id }) == Some(&Known::Loaded) {
            return Vec::new();
        }
        let Some((series, window)) = series else { return vec![None] };
        match self.covered.get(&(source, series)) {
            None => vec![Some(window)],
            Some(covered) => subtract(window, covered).into_iter().map(Some).collect(),
        }
    }

    /// The windows of one table between `from` and `until`, sorted in due and not due.
    fn windows(&self, job: &Job, rule: &WindowRule) -> Result<Windows, Why> {
        let (length, lag) = match rule {
            WindowRule::None { .. } => return Ok(Windows { due: vec![None], not_due: 0 }),
            WindowRule::By { length, lag, .. } => (*length, *lag),
        };
        let from = self.selection.from.or(job.from).ok_or(Why::NoStart)?;
        let until = self.selection.until.or(job.until);
        let ripe = self.now.checked_sub(lag).unwrap_or(Timestamp::MIN);
        let end = match (until, length) {
            (Some(until), _) => until,
            (None, None) => return Err(Why::NoEnd),
            // A window that `now` would cut short is not over: it is looked at whole, and found not due.
            (None, Some(length)) => {
                length.after(ripe.to_zoned(self.zone.clone()).datetime()).unwrap_or(DateTime::MAX)
            }
        };
        let mut windows = Windows { due: Vec::new(), not_due: 0 };
        for window in cut(from, end, length) {
            // A clock that is set back shows the window's times again: until then its rows may still come.
            if last_instant(window.end(), self.zone).is_some_and(|end| end <= ripe) {
                windows.due.push(Some(window));
            } else if until.is_some() {
                windows.not_due += 1;
            } else {
                windows.not_due = 1;
                break;
            }
        }
        Ok(windows)
    }

    fn skip(&mut self, job: &Job, table: String, units: usize, why: Why) {
        self.plan.skipped.push(Skipped { job: job.name.clone(), table, units, why });
    }

    /// Keeps the first `--max-units`, and says of which tables the rest is.
    fn limit(&mut self) {
        let Some(limit) = self.selection.max_units.filter(|&limit| limit < self.plan.units.len()) else {
            return;
        };
        let mut beyond: BTreeMap<(String, String), usize> = BTreeMap::new();
        for unit in self.plan.units.drain(limit..) {
            *beyond.entry((unit.job, unit.table.to_string())).or_default() += 1;
        }
        self.plan.skipped.extend(beyond.into_iter().map(|((job, table), units)| Skipped {
            job,
            table,
            units,
            why: Why::OverLimit,
        }));
    }
}

/// One table's windows. `None` in `due` is the whole table.
struct Windows {
    due: Vec<Option<Window>>,
    not_due: usize,
}

/// What is loaded, by source and series, merged.
fn covered(known: &HashMap<UnitKey, Known>) -> HashMap<(&str, String), Vec<Window>> {
    let mut all: HashMap<(&str, String), Vec<Window>> = HashMap::new();
    for key in known.iter().filter(|(_, known)| **known == Known::Loaded).map(|(key, _)| key) {
        if let Some((series, window)) = series(&key.id) {
            all.entry((&key.source, series)).or_default().push(window);
        }
    }
    for windows in all.values_mut() {
        windows.sort_unstable();
        *windows = windows.drain(..).fold(Vec::new(), |mut merged: Vec<Window>, next| {
            match merged.last_mut() {
                Some(last) if next.start() <= last.end() => {
                    *last = Window::new(last.start(), last.end().max(next.end())).unwrap_or(next);
                }
                Some(_) | None => merged.push(next),
            }
            merged
        });
    }
    all
}

/// The parts of a window that none of `covered` covers.
fn subtract(window: Window, covered: &[Window]) -> Vec<Window> {
    let first = covered.partition_point(|other| other.end() <= window.start());
    let mut parts = Vec::new();
    let mut reached = window.start();
    for other in covered[first..].iter().take_while(|other| other.start() < window.end()) {
        parts.extend(Window::new(reached, other.start()));
        reached = reached.max(other.end());
    }
    parts.extend(Window::new(reached, window.end()));
    parts
}

/// The tables that an entry means, in the catalog's order.
pub(crate) fn resolve(entry: &TableEntry, catalog: &[TableName]) -> Vec<TableName> {
    match &entry.what {
        TableSelector::One(table) => vec![table.clone()],
        TableSelector::Glob { schema, table } => match (matcher(schema), matcher(table)) {
            (Some(schema), Some(table)) => catalog
                .iter()
                .filter(|name| schema.is_match(name.schema()) && table.is_match(name.table()))
                .cloned()
                .collect(),
            // The inventory's reader has refused globs that do not compile.
            (None, _) | (_, None) => Vec::new(),
        },
    }
}

fn matcher(glob: &str) -> Option<GlobMatcher> {
    Glob::new(glob).ok().map(|glob| glob.compile_matcher())
}

pub(crate) fn matches(globs: &[Glob], text: &str) -> bool {
    globs.iter().any(|glob| glob.compile_matcher().is_match(text))
}

pub(crate) fn describe(what: &TableSelector) -> String {
    match what {
        TableSelector::One(table) => table.to_string(),
        TableSelector::Glob { schema, table } => format!("{schema}.{table}"),
    }
}
