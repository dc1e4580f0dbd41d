//! Rows about what is wrong, in a table of somebody else.

use std::collections::HashMap;
use std::time::Duration;

use postgres::types::ToSql;

use super::{CommitError, Session, TargetError, milliseconds};
use crate::names::TableName;
use crate::sql;

/// A table that takes such rows.
#[derive(Debug, Clone, Copy)]
pub struct AlarmTable<'a> {
    /// Its name.
    pub name: &'a TableName,
    /// The columns that are filled.
    pub columns: &'a [&'a str],
    /// The one that holds the row's number; one of them.
    pub id: &'a str,
}

/// What keeps two sessions from inserting the same row. PostgreSQL gives advisory locks two ways to be named; this is the
/// first of the two numbers, so that they are nobody else's.
const LOCK: i32 = 0x6770_6665;

impl Session {
    /// Inserts rows that are not there yet, by their number, all of them or none. Every value is given as text and cast
    /// to its column's type, so that a text is cut to what its column holds. `limit` is for all of it on the server.
    ///
    /// # Errors
    /// [`TargetError`]; nothing is in the table then, or nobody knows (a lost COMMIT): the same call again mends both.
    pub fn insert_alarms(
        &mut self,
        table: &AlarmTable<'_>,
        rows: &[Vec<Option<String>>],
        limit: Duration,
    ) -> Result<(), TargetError> {
        let doing = "insert alarms";
        let of = |error: postgres::Error| TargetError::of(&error, doing);
        let refused = |sqlstate: &str, message: String| TargetError::Refused {
            doing: doing.into(),
            sqlstate: sqlstate.into(),
            message,
            constraint: None,
            line: None,
        };
        let found = self.tables(&[table.name])?;
        let Some(there) = found.get(table.name) else {
            return Err(refused("42P01", format!("table {} does not exist", table.name)));
        };
        let types: HashMap<&str, &str> =
            there.columns.iter().map(|column| (column.name.as_str(), column.type_name.as_str())).collect();
        let missing = table.columns.iter().find(|column| !types.contains_key(**column));
        if let Some(column) = missing {
            return Err(refused("42703", format!("table {} has no column {column}", table.name)));
        }
        let statement = statement(table, &types)
            .ok_or_else(|| refused("42704", format!("a type of {} cannot be named", table.name)))?;
        // Another session that is still at it (its client gave up) must have ended before anybody asks what is there.
        let lock = format!("SELECT pg_try_advisory_lock({LOCK}, hashtext($1))");
        let held: bool = self.client.query_one(&lock, &[&table.name.to_string()]).map_err(of)?.get(0);
        if !held {
            return Err(refused("55P03", "another session inserts alarms into it right now".into()));
        }
        self.begin()?;
        self.run(&format!("SET LOCAL statement_timeout = {}", milliseconds(limit)), doing)?;
        let statement = self.client.prepare(&statement).map_err(of)?;
        for row in rows {
            let values: Vec<&(dyn ToSql + Sync)> =
                row.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
            self.client.execute(&statement, &values).map_err(of)?;
        }
        self.check_ids(table, &types, rows)?;
        self.commit().map_err(|error| match error {
            CommitError::Aborted(error) | CommitError::Unknown(error) => error,
        })
    }

    /// A number that its column cuts is none: rows would be taken for each other.
    fn check_ids(
        &mut self,
        table: &AlarmTable<'_>,
        types: &HashMap<&str, &str>,
        rows: &[Vec<Option<String>>],
    ) -> Result<(), TargetError> {
        let doing = "insert alarms";
        let (Some(place), Some(kind)) =
            (table.columns.iter().position(|column| *column == table.id), types.get(table.id))
        else {
            return Ok(());
        };
        let sql = format!("SELECT CAST(CAST(CAST($1 AS text) AS {kind}) AS text)");
        for id in rows.iter().filter_map(|row| row.get(place).and_then(Option::as_deref)) {
            let row = self.client.query_one(&sql, &[&id]).map_err(|error| TargetError::of(&error, doing))?;
            if row.get::<_, Option<String>>(0).as_deref().map(str::trim_end) != Some(id) {
                return Err(TargetError::Refused {
                    doing: doing.into(),
                    sqlstate: "22003".into(),
                    message: format!("column {} ({kind}) cannot hold a number of 18 digits", table.id),
                    constraint: None,
                    line: None,
                });
            }
        }
        Ok(())
    }
}

/// One row, where its number is not there yet; `None` where a type's name is none.
fn statement(table: &AlarmTable<'_>, types: &HashMap<&str, &str>) -> Option<String> {
    let mut values = Vec::new();
    let mut same = String::new();
    for (number, column) in table.columns.iter().enumerate() {
        let kind = sql::type_name(types.get(column)?)?;
        let value = format!("CAST(CAST(${} AS text) AS {kind})", number + 1);
        if *column == table.id {
            same = format!("{} = {value}", sql::ident(column));
        }
        values.push(value);
    }
    let name = sql::table(table.name);
    Some(format!(
        "INSERT INTO {name} ({}) SELECT {} WHERE NOT EXISTS (SELECT 1 FROM {name} WHERE {same})",
        sql::idents(table.columns.iter().copied()),
        values.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_a_type_is_one() {
        let name = TableName::new("d\"m", "alarm").unwrap();
        let table = AlarmTable { name: &name, columns: &["id", "te\"xt"], id: "id" };
        let types = HashMap::from([("id", "bigint"), ("te\"xt", "character varying(20)")]);
        assert_eq!(
            statement(&table, &types).unwrap(),
            "INSERT INTO \"d\"\"m\".\"alarm\" (\"id\", \"te\"\"xt\") SELECT CAST(CAST($1 AS text) AS bigint), \
             CAST(CAST($2 AS text) AS character varying(20)) WHERE NOT EXISTS (SELECT 1 FROM \"d\"\"m\".\"alarm\" \
             WHERE \"id\" = CAST(CAST($1 AS text) AS bigint))"
        );
        let types = HashMap::from([("id", "bigint"), ("te\"xt", "text); DROP TABLE x")]);
        assert_eq!(statement(&table, &types), None);
    }
}
