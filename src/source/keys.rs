//! Primary keys of a source's tables, and what else a comparison asks its server. Pure.

use super::postgres::{fields, values};
use crate::names::TableName;

/// Asks in which encoding the server keeps texts.
pub const ENCODING: &str = "SELECT current_setting('server_encoding')";

/// Asks for the columns of primary keys, in their order.
pub fn list_keys(tables: &[&TableName]) -> String {
    format!(
        "SELECT n.nspname, c.relname, a.attname FROM (VALUES {}) w (s, t) JOIN pg_namespace n ON n.nspname = w.s \
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.t \
         JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p' \
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (k.conkey) \
         ORDER BY c.oid, position(',' || CAST(a.attnum AS text) || ',' in ',' || array_to_string(k.conkey, ',') || ',')",
        values(tables)
    )
}

/// Reads one row of [`list_keys`]: the table, and the next column of its key.
pub fn read_key(row: &str) -> Option<(TableName, String)> {
    let mut fields = fields(row).into_iter().flatten();
    let table = TableName::new(fields.next()?, fields.next()?).ok()?;
    Some((table, fields.next()?))
}

/// Settings of the session, or with `local` of the transaction, in which rows are digested. Buckets are few, which the
/// planner cannot know: sorting all rows to put them together would cost more than their digests do; and a query of many
/// buckets takes long to compile. What a value's text depends on is the same on both sides, whatever a role or a database
/// has set.
pub fn ease_digests(version: u32, local: bool) -> String {
    let settings: &[(&str, &str, u32)] = &[
        ("enable_sort", "off", 0),
        // 8.3 knows two digits more at most, and writes bytea in one way alone.
        ("extra_float_digits", if version >= 90_000 { "3" } else { "2" }, 0),
        ("bytea_output", "hex", 90_000),
        ("jit", "off", 110_000),
    ];
    let known = settings.iter().filter(|(_, _, since)| version >= *since);
    let set: Vec<String> =
        known.map(|(name, value, _)| format!("set_config('{name}', '{value}', {local})")).collect();
    format!("SELECT {}", set.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_only_what_it_knows() {
        assert_eq!(
            ease_digests(80_323, false),
            "SELECT set_config('enable_sort', 'off', false), set_config('extra_float_digits', '2', false)"
        );
        let new = ease_digests(150_004, true);
        assert!(new.contains("'jit', 'off', true") && new.contains("'bytea_output', 'hex', true"), "{new}");
    }
}
