//! What the target's catalog says of the tables that are to be loaded.

use std::collections::HashMap;

use super::{Session, TargetError};
use crate::names::TableName;

/// Tables that the catalog is asked for at once.
const AT_ONCE: usize = 500;

/// A table of the target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetTable {
    /// Its columns, in the table's order.
    pub columns: Vec<Column>,
    /// Columns of its primary key, in the key's order; empty where it has none.
    pub primary_key: Vec<String>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as `format_type` writes it.
    pub type_name: String,
    /// Is it computed by the server, so that COPY must not name it?
    pub generated: bool,
}

impl Session {
    /// What the catalog holds of `tables`; a table that is not there is not in the answer.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn tables(&mut self, tables: &[&TableName]) -> Result<HashMap<TableName, TargetTable>, TargetError> {
        let mut found = HashMap::with_capacity(tables.len());
        // The library holds an answer whole: asked all at once, ten thousand tables would cost more memory
        // than everything else.
        for some in tables.chunks(AT_ONCE) {
            self.describe(some, &mut found).map_err(|error| TargetError::of(&error, "read its catalog"))?;
        }
        Ok(found)
    }

    fn describe(
        &mut self,
        tables: &[&TableName],
        found: &mut HashMap<TableName, TargetTable>,
    ) -> Result<(), postgres::Error> {
        let schemas: Vec<&str> = tables.iter().map(|table| table.schema()).collect();
        let names: Vec<&str> = tables.iter().map(|table| table.table()).collect();
        let generated = if self.facts.generates() { "a.attgenerated <> ''" } else { "false" };
        let wanted = "FROM (SELECT DISTINCT s, t FROM unnest($1::text[], $2::text[]) w (s, t)) w \
             JOIN pg_namespace n ON n.nspname = w.s \
             JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.t AND c.relkind IN ('r', 'p', 'v', 'f')";
        let wanted = if self.facts.unnests_many() { wanted.to_owned() } else { old_wanted(wanted) };
        let columns = format!(
            "SELECT w.s, w.t, a.attname::text, format_type(a.atttypid, a.atttypmod), {generated} {wanted} \
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
             ORDER BY c.oid, a.attnum"
        );
        for row in self.client.query(columns.as_str(), &[&schemas, &names])? {
            let Ok(table) = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)) else {
                continue;
            };
            let column = Column { name: row.get(2), type_name: row.get(3), generated: row.get(4) };
            found.entry(table).or_default().columns.push(column);
        }
        let keys = format!(
            "SELECT w.s, w.t, a.attname::text {wanted} \
             JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p' \
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (k.conkey) \
             ORDER BY c.oid, position(',' || a.attnum || ',' in ',' || array_to_string(k.conkey, ',') || ',')"
        );
        for row in self.client.query(keys.as_str(), &[&schemas, &names])? {
            let Ok(table) = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)) else {
                continue;
            };
            if let Some(table) = found.get_mut(&table) {
                table.primary_key.push(row.get(2));
            }
        }
        Ok(())
    }
}

/// Before PostgreSQL 9.4 `unnest` takes one array only.
fn old_wanted(wanted: &str) -> String {
    wanted.replace(
        "unnest($1::text[], $2::text[]) w (s, t)",
        "(SELECT ($1::text[])[i] AS s, ($2::text[])[i] AS t FROM generate_series(1, array_upper($1::text[], 1)) i) w",
    )
}
