//! What earlier runs left, as far as a plan needs it.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::interval::Interval;
use crate::measure::{Loaded, Measure};
use crate::names::TableName;
use crate::owed::OwedKey;

/// What is known of everything, for one target.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// By source and series ([`crate::unit::series_of`]).
    pub series: HashMap<(String, String), Series>,
    /// What ids were seen in a source's table.
    pub ids: HashMap<IdColumn, Vec<SeenIds>>,
    /// Primary keys that tables of the target are still to get.
    pub owed: Vec<OwedKey>,
}

/// What is known of one series.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Series {
    /// What is in the target, by measure.
    pub loaded: Vec<Loaded>,
    /// Windows that an older ledger or load log kept without a measure; in order, touching nowhere.
    pub unmeasured: Vec<Interval<i64>>,
    /// Units that were begun and are not in the target.
    pub open: Vec<Open>,
}

/// A unit that was begun and is not known to be in the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Its id.
    pub id: String,
    /// Its measure; `None` where an older ledger did not say.
    pub measure: Option<Measure>,
    /// Its extent, in numbers of its measure.
    pub extent: Interval<i64>,
    /// Where it stands.
    pub state: OpenState,
    /// In how many runs it failed by its own fault, one after the other.
    pub tries: u32,
}

/// Where a unit stands that is not in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenState {
    /// Its file is on the mount.
    Exported,
    /// It failed, or was begun and never finished.
    Unfinished,
}

/// A column of growing ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdColumn {
    /// The source's name.
    pub source: String,
    /// The table, as `schema.table`.
    pub table: String,
    /// The column.
    pub column: String,
}

/// A column of growing ids that a plan needs to have looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedIds {
    /// Which.
    pub column: IdColumn,
    /// Its table.
    pub table: TableName,
    /// For how long an id must have been there.
    pub lag: Duration,
}

/// The ids of a table, as one look saw them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenIds {
    /// When.
    pub at: Timestamp,
    /// The lowest id.
    pub lowest: i64,
    /// The highest.
    pub highest: i64,
}

impl Facts {
    /// What is known of a series.
    pub fn series(&self, source: &str, series: &str) -> Option<&Series> {
        // A map keyed by pairs of texts cannot be asked with borrowed ones.
        self.series.get(&(source.to_owned(), series.to_owned()))
    }

    /// As [`Facts::series`], to be filled.
    pub fn series_mut(&mut self, source: &str, series: &str) -> &mut Series {
        self.series.entry((source.to_owned(), series.to_owned())).or_default()
    }
}

impl Series {
    /// What is in the target by one measure.
    pub fn loaded_by(&self, measure: &Measure) -> Option<&Loaded> {
        self.loaded.iter().find(|loaded| loaded.measure == *measure)
    }

    /// When the whole table was moved last: microseconds since 1970-01-01 UTC.
    pub fn moved_whole_at(&self) -> Option<i64> {
        self.loaded_by(&Measure::All)?.intervals.last().map(|interval| interval.end() - 1)
    }

    /// Is the unit of a measure that is all or nothing in the target?
    pub fn holds_all(&self, measure: &Measure) -> bool {
        self.loaded_by(measure).is_some_and(|loaded| !loaded.intervals.is_empty())
    }
}
