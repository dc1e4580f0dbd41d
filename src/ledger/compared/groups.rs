//! By which groups windows differ, where a comparison was asked to tell them: beside [`super::OpenDifference`], and gone
//! with it.

use std::collections::HashMap;

use rusqlite::{Connection, Transaction, params};

use super::Rows;
use crate::interval::Interval;
use crate::ledger::status::SeriesKey;

/// So many groups of a window are told apart; one with more of them is told as a whole.
const MOST: usize = 100;

/// A group of a window, and how it differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The value of the column that groups are told by.
    pub value: Option<String>,
    /// How many rows differ; those that both sides have are not counted by group.
    pub rows: Rows,
}

/// Which window: its series, measure and bounds.
type Place = (SeriesKey, String, i64, i64);

/// Writes down the groups of a window, in the place of those that it had.
pub(super) fn note(
    transaction: &Transaction<'_>,
    target_url: &str,
    (source, series, measure): (&str, &str, &str),
    window: Interval<i64>,
    groups: &[Group],
) -> rusqlite::Result<()> {
    if groups.len() > MOST {
        return Ok(());
    }
    let mut insert = transaction.prepare_cached(
        "INSERT INTO difference_group (target_url, source, series, measure, first, last, place, in_group, missing, extra,
                                       changed, exact)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    for (place, Group { value, rows }) in groups.iter().enumerate() {
        insert.execute(params![
            target_url,
            source,
            series,
            measure,
            window.start(),
            window.end(),
            place,
            value,
            rows.missing,
            rows.extra,
            rows.changed,
            rows.exact,
        ])?;
    }
    Ok(())
}

/// Takes away the groups of windows within a part.
pub(super) fn forget(
    transaction: &Transaction<'_>,
    target_url: &str,
    (source, series, measure): (&str, &str, &str),
    part: Interval<i64>,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "DELETE FROM difference_group WHERE target_url = ?1 AND source = ?2 AND series = ?3 AND measure = ?4
               AND first >= ?5 AND last <= ?6",
        )?
        .execute(params![target_url, source, series, measure, part.start(), part.end()])
        .map(drop)
}

/// All groups of a target's windows.
pub(super) fn of_target(
    connection: &Connection,
    target_url: &str,
) -> rusqlite::Result<HashMap<Place, Vec<Group>>> {
    let mut statement = connection.prepare(
        "SELECT source, series, measure, first, last, in_group, missing, extra, changed, exact
         FROM difference_group WHERE target_url = ? ORDER BY source, series, measure, first, last, place",
    )?;
    let mut rows = statement.query([target_url])?;
    let mut groups: HashMap<Place, Vec<Group>> = HashMap::new();
    while let Some(row) = rows.next()? {
        let place = ((row.get(0)?, row.get(1)?), row.get(2)?, row.get(3)?, row.get(4)?);
        let differing = Rows {
            missing: row.get(6)?,
            extra: row.get(7)?,
            changed: row.get(8)?,
            exact: row.get(9)?,
            ..Rows::default()
        };
        groups.entry(place).or_default().push(Group { value: row.get(5)?, rows: differing });
    }
    Ok(groups)
}
