//! Whether the target is ready to be loaded: what preflight asks of it. Reads only.

use std::collections::HashMap;

use super::{Session, TargetError};
use crate::names::TableName;

/// Privileges that loading may need.
pub const RIGHTS: [&str; 5] = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"];

/// What the target is, and what its user may do about the load log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// The database.
    pub database: String,
    /// The user.
    pub user: String,
    /// Its encoding.
    pub encoding: String,
    /// What can be done about the load log.
    pub log: LogAccess,
    /// May it make temporary tables?
    pub temporary: bool,
}

/// What can be done about the load log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogAccess {
    /// It is there and can be written.
    Writable,
    /// It is there and cannot be written.
    NotWritable,
    /// It is not there and can be made.
    Creatable,
    /// Its schema is there, and the table cannot be made in it.
    SchemaClosed,
    /// Its schema is not there and cannot be made.
    DatabaseClosed,
}

/// A table of the target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadyTable {
    /// What the loading user may do with it, in SQL's words; nothing without USAGE on its schema.
    pub may: Vec<&'static str>,
    /// Its columns, in the table's order.
    pub columns: Vec<ReadyColumn>,
    /// Columns of its primary key; empty where it has none.
    pub primary_key: Vec<String>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyColumn {
    /// Its name.
    pub name: String,
    /// Its type as `format_type` writes it.
    pub type_name: String,
    /// Is it computed by the server, so that COPY must not name it?
    pub generated: bool,
    /// Can it hold no NULL?
    pub not_null: bool,
    /// Has it a default, an identity included?
    pub has_default: bool,
    /// Is an update of it done by DELETE and INSERT? A distribution key is, and what the server alone numbers.
    pub moves: bool,
}

impl Session {
    /// Asks what the target is. Nothing is made.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn readiness(&mut self) -> Result<Readiness, TargetError> {
        let of = |error: postgres::Error| TargetError::of(&error, "say what it is");
        // A catalog that somebody holds locked shall not hold preflight up.
        self.client.batch_execute("SET statement_timeout = '20s'").map_err(of)?;
        let (schema, table) = self.log_parts();
        let row = self
            .client
            .query_one(
                "SELECT current_database()::text, current_user::text, current_setting('server_encoding'), \
                 has_database_privilege(current_database(), 'CREATE'), \
                 (SELECT has_schema_privilege(n.oid, 'CREATE') FROM pg_namespace n WHERE n.nspname = $1::text), \
                 (SELECT has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'SELECT') \
                  AND has_table_privilege(c.oid, 'UPDATE') AND has_schema_privilege(n.oid, 'USAGE') \
                  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                  WHERE n.nspname = $1::text AND c.relname = $2::text), \
                 has_database_privilege(current_database(), 'TEMPORARY')",
                &[&schema, &table],
            )
            .map_err(of)?;
        let log = log_access(row.get(3), row.get(4), row.get(5));
        Ok(Readiness {
            database: row.get(0),
            user: row.get(1),
            encoding: row.get(2),
            log,
            temporary: row.get(6),
        })
    }

    /// What the catalog holds of `tables`; a table that is not there is not in the answer.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn ready_tables(
        &mut self,
        tables: &[&TableName],
    ) -> Result<HashMap<TableName, ReadyTable>, TargetError> {
        let of = |error: postgres::Error| TargetError::of(&error, "read its catalog");
        let keys = self.tables(tables)?;
        let generated = if self.facts.generates() { "a.attgenerated <> ''" } else { "false" };
        let identity = if self.facts.has_identities() { "a.attidentity <> ''" } else { "false" };
        let numbered = if self.facts.has_identities() { "a.attidentity = 'a'" } else { "false" };
        let (moves, policy) = if self.facts.distributes() {
            let key = super::shape::distribution_key(&self.facts);
            let moves = format!(
                "{numbered} OR COALESCE(' ' || {key} || ' ' LIKE '% ' || CAST(a.attnum AS text) || ' %', false)"
            );
            (moves, "LEFT JOIN gp_distribution_policy d ON d.localoid = c.oid")
        } else {
            (numbered.to_owned(), "")
        };
        let may = RIGHTS.map(|right| match right {
            // Where that is no privilege of its own, it is the owner's.
            "TRUNCATE" if !self.facts.grants_truncate() => "pg_has_role(c.relowner, 'USAGE')".to_owned(),
            right => format!("has_table_privilege(c.oid, '{right}')"),
        });
        let may = may.join(", ");
        // `IN` over two lists, narrowed below: two-array `unnest` is not there before 9.4.
        let sql = format!(
            "SELECT n.nspname::text, c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), \
             {generated}, a.attnotnull, a.atthasdef OR {identity}, \
             has_schema_privilege(n.oid, 'USAGE'), {moves}, {may} \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped {policy} \
             WHERE n.nspname = ANY ($1::text[]) AND c.relname = ANY ($2::text[]) \
             AND c.relkind IN ('r', 'p', 'v', 'f') ORDER BY c.oid, a.attnum"
        );
        let schemas: Vec<&str> = tables.iter().map(|table| table.schema()).collect();
        let names: Vec<&str> = tables.iter().map(|table| table.table()).collect();
        let mut found: HashMap<TableName, ReadyTable> = HashMap::new();
        for row in self.client.query(sql.as_str(), &[&schemas, &names]).map_err(of)? {
            let Ok(name) = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)) else { continue };
            let Some(known) = keys.get(&name) else { continue };
            let table = found.entry(name).or_default();
            table.primary_key.clone_from(&known.primary_key);
            if row.get(7) {
                let may = RIGHTS.iter().enumerate().filter(|(n, _)| row.get(9 + n));
                table.may = may.map(|(_, right)| *right).collect();
            }
            table.columns.push(ReadyColumn {
                name: row.get(2),
                type_name: row.get(3),
                generated: row.get(4),
                not_null: row.get(5),
                has_default: row.get(6),
                moves: row.get(8),
            });
        }
        Ok(found)
    }
}

/// `schema` and `table` are `None` where they are not there.
fn log_access(may_create_schema: bool, schema: Option<bool>, table: Option<bool>) -> LogAccess {
    match (schema, table, may_create_schema) {
        (_, Some(true), _) => LogAccess::Writable,
        (_, Some(false), _) => LogAccess::NotWritable,
        (Some(true), None, _) | (None, None, true) => LogAccess::Creatable,
        (Some(false), None, _) => LogAccess::SchemaClosed,
        (None, None, false) => LogAccess::DatabaseClosed,
    }
}
