//! How large a table is and how its values are spread, as the source's catalog has it: what slices are cut by. Pure.
//!
//! It must run on everything from Greenplum 5 (PostgreSQL 8.3) on, on one line, inside `\copy (…) to …`.

use jiff::civil::{Date, DateTime, Time};

use super::postgres::{SourceFacts, fields};
use super::ready::found_fast;
use crate::measure::SliceBy;
use crate::names::TableName;
use crate::plan::slices::{Size, Spread};
use crate::sql;
use crate::window::micros;

/// A table, `c`, and its partitions.
const FAMILY: &str = "SELECT c.oid UNION SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = c.oid \
     UNION SELECT j.inhrelid FROM pg_inherits i JOIN pg_inherits j ON j.inhparent = i.inhrelid WHERE i.inhparent = c.oid";

/// Asks for the size of a table, partitions included, and for its key columns and these others: one row for each
/// column, or one without a column.
pub fn ask(facts: SourceFacts, table: &TableName, others: &[&str]) -> String {
    let sum = |of: &str| format!("(SELECT {of} FROM pg_class f WHERE f.oid IN ({FAMILY}))");
    let files = |size: &str| {
        // What a view or a foreign table holds no catalog knows.
        sum(&format!(
            "CASE WHEN NOT bool_or(f.relkind IN ('v', 'f')) THEN sum(CASE WHEN f.relkind IN ('r', 'm') THEN {size}(f.oid) END) END"
        ))
    };
    let bytes = match (facts.greenplum, facts.version) {
        // Files are looked at by asking every segment there: the last ANALYZE must do.
        (true, _) => sum("NULLIF(sum(f.relpages::bigint), 0) * 32768"),
        (false, 90_000..) => files("pg_table_size"),
        (false, _) => files("pg_relation_size"),
    };
    // A parent's own statistics are of its own rows; those of its family are marked.
    let whole = if facts.version >= 90_000 {
        " AND s.inherited = EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhparent = c.oid)"
    } else {
        ""
    };
    let wanted: Vec<String> = others.iter().map(|column| sql::literal(column)).collect();
    let wanted =
        if wanted.is_empty() { String::new() } else { format!(" OR a.attname IN ({})", wanted.join(", ")) };
    let shown = "CASE WHEN a.atttypid IN (20, 21, 23, 1082, 1114, 1184, 1700) THEN CAST(s.histogram_bounds AS text) END";
    // Of what is put together of others, their own indexes may lead there.
    let found_fast = format!(
        "({} OR c.relkind IN ('v', 'f') OR EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhparent = c.oid))",
        found_fast(facts)
    );
    format!(
        "SELECT {bytes}, a.attname, \
         format_type(a.atttypid, NULL), (a.attnum = ANY (k.indkey) AND a.attnotnull), (a.attnum = k.indkey[0]), \
         s.n_distinct, c.reltuples, {shown}, {found_fast} \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_index k ON k.indrelid = c.oid AND k.indisprimary \
         LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         AND (a.attnum = ANY (k.indkey){wanted}) \
         LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname{whole} \
         WHERE n.nspname = {} AND c.relname = {} ORDER BY a.attnum",
        sql::literal(table.schema()),
        sql::literal(table.table())
    )
}

/// Asks a Greenplum for the files of a table that no ANALYZE has seen, partitions included: one row, NULL where it has none,
/// as a view. Every segment is asked about each of them.
pub fn ask_files(table: &TableName) -> String {
    format!(
        "SELECT (SELECT sum(pg_relation_size(f.oid)) FROM pg_class f WHERE f.relkind = 'r' AND f.oid IN ({FAMILY})) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = {} AND c.relname = {}",
        sql::literal(table.schema()),
        sql::literal(table.table())
    )
}

/// Takes one row of the answer to [`ask`], or to [`ask_files`].
pub fn take(size: &mut Size, row: &str) {
    let fields = fields(row);
    let field = |n: usize| fields.get(n).and_then(Option::as_deref);
    let number = |n: usize| field(n).and_then(|text| text.parse::<f64>().ok());
    size.bytes = number(0).map(|bytes| bytes.max(0.0) as u64).or(size.bytes);
    let (Some(column), Some(type_name)) = (field(1), field(2)) else { return };
    let (by, zoned) = match type_name {
        "smallint" | "integer" | "bigint" | "numeric" => (SliceBy::Number, false),
        "date" | "timestamp without time zone" => (SliceBy::Time, false),
        "timestamp with time zone" => (SliceBy::Time, true),
        _ => (SliceBy::Hash, false),
    };
    let edges = field(7).map(|text| edges(text, by)).unwrap_or_default();
    let distinct = match (number(5), number(6)) {
        (Some(part), _) if part < 0.0 => -part,
        (Some(values), Some(rows)) if rows >= 1.0 => (values / rows).min(1.0),
        _ => 0.0,
    };
    let place = usize::from(field(4) != Some("t"));
    let key_place = (field(3) == Some("t")).then_some(place);
    let days = type_name == "date";
    let found_fast = field(8) != Some("f");
    let column = column.into();
    size.spreads.push(Spread { column, by, key_place, found_fast, days, zoned, edges, distinct });
}

/// The bounds of a histogram, as the server writes an array; those that are no number of ours are left out.
fn edges(text: &str, by: SliceBy) -> Vec<i64> {
    let inner = text.trim_start_matches('{').trim_end_matches('}');
    let number = |text: &str| {
        let text = text.trim_matches('"');
        match by {
            SliceBy::Time => time(text),
            // A bound between two numbers is as good as the one below it.
            SliceBy::Number => text.split('.').next()?.parse().ok(),
            SliceBy::Hash => None,
        }
    };
    let mut edges: Vec<i64> = inner.split(',').filter_map(number).collect();
    edges.sort_unstable();
    edges
}

/// `2021-08-10 04:00:00.5`, with `+00` behind it where the column has a zone; a date is its midnight.
fn time(text: &str) -> Option<i64> {
    let text = text.strip_suffix("+00").unwrap_or(text);
    let midnight = |date: Date| date.to_datetime(Time::midnight());
    let time = text.parse::<DateTime>().or_else(|_| text.parse::<Date>().map(midnight)).ok()?;
    Some(micros(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_as_the_server_writes_them() {
        assert_eq!(edges("{-5,7,12.9,x}", SliceBy::Number), [-5, 7, 12]);
        let times =
            "{\"1970-01-01 00:00:01.5\",1970-01-02,\"1970-01-01 00:00:00+00\",infinity,\"0044-03-15 BC\"}";
        assert_eq!(edges(times, SliceBy::Time), [0, 1_500_000, 86_400_000_000]);
    }

    #[test]
    fn a_row_becomes_what_is_known_of_a_column() {
        let mut size = Size::default();
        take(&mut size, "4096\tcode\ttext\tt\tt\t-0.5\t1000\t\\N\tt");
        take(
            &mut size,
            "4096\tat\ttimestamp with time zone\tf\tf\t100\t1000\t{\"1970-01-01 00:00:01+00\"}\tf",
        );
        take(&mut size, "\\N\tx\tinteger\tt\tf\t\\N\t-1\t\\N\tf");
        assert_eq!(size.bytes, Some(4096));
        let [code, at, x] = &size.spreads[..] else { panic!("{size:?}") };
        assert_eq!((code.by, code.key_place, code.distinct), (SliceBy::Hash, Some(0), 0.5));
        assert_eq!([code, at, x].map(|one| one.found_fast), [true, false, false]);
        assert_eq!((at.zoned, at.key_place, at.distinct, &at.edges[..]), (true, None, 0.1, &[1_000_000][..]));
        assert_eq!((x.by, x.key_place, x.distinct), (SliceBy::Number, Some(1), 0.0));
    }
}
