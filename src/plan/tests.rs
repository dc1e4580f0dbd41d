//! What is due, and what is never moved twice.

use super::*;
use crate::interval::merged;
use crate::inventory;
use crate::measure::{Loaded, Measure};
use jiff::tz::TimeZone;
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

/// Notes units as a ledger would: loaded.
fn loaded<'a>(facts: &mut Facts, units: impl IntoIterator<Item = &'a Unit>) {
    for unit in units {
        let series = facts.series_mut(&unit.key.source, &unit.rows.series);
        series.open.retain(|open| open.id != unit.key.id);
        let found = series.loaded.iter_mut().find(|loaded| loaded.measure == unit.rows.measure);
        match found {
            Some(found) => {
                found.intervals.push(unit.extent.numbers());
                found.intervals = merged(std::mem::take(&mut found.intervals));
            }
            None => series.loaded.push(Loaded {
                measure: unit.rows.measure.clone(),
                tag: unit.rows.tag.clone(),
                intervals: vec![unit.extent.numbers()],
            }),
        }
    }
}

/// Notes a unit that was begun.
fn begun(facts: &mut Facts, unit: &Unit, state: OpenState, tries: u32) {
    let (id, measure) = (unit.key.id.clone(), Some(unit.rows.measure.clone()));
    let open = Open { id, measure, extent: unit.extent.numbers(), state, tries };
    facts.series_mut(&unit.key.source, &unit.rows.series).open.push(open);
}

fn plan_with(inventory: &Inventory, facts: &Facts, now: Timestamp) -> Plan {
    plan(inventory, &Selection::default(), &Catalog::new(), facts, now)
}

mod changes;

#[test]
fn a_whole_table_is_due_again_after_its_time_and_keeps_its_id_until_then() {
    let inventory = inventory(
        "  j:\n    source: s\n    tables: [ { table: a.t, window: none, every: 1d, load: { mode: replace } } ]\n",
    );
    let mut facts = Facts::default();
    let first = plan_with(&inventory, &facts, at("2021-08-10T10:00:00Z"));
    assert_eq!(ids(&first), ["db^a^t^all"]);
    facts.series_mut("s", "db^a^t").loaded.push(Loaded {
        measure: Measure::All,
        tag: None,
        intervals: vec![first.units[0].extent.numbers_loaded(at("2021-08-10T10:30:00Z"))],
    });
    assert!(plan_with(&inventory, &facts, at("2021-08-11T10:29:59Z")).units.is_empty());
    let due = "db^a^t^all^20210811103000";
    for now in ["2021-08-11T10:30:00Z", "2021-08-12T10:29:59Z"] {
        assert_eq!(ids(&plan_with(&inventory, &facts, at(now))), [due]);
    }
    // Nobody ran for days: once is enough. What was begun and not finished is left for it.
    let late = plan_with(&inventory, &facts, at("2021-08-11T11:00:00Z"));
    begun(&mut facts, &late.units[0], OpenState::Exported, 1);
    assert!(plan_with(&inventory, &facts, at("2021-08-11T11:01:00Z")).units[0].waits);
    let later = plan_with(&inventory, &facts, at("2021-08-20T11:00:00Z"));
    assert_eq!(ids(&later), ["db^a^t^all^20210820103000"]);
    assert_eq!(later.replaced[0].id, due);
    loaded(&mut facts, &later.units);
    assert!(plan_with(&inventory, &facts, at("2021-08-21T10:29:59Z")).units.is_empty());
    assert_eq!(plan_with(&inventory, &facts, at("2021-08-21T10:30:00Z")).units.len(), 1);
}

const WINDOWED: &str = "  j:\n    source: s\n    from: 2021-08-10 00:00:00\n    \
     tables: [ { table: a.t, window: { column: c, length: 4h, lag: 5m } } ]\n";

#[test]
fn a_window_is_due_once_its_end_and_the_lag_have_passed() {
    let inventory = inventory(WINDOWED);
    let plan_at = |now| plan(&inventory, &Selection::default(), &Catalog::new(), &Facts::default(), at(now));
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
    let first = plan(&inventory, &Selection::default(), &Catalog::new(), &Facts::default(), now);
    assert_eq!(first.units.len(), 1);
    for (state, waits) in [(OpenState::Exported, true), (OpenState::Unfinished, false)] {
        let mut facts = Facts::default();
        begun(&mut facts, &first.units[0], state, 0);
        let again = plan_with(&inventory, &facts, now);
        assert_eq!((ids(&again), again.units[0].waits), (ids(&first), waits), "{state:?}");
        loaded(&mut facts, &first.units);
        let done = plan_with(&inventory, &facts, now);
        assert_eq!((done.units.len(), done.skipped[0].why), (0, Why::AlreadyLoaded));
    }
}

#[test]
fn other_bounds_move_only_what_is_missing() {
    let inventory = inventory(WINDOWED);
    let now = at("2021-08-10T12:00:00Z");
    let until = |until: &str| Selection { until: Some(until.parse().unwrap()), ..Selection::default() };
    let mut known = Facts::default();
    let first = plan(&inventory, &until("2021-08-10T06:00"), &Catalog::new(), &known, now);
    assert_eq!(first.units.len(), 2);
    loaded(&mut known, &first.units);
    let second = plan(&inventory, &until("2021-08-10T08:00"), &Catalog::new(), &known, now);
    assert_eq!(ids(&second), ["db^a^t^20210810060000^20210810080000"]);
    let from = Selection { from: Some("2021-08-09T23:00".parse().unwrap()), ..until("2021-08-10T07:00") };
    let third = plan(&inventory, &from, &Catalog::new(), &known, now);
    assert_eq!(ids(&third), ["db^a^t^20210809230000^20210810000000", "db^a^t^20210810060000^20210810070000"]);
}

#[test]
fn a_clock_set_back_makes_a_window_wait() {
    let text = WINDOWED.replace("2021-08-10 00:00:00", "2021-11-07 00:00:00").replace("4h", "90m");
    let mut inventory = inventory(&text);
    inventory.timezone = TimeZone::get("America/New_York").unwrap();
    let due = |now| {
        plan(&inventory, &Selection::default(), &Catalog::new(), &Facts::default(), at(now)).units.len()
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
    let none = plan(&inventory, &Selection::default(), &Catalog::new(), &Facts::default(), now);
    assert!(none.units.is_empty() && none.skipped.iter().all(|skipped| skipped.why == Why::NoStart));
    let from = Selection { from: Some("2021-08-09".parse().unwrap()), ..Selection::default() };
    let some = plan(&inventory, &from, &Catalog::new(), &Facts::default(), now);
    assert_eq!(some.skipped.last().unwrap().why, Why::NoEnd);
    let until = Selection { until: Some("2021-08-10".parse().unwrap()), ..from };
    let all = plan(&inventory, &until, &Catalog::new(), &Facts::default(), now);
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
        &Facts::default(),
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
        let plan = plan(&inventory, &Selection::default(), &Catalog::new(), &Facts::default(), now);
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
    let plan = plan(&inventory(jobs), &Selection::default(), &catalog, &Facts::default(), now);
    // The entry that names it moves it, wherever it stands.
    assert_eq!(ids(&plan), ["db^a^u^all", "db^a^t^all"]);
    let why: Vec<Why> = plan.skipped.iter().map(|skipped| skipped.why).collect();
    assert_eq!(why, [Why::MovedByAnotherEntry, Why::NoMatch]);
}

#[test]
fn selections_narrow_and_say_what_they_left() {
    let jobs = "  j: { source: s, tables: [ { table: a.t, window: none }, { table: a.u, window: none } ] }\n";
    let inventory = inventory(jobs);
    let now = at("2021-08-10T00:00:00Z");
    let with = |selection| plan(&inventory, &selection, &Catalog::new(), &Facts::default(), now);
    let table = Selection { tables: vec![Glob::new("a.u").unwrap()], ..Selection::default() };
    assert_eq!(ids(&with(table)), ["db^a^u^all"]);
    let none = Selection { jobs: vec![Glob::new("x*").unwrap()], ..Selection::default() };
    assert!(with(none).units.is_empty());
    let few = with(Selection { max_units: Some(1), ..Selection::default() });
    assert_eq!((few.units.len(), few.skipped[0].why), (1, Why::OverLimit));
}

#[test]
fn units_start_only_in_their_hours() {
    let text = WINDOWED.replace("    source: s\n", "    source: s\n    hours: 22:00-04:00\n");
    let inventory = inventory(&text);
    // 03:59 and 04:00, 21:59 and 22:00 in Shanghai.
    for (now, open) in [("10T19:59", true), ("10T20:00", false), ("10T13:59", false), ("10T14:00", true)] {
        let plan = plan_with(&inventory, &Facts::default(), at(&format!("2021-08-{now}:00Z")));
        assert_eq!(!plan.units.is_empty(), open, "{now}");
        assert_eq!(plan.skipped.iter().any(|one| one.why == Why::OutsideHours), !open);
    }
}

#[test]
fn rows_without_a_time_are_a_unit_where_that_is_wanted() {
    let inventory = inventory(&WINDOWED.replace("lag: 5m", "null_window: include"));
    let now = at("2021-08-10T00:00:00Z");
    let mut facts = Facts::default();
    let first = plan_with(&inventory, &facts, now);
    assert_eq!(ids(&first), ["db^a^t^20210810000000^20210810040000", "db^a^t^null"]);
    loaded(&mut facts, &first.units);
    assert!(plan_with(&inventory, &facts, now).units.is_empty());
}

const BY_ID: &str =
    "  j: { source: s, tables: [ { table: a.t, window: { column: n, type: id, step: 100, lag: 5m } } ] }\n";

fn seen(facts: &mut Facts, at: Timestamp, lowest: i64, highest: i64) {
    let column = IdColumn { source: "s".into(), table: "a.t".into(), column: "n".into() };
    facts.ids.entry(column).or_default().push(SeenIds { at, lowest, highest });
}

#[test]
fn ids_are_due_once_they_have_been_there_for_the_lag() {
    let inventory = inventory(BY_ID);
    let (then, now) = (at("2021-08-10T00:00:00Z"), at("2021-08-10T00:05:00Z"));
    let mut facts = Facts::default();
    assert_eq!(plan_with(&inventory, &facts, then).skipped[0].why, Why::NotListed);
    seen(&mut facts, then, 7, 250);
    assert!(plan_with(&inventory, &facts, then).units.is_empty());
    seen(&mut facts, now, 7, 400);
    let due = plan_with(&inventory, &facts, now);
    assert_eq!(ids(&due), ["db^a^t^i7^i107", "db^a^t^i107^i207", "db^a^t^i207^i251"]);
    loaded(&mut facts, &due.units);
    assert!(plan_with(&inventory, &facts, now).units.is_empty());
    let later = plan_with(&inventory, &facts, at("2021-08-10T00:10:00Z"));
    assert_eq!(ids(&later), ["db^a^t^i251^i307", "db^a^t^i307^i401"]);
    let by_time = Selection { until: Some("2021-08-10".parse().unwrap()), ..Selection::default() };
    let none = plan(&inventory, &by_time, &Catalog::new(), &facts, now);
    assert_eq!(none.skipped[0].why, Why::NotByTime);
}

#[test]
fn a_window_of_microseconds_over_years_is_bounded() {
    let inventory = inventory(&WINDOWED.replace("4h", "1us"));
    let plan = plan_with(&inventory, &Facts::default(), at("2024-08-10T04:00:00Z"));
    assert_eq!(plan.units.len(), 100_000);
    assert!(plan.skipped.iter().any(|one| one.why == Why::TooMany && one.units > 1_000_000_000));
}

#[test]
fn exceptions_of_a_pattern_are_left_out() {
    let jobs = "  j: { source: s, tables: [ { tables: \"a.*\", except: [ \"a.tmp*\", \"*.u\" ], window: none } ] }\n";
    let names = ["t", "tmp_1", "u"].map(|table| TableName::new("a", table).unwrap()).to_vec();
    let catalog = Catalog::from([("s".to_owned(), names)]);
    let now = at("2021-08-10T00:00:00Z");
    let plan = plan(&inventory(jobs), &Selection::default(), &catalog, &Facts::default(), now);
    assert_eq!(ids(&plan), ["db^a^t^all"]);
}

proptest! {
    #[test]
    fn whatever_bounds_change_no_moment_is_moved_twice_or_left_out(
        rounds in proptest::collection::vec((0i64..48, 1i64..96, 1i64..13), 1..8)
    ) {
        let first: DateTime = "2021-08-10".parse().unwrap();
        let hour = |hour: i64| first.checked_add(jiff::Span::new().hours(hour)).unwrap();
        let mut known = Facts::default();
        let mut moved = [0; 200];
        let mut wanted = [false; 200];
        for (from, hours, length) in rounds {
            let inventory = inventory(&WINDOWED.replace("4h", &format!("{length}h")));
            let selection = Selection { from: Some(hour(from)), until: Some(hour(from + hours)), ..Selection::default() };
            let plan = plan(&inventory, &selection, &Catalog::new(), &known, at("2022-01-01T00:00:00Z"));
            for unit in plan.units {
                let window = *unit.extent.window().unwrap();
                (0..200).filter(|n| window.start() <= hour(*n) && hour(*n) < window.end())
                    .for_each(|n| moved[usize::try_from(n).unwrap()] += 1);
                loaded(&mut known, [&unit]);
            }
            (from..from + hours).for_each(|n| wanted[usize::try_from(n).unwrap()] = true);
            prop_assert!((0..200).all(|n| moved[n] == i32::from(wanted[n])), "{moved:?}");
        }
    }

    #[test]
    fn due_windows_touch_and_never_pass_now(hours in 1i64..2000, length in 1i64..50) {
        let inventory = inventory(&WINDOWED.replace("4h", &format!("{length}h")));
        let now = at("2021-08-09T16:00:00Z").checked_add(jiff::Span::new().hours(hours)).unwrap();
        let plan = plan(&inventory, &Selection::default(), &Catalog::new(), &Facts::default(), now);
        let mut reached: DateTime = "2021-08-10".parse().unwrap();
        let local = now.to_zoned(inventory.timezone.clone()).datetime();
        for unit in &plan.units {
            let window = unit.extent.window().unwrap();
            prop_assert_eq!(window.start(), reached);
            prop_assert!(window.end() <= local);
            reached = window.end();
        }
        prop_assert!(reached.checked_add(jiff::Span::new().hours(length)).unwrap() > local.checked_sub(jiff::Span::new().minutes(5)).unwrap());
    }
}
