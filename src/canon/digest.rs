//! A row as one text, and its digest: 60 bits of md5, whose sum over rows depends on no order.

use super::{Column, Sides};

/// The columns of a row that are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// In the order of the source.
    pub columns: Vec<Column>,
    /// Do the two servers see the same bytes in a text?
    same_bytes: bool,
}

/// How a row of one side is digested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// The source's.
    Source,
    /// The target's.
    Target,
}

impl Row {
    /// Rows of these columns.
    pub fn new(columns: Vec<Column>, sides: &Sides) -> Self {
        Self { columns, same_bytes: sides.share_an_encoding() }
    }

    /// The 60 bits of a row's text, as a number from 0 up.
    pub fn digest(&self, side: Digest) -> String {
        format!(
            "CAST(CAST('x' || substr({}, 1, 15) AS bit(60)) AS bigint)",
            self.md5_of(side, self.columns.iter())
        )
    }

    /// md5 of the text of some of its columns, in hex.
    pub fn md5_of<'a>(&'a self, side: Digest, columns: impl Iterator<Item = &'a Column>) -> String {
        let text = text(side, columns);
        if self.same_bytes { format!("md5({text})") } else { format!("md5(convert_to({text}, 'UTF8'))") }
    }
}

/// As the server writes a row: NULL is nothing, an empty text is `""`, and what holds a comma, a quote, a blank, a
/// bracket or a backslash stands in quotes. So no character can move from one column to another unseen, and each value
/// is written once. Every version since 8.3 writes rows so; blanks are those of the C locale in all that glibc has.
fn text<'a>(side: Digest, columns: impl Iterator<Item = &'a Column>) -> String {
    let parts = columns.map(|column| match side {
        Digest::Source => column.source.in_row(),
        Digest::Target => column.target.in_row(),
    });
    let parts: Vec<&str> = parts.collect();
    format!("CAST(ROW({}) AS text)", parts.join(", "))
}
