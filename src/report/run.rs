//! What a run did.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::keys;
use super::plan::{skipped, unit};
use super::tables::{created, notes};
use super::{JSON_VERSION, block, count, two_decimals};
use crate::engine::{Fate, Halves, Outcome};
use crate::inventory::Rejects;
use crate::ledger::State;
use crate::plan::{Change, Note, Plan};
use crate::step::UnitFailure;
use crate::step::load::How;
use crate::target::Kind;
use crate::unit::{Unit, UnitKey};

/// Counts over a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tables of the plan.
    pub tables: u64,
    /// Tables whose every unit is done: loaded, or where nothing is loaded, exported.
    pub tables_done: u64,
    /// Tables that were made in the target.
    pub created: u64,
    /// Primary keys that were built after the rows.
    pub keys_built: u64,
    /// Those that could not be built.
    pub keys_failed: u64,
    /// Those that are still to be built, since a stop came first.
    pub keys_owed: u64,
    /// Units of the plan.
    pub units: u64,
    /// Units whose rows this run put into the target.
    pub loaded: u64,
    /// Units that were there before.
    pub already_there: u64,
    /// Units whose file is on the mount, not loaded.
    pub exported: u64,
    /// Units that were not begun, since their job's `hours` are over.
    pub closed: u64,
    /// Units that failed.
    pub failed: u64,
    /// Rows that this run put into the target.
    pub rows: u64,
    /// Rows of the files of exported and loaded units.
    pub rows_exported: u64,
    /// Rows that this run kept out, and wrote down.
    pub rejected: u64,
    /// Units with such rows whose entry does not allow them.
    pub refused: u64,
    /// Compressed bytes of the files of loaded and exported units.
    pub bytes: u64,
}

impl Totals {
    /// Adds a run up.
    pub fn of(plan: &Plan, outcome: &Outcome, halves: Halves) -> Self {
        let mut tables = BTreeMap::new();
        for (unit, fate) in plan.units.iter().zip(&outcome.fates) {
            let state = fate.as_ref().map(|fate| fate.record.state);
            let done =
                state == Some(State::Loaded) || (halves == Halves::Export && state == Some(State::Exported));
            *tables.entry((&unit.key.source, &unit.table, &unit.target)).or_insert(true) &= done;
        }
        let mut totals = Self {
            tables: tables.len() as u64,
            tables_done: tables.values().filter(|&&done| done).count() as u64,
            created: outcome.created.len() as u64,
            keys_built: outcome.keys.iter().filter(|end| end.failure.is_none()).count() as u64,
            keys_failed: outcome.keys.iter().filter(|end| end.failure.is_some()).count() as u64,
            keys_owed: outcome.owed.len() as u64,
            units: outcome.fates.len() as u64,
            closed: outcome.closed as u64,
            ..Self::default()
        };
        for (unit, fate) in plan.units.iter().zip(&outcome.fates) {
            let Some(fate) = fate else { continue };
            totals.rejected += fate.rejected;
            totals.refused += u64::from(fate.rejected > 0 && unit.entry.load.rejects == Rejects::Fail);
            totals.rows_exported += fate.record.exported.as_ref().map_or(0, |exported| exported.rows);
            totals.bytes += fate.record.exported.as_ref().map_or(0, |exported| exported.trailer.bytes);
            match (fate.record.state, fate.how) {
                (State::Loaded, Some(How::AlreadyThere)) => totals.already_there += 1,
                (State::Loaded, Some(How::Now) | None) => {
                    totals.loaded += 1;
                    totals.rows += fate.record.rows_loaded.unwrap_or(0);
                }
                (State::Exported | State::Loading, _) => totals.exported += 1,
                (State::Failed, _) => totals.failed += 1,
                (State::Exporting | State::Replaced, _) => {}
            }
        }
        totals
    }

    /// Units that were neither finished nor failed: a stop left them.
    pub fn left(&self) -> u64 {
        self.units - self.loaded - self.already_there - self.exported - self.failed - self.closed
    }
}

/// For people.
pub fn text(plan: &Plan, outcome: &Outcome, halves: Halves, took: Duration, width: u16) -> String {
    let mut shown = failures(plan, outcome, width);
    shown.push_str(&keys::failures(&outcome.keys, width));
    shown.push_str(&rejects(plan, outcome));
    shown.push_str(&skipped(&plan.skipped));
    // What a plan says beforehand; but this only the run found out.
    let found_out = |note: &&Note| matches!(note.change, Change::Large { .. } | Change::Exported { .. });
    shown.push_str(&super::plan::notes(plan.notes.iter().filter(found_out)));
    shown.push_str(&notes(&outcome.created));
    shown.push_str(&keys::owed(&outcome.owed));
    shown.push_str(&summary(&Totals::of(plan, outcome, halves), halves, took));
    shown
}

/// So many units that failed for one reason are still named one by one.
const FEW: usize = 3;

/// Every failure once, with the units that it hit: a table that is missing fails all its windows, and an operator reads
/// it once.
fn failures(plan: &Plan, outcome: &Outcome, width: u16) -> String {
    let mut groups: Vec<(&UnitFailure, Vec<&UnitKey>)> = Vec::new();
    let mut places: HashMap<(&str, &str, &str), usize> = HashMap::new();
    for (unit, fate) in plan.units.iter().zip(&outcome.fates) {
        let Some(failure) = fate.as_deref().and_then(failed) else { continue };
        let reason = (failure.stage.word(), failure.error.as_str(), failure.remedy.as_str());
        // Keys are each unit's own.
        let place = if failure.keys.is_empty() { places.get(&reason).copied() } else { None };
        let place = place.unwrap_or_else(|| {
            groups.push((failure, Vec::new()));
            groups.len() - 1
        });
        places.insert(reason, place);
        groups[place].1.push(&unit.key);
    }
    let mut shown = String::new();
    for (failure, units) in groups {
        for key in units.iter().take(FEW) {
            shown.push_str(&format!("FAILED in {}: {key}\n", failure.stage.word()));
        }
        if let more @ 1.. = units.len().saturating_sub(FEW) {
            shown.push_str(&format!("… and {} for the same reason\n", count(more as u64, "more unit")));
        }
        shown.push_str(&block("    ", &failure.error, width));
        shown.push_str(&first_keys(&failure.keys));
        shown.push_str(&block("    try: ", &failure.remedy, width));
    }
    shown
}

fn failed(fate: &Fate) -> Option<&UnitFailure> {
    fate.failure.as_deref().filter(|_| fate.record.state == State::Failed)
}

fn first_keys(keys: &[(Kind, String)]) -> String {
    let line = |kind: Kind| {
        let of: Vec<&str> =
            keys.iter().filter(|(one, _)| *one == kind).map(|(_, key)| key.as_str()).collect();
        let what = match kind {
            Kind::Twice => "twice in the file",
            Kind::Identical => "already in the target, the same row",
            Kind::Different => "already in the target, another row",
        };
        if of.is_empty() { String::new() } else { format!("    first keys {what}: {}\n", of.join(", ")) }
    };
    Kind::ALL.map(line).concat()
}

/// Where the rows that were kept out are.
fn rejects(plan: &Plan, outcome: &Outcome) -> String {
    let line = |(unit, fate): (&Unit, &Option<Box<Fate>>)| {
        let rows = fate.as_ref().map(|fate| fate.rejected).filter(|&rows| rows > 0)?;
        let path = crate::mount::rejects::path(&unit.key);
        let allowed = match unit.entry.load.rejects {
            Rejects::Fail => "",
            Rejects::Allow => " (allowed)",
        };
        Some(format!("kept out{allowed}: {} of {}, in {}\n", count(rows, "row"), unit.key, path.display()))
    };
    plan.units.iter().zip(&outcome.fates).filter_map(line).collect()
}

/// What was done, and, as the last line, what an operator looks at first; it reads alike in every mode of working.
fn summary(totals: &Totals, halves: Halves, took: Duration) -> String {
    let mut shown = format!("{}\n", done(totals, halves).join(", "));
    let unfinished = totals.failed + totals.left() > 0 || (totals.exported > 0 && halves != Halves::Export);
    if unfinished {
        shown.push_str("the same command resumes them\n");
    }
    let rows = if halves == Halves::Export { totals.rows_exported } else { totals.rows };
    let mut parts = vec![format!("{}/{} tables", totals.tables_done, totals.tables), count(rows, "row")];
    if halves == Halves::Both {
        parts.push(format!("{} created", totals.created));
    }
    parts.push(format!("{} failed", totals.failed));
    shown.push_str(&format!("{}, in {:.2} s\n", parts.join(", "), took.as_secs_f64()));
    shown
}

/// What became of units, bytes and keys.
fn done(totals: &Totals, halves: Halves) -> Vec<String> {
    let units = count(totals.units, "unit");
    let mut parts = match halves {
        Halves::Export => vec![format!("{} of {units} exported", totals.exported)],
        Halves::Both | Halves::Load => {
            vec![format!("{} of {units} loaded", totals.loaded), count(totals.rows, "row")]
        }
    };
    parts.push(HumanBytes(totals.bytes).to_string());
    if totals.keys_built > 0 {
        parts.push(format!("{} built", count(totals.keys_built, "key")));
    }
    if totals.keys_failed > 0 {
        parts.push(format!("{} not built", count(totals.keys_failed, "key")));
    }
    if totals.rejected > 0 {
        parts.push(format!("{} kept out", count(totals.rejected, "row")));
    }
    if totals.exported > 0 && halves != Halves::Export {
        parts.push(format!("{} exported and waiting to be loaded", totals.exported));
    }
    let counted = [
        (totals.already_there, "already there"),
        (totals.closed, "left for the job's next `hours`"),
        (totals.left(), "not finished"),
    ];
    parts.extend(
        counted.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")),
    );
    parts
}

/// For programs.
pub fn json(
    run: &str,
    plan: &Plan,
    outcome: &Outcome,
    halves: Halves,
    took: Duration,
    exit_code: u8,
) -> Value {
    let units: Vec<Value> = plan
        .units
        .iter()
        .zip(&outcome.fates)
        .map(|(one, fate)| {
            let mut value = unit(one);
            if let (Some(object), Some(fate)) = (value.as_object_mut(), fate) {
                object.extend(described(fate));
            }
            value
        })
        .collect();
    let totals = Totals::of(plan, outcome, halves);
    json!({
        "version": JSON_VERSION,
        "run": run,
        "exit_code": exit_code,
        "seconds": two_decimals(took.as_secs_f64()),
        "totals": {
            "units": totals.units, "loaded": totals.loaded, "already_there": totals.already_there,
            "exported": totals.exported, "failed": totals.failed, "left": totals.left(), "outside_hours": totals.closed,
            "rows": totals.rows, "rows_exported": totals.rows_exported, "rejected": totals.rejected, "bytes": totals.bytes,
            "tables": totals.tables, "tables_done": totals.tables_done, "created": totals.created,
            "keys_built": totals.keys_built, "keys_failed": totals.keys_failed, "keys_owed": totals.keys_owed,
        },
        "created": created(&outcome.created),
        "keys": keys::json(&outcome.keys),
        "owed_keys": outcome.owed,
        "units": units,
        "skipped": plan.skipped,
    })
}

fn described(fate: &Fate) -> serde_json::Map<String, Value> {
    let record = &fate.record;
    let value = json!({
        "state": record.state.word(),
        "already_there": fate.how == Some(How::AlreadyThere),
        "attempt": record.attempt,
        "file": record.exported.as_ref().map(|exported| exported.named()),
        "files": record.exported.as_ref().map(|exported| exported.parts.len().max(1)),
        "rows_exported": record.exported.as_ref().map(|exported| exported.rows),
        "rows_loaded": record.rows_loaded,
        "rows_rejected": fate.rejected,
        "bytes": record.exported.as_ref().map(|exported| exported.trailer.bytes),
        "export_seconds": record.export_seconds.map(two_decimals),
        "load_seconds": record.load_seconds.map(two_decimals),
        "failure": record.failure.as_ref().map(|failure| json!({
            "stage": failure.stage, "error": failure.error, "remedy": failure.remedy,
        })),
    });
    value.as_object().cloned().unwrap_or_default()
}
