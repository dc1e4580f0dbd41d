//! Primary keys that are built after the rows.

use serde_json::{Value, json};

use super::{block, two_decimals};
use crate::engine::keys::KeyEnd;
use crate::owed::OwedKey;

/// Those that could not be built, for people.
pub(super) fn failures(keys: &[KeyEnd], width: u16) -> String {
    let mut shown = String::new();
    for end in keys {
        let Some((error, remedy)) = &end.failure else { continue };
        shown.push_str(&format!("KEY NOT BUILT: {}\n", end.key.table));
        shown.push_str(&block("    ", error, width));
        shown.push_str(&block("    try: ", remedy, width));
    }
    shown
}

/// Those that are still to be built, for people: one line each, never wrapped.
pub(super) fn owed(keys: &[OwedKey]) -> String {
    keys.iter()
        .map(|key| format!("key owed: {}: its rows came first; the next run builds it\n", key.shown()))
        .collect()
}

/// What came of each, for programs.
pub(super) fn json(keys: &[KeyEnd]) -> Vec<Value> {
    let one = |end: &KeyEnd| {
        let failure = end.failure.as_ref().map(|(error, remedy)| json!({ "error": error, "remedy": remedy }));
        let (table, columns) = (end.key.table.to_string(), &end.key.columns);
        json!({ "table": table, "columns": columns, "seconds": two_decimals(end.took.as_secs_f64()), "failure": failure })
    };
    keys.iter().map(one).collect()
}
