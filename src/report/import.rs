//! What was odd in a catalog, for those who leave it behind.

use super::{block, count};
use crate::inventory::Finding;

/// A list; empty where nothing was odd.
pub fn text(findings: &[Finding], width: u16) -> String {
    if findings.is_empty() {
        return String::new();
    }
    let mut shown = format!("{} to look at:\n", count(findings.len() as u64, "thing"));
    findings.iter().for_each(|finding| shown.push_str(&block("  - ", &finding.to_string(), width)));
    shown
}
