//! What the target refused, in words that hold no cell values.
//!
//! PostgreSQL puts row data in DETAIL and CONTEXT, and `postgres` prints "db error" for everything it was told.
//! Here the SQLSTATE decides, the message is kept, and DETAIL is not.

use postgres::error::DbError;
use thiserror::Error;

use super::connect::deepest;
use super::program::ProgramError;
use super::{external, gpfdist};
use crate::sql;

/// What the target refused.
#[derive(Debug, Error)]
pub enum TargetError {
    /// The URL or the environment cannot be used.
    #[error("target {target}: {why}")]
    Address {
        /// URL without parameters.
        target: String,
        /// What is wrong with it.
        why: String,
    },
    /// No host took a session.
    #[error("cannot connect to the target {target}: {why}")]
    Connect {
        /// URL without parameters.
        target: String,
        /// Every host's own words.
        why: String,
        /// No host has looked at us and said no.
        transient: bool,
    },
    /// The session is gone.
    #[error("lost the connection to the target, which was asked to {doing}: {why}")]
    Lost {
        /// What it was asked to do.
        doing: String,
        /// The library's own words.
        why: String,
    },
    /// The server said no.
    #[error("the target refused to {doing}: {message} (SQLSTATE {sqlstate})")]
    Refused {
        /// What it was asked to do.
        doing: String,
        /// Five characters. Source: PostgreSQL, Appendix A.
        sqlstate: String,
        /// The server's message, without DETAIL.
        message: String,
        /// The constraint, where one was violated.
        constraint: Option<String>,
        /// The line of the copied data at which it happened, as far as the server says.
        line: Option<u64>,
    },
    /// gpfdist or gpload did not do its work.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

impl TargetError {
    /// Sorts an error of the library. `doing` completes "refused to …" and "was asked to …".
    pub fn of(error: &postgres::Error, doing: &str) -> Self {
        match error.as_db_error() {
            Some(refused) => Self::Refused {
                doing: doing.into(),
                sqlstate: refused.code().code().into(),
                message: message(refused),
                constraint: constraint(refused),
                line: refused.where_().and_then(line),
            },
            None => Self::Lost { doing: doing.into(), why: deepest(error) },
        }
    }

    /// The SQLSTATE, where the server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Refused { sqlstate, .. } => Some(sqlstate),
            Self::Address { .. } | Self::Connect { .. } | Self::Lost { .. } | Self::Program(_) => None,
        }
    }

    /// The unique constraint that was violated, where that is what happened.
    pub fn violated_key(&self) -> Option<&str> {
        match self {
            Self::Refused { sqlstate, constraint, .. } if sqlstate == "23505" => constraint.as_deref(),
            Self::Refused { .. }
            | Self::Address { .. }
            | Self::Connect { .. }
            | Self::Lost { .. }
            | Self::Program(_) => None,
        }
    }

    /// The line of the copied data at which the server refused, as far as it says: a hint, no more.
    pub fn line(&self) -> Option<u64> {
        match self {
            Self::Refused { line, .. } => *line,
            Self::Address { .. } | Self::Connect { .. } | Self::Lost { .. } | Self::Program(_) => None,
        }
    }

    /// Can the same thing succeed a moment later? Connection trouble, deadlock, serialization, too many
    /// clients, a server that starts or stops. Source: PostgreSQL, Appendix A.
    pub fn can_retry(&self) -> bool {
        match self {
            Self::Connect { transient, .. } => *transient,
            Self::Lost { .. } => true,
            Self::Address { .. } => false,
            Self::Program(error) => error.can_retry(),
            Self::Refused { message, .. } if gpfdist::is_too_long(message) => false,
            Self::Refused { message, .. } if external::is_unseen(message) => true,
            Self::Refused { sqlstate, .. } => {
                sqlstate.starts_with("08")
                    || ["40001", "40P01", "53300", "57P01", "57P02", "57P03", "58M01"]
                        .contains(&sqlstate.as_str())
            }
        }
    }

    /// Is it the unit's own fault, and no trouble of server or network that others share?
    pub fn is_units_own(&self) -> bool {
        match self {
            Self::Address { .. } | Self::Connect { .. } | Self::Lost { .. } | Self::Program(_) => false,
            Self::Refused { sqlstate, .. } => {
                !["08", "38", "40", "53", "55", "57P", "58"].iter().any(|class| sqlstate.starts_with(class))
            }
        }
    }

    /// Was no session to be had at all?
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Connect { .. } => true,
            Self::Address { .. } | Self::Lost { .. } | Self::Refused { .. } | Self::Program(_) => false,
        }
    }

    /// Is it that a row does not fit: its type, length, encoding or number of columns, NOT NULL, a CHECK?
    pub fn is_misfit(&self) -> bool {
        match self {
            Self::Program(error) => error.is_misfit(),
            Self::Refused { sqlstate, .. } => {
                sqlstate.starts_with("22") || matches!(sqlstate.as_str(), "23502" | "23514")
            }
            Self::Address { .. } | Self::Connect { .. } | Self::Lost { .. } => false,
        }
    }

    /// May it be the file that is to blame: a command that read it for a segment (class 38), gpfdist (08006), or rows that
    /// do not fit?
    pub fn may_be_the_file(&self) -> bool {
        match self {
            Self::Refused { sqlstate, message, .. } => {
                sqlstate.starts_with("38")
                    || sqlstate.starts_with("22")
                    || (sqlstate == "08006" && message.starts_with("gpfdist error"))
            }
            Self::Program(error) => error.may_be_the_file(),
            Self::Address { .. } | Self::Connect { .. } | Self::Lost { .. } => false,
        }
    }

    /// Is it the rows that were refused, so that the same file would be refused again?
    pub fn blames_rows(&self) -> bool {
        self.is_misfit()
            || self.sqlstate().is_some_and(|state| state.starts_with("22") || state.starts_with("23"))
    }

    /// What to try.
    pub fn remedy(&self) -> String {
        match self {
            Self::Program(error) => error.remedy().to_owned(),
            Self::Address { .. } => "correct `target.url` in the inventory or the PG* variables".into(),
            Self::Connect { .. } | Self::Lost { .. } => "try `psql` with the same URL from this host; check \
                 that the server runs, its pg_hba.conf, and PGPASSWORD, PGPASSFILE or ~/.pgpass (mode 0600)"
                .into(),
            Self::Refused { sqlstate, doing, .. }
                if sqlstate == "42501" && doing == "create the load log" =>
            {
                "let somebody who may do so: CREATE SCHEMA gpferry AUTHORIZATION <the loading user>".into()
            }
            Self::Refused { sqlstate, message, .. } if sqlstate == "08006" => {
                gpfdist::advice(message).unwrap_or_else(|| remedy(sqlstate)).into()
            }
            Self::Refused { sqlstate, .. } => remedy(sqlstate).into(),
        }
    }
}

/// What to try where a right is lacking, and nothing else is known.
pub const LACKING: &str = "grant the loading user what it lacks: gpferry preflight says what that is";

/// What to try, by SQLSTATE.
fn remedy(sqlstate: &str) -> &'static str {
    match sqlstate {
        "23505" => {
            "look whether these rows were loaded before under other window bounds, by a second writer, or \
             stand twice in the source; then delete them in the target or correct the window, and run again"
        }
        "23502" => "a NOT NULL column of the target gets NULLs: correct the rows or the column",
        "42501" => LACKING,
        "42P01" | "3F000" => "create the table in the target, or correct its name in the inventory",
        "22P02" | "22P04" | "22007" | "22008" | "22003" | "22001" => {
            "a value does not fit its column: compare the column's type on both sides"
        }
        "22021" => "the text is not valid in the database's encoding: compare the encodings of both sides",
        "53100" => "the target's disk is full: make room, and run again",
        "53300" => "the target has no free connection: lower `target.sessions` or raise max_connections",
        "57P01" | "57P02" | "57P03" => "the server was stopped or restarted: look at its log, and run again",
        "38000" => {
            "a command failed on a segment's host: see that the mount is there on all of them, and readable for the \
             user that runs the segments; gpferry preflight proves it"
        }
        "55P03" => {
            "somebody holds a lock on it: look at pg_locks and pg_stat_activity in the target; \
             `load.lock_timeout` says how long a load waits for one"
        }
        state if sql::is_cancelled(state) => {
            "the statement was cancelled: look for a statement_timeout or an operator"
        }
        _ => "look the SQLSTATE up in PostgreSQL's Appendix A; the server's log has the whole message",
    }
}

/// Greenplum leaves the constraint's field empty; there its name stands in the message only.
fn constraint(refused: &DbError) -> Option<String> {
    refused.constraint().map(str::to_owned).or_else(|| {
        let (_, after) = refused.message().split_once("unique constraint \"")?;
        let (name, _) = after.split_once('"')?;
        Some(name.to_owned())
    })
}

/// The line out of `COPY t, line 7`, whatever the language of the words.
fn line(context: &str) -> Option<u64> {
    let first = context.lines().next().filter(|line| line.starts_with("COPY ") && !line.contains('"'))?;
    let digits = first.len() - first.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    first[first.len() - digits..].parse().ok()
}

/// The server's message without cell values. Those of class 22 (data exceptions) quote the value, which is
/// left out; where it stood is said instead.
fn message(refused: &DbError) -> String {
    let message = without_segment(refused.message());
    if !refused.code().code().starts_with("22") {
        return message.to_owned();
    }
    let place =
        refused.where_().and_then(place_in_file).map(|place| format!(" at {place}")).unwrap_or_default();
    format!("{}{place}", sql::without_values(message))
}

/// `line 7, column price` out of `COPY t, line 7, column price: "x"`, and out of what Greenplum says of a table that
/// segments read: `External table t, line 7 of execute:…, column price`.
pub(super) fn place_in_file(context: &str) -> Option<String> {
    let line = &context[context.find(", line ")? + 2..];
    let line = line.split('\n').next().unwrap_or(line);
    let place = line.find(": \"").map_or(line, |at| &line[..at]);
    Some(match place.split_once(" of ") {
        Some((line, rest)) => {
            let column = rest.rfind(", column ").map_or("", |at| &rest[at..]);
            format!("{line}{column}")
        }
        None => place.to_owned(),
    })
}

/// Takes `  (seg0 127.0.0.1:6433 pid=21903)` off the end of a Greenplum message.
fn without_segment(message: &str) -> &str {
    message.find("  (seg").filter(|_| message.ends_with(')')).map_or(message, |at| &message[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greenplum_s_segment_is_no_part_of_the_message() {
        let text = "duplicate key value violates unique constraint \"t_pkey\"";
        assert_eq!(without_segment(&format!("{text}  (seg0 127.0.0.1:6433 pid=21903)")), text);
        assert_eq!(without_segment(text), text);
    }

    #[test]
    fn values_are_left_out_and_places_are_kept() {
        assert_eq!(
            sql::without_values("invalid input syntax for type integer: \"a\"b\""),
            "invalid input syntax for type integer: \"…\""
        );
        assert_eq!(
            place_in_file("COPY t, line 7, column price: \"x, line 9\"").as_deref(),
            Some("line 7, column price")
        );
        assert_eq!(place_in_file("COPY t, line 7").as_deref(), Some("line 7"));
        let read = "External table e, line 7 of execute:gzip -dc 'a, b', column price";
        assert_eq!(place_in_file(read).as_deref(), Some("line 7, column price"));
        assert_eq!(place_in_file("SQL function f"), None);
    }

    #[test]
    fn a_line_is_found_in_any_language() {
        assert_eq!(line("COPY large7, line 1000000"), Some(1_000_000));
        assert_eq!(line("COPY large7, Zeile 12\nSQL-Anweisung"), Some(12));
        assert_eq!(line("COPY large7, line 3, column a: \"x 4"), None);
        assert_eq!(line("COPY large7, line 3, column a"), None);
        assert_eq!(line("SQL function 3"), None);
    }

    #[test]
    fn only_what_can_help_by_itself_is_tried_again() {
        let refused = |sqlstate: &str| TargetError::Refused {
            doing: "load".into(),
            sqlstate: sqlstate.into(),
            message: String::new(),
            constraint: None,
            line: None,
        };
        for sqlstate in ["40P01", "40001", "53300", "08006", "57P03"] {
            assert!(refused(sqlstate).can_retry(), "{sqlstate}");
        }
        for sqlstate in ["23505", "42501", "42P01", "22P02", "53100"] {
            assert!(!refused(sqlstate).can_retry(), "{sqlstate}");
        }
    }
}
