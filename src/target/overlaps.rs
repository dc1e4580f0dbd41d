//! What of a unit's rows the load log holds under other names: the last look before they are copied.
//!
//! A plan leaves out what the ledger knows. A ledger that lags behind (its process died between COMMIT and the
//! note of it), or that is not the only one, knows less than the load log does.

use super::load_log::{log_columns, log_row};
use super::{LogRow, Session, TargetError};
use crate::measure::{Loaded, Measure, Scale};
use crate::sql;
use crate::unit::{Extent, Rows, Unit, read_id};
use crate::window::civil;

impl Session {
    /// Units in the load log, of the same source, series and target table, that may hold rows of this unit: those
    /// that overlap it by the same measure, and those of another measure that it does not leave out.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn overlapping(&mut self, unit: &Unit) -> Result<Vec<LogRow>, TargetError> {
        let (overlaps, bounds) = match unit.extent {
            // By the same measure they are one unit, with one id. What was written without a measure are windows of
            // time: their rows may be any of a table's.
            // It takes the place of what is there, however that came.
            Extent::Repeated(_) => return Ok(Vec::new()),
            Extent::Whole => ("measure IS NULL AND $4::text = $5::text", Default::default()),
            Extent::Nulls => ("$4::text <> $5::text", Default::default()),
            Extent::Times(window) => (
                "window_start < $5::text::timestamp AND window_end > $4::text::timestamp",
                (window.start().to_string(), window.end().to_string()),
            ),
            Extent::Ids(ids) | Extent::Slice(ids) => (
                "(measure IS NULL OR first_id < $5::text::bigint AND last_id > $4::text::bigint)",
                (ids.start().to_string(), ids.end().to_string()),
            ),
        };
        let sql = format!(
            "SELECT {} FROM {} \
             WHERE source = $1 AND table_name = $2 AND unit <> $3 AND (({overlaps}) AND ({}) OR {})",
            log_columns("measure"),
            self.log,
            own(&unit.rows),
            unaccounted(&unit.rows)
        );
        let statement = self.prepared(&sql)?;
        let table = unit.target.to_string();
        let rows = self
            .client
            .query(&statement, &[&&*unit.key.source, &table, &unit.key.id, &bounds.0, &bounds.1])
            .map_err(|error| TargetError::of(&error, "look for overlapping windows in the load log"))?;
        let same_series =
            |row: &LogRow| read_id(&row.key.id).is_some_and(|named| named.series == unit.rows.series);
        let is_beside =
            |row: &LogRow| row.measure.as_ref().is_some_and(|own| unit.rows.measure.is_beside(own));
        Ok(rows.iter().map(log_row).filter(|row| same_series(row) && !is_beside(row)).collect())
    }
}

/// The condition on rows of the same measure. What was written without one counts as such, unless it lies in what
/// the plan knows to be of another measure of time: the ledger has taken it for that one.
fn own(rows: &Rows) -> String {
    let times = rows.without.iter().filter(|loaded| loaded.measure.is_time());
    let taken: String = times.map(|loaded| format!(" AND ({}) IS NOT TRUE", bounds_within(loaded))).collect();
    format!("measure = {} OR measure IS NULL{taken}", sql::literal(&rows.measure.to_string()))
}

/// The condition on rows of other measures that a unit does not leave out.
fn unaccounted(rows: &Rows) -> String {
    let own = sql::literal(&rows.measure.to_string());
    let left_out: String =
        rows.without.iter().map(|loaded| format!(" AND ({}) IS NOT TRUE", within(loaded))).collect();
    format!("(measure <> {own}{left_out})")
}

/// The condition on rows of the load log that lie in what is loaded by a measure, as far as a plan knew it.
fn within(loaded: &Loaded) -> String {
    let measure = format!("measure = {}", sql::literal(&loaded.measure.to_string()));
    match &loaded.measure {
        Measure::All | Measure::Null(_) => measure,
        Measure::By(..) | Measure::Slice(..) => format!("{measure} AND ({})", bounds_within(loaded)),
    }
}

/// The condition on bounds that lie in what is loaded by a column.
fn bounds_within(loaded: &Loaded) -> String {
    let part = |first: i64, last: i64| match &loaded.measure {
        Measure::By(Scale::Id, _) | Measure::Slice(..) => {
            format!("first_id >= {first} AND last_id <= {last}")
        }
        Measure::All | Measure::Null(_) | Measure::By(..) => {
            let at = |number: i64| format!("{}::timestamp", sql::literal(&civil(number).to_string()));
            format!("window_start >= {} AND window_end <= {}", at(first), at(last))
        }
    };
    let parts: Vec<String> = loaded.intervals.iter().map(|one| part(one.start(), one.end())).collect();
    if parts.is_empty() { "false".into() } else { parts.join(" OR ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interval::Interval;

    #[test]
    fn only_what_a_plan_left_out_is_accounted_for() {
        let of = |measure: &str, intervals: &[(i64, i64)]| Loaded {
            measure: measure.parse().unwrap(),
            tag: None,
            intervals: intervals.iter().map(|one| Interval::new(one.0, one.1).unwrap()).collect(),
        };
        assert_eq!(within(&of("id:n", &[(-5, 7)])), "measure = 'id:n' AND (first_id >= -5 AND last_id <= 7)");
        assert_eq!(within(&of("null:o'n", &[(0, 1)])), "measure = 'null:o''n'");
        assert_eq!(within(&of("time:a", &[])), "measure = 'time:a' AND (false)");
        let time = within(&of("time:a", &[(0, 3_600_000_000)]));
        assert!(time.contains("window_start >= '1970-01-01T00:00:00'::timestamp"), "{time}");
        assert!(time.contains("window_end <= '1970-01-01T01:00:00'::timestamp"), "{time}");
    }
}
