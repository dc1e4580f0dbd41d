//! What ended a command, and what to try.

use super::block;
use crate::failure::Failure;

/// For people.
pub fn text(failure: &Failure, width: u16) -> String {
    let mut text = match failure {
        // An inventory's report is laid out already.
        Failure::Inventory(error) => format!("gpferry: {error}\n"),
        other => block("gpferry: ", &other.to_string(), width),
    };
    if let Some(remedy) = failure.remedy() {
        text.push_str(&block("  try: ", &remedy, width));
    }
    text
}
