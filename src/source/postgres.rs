//! What Greenplum and PostgreSQL sources are asked of their catalogs, and the reading of what comes back. Pure. What a
//! unit's rows are stands in [`super::rows`].
//!
//! It must run on everything from Greenplum 5 (PostgreSQL 8.3) on, on one line, inside `\copy (…) to …`.

use std::collections::HashMap;
use std::sync::Arc;

use crate::alike::Alike;
use crate::names::TableName;
use crate::sql;

/// A table of the source, as its catalog describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceTable {
    /// Its columns, in the table's order.
    pub columns: Arc<[SourceColumn]>,
    /// An upper bound for its size in bytes, where the catalog knows one cheaply.
    pub bytes: Option<u64>,
    /// The tables that it is a partition or a child of, at any height: their rows are its rows as well.
    pub ancestors: Vec<TableName>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourceColumn {
    /// Its name.
    pub name: String,
    /// Its type as `format_type` writes it.
    pub type_name: String,
    /// Is it computed by the server?
    pub generated: bool,
    /// Can it hold no NULL?
    pub not_null: bool,
}

/// What a source's server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceFacts {
    /// `server_version_num`.
    pub version: u32,
    /// Is it Greenplum, or Cloudberry?
    pub greenplum: bool,
}

impl SourceFacts {
    /// Can its sessions read one and the same state (`pg_export_snapshot`)?
    pub fn shares_snapshots(self) -> bool {
        !self.greenplum && self.version >= 90_200
    }
}

/// Asks what the server is.
pub const FACTS: &str = "SELECT current_setting('server_version_num'), version()";

/// Reads the answer to [`FACTS`].
pub fn read_facts(row: &str) -> SourceFacts {
    let fields = fields(row);
    let field = |n: usize| fields.get(n).cloned().flatten().unwrap_or_default();
    let text = field(1);
    SourceFacts {
        version: field(0).parse().unwrap_or(0),
        greenplum: text.contains("Greenplum") || text.contains("Cloudberry"),
    }
}

/// Asks for every table that a glob could mean: ordinary and partitioned ones and views are not partitions of
/// another, outside the system's schemas.
pub fn list_tables() -> String {
    "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'gp_toolkit') \
     AND n.nspname NOT LIKE 'pg\\_%' AND NOT EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhrelid = c.oid) \
     ORDER BY n.nspname, c.relname"
        .into()
}

/// Reads one row of [`list_tables`]; `None` for a name that gpferry does not move.
pub fn read_table_name(row: &str) -> Option<TableName> {
    let fields = fields(row);
    TableName::new(fields.first()?.clone()?, fields.get(1)?.clone()?).ok()
}

/// Asks for the columns of tables, whether they are partitions or children of others, and, `with_sizes`, for their size. On
/// PostgreSQL the size waits for a table that somebody holds in ACCESS EXCLUSIVE mode; everything else waits for nobody.
pub fn describe_tables(facts: SourceFacts, tables: &[&TableName], with_sizes: bool) -> String {
    let wanted = wanted(facts, tables);
    let generated = if facts.version >= 120_000 { "a.attgenerated <> ''" } else { "false" };
    // pg_relation_size asks every segment on Greenplum; there the last ANALYZE must do. Elsewhere the rows and what of
    // them is stored apart, without indexes: each fork of each index is a look at a file.
    let bytes = if !with_sizes {
        "CAST(NULL AS bigint)"
    } else if facts.greenplum {
        "CASE WHEN c.relkind = 'r' AND NOT c.relhassubclass AND c.reltuples > 0 THEN c.relpages::bigint * 32768 END"
    } else {
        "CASE WHEN c.relkind = 'r' AND NOT c.relhassubclass THEN pg_relation_size(c.oid) \
         + CASE WHEN c.reltoastrelid = 0 THEN 0 ELSE pg_relation_size(c.reltoastrelid) END END"
    };
    // OFFSET keeps the planner from asking for the size once for each column: those looks at files were two thirds of the
    // time that this takes.
    format!(
        "SELECT c.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), {generated}, a.attnotnull, c.bytes, \
         c.child FROM (SELECT n.nspname, c.relname, c.oid, {bytes} AS bytes, \
         EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhrelid = c.oid) AS child \
         FROM {wanted} w (s, t) JOIN pg_namespace n ON n.nspname = w.s \
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.t AND c.relkind IN ('r', 'p', 'v', 'm', 'f') OFFSET 0) c \
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         ORDER BY c.oid, a.attnum"
    )
}

/// Tables as rows of [`describe_tables`] say, which come table by table.
#[derive(Debug, Default)]
pub struct Described {
    tables: HashMap<TableName, SourceTable>,
    /// The table that is being read, and its columns so far.
    reading: Option<(TableName, Vec<SourceColumn>)>,
    /// Those that are partitions or children of others.
    children: Vec<TableName>,
    lists: Alike<SourceColumn>,
}

impl Described {
    /// Of so many tables.
    pub fn of(tables: usize) -> Self {
        Self { tables: HashMap::with_capacity(tables), ..Self::default() }
    }

    /// Takes a row.
    pub fn take(&mut self, row: &str) {
        let Some((table, column, bytes, is_child)) = read_column(row) else { return };
        match &mut self.reading {
            Some((reading, columns)) if *reading == table => columns.push(column),
            Some(_) | None => {
                self.end();
                self.tables.entry(table.clone()).or_default().bytes = bytes;
                if is_child {
                    self.children.push(table.clone());
                }
                self.reading = Some((table, vec![column]));
            }
        }
    }

    /// Forgets these tables: their rows come again.
    pub fn forget(&mut self, tables: &[&TableName]) {
        self.reading = None;
        self.children.retain(|child| !tables.contains(&child));
        tables.iter().for_each(|table| drop(self.tables.remove(*table)));
    }

    /// The tables of which [`list_ancestors`] has something to say, once.
    pub fn take_children(&mut self) -> Vec<TableName> {
        std::mem::take(&mut self.children)
    }

    /// Takes a row of [`list_ancestors`].
    pub fn take_ancestor(&mut self, row: &str) {
        self.end();
        if let Some((table, ancestor)) = read_ancestor(row)
            && let Some(known) = self.tables.get_mut(&table)
        {
            known.ancestors.push(ancestor);
        }
    }

    /// All that was read.
    pub fn into_tables(mut self) -> HashMap<TableName, SourceTable> {
        self.end();
        self.tables
    }

    fn end(&mut self) {
        if let Some((name, columns)) = self.reading.take()
            && let Some(table) = self.tables.get_mut(&name)
        {
            table.columns = self.lists.share(columns);
        }
    }
}

/// Reads one row of [`describe_tables`]: the table, one of its columns, its size, and whether it is a
/// partition or a child of another.
pub fn read_column(row: &str) -> Option<(TableName, SourceColumn, Option<u64>, bool)> {
    let mut fields = fields(row).into_iter();
    let mut next = || fields.next().flatten();
    let table = TableName::new(next()?, next()?).ok()?;
    let column = SourceColumn {
        name: next()?,
        type_name: next()?,
        generated: next()? == "t",
        not_null: next()? == "t",
    };
    let bytes = next().and_then(|bytes| bytes.parse().ok());
    Some((table, column, bytes, next().as_deref() == Some("t")))
}

/// Asks for the ancestors of those tables that are partitions or children of others. Partitions of partitions of
/// partitions are as deep as it looks.
pub fn list_ancestors(tables: &[&TableName]) -> String {
    format!(
        "SELECT w.s, w.t, pn.nspname, p.relname FROM (VALUES {}) w (s, t) \
         JOIN pg_namespace n ON n.nspname = w.s JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.t \
         JOIN pg_inherits i1 ON i1.inhrelid = c.oid LEFT JOIN pg_inherits i2 ON i2.inhrelid = i1.inhparent \
         LEFT JOIN pg_inherits i3 ON i3.inhrelid = i2.inhparent \
         JOIN pg_class p ON p.oid IN (i1.inhparent, i2.inhparent, i3.inhparent) \
         JOIN pg_namespace pn ON pn.oid = p.relnamespace",
        values(tables)
    )
}

/// Reads one row of [`list_ancestors`]: the table, and one of its ancestors.
pub fn read_ancestor(row: &str) -> Option<(TableName, TableName)> {
    let mut fields = fields(row).into_iter().flatten();
    let mut name = || TableName::new(fields.next()?, fields.next()?).ok();
    Some((name()?, name()?))
}

/// Tables as rows of two columns, in brackets. As two arrays where the server can unfold them: psql's `\\copy` copies the
/// whole statement for each word of it that is not in quotes, which over 2000 tables takes longer than the answer.
fn wanted(facts: SourceFacts, tables: &[&TableName]) -> String {
    if facts.version < 80_400 {
        return format!("(VALUES {})", values(tables));
    }
    let names = |name: fn(&TableName) -> &str| sql::array(tables.iter().map(|table| name(table)));
    format!("(SELECT unnest({}), unnest({}))", names(TableName::schema), names(TableName::table))
}

/// `('schema', 'table'), …`.
pub(super) fn values(tables: &[&TableName]) -> String {
    tables
        .iter()
        .map(|table| format!("({}, {})", sql::literal(table.schema()), sql::literal(table.table())))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Asks how many rows have no value in the window column.
pub fn count_nulls(table: &TableName, column: &str) -> String {
    format!("SELECT count(*) FROM {} WHERE {} IS NULL", sql::table(table), sql::ident(column))
}

/// Reads the answer to [`count_nulls`].
pub fn read_count(row: &str) -> Option<u64> {
    fields(row).first()?.as_ref()?.parse().ok()
}

/// Asks for the lowest and the highest id: two NULLs where the table is empty.
pub fn span_of_ids(table: &TableName, column: &str) -> String {
    let column = sql::ident(column);
    format!(
        "SELECT floor(min({column})::numeric)::bigint, floor(max({column})::numeric)::bigint FROM {}",
        sql::table(table)
    )
}

/// Reads the answer to [`span_of_ids`].
pub fn read_span(row: &str) -> Option<(i64, i64)> {
    let fields = fields(row);
    let number = |n: usize| fields.get(n)?.as_ref()?.parse().ok();
    Some((number(0)?, number(1)?))
}

/// Fields of a row in COPY's text form: `\N` is NULL, the rest unescaped. Source: PostgreSQL, COPY.
pub fn fields(row: &str) -> Vec<Option<String>> {
    row.split('\t').map(|field| if field == "\\N" { None } else { Some(unescape(field)) }).collect()
}

fn unescape(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('b') => text.push('\u{8}'),
            Some('f') => text.push('\u{c}'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('t') => text.push('\t'),
            Some('v') => text.push('\u{b}'),
            Some(other) => text.push(other),
            None => text.push('\\'),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_copy_writes_them() {
        assert_eq!(
            fields("a\\tb\t\\N\t\t\\\\N"),
            [Some("a\tb".into()), None, Some(String::new()), Some("\\N".into())]
        );
        let (table, column, bytes, child) =
            read_column("S\tx^y\tcol \"q\"\tnumeric(10,2)\tf\tt\t8192\tt").unwrap();
        assert_eq!(table, TableName::new("S", "x^y").unwrap());
        assert_eq!(
            (column.name.as_str(), column.generated, bytes, child),
            ("col \"q\"", false, Some(8192), true)
        );
        let (_, _, bytes, child) = read_column("S\tx^y\tc\ttext\tt\tf\t\\N\tf").unwrap();
        assert_eq!((bytes, child), (None, false));
    }

    #[test]
    fn only_children_are_asked_for_their_ancestors() {
        let mut described = Described::of(2);
        for row in
            ["s\tchild\ta\tint\tf\tf\t0\tt", "s\tchild\tb\tint\tf\tf\t0\tt", "s\tplain\ta\tint\tf\tf\t0\tf"]
        {
            described.take(row);
        }
        let child = TableName::new("s", "child").unwrap();
        assert_eq!(described.take_children(), [child]);
        assert_eq!(described.take_children(), []);
        // What was forgotten is asked for again, and counts once.
        described.take("s\tother\ta\tint\tf\tf\t0\tt");
        described.forget(&[&TableName::new("s", "other").unwrap()]);
        described.take("s\tother\ta\tint\tf\tf\t0\tt");
        assert_eq!(described.take_children().len(), 1);
    }

    #[test]
    fn tables_are_named_as_the_server_can_read_them() {
        let tables = [TableName::new("s", "it's").unwrap(), TableName::new("Null", "a\"b,c").unwrap()];
        let wanted = |version| wanted(SourceFacts { version, greenplum: false }, &tables.each_ref());
        assert_eq!(wanted(80_323), "(VALUES ('s', 'it''s'), ('Null', 'a\"b,c'))");
        assert_eq!(
            wanted(80_400),
            "(SELECT unnest(CAST('{s,\"Null\"}' AS text[])), unnest(CAST('{\"it''s\",\"a\\\"b,c\"}' AS text[])))"
        );
    }

    #[test]
    fn the_facts_tell_the_families_apart() {
        let greenplum = "90426\tPostgreSQL 9.4.26 (Greenplum Database 6.24.3 build dev) on x86_64";
        assert_eq!(read_facts(greenplum), SourceFacts { version: 90_426, greenplum: true });
        assert!(!read_facts("150004\tPostgreSQL 15.4").greenplum);
    }
}
