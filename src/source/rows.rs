//! Which rows of a table a unit is, as SQL: the query that exports them, and the conditions that find them again where
//! they are replaced. Pure.
//!
//! It must run on everything from Greenplum 5 (PostgreSQL 8.3) on, on one line, inside `\copy (…) to …`.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use thiserror::Error;

use super::postgres::SourceTable;
use crate::interval::Interval;
use crate::measure::{Measure, Scale, SliceBy};
use crate::names::TableName;
use crate::sql;
use crate::unit::{Extent, Unit};
use crate::window;

/// Why a unit's query cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QueryError {
    /// The window column is not there.
    #[error("the window column \"{column}\" is not in the source table {table}")]
    NoWindowColumn {
        /// The column.
        column: String,
        /// The table.
        table: String,
    },
    /// A column by which rows were moved before is gone, so nobody can tell which those were.
    #[error(
        "rows of {table} were moved by the column \"{column}\" before, which is not there any more: they cannot be left out"
    )]
    ColumnGone {
        /// The column.
        column: String,
        /// The table.
        table: String,
    },
    /// The window column's type has no order of time that we know.
    #[error("the window column \"{column}\" of {table} has type {type_name}; {needs}")]
    WindowType {
        /// The column.
        column: String,
        /// The table.
        table: String,
        /// Its type.
        type_name: String,
        /// What would do.
        needs: &'static str,
    },
    /// A bound that is not midnight, for a column of days.
    #[error(
        "the window column is a date, and {0} is within a day: rows of that day that come later would be left out"
    )]
    WithinADay(String),
    /// A window bound does not exist in the inventory's zone.
    #[error("{0} is not a time in the inventory's zone")]
    NoSuchTime(String),
}

impl QueryError {
    /// What to try.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::ColumnGone { .. } => {
                "give the table that column back under that name, or move all of it to another `target:`"
            }
            Self::NoWindowColumn { .. }
            | Self::WindowType { .. }
            | Self::WithinADay(_)
            | Self::NoSuchTime(_) => "correct `window` for this table in the inventory",
        }
    }
}

/// The query that exports rows of a table: named columns, and a condition, which [`condition`] makes.
pub fn export_query(table: &TableName, columns: &[String], condition: &str) -> String {
    let list = sql::idents(columns.iter().map(String::as_str));
    let filter = if condition.is_empty() { String::new() } else { format!(" WHERE {condition}") };
    format!("SELECT {list} FROM {}{filter}", sql::table(table))
}

/// What tells a unit's rows from the others of its source table: the window half-open, without what other measures have
/// loaded, the entry's condition. Empty where it is all of them.
///
/// # Errors
/// [`QueryError`] where the window column cannot serve.
pub fn condition(unit: &Unit, table: &SourceTable, zone: &TimeZone) -> Result<String, QueryError> {
    Ok(conditions(unit, table, &unit.table, zone)?.join(" AND "))
}

/// What tells a unit's rows from the other rows of a table, called `name`, that has these columns: the source's, or the
/// target's where they are replaced there. None of it where they are all its rows.
///
/// # Errors
/// [`QueryError`] where the window column cannot serve.
pub fn conditions(
    unit: &Unit,
    table: &SourceTable,
    name: &TableName,
    zone: &TimeZone,
) -> Result<Vec<String>, QueryError> {
    let bounds = Bounds { table, name, zone };
    let mut conditions = Vec::new();
    match unit.extent {
        Extent::Whole | Extent::Repeated(_) => {}
        Extent::Nulls | Extent::Times(_) | Extent::Ids(_) | Extent::Slice(_) => {
            conditions.push(bounds.within(&unit.rows.measure, unit.extent.numbers())?);
        }
    }
    for loaded in &unit.rows.without {
        for interval in &loaded.intervals {
            // NULL in that column means that the row is in no interval of it.
            let within = bounds.within(&loaded.measure, *interval).map_err(|error| match error {
                QueryError::NoWindowColumn { column, table } => QueryError::ColumnGone { column, table },
                other => other,
            })?;
            conditions.push(format!("({within}) IS NOT TRUE"));
        }
    }
    conditions.extend(unit.entry.filter.as_ref().map(ToString::to_string));
    Ok(conditions)
}

/// The rows of a unit that stand on the first instant, or id, of its window; `None` where it has none.
pub fn on_first_bound(unit: &Unit, table: &SourceTable, name: &TableName, zone: &TimeZone) -> Option<String> {
    let Measure::By(scale, column) = &unit.rows.measure else { return None };
    let bounds = Bounds { table, name, zone };
    let kind = bounds.window_type(*scale, column).ok()?;
    let start = bounds.bound(unit.extent.numbers().start(), *scale, kind).ok()?;
    Some(format!("{} = {start}", sql::ident(column)))
}

/// How a window column's bounds are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WindowType {
    /// Civil time.
    Civil,
    /// Days: a bound within one would leave out rows of that day that come later.
    Date,
    /// An instant.
    Zoned,
    /// A number.
    Number,
}

/// What conditions over one table's rows are written with.
struct Bounds<'a> {
    table: &'a SourceTable,
    name: &'a TableName,
    zone: &'a TimeZone,
}

impl Bounds<'_> {
    /// The rows of an interval of a measure.
    fn within(&self, measure: &Measure, interval: Interval<i64>) -> Result<String, QueryError> {
        match measure {
            Measure::All => Ok("true".into()),
            Measure::Null(column) => {
                self.column(column)?;
                Ok(format!("{} IS NULL", sql::ident(column)))
            }
            Measure::Slice(by, column) => self.slice(*by, column, interval),
            Measure::By(scale, column) => {
                let kind = self.window_type(*scale, column)?;
                let start = self.bound(interval.start(), *scale, kind)?;
                let end = self.bound(interval.end(), *scale, kind)?;
                let column = sql::ident(column);
                Ok(format!("{column} >= {start} AND {column} < {end}"))
            }
        }
    }

    /// The rows of a slice. The outer ends are open, so that infinities are in one, and rows without a value are in the first:
    /// an inherited table may have some, whatever the key says.
    fn slice(&self, by: SliceBy, column: &str, interval: Interval<i64>) -> Result<String, QueryError> {
        let type_name = self.column(column)?;
        let name = sql::ident(column);
        let value = match by {
            SliceBy::Time | SliceBy::Number => name.clone(),
            SliceBy::Hash => format!("hashtext(CAST({name} AS text))"),
        };
        let bound = |number: i64| match by {
            SliceBy::Hash => number.to_string(),
            SliceBy::Number => format!("CAST({} AS bigint)", sql::literal(&number.to_string())),
            SliceBy::Time => {
                let time = window::civil(number);
                let zoned = window_type(Scale::Time, type_name) == Some(WindowType::Zoned);
                let (zone, to) = if zoned { ("+00", "timestamptz") } else { ("", "timestamp") };
                format!("CAST('{} {}{zone}' AS {to})", time.date(), time.time())
            }
        };
        let (start, end) = (interval.start(), interval.end());
        Ok(match (start == i64::MIN, end == i64::MAX) {
            (true, true) => "true".into(),
            (true, false) => format!("({value} < {} OR {name} IS NULL)", bound(end)),
            (false, true) => format!("{value} >= {}", bound(start)),
            (false, false) => format!("{value} >= {} AND {value} < {}", bound(start), bound(end)),
        })
    }

    fn column(&self, name: &str) -> Result<&str, QueryError> {
        let found = self.table.columns.iter().find(|column| column.name == name);
        found.map(|column| column.type_name.as_str()).ok_or_else(|| QueryError::NoWindowColumn {
            column: name.to_owned(),
            table: self.name.to_string(),
        })
    }

    fn window_type(&self, scale: Scale, name: &str) -> Result<WindowType, QueryError> {
        let type_name = self.column(name)?;
        window_type(scale, type_name).ok_or_else(|| QueryError::WindowType {
            column: name.to_owned(),
            table: self.name.to_string(),
            type_name: type_name.to_owned(),
            needs: needed(scale, type_name),
        })
    }

    fn bound(&self, number: i64, scale: Scale, kind: WindowType) -> Result<String, QueryError> {
        let time = window::civil(number);
        let civil = format!("{} {}", time.date(), time.time());
        let instant =
            || window::instant(time, self.zone).ok_or_else(|| QueryError::NoSuchTime(civil.clone()));
        match (scale, kind) {
            (Scale::Id, _) => Ok(format!("CAST({} AS bigint)", sql::literal(&number.to_string()))),
            (Scale::EpochSeconds, _) => Ok(epoch(instant()?.as_microsecond(), 1_000_000)),
            (Scale::EpochMillis, _) => Ok(epoch(instant()?.as_microsecond(), 1_000)),
            (Scale::EpochMicros, _) => Ok(epoch(instant()?.as_microsecond(), 1)),
            (Scale::Time, WindowType::Zoned) => {
                Ok(format!("CAST({} AS timestamptz)", sql::literal(&instant()?.to_string())))
            }
            (Scale::Time, WindowType::Date) if time.time() == Time::midnight() => {
                Ok(format!("CAST({} AS date)", sql::literal(&time.date().to_string())))
            }
            (Scale::Time, WindowType::Date) => Err(QueryError::WithinADay(civil)),
            (Scale::Time, WindowType::Civil | WindowType::Number) => {
                Ok(format!("CAST({} AS timestamp)", sql::literal(&civil)))
            }
        }
    }
}

/// A whole number of seconds, or what they are divided in. A bound between two of them is the later one: the numbers
/// below it are before it.
fn epoch(micros: i64, unit: i64) -> String {
    let number = micros.div_euclid(unit) + i64::from(micros.rem_euclid(unit) != 0);
    format!("CAST({} AS bigint)", sql::literal(&number.to_string()))
}

/// How a column of this type is compared, where its values can be read that way. Also preflight's word for it.
pub(super) fn window_type(scale: Scale, type_name: &str) -> Option<WindowType> {
    let is_number =
        matches!(type_name, "smallint" | "integer" | "bigint") || type_name.starts_with("numeric");
    match scale {
        Scale::Time if type_name == "date" => Some(WindowType::Date),
        Scale::Time if type_name.starts_with("timestamp") && type_name.ends_with("without time zone") => {
            Some(WindowType::Civil)
        }
        Scale::Time if type_name.starts_with("timestamp") && type_name.ends_with("with time zone") => {
            Some(WindowType::Zoned)
        }
        Scale::Time => None,
        Scale::EpochSeconds | Scale::EpochMillis | Scale::EpochMicros | Scale::Id => {
            is_number.then_some(WindowType::Number)
        }
    }
}

/// Can windows be cut by a column of this type, read in this way? If not: what it would need.
pub fn unfit_for_windows(scale: Scale, type_name: &str) -> Option<&'static str> {
    window_type(scale, type_name).is_none().then(|| needed(scale, type_name))
}

fn needed(scale: Scale, type_name: &str) -> &'static str {
    let is_number = window_type(Scale::Id, type_name).is_some();
    match scale {
        Scale::Time if is_number => {
            "a window of time needs timestamp, timestamp with time zone or date; for a number write \
             `type: epoch_s`, `epoch_ms`, `epoch_us` or `id`"
        }
        Scale::Time => {
            "a window needs timestamp, timestamp with time zone, date, or a whole number with its `type`"
        }
        Scale::EpochSeconds | Scale::EpochMillis | Scale::EpochMicros | Scale::Id => {
            "this `type` needs a column of whole numbers"
        }
    }
}
