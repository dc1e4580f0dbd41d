//! What tables were made in the target.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::plan::skipped as left_alone;
use super::{JSON_VERSION, block, count, two_decimals};
use crate::engine::tables::{Created, Tables};
use crate::names::TableName;
use crate::plan::Skipped;

/// So many tables are still named one by one.
const FEW: usize = 3;

/// For people.
pub fn text(tables: &Tables, needed: usize, skipped: &[Skipped], took: Duration, width: u16) -> String {
    let mut shown = String::new();
    for (table, failure) in &tables.failed {
        shown.push_str(&format!("NOT CREATED: {table}\n"));
        shown.push_str(&block("    ", &failure.error, width));
        shown.push_str(&block("    try: ", &failure.remedy, width));
    }
    shown.push_str(&left_alone(skipped));
    shown.push_str(&notes(&tables.created));
    let resume = if tables.there < needed { ";\nthe same command creates the rest" } else { "" };
    shown.push_str(&format!(
        "{}/{needed} tables, {} created, {} failed, in {:.2} s{resume}\n",
        tables.there,
        tables.created.len(),
        tables.failed.len(),
        took.as_secs_f64()
    ));
    shown
}

/// What was left out or changed: one line for each remark, since thousands of tables may share one. Not wrapped, as
/// what is left alone.
pub(super) fn notes(created: &[Created]) -> String {
    let mut by_note: BTreeMap<&str, Vec<&TableName>> = BTreeMap::new();
    for one in created {
        for note in &one.notes {
            by_note.entry(note).or_default().push(&one.table);
        }
    }
    let line = |(note, tables): (&str, Vec<&TableName>)| {
        let names = if tables.len() <= FEW {
            tables.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        } else {
            count(tables.len() as u64, "table")
        };
        format!("created {names}: {note}\n")
    };
    by_note.into_iter().map(line).collect()
}

/// For programs.
pub fn json(tables: &Tables, needed: usize, skipped: &[Skipped], took: Duration, exit_code: u8) -> Value {
    let failed: Vec<Value> = tables
        .failed
        .iter()
        .map(|(table, failure)| {
            json!({ "table": table.to_string(), "error": failure.error, "remedy": failure.remedy })
        })
        .collect();
    json!({
        "version": JSON_VERSION,
        "exit_code": exit_code,
        "seconds": two_decimals(took.as_secs_f64()),
        "totals": {
            "tables": needed, "tables_done": tables.there, "created": tables.created.len(),
            "failed": tables.failed.len(),
        },
        "created": created(&tables.created),
        "failed": failed,
        "skipped": skipped,
    })
}

/// The tables that were made, with their remarks.
pub(super) fn created(created: &[Created]) -> Vec<Value> {
    created.iter().map(|one| json!({ "table": one.table.to_string(), "notes": one.notes })).collect()
}
