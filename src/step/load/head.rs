//! Loading again a file of which only the last part can collide.
//!
//! A COPY that a unique constraint refused at a line has taken all rows before that line: they collide neither with
//! the target nor with each other. So these are copied as they are. Mostly one row was the trouble: that row is staged
//! and sorted, and those after it are copied too. Where another of them is refused, all after the line are staged. Where a
//! staged row has the key of one that was copied, that one goes back to the staged rows. The line is a hint and the
//! constraint is the judge: where it refuses again, or anything of this is not allowed, the whole file is staged.

use super::way::Road;
use super::{NotLoaded, failed, fatal_or_failed, fill, reader};
use crate::gzip::{CheckedReader, GzipError};
use crate::step::{Stage, UnitFailure};
use crate::target::{Clash, Session};

/// The longest row that is held in memory, in bytes.
const LONGEST: usize = 4 << 20;
/// Bytes looked at at a time.
const READ: usize = 64 * 1024;

/// Where an earlier COPY of the same file was refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hint<'a> {
    /// The unique constraint.
    pub(super) constraint: &'a str,
    /// The line of the file.
    pub(super) line: u64,
}

impl Road<'_> {
    /// Stages the row at the line, or else all from there on, with those that have their keys, and copies the others. Says
    /// how many are in the target; `None`, with nothing done, where it is not to be done so.
    pub(super) fn head_and_rest(
        &self,
        session: &mut Session,
        hint: Hint<'_>,
    ) -> Result<Option<u64>, NotLoaded> {
        let mut keys =
            self.shape.uniques.iter().filter_map(|unique| Some((unique, Clash::new(self.way, unique)?)));
        // Of two constraints the first sorts a row before the second sees it, and it has to see all rows for that.
        let (Some((unique, clash)), None) = (keys.next(), keys.next()) else { return Ok(None) };
        if unique.name != hint.constraint {
            return Ok(None);
        }
        let Some((begin, mut after)) = self.from(hint.line)? else { return Ok(None) };
        if let Some(row) = next_row(&mut after).map_err(|error| failed(UnitFailure::of_file(&error)))? {
            match self.tried(session, &clash, begin, Rest::Copied { row, after })? {
                Tried::Done(rows) => return Ok(Some(rows)),
                Tried::Forbidden => return Ok(None),
                Tried::Collides => log::debug!("all rows after line {} are staged", hint.line),
            }
        }
        let Some((_, rest)) = self.from(hint.line)? else { return Ok(None) };
        match self.tried(session, &clash, begin, Rest::Staged(rest))? {
            Tried::Done(rows) => Ok(Some(rows)),
            Tried::Forbidden | Tried::Collides => Ok(None),
        }
    }

    /// Where in the file's data a line begins, in bytes, and what reads from there.
    fn from(&self, line: u64) -> Result<Option<(u64, CheckedReader)>, NotLoaded> {
        let mut reader = reader(self.ground, self.cargo).map_err(failed)?;
        let begin = skip_to(line, &mut reader).map_err(|error| failed(UnitFailure::of_file(&error)))?;
        Ok(begin.map(|begin| (begin, reader)))
    }

    /// [`Road::parts`], with nothing done where it was refused.
    fn tried(
        &self,
        session: &mut Session,
        clash: &Clash<'_>,
        begin: u64,
        rest: Rest,
    ) -> Result<Tried, NotLoaded> {
        session.mark("head").map_err(NotLoaded::SessionLost)?;
        let failure = match self.parts(session, clash, begin, rest) {
            Ok(rows) => {
                session.forget("head").map_err(NotLoaded::SessionLost)?;
                return Ok(Tried::Done(rows));
            }
            Err(NotLoaded::Failed(failure)) => failure,
            Err(lost) => return Err(lost),
        };
        let tried = match failure.sqlstate.as_deref() {
            Some("23505") => Tried::Collides,
            // Another writer has the table now, or nobody may take rows away.
            Some("42501" | "55P03") => Tried::Forbidden,
            _ => return Err(NotLoaded::Failed(failure)),
        };
        log::debug!("not by parts: {}", failure.error);
        session.back_to("head").map_err(NotLoaded::SessionLost)?;
        Ok(tried)
    }

    /// `begin`: where in the file's data the rest begins, in bytes.
    fn parts(
        &self,
        session: &mut Session,
        clash: &Clash<'_>,
        begin: u64,
        rest: Rest,
    ) -> Result<u64, NotLoaded> {
        // What comes into the target from here on is ours: rows of others are never pulled back.
        let Some(lock) = self.way.lock() else {
            let error = "a table that cannot be locked";
            let failure = UnitFailure::new(Stage::Load, error, "stage the whole file");
            return Err(failed(UnitFailure { sqlstate: Some("55P03".into()), ..failure }));
        };
        session.lock_soon(&lock).map_err(fatal_or_failed)?;
        let doing = "stage the rows";
        session.touch_all(&self.way.make_stage(), doing).map_err(fatal_or_failed)?;
        let (stage, into) = (self.way.copied_to(), self.way.into());
        let (staged, after) = match rest {
            Rest::Staged(reader) => (fill::part(session, self.cargo, stage, reader)?, None),
            Rest::Copied { row, after } => {
                let columns = &self.cargo.exported.columns;
                (session.copy_rows(stage, columns, &row).map_err(fatal_or_failed)?, Some(after))
            }
        };
        session.touch_all(&clash.remember(), doing).map_err(fatal_or_failed)?;
        // Those after the line first: where another of them collides, nothing else was done in vain.
        let after = after.map_or(Ok(0), |after| fill::part(session, self.cargo, &into, after))?;
        let head = reader(self.ground, self.cargo).map_err(failed)?.only(..begin);
        let copied = after + fill::part(session, self.cargo, &into, head)?;
        fill::agree(self.ground, self.cargo, copied + staged)?;
        let [look, put, take] = clash.pull_back();
        session.touch(&look, doing).map_err(fatal_or_failed)?;
        let put = session.touch(&put, doing).map_err(fatal_or_failed)?;
        let taken = if put > 0 { session.touch(&take, doing).map_err(fatal_or_failed)? } else { 0 };
        if put == taken {
            return Ok(copied.saturating_sub(taken));
        }
        let error =
            format!("{put} rows go back to the staged ones, and {taken} were taken away; rolled back");
        Err(failed(UnitFailure::new(Stage::Load, error, "run again, and report it as a bug")))
    }
}

/// What came of loading by parts.
enum Tried {
    /// So many rows are in the target.
    Done(u64),
    /// A constraint refused a row.
    Collides,
    /// It is not allowed, or not now.
    Forbidden,
}

/// What becomes of the rows from the line on.
enum Rest {
    /// All of them are staged.
    Staged(CheckedReader),
    /// The first is, and those after it are copied.
    Copied { row: Vec<u8>, after: CheckedReader },
}

/// The row that begins here, with its line end, as it stands in the file; `None` where it is too long to be held, or
/// has no end.
fn next_row(reader: &mut CheckedReader) -> Result<Option<Vec<u8>>, GzipError> {
    let (mut row, mut buffer, mut quoted) = (Vec::new(), vec![0; READ], false);
    while row.len() < LONGEST {
        let n = reader.next(&mut buffer)?;
        if n == 0 {
            return Ok(None);
        }
        let end = buffer[..n].iter().position(|&byte| {
            quoted ^= byte == b'"';
            byte == b'\n' && !quoted
        });
        row.extend_from_slice(&buffer[..end.map_or(n, |end| end + 1)]);
        if let Some(end) = end {
            reader.give_back(&buffer[end + 1..n]);
            return Ok(Some(row));
        }
    }
    Ok(None)
}

/// Reads up to where this line begins, counted from 1 as editors do, and says at which byte that is; `None` where it is
/// not there, or where no row can begin since it is within quotes.
fn skip_to(line: u64, reader: &mut CheckedReader) -> Result<Option<u64>, GzipError> {
    let (mut lines, mut buffer) = (Lines::before(line), vec![0; READ]);
    while !lines.found() {
        match reader.next(&mut buffer)? {
            0 => return Ok(None),
            n => {
                let used = lines.feed(&buffer[..n]);
                reader.give_back(&buffer[used..n]);
            }
        }
    }
    Ok(lines.begin())
}

/// Counts line ends up to a line.
#[derive(Debug)]
struct Lines {
    left: u64,
    at: u64,
    quoted: bool,
}

impl Lines {
    fn before(line: u64) -> Self {
        Self { left: line.saturating_sub(1), at: 0, quoted: false }
    }

    /// Says how many of these bytes stand before the line.
    fn feed(&mut self, bytes: &[u8]) -> usize {
        let count = |bytes: &[u8], wanted: u8| bytes.iter().filter(|&&byte| byte == wanted).count() as u64;
        let ends = count(bytes, b'\n');
        let used = if ends < self.left {
            bytes.len()
        } else {
            let left = usize::try_from(self.left).unwrap_or(usize::MAX);
            let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            left.checked_sub(1).and_then(|before| ends.nth(before)).map_or(0, |(end, _)| end + 1)
        };
        self.left -= ends.min(self.left);
        self.at += used as u64;
        self.quoted ^= count(&bytes[..used], b'"') % 2 == 1;
        used
    }

    fn found(&self) -> bool {
        self.left == 0
    }

    fn begin(&self) -> Option<u64> {
        (!self.quoted).then_some(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(line: u64, text: &str) -> Option<u64> {
        let mut lines = Lines::before(line);
        text.as_bytes().chunks(3).for_each(|some| {
            lines.feed(some);
        });
        lines.begin().filter(|_| lines.found())
    }

    #[test]
    fn a_line_begins_after_those_before_it() {
        assert_eq!(begin(1, "a\nb\n"), Some(0));
        assert_eq!(begin(2, "a\nb\n"), Some(2));
        assert_eq!(begin(3, "ab,\"c\nd\"\"\"\ne\n"), Some(11));
        assert_eq!(begin(4, "a\nb\n"), None);
        // The second line of a row is where no row begins.
        assert_eq!(begin(2, "ab,\"c\nd\"\ne\n"), None);
    }
}
