//! Plans, runs and the ledger as text for people and JSON for programs. Pure: everything here returns a text.

pub mod alarm;
pub mod compare;
pub mod explain;
pub mod failure;
pub mod history;
pub mod import;
mod keys;
pub mod plan;
pub mod preflight;
pub mod prune;
pub mod repair;
pub mod run;
pub mod status;
pub mod tables;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

/// The version of every JSON document.
pub const JSON_VERSION: u32 = 1;

/// A table without lines. It is never wrapped: a name broken in two helps nobody, and `grep` reads it too.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table
}

/// A table as text, without blanks at the ends of lines.
fn trimmed(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(&line).trim_end())).collect()
}

/// `1 unit`, `2 units`.
pub(crate) fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Seconds as everything shows them.
fn two_decimals(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}

/// A text at a margin, wrapped at `width`: the margin before its first line, blanks of the same width before
/// the others.
fn block(margin: &str, text: &str, width: u16) -> String {
    let indent = " ".repeat(margin.chars().count());
    let room = usize::from(width).saturating_sub(indent.len()).max(20);
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut current = String::new();
        for word in line.split(' ') {
            if !current.is_empty() && current.chars().count() + 1 + word.chars().count() > room {
                lines.push(std::mem::take(&mut current));
            }
            if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(word);
        }
        lines.push(current);
    }
    let mut shown = String::new();
    for (n, line) in lines.iter().enumerate() {
        let start = if n == 0 { margin } else { &indent };
        shown.push_str(format!("{start}{line}").trim_end());
        shown.push('\n');
    }
    shown
}
