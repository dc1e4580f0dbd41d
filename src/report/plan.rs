//! What `run` would do now.

use serde_json::{Value, json};

use super::{JSON_VERSION, count, table, trimmed};
use crate::plan::{Plan, Skipped};
use crate::unit::Unit;

/// For people.
pub fn text(plan: &Plan, width: u16) -> String {
    let mut shown = String::new();
    if !plan.units.is_empty() {
        let mut units = table(width, &["JOB", "TABLE", "WINDOW", "UNIT"]);
        for unit in &plan.units {
            let window = unit.window.map_or_else(|| "whole table".to_owned(), |window| window.to_string());
            units.add_row([unit.job.as_str(), &target(unit), &window, &unit.key.to_string()]);
        }
        shown.push_str(&trimmed(&units));
        shown.push('\n');
    }
    shown.push_str(&format!("{} to move\n", count(plan.units.len() as u64, "unit")));
    shown.push_str(&skipped(&plan.skipped));
    shown
}

/// `table`, or `table -> target` where the names differ.
fn target(unit: &Unit) -> String {
    if unit.table == unit.target {
        unit.table.to_string()
    } else {
        format!("{} -> {}", unit.table, unit.target)
    }
}

/// One line per job, table and reason.
pub(super) fn skipped(skipped: &[Skipped]) -> String {
    let line = |one: &Skipped| {
        let units =
            if one.units == 0 { String::new() } else { format!("{}, ", count(one.units as u64, "unit")) };
        format!("left alone: {} of {}: {units}{}\n", one.table, one.job, one.why.words())
    };
    skipped.iter().map(line).collect()
}

/// For programs.
pub fn json(plan: &Plan) -> Value {
    let units: Vec<Value> = plan.units.iter().map(unit).collect();
    json!({ "version": JSON_VERSION, "units": units, "skipped": plan.skipped })
}

/// What identifies and describes a unit.
pub(super) fn unit(unit: &Unit) -> Value {
    let window = unit.window.map(|window| {
        json!({
            "column": unit.window_column(),
            "start": window.start().to_string(),
            "end": window.end().to_string(),
        })
    });
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
