//! Copying a file's rows into a table; and, where some may be kept out, all but those that do not fit.
//!
//! A file that fits goes in by one COPY. Only one that does not is read again, in pieces of whole rows: each under a
//! savepoint, and one that is refused is halved until the row is alone. So good rows never go in one by one, and
//! memory is that of a piece.

use super::inlet::Inlet;
use super::rejected::Rejected;
use super::{Cargo, Ground, NotLoaded, failed, fatal_or_failed, reader};
use crate::csv::{Cutter, Rows};
use crate::gzip::CheckedReader;
use crate::step::{Stage, UnitFailure};
use crate::target::{CopyError, Freight, Origin, Session, TargetError};

/// Bytes of a piece, uncompressed.
const PIECE: usize = 512 * 1024;
/// Bytes read at a time.
const READ: usize = 64 * 1024;

const STAGING: &str = "stage the rows";

/// Copies the file into a table given as quoted SQL, and runs the statements of `then`, which do something with the rows
/// that were copied, and may be run for some of them at a time. Returns the rows that went in; those that did not are in
/// `rejected`. Every row of the file is one of the two.
pub(super) fn fill(
    session: &mut Session,
    ground: Ground<'_>,
    cargo: &Cargo<'_>,
    table: &str,
    then: &[String],
    rejected: &mut Rejected<'_>,
) -> Result<u64, NotLoaded> {
    let all = |session: &mut Session| -> Result<u64, NotLoaded> {
        let rows = whole(session, ground, cargo, table)?;
        session.touch_all(then, STAGING).map_err(fatal_or_failed)?;
        Ok(rows)
    };
    if rejected.limit() == 0 {
        return all(session);
    }
    session.mark("file").map_err(NotLoaded::SessionLost)?;
    match all(session) {
        Err(NotLoaded::Failed(failure)) if failure.misfit => {
            session.back_to("file").map_err(NotLoaded::SessionLost)?;
            let mut sieve = Sieve { session, cargo, table, then, rejected, line: 1, loaded: 0 };
            sieve.file(ground)?;
            let (loaded, kept_out) = (sieve.loaded, sieve.rejected.rows());
            agree(ground, cargo, loaded + kept_out)?;
            Ok(loaded)
        }
        other => {
            if other.is_ok() {
                session.forget("file").map_err(NotLoaded::SessionLost)?;
            }
            other
        }
    }
}

/// All of it by one statement: a COPY, or what the segments read.
pub(super) fn whole(
    session: &mut Session,
    ground: Ground<'_>,
    cargo: &Cargo<'_>,
    table: &str,
) -> Result<u64, NotLoaded> {
    let exported = cargo.exported;
    let inlet =
        if exported.columns.is_empty() { Inlet::Copy } else { way_in(session, ground, cargo, table)? };
    let rows = match inlet {
        Inlet::Copy => {
            let reader = reader(ground, cargo).map_err(failed)?;
            part(session, cargo, table, reader)?
        }
        Inlet::Segments => {
            let files = ground.inlets.served(exported)?;
            read_in(session, ground, cargo, table, Origin::Mount(&files))?
        }
        Inlet::Gpload => {
            let reader = reader(ground, cargo).map_err(failed)?;
            let files: Vec<_> = exported.files().map(|(file, _)| file).collect();
            let freight = Freight {
                files: &files,
                columns: &exported.columns,
                rows: exported.rows,
                timeout: cargo.unit.entry.load.timeout,
            };
            let loaded = ground.inlets.gpload().load(session, table, freight, ground.stop);
            loaded.map_err(|error| blamed(error, reader))?
        }
        Inlet::Gpfdist => {
            let urls = ground.inlets.urls(session, exported, ground.stop)?;
            read_in(session, ground, cargo, table, Origin::Gpfdist(&urls))?
        }
    };
    agree(ground, cargo, rows).map(|()| rows)
}

/// The way of a unit's files into a table.
fn way_in(
    session: &mut Session,
    ground: Ground<'_>,
    cargo: &Cargo<'_>,
    table: &str,
) -> Result<Inlet, NotLoaded> {
    let Ground { mount, run, stop, inlets, .. } = ground;
    let inlet = inlets.choose(session, mount, run, stop, cargo.exported.trailer.bytes)?;
    if inlet != Inlet::Copy && session.has_insert_rules(table).map_err(fatal_or_failed)? {
        log::warn!("{table} has rules, which a COPY alone does not follow: it is loaded by COPY");
        return Ok(Inlet::Copy);
    }
    Ok(inlet)
}

/// What the server reads by itself. Where that fails, the runner looks whether the file is to blame: a server may well
/// call what is cut short a row that does not fit.
fn read_in(
    session: &mut Session,
    ground: Ground<'_>,
    cargo: &Cargo<'_>,
    table: &str,
    origin: Origin<'_>,
) -> Result<u64, NotLoaded> {
    // Seen by the runner first: a file that was changed is not even begun.
    let reader = reader(ground, cargo).map_err(failed)?;
    session
        .read_in(table, &cargo.exported.columns, origin, ground.run, cargo.index)
        .map_err(|error| blamed(error, reader))
}

/// What a server could not take, or the file that is to blame for it.
fn blamed(error: TargetError, reader: CheckedReader) -> NotLoaded {
    if error.may_be_the_file()
        && let Err(damage) = reader.drain()
    {
        return failed(UnitFailure::of_file(&damage));
    }
    fatal_or_failed(error)
}

/// What a reader hands out of it, which is whole rows, by one COPY.
pub(super) fn part(
    session: &mut Session,
    cargo: &Cargo<'_>,
    table: &str,
    reader: CheckedReader,
) -> Result<u64, NotLoaded> {
    match session.copy_to(table, &cargo.exported.columns, reader) {
        Ok(rows) => Ok(rows),
        Err(CopyError::File(error)) => Err(failed(UnitFailure::of_file(&error))),
        Err(CopyError::Start(error)) => Err(NotLoaded::SessionLost(error)),
        Err(CopyError::Data(error)) => Err(fatal_or_failed(error)),
    }
}

/// Holds a number of rows against what was exported.
pub(super) fn agree(ground: Ground<'_>, cargo: &Cargo<'_>, rows: u64) -> Result<(), NotLoaded> {
    if rows == cargo.exported.rows {
        return Ok(());
    }
    Err(failed(UnitFailure::new(
        Stage::Load,
        format!(
            "{}: the source reported {} rows, the target {rows}; rolled back",
            ground.mount.path(&cargo.exported.named()).display(),
            cargo.exported.rows
        ),
        "run again: the unit is exported afresh. If it comes back, the file holds an unquoted line of `\\.` \
         or is written by something else",
    )))
}

/// Lets through what fits.
struct Sieve<'a, 'r> {
    session: &'a mut Session,
    cargo: &'a Cargo<'a>,
    table: &'a str,
    then: &'a [String],
    rejected: &'a mut Rejected<'r>,
    /// Line of the file where the next row begins.
    line: u64,
    loaded: u64,
}

impl Sieve<'_, '_> {
    fn file(&mut self, ground: Ground<'_>) -> Result<(), NotLoaded> {
        let mut reader = reader(ground, self.cargo).map_err(failed)?;
        let (mut cutter, mut buffer) = (Cutter::default(), vec![0; READ]);
        loop {
            match reader.next(&mut buffer).map_err(|error| failed(UnitFailure::of_file(&error)))? {
                0 => break,
                n => cutter.feed(&buffer[..n]),
            }
            if cutter.len() >= PIECE {
                self.piece(&cutter.take())?;
            }
        }
        let last = cutter.finish().map_err(|error| {
            let file = ground.mount.path(&self.cargo.exported.named());
            let remedy = "look at the file: it is not CSV as PostgreSQL writes it";
            failed(UnitFailure::new(Stage::Load, format!("{}: {error}", file.display()), remedy))
        })?;
        self.piece(&last)
    }

    fn piece(&mut self, rows: &Rows) -> Result<(), NotLoaded> {
        self.some(&rows.bytes, &rows.ends, 0)
    }

    /// Rows that begin at `start` and end at `ends`.
    fn some(&mut self, bytes: &[u8], ends: &[usize], start: usize) -> Result<(), NotLoaded> {
        let Some(&end) = ends.last() else { return Ok(()) };
        let piece = &bytes[start..end];
        self.session.mark("piece").map_err(NotLoaded::SessionLost)?;
        match self.take(piece) {
            Ok(rows) if rows == ends.len() as u64 => {
                self.session.forget("piece").map_err(NotLoaded::SessionLost)?;
                self.loaded += rows;
                self.line += lines(piece);
                Ok(())
            }
            Ok(rows) => {
                let error =
                    format!("the target took {rows} rows of {}; an unquoted line of `\\.`?", ends.len());
                Err(failed(UnitFailure::new(Stage::Load, error, "look at the file, and run again")))
            }
            Err(error) if error.is_misfit() => {
                self.session.back_to("piece").map_err(NotLoaded::SessionLost)?;
                if ends.len() == 1 {
                    let line = self.line;
                    self.line += lines(piece);
                    return self.rejected.add(Some(line), &reason(&error), piece);
                }
                let (first, second) = ends.split_at(ends.len() / 2);
                self.some(bytes, first, start)?;
                self.some(bytes, second, first.last().copied().unwrap_or(start))
            }
            Err(error) => Err(fatal_or_failed(error)),
        }
    }

    fn take(&mut self, piece: &[u8]) -> Result<u64, TargetError> {
        let rows = self.session.copy_rows(self.table, &self.cargo.exported.columns, piece)?;
        self.session.touch_all(self.then, STAGING)?;
        Ok(rows)
    }
}

/// Line ends, those within quotes included, as an editor counts them.
fn lines(bytes: &[u8]) -> u64 {
    let feeds = bytes.iter().filter(|&&byte| byte == b'\n').count();
    let lines = if feeds > 0 { feeds } else { bytes.iter().filter(|&&byte| byte == b'\r').count() };
    lines as u64
}

/// Why a row does not fit, without its values: they stand beside it. The line that the server names is that of a
/// piece.
fn reason(error: &TargetError) -> String {
    let TargetError::Refused { sqlstate, message, .. } = error else { return error.to_string() };
    let message = match message.rfind(" at line ") {
        Some(at) => match message[at..].find(", column ") {
            Some(column) => format!("{}, {}", &message[..at], &message[at + column + 2..]),
            None => message[..at].to_owned(),
        },
        None => message.clone(),
    };
    format!("{sqlstate}: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_the_column_and_not_the_line_of_a_piece() {
        let refused = |message: &str| TargetError::Refused {
            doing: "load".into(),
            sqlstate: "22P02".into(),
            message: message.into(),
            constraint: None,
            line: None,
        };
        assert_eq!(reason(&refused("bad \"…\" at line 1, column a")), "22P02: bad \"…\", column a");
        assert_eq!(reason(&refused("extra data at line 1")), "22P02: extra data");
    }
}
