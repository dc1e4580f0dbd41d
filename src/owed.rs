//! A primary key that a table of the target is still to get: built once its first rows are there, which is faster than
//! keeping it up row by row.
//!
//! That it is owed stands in a comment on the table, written in the transaction that makes it: it cannot get lost without
//! the table, and whoever looks at the table reads it. The ledger holds it too, but only so that nobody has to ask.

use serde::Serialize;

use crate::names::TableName;

/// How such a comment begins.
pub const COMMENT: &str = "gpferry: primary key still to be built: ";

/// A key that is owed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct OwedKey {
    /// The table in the target.
    #[serde(serialize_with = "as_text")]
    pub table: TableName,
    /// The key's columns, in its order.
    pub columns: Vec<String>,
    /// The table's number in the target's catalog: one of the same name that was made later is another one.
    #[serde(skip)]
    pub oid: u32,
}

impl OwedKey {
    /// The comment that says so.
    pub fn comment(columns: &[String]) -> String {
        // Texts always become JSON.
        format!("{COMMENT}{}", serde_json::to_string(columns).unwrap_or_default())
    }

    /// What a comment says; `None` where it is another one.
    pub fn read(table: TableName, oid: u32, comment: &str) -> Option<Self> {
        let columns: Vec<String> = serde_json::from_str(comment.strip_prefix(COMMENT)?).ok()?;
        (!columns.is_empty()).then_some(Self { table, columns, oid })
    }

    /// `public.t (a, b)`.
    pub fn shown(&self) -> String {
        format!("{} ({})", self.table, self.columns.join(", "))
    }
}

fn as_text<S: serde::Serializer>(table: &TableName, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_read_as_it_was_written_and_another_one_is_none_of_ours() {
        let table = TableName::new("s", "t").unwrap();
        for columns in [vec!["a".to_owned()], vec!["we\"ird, '".into(), "表".into(), "]".into()]] {
            let read = OwedKey::read(table.clone(), 7, &OwedKey::comment(&columns)).unwrap();
            assert_eq!((read.columns, read.oid), (columns, 7));
        }
        for other in
            ["", "gpferry", "primary key", &format!("{COMMENT}[]"), &format!("{COMMENT}[\"a\"] and more")]
        {
            assert_eq!(OwedKey::read(table.clone(), 7, other), None, "{other}");
        }
    }
}
