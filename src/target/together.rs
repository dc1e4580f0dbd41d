//! The load log for many units at once: what a group of small units shares, so that each costs a COPY and little more.
//!
//! The order is that of one unit: claimed first, so that of two loaders one waits; asked for overlaps after that, in
//! the same transaction; looked at last. SQL that Greenplum 5 (PostgreSQL 8.3) can do: text in a VALUES list takes no
//! type from the column that it goes to there, so whatever is no text has a cast.

use std::collections::{BTreeSet, HashMap};

use postgres::SimpleQueryMessage;

use super::load_log::{CLAIMED, count, ids};
use super::{Claim, Entry, Limits, Session, TargetError};
use crate::sql::literal;
use crate::unit::{Extent, Unit, UnitKey};

impl Session {
    /// Begins a transaction whose statements may take so long.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn begin_within(&mut self, limits: Limits) -> Result<(), TargetError> {
        let sql = format!("BEGIN; {}", self.set_limits(limits));
        self.run(&sql, "begin a transaction")?;
        self.limits = Some(limits);
        Ok(())
    }

    /// Claims units, inside a transaction: all of them or none. Waits for another loader's transaction that holds one.
    ///
    /// # Errors
    /// [`TargetError`]. After any of them, and after [`Claim::AlreadyThere`] of any unit, the transaction must be
    /// rolled back.
    pub fn claim_all<'a>(
        &mut self,
        claims: impl IntoIterator<Item = (&'a UnitKey, Entry<'a>)>,
    ) -> Result<Claim, TargetError> {
        let rows: Vec<String> = claims.into_iter().map(|(key, entry)| claimed(key, &entry)).collect();
        let sql = format!("INSERT INTO {} ({CLAIMED}) VALUES {}", self.log, rows.join(", "));
        match self.run(&sql, "claim units in the load log") {
            Ok(()) => Ok(Claim::Ours),
            Err(TargetError::Refused { sqlstate, .. }) if sqlstate == "23505" => Ok(Claim::AlreadyThere),
            Err(other) => Err(other),
        }
    }

    /// Those of these units, by their place here, whose table has other units in the load log that may hold rows of
    /// theirs: [`Session::overlapping`] tells for sure. All that is not by the same measure beside a unit may.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn may_overlap<'a>(
        &mut self,
        units: impl IntoIterator<Item = &'a Unit>,
    ) -> Result<BTreeSet<usize>, TargetError> {
        let rows: Vec<String> = units.into_iter().enumerate().map(|(n, unit)| looked_for(n, unit)).collect();
        let sql = format!(
            "SELECT DISTINCT u.n FROM (VALUES {}) u (n, source, unit, table_name, measure, one, start, stop, first, last) \
             JOIN {} l ON l.source = u.source AND l.table_name = u.table_name WHERE l.unit <> u.unit \
             AND (l.measure = u.measure AND (u.one OR l.window_end <= u.start OR l.window_start >= u.stop \
             OR l.last_id <= u.first OR l.first_id >= u.last)) IS NOT TRUE",
            rows.join(", "),
            self.log
        );
        let of = |error| TargetError::of(&error, "look for overlapping windows in the load log");
        let said = self.client.simple_query(&sql).map_err(of)?;
        let places = said.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        Ok(places.filter_map(|n| n.parse().ok()).collect())
    }

    /// Sees that the rows of claimed units are there and say what was loaded: the last statement of the transaction.
    ///
    /// # Errors
    /// [`TargetError`] where one is not, so that the transaction cannot be trusted.
    pub fn confirm_all(&mut self, loaded: &[(&UnitKey, u64)]) -> Result<(), TargetError> {
        let sql = format!(
            "SELECT source, unit, rows_loaded FROM {} WHERE source = ANY ($1) AND unit = ANY ($2)",
            self.log
        );
        let statement = self.prepared(&sql)?;
        let sources: BTreeSet<&str> = loaded.iter().map(|(key, _)| &*key.source).collect();
        let sources: Vec<&str> = sources.into_iter().collect();
        let units: Vec<&str> = loaded.iter().map(|(key, _)| key.id.as_str()).collect();
        let found = self
            .client
            .query(&statement, &[&sources, &units])
            .map_err(|error| TargetError::of(&error, "confirm load log rows"))?;
        let there: HashMap<(&str, &str), u64> =
            found.iter().map(|row| ((row.get(0), row.get(1)), count(row.get(2)))).collect();
        let is_there =
            |(key, rows): &&(&UnitKey, u64)| there.get(&(&*key.source, key.id.as_str())) == Some(rows);
        if loaded.iter().filter(is_there).count() == loaded.len() {
            return Ok(());
        }
        Err(TargetError::Lost {
            doing: "confirm load log rows".into(),
            why: "the rows of this transaction are not there: it was not alive".into(),
        })
    }
}

/// A row of VALUES for the columns of [`CLAIMED`].
fn claimed(key: &UnitKey, entry: &Entry<'_>) -> String {
    let window = entry.extent.window();
    let (first, last) = ids(&entry.extent).unzip();
    let number = |number: u64| format!("{number}::bigint");
    let counts = entry.counts;
    let fields = [
        literal(&key.source),
        literal(&key.id),
        literal(entry.job),
        literal(&entry.table),
        time(window.map(|window| window.start())),
        time(window.map(|window| window.end())),
        literal(&entry.file),
        literal(entry.mode),
        number(counts.exported),
        number(counts.loaded),
        literal(&entry.digest),
        literal(entry.run),
        literal(&entry.measure.to_string()),
        id(first),
        id(last),
        number(counts.rejected),
        number(counts.updated),
        number(counts.left),
    ];
    format!("({})", fields.join(", "))
}

/// A row of VALUES that says what a unit may overlap.
fn looked_for(n: usize, unit: &Unit) -> String {
    // Of these there is one for each measure, with one id.
    let one = matches!(unit.extent, Extent::Whole | Extent::Nulls);
    let window = unit.extent.window();
    let (first, last) = ids(&unit.extent).unzip();
    format!(
        "({n}, {}, {}, {}, {}, {one}, {}, {}, {}, {})",
        literal(&unit.key.source),
        literal(&unit.key.id),
        literal(&unit.target.to_string()),
        literal(&unit.rows.measure.to_string()),
        time(window.map(|window| window.start())),
        time(window.map(|window| window.end())),
        id(first),
        id(last),
    )
}

fn time(at: Option<jiff::civil::DateTime>) -> String {
    at.map_or_else(|| "NULL::timestamp".into(), |at| format!("{}::timestamp", literal(&at.to_string())))
}

/// Quoted, since before a cast a minus sign binds less than the cast does.
fn id(id: Option<i64>) -> String {
    id.map_or_else(|| "NULL::bigint".into(), |id| format!("'{id}'::bigint"))
}
