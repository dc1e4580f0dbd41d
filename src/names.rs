//! Names of tables, kept exactly as the catalog holds them.
//!
//! A name is never folded to lower case and never glued into SQL here: [`crate::sql`] quotes it.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// A table in a schema. Neither part is empty or holds control characters (line breaks and TABs included:
/// the line protocol with the source host could not carry them).
///
/// Units, catalogs and orders of a run hold one each, thousands in all: a clone shares its text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName(Arc<str>);

/// What stands between the parts, which hold none: they sort as a pair does.
const BETWEEN: char = '\0';

/// Why a text is not a table name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// No dot outside quotes, or more than one.
    #[error(
        "`{0}` is not of the form schema.table (a part that itself holds a dot or a quote is written \
         in double quotes, as in SQL: \"my.schema\".\"my table\")"
    )]
    NotSchemaTable(String),
    /// A part is empty.
    #[error("`{0}` has an empty part")]
    EmptyPart(String),
    /// A line break, a TAB or another control character.
    #[error("{0:?} holds a control character, which gpferry does not move")]
    ControlCharacter(String),
}

impl TableName {
    /// A name from its two parts as the catalog holds them.
    ///
    /// # Errors
    /// [`NameError`] where a part is empty or holds a control character.
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> Result<Self, NameError> {
        let (schema, table) = (schema.into(), table.into());
        if schema.is_empty() || table.is_empty() {
            return Err(NameError::EmptyPart(format!("{schema}.{table}")));
        }
        for part in [&schema, &table] {
            if part.chars().any(char::is_control) {
                return Err(NameError::ControlCharacter(part.clone()));
            }
        }
        Ok(Self(format!("{schema}{BETWEEN}{table}").into()))
    }

    /// A name as an inventory writes it: `sor.wpp_f`, `Sor.My Table`, `"a.b"."c ""d"""`.
    ///
    /// # Errors
    /// [`NameError`] where it is not two parts.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let (part, after) = split_part(rest).ok_or_else(|| NameError::NotSchemaTable(text.into()))?;
            parts.push(part);
            match after {
                Some(after) => rest = after,
                None => break,
            }
        }
        match <[String; 2]>::try_from(parts) {
            Ok([schema, table]) => Self::new(schema, table),
            Err(_) => Err(NameError::NotSchemaTable(text.into())),
        }
    }

    /// The schema, unquoted.
    pub fn schema(&self) -> &str {
        self.parts().0
    }

    /// The table, unquoted.
    pub fn table(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once(BETWEEN).unwrap_or_default()
    }
}

impl fmt::Debug for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableName({self})")
    }
}

/// Takes one part off the front: its text, and what follows the dot after it.
fn split_part(text: &str) -> Option<(String, Option<&str>)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return match text.split_once('.') {
            Some((part, _)) if part.contains('"') => None,
            Some((part, after)) => Some((part.to_owned(), Some(after))),
            None if text.contains('"') => None,
            None => Some((text.to_owned(), None)),
        };
    };
    let mut part = String::new();
    let mut rest = quoted;
    loop {
        let (before, after) = rest.split_once('"')?;
        part.push_str(before);
        if let Some(after_double) = after.strip_prefix('"') {
            part.push('"');
            rest = after_double;
        } else if after.is_empty() {
            return Some((part, None));
        } else {
            return Some((part, Some(after.strip_prefix('.')?)));
        }
    }
}

/// As an inventory writes it: a part is quoted only where it must be.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (part, end) in [(self.schema(), "."), (self.table(), "")] {
            if part.contains(['.', '"']) {
                write!(f, "\"{}\"{end}", part.replace('"', "\"\""))?;
            } else {
                write!(f, "{part}{end}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_are_taken_as_the_catalog_holds_them() {
        let name = TableName::parse("Sor.My Table^1").unwrap();
        assert_eq!((name.schema(), name.table()), ("Sor", "My Table^1"));
        let name = TableName::parse(r#""a.b"."c ""d""""#).unwrap();
        assert_eq!((name.schema(), name.table()), ("a.b", r#"c "d""#));
    }

    #[test]
    fn what_is_not_two_parts_is_refused() {
        for text in ["t", "a.b.c", "\"a.b", "a.\"b\"x", "\"a\"\"b", "x\"y.z"] {
            assert!(matches!(TableName::parse(text), Err(NameError::NotSchemaTable(_))), "{text}");
        }
        for text in [".t", "a.", "\"\".t"] {
            assert!(matches!(TableName::parse(text), Err(NameError::EmptyPart(_))), "{text}");
        }
        assert!(matches!(TableName::parse("a.b\nc"), Err(NameError::ControlCharacter(_))));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_the_same(schema in "[^\\p{C}]{1,8}", table in "[^\\p{C}]{1,8}") {
            let name = TableName::new(schema, table).unwrap();
            prop_assert_eq!(TableName::parse(&name.to_string()).unwrap(), name);
        }
    }
}
