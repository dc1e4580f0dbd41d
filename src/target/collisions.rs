//! Which keys collide, after a unit was rolled back on a unique constraint.
//!
//! The file is staged in a temporary table and its keys are looked up by the server, so memory stays constant
//! whatever the file's size. Keys are cell values: who calls this decides where they may be shown.

use super::{CopyError, Session, TargetError};
use crate::gzip::CheckedReader;
use crate::names::TableName;
use crate::sql;

/// The first colliding keys of a unit, each as `(a, b)=(1, x)`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collisions {
    /// Stand more than once in the file.
    pub twice_in_file: Vec<String>,
    /// Stand in the file and in the target.
    pub already_there: Vec<String>,
}

impl Session {
    /// Looks up to `limit` colliding keys of each kind up. Changes nothing; the session must be outside a
    /// transaction.
    ///
    /// # Errors
    /// [`CopyError`]: the constraint is not over plain columns, no right to make temporary tables, a file
    /// that changed meanwhile.
    pub fn collisions(
        &mut self,
        table: &TableName,
        columns: &[String],
        constraint: &str,
        reader: CheckedReader,
        limit: usize,
    ) -> Result<Collisions, CopyError> {
        self.begin().map_err(CopyError::Start)?;
        let found = self.staged_collisions(table, columns, constraint, reader, limit);
        // After a COPY that did not start the session is of no more use, and says so at its next statement.
        drop(self.rollback());
        found
    }

    fn staged_collisions(
        &mut self,
        table: &TableName,
        columns: &[String],
        constraint: &str,
        reader: CheckedReader,
        limit: usize,
    ) -> Result<Collisions, CopyError> {
        let key = self.key_columns(table, constraint).map_err(CopyError::Start)?;
        if key.is_empty() {
            return Ok(Collisions::default());
        }
        let quoted = sql::table(table);
        self.run(
            &format!("CREATE TEMP TABLE gpferry_stage (LIKE {quoted}) ON COMMIT DROP"),
            "make a temporary table",
        )
        .map_err(CopyError::Start)?;
        self.copy_to("gpferry_stage", columns, reader)?;
        let idents: Vec<String> = key.iter().map(|column| sql::ident(column)).collect();
        let texts = |side: &str| {
            idents.iter().map(|column| format!("{side}.{column}::text")).collect::<Vec<_>>().join(", ")
        };
        let group = idents.join(", ");
        let twice = format!(
            "SELECT {} FROM gpferry_stage s GROUP BY {group} HAVING count(*) > 1 ORDER BY {group} LIMIT {limit}",
            texts("s")
        );
        let equal =
            idents.iter().map(|column| format!("s.{column} = t.{column}")).collect::<Vec<_>>().join(" AND ");
        let there =
            format!("SELECT {} FROM gpferry_stage s JOIN {quoted} t ON {equal} LIMIT {limit}", texts("s"));
        Ok(Collisions {
            twice_in_file: self.keys(&key, &twice).map_err(CopyError::Start)?,
            already_there: self.keys(&key, &there).map_err(CopyError::Start)?,
        })
    }

    /// Columns of a unique constraint or index of a table, by its name; empty where it has expressions.
    fn key_columns(&mut self, table: &TableName, constraint: &str) -> Result<Vec<String>, TargetError> {
        let sql = "SELECT a.attname::text FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace \
             JOIN pg_index x ON x.indrelid = t.oid AND x.indisunique JOIN pg_class i ON i.oid = x.indexrelid \
             JOIN pg_attribute ia ON ia.attrelid = i.oid \
             JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.indkey[ia.attnum - 1] \
             WHERE n.nspname = $1::text AND t.relname = $2::text AND i.relname = $3::text \
             AND x.indexprs IS NULL ORDER BY ia.attnum";
        let rows = self
            .client
            .query(sql, &[&table.schema(), &table.table(), &constraint])
            .map_err(|error| TargetError::of(&error, "look a constraint up"))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    fn keys(&mut self, columns: &[String], sql: &str) -> Result<Vec<String>, TargetError> {
        let rows =
            self.client.query(sql, &[]).map_err(|error| TargetError::of(&error, "look colliding keys up"))?;
        let names = columns.join(", ");
        Ok(rows
            .iter()
            .map(|row| {
                let values: Vec<String> = (0..columns.len())
                    .map(|n| row.get::<_, Option<String>>(n).unwrap_or_else(|| "NULL".into()))
                    .collect();
                format!("({names})=({})", values.join(", "))
            })
            .collect())
    }
}
