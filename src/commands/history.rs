//! `history`: units, attempts and runs of the past, newest first. Asks no host and no database.

use clap::ValueEnum;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::status::readable;
use super::{ledger_path, print, print_json, width};
use crate::cli::{Common, History, Shape};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::ledger::Ledger;
use crate::ledger::history::Wanted;
use crate::report::history as report;
use crate::window::Length;

/// Shows what was done.
///
/// # Errors
/// [`Failure::Ledger`]; [`Failure::Usage`] where there is none, or a time cannot be read.
pub(super) fn history(common: &Common, asked: &History) -> Result<Exit, Failure> {
    let path = ledger_path(common);
    if !path.exists() {
        let what = format!("there is no ledger at {}", path.display());
        let remedy = "run something first, or name the inventory (-i) or the ledger (--ledger)".into();
        return Err(Failure::Usage { what, remedy });
    }
    let zone = readable(common).map_or(TimeZone::UTC, |inventory| inventory.timezone);
    let now = Timestamp::now();
    let read = |flag: &str, text: &Option<String>| {
        text.as_ref().map(|text| time(flag, text, now, &zone)).transpose()
    };
    let wanted = Wanted {
        jobs: asked.narrow.job.iter().map(globset::Glob::compile_matcher).collect(),
        tables: asked.narrow.table.iter().map(globset::Glob::compile_matcher).collect(),
        sources: asked.narrow.source.clone(),
        states: asked
            .state
            .iter()
            .filter_map(ValueEnum::to_possible_value)
            .map(|one| one.get_name().to_owned())
            .collect(),
        since: read("--since", &asked.since)?,
        until: read("--until", &asked.until)?,
        run: asked.run.clone(),
        limit: asked.limit,
    };
    let ledger = Ledger::open(&path)?;
    let shown = if asked.runs {
        let found = ledger.runs_done(&wanted)?;
        match common.shape {
            Shape::Text => report::runs_text(&found, &zone),
            Shape::Json => return json(&report::json("runs", &found)),
            Shape::Csv => report::runs_csv(&found),
        }
    } else {
        let found =
            if asked.attempts { ledger.attempts_done(&wanted)? } else { ledger.units_done(&wanted)? };
        let what = if asked.attempts { "attempts" } else { "units" };
        match common.shape {
            Shape::Text => report::text(&found, what, &zone, width()),
            Shape::Json => return json(&report::json(what, &found)),
            Shape::Csv => report::csv(&found, what),
        }
    };
    print(&shown)?;
    Ok(Exit::Done)
}

fn json(value: &serde_json::Value) -> Result<Exit, Failure> {
    print_json(value)?;
    Ok(Exit::Done)
}

/// A time as an inventory writes it, an instant, or a length of time before now.
pub(super) fn time(flag: &str, text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, Failure> {
    let wrong = || Failure::Usage {
        what: format!("{flag} {text}: neither a time nor a length of time"),
        remedy: "write it as 2021-08-10, 2021-08-10 04:00, 2021-08-10T04:00:00Z, 24h or 7d".into(),
    };
    if let Ok(length) = text.parse::<Length>() {
        return now.checked_sub(length.as_duration()).map_err(|_| wrong());
    }
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(instant);
    }
    let civil: DateTime = text.parse().map_err(|_| wrong())?;
    crate::window::instant(civil, zone).ok_or_else(wrong)
}
