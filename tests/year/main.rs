//! A year of runs, simulated: planner and ledger together, with failures, kills, clocks set back, lost ledgers, and an
//! inventory that changes. Whatever happens, every row ends in exactly one loaded unit.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};
use proptest::prelude::*;

use gpferry::interval::Interval;
use gpferry::inventory::{self, Cut, Inventory, WindowRule};
use gpferry::ledger::{Ledger, LedgerError, Logged, Record, RecordedFailure, Run, State};
use gpferry::measure::{Measure, Scale};
use gpferry::plan::{Catalog, Selection, plan};
use gpferry::unit::{Extent, Unit};
use gpferry::window::micros;

const TABLES: usize = 50;
const ROWS: usize = 40;
const START: &str = "2021-01-01T00:00:00";
const DAY: i64 = 86_400_000_000;

/// What a target holds: its load log, by series.
type LoadLog = BTreeMap<String, SeriesLog>;

/// The load log's rows of one series.
#[derive(Default)]
struct SeriesLog {
    units: HashMap<String, Unit>,
    /// Ids by measure and start: no two of a measure overlap.
    places: BTreeMap<(Measure, i64), String>,
}

impl SeriesLog {
    fn overlapping(&self, unit: &Unit) -> Vec<Unit> {
        let mine = unit.extent.numbers();
        let (first, last) = ((unit.rows.measure.clone(), i64::MIN), (unit.rows.measure.clone(), mine.end()));
        let before = self.places.range(first..last).rev().map(|(_, id)| &self.units[id]);
        before.take_while(|there| there.extent.numbers().end() > mine.start()).cloned().collect()
    }

    fn insert(&mut self, unit: &Unit) {
        let place = (unit.rows.measure.clone(), unit.extent.numbers().start());
        self.places.insert(place, unit.key.id.clone());
        self.units.insert(unit.key.id.clone(), unit.clone());
    }
}

/// One row of a table: its place by either of two columns, in microseconds of civil time.
#[derive(Clone, Copy)]
struct Row {
    made: i64,
    changed: i64,
}

fn record(state: State) -> Record {
    Record {
        attempt: 1,
        state,
        started_at: Timestamp::UNIX_EPOCH,
        exported: None,
        rows_loaded: None,
        rows_rejected: None,
        export_seconds: None,
        load_seconds: None,
        failure: None,
    }
}

/// Random numbers that a seed gives again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        // SplitMix64. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn micros(&mut self, limit: i64) -> i64 {
        i64::try_from(self.below(u64::try_from(limit).unwrap())).unwrap()
    }
}

fn an_inventory() -> Inventory {
    let tables: String = (0..TABLES).map(|number| format!("a.t{number}, ")).collect();
    let text = format!(
        "version: 1\ntimezone: America/New_York\nmount: {{ path: /mnt }}\ntarget: {{ url: \"postgresql://u@h/d\" }}\n\
         sources: {{ s: {{ host: h, engine: postgres, database: db }} }}\n\
         jobs: {{ j: {{ source: s, from: 2021-02-01, window: {{ column: made, length: 4h }}, tables: [ {tables} ] }} }}\n"
    );
    inventory::parse(&text, Path::new("i.yml")).unwrap()
}

/// Somebody edits the inventory: another length, now and then another column, or an earlier start.
fn edit(inventory: &mut Inventory, chance: &mut Chance) {
    let lengths = ["3h", "4h", "5h30m", "7h", "1d", "2w"];
    let job = &mut inventory.jobs[0];
    if chance.one_in(10) {
        job.from = Some(START.parse().unwrap());
    }
    let table = &mut job.tables[usize::try_from(chance.below(TABLES as u64)).unwrap()];
    let WindowRule::By(by) = &mut std::sync::Arc::make_mut(table).window else { return };
    if chance.one_in(6) {
        by.column = if by.column == "made" { "changed".into() } else { "made".into() };
    }
    let length = lengths[usize::try_from(chance.below(lengths.len() as u64)).unwrap()].parse().unwrap();
    by.cut = Cut::Time { scale: Scale::Time, length: Some(length) };
}

fn is_of(one: &Unit, other: &Unit) -> bool {
    one.rows.series == other.rows.series && one.rows.measure == other.rows.measure
}

/// What the engine does with a unit, with everything that can go wrong on the way.
fn work(unit: &Unit, notes: &mut Vec<(Unit, Record)>, log: &mut LoadLog, chance: &mut Chance, calm: bool) {
    let mut note = |unit: &Unit, record: Record| notes.push((unit.clone(), record));
    let log = log.entry(unit.rows.series.clone()).or_default();
    match log.units.get(&unit.key.id) {
        Some(there) if is_of(there, unit) => {
            note(unit, record(State::Loaded));
            return;
        }
        // By another column: other rows. The ledger learns of it, and the unit fails.
        Some(there) => {
            note(there, record(State::Loaded));
            return;
        }
        None => {}
    }
    if !calm && chance.one_in(40) {
        let counts = chance.one_in(2);
        let failed =
            RecordedFailure { stage: "export", error: "it broke".into(), remedy: "mend it".into(), counts };
        note(unit, Record { failure: Some(failed.into()), ..record(State::Failed) });
        return;
    }
    if !calm && chance.one_in(60) {
        note(unit, record(State::Exported));
        return;
    }
    let overlaps = log.overlapping(unit);
    if !overlaps.is_empty() {
        overlaps.iter().for_each(|there| note(there, record(State::Loaded)));
        return;
    }
    log.insert(unit);
    note(unit, record(State::Loaded));
}

/// One run of gpferry; how many units it had to do.
fn one_run(
    inventory: &Inventory,
    ledger: &mut Ledger,
    log: &mut LoadLog,
    now: Timestamp,
    chance: &mut Chance,
    calm: bool,
) -> usize {
    let run = Run {
        id: format!("{now}-{}", chance.below(1 << 40)),
        command: "run".into(),
        inventory: "i.yml".into(),
        target_url: "u".into(),
        started_at: now,
    };
    if !ledger.has_caught_up(&run.target_url).unwrap() {
        catch_up(ledger, log, &run);
    }
    let selection = Selection { retry_failed: calm || chance.one_in(20), ..Selection::default() };
    let facts = ledger.facts(&run.target_url).unwrap();
    let plan = plan(inventory, &selection, &Catalog::new(), &facts, now);
    ledger.replace(&run, now, &plan.replaced).unwrap();
    let mut notes = Vec::new();
    // A kill at some unit; the ledger has not heard of the last ones then, whatever the target holds.
    let killed = (!calm && chance.one_in(5)).then(|| chance.below(1 + plan.units.len() as u64));
    let upto = killed.map_or(plan.units.len(), |at| usize::try_from(at).unwrap());
    plan.units[..upto].iter().for_each(|unit| work(unit, &mut notes, log, chance, calm));
    if killed.is_some() {
        notes.truncate(notes.len() - notes.len().min(usize::try_from(chance.below(4)).unwrap()));
    }
    ledger.record(&run, now, notes.iter().map(|(unit, record)| (unit, record))).unwrap();
    plan.units.len()
}

fn catch_up(ledger: &mut Ledger, log: &LoadLog, run: &Run) {
    let logged = |unit: &Unit| Logged {
        key: unit.key.clone(),
        job: unit.job.to_string(),
        target: unit.target.to_string(),
        measure: Some(unit.rows.measure.clone()),
        rows: 1,
        rejected: 0,
        loaded_at: run.started_at,
        run: run.id.clone(),
    };
    let taken = ledger.catch_up(&run.target_url, run.started_at, |take| -> Result<(), LedgerError> {
        log.values().flat_map(|series| series.units.values()).map(logged).for_each(take);
        Ok(())
    });
    assert_eq!(taken.unwrap(), log.values().map(|series| series.units.len() as u64).sum::<u64>());
}

/// Is a row among those of a unit?
fn holds(unit: &Unit, row: Row) -> bool {
    let place = |measure: &Measure| match measure.column() {
        Some("made") => row.made,
        _ => row.changed,
    };
    let within = |measure: &Measure, interval: &Interval<i64>| {
        interval.start() <= place(measure) && place(measure) < interval.end()
    };
    let left_out = unit
        .rows
        .without
        .iter()
        .any(|loaded| loaded.intervals.iter().any(|one| within(&loaded.measure, one)));
    within(&unit.rows.measure, &unit.extent.numbers()) && !left_out
}

fn simulate(seed: u64) -> Result<(), TestCaseError> {
    let mut chance = Chance(seed);
    let mut inventory = an_inventory();
    let mut ledger = Ledger::scratch().unwrap();
    let mut log = LoadLog::new();
    let zone = TimeZone::get("America/New_York").unwrap();
    let start: jiff::civil::DateTime = START.parse().unwrap();
    let mut now = start.to_zoned(zone.clone()).unwrap().timestamp();
    let end = now + Span::new().hours(366 * 24);
    while now < end {
        if chance.one_in(4) {
            edit(&mut inventory, &mut chance);
        }
        if chance.one_in(40) {
            // The ledger is deleted, or another runner takes over.
            ledger = Ledger::scratch().unwrap();
        }
        let shown = if chance.one_in(15) { now - chance.micros(5 * DAY).microseconds() } else { now };
        one_run(&inventory, &mut ledger, &mut log, shown, &mut chance, false);
        now += chance.micros(6 * DAY).microseconds();
    }
    inventory.jobs[0].from = Some(start);
    let after = end + Span::new().hours(24 * 30);
    // What is learned in one run is done in the next.
    let calm = (0..6).find(|_| one_run(&inventory, &mut ledger, &mut log, after, &mut chance, true) == 0);
    prop_assert!(calm.is_some(), "it never comes to an end");
    let first = micros(start);
    for number in 0..TABLES {
        let series = format!("db^a^t{number}");
        let units: Vec<&Unit> = log.get(&series).map(|log| log.units.values().collect()).unwrap_or_default();
        prop_assert!(units.iter().all(|unit| matches!(unit.extent, Extent::Times(_))));
        for _ in 0..ROWS {
            let row =
                Row { made: first + chance.micros(365 * DAY), changed: first + chance.micros(365 * DAY) };
            let in_units = units.iter().filter(|unit| holds(unit, row)).count();
            prop_assert_eq!(in_units, 1, "{}: made {}, changed {}", series, row.made, row.changed);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_a_year_of_trouble_every_row_is_loaded_once(seed: u64) {
        simulate(seed)?;
    }
}
