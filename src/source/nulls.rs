//! Counting rows that are in no window, since their window column is NULL: a look that must not hold anything up.

use std::time::{Duration, Instant};

use super::{Questions, SourceError, postgres};
use crate::names::TableName;
use crate::remote::Cause;
use crate::sql;

/// How long counting in one table may take.
pub const EACH: Duration = Duration::from_secs(3);
/// How long counting in all tables of one source may take.
const ALL: Duration = Duration::from_secs(15);

/// What a count came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nulls {
    /// So many rows.
    Rows(u64),
    /// It took too long.
    TooLong,
    /// The database refused.
    Refused,
}

/// Counts, table by table, as far as the time goes: those that it did not come to are not in the answer. The questions
/// have the short limit afterwards.
///
/// # Errors
/// [`SourceError`] where the conversation is over; a table that cannot be counted is none.
pub fn count<'a>(
    questions: &mut Questions<'_>,
    wanted: impl Iterator<Item = (&'a TableName, &'a str)>,
) -> Result<Vec<(TableName, String, Nulls)>, SourceError> {
    let mut counted = Vec::new();
    let mut begin = None;
    for (table, column) in wanted {
        if begin.is_none() {
            questions.limit(EACH);
        }
        if begin.get_or_insert_with(Instant::now).elapsed() >= ALL {
            break;
        }
        let mut rows = None;
        let asked = questions.ask(postgres::count_nulls(table, column), "counting NULLs", |row| {
            rows = postgres::read_count(row);
        });
        let nulls = match (asked, rows) {
            (Ok(()), Some(rows)) => Nulls::Rows(rows),
            (Ok(()), None) => Nulls::Refused,
            // Cancelled by statement_timeout.
            (Err(SourceError::Failed { cause: Cause::DatabaseError { sqlstate: Some(state) }, .. }), _)
                if sql::is_cancelled(&state) =>
            {
                Nulls::TooLong
            }
            (Err(SourceError::Failed { .. }), _) => Nulls::Refused,
            (Err(error), _) => return Err(error),
        };
        counted.push((table.clone(), column.to_owned(), nulls));
    }
    Ok(counted)
}
