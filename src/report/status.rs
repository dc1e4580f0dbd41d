//! What the ledger holds, per job and table.

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::{JSON_VERSION, block, table, trimmed};
use crate::ledger::status::{FailedUnit, TableStatus};

/// For people.
pub fn text(tables: &[TableStatus], failed: &[FailedUnit], width: u16) -> String {
    if tables.is_empty() {
        return "nothing has been moved yet\n".into();
    }
    let mut shown =
        table(&["JOB", "TABLE", "LOADED UP TO", "LOADED", "ROWS", "SIZE", "WAITING", "BEGUN", "FAILED"]);
    for one in tables {
        shown.add_row([
            one.job.clone(),
            one.table.clone(),
            one.watermark.as_deref().map_or_else(|| "-".into(), |time| time.replace('T', " ")),
            one.loaded.to_string(),
            one.rows.to_string(),
            HumanBytes(one.bytes).to_string(),
            one.exported.to_string(),
            one.unfinished.to_string(),
            one.failed.to_string(),
        ]);
    }
    let mut text = trimmed(&shown);
    for unit in failed {
        text.push_str(&format!("\nFAILED in {}: {}:{}\n", unit.stage, unit.source, unit.unit));
        text.push_str(&block("    ", &unit.error, width));
        text.push_str(&block("    try: ", &unit.remedy, width));
    }
    text
}

/// For programs.
pub fn json(tables: &[TableStatus], failed: &[FailedUnit]) -> Value {
    json!({ "version": JSON_VERSION, "tables": tables, "failed": failed })
}
