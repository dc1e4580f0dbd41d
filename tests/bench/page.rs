//! The tables of `docs/performance.md`: what stands between its markers is what was measured last, and nothing else is
//! touched. A part that was not measured keeps what it has.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Writes the parts that `document` has.
pub(crate) fn write(document: &Value, page: &Path) {
    let mut text = fs::read_to_string(page).unwrap();
    for (name, table) in [
        ("machine", machine(document)),
        ("idle", ways(&document["idle"])),
        ("large", ways(&document["large"])),
        ("peers", ways(&document["peers"])),
        ("tiny", ways(&document["tiny"])),
        ("collision", ways(&document["collision"])),
        ("alone", alone(document)),
        ("cpu", cpu(document)),
        ("rows", points(&document["curve"]["rows"], "rows")),
        ("tables", points(&document["curve"]["tables"], "tables")),
    ] {
        if let Some(table) = table {
            text = between(&text, name, &table);
        }
    }
    fs::write(page, text).unwrap();
}

/// The text with this between the markers of that name.
fn between(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- bench:{name} -->\n"), format!("<!-- /bench:{name} -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no marker {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("no marker {end}"));
    format!("{before}{begin}{table}{end}{after}")
}

fn machine(document: &Value) -> Option<String> {
    let machine = document["machine"].as_object()?;
    let mut table = "| what | |\n|---|---|\n".to_owned();
    for (name, value) in machine {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _ = writeln!(table, "| {} | {value} |", name.replace('_', " "));
    }
    let _ = writeln!(table, "| medians of | {} rounds |", document["rounds"]);
    Some(table)
}

/// A part that held ways against each other.
fn ways(part: &Value) -> Option<String> {
    let ways = part["ways"].as_object()?;
    let mut table =
        "| way | seconds | ratio | CPU seconds | ratio | gpferry's peak memory |\n|---|--:|--:|--:|--:|--:|\n".to_owned();
    // The first is the one whose ratio is exactly 1.
    let mut sorted: Vec<_> = ways.iter().collect();
    sorted.sort_by_key(|(_, way)| way["ratio"].as_f64() != Some(1.0));
    for (name, way) in sorted {
        let number = |key: &str| way[key].as_f64().unwrap_or(f64::NAN);
        let memory = match way["peak_kib"].as_f64() {
            Some(kib) if kib > 0.0 => format!("{:.1} MiB", kib / 1024.0),
            Some(_) | None => "–".into(),
        };
        let _ = writeln!(
            table,
            "| {name} | {:.2} | {:.3} | {:.2} | {:.3} | {memory} |",
            number("seconds"),
            number("ratio"),
            number("cpu_seconds"),
            number("cpu_ratio")
        );
    }
    Some(table)
}

fn alone(document: &Value) -> Option<String> {
    let steps = document["stages"]["alone"].as_object()?;
    let mut table = "| step, by itself | seconds |\n|---|--:|\n".to_owned();
    for (name, seconds) in steps {
        let _ = writeln!(table, "| {name} | {:.2} |", seconds.as_f64()?);
    }
    Some(table)
}

fn cpu(document: &Value) -> Option<String> {
    let stages = &document["stages"];
    let (hand, ours) = (stages["cpu_hand"].as_object()?, stages["cpu_gpferry"].as_object()?);
    let mut names: Vec<&String> = hand.keys().chain(ours.keys()).collect();
    names.sort();
    names.dedup();
    let mut table =
        "| program | hand pipeline, CPU seconds | gpferry, CPU seconds |\n|---|--:|--:|\n".to_owned();
    let number = |of: &serde_json::Map<String, Value>, name: &str| {
        of.get(name).and_then(Value::as_f64).map_or_else(|| "–".into(), |value| format!("{value:.2}"))
    };
    for name in names {
        let _ = writeln!(table, "| {name} | {} | {} |", number(hand, name), number(ours, name));
    }
    let units = &stages["units"];
    let second = |key: &str| units[key].as_f64().unwrap_or(f64::NAN);
    let _ = writeln!(
        table,
        "\n{} units in {:.2} s; summed over them: exported {:.2} s, loaded {:.2} s, between and after {:.2} s.",
        units["units"],
        second("seconds"),
        second("export"),
        second("load"),
        second("wait")
    );
    Some(table)
}

fn points(points: &Value, what: &str) -> Option<String> {
    let points = points.as_array()?;
    let mut table = format!(
        "| {what} | seconds | rows a second | for twice as many | CPU seconds | peak memory |\n|--:|--:|--:|--:|--:|--:|\n"
    );
    for one in points {
        let number = |one: &Value, key: &str| one[key].as_f64();
        let Some(size) = number(one, "size") else {
            let (tables, seconds) = (&one["pgcopydb"], number(one, "seconds")?);
            let _ = writeln!(table, "\npgcopydb, {tables} tables, schema included: {seconds:.2} s.");
            continue;
        };
        let (rows, seconds) = (number(one, "rows")?, number(one, "seconds")?);
        let half = points.iter().find(|other| number(other, "size") == Some(size / 2.0));
        let twice = half.and_then(|half| Some(format!("× {:.2}", seconds / number(half, "seconds")?)));
        let _ = writeln!(
            table,
            "| {size} | {seconds:.2} | {:.0} | {} | {:.2} | {:.1} MiB |",
            rows / seconds,
            twice.unwrap_or_else(|| "–".into()),
            number(one, "cpu_seconds")?,
            number(one, "peak_kib")? / 1024.0
        );
    }
    Some(table)
}
