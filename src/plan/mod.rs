//! What is to be done now: inventory + catalog + ledger facts + now → [`Plan`]. Pure.
//!
//! `gpferry plan` prints what this returns and `gpferry run` executes it, so the two cannot disagree.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use globset::{Glob, GlobMatcher};
use jiff::Timestamp;
use jiff::civil::DateTime;
use serde::Serialize;

use crate::inventory::{Cut, Inventory, Job, Pattern, Source, TableEntry, TableSelector, WindowRule};
use crate::measure::Measure;
use crate::names::TableName;
use crate::owed::OwedKey;
use crate::unit::{Unit, UnitKey, series_of, variant};

mod compared;
mod facts;
mod needed;
mod owed;
pub mod slices;
mod tables;
#[cfg(test)]
mod tests;

pub use compared::{Compared, Comparison, NotCompared, Uncompared, Windows, compared};
pub use facts::{Facts, IdColumn, Open, OpenState, SeenIds, Series, WantedIds};
pub use needed::{Needed, tables};
pub use owed::{key_can_wait, means_target};
use tables::{Ground, Tables};

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
    /// Also what was given up.
    pub retry_failed: bool,
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
    /// What an operator should know of tables whose rules changed.
    pub notes: Vec<Note>,
    /// Units that were begun under other bounds and are moved under new ones now: nothing is left to do for them.
    pub replaced: Vec<UnitKey>,
    /// By what tables are taken to have been moved whose windows an older gpferry kept without a measure.
    pub assumed: Vec<Assumed>,
    /// Primary keys that tables of this selection are still to get: `run` builds them.
    pub owed: Vec<OwedKey>,
}

/// The measure of windows that were kept without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assumed {
    /// The source's name.
    pub source: String,
    /// The series.
    pub series: String,
    /// What it was, as nothing else is known: what the inventory says.
    pub measure: Measure,
}

impl Plan {
    /// Is something left alone that should have been moved? Then not all is well, though nothing failed now.
    pub fn leaves_something(&self) -> bool {
        let undone = [Why::GivenUp, Why::MovedWhole, Why::Unmeasured, Why::NotListed];
        self.skipped.iter().any(|skipped| undone.contains(&skipped.why))
    }
}

/// Something about a table that changed since it was last moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The job.
    pub job: String,
    /// The table.
    pub table: String,
    /// What changed.
    pub change: Change,
}

/// What changed since a table was last moved. Whatever it is, what is loaded keeps its bounds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Change {
    /// Nothing of it was moved before, while other tables of the job were.
    New,
    /// Units are due that lie before everything that is loaded.
    Earlier,
    /// Windows were loaded by other bounds than those that the inventory gives now.
    Bounds,
    /// Something was loaded by another window column, or by the same one read in another way.
    Column {
        /// What the rows were told apart by, as `time:evt_timestamp`.
        was: String,
    },
    /// It is large, and something about that is to be known.
    Large {
        /// What.
        why: &'static str,
    },
    /// By which way it is exported, and why, where there is a choice.
    Exported {
        /// In words.
        how: String,
    },
}

impl Change {
    /// In words.
    pub fn words(&self) -> String {
        match self {
            Change::New => "new in this job: moved from the job's `from` on".into(),
            Change::Earlier => "what is due begins before everything that is loaded: `from` was moved back".into(),
            Change::Bounds => {
                "loaded windows have other bounds than the inventory gives now: they keep them, and only what lies \
                 between is moved"
                    .into()
            }
            Change::Large { why } => format!("large: {why}"),
            Change::Exported { how } => how.clone(),
            Change::Column { was } => {
                format!("rows that were loaded by {was} are left out; the rest is moved by the column of now")
            }
        }
    }
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
    /// The job's `hours` are over, or not begun.
    OutsideHours,
    /// It failed in as many runs as `retries` allows.
    GivenUp,
    /// The job has no `from`, and no `--from` was given.
    NoStart,
    /// There is no `length` and no `until`, so no window ends.
    NoEnd,
    /// `--from` and `--until` are times, and its windows are of ids.
    NotByTime,
    /// It was moved whole before, so nobody can tell which of its windows are there.
    MovedWhole,
    /// An older gpferry moved windows of it and did not write down by which column.
    Unmeasured,
    /// The source could not be asked for its tables, or for the ids in this one.
    NotListed,
    /// No table of the source's catalog matches the glob.
    NoMatch,
    /// Another entry of the inventory already moves this table to the same target.
    MovedByAnotherEntry,
    /// More windows of one table than are planned at once.
    TooMany,
    /// Beyond `--max-units`.
    OverLimit,
}

impl Why {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Why::AlreadyLoaded => "already loaded",
            Why::NotDueYet => "not due yet",
            Why::OutsideHours => "outside the job's `hours`",
            Why::GivenUp => {
                "failed in as many runs as `retries` allows; `gpferry status` says why, `run --retry-failed` tries again"
            }
            Why::NoStart => "no `from` in the job; give one, or --from",
            Why::NoEnd => "neither `length` nor `until`, so no window ever ends",
            Why::NotByTime => "its windows are of ids, and --from and --until are times",
            Why::MovedWhole => {
                "moved whole before, so nobody can tell which windows are in the target; write `window: none` again, \
                 or move it to another target"
            }
            Why::Unmeasured => {
                "an older gpferry moved windows of it and did not write down by which column; write that one again \
                 for one run"
            }
            Why::NotListed => "its source could not be asked for it",
            Why::NoMatch => "no table of the source matches",
            Why::MovedByAnotherEntry => "moved by another entry of the inventory",
            Why::TooMany => "more windows than are planned at once; the next run goes on from here",
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

/// The columns of growing ids that a plan needs to have looked at. Hours do not matter: what is seen at one time is
/// settled at a later one.
pub fn wanted_ids(inventory: &Inventory, selection: &Selection, catalog: &Catalog) -> Vec<WantedIds> {
    let mut columns = Vec::new();
    for job in inventory.jobs.iter().filter(|job| selects(selection, job)) {
        let catalog = catalog.get(&job.source).map_or(&[][..], Vec::as_slice);
        for entry in &job.tables {
            let WindowRule::By(by) = &entry.window else { continue };
            if !matches!(by.cut, Cut::Ids { .. }) {
                continue;
            }
            let is_wanted = |table: &TableName| {
                selection.tables.is_empty() || matches(&selection.tables, &table.to_string())
            };
            columns.extend(resolve(entry, catalog).into_iter().filter(is_wanted).map(|table| {
                let (source, name) = (job.source.clone(), table.to_string());
                let column = IdColumn { source, table: name, column: by.column.clone() };
                WantedIds { column, table, lag: by.lag }
            }));
        }
    }
    columns
}

/// What is due at `now`. Order: jobs and tables as written, units by their windows.
pub fn plan(
    inventory: &Inventory,
    selection: &Selection,
    catalog: &Catalog,
    facts: &Facts,
    now: Timestamp,
) -> Plan {
    let owners = owners(inventory, catalog);
    let mut plan = Plan::default();
    for (job_no, job) in inventory.jobs.iter().enumerate().filter(|(_, job)| selects(selection, job)) {
        let Some(source) = inventory.source(&job.source) else { continue };
        let names = (source.name.as_str().into(), job.name.as_str().into());
        let ground = Ground { selection, facts, source, job, names: &names, zone: &inventory.timezone, now };
        let mut tables = Tables::new(ground, &mut plan);
        for (entry_no, entry) in job.tables.iter().enumerate() {
            let found = resolve(entry, catalog.get(&source.name).map_or(&[][..], Vec::as_slice));
            if found.is_empty() {
                let why = if catalog.contains_key(&source.name) { Why::NoMatch } else { Why::NotListed };
                tables.skip(&describe(&entry.what), 0, why);
            }
            for table in found {
                if !selection.tables.is_empty() && !matches(&selection.tables, &table.to_string()) {
                    continue;
                }
                let series = series_of(&source.database, &table, variant(entry, &table).as_deref());
                if owners.get(&(source.name.as_str(), series.clone())) == Some(&(job_no, entry_no)) {
                    tables.add(entry, table, series);
                } else {
                    tables.skip(&table.to_string(), 0, Why::MovedByAnotherEntry);
                }
            }
        }
        tables.finish();
    }
    limit(&mut plan, selection);
    let meant = |key: &&OwedKey| means_target(inventory, selection, &key.table);
    plan.owed = facts.owed.iter().filter(meant).cloned().collect();
    // A run holds it to its end.
    plan.units.shrink_to_fit();
    plan
}

/// Which entry moves a series, by the numbers of its job and of itself: the one that names the table, else the
/// first whose pattern matches it. What an operator selected does not matter: a table keeps its entry.
pub(crate) fn owners<'a>(
    inventory: &'a Inventory,
    catalog: &Catalog,
) -> HashMap<(&'a str, String), (usize, usize)> {
    let mut owners = HashMap::new();
    // Whatever its condition: a pattern beside it would move the same rows to the same place.
    let mut names = HashSet::new();
    for named in [true, false] {
        for (job_no, job) in inventory.jobs.iter().enumerate() {
            let Some(source) = inventory.source(&job.source) else { continue };
            let catalog = catalog.get(&source.name).map_or(&[][..], Vec::as_slice);
            for (entry_no, entry) in job.tables.iter().enumerate() {
                if matches!(entry.what, TableSelector::One(_)) != named {
                    continue;
                }
                for table in resolve(entry, catalog) {
                    if named && entry.target.as_ref().is_none_or(|target| *target == table) {
                        names.insert((source.name.as_str(), table.clone()));
                    } else if !named && names.contains(&(source.name.as_str(), table.clone())) {
                        continue;
                    }
                    let series = series_of(&source.database, &table, variant(entry, &table).as_deref());
                    owners.entry((source.name.as_str(), series)).or_insert((job_no, entry_no));
                }
            }
        }
    }
    owners
}

/// Is there no table among those that were selected by name? A source that could not be listed may hold any.
pub fn selects_no_table(inventory: &Inventory, selection: &Selection, catalog: &Catalog) -> bool {
    let mut jobs = inventory.jobs.iter().filter(|job| selects(selection, job));
    let named = |table: &TableName| matches(&selection.tables, &table.to_string());
    !selection.tables.is_empty()
        && !jobs.any(|job| {
            let listed = catalog.get(&job.source);
            let tables = listed.map_or(&[][..], Vec::as_slice);
            job.tables.iter().any(|entry| match entry.what {
                TableSelector::Glob { .. } if listed.is_none() => true,
                TableSelector::Glob { .. } | TableSelector::One(_) => {
                    resolve(entry, tables).iter().any(named)
                }
            })
        })
}

/// Where the inventory moves a table of a source to, if it does.
pub(crate) fn mover(inventory: &Inventory, source: &str, table: &TableName) -> Option<TableName> {
    let entries = inventory.jobs.iter().filter(|job| job.source == source).flat_map(|job| &job.tables);
    let mut entries = entries.filter(|entry| resolve(entry, std::slice::from_ref(table)).contains(table));
    entries.next().map(|entry| entry.target.clone().unwrap_or_else(|| table.clone()))
}

/// Keeps the first `--max-units`, and says of which tables the rest is.
fn limit(plan: &mut Plan, selection: &Selection) {
    let Some(limit) = selection.max_units.filter(|&limit| limit < plan.units.len()) else { return };
    let mut beyond: BTreeMap<(Arc<str>, String), usize> = BTreeMap::new();
    for unit in plan.units.drain(limit..) {
        *beyond.entry((unit.job, unit.table.to_string())).or_default() += 1;
    }
    plan.skipped.extend(beyond.into_iter().map(|((job, table), units)| Skipped {
        job: job.to_string(),
        table,
        units,
        why: Why::OverLimit,
    }));
}

/// The tables that an entry means, in the catalog's order.
pub(crate) fn resolve(entry: &TableEntry, catalog: &[TableName]) -> Vec<TableName> {
    match &entry.what {
        TableSelector::One(table) => vec![table.clone()],
        TableSelector::Glob { pattern, except } => {
            // The inventory's reader has refused globs that do not compile.
            let Some(wanted) = matcher(pattern) else { return Vec::new() };
            let except: Vec<_> = except.iter().filter_map(matcher).collect();
            let is = |(schema, table): &(GlobMatcher, GlobMatcher), name: &TableName| {
                schema.is_match(name.schema()) && table.is_match(name.table())
            };
            let meant = |name: &&TableName| is(&wanted, name) && !except.iter().any(|one| is(one, name));
            catalog.iter().filter(meant).cloned().collect()
        }
    }
}

fn matcher(pattern: &Pattern) -> Option<(GlobMatcher, GlobMatcher)> {
    let compiled = |glob: &str| Glob::new(glob).ok().map(|glob| glob.compile_matcher());
    Some((compiled(&pattern.schema)?, compiled(&pattern.table)?))
}

pub(crate) fn matches(globs: &[Glob], text: &str) -> bool {
    globs.iter().any(|glob| glob.compile_matcher().is_match(text))
}

pub(crate) fn describe(what: &TableSelector) -> String {
    match what {
        TableSelector::One(table) => table.to_string(),
        TableSelector::Glob { pattern, .. } => pattern.to_string(),
    }
}
