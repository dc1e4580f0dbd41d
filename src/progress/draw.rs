//! How far a run is, as lines: for a terminal of any size, and for a log. Pure.

use std::time::Duration;

use indicatif::BinaryBytes;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::tally::{Stage, Table, Tally};
use crate::engine::Halves;

/// Tables that are shown at most, however high the terminal is.
pub(super) const TABLES: usize = 10;
/// Tables that a line of a log names.
pub(super) const NAMED: usize = 3;
/// Width of a bar at most.
pub(super) const BAR: usize = 24;

/// The lines of a terminal of so many columns and rows: none is wider, and together they leave some rows free.
pub(super) fn screen(
    tally: &Tally,
    halves: Halves,
    (columns, rows): (usize, usize),
    now: Duration,
) -> Vec<String> {
    // The last column is left free: some terminals wrap once it is written to.
    let width = columns.saturating_sub(1);
    let mut lines = Vec::new();
    if halves != Halves::Load {
        lines.push(export_line(tally, width, now));
    }
    if halves != Halves::Export {
        lines.push(load_line(tally, width, now));
    }
    let tables = tally.in_work();
    let most = TABLES.min(rows.saturating_sub(lines.len() + 3));
    let shown = if tables.len() > most { most.saturating_sub(1) } else { tables.len() };
    lines.extend(tables.iter().take(shown).map(|table| table_line(table, width, now)));
    if tables.len() > shown && most > 0 {
        lines.push(cut(&format!("  and {} more tables in work", tables.len() - shown), width));
    }
    lines
}

fn export_line(tally: &Tally, width: usize, now: Duration) -> String {
    let (stage, all) = (tally.exported, tally.to_export());
    let left = stage.left(stage.done as f64, all, now);
    let numbers = Numbers { stage, bytes: stage.bytes, all, left, failed: 0 };
    line("export", stage.done as f64, &numbers, width, now)
}

fn load_line(tally: &Tally, width: usize, now: Duration) -> String {
    let (stage, all, through) = (tally.loaded, tally.units(), tally.loaded_units());
    let left = stage.left(through, all, now);
    let numbers = Numbers { stage, bytes: tally.bytes_in(), all, left, failed: tally.failed };
    line("load  ", through, &numbers, width, now)
}

struct Numbers {
    stage: Stage,
    bytes: u64,
    all: usize,
    left: Option<Duration>,
    failed: usize,
}

/// `export [#####.....]  4519/9038  27425 rows  1.20 MiB  311.04 KiB/s  12s left`
fn line(name: &str, through: f64, numbers: &Numbers, width: usize, now: Duration) -> String {
    let Numbers { stage, bytes, all, left, failed } = numbers;
    let mut parts = vec![format!("{}/{all}", stage.done), format!("{} rows", short(stage.rows))];
    parts.push(BinaryBytes(*bytes).to_string());
    parts.push(format!("{}/s", BinaryBytes(stage.rate(*bytes, *all, now) as u64)));
    if *failed > 0 {
        parts.push(format!("{failed} failed"));
    }
    if let Some(left) = left.filter(|left| !left.is_zero()) {
        parts.push(format!("{} left", clock(left)));
    }
    let text = parts.join("  ");
    let room = width.saturating_sub(name.len() + 5 + text.len()).min(BAR);
    if room < 4 {
        return cut(&format!("{name} {text}"), width);
    }
    let share = if *all == 0 { 1.0 } else { (through / *all as f64).clamp(0.0, 1.0) };
    let full = (share * room as f64) as usize;
    cut(&format!("{name} [{}{}]  {text}", "#".repeat(full), ".".repeat(room - full)), width)
}

/// `  sor.wpp_adefect_glass_f  3/40  loading 2, exporting 1  1.2M rows  98 MiB  4m10s left`
fn table_line(table: &Table, width: usize, now: Duration) -> String {
    let doing =
        [("key", usize::from(table.keying)), ("loading", table.loading), ("exporting", table.exporting)];
    let doing: Vec<String> = doing
        .iter()
        .filter(|(_, units)| *units > 0)
        .map(|(word, units)| if table.units == 1 { (*word).to_owned() } else { format!("{word} {units}") })
        .collect();
    let mut parts = vec![format!("{}/{}", table.loaded.done, table.units), doing.join(", ")];
    let (stage, bytes) = match table.bytes_in() {
        0 => (table.exported, table.exported.bytes),
        bytes => (table.loaded, bytes),
    };
    let rows = if table.loaded.done > 0 { table.loaded.rows } else { table.exported.rows };
    if rows > 0 {
        parts.push(format!("{} rows", short(rows)));
        parts.push(BinaryBytes(bytes).to_string());
        parts.push(format!("{}/s", BinaryBytes(stage.rate(bytes, table.units, now) as u64)));
    }
    if table.failed > 0 {
        parts.push(format!("{} failed", table.failed));
    }
    let ended = (table.loaded.done + table.failed) as f64;
    if let Some(left) = table.loaded.left(ended, table.units, now).filter(|left| !left.is_zero()) {
        parts.push(format!("{} left", clock(left)));
    }
    let text = parts.join("  ");
    let name = cut(&table.name(), width.saturating_sub(text.len() + 4).max(12));
    cut(&format!("  {name}  {text}"), width)
}

/// One line for a log: all numbers as they are, for whoever searches for them.
pub(super) fn log(tally: &Tally, halves: Halves, now: Duration) -> String {
    let mut parts = Vec::new();
    if halves != Halves::Load {
        let (stage, all) = (tally.exported, tally.to_export());
        let left = stage.left(stage.done as f64, all, now);
        parts.push(format!("exported {}", stretch(&stage, stage.bytes, all, left, now)));
    }
    if halves != Halves::Export {
        let (stage, all) = (tally.loaded, tally.units());
        let left = stage.left(tally.loaded_units(), all, now);
        parts.push(format!("loaded {}", stretch(&stage, tally.bytes_in(), all, left, now)));
    }
    parts.push(format!("{} failed", tally.failed));
    let tables = tally.in_work();
    if !tables.is_empty() {
        let mut named: Vec<String> = tables.iter().take(NAMED).map(|table| table.name()).collect();
        let more = format!("{} more", tables.len().saturating_sub(NAMED));
        if tables.len() > NAMED {
            named.push(more);
        }
        parts.push(format!("in work: {}", named.join(", ")));
    }
    parts.join("; ")
}

fn stretch(stage: &Stage, bytes: u64, all: usize, left: Option<Duration>, now: Duration) -> String {
    let rate = BinaryBytes(stage.rate(bytes, all, now) as u64);
    let left = left.filter(|left| !left.is_zero());
    let left = left.map(|left| format!(", {} left", clock(left))).unwrap_or_default();
    format!("{}/{all} units, {} rows, {} ({rate}/s{left})", stage.done, stage.rows, BinaryBytes(bytes))
}

/// As many digits as fit; from ten million on, with two decimals.
fn short(rows: u64) -> String {
    match rows {
        10_000_000_000.. => format!("{:.2}G", rows as f64 / 1e9),
        10_000_000.. => format!("{:.2}M", rows as f64 / 1e6),
        _ => rows.to_string(),
    }
}

/// `12s`, `4m10s`, `3h05m`, `2d03h`.
pub(super) fn clock(time: Duration) -> String {
    let seconds = time.as_secs().max(1);
    match seconds {
        86_400.. => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
        3600.. => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        60.. => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{seconds}s"),
    }
}

/// As much of a text as fits so many columns: the middle gives way, since names differ at either end.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    if width < 3 {
        return "…".repeat(width.min(1));
    }
    let (head, tail) = ((width - 1) / 2, width - 1 - (width - 1) / 2);
    let mut begin = String::new();
    for character in text.chars() {
        if begin.width() + character.width().unwrap_or(0) > head {
            break;
        }
        begin.push(character);
    }
    let mut end = Vec::new();
    let mut room = tail;
    for character in text.chars().rev() {
        let Some(rest) = room.checked_sub(character.width().unwrap_or(0)) else { break };
        room = rest;
        end.push(character);
    }
    format!("{begin}…{}", end.iter().rev().collect::<String>())
}

#[cfg(test)]
mod tests;
