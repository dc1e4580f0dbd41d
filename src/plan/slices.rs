//! Cutting what is large: a unit becomes slices that are exported and loaded side by side. Pure.
//!
//! Slices are told apart by values that a row keeps, never by where it lies: so a slice that failed can be moved by
//! another run, of another state of the table, and no row is in two of them. Those of a window are shorter windows of
//! the same measure; those of a whole table are intervals of a column of its key ([`Measure::Slice`]).

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::tables::extent;
use crate::interval::Interval;
use crate::inventory::{LoadMode, RejectLimit};
use crate::measure::{Measure, Scale, SliceBy};
use crate::unit::{Extent, Rows, Unit, UnitKey, unit_id};
use crate::window::micros;

/// So many pieces at most does one unit become, before the first of them is cut again.
const MOST: u64 = 256;

/// So many at most, where no index leads to the rows of one: each reads the whole table then, which takes about a hundredth
/// of what moving it does (measured).
const MOST_SCANS: f64 = 8.0;

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// What is known of a table that may be cut.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Size {
    /// About how much CSV it is, in bytes; `None` where its catalog cannot say: a view, a foreign table.
    pub bytes: Option<u64>,
    /// How the values of columns are spread: those of its key, and those that windows are cut by.
    pub spreads: Vec<Spread>,
}

impl Size {
    /// How the column is spread that a unit's windows are cut by.
    fn spread(&self, unit: &Unit) -> Option<&Spread> {
        self.spreads.iter().find(|spread| unit.rows.measure.column() == Some(&spread.column))
    }
}

/// How the values of a column are spread.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    /// The column.
    pub column: String,
    /// How its values become numbers.
    pub by: SliceBy,
    /// Does the column stand in the table's primary key? At which place, from 0.
    pub key_place: Option<usize>,
    /// Does an index, or a partitioning, lead to the rows of some of its values, as far as is known?
    pub found_fast: bool,
    /// Can only whole days be told apart?
    pub days: bool,
    /// Are its values instants, so that the numbers are microseconds of UTC?
    pub zoned: bool,
    /// Numbers between which there are about as many rows each, in order; empty where nobody counted.
    pub edges: Vec<i64>,
    /// About how many different values there are, as a part of the rows: 1 where each is another, 0 where nobody counted.
    pub distinct: f64,
}

/// Who else says how large a unit is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Told {
    /// Bytes of CSV for each number of its measure, as its last windows held.
    pub lately: Option<f64>,
    /// Bytes of CSV by the plan that the server has for the query of [`asked_for_plan`].
    pub planned: Option<u64>,
}

/// Why a large unit is moved in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uncut {
    /// Its rows go in by one transaction, as its entry says.
    Mode,
    /// It has no primary key, or none whose values are known to be spread.
    Key,
    /// All its rows stand at one place of its column.
    Skewed,
    /// It is a small part of a table of which each slice would read all.
    Scan,
}

impl Uncut {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Uncut::Mode => {
                "only `mode: insert` without `before`, `after` and a `reject_limit` of rows is cut: anything else is one transaction"
            }
            Uncut::Key => {
                "it has no primary key by whose values it could be cut; ANALYZE may tell more of them, and windows need no key"
            }
            Uncut::Skewed => "its rows are not spread over its window column",
            Uncut::Scan => {
                "no index begins with its window column, and the table is not partitioned by it: each slice would read all of it"
            }
        }
    }
}

/// May this unit be cut at all? What replaces or mends rows does so in one transaction.
pub fn may_be_cut(unit: &Unit) -> Result<(), Uncut> {
    let load = &unit.entry.load;
    let is_plain = load.mode == LoadMode::Insert && load.before.is_empty() && load.after.is_empty();
    // So many rows of a window would be so many of each slice.
    let by_rows = matches!(load.reject_limit, RejectLimit::Rows(rows) if rows > 0);
    let has_many = !matches!(unit.extent, Extent::Nulls | Extent::Repeated(_));
    if is_plain && !by_rows && has_many { Ok(()) } else { Err(Uncut::Mode) }
}

/// Where a unit is cut: as parts of it, ascending, each between 0 and 1. What is one piece is not cut.
#[derive(Debug, Clone, PartialEq)]
struct Cuts(Vec<f64>);

impl Cuts {
    /// So many pieces of one size. With `ramp` the first of them is cut again into a quarter, a quarter and a half, so
    /// that there is something to load while the others are still being exported.
    fn new(pieces: u64, ramp: bool) -> Self {
        let place = |piece: f64| piece / pieces as f64;
        let first = if ramp && pieces > 1 { &[0.25, 0.5][..] } else { &[] };
        Self(first.iter().copied().chain((1..pieces).map(|piece| piece as f64)).map(place).collect())
    }

    fn pieces(&self) -> usize {
        self.0.len() + 1
    }
}

/// The unit whose query a server shall say the plan of, since neither the last windows (`lately`) nor the catalog say how
/// large this one is; `None` where they do. Of a slice it is what it is a slice of: of the hash of a column, a server that is
/// asked for the plan knows nothing.
pub fn asked_for_plan(unit: &Unit, size: &Size, lately: Option<f64>) -> Option<Unit> {
    match &unit.extent {
        Extent::Nulls | Extent::Repeated(_) => None,
        Extent::Whole | Extent::Slice(_) => {
            size.bytes.is_none().then(|| Unit { extent: Extent::Whole, ..unit.clone() })
        }
        Extent::Times(_) | Extent::Ids(_) => {
            let spread = size.spread(unit);
            // A column of few values has no histogram, but a server that counted those knows how many rows each has. Of one
            // that nobody counted it knows nothing, and takes a two-hundredth of all rows for any window.
            let is_said = match size.bytes {
                Some(_) => spread.is_none_or(|spread| spread.edges.len() > 1 || spread.distinct == 0.0),
                None => false,
            };
            (lately.is_none() && !is_said).then(|| unit.clone())
        }
    }
}

/// The slices of a unit; nothing where it is small enough, or nobody knows. With `ramp` the first slices are smaller than the
/// others.
///
/// # Errors
/// [`Uncut`] where it is large, and stays whole.
pub fn cut(unit: &Unit, size: &Size, told: Told, zone: &TimeZone, ramp: bool) -> Result<Vec<Unit>, Uncut> {
    let all = told.planned.or(size.bytes).unwrap_or(0) as f64;
    match &unit.extent {
        Extent::Nulls | Extent::Repeated(_) => Ok(Vec::new()),
        Extent::Whole => whole(unit, size, all, ramp),
        Extent::Slice(slice) => Ok(part(unit, size, all, *slice, ramp)),
        Extent::Times(_) | Extent::Ids(_) => window(unit, size, told, zone, ramp),
    }
}

fn whole(unit: &Unit, size: &Size, bytes: f64, ramp: bool) -> Result<Vec<Unit>, Uncut> {
    let wanted = cuts(unit, bytes, MOST, ramp);
    if wanted.pieces() < 2 {
        return Ok(Vec::new());
    }
    let (by, spread) = best(size, &wanted).ok_or(Uncut::Key)?;
    let cuts = cuts(unit, bytes, most(is_found_fast(by, spread), 1.0), ramp);
    let measure = Measure::Slice(by, spread.column.clone());
    let rows = Rows { measure, tag: None, ..(*unit.rows).clone() };
    let unit = Unit { rows: Arc::new(rows), ..unit.clone() };
    let edges = if by == SliceBy::Hash { hash_edges(&cuts) } else { quantiles(&spread.edges, &cuts) };
    Ok(of_edges(&unit, i64::MIN, &edges, i64::MAX))
}

/// What is left of a whole table, where some of its slices are there.
fn part(unit: &Unit, size: &Size, all: f64, slice: Interval<i64>, ramp: bool) -> Vec<Unit> {
    let Measure::Slice(by, column) = &unit.rows.measure else { return Vec::new() };
    // Any column can be cut by its hash, as others may have been before.
    let fits = |spread: &&Spread| spread.column == *column && (spread.by == *by || *by == SliceBy::Hash);
    let Some(spread) = size.spreads.iter().find(fits) else { return Vec::new() };
    let cuts_of = |share| cuts(unit, all * share, most(is_found_fast(*by, spread), share), ramp);
    let (edges, share) = match by {
        SliceBy::Hash => {
            let low = slice.start().max(i64::from(i32::MIN));
            let high = slice.end().min(i64::from(i32::MAX));
            let share = (high - low) as f64 / 2f64.powi(32);
            (evenly(low, high, &cuts_of(share)), share)
        }
        SliceBy::Time | SliceBy::Number => {
            let inside = inside(&spread.edges, slice);
            let share = inside.len() as f64 / spread.edges.len().max(1) as f64;
            (quantiles(inside, &cuts_of(share)), share)
        }
    };
    if share == 0.0 { Vec::new() } else { of_edges(unit, slice.start(), &edges, slice.end()) }
}

fn window(unit: &Unit, size: &Size, told: Told, zone: &TimeZone, ramp: bool) -> Result<Vec<Unit>, Uncut> {
    let numbers = unit.extent.numbers();
    let length = numbers.end().saturating_sub(numbers.start());
    let spread = size.spread(unit);
    let known =
        spread.map(|spread| measured(spread, &unit.rows.measure, zone)).filter(|edges| edges.len() > 1);
    let inside = known.as_ref().map_or(&[][..], |edges| inside(edges, numbers));
    let by_spread = known
        .as_ref()
        .zip(size.bytes)
        .map(|(edges, bytes)| bytes as f64 * inside.len() as f64 / (edges.len() - 1) as f64);
    let by_plan = told.planned.map(|bytes| bytes.min(size.bytes.unwrap_or(u64::MAX)) as f64);
    let lately = told.lately.map(|bytes| bytes * length as f64);
    // Without any of them, all of the table may be in this window.
    let bytes = lately.or(by_spread).or(by_plan).unwrap_or(size.bytes.unwrap_or(0) as f64);
    if cuts(unit, bytes, MOST, ramp).pieces() < 2 {
        return Ok(Vec::new());
    }
    let share = size.bytes.map_or(1.0, |all| (bytes / all as f64).min(1.0));
    let cuts = cuts(unit, bytes, spread.map_or(MOST, |spread| most(spread.found_fast, share)), ramp);
    if cuts.pieces() < 2 {
        return Err(Uncut::Scan);
    }
    // Few edges stand for few looks: then the window is cut evenly.
    let mut edges = if inside.len() >= cuts.pieces() * 2 {
        quantiles(inside, &cuts)
    } else {
        evenly(numbers.start(), numbers.end(), &cuts)
    };
    let step = match &unit.rows.measure {
        _ if spread.is_some_and(|spread| spread.days) => DAY,
        Measure::By(Scale::EpochSeconds, _) => 1_000_000,
        Measure::By(Scale::EpochMillis, _) => 1_000,
        Measure::All | Measure::Null(_) | Measure::By(..) | Measure::Slice(..) => 1,
    };
    edges.iter_mut().for_each(|edge| *edge = edge.div_euclid(step).saturating_mul(step));
    let slices = of_edges(unit, numbers.start(), &edges, numbers.end());
    if slices.is_empty() { Err(Uncut::Skewed) } else { Ok(slices) }
}

/// A column's edges as the numbers of a measure by that column.
fn measured(spread: &Spread, measure: &Measure, zone: &TimeZone) -> Vec<i64> {
    let civil = |instant: i64| {
        Timestamp::from_microsecond(instant).ok().map(|instant| micros(zone.to_datetime(instant)))
    };
    let one = |edge: i64| match measure {
        Measure::By(Scale::EpochSeconds, _) => civil(edge.checked_mul(1_000_000)?),
        Measure::By(Scale::EpochMillis, _) => civil(edge.checked_mul(1_000)?),
        Measure::By(Scale::EpochMicros, _) => civil(edge),
        Measure::By(Scale::Time, _) if spread.zoned => civil(edge),
        Measure::By(Scale::Time | Scale::Id, _) | Measure::All | Measure::Null(_) | Measure::Slice(..) => {
            Some(edge)
        }
    };
    let mut edges: Vec<i64> = spread.edges.iter().filter_map(|edge| one(*edge)).collect();
    // Where a clock is set back, civil time is.
    edges.sort_unstable();
    edges
}

/// Where so many bytes are cut for pieces of the size that the unit's entry wants.
fn cuts(unit: &Unit, bytes: f64, most: u64, ramp: bool) -> Cuts {
    let wanted = unit.entry.export.slice_bytes.max(1) as f64;
    // What is a little more than one stays one: half a piece is not worth a transaction.
    let pieces = ((bytes / wanted).round() as u64).max(2).min(most);
    Cuts::new(if bytes > wanted { pieces } else { 1 }, ramp)
}

/// How many pieces such a share of a table may become, at most.
fn most(found_fast: bool, share: f64) -> u64 {
    if found_fast { MOST } else { (MOST_SCANS * share).ceil() as u64 }
}

/// Does anything lead to the rows of a slice that is cut by this column? Nothing does by a hash.
fn is_found_fast(by: SliceBy, spread: &Spread) -> bool {
    by != SliceBy::Hash && spread.found_fast
}

/// The column of the key that is cut by: one whose spread is known, best of all where an index leads to it, as it does to
/// the first of the key; else the hash of the one with the most values. A key of one column has as many values as rows,
/// whether somebody counted them or not.
fn best<'a>(size: &'a Size, cuts: &Cuts) -> Option<(SliceBy, &'a Spread)> {
    let keys = || size.spreads.iter().filter(|spread| spread.key_place.is_some());
    let fits = |spread: &&Spread| {
        spread.by != SliceBy::Hash && quantiles(&spread.edges, cuts).len() * 2 >= cuts.pieces()
    };
    let by_values = keys().filter(fits).min_by_key(|spread| (!spread.found_fast, spread.key_place));
    by_values.map(|spread| (spread.by, spread)).or_else(|| {
        let hashed = keys().filter(|spread| spread.by == SliceBy::Hash && spread.distinct > 0.0);
        let most = hashed.max_by(|one, other| one.distinct.total_cmp(&other.distinct));
        let alone = keys().next().filter(|_| keys().count() == 1);
        most.or(alone).map(|spread| (SliceBy::Hash, spread))
    })
}

/// Those edges that lie within an interval, and not on its start.
fn inside(edges: &[i64], interval: Interval<i64>) -> &[i64] {
    let from = edges.partition_point(|edge| *edge <= interval.start());
    let to = edges.partition_point(|edge| *edge < interval.end());
    edges.get(from..to).unwrap_or(&[])
}

/// The edges before which there are such parts of all rows.
fn quantiles(edges: &[i64], cuts: &Cuts) -> Vec<i64> {
    let at = |part: &f64| edges.get((edges.len() as f64 * part) as usize).copied();
    let mut found: Vec<i64> = cuts.0.iter().filter_map(at).collect();
    found.dedup();
    // On the first value a slice would begin before which there is nothing.
    found.retain(|edge| edges.first() != Some(edge));
    found
}

fn hash_edges(cuts: &Cuts) -> Vec<i64> {
    evenly(i64::from(i32::MIN), i64::from(i32::MAX), cuts)
}

/// The edges before which there are such parts of an interval.
fn evenly(start: i64, end: i64, cuts: &Cuts) -> Vec<i64> {
    let (start, length) = (i128::from(start), end as f64 - start as f64);
    cuts.0.iter().filter_map(|part| i64::try_from(start + (length * part) as i128).ok()).collect()
}

/// The slices between edges; none where there is no edge inside.
fn of_edges(unit: &Unit, start: i64, edges: &[i64], end: i64) -> Vec<Unit> {
    let mut inner: Vec<i64> = edges.iter().copied().filter(|edge| start < *edge && *edge < end).collect();
    inner.sort_unstable();
    inner.dedup();
    if inner.is_empty() {
        return Vec::new();
    }
    let starts = std::iter::once(start).chain(inner.iter().copied());
    let ends = inner.iter().copied().chain(std::iter::once(end));
    starts
        .zip(ends)
        .filter_map(|(start, end)| Interval::new(start, end))
        .map(|slice| of(unit, slice))
        .collect()
}

fn of(unit: &Unit, slice: Interval<i64>) -> Unit {
    let extent = extent(&unit.rows.measure, slice);
    let id = unit_id(&unit.rows.series, &extent, unit.rows.tag.as_deref());
    let key = UnitKey { source: unit.key.source.clone(), id };
    Unit { key, extent, waits: false, ..unit.clone() }
}

#[cfg(test)]
mod tests;
