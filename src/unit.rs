//! Units: the smallest pieces that are exported, loaded and recorded as one. Pure.
//!
//! A unit's id is also its file name, so it must be readable, unique and safe in a path whatever a table is
//! called. What identifies a unit everywhere is its source and its id together ([`UnitKey`]).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::civil::{Date, DateTime};
use jiff::{Span, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::interval::Interval;
use crate::inventory::TableEntry;
use crate::measure::{Loaded, Measure, everything};
use crate::names::TableName;
use crate::window::{Window, micros};

mod files;

use files::{ENDING, without_part};
pub use files::{id_of_file, part_path, parts_path, whole_path};

/// Everything but `[A-Za-z0-9_.-]` is encoded in ids and paths.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-');

/// Longest series: a file name takes 255 bytes, an id adds two bounds and a tag, and a `.part` name the number of a
/// part, run, attempt and two endings.
const LONGEST_SERIES: usize = 148;

/// What identifies a unit in ledger, load log and locks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitKey {
    /// The source's name.
    pub source: Arc<str>,
    /// `<database>^<schema>^<table>^<start>^<end>[^<slice>]`, or `…^all`.
    pub id: String,
}

impl fmt::Display for UnitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.id)
    }
}

/// What of a table's rows a unit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Extent {
    /// All of them.
    Whole,
    /// All of them, again: what was due at this time, in UTC.
    Repeated(DateTime),
    /// Those whose window column is NULL.
    Nulls,
    /// An interval of time.
    Times(Window),
    /// An interval of ids.
    Ids(Interval<i64>),
    /// A slice of a whole table: an interval of its measure's numbers.
    Slice(Interval<i64>),
}

impl Extent {
    /// As an interval of its measure's numbers: microseconds of civil time, or ids.
    pub fn numbers(&self) -> Interval<i64> {
        match self {
            Extent::Whole | Extent::Nulls => everything(),
            Extent::Repeated(due) => moved_whole(micros(*due)),
            // A shorter window than a microsecond has no id of its own, so there is none.
            Extent::Times(window) => {
                Interval::new(micros(window.start()), micros(window.end())).unwrap_or_else(everything)
            }
            Extent::Ids(ids) | Extent::Slice(ids) => *ids,
        }
    }

    /// Is it a whole table?
    pub fn is_whole(&self) -> bool {
        match self {
            Extent::Whole | Extent::Repeated(_) => true,
            Extent::Nulls | Extent::Times(_) | Extent::Ids(_) | Extent::Slice(_) => false,
        }
    }

    /// As [`Extent::numbers`], for what was loaded then. A whole table's interval ends with the time of its last load,
    /// so that whoever knows the interval knows when the table is due again.
    pub fn numbers_loaded(&self, at: Timestamp) -> Interval<i64> {
        match self {
            Extent::Whole => moved_whole(at.as_microsecond()),
            Extent::Repeated(_) | Extent::Nulls | Extent::Times(_) | Extent::Ids(_) | Extent::Slice(_) => {
                self.numbers()
            }
        }
    }

    /// The window, where it is one of time.
    pub fn window(&self) -> Option<&Window> {
        match self {
            Extent::Times(window) => Some(window),
            Extent::Whole | Extent::Repeated(_) | Extent::Nulls | Extent::Ids(_) | Extent::Slice(_) => None,
        }
    }

    /// As it stands in an id.
    fn stamped(&self) -> String {
        match self {
            Extent::Whole => "all".into(),
            Extent::Repeated(due) => format!("all^{}", stamp(*due)),
            Extent::Nulls => "null".into(),
            Extent::Times(window) => format!("{}^{}", stamp(window.start()), stamp(window.end())),
            Extent::Ids(ids) => format!("i{}^i{}", ids.start(), ids.end()),
            Extent::Slice(slice) => format!("all^s{}_{}", Self::edge(slice.start()), Self::edge(slice.end())),
        }
    }
}

impl Extent {
    /// An end of a slice, as it stands in an id: nothing where there is none.
    fn edge(number: i64) -> String {
        if number == i64::MIN || number == i64::MAX { String::new() } else { number.to_string() }
    }
}

/// The interval of a whole table that was moved at this time: microseconds since 1970-01-01 UTC.
fn moved_whole(at: i64) -> Interval<i64> {
    Interval::new(0, at.saturating_add(1)).unwrap_or_else(everything)
}

/// `2021-08-10 00:00:00 … 04:00:00`, `ids 1 … 100001`, `whole table`.
impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Extent::Whole => f.write_str("whole table"),
            Extent::Repeated(due) => write!(f, "whole table, due {} {} UTC", due.date(), due.time()),
            Extent::Nulls => f.write_str("rows without a time"),
            Extent::Times(window) => window.fmt(f),
            Extent::Ids(ids) => write!(f, "ids {} … {}", ids.start(), ids.end()),
            Extent::Slice(slice) => {
                write!(f, "slice {} … {}", Self::edge(slice.start()), Self::edge(slice.end()))
            }
        }
    }
}

/// What the units of one table and measure share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// Which rows they are but for the extent: database, table, and what [`variant()`] says.
    pub series: String,
    /// By what the rows are told apart.
    pub measure: Measure,
    /// What the ids end with, where units of another measure have the plain ids.
    pub tag: Option<String>,
    /// What is in the target by other measures, and so left out.
    pub without: Vec<Loaded>,
}

impl Rows {
    /// What is left out, as a text that is the same for the same: empty for nothing.
    pub fn left_out(&self) -> String {
        let part = |loaded: &Loaded| {
            let intervals = loaded.intervals.iter().map(|one| format!("[{},{})", one.start(), one.end()));
            format!("{}{}", loaded.measure, intervals.collect::<String>())
        };
        self.without.iter().map(part).collect::<Vec<_>>().join(" ")
    }
}

/// The smallest piece that is exported, loaded and recorded as one: job × table × window × slice.
#[derive(Debug, Clone)]
pub struct Unit {
    /// What identifies it.
    pub key: UnitKey,
    /// The job it belongs to.
    pub job: Arc<str>,
    /// The table in the source.
    pub table: TableName,
    /// The table in the target.
    pub target: TableName,
    /// What of the table's rows it holds.
    pub extent: Extent,
    /// Is its file on the mount already, as far as the ledger knows?
    pub waits: bool,
    /// What it shares with the other units of its table.
    pub rows: Arc<Rows>,
    /// The rules of its entry in the inventory, shared by all units of that entry.
    pub entry: Arc<TableEntry>,
}

impl Unit {
    /// Where its file stands below the mount's subdirectory: `<source>/<YYYYMM>/<DD>/<table>/<id>.csv.gz`.
    /// The day is that of the window's start; without a window of time, `today`.
    pub fn relative_path(&self, today: Date) -> PathBuf {
        let day = self.extent.window().map_or(today, |window| window.start().date());
        day_path(&self.key.source, day)
            .join(encode(self.table.table()))
            .join(format!("{}{ENDING}", self.key.id))
    }
}

/// Where a source's files of one day stand below the mount's subdirectory: `<source>/<YYYYMM>/<DD>`.
pub fn day_path(source: &str, day: Date) -> PathBuf {
    [encode(source), format!("{:04}{:02}", day.year(), day.month()), format!("{:02}", day.day())]
        .iter()
        .collect()
}

/// The series of a table's units: their ids without extent and tag. `variant` ([`variant()`]) tells entries apart
/// that move one table by different conditions or to different targets.
pub fn series_of(database: &str, table: &TableName, variant: Option<&str>) -> String {
    let names = [database, table.schema(), table.table()].map(encode);
    let tail = variant.map(|variant| format!("^{variant}")).unwrap_or_default();
    let series = format!("{}{tail}", names.join("^"));
    if series.len() <= LONGEST_SERIES {
        return series;
    }
    format!("{}{tail}", names.map(|name| shorten(&name)).join("^"))
}

/// The source's table of a series; `None` where its name was too long to stand there whole.
pub fn table_of(series: &str) -> Option<TableName> {
    let mut names = series.split('^').skip(1);
    // No encoded name holds a `~`: it marks one that was cut.
    let mut next = || percent_decode_str(names.next().filter(|name| !name.contains('~'))?).decode_utf8().ok();
    TableName::new(next()?, next()?).ok()
}

/// The id of a unit: the series, with the extent behind the table's name, and the tag at the end.
pub fn unit_id(series: &str, extent: &Extent, tag: Option<&str>) -> String {
    let names_end = series.match_indices('^').nth(2).map_or(series.len(), |(at, _)| at);
    let (names, tail) = series.split_at(names_end);
    let tag = tag.map(|tag| format!("^{tag}")).unwrap_or_default();
    format!("{names}^{}{tail}{tag}", extent.stamped())
}

/// What an id says of the rows that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The series.
    pub series: String,
    /// The extent.
    pub extent: Extent,
    /// The tag of another measure.
    pub tag: Option<String>,
}

/// Reads an id that [`unit_id`] made; `None` for anything else, and for the name of a part.
pub fn read_id(id: &str) -> Option<Named> {
    if without_part(id).is_some() {
        return None;
    }
    let mut fields: Vec<&str> = id.split('^').collect();
    let (extent, length) = match *fields.get(3)? {
        "all" => match fields.get(4).and_then(|more| repeated(more).or_else(|| slice(more))) {
            Some(extent) => (extent, 2),
            None => (Extent::Whole, 1),
        },
        "null" => (Extent::Nulls, 1),
        start => (interval_of(start, fields.get(4)?)?, 2),
    };
    fields.drain(3..3 + length);
    let tag =
        fields.last().filter(|last| fields.len() > 3 && last.starts_with('c')).map(|&tag| tag.to_owned());
    if tag.is_some() {
        fields.pop();
    }
    Some(Named { series: fields.join("^"), extent, tag })
}

fn repeated(due: &str) -> Option<Extent> {
    time_of(due).map(Extent::Repeated)
}

fn slice(text: &str) -> Option<Extent> {
    let (start, end) = text.strip_prefix('s')?.split_once('_')?;
    let edge = |text: &str, open: i64| if text.is_empty() { Some(open) } else { text.parse().ok() };
    Interval::new(edge(start, i64::MIN)?, edge(end, i64::MAX)?).map(Extent::Slice)
}

fn interval_of(start: &str, end: &str) -> Option<Extent> {
    match (start.strip_prefix('i'), end.strip_prefix('i')) {
        (Some(start), Some(end)) => Interval::new(start.parse().ok()?, end.parse().ok()?).map(Extent::Ids),
        (None, None) => Window::new(time_of(start)?, time_of(end)?).map(Extent::Times),
        (Some(_), None) | (None, Some(_)) => None,
    }
}

/// The tag of a measure whose units cannot have the plain ids, since those of another measure have them.
pub fn tag(measure: &Measure) -> String {
    format!("c{}", &sha256(&measure.to_string())[..8])
}

/// Reads what [`stamp`] wrote.
fn time_of(stamp: &str) -> Option<DateTime> {
    if !stamp.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(stamp.len(), 14 | 20) {
        return None;
    }
    let whole = DateTime::strptime("%Y%m%d%H%M%S", &stamp[..14]).ok()?;
    let micros: i64 = if stamp.len() == 20 { stamp[14..].parse().ok()? } else { 0 };
    whole.checked_add(Span::new().microseconds(micros)).ok()
}

/// A short stable word for what an entry moves of a table, from its condition and its target; `None` for an entry
/// that moves all of it to a table of the same name.
///
/// It depends on nothing but the entry itself: were it to depend on other entries, adding one would give units
/// that are loaded another id, and they would be loaded again.
pub fn variant(entry: &TableEntry, table: &TableName) -> Option<String> {
    let target = entry.target.as_ref().filter(|target| *target != table);
    if entry.filter.is_none() && target.is_none() {
        return None;
    }
    let filter = entry.filter.as_ref().map(ToString::to_string).unwrap_or_default();
    let target = target.map(ToString::to_string).unwrap_or_default();
    Some(format!("v{}", &sha256(&format!("{filter}\n{target}"))[..8]))
}

/// `YYYYMMDDhhmmss`, plus `ffffff` where it is not on a whole second.
pub(crate) fn stamp(time: DateTime) -> String {
    let micros = time.subsec_nanosecond() / 1000;
    let fraction = if micros == 0 { String::new() } else { format!("{micros:06}") };
    format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}{fraction}",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// A name as it stands in ids and paths: never `.`, `..` or hidden.
pub(crate) fn encode(name: &str) -> String {
    let encoded = utf8_percent_encode(name, ENCODED).to_string();
    match encoded.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => encoded,
    }
}

/// A name too long for a file name: its beginning, `~` (which no encoded name holds), and a digest of it all.
fn shorten(encoded: &str) -> String {
    if encoded.len() <= 42 {
        return encoded.to_owned();
    }
    format!("{}~{}", &encoded[..29], &sha256(encoded)[..12])
}

fn sha256(text: &str) -> String {
    openssl::sha::sha256(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
