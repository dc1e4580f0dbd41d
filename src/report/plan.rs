//! What `run` would do now.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{JSON_VERSION, count, keys};
use crate::plan::{Change, Note, Plan, Skipped, Why};
use crate::unit::{Extent, Unit};

/// So many tables are still named one by one.
const FEW: usize = 3;

/// For people: one line per unit, never wrapped, so that `grep` and `awk` can read it too.
/// `loading` says by what way their rows get in.
pub fn text(plan: &Plan, loading: Option<&str>) -> String {
    let jobs = plan.units.iter().map(|unit| unit.job.len()).max().unwrap_or(0);
    let windows = plan.units.iter().map(|unit| window(unit).chars().count()).max().unwrap_or(0);
    let mut shown: String = plan.units.iter().map(|unit| line(unit, jobs, windows)).collect();
    if !shown.is_empty() {
        shown.push('\n');
    }
    shown.push_str(&format!("{} to move\n", count(plan.units.len() as u64, "unit")));
    shown.extend(loading.map(|loading| format!("loading: {loading}\n")));
    shown.push_str(&skipped(&plan.skipped));
    shown.push_str(&notes(&plan.notes));
    shown.push_str(&keys::owed(&plan.owed));
    shown
}

/// One line per job and change; tables by name where they are few.
pub(super) fn notes<'a>(notes: impl IntoIterator<Item = &'a Note>) -> String {
    let mut by_change: BTreeMap<(&str, &Change), Vec<&str>> = BTreeMap::new();
    for note in notes {
        by_change.entry((&note.job, &note.change)).or_default().push(&note.table);
    }
    let line = |((job, change), tables): ((&str, &Change), Vec<&str>)| {
        format!("note: {} ({job}): {}\n", few(&tables), change.words())
    };
    by_change.into_iter().map(line).collect()
}

fn few(tables: &[&str]) -> String {
    if tables.len() <= FEW { tables.join(", ") } else { count(tables.len() as u64, "table") }
}

fn line(unit: &Unit, jobs: usize, windows: usize) -> String {
    let target = if unit.table == unit.target { String::new() } else { format!(" -> {}", unit.target) };
    format!("{:<jobs$}  {:<windows$}  {}{target}\n", unit.job, window(unit), unit.key)
}

fn window(unit: &Unit) -> String {
    unit.extent.to_string()
}

/// One line per job and reason; tables by name where they are few.
pub(super) fn skipped(skipped: &[Skipped]) -> String {
    let mut by_reason: BTreeMap<(&str, Why), Vec<&Skipped>> = BTreeMap::new();
    for one in skipped {
        by_reason.entry((&one.job, one.why)).or_default().push(one);
    }
    let line = |((job, why), some): ((&str, Why), Vec<&Skipped>)| {
        let units: usize = some.iter().map(|one| one.units).sum();
        let units = if units == 0 { String::new() } else { format!("{} of ", count(units as u64, "unit")) };
        let tables = few(&some.iter().map(|one| one.table.as_str()).collect::<Vec<_>>());
        format!("left alone: {units}{tables} ({job}): {}\n", why.words())
    };
    by_reason.into_iter().map(line).collect()
}

/// For programs.
pub fn json(plan: &Plan, loading: Option<&str>) -> Value {
    let units: Vec<Value> = plan.units.iter().map(unit).collect();
    json!({ "version": JSON_VERSION, "units": units, "skipped": plan.skipped, "notes": plan.notes,
            "owed_keys": plan.owed, "loading": loading })
}

/// What identifies and describes a unit.
pub(super) fn unit(unit: &Unit) -> Value {
    let column = unit.rows.measure.column();
    let window = match unit.extent {
        Extent::Whole | Extent::Repeated(_) => Value::Null,
        Extent::Nulls => json!({ "column": column, "null": true }),
        Extent::Times(window) => json!({
            "column": column,
            "start": window.start().to_string(),
            "end": window.end().to_string(),
        }),
        Extent::Ids(ids) => json!({ "column": column, "first_id": ids.start(), "end_id": ids.end() }),
        Extent::Slice(_) => json!({ "column": column, "slice": unit.extent.to_string() }),
    };
    json!({
        "source": unit.key.source,
        "unit": unit.key.id,
        "job": unit.job,
        "table": unit.table.to_string(),
        "target": unit.target.to_string(),
        "window": window,
        "where": unit.entry.filter.as_ref().map(ToString::to_string),
    })
}
