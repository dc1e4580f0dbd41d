//! Quoting of names and values, and the one place where SQL that a person typed is let in.
//!
//! Everything here ends up on one line of the script protocol and inside `\copy (…) to …` of a psql that may
//! be as old as 8.3, so it must survive psql's own reading of that line (it splits at blanks, quotes and
//! parentheses and joins the pieces with blanks) as well as the server's. Sessions on both sides have
//! `standard_conforming_strings` on. Source: PostgreSQL, "Lexical Structure"; psql's `parse_slash_copy`.

use std::fmt;

use thiserror::Error;

use crate::names::TableName;

/// A name in double quotes. The name must not hold control characters; [`TableName`] and the catalog readers
/// refuse those.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `"schema"."table"`.
pub fn table(name: &TableName) -> String {
    format!("{}.{}", ident(name.schema()), ident(name.table()))
}

/// A text in single quotes, for sessions with `standard_conforming_strings` on.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A text as one word of a POSIX shell, where nothing in it means anything; `None` for one that holds a control
/// character, which neither a line of the protocol nor a name has room for. It holds no backslash that the text has not,
/// so that it can stand in a [`literal`].
pub fn shell_word(text: &str) -> Option<String> {
    if text.chars().any(char::is_control) {
        return None;
    }
    Some(format!("'{}'", text.replace('\'', "'\"'\"'")))
}

/// Texts as one array. Source: PostgreSQL, "Array Input and Output Syntax".
pub fn array<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let element = |text: &str| {
        let is_plain =
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_plain && !text.eq_ignore_ascii_case("null") {
            return text.to_owned();
        }
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    };
    let elements: Vec<String> = texts.into_iter().map(element).collect();
    format!("CAST({} AS text[])", literal(&format!("{{{}}}", elements.join(","))))
}

/// Does this SQLSTATE say that a statement was cancelled, by its time limit or by somebody? Greenplum has a second one
/// for it, for when its segments were at work.
pub fn is_cancelled(sqlstate: &str) -> bool {
    matches!(sqlstate, "57014" | "25M01")
}

/// Names in double quotes, with commas between them.
pub fn idents<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(ident).collect::<Vec<_>>().join(", ")
}

/// A type as `format_type` writes it (`numeric(10,2)[]`, `"My Types".mood`), or `None` where the text holds what no
/// type does. It comes from a catalog on another machine and is to stand in a statement, where it cannot be quoted.
pub fn type_name(text: &str) -> Option<&str> {
    let (mut depth, mut quoted) = (0i32, false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_control() => return None,
            _ if quoted => {}
            '(' => depth += 1,
            ')' => depth -= 1,
            c if c.is_alphanumeric() || " _,.[]-$".contains(c) => {}
            _ => return None,
        }
        // A comma or a word outside of parentheses would begin something else.
        if depth < 0 || (c == ',' && depth == 0 && !quoted) {
            return None;
        }
    }
    let closed = depth == 0 && !quoted && !text.trim().is_empty();
    // A scale may be negative; two of them begin a comment.
    (closed && !text.contains("--")).then_some(text)
}

/// A message of PostgreSQL without the value it quotes: data exceptions (SQLSTATE class 22) show one. Everything
/// between the first and the last double quote goes, since a value may hold quotes of its own.
pub fn without_values(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}\"…\"{}", &message[..first], &message[last + 1..])
        }
        (Some(_) | None, _) => message.to_owned(),
    }
}

/// A condition over a table's rows that a person wrote (`where:`), checked to be one closed expression on one
/// line: it cannot end the statement it stands in, start a comment that swallows the rest, or reach psql's
/// own commands and variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition(String);

/// Why a text is not a [`Condition`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConditionError {
    /// Nothing in it.
    #[error("the condition is empty")]
    Empty,
    /// A quote that is never closed.
    #[error("a {0} quote is opened and never closed")]
    OpenQuote(&'static str),
    /// Parentheses that do not match.
    #[error("the parentheses do not match")]
    Parentheses,
    /// A character or pair that could lead out of the expression.
    #[error("`{what}` cannot stand in a condition: {why}")]
    Refused {
        /// What stands there.
        what: String,
        /// Why, and what to write instead.
        why: &'static str,
    },
}

impl Condition {
    /// Checks a condition. Line breaks and TABs outside quotes become blanks.
    ///
    /// # Errors
    /// [`ConditionError`] says what could lead out of the expression.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        let mut checked = String::with_capacity(text.len());
        let mut chars = text.trim().chars().peekable();
        let mut depth = 0u32;
        let mut before = ' ';
        while let Some(c) = chars.next() {
            let next = chars.peek().copied().unwrap_or(' ');
            match c {
                '\'' | '"' => {
                    if is_word(before) || before == '&' {
                        return refused(
                            &format!("{before}{c}"),
                            "strings with a prefix (E'…', B'…', U&'…') do not survive psql's \\copy; write a plain '…' with a cast",
                        );
                    }
                    checked.push(c);
                    take_quoted(c, &mut chars, &mut checked)?;
                }
                '(' => {
                    depth += 1;
                    checked.push(c);
                }
                ')' => {
                    depth = depth.checked_sub(1).ok_or(ConditionError::Parentheses)?;
                    checked.push(c);
                }
                c if c.is_whitespace() => checked.push(' '),
                c => {
                    refuse_escape(before, c, next)?;
                    checked.push(c);
                }
            }
            before = c;
        }
        match (depth, checked.is_empty()) {
            (0, false) => Ok(Self(checked)),
            (0, true) => Err(ConditionError::Empty),
            _ => Err(ConditionError::Parentheses),
        }
    }
}

/// In parentheses, ready to follow `WHERE` or `AND`.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({})", self.0)
    }
}

/// Copies the rest of a quoted piece, doubled quotes included.
fn take_quoted(
    quote: char,
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    checked: &mut String,
) -> Result<(), ConditionError> {
    while let Some(c) = chars.next() {
        if c.is_control() {
            return refused(
                &c.escape_debug().to_string(),
                "a quoted text must stay on one line and hold no control character",
            );
        }
        checked.push(c);
        if c == quote {
            if chars.peek() == Some(&quote) {
                checked.push(quote);
                chars.next();
            } else {
                return Ok(());
            }
        }
    }
    Err(ConditionError::OpenQuote(if quote == '\'' { "single" } else { "double" }))
}

/// Refuses what leads out of an expression, by the character, the one before it and the one after it.
fn refuse_escape(before: char, c: char, next: char) -> Result<(), ConditionError> {
    match (c, next) {
        (';', _) => refused(";", "it would end the statement"),
        ('\\', _) => refused("\\", "outside quotes it starts a command of psql"),
        ('-', '-') => refused("--", "it starts a comment that would swallow the rest of the line"),
        ('/', '*') => refused("/*", "it starts a comment"),
        ('$', _) if !is_word(before) => {
            refused("$", "dollar quoting and parameters do not survive here; write a plain '…'")
        }
        (':', next) if before != ':' && (is_word(next) || matches!(next, '\'' | '"' | '{')) => {
            refused(&format!(":{next}"), "psql would read a variable there; write a blank after the colon")
        }
        (c, _) if c.is_control() => refused(&c.escape_debug().to_string(), "it is a control character"),
        (_, _) => Ok(()),
    }
}

fn refused<T>(what: &str, why: &'static str) -> Result<T, ConditionError> {
    Err(ConditionError::Refused { what: what.into(), why })
}

/// Could `c` be part of a word for PostgreSQL? Everything outside ASCII is.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// A whole statement that an operator wrote (`before:`, `after:`), to be run within a unit's transaction. What would
/// end that transaction, or outlive it in the session, is refused. That it is one statement alone the server itself
/// makes sure of: it is sent by the extended protocol, which takes no two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement(String);

/// Why a text is not a [`Statement`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StatementError {
    /// It does not begin with a word.
    #[error("a statement begins with its word (INSERT, SELECT, ANALYZE …), not with a comment or a sign")]
    NoWord,
    /// A word that would lead out of the transaction.
    #[error("`{0}` cannot stand here: {1}")]
    Refused(String, &'static str),
}

impl Statement {
    /// Checks a statement. Semicolons at its end are taken off.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn parse(text: &str) -> Result<Self, StatementError> {
        const TRANSACTION: &str = "it runs within the unit's transaction, which gpferry begins and ends";
        const SESSION: &str = "it would outlive the unit in the session; SET LOCAL does not";
        const STREAM: &str = "rows go in by the file alone";
        let text = text.trim().trim_end_matches(|c: char| c == ';' || c.is_whitespace());
        let mut words =
            text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(str::to_ascii_uppercase);
        let first = words.next().unwrap_or_default();
        let refused = |why| Err(StatementError::Refused(first.clone(), why));
        match first.as_str() {
            "" => Err(StatementError::NoWord),
            "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE"
            | "PREPARE" => refused(TRANSACTION),
            "SET" if words.find(|word| !word.is_empty()).as_deref() == Some("LOCAL") => {
                Ok(Self(text.to_owned()))
            }
            "SET" | "RESET" | "DISCARD" | "LISTEN" | "UNLISTEN" | "DEALLOCATE" => refused(SESSION),
            "COPY" => refused(STREAM),
            _ => Ok(Self(text.to_owned())),
        }
    }

    /// As it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(ident(r#"a"b"#), r#""a""b""#);
        assert_eq!(literal("it's \\"), "'it''s \\'");
    }

    proptest! {
        #[test]
        fn a_shell_gives_back_the_word_that_it_was_given(text in "[ -~äß表]{0,20}") {
            let word = shell_word(&text).unwrap();
            let said = std::process::Command::new("sh").arg("-c").arg(format!("printf %s {word}")).output().unwrap();
            prop_assert_eq!(String::from_utf8(said.stdout).unwrap(), text);
        }
    }

    #[test]
    fn types_are_let_through_and_statements_are_not() {
        for text in [
            "integer",
            "numeric(5,-2)",
            "timestamp(3) with time zone",
            "character varying(10)[]",
            "interval year to month",
            "\"char\"",
            "\"My; Types\".\"mood('\"[]",
            "geometry(PointZ,4326)",
            "\"char\".表",
        ] {
            assert_eq!(type_name(text), Some(text));
        }
        for text in [
            "",
            "int); drop table x",
            "int, b int",
            "int)",
            "(int",
            "\"int",
            "int -- x",
            "int default 'x'",
            "int\n",
            "int check (a>0)",
        ] {
            assert_eq!(type_name(text), None, "{text:?}");
        }
    }

    #[test]
    fn plain_conditions_pass_unchanged() {
        for text in [
            "valid_flag = 'Y'",
            "a::text LIKE 'x\\_%' AND (b IN (1, 2) OR \"Odd \"\"col\" IS NULL)",
            "note <> '; drop table x; --'",
            "price > 1e3 AND d - 1 < date '2021-01-01' AND a$b = 1",
        ] {
            assert_eq!(Condition::parse(text).unwrap().to_string(), format!("({text})"));
        }
        assert_eq!(Condition::parse("a = 1\n\tAND b = 2\n").unwrap().to_string(), "(a = 1  AND b = 2)");
    }

    #[test]
    fn what_could_lead_out_of_the_expression_is_refused() {
        for text in [
            "",
            "a = 1; drop table x",
            "a = 1) to program 'x' --",
            "(a = 1",
            "a = '",
            "\"a = 1",
            "a \\! touch x",
            "a -- b",
            "a /* b",
            "$$a$$ = b",
            "$1 = b",
            "a = E'\\''",
            "U&\"x\" = 1",
            "x[1:n]",
            ":'HOME' = a",
            "a = 'x\ny'",
            "a = 1 \u{7} b",
            "é'x' = 1",
        ] {
            assert!(Condition::parse(text).is_err(), "{text:?} was let in");
        }
    }

    #[test]
    fn a_statement_stays_within_its_transaction() {
        for text in ["ANALYZE sor.wpp_f;", " select eda.refresh() ; ", "Set Local work_mem = '1GB'"] {
            assert_eq!(Statement::parse(text).unwrap().as_str(), text.trim().trim_end_matches([';', ' ']));
        }
        for text in [
            "",
            ";",
            "commit",
            "/* x */ COMMIT",
            "END;",
            "set role x",
            "RESET ALL",
            "copy t from stdin",
            "--",
        ] {
            assert!(Statement::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_passes_can_close_its_parentheses(text in "[ab'\"(); \\\\$:/*-]{0,24}") {
            if let Ok(condition) = Condition::parse(&text) {
                let mut depth = 0i32;
                let mut quote = None;
                let shown = condition.to_string();
                let inner = &shown[1..shown.len() - 1];
                for c in inner.chars() {
                    match (quote, c) {
                        (None, '\'' | '"') => quote = Some(c),
                        (Some(q), c) if q == c => quote = None,
                        (None, '(') => depth += 1,
                        (None, ')') => depth -= 1,
                        _ => {}
                    }
                    prop_assert!(depth >= 0);
                    prop_assert!(quote.is_some() || !matches!(c, ';' | '\\'));
                }
                prop_assert_eq!((depth, quote), (0, None));
            }
        }
    }
}
