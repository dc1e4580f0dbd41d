//! How far each table is, how much is loaded, and what failed.

use comfy_table::CellAlignment;
use serde_json::{Value, json};

use super::{JSON_VERSION, block, count, keys, table, trimmed};
use crate::ledger::compared::Verdict;
use crate::ledger::overview::TableStatus;
use crate::ledger::status::FailedUnit;
use crate::owed::OwedKey;
use crate::window::human;

/// Failed units that are shown to people at most.
const MOST: usize = 100;

/// A column: its header, what it shows, and whether it is left out where it would say nothing.
struct Column {
    header: &'static str,
    show: fn(&TableStatus) -> String,
    only_if: fn(&TableStatus) -> bool,
    number: bool,
}

const COLUMNS: &[Column] = &[
    Column { header: "JOB", show: |one| one.job.clone(), only_if: |_| true, number: false },
    Column { header: "TABLE", show: name, only_if: |_| true, number: false },
    Column { header: "LOADED UP TO", show: watermark, only_if: |_| true, number: false },
    Column {
        header: "LATE",
        show: |one| one.late_seconds.map_or_else(|| "-".into(), human),
        only_if: |_| true,
        number: false,
    },
    Column { header: "LOADED", show: |one| one.loaded.to_string(), only_if: |_| true, number: true },
    Column { header: "ROWS", show: |one| one.rows.to_string(), only_if: |_| true, number: true },
    Column {
        header: "KEPT OUT",
        show: |one| one.rejected.to_string(),
        only_if: |one| one.rejected > 0,
        number: true,
    },
    Column { header: "TODAY", show: |one| one.rows_today.to_string(), only_if: |_| true, number: true },
    Column {
        header: "WAITING",
        show: |one| one.exported.to_string(),
        only_if: |one| one.exported > 0,
        number: true,
    },
    Column {
        header: "BEGUN",
        show: |one| one.unfinished.to_string(),
        only_if: |one| one.unfinished > 0,
        number: true,
    },
    Column {
        header: "FAILED",
        show: |one| one.failed.to_string(),
        only_if: |one| one.failed > 0,
        number: true,
    },
    Column {
        header: "NULL",
        show: nulls,
        only_if: |one| nulls(one) != "0" && nulls(one) != "-",
        number: true,
    },
    Column { header: "COMPARED", show: compared, only_if: |one| one.compared.is_some(), number: false },
];

/// For people. Columns that would hold nothing but zeros are left out.
pub fn text(tables: &[TableStatus], failed: &[FailedUnit], owed: &[OwedKey], width: u16) -> String {
    if tables.is_empty() {
        return "nothing has been moved yet\n".into();
    }
    let columns: Vec<&Column> = COLUMNS.iter().filter(|column| tables.iter().any(column.only_if)).collect();
    let mut shown = table(&columns.iter().map(|column| column.header).collect::<Vec<_>>());
    for (column, told) in shown.column_iter_mut().zip(&columns) {
        if told.number {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for one in tables {
        shown.add_row(columns.iter().map(|column| (column.show)(one)));
    }
    let mut text = trimmed(&shown);
    if tables.iter().any(|one| !one.nulls_included && nulls(one) != "0" && nulls(one) != "-") {
        text.push_str(&block("", NULLS, width));
    }
    for unit in failed.iter().take(MOST) {
        text.push_str(&one_failed(unit, width));
    }
    if failed.len() > MOST {
        let more = count((failed.len() - MOST) as u64, "more failed unit");
        text.push_str(&format!("\nand {more}: `gpferry history --state failed` lists them\n"));
    }
    if !owed.is_empty() {
        text.push_str(&format!("\n{}", keys::owed(owed)));
    }
    text
}

const NULLS: &str = "NULL: rows of the source without a value in the window column, which are in no window; `null_window: \
     include` moves them (? could not be counted in time)";

fn name(one: &TableStatus) -> String {
    if one.target.is_empty() || one.table == one.target {
        return one.table.clone();
    }
    format!("{} -> {}", one.table, one.target)
}

/// Seconds only where there are some.
fn watermark(one: &TableStatus) -> String {
    let Some(at) = &one.watermark else { return "-".into() };
    let at = at.replace('T', " ");
    at.strip_suffix(":00").filter(|at| at.len() == 16).map_or(at.clone(), str::to_owned)
}

fn nulls(one: &TableStatus) -> String {
    match (one.null_rows, &one.null_rows_at) {
        (Some(rows), _) => rows.to_string(),
        (None, Some(_)) => "?".into(),
        (None, None) => "-".into(),
    }
}

/// What the last comparison found, and when.
fn compared(one: &TableStatus) -> String {
    let Some(compared) = &one.compared else { return "-".into() };
    let at = compared.at.get(..16).unwrap_or(&compared.at).replace('T', " ");
    let found = match (compared.open, compared.verdict) {
        (0, Verdict::Equal) if !compared.deep => "equal in number".into(),
        (0, Verdict::Equal) => "equal".into(),
        (0, Verdict::Partly) => "equal in part".into(),
        (0, Verdict::Different | Verdict::Unread) => "not compared".into(),
        (1, _) => "1 window differs".into(),
        (open, _) => format!("{open} windows differ"),
    };
    format!("{found} ({at} UTC)")
}

fn one_failed(unit: &FailedUnit, width: u16) -> String {
    let mut text = format!("\nFAILED in {}: {}:{}\n", unit.stage, unit.source, unit.unit);
    text.push_str(&block("    ", &unit.error, width));
    text.push_str(&block("    try: ", &unit.remedy, width));
    let runs = count(u64::from(unit.tries), "run");
    let tries = match (unit.tries, unit.allowed) {
        // A host or a target that was down is no fault of the unit.
        (0, _) => return text,
        (_, Some(_)) if unit.given_up => {
            format!("given up after {runs}; then `gpferry run --retry-failed` tries it again")
        }
        (tries, Some(allowed)) => format!("tried by {tries} of {}", count(u64::from(allowed), "run")),
        (_, None) => format!("tried by {runs}"),
    };
    text.push_str(&block("    ", &tries, width));
    text
}

/// For programs.
pub fn json(tables: &[TableStatus], failed: &[FailedUnit], owed: &[OwedKey]) -> Value {
    json!({ "version": JSON_VERSION, "tables": tables, "failed": failed, "owed_keys": owed })
}
