//! What a comparison found: a line per table, then windows, groups and keys that differ, then what was not compared.

use comfy_table::CellAlignment;
use serde_json::{Value, json};

use super::{JSON_VERSION, block, count, table, trimmed, two_decimals};
use crate::ledger::compared::Verdict;
use crate::plan::{Compared, Uncompared};
use crate::step::compare::{Difference, Key, Told, Unread, Window};
use crate::unit::Extent;

/// Windows and groups of a table that are shown to people at most.
const MOST: usize = 50;

/// What is shown of one table: of its windows, those that differ.
#[derive(Debug)]
pub struct Shown<'a> {
    /// What was compared.
    pub compared: &'a Compared,
    /// What came of it.
    pub verdict: Verdict,
    /// Windows that were compared.
    pub windows: usize,
    /// Their rows on both sides.
    pub rows: [u64; 2],
    /// Were digests of all of them compared?
    pub deep: bool,
    /// What was found; its windows are those that differ.
    pub told: Result<Told, Unread>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl Shown<'_> {
    fn difference(&self) -> Difference {
        self.told.as_ref().map(Told::difference).unwrap_or(Difference::NONE)
    }
}

/// The line of a table for people.
fn row(one: &Shown<'_>) -> Vec<String> {
    let difference = one.difference();
    let number = |rows: u64| match &one.told {
        Ok(_) if difference.exact => rows.to_string(),
        Ok(_) => format!("{rows}+"),
        Err(_) => "-".into(),
    };
    let of_side = |rows: u64| if one.told.is_ok() { rows.to_string() } else { "-".into() };
    vec![
        one.compared.job.clone(),
        name(one.compared),
        one.windows.to_string(),
        if one.deep { "digests" } else { "rows" }.into(),
        of_side(one.rows[0]),
        of_side(one.rows[1]),
        number(difference.missing),
        number(difference.extra),
        number(difference.changed),
        words(one.verdict).into(),
    ]
}

fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Equal => "equal",
        Verdict::Different => "DIFFERENT",
        Verdict::Partly => "equal in part",
        Verdict::Unread => "NOT COMPARED",
    }
}

fn name(compared: &Compared) -> String {
    let by = match compared.rows.measure {
        crate::measure::Measure::Null(_) => " (rows without a time)",
        crate::measure::Measure::All
        | crate::measure::Measure::By(..)
        | crate::measure::Measure::Slice(..) => "",
    };
    if compared.table == compared.target {
        return format!("{}{by}", compared.table);
    }
    format!("{} -> {}{by}", compared.table, compared.target)
}

/// For people.
pub fn text(tables: &[Shown<'_>], left_out: &[Uncompared], width: u16) -> String {
    let mut text = String::new();
    if !tables.is_empty() {
        let header =
            ["JOB", "TABLE", "WINDOWS", "BY", "SOURCE", "TARGET", "MISSING", "EXTRA", "CHANGED", "RESULT"];
        let mut shown = table(&header);
        for (n, column) in shown.column_iter_mut().enumerate() {
            if n == 2 || (4..9).contains(&n) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for one in tables {
            shown.add_row(row(one));
        }
        text.push_str(&trimmed(&shown));
    }
    for one in tables {
        text.push_str(&details(one, width));
    }
    for one in left_out {
        let line = format!("left alone: {} ({}): {}", one.table, one.job, one.why.words());
        text.push_str(&block("", &line, width));
    }
    text.push_str(&summary(tables));
    text
}

fn details(one: &Shown<'_>, width: u16) -> String {
    let mut text = String::new();
    let heading = format!("\n{} ({}):\n", name(one.compared), one.compared.job);
    let told = match &one.told {
        Ok(told) => told,
        Err(unread) => {
            text.push_str(&heading);
            text.push_str(&block("    ", &unread.error, width));
            text.push_str(&block("    try: ", &unread.remedy, width));
            return text;
        }
    };
    for window in told.windows.iter().take(MOST) {
        text.push_str(&format!("  {}: {}\n", window.extent, differs(window)));
    }
    more(&mut text, told.windows.len(), "window");
    for (group, difference) in told.groups.iter().take(MOST) {
        let column = one.compared.entry.compare.group.as_deref().unwrap_or_default();
        text.push_str(&format!("  {column} {}: {}\n", shown(group.as_deref()), parts(difference)));
    }
    more(&mut text, told.groups.len(), "group");
    for key in &told.keys {
        text.push_str(&one_key(told, key));
    }
    if told.null_keys > 0 {
        text.push_str(&format!("  {} with NULL in the key, counted like any other\n", rows(told.null_keys)));
    }
    if told.shared_keys > 0 && told.keyed {
        let keys = count(told.shared_keys, "key");
        text.push_str(&format!("  {keys} of several rows, of which each is counted\n"));
    }
    if !told.keyed && !told.keys.is_empty() {
        let note = "no key is known, so a row that changed is one that is missing and one that is extra; `compare: { key: \
                    [ … ] }` names one";
        text.push_str(&block("  ", note, width));
    }
    for skipped in told.skipped.iter().filter(|skipped| !skipped.meant) {
        text.push_str(&block("  ", &format!("not comparable: {}: {}", skipped.column, skipped.why), width));
    }
    if !text.is_empty() {
        told.notes.iter().for_each(|note| text.push_str(&block("  ", &format!("compared {note}"), width)));
        text.insert_str(0, &heading);
    }
    text
}

fn more(text: &mut String, number: usize, what: &str) {
    if number > MOST {
        let more = count((number - MOST) as u64, &format!("more {what}"));
        text.push_str(&format!("  and {more}: `--format json` lists them\n"));
    }
}

fn differs(window: &Window) -> String {
    let [source, target] = window.rows;
    format!("{source} rows in the source, {target} in the target: {}", parts(&window.difference))
}

fn parts(difference: &Difference) -> String {
    let at_least = if difference.exact { "" } else { "at least " };
    let part = |rows: u64, word: &str| (rows > 0).then(|| format!("{rows} {word}"));
    let parts = [
        part(difference.missing, "missing"),
        part(difference.extra, "only in the target"),
        part(difference.changed, "changed"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        "too many differ to count".into()
    } else {
        format!("{at_least}{}", parts.join(", "))
    }
}

fn one_key(told: &Told, key: &Key) -> String {
    let values: Vec<String> =
        key.values.iter().map(|value| value.as_deref().map_or_else(|| "NULL".into(), clean)).collect();
    let times = if key.rows > 1 { format!(" ({})", rows(key.rows)) } else { String::new() };
    let columns = told.key_columns.iter().map(|name| clean(name)).collect::<Vec<_>>().join(", ");
    let mut line = format!("  {} ({columns})=({}){times}\n", key.kind.word(), values.join(", "));
    for (column, source, target) in &key.columns {
        let (column, source, target) = (clean(column), shown(source.as_deref()), shown(target.as_deref()));
        line.push_str(&format!("      {column}: {source} -> {target}\n"));
    }
    line
}

/// What a table holds must not play with the terminal, nor look like a line of ours.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn shown(value: Option<&str>) -> String {
    value.map_or_else(|| "NULL".into(), |value| format!("'{}'", clean(value)))
}

fn rows(number: u64) -> String {
    count(number, "row")
}

fn summary(tables: &[Shown<'_>]) -> String {
    let of = |verdict: Verdict| tables.iter().filter(|one| one.verdict == verdict).count() as u64;
    let words = [
        (of(Verdict::Different), "differ"),
        (of(Verdict::Partly), "equal as far as they can be compared"),
        (of(Verdict::Unread), "not compared"),
    ];
    let mut text = format!("\n{} of {} equal", of(Verdict::Equal), count(tables.len() as u64, "table"));
    for (number, word) in words.iter().filter(|(number, _)| *number > 0) {
        text.push_str(&format!(", {number} {word}"));
    }
    if tables.iter().any(|one| one.verdict == Verdict::Equal && !one.deep) {
        text.push_str("; numbers of rows, where BY says `rows`: `--deep` compares what is in them");
    }
    text.push('\n');
    text
}

/// For programs: one object for the table, then one for each window, group and key that differs.
pub fn json_lines(one: &Shown<'_>) -> Vec<Value> {
    let compared = one.compared;
    let of = json!({ "job": compared.job, "source": compared.source, "table": compared.table.to_string(),
                     "target": compared.target.to_string() });
    let line = |what: &str, more: Value| {
        let mut line = json!({ "version": JSON_VERSION, "what": what });
        for part in [&of, &more] {
            if let (Some(line), Some(part)) = (line.as_object_mut(), part.as_object()) {
                line.extend(part.clone());
            }
        }
        line
    };
    let told = one.told.as_ref();
    let mut lines = vec![line(
        "table",
        json!({
            "measure": compared.rows.measure.to_string(), "result": one.verdict, "deep": one.deep, "windows": one.windows,
            "rows_source": one.rows[0], "rows_target": one.rows[1], "difference": one.difference(),
            "error": told.err().map(|unread| &unread.error), "remedy": told.err().map(|unread| &unread.remedy),
            "key": told.ok().filter(|told| told.keyed).map(|told| &told.key_columns),
            "not_compared": told.ok().map(|told| &told.skipped), "notes": told.ok().map(|told| &told.notes),
            "seconds": two_decimals(one.seconds),
        }),
    )];
    let Ok(told) = told else { return lines };
    for window in &told.windows {
        lines.push(line(
            "window",
            json!({ "window": extent(compared, window.extent), "rows_source": window.rows[0],
                    "rows_target": window.rows[1], "difference": window.difference }),
        ));
    }
    for (group, difference) in &told.groups {
        lines.push(line("group", json!({ "group": group, "difference": difference })));
    }
    for key in &told.keys {
        lines.push(line("key", json_key(compared, told, key)));
    }
    lines
}

fn json_key(compared: &Compared, told: &Told, key: &Key) -> Value {
    let values: serde_json::Map<String, Value> =
        told.key_columns.iter().cloned().zip(key.values.iter().map(|value| json!(value))).collect();
    let columns: Vec<Value> = key
        .columns
        .iter()
        .map(|(column, source, target)| json!({ "column": column, "source": source, "target": target }))
        .collect();
    let window = told.windows.get(key.window).map(|window| extent(compared, window.extent));
    json!({ "difference": key.kind, "rows": key.rows, "key": values, "columns": columns, "window": window })
}

/// A table that was left alone, for programs.
pub fn json_left_out(one: &Uncompared) -> Value {
    json!({ "version": JSON_VERSION, "what": "left_out", "job": one.job, "source": one.source, "table": one.table,
            "why": one.why, "words": one.why.words() })
}

fn extent(compared: &Compared, extent: Extent) -> Value {
    super::plan::unit(&compared.unit(extent))["window"].clone()
}

/// The header of a CSV of keys.
pub const CSV_HEADER: [&str; 8] = ["job", "source", "table", "target", "window", "difference", "rows", "key"];

/// A key as a record of that CSV; the key's columns are a JSON object.
pub fn csv_record(compared: &Compared, told: &Told, key: &Key) -> [String; 8] {
    let window = told.windows.get(key.window).map(|window| window.extent.to_string()).unwrap_or_default();
    [
        compared.job.clone(),
        compared.source.clone(),
        compared.table.to_string(),
        compared.target.to_string(),
        window,
        key.kind.word().into(),
        key.rows.to_string(),
        json_key(compared, told, key)["key"].to_string(),
    ]
}
