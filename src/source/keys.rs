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

/// Settings of the session in which rows are digested. Buckets are few, which the planner cannot know: sorting all rows
/// to put them together would cost more than their digests do; and a query of many buckets takes long to compile.
pub fn ease_digests(version: u32) -> &'static str {
    if version >= 110_000 {
        "SELECT set_config('enable_sort', 'off', false), set_config('jit', 'off', false)"
    } else {
        "SELECT set_config('enable_sort', 'off', false)"
    }
}
