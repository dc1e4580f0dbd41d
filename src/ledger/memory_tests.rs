//! What `status`, `history` and pruning make of the ledger.

use super::history::Wanted;
use super::overview::{TableStatus, overview, tell_tries};
use super::tests::{failure, ledger, record, run};
use super::*;
use crate::inventory::{self, Inventory};
use crate::plan::{Catalog, Facts, Selection, plan};
use crate::unit::Unit;

fn inventory(job: &str) -> Inventory {
    let text = format!(
        "version: 1\ntimezone: Asia/Shanghai\nmount: {{ path: /mnt }}\ntarget: {{ url: \"postgresql://u@h/d\" }}\n\
         sources: {{ s: {{ host: h, engine: postgres, database: db }} }}\njobs: {{ j: {{ source: s, {job} }} }}\n"
    );
    inventory::parse(&text, Path::new("i.yml")).unwrap()
}

/// One table of days from 10 to 13 August.
fn days() -> Inventory {
    inventory(
        "from: 2021-08-10, until: 2021-08-13, tables: [ { table: a.t, window: { column: c, length: 1d, lag: 5m } } ]",
    )
}

fn units(inventory: &Inventory) -> Vec<Unit> {
    let now = "2022-01-01T00:00:00Z".parse().unwrap();
    plan(inventory, &Selection::default(), &Catalog::new(), &Facts::default(), now).units
}

fn load(ledger: &mut Ledger, unit: &Unit, rows: u64, now: Timestamp) {
    let loaded = Record { rows_loaded: Some(rows), ..record(State::Loaded) };
    ledger.record(&run(), now, [(unit, &loaded)]).unwrap();
}

fn status(ledger: &Ledger, inventory: &Inventory, now: &str) -> Vec<TableStatus> {
    let now: Timestamp = now.parse().unwrap();
    let known = ledger.known("u", now).unwrap();
    overview(Some(inventory), &known, now)
}

#[test]
fn a_table_is_late_by_its_oldest_missing_window() {
    let (_keep, mut ledger) = ledger();
    let inventory = days();
    let units = units(&inventory);
    let look = |ledger: &Ledger, now: &str| {
        let one = status(ledger, &inventory, now).remove(0);
        (one.watermark, one.late_seconds)
    };
    // A day in Shanghai ends at 16:00 UTC.
    assert_eq!(look(&ledger, "2021-08-10T16:04:59Z"), (None, None));
    assert_eq!(look(&ledger, "2021-08-10T18:10:00Z"), (None, Some(2 * 3600 + 300)));
    load(&mut ledger, &units[0], 1, Timestamp::UNIX_EPOCH);
    load(&mut ledger, &units[2], 1, Timestamp::UNIX_EPOCH);
    let at = |day: &str| Some(format!("2021-08-{day}T00:00:00"));
    assert_eq!(look(&ledger, "2021-08-11T16:05:00Z"), (at("11"), None));
    assert_eq!(look(&ledger, "2021-08-14T16:05:00Z"), (at("11"), Some(3 * 86_400)));
    load(&mut ledger, &units[1], 1, Timestamp::UNIX_EPOCH);
    assert_eq!(look(&ledger, "2021-08-14T16:05:00Z"), (at("13"), None));
    // `from` was moved back: nothing that holds it is loaded.
    let earlier = inventory_from("2021-08-09");
    let one = status(&ledger, &earlier, "2021-08-10T16:05:00Z").remove(0);
    assert_eq!((one.watermark, one.late_seconds, one.loaded), (None, Some(86_400), 3));
}

fn inventory_from(from: &str) -> Inventory {
    inventory(&format!(
        "from: {from}, until: 2021-08-13, tables: [ {{ table: a.t, window: {{ column: c, length: 1d, lag: 5m }} }} ]"
    ))
}

#[test]
fn variants_of_one_table_have_watermarks_of_their_own() {
    let (_keep, mut ledger) = ledger();
    let inventory = inventory(
        "from: 2021-08-10, until: 2021-08-12, window: { column: c, length: 1d }, tables: [ { table: a.t, where: \"x = 1\" }, \
         { table: a.t, where: \"x = 2\", target: a.u }, a.never ]",
    );
    let units = units(&inventory);
    load(&mut ledger, &units[0], 5, Timestamp::UNIX_EPOCH);
    load(&mut ledger, &units[1], 6, Timestamp::UNIX_EPOCH);
    load(&mut ledger, &units[3], 7, Timestamp::UNIX_EPOCH);
    let shown: Vec<_> = status(&ledger, &inventory, "2022-01-01T00:00:00Z")
        .into_iter()
        .map(|one| (one.table, one.target, one.watermark.map(|at| at[..10].to_owned()), one.rows))
        .collect();
    let line = |table: &str, target: &str, at: Option<&str>, rows| {
        (table.to_owned(), target.to_owned(), at.map(str::to_owned), rows)
    };
    assert_eq!(
        shown,
        [
            line("a.never", "a.never", None, 0),
            line("a.t", "a.t", Some("2021-08-12"), 11),
            line("a.t", "a.u", None, 7),
        ]
    );
}

#[test]
fn tables_of_a_pattern_are_those_that_the_ledger_knows() {
    let (_keep, mut ledger) = ledger();
    load(&mut ledger, &units(&days())[0], 1, Timestamp::UNIX_EPOCH);
    let window = "from: 2021-08-10, window: { column: c, length: 1d }";
    let globs = inventory(&format!("{window}, tables: [ {{ tables: \"a.*\" }} ]"));
    let shown = status(&ledger, &globs, "2021-08-12T17:00:00Z");
    assert_eq!((shown.len(), shown[0].in_inventory, shown[0].late_seconds.is_some()), (1, Some(true), true));
    let other = inventory(&format!("{window}, tables: [ {{ tables: \"b.*\" }} ]"));
    let shown = status(&ledger, &other, "2021-08-12T17:00:00Z");
    assert_eq!((shown.len(), shown[0].in_inventory, shown[0].late_seconds), (1, Some(false), None));
}

#[test]
fn sums_and_watermarks_outlive_the_units_and_a_reload_counts_once() {
    let (_keep, mut ledger) = ledger();
    let inventory = days();
    let units = units(&inventory);
    let at = |second| Timestamp::from_second(second).unwrap();
    for (no, unit) in units.iter().enumerate() {
        load(&mut ledger, unit, 10, at(1000 * (no as i64 + 1)));
    }
    load(&mut ledger, &units[2], 10, at(3000));
    let before = status(&ledger, &inventory, "2022-01-01T00:00:00Z");
    assert_eq!((before[0].loaded, before[0].rows), (3, 30));
    let facts = ledger.facts("u").unwrap().series;
    let old = prune::OldHistory { units: 2, attempts: 0, runs: 0, alarms: 0, differences: 0 };
    assert_eq!(ledger.prune(at(2500), &["j".into()], false).unwrap(), prune::OldHistory::default(), "busy");
    // The attempts of all three began at the epoch, in one run that this ledger was never told of.
    let looked = ledger.prune(at(2500), &[], true).unwrap();
    assert_eq!((looked.units, looked.attempts), (old.units, 3));
    assert_eq!(ledger.prune(at(2500), &[], false).unwrap(), looked);
    assert_eq!(ledger.prune(at(2500), &[], false).unwrap(), prune::OldHistory::default());
    assert_eq!(status(&ledger, &inventory, "2022-01-01T00:00:00Z"), before);
    assert_eq!(ledger.facts("u").unwrap().series, facts);
    assert_eq!(ledger.units_done(&Wanted { limit: 9, ..Wanted::default() }).unwrap().rows.len(), 1);
}

#[test]
fn a_whole_table_that_is_moved_again_is_there_once() {
    let (_keep, mut ledger) = ledger();
    let inventory = inventory("tables: [ { table: a.w, window: none } ]");
    let unit = units(&inventory).remove(0);
    for rows in [5, 7] {
        ledger.record(&run(), Timestamp::UNIX_EPOCH, [(&unit, &record(State::Exporting))]).unwrap();
        load(&mut ledger, &unit, rows, Timestamp::UNIX_EPOCH);
        let one = status(&ledger, &inventory, "2022-01-01T00:00:00Z").remove(0);
        assert_eq!((one.loaded, one.rows, one.watermark, one.late_seconds), (1, rows, None, None));
    }
}

#[test]
fn nothing_is_let_go_that_is_not_remembered_elsewhere() {
    let (_keep, mut ledger) = ledger();
    let whole = inventory("tables: [ { table: a.w, window: none } ]");
    let (day, all) = (units(&days()).remove(0), units(&whole).remove(0));
    let now = Timestamp::UNIX_EPOCH;
    load(&mut ledger, &day, 1, now);
    load(&mut ledger, &all, 1, now);
    let failed = Record { failure: Some(failure().into()), ..record(State::Failed) };
    ledger.record(&run(), now, [(&units(&days())[1], &failed)]).unwrap();
    // As if the interval had been lost.
    ledger.connection.execute_batch("DELETE FROM covered").unwrap();
    let later = Timestamp::from_second(1000).unwrap();
    assert_eq!(ledger.prune(later, &[], false).unwrap().units, 0);
    load(&mut ledger, &day, 1, now);
    assert_eq!(ledger.prune(later, &[], false).unwrap().units, 1);
    let left = ledger.units_done(&Wanted { limit: 9, ..Wanted::default() }).unwrap().rows;
    let mut states: Vec<_> = left.iter().map(|one| one.state.as_str()).collect();
    states.sort_unstable();
    assert_eq!(states, ["failed", "loaded"]);
}

#[test]
fn history_is_filtered_newest_first_and_says_when_there_is_more() {
    let (_keep, mut ledger) = ledger();
    let units = units(&days());
    let at = |second| Timestamp::from_second(second).unwrap();
    for (no, unit) in units.iter().enumerate() {
        load(&mut ledger, unit, 10, at(no as i64 + 1));
    }
    let failed = Record { attempt: 2, failure: Some(failure().into()), ..record(State::Failed) };
    ledger.record(&run(), at(9), [(&units[1], &failed)]).unwrap();
    let wanted = |limit| Wanted { limit, ..Wanted::default() };
    let ids = |wanted: &Wanted| -> Vec<String> {
        ledger.units_done(wanted).unwrap().rows.into_iter().map(|one| one.unit).collect()
    };
    let id = |no: usize| units[no].key.id.clone();
    assert_eq!(ids(&wanted(9)), [id(1), id(2), id(0)]);
    let found = ledger.units_done(&wanted(2)).unwrap();
    assert_eq!((found.rows.len(), found.more), (2, true));
    assert!(!ledger.units_done(&wanted(3)).unwrap().more);
    assert_eq!(ids(&Wanted { states: vec!["failed".into()], ..wanted(9) }), [id(1)]);
    assert_eq!(ids(&Wanted { since: Some(at(3)), until: Some(at(9)), ..wanted(9) }), [id(2)]);
    assert_eq!(ids(&Wanted { sources: vec!["other".into()], ..wanted(9) }), [""; 0]);
    assert_eq!(ids(&Wanted { run: Some("other".into()), ..wanted(9) }), [""; 0]);
    let first = &ledger.units_done(&wanted(9)).unwrap().rows[0];
    assert_eq!(
        (first.attempt, first.error.as_deref(), first.export_seconds),
        (2, Some("it broke"), Some(1.23))
    );
    assert_eq!(ledger.attempts_done(&wanted(9)).unwrap().rows.len(), 4);
}

#[test]
fn a_failed_unit_says_how_many_runs_tried_it() {
    let (_keep, mut ledger) = ledger();
    let inventory = days();
    let unit = units(&inventory).remove(0);
    let failed = Record { failure: Some(failure().into()), ..record(State::Failed) };
    for (id, tries, given_up) in [("a", 1, false), ("b", 2, false), ("c", 3, true)] {
        let run = Run { id: id.into(), ..run() };
        ledger.record(&run, Timestamp::UNIX_EPOCH, [(&unit, &failed)]).unwrap();
        let mut units = ledger.failed_units().unwrap();
        tell_tries(&inventory, &ledger.known("u", Timestamp::UNIX_EPOCH).unwrap(), &mut units);
        assert_eq!((units[0].tries, units[0].allowed, units[0].given_up), (tries, Some(3), given_up));
    }
}

#[test]
fn a_file_that_is_no_ledger_or_is_damaged_says_how_to_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("l.sqlite");
    fs::write(&path, "this is no database, and longer than a header of SQLite would be: ".repeat(30))
        .unwrap();
    let error = Ledger::open(&path).unwrap_err();
    assert!(matches!(error, LedgerError::Corrupt { .. }), "{error}");
    assert!(error.remedy().contains("gpferry rebuild-ledger"), "{}", error.remedy());
    fs::remove_file(&path).unwrap();
    let mut ledger = Ledger::open(&path).unwrap();
    let units = units(&days());
    for unit in &units {
        load(&mut ledger, unit, 1, Timestamp::UNIX_EPOCH);
    }
    ledger.close().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    // A page that opening alone does not read.
    let last = bytes.len() - 4096;
    bytes[last..].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    assert!(matches!(Ledger::open(&path), Err(LedgerError::Corrupt { .. })));
}
