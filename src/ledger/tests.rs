//! What the ledger promises, on a real file.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::*;
use crate::gzip::Trailer;
use crate::inventory;
use crate::names::TableName;
use crate::plan::{Catalog, Selection, plan};

/// Units of three windows of one table.
fn units() -> Vec<Unit> {
    let text = "version: 1\nmount: { path: /mnt }\ntarget: { url: \"postgresql://u@h/d\" }\n\
         sources: { s: { host: h, engine: postgres, database: db } }\n\
         jobs: { j: { source: s, from: 2021-08-10, until: 2021-08-13, tables: [ { table: a.t, window: { column: c, length: 1d } } ] } }\n";
    let inventory = inventory::parse(text, Path::new("i.yml")).unwrap();
    let now = "2022-01-01T00:00:00Z".parse().unwrap();
    plan(&inventory, &Selection::default(), &Catalog::new(), &HashMap::new(), now).units
}

fn record(state: State) -> Record {
    Record {
        attempt: 1,
        state,
        started_at: Timestamp::UNIX_EPOCH,
        exported: None,
        rows_loaded: None,
        export_seconds: Some(1.234_567),
        load_seconds: None,
        failure: None,
    }
}

fn exported() -> Exported {
    let trailer = Trailer { bytes: 99, crc32: 7, isize: 300 };
    Exported { file: "s/x.csv.gz".into(), rows: 5, trailer, columns: vec!["a".into(), "b c".into()] }
}

fn failure() -> RecordedFailure {
    RecordedFailure { stage: "load", error: "it broke".into(), remedy: "mend it".into() }
}

fn run() -> Run {
    Run {
        id: "r".into(),
        command: "run".into(),
        inventory: "i.yml".into(),
        target_url: "u".into(),
        started_at: Timestamp::UNIX_EPOCH,
    }
}

fn ledger() -> (tempfile::TempDir, Ledger) {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&directory.path().join("state/l.sqlite")).unwrap();
    (directory, ledger)
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
    let with = |state, keep: bool| Record { exported: keep.then(exported), ..record(state) };
    for (state, keep, known) in [
        (State::Exporting, false, Known::Unfinished),
        (State::Exported, true, Known::Exported),
        (State::Loading, true, Known::Exported),
        (State::Loaded, true, Known::Loaded),
    ] {
        ledger.record(&run(), now, [(&units[0], &with(state, keep))]).unwrap();
        assert_eq!(ledger.known("u").unwrap()[&units[0].key], known);
        let remembered = keep && state != State::Loaded;
        assert_eq!(ledger.exported(&units[0].key).unwrap(), remembered.then(exported), "{state:?}");
    }
    for keep in [true, false] {
        let failed = Record { failure: Some(failure()), ..with(State::Failed, keep) };
        ledger.record(&run(), now, [(&units[1], &failed)]).unwrap();
        let known = if keep { Known::Exported } else { Known::Unfinished };
        assert_eq!(ledger.known("u").unwrap()[&units[1].key], known);
    }
}

#[test]
fn what_was_loaded_into_another_target_is_not_loaded_here() {
    let (_keep, mut ledger) = ledger();
    let units = units();
    ledger.record(&run(), Timestamp::UNIX_EPOCH, [(&units[0], &record(State::Loaded))]).unwrap();
    assert_eq!(ledger.known("u").unwrap().len(), 1);
    assert!(ledger.known("another").unwrap().is_empty());
}

#[test]
fn the_watermark_never_passes_a_window_that_is_not_loaded() {
    let (_keep, mut ledger) = ledger();
    let units = units();
    let watermark = |ledger: &Ledger| ledger.tables().unwrap()[0].watermark.clone();
    for (index, state, expected) in [
        (0, State::Loaded, Some("2021-08-11T00:00:00")),
        (2, State::Loaded, Some("2021-08-11T00:00:00")),
        (1, State::Failed, Some("2021-08-11T00:00:00")),
        (1, State::Loaded, Some("2021-08-13T00:00:00")),
        (0, State::Failed, None),
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
        let record = Record { attempt, failure: Some(failure()), ..record(State::Failed) };
        ledger.record(&run(), Timestamp::UNIX_EPOCH, [(&units[0], &record)]).unwrap();
    }
    let failed = ledger.failed_units(10).unwrap();
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
    assert_eq!(ledger.tables().unwrap()[0].table, "a'; DROP TABLE unit; --.t");
}
