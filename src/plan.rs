//! What is to be done now: inventory + catalog + ledger facts + now → [`Plan`]. Pure.
//!
//! `gpferry plan` prints what this returns and `gpferry run` executes it, so the two cannot disagree.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use globset::{Glob, GlobMatcher};
use jiff::Timestamp;
use jiff::civil::DateTime;
use serde::Serialize;

use crate::inventory::{Inventory, Job, Source, TableEntry, TableSelector, WindowRule};
use crate::names::TableName;
use crate::unit::{Unit, UnitKey, unit_id, variant};
use crate::window::{Window, cut};

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

/// Tables by source, as the source's catalog lists them: what globs are matched against.
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
        shared: tables_in_several_entries(inventory, catalog),
        taken: HashSet::new(),
        plan: Plan::default(),
    };
    let local_now = now.to_zoned(inventory.timezone.clone()).datetime();
    for job in inventory.jobs.iter().filter(|job| selects(selection, job)) {
        let Some(source) = inventory.source(&job.source) else { continue };
        for entry in &job.tables {
            let tables = resolve(entry, catalog.get(&source.name).map_or(&[][..], Vec::as_slice));
            if tables.is_empty() {
                planner.skip(job, describe(&entry.what), 0, Why::NoMatch);
            }
            let entry = Arc::new(entry.clone());
            for table in tables {
                if selection.tables.is_empty() || matches(&selection.tables, &table.to_string()) {
                    planner.add_table(source, job, &entry, table, local_now);
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
    /// Source tables that more than one entry moves: only these need a variant in their ids.
    shared: HashSet<(String, TableName)>,
    taken: HashSet<UnitKey>,
    plan: Plan,
}

impl Planner<'_> {
    fn add_table(
        &mut self,
        source: &Source,
        job: &Job,
        entry: &Arc<TableEntry>,
        table: TableName,
        now: DateTime,
    ) {
        let windows = match self.windows(job, &entry.window, now) {
            Ok(windows) => windows,
            Err(why) => return self.skip(job, table.to_string(), 0, why),
        };
        let shared = self.shared.contains(&(source.name.clone(), table.clone()));
        let variant = if shared { variant(entry) } else { None };
        let (mut loaded, mut taken) = (0, 0);
        for window in windows.due {
            let id = unit_id(&source.database, &table, window.as_ref(), variant.as_deref());
            let key = UnitKey { source: source.name.clone(), id };
            if self.known.get(&key) == Some(&Known::Loaded) {
                loaded += 1;
            } else if !self.taken.insert(key.clone()) {
                taken += 1;
            } else {
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

    /// The windows of one table between `from` and `until`, sorted in due and not due.
    fn windows(&self, job: &Job, rule: &WindowRule, now: DateTime) -> Result<Windows, Why> {
        let (length, lag) = match rule {
            WindowRule::None { .. } => return Ok(Windows { due: vec![None], not_due: 0 }),
            WindowRule::By { length, lag, .. } => (*length, *lag),
        };
        let from = self.selection.from.or(job.from).ok_or(Why::NoStart)?;
        let until = self.selection.until.or(job.until);
        let ripe = now.checked_sub(lag).unwrap_or(DateTime::MIN);
        let end = match (until, length) {
            (Some(until), _) => until,
            (None, None) => return Err(Why::NoEnd),
            // A window that `now` would cut short is not over: it is looked at whole, and found not due.
            (None, Some(length)) => length.after(ripe).unwrap_or(DateTime::MAX),
        };
        let mut windows = Windows { due: Vec::new(), not_due: 0 };
        for window in cut(from, end, length) {
            if window.end() <= ripe {
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

fn tables_in_several_entries(inventory: &Inventory, catalog: &Catalog) -> HashSet<(String, TableName)> {
    let mut seen = HashSet::new();
    let mut several = HashSet::new();
    for job in &inventory.jobs {
        let tables = catalog.get(&job.source).map_or(&[][..], Vec::as_slice);
        for table in job.tables.iter().flat_map(|entry| resolve(entry, tables)) {
            let key = (job.source.clone(), table);
            if !seen.insert(key.clone()) {
                several.insert(key);
            }
        }
    }
    several
}
