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
        let text = self.text(side, self.columns.iter());
        format!("CAST(CAST('x' || substr({}, 1, 15) AS bit(60)) AS bigint)", self.md5(&text))
    }

    /// md5 of the text of some of its columns, in hex.
    pub fn md5_of<'a>(&'a self, side: Digest, columns: impl Iterator<Item = &'a Column>) -> String {
        self.md5(&self.text(side, columns))
    }

    fn md5(&self, text: &str) -> String {
        if self.same_bytes { format!("md5({text})") } else { format!("md5(convert_to({text}, 'UTF8'))") }
    }

    /// Every value ends with a comma. NULL is nothing before it, and so is no value: what may be empty, or hold commas,
    /// has its length before it. So no character can move from one column to another unseen.
    fn text<'a>(&'a self, side: Digest, columns: impl Iterator<Item = &'a Column>) -> String {
        let parts = columns.map(|column| {
            let value = match side {
                Digest::Source => &column.source,
                Digest::Target => &column.target,
            };
            if column.closed {
                return format!("coalesce({value}, '')");
            }
            // Bytes are counted at once; characters are the same in every encoding.
            let length = if self.same_bytes { "octet_length" } else { "char_length" };
            format!("coalesce(CAST({length}({value}) AS text) || ':' || {value}, '')")
        });
        let parts: Vec<String> = parts.collect();
        format!("({} || ',')", parts.join(" || ',' || "))
    }
}
