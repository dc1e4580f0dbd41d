//! A window column as a line of numbers, so that a server can say in which cell of it a row lies. Pure.
//!
//! Cells put rows together that are counted or digested as one. Which rows a window holds its own conditions say
//! ([`super::rows::conditions`]); both sides reckon alike, so a cell is the same on both.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::postgres::SourceTable;
use super::rows::{WindowType, window_type};
use crate::measure::{Measure, Scale};
use crate::sql;
use crate::window::{civil, instant};

/// Above this the difference of two numbers may not fit its type.
const SAFE: i64 = 1 << 61;

/// A window column as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    column: String,
    line: Line,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Microseconds of civil time.
    Civil,
    /// Microseconds since 1970-01-01 UTC.
    Instants,
    /// The column's own numbers; of time where one of them is so many microseconds.
    Numbers { micros: Option<i64>, exact: bool },
}

impl Axis {
    /// The axis of a measure in a table with these columns; `None` where it has none, or the column cannot serve.
    pub fn of(measure: &Measure, table: &SourceTable) -> Option<Self> {
        let Measure::By(scale, name) = measure else { return None };
        let column = table.columns.iter().find(|column| column.name == *name)?;
        let kind = window_type(*scale, &column.type_name)?;
        let exact = column.type_name.starts_with("numeric");
        let line = match (scale, kind) {
            (Scale::Time, WindowType::Zoned) => Line::Instants,
            (Scale::Time, WindowType::Civil | WindowType::Date | WindowType::Number) => Line::Civil,
            (Scale::EpochSeconds, _) => Line::Numbers { micros: Some(1_000_000), exact },
            (Scale::EpochMillis, _) => Line::Numbers { micros: Some(1_000), exact },
            (Scale::EpochMicros, _) => Line::Numbers { micros: Some(1), exact },
            (Scale::Id, _) => Line::Numbers { micros: None, exact },
        };
        Some(Self { column: sql::ident(name), line })
    }

    /// Do both have one line, so that a number of one is the same on the other?
    pub fn is_like(&self, other: &Axis) -> bool {
        match (self.line, other.line) {
            (Line::Numbers { micros: one, .. }, Line::Numbers { micros: other, .. }) => one == other,
            (one, other) => one == other,
        }
    }

    /// Where a number of the measure (microseconds of civil time in a zone, or an id) lies.
    pub fn place(&self, number: i64, zone: &TimeZone) -> Option<i64> {
        let micros = || instant(civil(number), zone).map(Timestamp::as_microsecond);
        match self.line {
            Line::Civil | Line::Numbers { micros: None, .. } => Some(number),
            Line::Instants => micros(),
            // As the bounds of a window are rounded: up.
            Line::Numbers { micros: Some(unit), .. } => {
                micros().map(|micros| micros.div_euclid(unit) + i64::from(micros.rem_euclid(unit) != 0))
            }
        }
    }

    /// The number of the cell, from 0, in which a row at or behind `origin` lies, as SQL.
    pub fn cell(&self, origin: i64, step: i64) -> String {
        let column = &self.column;
        match self.line {
            Line::Civil => seconds(&format!("CAST({column} AS timestamp)"), origin, step),
            Line::Instants => seconds(column, origin, step),
            Line::Numbers { exact: false, .. } if origin.abs() < SAFE => {
                format!("({column} - CAST('{origin}' AS bigint)) / CAST('{step}' AS bigint)")
            }
            Line::Numbers { .. } => {
                format!(
                    "CAST(floor((CAST({column} AS numeric) - CAST('{origin}' AS numeric)) / CAST('{step}' AS numeric)) AS bigint)"
                )
            }
        }
    }

    /// Rows from one number up to another, and perhaps some beside them, as a condition that an index serves.
    pub fn around(&self, first: i64, end: i64) -> String {
        const SECOND: i64 = 1_000_000;
        let column = &self.column;
        let between = |first: String, end: String| format!("{column} >= {first} AND {column} <= {end}");
        let at = |micros: i64| civil(micros);
        match self.line {
            Line::Civil => {
                let bound = |time: jiff::civil::DateTime| {
                    format!(
                        "CAST({} AS timestamp)",
                        sql::literal(&format!("{} {}", time.date(), time.time()))
                    )
                };
                between(bound(at(first.saturating_sub(SECOND))), bound(at(end.saturating_add(SECOND))))
            }
            Line::Instants => {
                let bound = |time: jiff::civil::DateTime| {
                    format!(
                        "CAST({} AS timestamptz)",
                        sql::literal(&format!("{} {}+00", time.date(), time.time()))
                    )
                };
                between(bound(at(first.saturating_sub(SECOND))), bound(at(end.saturating_add(SECOND))))
            }
            Line::Numbers { .. } => {
                between(format!("CAST('{first}' AS bigint)"), format!("CAST('{end}' AS bigint)"))
            }
        }
    }
}

/// By seconds since 1970: a double holds each microsecond of two centuries.
fn seconds(column: &str, origin: i64, step: i64) -> String {
    let number = |micros: i64| {
        let sign = if micros < 0 { "-" } else { "" };
        let micros = micros.unsigned_abs();
        format!("CAST('{sign}{}.{:06}' AS double precision)", micros / 1_000_000, micros % 1_000_000)
    };
    format!("CAST(floor((date_part('epoch', {column}) - {}) / {}) AS bigint)", number(origin), number(step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::postgres::SourceColumn;

    fn axis(scale: Scale, type_name: &str) -> Option<Axis> {
        let column = SourceColumn {
            name: "a\"t".into(),
            type_name: type_name.into(),
            generated: false,
            not_null: false,
        };
        Axis::of(
            &Measure::By(scale, "a\"t".into()),
            &SourceTable { columns: [column].into(), ..SourceTable::default() },
        )
    }

    #[test]
    fn a_column_is_a_line_by_its_type_and_scale() {
        let civil = axis(Scale::Time, "timestamp(3) without time zone").unwrap();
        let zoned = axis(Scale::Time, "timestamp with time zone").unwrap();
        let seconds = axis(Scale::EpochSeconds, "bigint").unwrap();
        assert!(!civil.is_like(&zoned) && civil.is_like(&axis(Scale::Time, "date").unwrap()));
        assert!(seconds.is_like(&axis(Scale::EpochSeconds, "numeric(20,0)").unwrap()));
        assert_eq!(axis(Scale::Time, "text"), None);
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let eight_hours = 8 * 3600 * 1_000_000;
        assert_eq!(civil.place(eight_hours, &zone), Some(eight_hours));
        assert_eq!(zoned.place(eight_hours, &zone), Some(0));
        assert_eq!(seconds.place(eight_hours + 1, &zone), Some(1));
        assert!(civil.cell(-1_500_000, 250).contains("'-1.500000'"));
        assert!(seconds.around(1, 2).contains("\"a\"\"t\" >= "));
    }
}
