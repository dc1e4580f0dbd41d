//! The canonical text of a value: one text for one value, whatever server it stands on. Pure.
//!
//! Two sides are compared inside their databases, by digests of such texts, so both must write them alike: floats by
//! their bits, timestamps in UTC, numerics without trailing zeros, `bytea` in hex, no padding. What two types have no
//! common text for is "not comparable", with a reason, and never equal. Both sessions pin what text depends on (DateStyle,
//! TimeZone, IntervalStyle, `extra_float_digits`), as they do for an export. It runs on everything from Greenplum 5
//! (PostgreSQL 8.3) on, on one line. Another engine is one more [`Family`], and one more arm where texts are written.

use crate::sql;

mod digest;
mod kind;

pub use digest::{Digest, Row};
use kind::{Kind, bare, kind};

/// Whose SQL a side speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// PostgreSQL, Greenplum, Cloudberry.
    Postgres,
}

/// What of a server its texts depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// Whose SQL it speaks.
    pub family: Family,
    /// `server_version_num`: 150004, 90426 for Greenplum 6, 80323 for 5.
    pub version: u32,
    /// `server_encoding`, in which md5 sees texts.
    pub encoding: String,
    /// Are its rows spread over segments (Greenplum, Cloudberry)?
    pub segments: bool,
}

impl Dialect {
    /// What stands behind a question within a question, so that the planner guesses by the outer one how many buckets
    /// there are: a few. By the expression of a bucket it would expect one for each value of a unique column, and reckon
    /// all of them in one process. On segments nothing may stand there: they would send all rows to one place.
    pub fn fence(&self) -> &'static str {
        if self.version >= 110_000 && !self.segments { " OFFSET CAST('0' AS bigint)" } else { "" }
    }

    /// Floats are written as the shortest text that reads back the same, since PostgreSQL 12; before it, by digits.
    fn has_shortest_floats(&self) -> bool {
        self.version >= 120_000
    }
}

/// The two servers of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sides {
    /// The source.
    pub source: Dialect,
    /// The target.
    pub target: Dialect,
}

impl Sides {
    fn write_floats_alike(&self) -> bool {
        self.source.has_shortest_floats() == self.target.has_shortest_floats()
    }

    /// Do both hold texts in one encoding, so that md5 sees the same bytes?
    fn share_an_encoding(&self) -> bool {
        self.source.encoding == self.target.encoding
    }
}

/// A column that both sides have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name, on both sides.
    pub name: String,
    /// What it is in the source. NULL where the value is.
    pub source: Written,
    /// The same in the target.
    pub target: Written,
    /// How it is compared, where that is worth a word.
    pub note: Option<String>,
}

/// An expression, and how it becomes the canonical text of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It is that text.
    Text(String),
    /// The server writes it as that text, where it is put out.
    Value(String),
}

impl Written {
    /// The text, as SQL.
    pub fn text(&self) -> String {
        match self {
            Written::Text(text) => text.clone(),
            Written::Value(value) => cast(value),
        }
    }

    /// What is written as that text within a row.
    fn in_row(&self) -> &str {
        match self {
            Written::Text(expression) | Written::Value(expression) => expression,
        }
    }
}

/// Works out how a column with these types, as `format_type` writes them, is compared.
///
/// # Errors
/// Why it is not comparable.
pub fn column(name: &str, source: &str, target: &str, sides: &Sides) -> Result<Column, String> {
    let Family::Postgres = sides.source.family;
    let Family::Postgres = sides.target.family;
    let pair = Pair { value: sql::ident(name), source, target, sides };
    let common = pair.common(&kind(source), &kind(target))?;
    let Common { source, target, note } = common;
    Ok(Column { name: name.to_owned(), source, target, note })
}

/// One column with a type on each side.
struct Pair<'a> {
    value: String,
    source: &'a str,
    target: &'a str,
    sides: &'a Sides,
}

/// A text that both types have.
struct Common {
    source: Written,
    target: Written,
    note: Option<String>,
}

impl Pair<'_> {
    fn common(&self, source: &Kind, target: &Kind) -> Result<Common, String> {
        use Kind::{
            Array, Bit, Boolean, Bytes, Char, Date, Float, Geometry, Integer, Json, Jsonb, Numeric, Other,
            Plain, Text, Timestamp, Timestamptz,
        };
        let value = &self.value;
        match (source, target) {
            (Integer, Integer) => Ok(self.as_it_is()),
            (Numeric(one), Numeric(other)) if one.is_some() && one == other => Ok(self.as_it_is()),
            (Integer | Numeric(_), Integer | Numeric(_)) => {
                Ok(self.both(trimmed(&format!("CAST({value} AS numeric)"))))
            }
            (Float(one), Float(other)) if one == other => {
                Ok(self.both(format!("encode({}({value}), 'hex')", one.send())))
            }
            (Float(_), Float(_)) => Ok(self.noted(
                self.both(six_digits(value)),
                "to 6 significant digits: real on one side, double precision on the other",
            )),
            (Float(_), Integer | Numeric(_)) | (Integer | Numeric(_), Float(_)) => Ok(self.noted(
                self.both(fifteen_digits(value)),
                "to 15 significant digits: a float on one side, an exact number on the other",
            )),
            (Text, Text) => Ok(self.both(value.clone())),
            (Char, Char) => Ok(self.both(cast(value))),
            (Char, Text) | (Text, Char) => Ok(self.noted(
                self.both(format!("rtrim({}, ' ')", cast(value))),
                "without the blanks at its end: padded on one side alone",
            )),
            (Boolean, Boolean) => Ok(self.both(letter(value))),
            (Date, Date) | (Timestamp, Timestamp) => Ok(self.as_it_is()),
            (Date | Timestamp | Timestamptz, Date | Timestamp | Timestamptz) => {
                Ok(Common { source: self.civil(source), target: self.civil(target), note: None })
            }
            (Bytes, Bytes) => Ok(self.both(format!("encode({value}, 'hex')"))),
            (Bit, Bit) => Ok(self.both(cast(value))),
            (Plain(one), Plain(other)) if one == other => Ok(self.both(cast(value))),
            (Json, Json) | (Jsonb, Jsonb) => Ok(self.noted(self.both(cast(value)), "by its text")),
            (Json, Jsonb) | (Jsonb, Json) => {
                Err("json on one side and jsonb on the other: jsonb writes the text anew".into())
            }
            (Geometry(one), Geometry(other)) if one == other => self.by_text_of_floats(),
            (Array(one), Array(other)) if bare(one) == bare(other) => {
                if kind(one).has_floats() {
                    self.by_text_of_floats()
                } else {
                    Ok(self.by_text())
                }
            }
            (Other(one), Other(other)) if bare(one) == bare(other) => Ok(self.by_text()),
            // What is moved is text: a value arrives in a text column as COPY writes it.
            (Text, other) | (other, Text) if other.copied_text(value).is_some() => {
                let text = other.copied_text(value).unwrap_or_default();
                let (source, target) =
                    if matches!(source, Text) { (value.clone(), text) } else { (text, value.clone()) };
                let (source, target) = (Written::Text(source), Written::Text(target));
                Ok(self.noted(Common { source, target, note: None }, "by its text: text on one side"))
            }
            (
                Integer | Numeric(_) | Float(_) | Text | Char | Boolean | Date | Timestamp | Timestamptz
                | Bytes | Bit | Plain(_) | Json | Jsonb | Geometry(_) | Array(_) | Other(_),
                _,
            ) => Err(format!(
                "{} in the source and {} in the target have no common text",
                self.source, self.target
            )),
        }
    }

    /// A text by one expression on both sides.
    fn both(&self, text: String) -> Common {
        Common { source: Written::Text(text.clone()), target: Written::Text(text), note: None }
    }

    /// What every server writes alike.
    fn as_it_is(&self) -> Common {
        let value = || Written::Value(self.value.clone());
        Common { source: value(), target: value(), note: None }
    }

    fn noted(&self, common: Common, note: &str) -> Common {
        Common { note: Some(note.to_owned()), ..common }
    }

    fn by_text(&self) -> Common {
        self.noted(self.both(cast(&self.value)), &format!("{} by its text", self.source))
    }

    fn by_text_of_floats(&self) -> Result<Common, String> {
        if self.sides.write_floats_alike() {
            return Ok(self.by_text());
        }
        Err(format!(
            "{} holds floats, which servers before and after PostgreSQL 12 write in other digits",
            self.source
        ))
    }

    /// As civil time in UTC, in which zones and days have one text.
    fn civil(&self, kind: &Kind) -> Written {
        Written::Value(match kind {
            Kind::Timestamptz => format!("({} AT TIME ZONE 'UTC')", self.value),
            _ => format!("CAST({} AS timestamp)", self.value),
        })
    }
}

fn cast(value: &str) -> String {
    format!("CAST({value} AS text)")
}

/// A number without zeros at its end: with 0.0 added it has a point, where they end.
fn trimmed(numeric: &str) -> String {
    format!("rtrim(rtrim(CAST({numeric} + 0.0 AS text), '0'), '.')")
}

fn letter(value: &str) -> String {
    format!("CASE WHEN {value} THEN 't' WHEN NOT {value} THEN 'f' END")
}

/// What a `real` holds of a number: PostgreSQL rounds one to 6 digits on its way to numeric, which is finite.
fn six_digits(value: &str) -> String {
    finite(value, &format!("CAST(CAST({value} AS real) AS numeric)"))
}

/// What a `double precision` surely holds.
fn fifteen_digits(value: &str) -> String {
    finite(value, &format!("CAST(CAST({value} AS double precision) AS numeric)"))
}

fn finite(value: &str, numeric: &str) -> String {
    let double = format!("CAST({value} AS double precision)");
    format!(
        "CASE WHEN {double} IN (CAST('NaN' AS double precision), CAST('Infinity' AS double precision), \
         CAST('-Infinity' AS double precision)) THEN CAST({double} AS text) ELSE {} END",
        trimmed(numeric)
    )
}

#[cfg(test)]
mod tests;
