//! By what the rows of a table are told apart: a column and how its values are read. Pure.
//!
//! What is loaded is remembered as intervals of a measure. When a table's window column is changed in the
//! inventory, what was loaded by the old one is still known by it, so the new windows can leave just those rows
//! out ([`Loaded`]): no gap, and nothing twice.

use std::fmt;
use std::str::FromStr;

use crate::interval::Interval;

/// How a window column's values are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scale {
    /// Time, by the column's own type: timestamp, timestamp with time zone, date.
    Time,
    /// A number of seconds since 1970-01-01 00:00:00 UTC.
    EpochSeconds,
    /// The same in milliseconds.
    EpochMillis,
    /// The same in microseconds.
    EpochMicros,
    /// A number that grows with every row.
    Id,
}

impl Scale {
    /// All of them.
    pub const ALL: [Scale; 5] =
        [Scale::Time, Scale::EpochSeconds, Scale::EpochMillis, Scale::EpochMicros, Scale::Id];

    /// The word of the inventory (`type:`), the ledger and the load log.
    pub fn word(self) -> &'static str {
        match self {
            Scale::Time => "time",
            Scale::EpochSeconds => "epoch_s",
            Scale::EpochMillis => "epoch_ms",
            Scale::EpochMicros => "epoch_us",
            Scale::Id => "id",
        }
    }
}

/// By what a whole table is cut in slices. The numbers of its intervals, of which the least and the greatest stand for
/// "from the beginning" and "to the end", so that infinities are in a slice as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SliceBy {
    /// A column of time: microseconds since 1970-01-01, of civil time, or of UTC where the column has a zone.
    Time,
    /// A column of whole numbers.
    Number,
    /// The 32 bits that the source's server makes of a column's text.
    Hash,
}

impl SliceBy {
    const ALL: [SliceBy; 3] = [SliceBy::Time, SliceBy::Number, SliceBy::Hash];

    /// The word of the ledger and the load log.
    fn word(self) -> &'static str {
        match self {
            SliceBy::Time => "time",
            SliceBy::Number => "number",
            SliceBy::Hash => "hash",
        }
    }
}

/// By what rows are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Measure {
    /// By nothing: all of them.
    All,
    /// Those whose window column is NULL.
    Null(String),
    /// By intervals of a column.
    By(Scale, String),
    /// All of them, moved in slices: by intervals of a column that holds no NULL. Once the last one is in the target,
    /// the table was moved whole.
    Slice(SliceBy, String),
}

impl Measure {
    /// Is it one of time?
    pub fn is_time(&self) -> bool {
        match self {
            Measure::All | Measure::Null(_) | Measure::By(Scale::Id, _) | Measure::Slice(..) => false,
            Measure::By(Scale::Time | Scale::EpochSeconds | Scale::EpochMillis | Scale::EpochMicros, _) => {
                true
            }
        }
    }

    /// Are the rows of the two never the same, so that neither needs to leave the other's out? A column's NULLs are
    /// beside its values.
    pub fn is_beside(&self, other: &Measure) -> bool {
        match (self, other) {
            (Measure::Null(column), Measure::By(_, by)) | (Measure::By(_, by), Measure::Null(column)) => {
                column == by
            }
            (Measure::All | Measure::Null(_) | Measure::By(..) | Measure::Slice(..), _) => false,
        }
    }

    /// The column, where there is one.
    pub fn column(&self) -> Option<&str> {
        match self {
            Measure::All => None,
            Measure::Null(column) | Measure::By(_, column) | Measure::Slice(_, column) => Some(column),
        }
    }
}

/// `all`, `null:evt_timestamp`, `time:evt_timestamp`, `id:seq`, `slice:hash:code`.
impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Measure::All => f.write_str("all"),
            Measure::Null(column) => write!(f, "null:{column}"),
            Measure::By(scale, column) => write!(f, "{}:{column}", scale.word()),
            Measure::Slice(by, column) => write!(f, "slice:{}:{column}", by.word()),
        }
    }
}

/// Reads what [`Measure`]'s `Display` wrote.
impl FromStr for Measure {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            None if text == "all" => Ok(Measure::All),
            None => Err(()),
            Some(("null", column)) => Ok(Measure::Null(column.to_owned())),
            Some(("slice", rest)) => {
                let (word, column) = rest.split_once(':').ok_or(())?;
                let by = SliceBy::ALL.into_iter().find(|by| by.word() == word).ok_or(())?;
                Ok(Measure::Slice(by, column.to_owned()))
            }
            Some((word, column)) => {
                let scale = Scale::ALL.into_iter().find(|scale| scale.word() == word).ok_or(())?;
                Ok(Measure::By(scale, column.to_owned()))
            }
        }
    }
}

/// What is loaded of a table by one measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The measure.
    pub measure: Measure,
    /// What the ids of its units end with, where those of another measure have the plain ids.
    pub tag: Option<String>,
    /// In order, touching nowhere: microseconds of civil time or ids; `[0, 1)` where there is only all or nothing.
    pub intervals: Vec<Interval<i64>>,
}

/// The interval of all numbers: what the slices of a table make up.
pub fn all_numbers() -> Interval<i64> {
    Interval::new(i64::MIN, i64::MAX).unwrap_or_else(everything)
}

/// The one interval of a measure that is all or nothing.
pub fn everything() -> Interval<i64> {
    // Not empty, so there is one.
    Interval::new(0, 1).unwrap_or_else(|| unreachable!("0 is less than 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measure_is_read_as_it_was_written() {
        let by = |scale| Measure::By(scale, "a:b".into());
        let slice = |by| Measure::Slice(by, "a:b".into());
        let some = [Measure::All, Measure::Null("c".into())];
        let all = some.into_iter().chain(Scale::ALL.map(by)).chain(SliceBy::ALL.map(slice));
        for measure in all {
            assert_eq!(measure.to_string().parse(), Ok(measure));
        }
        assert_eq!(("week:c".parse::<Measure>(), "".parse::<Measure>()), (Err(()), Err(())));
    }
}
