//! Reading the rows of a query one by one: in COPY's text form, as a source's script sends them.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use super::copy::data_error;
use super::{Session, TargetError, milliseconds};
use crate::source::keys;

/// Longest row that is read, in bytes.
const LONGEST: usize = 64 << 20;

impl Session {
    /// Hands on the rows of a query. The session is of no more use after an error.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn read_rows(
        &mut self,
        sql: &str,
        doing: &str,
        mut row: impl FnMut(&str),
    ) -> Result<(), TargetError> {
        log::debug!("target: {sql}");
        let copy = format!("COPY ({sql}) TO STDOUT");
        let rows = self.client.copy_out(copy.as_str()).map_err(|error| TargetError::of(&error, doing))?;
        let (mut rows, mut line) = (BufReader::new(rows), Vec::new());
        loop {
            line.clear();
            match rows.read_until(b'\n', &mut line) {
                Ok(0) => return Ok(()),
                Ok(_) if line.len() > LONGEST => {
                    let why = "a row of more than 64 MiB".into();
                    return Err(TargetError::Lost { doing: doing.into(), why });
                }
                Ok(_) => row(String::from_utf8_lossy(&line).trim_end_matches('\n')),
                Err(error) => {
                    return Err(match data_error(&error) {
                        TargetError::Refused { sqlstate, message, constraint, line, .. } => {
                            TargetError::Refused { doing: doing.into(), sqlstate, message, constraint, line }
                        }
                        TargetError::Lost { why, .. } => TargetError::Lost { doing: doing.into(), why },
                        other @ (TargetError::Address { .. }
                        | TargetError::Connect { .. }
                        | TargetError::Program(_)) => other,
                    });
                }
            }
        }
    }

    /// In which encoding the server keeps texts.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn encoding(&mut self) -> Result<String, TargetError> {
        let row = self.client.query_one(keys::ENCODING, &[]);
        row.map(|row| row.get(0)).map_err(|error| TargetError::of(&error, "ask for its encoding"))
    }

    /// Makes the session ready to digest rows, each statement for so long at most.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn ease_digests(&mut self, limit: Duration) -> Result<(), TargetError> {
        let ease = keys::ease_digests(self.facts.version, false);
        self.run(&format!("SET statement_timeout = {}; {ease}", milliseconds(limit)), "set up a session")
    }
}
