//! Which kind of text a type has.

/// A type, as far as its canonical text goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whole numbers.
    Integer,
    /// Exact numbers, with the digits behind the point where the type fixes them.
    Numeric(Option<i32>),
    /// Binary floats.
    Float(Width),
    /// Texts that are kept as they are.
    Text,
    /// Texts that are padded.
    Char,
    /// Yes and no.
    Boolean,
    /// Days.
    Date,
    /// Civil time.
    Timestamp,
    /// Instants.
    Timestamptz,
    /// `bytea`.
    Bytes,
    /// Strings of bits.
    Bit,
    /// Types of the server whose text is canonical as it is.
    Plain(String),
    /// `json`, which keeps its text.
    Json,
    /// `jsonb`, which does not.
    Jsonb,
    /// Types made of floats.
    Geometry(String),
    /// Arrays of a type.
    Array(String),
    /// What this does not know: enums, domains, composites, types of extensions.
    Other(String),
}

/// How wide a float is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Four,
    Eight,
}

impl Width {
    /// The function that gives its bits.
    pub(super) fn send(self) -> &'static str {
        match self {
            Width::Four => "float4send",
            Width::Eight => "float8send",
        }
    }
}

impl Kind {
    /// Does its text hold floats?
    pub(super) fn has_floats(&self) -> bool {
        match self {
            Kind::Float(_) | Kind::Geometry(_) => true,
            Kind::Array(element) => kind(element).has_floats(),
            Kind::Integer
            | Kind::Numeric(_)
            | Kind::Text
            | Kind::Char
            | Kind::Boolean
            | Kind::Date
            | Kind::Timestamp
            | Kind::Timestamptz
            | Kind::Bytes
            | Kind::Bit
            | Kind::Plain(_)
            | Kind::Json
            | Kind::Jsonb
            | Kind::Other(_) => false,
        }
    }

    /// The text that COPY writes for a value, where that is the same on every server.
    pub(super) fn copied_text(&self, value: &str) -> Option<String> {
        match self {
            Kind::Boolean => Some(super::letter(value)),
            Kind::Integer
            | Kind::Numeric(_)
            | Kind::Date
            | Kind::Timestamp
            | Kind::Timestamptz
            | Kind::Bit
            | Kind::Plain(_)
            | Kind::Json => Some(format!("CAST({value} AS text)")),
            Kind::Float(_)
            | Kind::Text
            | Kind::Char
            | Kind::Bytes
            | Kind::Jsonb
            | Kind::Geometry(_)
            | Kind::Array(_)
            | Kind::Other(_) => None,
        }
    }
}

/// Reads a type as `format_type` writes it.
pub(super) fn kind(type_name: &str) -> Kind {
    if let Some(element) = type_name.strip_suffix("[]") {
        // Lengths of the elements are no part of their text.
        return Kind::Array(base(element));
    }
    let base = base(type_name);
    match base.as_str() {
        "smallint" | "integer" | "bigint" | "oid" => Kind::Integer,
        "numeric" => Kind::Numeric(scale(type_name)),
        "real" => Kind::Float(Width::Four),
        "double precision" => Kind::Float(Width::Eight),
        "text" | "character varying" | "name" => Kind::Text,
        "character" | "bpchar" => Kind::Char,
        "boolean" => Kind::Boolean,
        "date" => Kind::Date,
        "timestamp without time zone" => Kind::Timestamp,
        "timestamp with time zone" => Kind::Timestamptz,
        "bytea" => Kind::Bytes,
        "bit" | "bit varying" => Kind::Bit,
        "uuid"
        | "inet"
        | "cidr"
        | "macaddr"
        | "macaddr8"
        | "money"
        | "xml"
        | "\"char\""
        | "time without time zone"
        | "time with time zone" => Kind::Plain(base),
        "json" => Kind::Json,
        "jsonb" => Kind::Jsonb,
        "point" | "line" | "lseg" | "box" | "path" | "polygon" | "circle" => Kind::Geometry(base),
        // `interval day to second` restricts what is stored, not how it is written.
        other if other == "interval" || other.starts_with("interval ") => Kind::Plain("interval".into()),
        _ => Kind::Other(base),
    }
}

/// The name of a type without its schema, which is written only where `search_path` does not lead there. Where types of
/// one name are two, their texts are compared all the same.
pub(super) fn bare(name: &str) -> &str {
    let mut is_quoted = false;
    let mut start = 0;
    for (place, c) in name.char_indices() {
        match c {
            '"' => is_quoted = !is_quoted,
            '.' if !is_quoted => start = place + 1,
            _ => {}
        }
    }
    &name[start..]
}

/// Without length and precision: `timestamp(3) without time zone` is `timestamp without time zone`. A name in quotes
/// stays as it is.
fn base(type_name: &str) -> String {
    if type_name.contains('"') {
        return type_name.to_owned();
    }
    let (mut base, mut depth) = (String::with_capacity(type_name.len()), 0u32);
    for c in type_name.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            c if depth == 0 => base.push(c),
            _ => {}
        }
    }
    base.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The digits behind the point that `numeric(12,4)` fixes.
fn scale(type_name: &str) -> Option<i32> {
    let inside = type_name.split_once('(')?.1.strip_suffix(')')?;
    match inside.split_once(',') {
        Some((_, scale)) => scale.trim().parse().ok(),
        None => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_its_name_whatever_the_search_path() {
        for (name, expected) in [
            ("mood", "mood"),
            ("public.mood", "mood"),
            ("\"a.b\".\"c.\"\"d\"", "\"c.\"\"d\""),
            ("s.\"Mood\"", "\"Mood\""),
        ] {
            assert_eq!(bare(name), expected, "{name}");
        }
    }

    #[test]
    fn types_are_read_as_the_catalog_writes_them() {
        for (name, expected) in [
            ("numeric", Kind::Numeric(None)),
            ("numeric(12,4)", Kind::Numeric(Some(4))),
            ("numeric(5)", Kind::Numeric(Some(0))),
            ("numeric(3,-2)", Kind::Numeric(Some(-2))),
            ("character varying(20)", Kind::Text),
            ("character(1)", Kind::Char),
            ("timestamp(3) without time zone", Kind::Timestamp),
            ("timestamp with time zone", Kind::Timestamptz),
            ("interval day to second(3)", Kind::Plain("interval".into())),
            ("character varying(10)[]", Kind::Array("character varying".into())),
            ("\"char\"", Kind::Plain("\"char\"".into())),
            ("public.\"mood (x)\"", Kind::Other("public.\"mood (x)\"".into())),
        ] {
            assert_eq!(kind(name), expected, "{name}");
        }
    }
}
