//! A unit whose rows were loaded again, in the place of what was there.
//!
//! Its sums take the place of the old ones: of the same unit, of units that lie within it, and, where the history of
//! those is gone, of what the last comparison saw in the target.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::record::write_unit;
use super::{Record, Run};
use crate::unit::Unit;

pub(super) fn write(
    transaction: &Transaction<'_>,
    run: &Run,
    now: Timestamp,
    unit: &Unit,
    record: &Record,
) -> rusqlite::Result<()> {
    let (interval, measure) = (unit.extent.numbers(), unit.rows.measure.to_string());
    let (source, series) = (&unit.key.source, &unit.rows.series);
    let within =
        "source = ?1 AND series = ?2 AND measure = ?3 AND first >= ?4 AND last <= ?5 AND target_url = ?6
                  AND state = 'loaded'";
    let (units, own, rows): (i64, i64, i64) = transaction.query_row(
        &format!(
            "SELECT count(*), coalesce(sum(id = ?7), 0), coalesce(sum(CASE WHEN id <> ?7 THEN rows_loaded END), 0)
             FROM unit WHERE {within}"
        ),
        params![source, series, measure, interval.start(), interval.end(), run.target_url, unit.key.id],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    transaction.execute(
        &format!("DELETE FROM unit WHERE {within} AND id <> ?7"),
        params![source, series, measure, interval.start(), interval.end(), run.target_url, unit.key.id],
    )?;
    let (units, rows) = if units > 0 {
        (units - own, rows)
    } else {
        let seen: Option<i64> = transaction
            .query_row(
                "SELECT rows_target FROM difference WHERE target_url = ?1 AND source = ?2 AND series = ?3
                 AND measure = ?4 AND first = ?5 AND last = ?6",
                params![run.target_url, source, series, measure, interval.start(), interval.end()],
                |row| row.get(0),
            )
            .optional()?;
        (1, seen.unwrap_or(0))
    };
    transaction.execute(
        "UPDATE tally SET units = max(units - ?4, 0), rows = max(rows - ?5, 0)
         WHERE target_url = ?1 AND source = ?2 AND series = ?3 AND measure <> 'all'",
        params![run.target_url, source, series, units, rows],
    )?;
    write_unit(transaction, run, now, unit, record)
}
