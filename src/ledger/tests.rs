//! What the ledger promises, on a real file.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::*;
use crate::gzip::Trailer;
use crate::inventory;
use crate::names::TableName;
use crate::plan::{Assumed, Catalog, Facts, OpenState, Selection, Series, plan};
use crate::unit::Unit;

/// Units of three windows of one table.
fn units() -> Vec<Unit> {
    let text = "version: 1\nmount: { path: /mnt }\ntarget: { url: \"postgresql://u@h/d\" }\n\
         sources: { s: { host: h, engine: postgres, database: db } }\n\
         jobs: { j: { source: s, from: 2021-08-10, until: 2021-08-13, tables: [ { table: a.t, window: { column: c, length: 1d } } ] } }\n";
    let inventory = inventory::parse(text, Path::new("i.yml")).unwrap();
    let now = "2022-01-01T00:00:00Z".parse().unwrap();
    plan(&inventory, &Selection::default(), &Catalog::new(), &Facts::default(), now).units
}

pub(super) fn record(state: State) -> Record {
    Record {
        attempt: 1,
        state,
        started_at: Timestamp::UNIX_EPOCH,
        exported: None,
        rows_loaded: None,
        rows_rejected: None,
        export_seconds: Some(1.234_567),
        load_seconds: None,
        failure: None,
    }
}

fn exported() -> Exported {
    let trailer = Trailer { bytes: 99, crc32: 7, isize: 300 };
    Exported {
        file: std::path::Path::new("s/x.csv.gz").into(),
        rows: 5,
        trailer,
        columns: ["a".into(), "b c".into()].into(),
        left_out: String::new(),
        parts: Box::default(),
    }
}

pub(super) fn failure() -> RecordedFailure {
    RecordedFailure { stage: "load", error: "it broke".into(), remedy: "mend it".into(), counts: true }
}

pub(super) fn run() -> Run {
    Run {
        id: "r".into(),
        command: "run".into(),
        inventory: "i.yml".into(),
        target_url: "u".into(),
        started_at: Timestamp::UNIX_EPOCH,
    }
}

pub(super) fn ledger() -> (tempfile::TempDir, Ledger) {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&directory.path().join("state/l.sqlite")).unwrap();
    (directory, ledger)
}

fn series(ledger: &Ledger, target: &str) -> Series {
    ledger.facts(target).unwrap().series("s", "db^a^t").cloned().unwrap_or_default()
}

/// What `status` shows without an inventory.
fn tables(ledger: &Ledger) -> Vec<overview::TableStatus> {
    let known = ledger.known("u", Timestamp::UNIX_EPOCH).unwrap();
    overview::overview(None, &known, Timestamp::UNIX_EPOCH)
}

fn open(ledger: &Ledger, unit: &Unit) -> Option<OpenState> {
    let open = series(ledger, "u").open;
    open.into_iter().find(|open| open.id == unit.key.id).map(|open| open.state)
}

#[test]
fn the_file_is_for_its_owner_alone() {
    let (directory, _ledger) = ledger();
    let mode = |path: &str| fs::metadata(directory.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("state"), mode("state/l.sqlite")), (0o700, 0o600));
}

#[test]
fn an_exported_file_is_remembered_until_it_is_loaded_or_found_bad() {
    let (_keep, mut ledger) = ledger();
    let units = units();
    let now = Timestamp::UNIX_EPOCH;
    let with = |state, keep: bool| Record { exported: keep.then(|| exported().into()), ..record(state) };
    for (state, keep, known) in [
        (State::Exporting, false, Some(OpenState::Unfinished)),
        (State::Exported, true, Some(OpenState::Exported)),
        (State::Loading, true, Some(OpenState::Exported)),
        (State::Loaded, true, None),
    ] {
        ledger.record(&run(), now, [(&units[0], &with(state, keep))]).unwrap();
        assert_eq!(open(&ledger, &units[0]), known);
        let remembered = keep && state != State::Loaded;
        assert_eq!(ledger.exported(&units[0].key).unwrap(), remembered.then(exported), "{state:?}");
    }
    for keep in [true, false] {
        let failed = Record { failure: Some(failure().into()), ..with(State::Failed, keep) };
        ledger.record(&run(), now, [(&units[1], &failed)]).unwrap();
        let known = if keep { OpenState::Exported } else { OpenState::Unfinished };
        assert_eq!(open(&ledger, &units[1]), Some(known));
    }
}

#[test]
fn what_was_loaded_into_another_target_is_not_loaded_here() {
    let (_keep, mut ledger) = ledger();
    let units = units();
    ledger.record(&run(), Timestamp::UNIX_EPOCH, [(&units[0], &record(State::Loaded))]).unwrap();
    assert_eq!(series(&ledger, "u").loaded.len(), 1);
    assert!(series(&ledger, "another").loaded.is_empty());
}

#[test]
fn the_watermark_never_passes_a_window_that_is_not_loaded() {
    let (_keep, mut ledger) = ledger();
    let units = units();
    let watermark = |ledger: &Ledger| tables(ledger)[0].watermark.clone();
    for (index, state, expected) in [
        (0, State::Loaded, Some("2021-08-11T00:00:00")),
        (2, State::Loaded, Some("2021-08-11T00:00:00")),
        (1, State::Failed, Some("2021-08-11T00:00:00")),
        (1, State::Loaded, Some("2021-08-13T00:00:00")),
    ] {
        let record = Record { rows_loaded: Some(1), ..record(state) };
        ledger.record(&run(), Timestamp::UNIX_EPOCH, [(&units[index], &record)]).unwrap();
        assert_eq!(watermark(&ledger).as_deref(), expected, "after {index} {state:?}");
    }
}

#[test]
fn every_attempt_is_kept_with_durations_to_two_decimals() {
    let (_keep, mut ledger) = ledger();
    let units = units();
    for attempt in 1..=3 {
        let record = Record { attempt, failure: Some(failure().into()), ..record(State::Failed) };
        ledger.record(&run(), Timestamp::UNIX_EPOCH, [(&units[0], &record)]).unwrap();
    }
    let failed = ledger.failed_units().unwrap();
    assert_eq!((failed.len(), failed[0].attempts), (1, 3));
    assert_eq!((failed[0].error.as_str(), failed[0].remedy.as_str()), ("it broke", "mend it"));
    let seconds: f64 =
        ledger.connection.query_row("SELECT max(export_seconds) FROM attempt", [], |row| row.get(0)).unwrap();
    assert!((seconds - 1.23).abs() < f64::EPSILON, "{seconds}");
}

#[test]
fn a_ledger_of_a_newer_gpferry_is_refused() {
    let (_keep, ledger) = ledger();
    let path = ledger.path().to_owned();
    ledger.connection.execute_batch("PRAGMA user_version = 999").unwrap();
    drop(ledger);
    assert!(matches!(Ledger::open(&path), Err(LedgerError::Newer { found: 999, .. })));
}

#[test]
fn a_failed_load_with_a_name_like_sql_is_only_a_name() {
    let (_keep, mut ledger) = ledger();
    let mut unit = units().remove(0);
    unit.table = TableName::new("a'; DROP TABLE unit; --", "t").unwrap();
    unit.entry = Arc::clone(&unit.entry);
    ledger.record(&run(), Timestamp::UNIX_EPOCH, [(&unit, &record(State::Loaded))]).unwrap();
    assert_eq!(tables(&ledger)[0].table, "a'; DROP TABLE unit; --.t");
}

#[test]
fn what_is_loaded_becomes_one_interval_and_a_failure_counts_once_a_run() {
    let (_keep, mut ledger) = ledger();
    let units = units();
    let now = Timestamp::UNIX_EPOCH;
    for (index, intervals) in [(0, 1), (2, 2), (1, 1)] {
        ledger.record(&run(), now, [(&units[index], &record(State::Loaded))]).unwrap();
        let series = series(&ledger, "u");
        assert_eq!((series.loaded.len(), series.loaded[0].intervals.len()), (1, intervals), "{index}");
    }
    let (_keep, mut ledger) = self::ledger();
    let failed = Record { failure: Some(failure().into()), ..record(State::Failed) };
    let elsewhere =
        Record { failure: Some(RecordedFailure { counts: false, ..failure() }.into()), ..failed.clone() };
    for (id, record, tries) in [
        ("a", &failed, 1),
        ("a", &failed, 1),
        ("b", &elsewhere, 1),
        ("b", &failed, 2),
        ("c", &record(State::Loading), 2),
        ("c", &failed, 3),
    ] {
        ledger.record(&Run { id: id.into(), ..run() }, now, [(&units[0], record)]).unwrap();
        assert_eq!(series(&ledger, "u").open[0].tries, tries, "{id}");
    }
    ledger.replace(&run(), now, &[units[0].key.clone()]).unwrap();
    assert_eq!(series(&ledger, "u"), Series::default());
}

#[test]
fn an_older_ledger_is_brought_to_this_version() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("l.sqlite");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(schema::STEPS[0].sql).unwrap();
    old.execute_batch(
        "PRAGMA user_version = 1;
         INSERT INTO unit (source, id, job, table_name, target, target_url, state, run, updated_at) VALUES
         ('s', 'db^a^t^20210810000000^20210811000000', 'j', 'a.t', 'a.t', 'u', 'loaded', 'r', '2021-08-11T00:00:00Z'),
         ('s', 'db^a^t^20210811000000^20210812000000', 'j', 'a.t', 'a.t', 'u', 'loaded', 'r', '2021-08-12T00:00:00Z'),
         ('s', 'db^a^t^20210812000000^20210813000000', 'j', 'a.t', 'a.t', 'u', 'failed', 'r', '2021-08-13T00:00:00Z'),
         ('s', 'db^a^w^all', 'j', 'a.w', 'a.w', 'u', 'loaded', 'r', '2021-08-13T00:00:00Z');",
    )
    .unwrap();
    drop(old);
    let other = directory.path().join("other.sqlite");
    std::fs::copy(&path, &other).unwrap();
    let mut ledger = Ledger::open(&path).unwrap();
    let before = series(&ledger, "u");
    assert_eq!((before.unmeasured.len(), before.loaded.len(), before.open.len()), (1, 0, 1));
    let whole = ledger.facts("u").unwrap().series("s", "db^a^w").cloned().unwrap();
    assert_eq!(whole.loaded[0].measure, crate::measure::Measure::All);
    let tallied = tables(&ledger).iter().map(|one| (one.table.clone(), one.loaded)).collect::<Vec<_>>();
    assert_eq!(tallied, [("a.t".to_owned(), 2), ("a.w".to_owned(), 1)]);
    assert_eq!(tables(&ledger)[0].watermark.as_deref(), Some("2021-08-12T00:00:00"));
    // What nobody wrote down is what the first run takes it for, or the next unit says.
    let mut taken = Ledger::open(&other).unwrap();
    let measure: crate::measure::Measure = "time:b".parse().unwrap();
    let assumed = Assumed { source: "s".into(), series: "db^a^t".into(), measure: measure.clone() };
    taken.assume("u", &[assumed]).unwrap();
    let taken = series(&taken, "u");
    assert_eq!((taken.unmeasured.len(), &taken.loaded[0].measure), (0, &measure));
    ledger.record(&run(), Timestamp::UNIX_EPOCH, [(&units()[2], &record(State::Loaded))]).unwrap();
    let after = series(&ledger, "u");
    assert_eq!((after.unmeasured.len(), after.loaded[0].intervals.len(), after.open.len()), (0, 1, 0));
    assert_eq!(after.loaded[0].measure.to_string(), "time:c");
}

#[test]
fn what_an_older_load_log_did_not_measure_is_of_the_first_column_after_it() {
    let (_keep, mut ledger) = ledger();
    let now = Timestamp::UNIX_EPOCH;
    let row = |hours: &str, measure: Option<&str>| Logged {
        key: UnitKey { source: "s".into(), id: format!("db^a^t^{hours}") },
        job: "j".into(),
        target: "a.t".into(),
        measure: measure.map(|measure| measure.parse().unwrap()),
        rows: 7,
        rejected: 2,
        loaded_at: now,
        run: "r".into(),
    };
    let log = [
        row("20210810000000^20210810040000", None),
        row("20210810040000^20210810080000", Some("time:c")),
        row("20210810000000^20210810080000^c1", Some("time:d")),
        row("20210810080000^20210810120000^c2", Some("time:e")),
    ];
    let taken = ledger.catch_up("u", now, |take| -> Result<(), LedgerError> {
        log.into_iter().for_each(take);
        Ok(())
    });
    assert_eq!(taken.unwrap(), 4);
    let series = series(&ledger, "u");
    assert!(series.unmeasured.is_empty());
    let lengths: Vec<i64> = series
        .loaded
        .iter()
        .map(|loaded| loaded.intervals.iter().map(|one| one.end() - one.start()).sum::<i64>() / 3_600_000_000)
        .collect();
    assert_eq!(lengths, [8, 8, 4], "{:?}", series.loaded);
}

#[test]
fn a_ledger_catches_up_from_a_load_log() {
    let (_keep, mut ledger) = ledger();
    let units = units();
    let now = Timestamp::UNIX_EPOCH;
    ledger
        .record(
            &run(),
            now,
            [(&units[0], &Record { failure: Some(failure().into()), ..record(State::Failed) })],
        )
        .unwrap();
    let logged = |unit: &Unit| Logged {
        key: unit.key.clone(),
        job: "j".into(),
        target: "a.t".into(),
        measure: Some(unit.rows.measure.clone()),
        rows: 7,
        rejected: 2,
        loaded_at: now,
        run: "r".into(),
    };
    assert!(!ledger.has_caught_up("u").unwrap());
    let taken = ledger.catch_up("u", now, |take| -> Result<(), LedgerError> {
        units.iter().map(logged).for_each(take);
        Ok(())
    });
    assert_eq!(taken.unwrap(), 3);
    assert!(ledger.has_caught_up("u").unwrap());
    let series = series(&ledger, "u");
    assert_eq!((series.loaded[0].intervals.len(), series.open.len()), (1, 0));
    assert_eq!((tables(&ledger)[0].table.as_str(), tables(&ledger)[0].rows), ("a.t", 21));
}

#[test]
fn ids_are_kept_until_a_later_look_is_old_enough() {
    let (_keep, ledger) = ledger();
    let column = crate::plan::IdColumn { source: "s".into(), table: "a.t".into(), column: "n".into() };
    let look = |second: i64| {
        let at = Timestamp::from_second(second).unwrap();
        let seen = crate::plan::SeenIds { at, lowest: 1, highest: second };
        ledger.note_ids(&column, seen, Duration::from_secs(60)).unwrap();
        let facts = ledger.facts("u").unwrap();
        facts.ids[&column].iter().map(|seen| seen.highest).collect::<Vec<_>>()
    };
    assert_eq!(look(1000), [1000]);
    assert_eq!(look(1030), [1000, 1030]);
    assert_eq!(look(1059), [1000, 1030, 1059]);
    assert_eq!(look(1095), [1030, 1059, 1095]);
}
