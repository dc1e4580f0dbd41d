//! Rows of `jobs`: a job's times, and what is odd about them.

use std::collections::BTreeMap;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::nodes::{as_length, scalar, text};
use super::origin::{Row, shown};
use super::sheet::{Notes, Sheet};
use super::times::{divides, half_open, length, moment, written};
use super::{Fetched, Field, Way, Which};
use crate::inventory::yaml::{Node, Value};
use crate::window::Length;

/// A job's times, as a row has them.
pub(super) enum State {
    Goes(Times),
    /// Not valid, or at its end.
    Off(Row),
}

pub(super) struct Times {
    pub(super) row: Row,
    pub(super) from: Node,
    pub(super) until: Option<Node>,
    pub(super) hours: Option<Node>,
    pub(super) length: Option<Node>,
}

/// The rows of `jobs`, by group.
pub(super) fn read(
    notes: &mut Notes<'_>,
    fetched: &Fetched,
    way: Way,
    zone: &TimeZone,
) -> BTreeMap<String, State> {
    let mut states = BTreeMap::new();
    let sheet = fetched.jobs.as_ref().and_then(|answer| Sheet::open(notes, Which::Jobs, answer));
    let Some(sheet) = sheet else { return states };
    for (number, cells) in sheet.rows.iter().enumerate() {
        let group = sheet.cell(cells, Field::Group);
        let keys = group.map_or_else(
            || format!("row {} of `jobs`", number + 1),
            |group| format!("`jobs` row of group {}", shown(group)),
        );
        let row = notes.row(Some(Which::Jobs), &keys);
        let valid = sheet.valid(notes, row, cells);
        let group = sheet.need(notes, row, cells, Field::Group);
        let state = match valid {
            Some(true) => read_times(notes, &sheet, row, cells, way, zone),
            Some(false) => {
                notes.finding(row, "its valid flag says no: the job is left out");
                Some(State::Off(row))
            }
            None => None,
        };
        let (Some(group), Some(state)) = (group, state) else { continue };
        if states.contains_key(group) {
            let what = "this group has more than one row";
            match way {
                Way::Strict => notes.fault_of_row(row, what, "keep one of them, or choose one in the query"),
                Way::LeaveOut => notes.finding(row, format!("{what}: the first is taken")),
            }
            continue;
        }
        states.insert(group.to_owned(), state);
    }
    states
}

fn read_times(
    notes: &mut Notes<'_>,
    sheet: &Sheet<'_>,
    row: Row,
    cells: &[Option<String>],
    way: Way,
    zone: &TimeZone,
) -> Option<State> {
    for field in [Field::Start, Field::FinalEnd, Field::Hours, Field::Duration] {
        if let Some(value) = sheet.cell(cells, field) {
            notes.origins.hide(value);
        }
    }
    let start = sheet.need(notes, row, cells, Field::Start)?;
    let final_end = sheet.cell(cells, Field::FinalEnd).filter(|end| *end != "infinity");
    let bound = final_end.and_then(half_open);
    if let Some(bound) = &bound {
        notes.origins.hide(bound);
        notes.finding(row, format!(
            "its final end is the last second of a closed interval: taken as {bound}, which does not belong to it"
        ));
    }
    let until = bound.as_deref().or(final_end);
    let duration = sheet.cell(cells, Field::Duration).map(length);
    if let Some(Value::Text(text)) = &duration {
        notes.origins.hide(text);
    }
    let times = Times {
        row,
        from: text(row, Field::Start, start),
        until: until.map(|until| text(row, Field::FinalEnd, until)),
        hours: sheet.cell(cells, Field::Hours).map(|hours| text(row, Field::Hours, hours)),
        length: duration.map(|length| scalar(row, Field::Duration, length)),
    };
    let start = moment(start, zone);
    check_window(notes, row, start, sheet.cell(cells, Field::End), as_length(times.length.as_ref()), zone);
    match (start, until.and_then(|until| moment(until, zone))) {
        (Some(start), Some(until)) if start == until => {
            notes.finding(row, "it is at its final end: the job is left out");
            Some(State::Off(row))
        }
        (Some(start), Some(until)) if start > until && way == Way::LeaveOut => {
            notes.finding(
                row,
                format!(
                    "its final end {} is before its start {}: the job is left out",
                    written(until),
                    written(start)
                ),
            );
            Some(State::Off(row))
        }
        _ => Some(State::Goes(times)),
    }
}

/// What is odd about the window that was current when the row was written.
fn check_window(
    notes: &mut Notes<'_>,
    row: Row,
    start: Option<DateTime>,
    end: Option<&str>,
    length: Option<Length>,
    zone: &TimeZone,
) {
    let Some(start) = start else { return };
    if half_open(&written(start)).is_some() {
        notes.finding(
            row,
            format!(
                "it starts in the last second of a minute, {}, as after a closed interval: taken as it is",
                written(start)
            ),
        );
    }
    let Some(end) = end else { return };
    let bound = half_open(end);
    if let Some(bound) = &bound {
        notes.finding(
            row,
            format!("its window ends in the last second of a closed interval; half-open it ends at {bound}"),
        );
    }
    let end = moment(bound.as_deref().unwrap_or(end), zone);
    if let (Some(end), Some(length)) = (end, length)
        && start < end
        && !divides(length, start, end)
    {
        notes.finding(
            row,
            format!(
                "its duration {length} does not divide its window, {} to {}",
                written(start),
                written(end)
            ),
        );
    }
}
