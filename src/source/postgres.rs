//! The SQL that is sent to Greenplum and PostgreSQL sources, and the reading of what comes back. Pure.
//!
//! It must run on everything from Greenplum 5 (PostgreSQL 8.3) on, on one line, inside `\copy (…) to …`.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use thiserror::Error;

use crate::interval::Interval;
use crate::measure::{Measure, Scale};
use crate::names::TableName;
use crate::sql;
use crate::unit::{Extent, Unit};
use crate::window;

/// A table of the source, as its catalog describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceTable {
    /// Its columns, in the table's order.
    pub columns: Vec<SourceColumn>,
    /// An upper bound for its size in bytes, where the catalog knows one cheaply.
    pub bytes: Option<u64>,
    /// The tables that it is a partition or a child of, at any height: their rows are its rows as well.
    pub ancestors: Vec<TableName>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Why a unit's query cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QueryError {
    /// The window column is not there.
    #[error("the window column \"{column}\" is not in the source table {table}")]
    NoWindowColumn {
        /// The column.
        column: String,
        /// The table.
        table: String,
    },
    /// A column by which rows were moved before is gone, so nobody can tell which those were.
    #[error(
        "rows of {table} were moved by the column \"{column}\" before, which is not there any more: they cannot be left out"
    )]
    ColumnGone {
        /// The column.
        column: String,
        /// The table.
        table: String,
    },
    /// The window column's type has no order of time that we know.
    #[error("the window column \"{column}\" of {table} has type {type_name}; {needs}")]
    WindowType {
        /// The column.
        column: String,
        /// The table.
        table: String,
        /// Its type.
        type_name: String,
        /// What would do.
        needs: &'static str,
    },
    /// A bound that is not midnight, for a column of days.
    #[error(
        "the window column is a date, and {0} is within a day: rows of that day that come later would be left out"
    )]
    WithinADay(String),
    /// A window bound does not exist in the inventory's zone.
    #[error("{0} is not a time in the inventory's zone")]
    NoSuchTime(String),
}

impl QueryError {
    /// What to try.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::ColumnGone { .. } => {
                "give the table that column back under that name, or move all of it to another `target:`"
            }
            Self::NoWindowColumn { .. }
            | Self::WindowType { .. }
            | Self::WithinADay(_)
            | Self::NoSuchTime(_) => "correct `window` for this table in the inventory",
        }
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

/// Asks for the columns of tables, and, `with_sizes`, for their size. On PostgreSQL the size waits for a table
/// that somebody holds in ACCESS EXCLUSIVE mode; everything else waits for nobody.
pub fn describe_tables(facts: SourceFacts, tables: &[&TableName], with_sizes: bool) -> String {
    let wanted = values(tables);
    let generated = if facts.version >= 120_000 { "a.attgenerated <> ''" } else { "false" };
    // pg_relation_size asks every segment on Greenplum; there the last ANALYZE must do.
    let bytes = if !with_sizes {
        "CAST(NULL AS bigint)"
    } else if facts.greenplum {
        "CASE WHEN c.relkind = 'r' AND NOT c.relhassubclass AND c.reltuples > 0 THEN c.relpages::bigint * 32768 END"
    } else {
        "CASE WHEN c.relkind = 'r' AND NOT c.relhassubclass THEN pg_total_relation_size(c.oid) END"
    };
    format!(
        "SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), {generated}, a.attnotnull, {bytes} \
         FROM (VALUES {wanted}) w (s, t) JOIN pg_namespace n ON n.nspname = w.s \
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.t AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         ORDER BY c.oid, a.attnum"
    )
}

/// Reads one row of [`describe_tables`]: the table, one of its columns, and its size.
pub fn read_column(row: &str) -> Option<(TableName, SourceColumn, Option<u64>)> {
    let mut fields = fields(row).into_iter();
    let mut next = || fields.next().flatten();
    let table = TableName::new(next()?, next()?).ok()?;
    let column = SourceColumn {
        name: next()?,
        type_name: next()?,
        generated: next()? == "t",
        not_null: next()? == "t",
    };
    Some((table, column, next().and_then(|bytes| bytes.parse().ok())))
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

/// `('schema', 'table'), …`.
fn values(tables: &[&TableName]) -> String {
    tables
        .iter()
        .map(|table| format!("({}, {})", sql::literal(table.schema()), sql::literal(table.table())))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The query that exports a unit: named columns, the window half-open, without what other measures have loaded, the
/// entry's condition.
///
/// # Errors
/// [`QueryError`] where the window column cannot serve.
pub fn export_query(
    unit: &Unit,
    table: &SourceTable,
    columns: &[String],
    zone: &TimeZone,
) -> Result<String, QueryError> {
    let conditions = conditions(unit, table, &unit.table, zone)?;
    let list = sql::idents(columns.iter().map(String::as_str));
    let filter =
        if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    Ok(format!("SELECT {list} FROM {}{filter}", sql::table(&unit.table)))
}

/// What tells a unit's rows from the other rows of a table, called `name`, that has these columns: the source's, or the
/// target's where they are replaced there. None of it where they are all its rows.
///
/// # Errors
/// [`QueryError`] where the window column cannot serve.
pub fn conditions(
    unit: &Unit,
    table: &SourceTable,
    name: &TableName,
    zone: &TimeZone,
) -> Result<Vec<String>, QueryError> {
    let bounds = Bounds { table, name, zone };
    let mut conditions = Vec::new();
    match unit.extent {
        Extent::Whole | Extent::Repeated(_) => {}
        Extent::Nulls | Extent::Times(_) | Extent::Ids(_) => {
            conditions.push(bounds.within(&unit.rows.measure, unit.extent.numbers())?);
        }
    }
    for loaded in &unit.rows.without {
        for interval in &loaded.intervals {
            // NULL in that column means that the row is in no interval of it.
            let within = bounds.within(&loaded.measure, *interval).map_err(|error| match error {
                QueryError::NoWindowColumn { column, table } => QueryError::ColumnGone { column, table },
                other => other,
            })?;
            conditions.push(format!("({within}) IS NOT TRUE"));
        }
    }
    conditions.extend(unit.entry.filter.as_ref().map(ToString::to_string));
    Ok(conditions)
}

/// The rows of a unit that stand on the first instant, or id, of its window; `None` where it has none.
pub fn on_first_bound(unit: &Unit, table: &SourceTable, name: &TableName, zone: &TimeZone) -> Option<String> {
    let Measure::By(scale, column) = &unit.rows.measure else { return None };
    let bounds = Bounds { table, name, zone };
    let kind = bounds.window_type(*scale, column).ok()?;
    let start = bounds.bound(unit.extent.numbers().start(), *scale, kind).ok()?;
    Some(format!("{} = {start}", sql::ident(column)))
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

/// How a window column's bounds are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WindowType {
    /// Civil time.
    Civil,
    /// Days: a bound within one would leave out rows of that day that come later.
    Date,
    /// An instant.
    Zoned,
    /// A number.
    Number,
}

/// What conditions over one table's rows are written with.
struct Bounds<'a> {
    table: &'a SourceTable,
    name: &'a TableName,
    zone: &'a TimeZone,
}

impl Bounds<'_> {
    /// The rows of an interval of a measure.
    fn within(&self, measure: &Measure, interval: Interval<i64>) -> Result<String, QueryError> {
        match measure {
            Measure::All => Ok("true".into()),
            Measure::Null(column) => {
                self.column(column)?;
                Ok(format!("{} IS NULL", sql::ident(column)))
            }
            Measure::By(scale, column) => {
                let kind = self.window_type(*scale, column)?;
                let start = self.bound(interval.start(), *scale, kind)?;
                let end = self.bound(interval.end(), *scale, kind)?;
                let column = sql::ident(column);
                Ok(format!("{column} >= {start} AND {column} < {end}"))
            }
        }
    }

    fn column(&self, name: &str) -> Result<&str, QueryError> {
        let found = self.table.columns.iter().find(|column| column.name == name);
        found.map(|column| column.type_name.as_str()).ok_or_else(|| QueryError::NoWindowColumn {
            column: name.to_owned(),
            table: self.name.to_string(),
        })
    }

    fn window_type(&self, scale: Scale, name: &str) -> Result<WindowType, QueryError> {
        let type_name = self.column(name)?;
        window_type(scale, type_name).ok_or_else(|| QueryError::WindowType {
            column: name.to_owned(),
            table: self.name.to_string(),
            type_name: type_name.to_owned(),
            needs: needed(scale, type_name),
        })
    }

    fn bound(&self, number: i64, scale: Scale, kind: WindowType) -> Result<String, QueryError> {
        let time = window::civil(number);
        let civil = format!("{} {}", time.date(), time.time());
        let instant =
            || window::instant(time, self.zone).ok_or_else(|| QueryError::NoSuchTime(civil.clone()));
        match (scale, kind) {
            (Scale::Id, _) => Ok(format!("CAST({} AS bigint)", sql::literal(&number.to_string()))),
            (Scale::EpochSeconds, _) => Ok(epoch(instant()?.as_microsecond(), 1_000_000)),
            (Scale::EpochMillis, _) => Ok(epoch(instant()?.as_microsecond(), 1_000)),
            (Scale::EpochMicros, _) => Ok(epoch(instant()?.as_microsecond(), 1)),
            (Scale::Time, WindowType::Zoned) => {
                Ok(format!("CAST({} AS timestamptz)", sql::literal(&instant()?.to_string())))
            }
            (Scale::Time, WindowType::Date) if time.time() == Time::midnight() => {
                Ok(format!("CAST({} AS date)", sql::literal(&time.date().to_string())))
            }
            (Scale::Time, WindowType::Date) => Err(QueryError::WithinADay(civil)),
            (Scale::Time, WindowType::Civil | WindowType::Number) => {
                Ok(format!("CAST({} AS timestamp)", sql::literal(&civil)))
            }
        }
    }
}

/// A whole number of seconds, or what they are divided in. A bound between two of them is the later one: the numbers
/// below it are before it.
fn epoch(micros: i64, unit: i64) -> String {
    let number = micros.div_euclid(unit) + i64::from(micros.rem_euclid(unit) != 0);
    format!("CAST({} AS bigint)", sql::literal(&number.to_string()))
}

/// How a column of this type is compared, where its values can be read that way. Also preflight's word for it.
fn window_type(scale: Scale, type_name: &str) -> Option<WindowType> {
    let is_number =
        matches!(type_name, "smallint" | "integer" | "bigint") || type_name.starts_with("numeric");
    match scale {
        Scale::Time if type_name == "date" => Some(WindowType::Date),
        Scale::Time if type_name.starts_with("timestamp") && type_name.ends_with("without time zone") => {
            Some(WindowType::Civil)
        }
        Scale::Time if type_name.starts_with("timestamp") && type_name.ends_with("with time zone") => {
            Some(WindowType::Zoned)
        }
        Scale::Time => None,
        Scale::EpochSeconds | Scale::EpochMillis | Scale::EpochMicros | Scale::Id => {
            is_number.then_some(WindowType::Number)
        }
    }
}

/// Can windows be cut by a column of this type, read in this way? If not: what it would need.
pub fn unfit_for_windows(scale: Scale, type_name: &str) -> Option<&'static str> {
    window_type(scale, type_name).is_none().then(|| needed(scale, type_name))
}

fn needed(scale: Scale, type_name: &str) -> &'static str {
    let is_number = window_type(Scale::Id, type_name).is_some();
    match scale {
        Scale::Time if is_number => {
            "a window of time needs timestamp, timestamp with time zone or date; for a number write \
             `type: epoch_s`, `epoch_ms`, `epoch_us` or `id`"
        }
        Scale::Time => {
            "a window needs timestamp, timestamp with time zone, date, or a whole number with its `type`"
        }
        Scale::EpochSeconds | Scale::EpochMillis | Scale::EpochMicros | Scale::Id => {
            "this `type` needs a column of whole numbers"
        }
    }
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
        let (table, column, bytes) = read_column("S\tx^y\tcol \"q\"\tnumeric(10,2)\tf\tt\t8192").unwrap();
        assert_eq!(table, TableName::new("S", "x^y").unwrap());
        assert_eq!((column.name.as_str(), column.generated, bytes), ("col \"q\"", false, Some(8192)));
        assert_eq!(read_column("S\tx^y\tc\ttext\tt\tf\t\\N").unwrap().2, None);
    }

    #[test]
    fn the_facts_tell_the_families_apart() {
        let greenplum = "90426\tPostgreSQL 9.4.26 (Greenplum Database 6.24.3 build dev) on x86_64";
        assert_eq!(read_facts(greenplum), SourceFacts { version: 90_426, greenplum: true });
        assert!(!read_facts("150004\tPostgreSQL 15.4").greenplum);
    }
}
