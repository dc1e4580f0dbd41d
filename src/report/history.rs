//! Units, attempts and runs of the past.

use indicatif::HumanBytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Value, json};

use super::{JSON_VERSION, block, table, trimmed};
use crate::ledger::history::{Done, Found, RunDone};

/// For people: one line each, and under what failed its error and what to try. `what` is `units` or `attempts`.
pub fn text(found: &Found<Done>, what: &str, zone: &TimeZone, width: u16) -> String {
    if found.rows.is_empty() {
        return format!("no {what}\n");
    }
    let mut shown = table(&[
        "STARTED", "STATE", "EXPORTED", "LOADED", "KEPT OUT", "SIZE", "EXPORT", "LOAD", "TRY", "UNIT",
    ]);
    for one in &found.rows {
        shown.add_row([
            local(one.started_at.as_ref().or(one.ended_at.as_ref()), zone),
            one.state.clone(),
            number(one.rows_exported),
            number(one.rows_loaded),
            number(one.rows_rejected.filter(|&rows| rows > 0)),
            one.bytes.map_or_else(|| "-".into(), |bytes| HumanBytes(bytes).to_string()),
            seconds(one.export_seconds),
            seconds(one.load_seconds),
            one.attempt.to_string(),
            format!("{}:{}", one.source, one.unit),
        ]);
    }
    let lines = trimmed(&shown);
    let mut lines = lines.lines();
    let mut text = format!("{}\n", lines.next().unwrap_or_default());
    for (line, one) in lines.zip(&found.rows) {
        text.push_str(&format!("{line}\n"));
        if let Some(error) = &one.error {
            text.push_str(&block("    ", error, width));
        }
        if let Some(remedy) = &one.remedy {
            text.push_str(&block("    try: ", remedy, width));
        }
    }
    text + &left_off(found.more, found.rows.len(), what)
}

/// For people.
pub fn runs_text(found: &Found<RunDone>, zone: &TimeZone) -> String {
    if found.rows.is_empty() {
        return "no runs\n".into();
    }
    let mut shown = table(&["STARTED", "TOOK", "EXIT", "COMMAND", "HOST", "PID", "RUN"]);
    for one in &found.rows {
        shown.add_row([
            local(Some(&one.started_at), zone),
            seconds(one.seconds),
            one.exit_code.map_or_else(|| "-".into(), |code| code.to_string()),
            one.command.clone(),
            one.host.clone(),
            one.pid.to_string(),
            one.run.clone(),
        ]);
    }
    trimmed(&shown) + &left_off(found.more, found.rows.len(), "runs")
}

fn left_off(more: bool, shown: usize, what: &str) -> String {
    if more {
        format!("older {what} than these {shown} are left off: `--limit N` shows more\n")
    } else {
        String::new()
    }
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "-".into(), |number| number.to_string())
}

fn seconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".into(), |seconds| format!("{seconds:.2} s"))
}

/// A time of the ledger in the inventory's zone, without fractions.
fn local(at: Option<&String>, zone: &TimeZone) -> String {
    let instant = at.and_then(|at| at.parse::<Timestamp>().ok());
    instant.map_or_else(
        || "-".into(),
        |instant| zone.to_datetime(instant).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// For programs. `what` names the list.
pub fn json<T: Serialize>(what: &str, found: &Found<T>) -> Value {
    json!({ "version": JSON_VERSION, "more": found.more, what: found.rows })
}

/// For spreadsheets: a header and one line each; times are UTC, durations seconds.
pub fn csv(found: &Found<Done>, what: &str) -> String {
    let attempt = if what == "attempts" { "attempt" } else { "attempts" };
    let header = [
        "job",
        "source",
        "table",
        "target",
        "unit",
        "window_start",
        "window_end",
        "state",
        "stage",
        attempt,
        "rows_exported",
        "rows_loaded",
        "rows_rejected",
        "bytes",
        "export_seconds",
        "load_seconds",
        "run",
        "started_at",
        "ended_at",
        "error",
        "remedy",
    ];
    let line = |one: &Done| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let seconds = |seconds: Option<f64>| seconds.map(|one| format!("{one:.2}")).unwrap_or_default();
        vec![
            one.job.clone(),
            one.source.clone(),
            one.table.clone(),
            text(&one.target),
            one.unit.clone(),
            text(&one.window_start),
            text(&one.window_end),
            one.state.clone(),
            text(&one.stage),
            one.attempt.to_string(),
            number(one.rows_exported),
            number(one.rows_loaded),
            number(one.rows_rejected),
            number(one.bytes),
            seconds(one.export_seconds),
            seconds(one.load_seconds),
            one.run.clone(),
            text(&one.started_at),
            text(&one.ended_at),
            text(&one.error),
            text(&one.remedy),
        ]
    };
    written(&header, found.rows.iter().map(line))
}

/// For spreadsheets.
pub fn runs_csv(found: &Found<RunDone>) -> String {
    let header = [
        "run",
        "command",
        "host",
        "pid",
        "inventory",
        "target",
        "started_at",
        "ended_at",
        "seconds",
        "exit_code",
    ];
    let line = |one: &RunDone| {
        vec![
            one.run.clone(),
            one.command.clone(),
            one.host.clone(),
            one.pid.to_string(),
            one.inventory.clone(),
            one.target.clone().unwrap_or_default(),
            one.started_at.clone(),
            one.ended_at.clone().unwrap_or_default(),
            one.seconds.map(|seconds| format!("{seconds:.2}")).unwrap_or_default(),
            one.exit_code.map(|code| code.to_string()).unwrap_or_default(),
        ]
    };
    written(&header, found.rows.iter().map(line))
}

fn written(header: &[&str], lines: impl Iterator<Item = Vec<String>>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Nothing fails while memory is written, and every line has the header's fields.
    let _ = writer.write_record(header);
    for line in lines {
        let _ = writer.write_record(line);
    }
    writer.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_quotes_what_needs_it_and_durations_have_two_decimals() {
        let one = Done {
            job: "j".into(),
            unit: "a,\"b\"".into(),
            error: Some("two\nlines".into()),
            export_seconds: Some(1.5),
            attempt: 1,
            ..Done::default()
        };
        let text = csv(&Found { rows: vec![one], more: false }, "attempts");
        assert!(text.starts_with("job,source,table,target,unit,"), "{text}");
        assert!(text.contains("j,,,,\"a,\"\"b\"\"\",,,,,1,,,,,1.50,,,,,\"two\nlines\",\n"), "{text}");
    }
}
