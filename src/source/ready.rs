//! The SQL that asks a source whether tables can be exported, and the reading of what comes back. Pure.
//!
//! As in [`super::postgres`], it must run on everything from Greenplum 5 (PostgreSQL 8.3) on, on one line.

use super::postgres::{SourceFacts, fields};
use crate::names::TableName;
use crate::sql;

/// What a source's database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceServer {
    /// Version and family.
    pub facts: SourceFacts,
    /// `version()`, whole.
    pub text: String,
    /// Its encoding.
    pub encoding: String,
}

/// A table as the exporting user finds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadyTable {
    /// May that user read it?
    pub readable: bool,
    /// Its columns, in the table's order.
    pub columns: Vec<ReadyColumn>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyColumn {
    /// Its name.
    pub name: String,
    /// Its type as `format_type` writes it.
    pub type_name: String,
    /// Is it computed by the server?
    pub generated: bool,
    /// Can it hold no NULL?
    pub not_null: bool,
    /// Does an index begin with it, or is the table partitioned by it?
    pub found_fast: bool,
}

/// Asks what the server is.
pub const SERVER: &str =
    "SELECT current_setting('server_version_num'), version(), current_setting('server_encoding')";

/// Reads the answer to [`SERVER`].
pub fn read_server(row: &str) -> SourceServer {
    let fields = fields(row);
    let field = |n: usize| fields.get(n).cloned().flatten().unwrap_or_default();
    SourceServer { facts: super::postgres::read_facts(row), text: field(1), encoding: field(2) }
}

/// Asks for tables and their columns.
pub fn ask_tables(facts: SourceFacts, tables: &[&TableName]) -> String {
    let wanted = tables
        .iter()
        .map(|table| format!("({}, {})", sql::literal(table.schema()), sql::literal(table.table())))
        .collect::<Vec<_>>()
        .join(", ");
    let generated = if facts.version >= 120_000 { "a.attgenerated <> ''" } else { "false" };
    let found_fast = found_fast(facts);
    format!(
        "SELECT n.nspname, c.relname, \
         has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE'), \
         a.attname, format_type(a.atttypid, a.atttypmod), {generated}, a.attnotnull, \
         {found_fast} \
         FROM (VALUES {wanted}) w (s, t) JOIN pg_namespace n ON n.nspname = w.s \
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.t AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         ORDER BY c.oid, a.attnum"
    )
}

/// SQL: does an index of the table `c` begin with its column `a`, or is it partitioned by it?
pub(super) fn found_fast(facts: SourceFacts) -> String {
    let partitioned = if facts.version >= 100_000 {
        "EXISTS (SELECT 1 FROM pg_partitioned_table p WHERE p.partrelid = c.oid AND p.partattrs[0] = a.attnum)"
    } else if facts.greenplum {
        "EXISTS (SELECT 1 FROM pg_partition p WHERE p.parrelid = c.oid AND p.paratts[0] = a.attnum)"
    } else {
        "false"
    };
    format!(
        "(EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum) OR {partitioned})"
    )
}

/// Reads one row of [`ask_tables`]: the table, whether it can be read, and one of its columns.
pub fn read_table(row: &str) -> Option<(TableName, bool, ReadyColumn)> {
    let mut fields = fields(row).into_iter();
    let mut next = || fields.next().flatten();
    let table = TableName::new(next()?, next()?).ok()?;
    let readable = next()? == "t";
    let column = ReadyColumn {
        name: next()?,
        type_name: next()?,
        generated: next()? == "t",
        not_null: next()? == "t",
        found_fast: next()? == "t",
    };
    Some((table, readable, column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_asked_for_where_the_server_keeps_them() {
        let table = TableName::new("s", "it's").unwrap();
        let sql = |version, greenplum| ask_tables(SourceFacts { version, greenplum }, &[&table]);
        assert!(
            sql(90_426, true).contains("pg_partition p")
                && sql(150_000, false).contains("pg_partitioned_table")
        );
        assert!(!sql(90_600, false).contains("pg_partition"));
        assert!(sql(150_000, false).contains("('s', 'it''s')") && !sql(150_000, false).contains('\n'));
    }

    #[test]
    fn rows_become_tables() {
        let (table, readable, column) = read_table("s\tt\tf\tid\tinteger\tf\tt\tt").unwrap();
        assert_eq!((table.table(), readable), ("t", false));
        assert!(column.not_null && column.found_fast && !column.generated);
        assert_eq!(read_table("s\tt"), None);
        assert_eq!(read_server("150004\tPostgreSQL 15.4\tUTF8").encoding, "UTF8");
    }
}
