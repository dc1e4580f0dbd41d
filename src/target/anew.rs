//! Taking units out of the load log whose rows are loaded again: in the transaction that puts the new ones there.

use super::{Session, TargetError};
use crate::source::keys;
use crate::unit::{Extent, Unit, read_id};

impl Session {
    /// Takes out of the load log what lies within a unit: itself, its parts, windows of other bounds. What reaches
    /// beyond it stays, since it stands for other rows too. How many rows that were.
    ///
    /// On Greenplum 5 and 6 this locks the whole load log to the end of the transaction, so it comes last.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn unlog(&mut self, unit: &Unit) -> Result<u64, TargetError> {
        let doing = "take a unit out of the load log";
        let bounds = match unit.extent {
            Extent::Whole | Extent::Repeated(_) | Extent::Nulls => Default::default(),
            Extent::Times(window) => (window.start().to_string(), window.end().to_string()),
            Extent::Ids(ids) | Extent::Slice(ids) => (ids.start().to_string(), ids.end().to_string()),
        };
        let within = match unit.extent {
            Extent::Times(_) => {
                "window_start >= $4::text::timestamp AND window_end <= $5::text::timestamp AND (measure = $3 OR measure IS NULL)"
            }
            // Its slices are within it, too.
            Extent::Whole | Extent::Repeated(_) => {
                "(measure = $3 OR measure LIKE 'slice:%') AND $4::text = $5::text"
            }
            Extent::Nulls => "measure = $3 AND $4::text = $5::text",
            Extent::Ids(_) | Extent::Slice(_) => {
                "first_id >= $4::text::bigint AND last_id <= $5::text::bigint AND measure = $3"
            }
        };
        let sql = format!("SELECT unit FROM {} WHERE source = $1 AND table_name = $2 AND {within}", self.log);
        let (measure, table) = (unit.rows.measure.to_string(), unit.target.to_string());
        let found = self
            .client
            .query(sql.as_str(), &[&&*unit.key.source, &table, &measure, &bounds.0, &bounds.1])
            .map_err(|error| TargetError::of(&error, doing))?;
        let is_own = |id: &String| {
            *id == unit.key.id || read_id(id).is_some_and(|named| named.series == unit.rows.series)
        };
        let units: Vec<String> = found.iter().map(|row| row.get(0)).filter(is_own).collect();
        let sql = format!("DELETE FROM {} WHERE source = $1 AND unit = ANY ($2)", self.log);
        let gone = self.client.execute(sql.as_str(), &[&&*unit.key.source, &units]);
        gone.map_err(|error| TargetError::of(&error, doing))
    }

    /// The second and the third number of a query of one row: how many rows, and the sum of their digests.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn rows_and_sum(&mut self, sql: &str, doing: &str) -> Result<(u64, u128), TargetError> {
        log::debug!("target: {sql}");
        self.run(&keys::ease_digests(self.facts.version, true), doing)?;
        let answer = self.client.simple_query(sql).map_err(|error| TargetError::of(&error, doing))?;
        let row = answer.iter().find_map(|message| match message {
            postgres::SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let number = |n: usize| row.and_then(|row| row.get(n)).unwrap_or_default();
        // What is no number is what no window holds.
        Ok((number(1).parse().unwrap_or(u64::MAX), number(2).parse().unwrap_or(u128::MAX)))
    }
}
