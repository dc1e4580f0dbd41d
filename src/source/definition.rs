//! The SQL that asks a source how tables are made, and the reading of what comes back. Pure.
//!
//! Asked only for tables that the target lacks, so that a run that creates none pays nothing. As in
//! [`super::postgres`], it must run on everything from Greenplum 5 (PostgreSQL 8.3) on, on one line.

use std::collections::HashMap;

use super::postgres::{SourceFacts, fields};
use crate::names::TableName;
use crate::sql;

/// What kind of relation a source's table is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// Rows of its own, partitioned or not.
    #[default]
    Table,
    /// A view, materialized or not.
    View,
    /// A foreign table.
    Foreign,
}

/// How a source spreads a table's rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Distribution {
    /// It does not: PostgreSQL, or no table.
    #[default]
    None,
    /// By a hash over these columns.
    By(Vec<String>),
    /// At random.
    Randomly,
    /// Every segment has all of them.
    Replicated,
}

/// How a table is made, as far as a copy of it needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definition {
    /// What it is.
    pub kind: Kind,
    /// Its columns, in the table's order.
    pub columns: Vec<DefinedColumn>,
    /// Columns of its primary key, in the key's order; empty where it has none.
    pub primary_key: Vec<String>,
    /// How its rows are spread.
    pub distribution: Distribution,
    /// `RANGE (at)`, where it is partitioned.
    pub partitioned_by: Option<String>,
    /// Do tables inherit from it that are no partitions? Their rows are its rows, its key is not theirs.
    pub inherited: bool,
    /// About how many rows it has, where somebody has counted: the last ANALYZE, or the server's statistics.
    pub rows: Option<u64>,
}

/// A column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DefinedColumn {
    /// Its name.
    pub name: String,
    /// Its type as `format_type` writes it, with its schema where that is not the system's.
    pub type_name: String,
    /// Can it hold no NULL?
    pub not_null: bool,
    /// The expression that computes it.
    pub generated: Option<String>,
    /// Schema and name of its collation, where it is not its type's own.
    pub collation: Option<(String, String)>,
}

/// Asks how tables are made.
pub fn define_tables(facts: SourceFacts, tables: &[&TableName]) -> String {
    let wanted = tables
        .iter()
        .map(|table| format!("({}, {})", sql::literal(table.schema()), sql::literal(table.table())))
        .collect::<Vec<_>>()
        .join(", ");
    let (generated, expressions) = if facts.version >= 120_000 {
        (
            "CASE WHEN a.attgenerated <> '' THEN pg_get_expr(e.adbin, e.adrelid) END",
            "LEFT JOIN pg_attrdef e ON e.adrelid = c.oid AND e.adnum = a.attnum",
        )
    } else {
        ("NULL", "")
    };
    let (collation, collations) = if facts.version >= 90_100 {
        (
            "cn.nspname, co.collname",
            "LEFT JOIN pg_collation co ON co.oid = a.attcollation AND a.attcollation <> t.typcollation \
             LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace",
        )
    } else {
        ("NULL, NULL", "")
    };
    let (policy, policies) = match facts {
        SourceFacts { greenplum: false, .. } => ("NULL, NULL", ""),
        // Greenplum 5 has no other tables than those that are spread by a hash or at random.
        SourceFacts { version: ..90_000, .. } => (
            "CASE WHEN d.localoid IS NOT NULL THEN 'p' END, array_to_string(d.attrnums, ' ')",
            "LEFT JOIN gp_distribution_policy d ON d.localoid = c.oid",
        ),
        SourceFacts { .. } => (
            "d.policytype, CAST(d.distkey AS text)",
            "LEFT JOIN gp_distribution_policy d ON d.localoid = c.oid",
        ),
    };
    let (partition, partitions) = match facts {
        SourceFacts { version: 100_000.., .. } => {
            ("CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END, NULL", "")
        }
        SourceFacts { greenplum: true, .. } => (
            "CASE p.parkind WHEN 'l' THEN 'LIST' WHEN 'h' THEN 'HASH' WHEN 'r' THEN 'RANGE' END, \
             CAST(p.paratts AS text)",
            "LEFT JOIN pg_partition p ON p.parrelid = c.oid AND p.parlevel = 0 AND NOT p.paristemplate",
        ),
        SourceFacts { .. } => ("NULL, NULL", ""),
    };
    format!(
        "SELECT n.nspname, c.relname, c.relkind, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), \
         CASE WHEN tn.nspname <> 'pg_catalog' AND pg_type_is_visible(\
         CASE WHEN t.typelem <> 0 AND t.typlen = -1 THEN t.typelem ELSE t.oid END) THEN tn.nspname END, \
         a.attnotnull, {generated}, {collation}, array_to_string(k.conkey, ' '), {policy}, {partition}, \
         EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhparent = c.oid), \
         CAST(greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0) AS bigint) \
         FROM (VALUES {wanted}) w (s, t) JOIN pg_namespace n ON n.nspname = w.s \
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.t AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace tn ON tn.oid = t.typnamespace \
         LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p' \
         {expressions} {collations} {policies} {partitions} ORDER BY c.oid, a.attnum"
    )
}

/// What the rows of [`define_tables`] grow into.
#[derive(Debug, Default)]
pub struct Definitions {
    tables: HashMap<TableName, Growing>,
}

/// A definition, with the numbers of columns that rows still to come give names to.
#[derive(Debug, Default)]
struct Growing {
    definition: Definition,
    numbers: HashMap<String, String>,
    key: Vec<String>,
    policy: Option<String>,
    distribution: Vec<String>,
    partition: Option<(String, Option<Vec<String>>)>,
}

impl Definitions {
    /// Takes a row in.
    pub fn take(&mut self, row: &str) {
        // A row that cannot be read leaves its table out, which is then said to be missing.
        let _ = self.read(row);
    }

    fn read(&mut self, row: &str) -> Option<()> {
        let mut fields = fields(row).into_iter();
        let mut next = || fields.next().flatten();
        let table = TableName::new(next()?, next()?).ok()?;
        let kind = next()?;
        let (number, name, written) = (next()?, next()?, next()?);
        let type_name = match next() {
            Some(schema) => format!("{}.{written}", sql::ident(&schema)),
            None => written,
        };
        let not_null = next()? == "t";
        let generated = next();
        let collation = next().zip(next());
        let numbers = |text: Option<String>| -> Option<Vec<String>> {
            Some(text?.split_ascii_whitespace().map(str::to_owned).collect())
        };
        let key = numbers(next()).unwrap_or_default();
        let (policy, distribution) = (next(), numbers(next()).unwrap_or_default());
        let (partition, partition_key) = (next(), numbers(next()));
        let inherited = next()? == "t";
        let rows = next().and_then(|rows| rows.parse().ok());
        let growing = self.tables.entry(table).or_default();
        growing.definition.kind = match kind.as_str() {
            "v" | "m" => Kind::View,
            "f" => Kind::Foreign,
            _ => Kind::Table,
        };
        growing.numbers.insert(number, name.clone());
        growing.definition.columns.push(DefinedColumn { name, type_name, not_null, generated, collation });
        growing.definition.inherited = inherited && partition.is_none();
        growing.definition.rows = rows;
        (growing.key, growing.policy, growing.distribution) = (key, policy, distribution);
        growing.partition = partition.map(|by| (by, partition_key));
        Some(())
    }

    /// The definitions.
    pub fn finish(self) -> HashMap<TableName, Definition> {
        self.tables.into_iter().map(|(table, growing)| (table, growing.finish())).collect()
    }
}

impl Growing {
    fn finish(self) -> Definition {
        let names = |numbers: &[String]| -> Vec<String> {
            numbers.iter().filter_map(|number| self.numbers.get(number).cloned()).collect()
        };
        let distribution = match (self.policy.as_deref(), self.distribution.as_slice()) {
            (Some("r"), _) => Distribution::Replicated,
            (Some("p"), []) => Distribution::Randomly,
            (Some("p"), key) => Distribution::By(names(key)),
            (Some(_) | None, _) => Distribution::None,
        };
        let partitioned_by = self.partition.as_ref().map(|(by, key)| match key {
            Some(key) => format!("{by} ({})", names(key).join(", ")),
            None => by.clone(),
        });
        Definition { primary_key: names(&self.key), distribution, partitioned_by, ..self.definition }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: &str = "\\N";

    fn define(rows: &[[&str; 18]]) -> Definition {
        let mut definitions = Definitions::default();
        for row in rows {
            definitions.take(&row.join("\t"));
        }
        definitions.finish().remove(&TableName::new("s", "t").unwrap()).unwrap()
    }

    #[test]
    fn each_family_is_asked_only_what_it_knows() {
        let table = TableName::new("s", "it's").unwrap();
        let sql = |version, greenplum| define_tables(SourceFacts { version, greenplum }, &[&table]);
        let has = |sql: &str, words: &[&str]| words.iter().map(|word| sql.contains(word)).collect::<Vec<_>>();
        let words = ["attgenerated", "pg_collation", "attrnums", "d.distkey", "pg_partition p", "partkeydef"];
        let [five, six, seven] = [(80_323, true), (90_426, true), (120_012, true)].map(|(v, g)| sql(v, g));
        assert_eq!(has(&five, &words), [false, false, true, false, true, false]);
        assert_eq!(has(&six, &words), [false, true, false, true, true, false]);
        assert_eq!(has(&seven, &words), [true, true, false, true, false, true]);
        assert_eq!(has(&sql(90_600, false), &words), [false, true, false, false, false, false]);
        assert_eq!(has(&sql(150_004, false), &words), [true, true, false, false, false, true]);
        assert!(five.contains("('s', 'it''s')") && !seven.contains('\n'));
    }

    #[test]
    fn keys_keep_their_own_order_and_are_named() {
        let row = |number, name| {
            let tail = [N, N, N, "3 1", "p", "3", "RANGE", "1", "t", "70"];
            let head = ["s", "t", "r", number, name, "integer", N, "t"];
            <[&str; 18]>::try_from([&head[..], &tail[..]].concat()).unwrap()
        };
        let table = define(&[row("1", "a"), row("3", "b\\tc")]);
        assert_eq!(table.primary_key, ["b\tc", "a"]);
        assert_eq!(table.distribution, Distribution::By(vec!["b\tc".into()]));
        assert_eq!(table.partitioned_by.as_deref(), Some("RANGE (a)"));
        // Partitions inherit too; only other children are worth a word.
        assert!(!table.inherited);
        assert_eq!(table.rows, Some(70));
    }

    #[test]
    fn what_is_not_there_is_not_invented() {
        let row = ["s", "t", "v", "1", "m", "mood[]", "My Types", "f", N, "x", "c", N, N, N, N, N, "f", N];
        let table = define(&[row]);
        assert_eq!((table.kind, table.distribution), (Kind::View, Distribution::None));
        assert_eq!(table.columns[0].type_name, "\"My Types\".mood[]");
        assert_eq!(table.columns[0].collation, Some(("x".into(), "c".into())));
        assert!(table.primary_key.is_empty() && table.partitioned_by.is_none());
        let mut replicated = row;
        (replicated[12], replicated[13]) = ("r", "");
        assert_eq!(define(&[replicated]).distribution, Distribution::Replicated);
        replicated[12] = "p";
        assert_eq!(define(&[replicated]).distribution, Distribution::Randomly);
    }
}
