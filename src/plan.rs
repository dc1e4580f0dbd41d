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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory;
    use proptest::prelude::*;
    use std::path::Path;

    /// An inventory with one source and these jobs.
    fn inventory(jobs: &str) -> Inventory {
        let text = format!(
            "version: 1\ntimezone: Asia/Shanghai\nmount: {{ path: /mnt }}\n\
             target: {{ url: \"postgresql://u@h/d\" }}\n\
             sources: {{ s: {{ host: h, engine: postgres, database: db }} }}\njobs:\n{jobs}"
        );
        inventory::parse(&text, Path::new("i.yml")).unwrap_or_else(|error| panic!("{error}"))
    }

    fn ids(plan: &Plan) -> Vec<&str> {
        plan.units.iter().map(|unit| unit.key.id.as_str()).collect()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const WINDOWED: &str = "  j:\n    source: s\n    from: 2021-08-10 00:00:00\n    \
         tables: [ { table: a.t, window: { column: c, length: 4h, lag: 5m } } ]\n";

    #[test]
    fn a_window_is_due_once_its_end_and_the_lag_have_passed() {
        let inventory = inventory(WINDOWED);
        let plan_at =
            |now| plan(&inventory, &Selection::default(), &Catalog::new(), &HashMap::new(), at(now));
        // 04:05 in Shanghai is 20:05 UTC of the day before.
        assert_eq!(plan_at("2021-08-09T20:04:59Z").units.len(), 0);
        let due = plan_at("2021-08-09T20:05:00Z");
        assert_eq!(ids(&due), ["db^a^t^20210810000000^20210810040000"]);
        assert_eq!(due.skipped[0].why, Why::NotDueYet);
    }

    #[test]
    fn what_is_loaded_is_left_alone_and_what_failed_is_not() {
        let inventory = inventory(WINDOWED);
        let now = at("2021-08-10T00:00:00Z");
        let first = plan(&inventory, &Selection::default(), &Catalog::new(), &HashMap::new(), now);
        assert_eq!(first.units.len(), 1);
        for (known, left) in [(Known::Loaded, 0), (Known::Exported, 1), (Known::Unfinished, 1)] {
            let known = HashMap::from([(first.units[0].key.clone(), known)]);
            let again = plan(&inventory, &Selection::default(), &Catalog::new(), &known, now);
            assert_eq!(again.units.len(), left, "{known:?}");
        }
    }

    #[test]
    fn other_bounds_move_only_what_is_missing() {
        let inventory = inventory(WINDOWED);
        let now = at("2021-08-10T12:00:00Z");
        let until = |until: &str| Selection { until: Some(until.parse().unwrap()), ..Selection::default() };
        let mut known = HashMap::new();
        let first = plan(&inventory, &until("2021-08-10T06:00"), &Catalog::new(), &known, now);
        assert_eq!(first.units.len(), 2);
        known.extend(first.units.iter().map(|unit| (unit.key.clone(), Known::Loaded)));
        let second = plan(&inventory, &until("2021-08-10T08:00"), &Catalog::new(), &known, now);
        assert_eq!(ids(&second), ["db^a^t^20210810060000^20210810080000"]);
        let from = Selection { from: Some("2021-08-09T23:00".parse().unwrap()), ..until("2021-08-10T07:00") };
        let third = plan(&inventory, &from, &Catalog::new(), &known, now);
        assert_eq!(
            ids(&third),
            ["db^a^t^20210809230000^20210810000000", "db^a^t^20210810060000^20210810070000"]
        );
    }

    #[test]
    fn a_clock_set_back_makes_a_window_wait() {
        let text = WINDOWED.replace("2021-08-10 00:00:00", "2021-11-07 00:00:00").replace("4h", "90m");
        let mut inventory = inventory(&text);
        inventory.timezone = TimeZone::get("America/New_York").unwrap();
        let due = |now| {
            plan(&inventory, &Selection::default(), &Catalog::new(), &HashMap::new(), at(now)).units.len()
        };
        // 01:30 comes at 05:30 UTC and again at 06:30 UTC.
        assert_eq!((due("2021-11-07T05:40:00Z"), due("2021-11-07T06:40:00Z")), (0, 1));
    }

    #[test]
    fn a_table_without_a_start_or_an_end_says_so() {
        let inventory = inventory(
            "  j: { source: s, tables: [ { table: a.t, window: { column: c, length: 4h } }, \
             { table: a.u, window: { column: c } } ] }\n",
        );
        let now = at("2021-08-10T00:00:00Z");
        let none = plan(&inventory, &Selection::default(), &Catalog::new(), &HashMap::new(), now);
        assert!(none.units.is_empty() && none.skipped.iter().all(|skipped| skipped.why == Why::NoStart));
        let from = Selection { from: Some("2021-08-09".parse().unwrap()), ..Selection::default() };
        let some = plan(&inventory, &from, &Catalog::new(), &HashMap::new(), now);
        assert_eq!(some.skipped.last().unwrap().why, Why::NoEnd);
        let until = Selection { until: Some("2021-08-10".parse().unwrap()), ..from };
        let all = plan(&inventory, &until, &Catalog::new(), &HashMap::new(), now);
        assert_eq!(all.units.len(), 7);
    }

    #[test]
    fn a_table_that_two_entries_move_by_different_conditions_is_two_units() {
        let jobs = "  j:\n    source: s\n    tables:\n      - { table: a.t, window: none, where: \"x = 1\" }\n      \
             - { table: a.t, window: none, where: \"x = 2\" }\n      - { table: a.u, window: none, where: \"x = 1\" }\n";
        let plan = plan(
            &inventory(jobs),
            &Selection::default(),
            &Catalog::new(),
            &HashMap::new(),
            at("2021-08-10T00:00:00Z"),
        );
        let ids = ids(&plan);
        assert!(ids.iter().all(|id| id.contains("^all^v")), "{ids:?}");
        assert_ne!(ids[0], ids[1]);
    }

    #[test]
    fn an_entry_that_is_added_gives_no_other_unit_another_id() {
        let entry =
            |where_: &str, target: &str| format!("      - {{ table: a.t, window: none{where_}{target} }}\n");
        let first = entry(", where: \"x = 1\"", "");
        let plain = entry("", ", target: a.t");
        let all = [&first, &plain, &entry(", where: \"x = 2\"", ""), &entry("", ", target: b.t")];
        let ids_of = |entries: &[&String]| {
            let text: String = entries.iter().map(|entry| entry.as_str()).collect();
            let inventory = inventory(&format!("  j:\n    source: s\n    tables:\n{text}"));
            let now = at("2021-08-10T00:00:00Z");
            let plan = plan(&inventory, &Selection::default(), &Catalog::new(), &HashMap::new(), now);
            plan.units.iter().map(|unit| unit.key.id.clone()).collect::<Vec<_>>()
        };
        let together = ids_of(&all);
        assert_eq!(ids_of(&all[..1]), together[..1]);
        assert_eq!(ids_of(&all[..2]), together[..2]);
        // A target of the table's own name is no other target.
        assert_eq!(together[1], "db^a^t^all");
    }

    #[test]
    fn a_glob_and_a_name_for_one_table_make_one_unit() {
        let jobs = "  j: { source: s, tables: [ { tables: \"a.*\", window: none }, { table: a.t, window: none }, \
             { tables: \"z*.*\", window: none } ] }\n";
        let catalog = Catalog::from([(
            "s".to_owned(),
            ["t", "u"].map(|table| TableName::new("a", table).unwrap()).to_vec(),
        )]);
        let now = at("2021-08-10T00:00:00Z");
        let plan = plan(&inventory(jobs), &Selection::default(), &catalog, &HashMap::new(), now);
        assert_eq!(ids(&plan), ["db^a^t^all", "db^a^u^all"]);
        let why: Vec<Why> = plan.skipped.iter().map(|skipped| skipped.why).collect();
        assert_eq!(why, [Why::MovedByAnotherEntry, Why::NoMatch]);
    }

    #[test]
    fn selections_narrow_and_say_what_they_left() {
        let jobs =
            "  j: { source: s, tables: [ { table: a.t, window: none }, { table: a.u, window: none } ] }\n";
        let inventory = inventory(jobs);
        let now = at("2021-08-10T00:00:00Z");
        let with = |selection| plan(&inventory, &selection, &Catalog::new(), &HashMap::new(), now);
        let table = Selection { tables: vec![Glob::new("a.u").unwrap()], ..Selection::default() };
        assert_eq!(ids(&with(table)), ["db^a^u^all"]);
        let none = Selection { jobs: vec![Glob::new("x*").unwrap()], ..Selection::default() };
        assert!(with(none).units.is_empty());
        let few = with(Selection { max_units: Some(1), ..Selection::default() });
        assert_eq!((few.units.len(), few.skipped[0].why), (1, Why::OverLimit));
    }

    proptest! {
        #[test]
        fn whatever_bounds_change_no_moment_is_moved_twice_or_left_out(
            rounds in proptest::collection::vec((0i64..48, 1i64..96, 1i64..13), 1..8)
        ) {
            let first: DateTime = "2021-08-10".parse().unwrap();
            let hour = |hour: i64| first.checked_add(jiff::Span::new().hours(hour)).unwrap();
            let mut known = HashMap::new();
            let mut moved = [0; 200];
            let mut wanted = [false; 200];
            for (from, hours, length) in rounds {
                let inventory = inventory(&WINDOWED.replace("4h", &format!("{length}h")));
                let selection = Selection { from: Some(hour(from)), until: Some(hour(from + hours)), ..Selection::default() };
                let plan = plan(&inventory, &selection, &Catalog::new(), &known, at("2022-01-01T00:00:00Z"));
                for unit in plan.units {
                    let window = unit.window.unwrap();
                    (0..200).filter(|n| window.start() <= hour(*n) && hour(*n) < window.end())
                        .for_each(|n| moved[usize::try_from(n).unwrap()] += 1);
                    known.insert(unit.key, Known::Loaded);
                }
                (from..from + hours).for_each(|n| wanted[usize::try_from(n).unwrap()] = true);
                prop_assert!((0..200).all(|n| moved[n] == i32::from(wanted[n])), "{moved:?}");
            }
        }

        #[test]
        fn due_windows_touch_and_never_pass_now(hours in 1i64..2000, length in 1i64..50) {
            let inventory = inventory(&WINDOWED.replace("4h", &format!("{length}h")));
            let now = at("2021-08-09T16:00:00Z").checked_add(jiff::Span::new().hours(hours)).unwrap();
            let plan = plan(&inventory, &Selection::default(), &Catalog::new(), &HashMap::new(), now);
            let mut reached: DateTime = "2021-08-10".parse().unwrap();
            let local = now.to_zoned(inventory.timezone.clone()).datetime();
            for unit in &plan.units {
                let window = unit.window.unwrap();
                prop_assert_eq!(window.start(), reached);
                prop_assert!(window.end() <= local);
                reached = window.end();
            }
            prop_assert!(reached.checked_add(jiff::Span::new().hours(length)).unwrap() > local.checked_sub(jiff::Span::new().minutes(5)).unwrap());
        }
    }
}
