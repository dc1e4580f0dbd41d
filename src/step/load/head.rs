//! Loading again a file of which only the last part can collide.
//!
//! A COPY that a unique constraint refused at a line has taken all rows before that line: they collide neither with
//! the target nor with each other. So these are copied as they are, and only the rest is staged and sorted; where a
//! row of the rest has the key of one before, that one goes back to the staged rows. The line is a hint and the
//! constraint is the judge: where it refuses again, or anything of this is not allowed, the whole file is staged.

use super::way::Road;
use super::{NotLoaded, failed, fatal_or_failed, fill, reader};
use crate::gzip::{CheckedReader, GzipError};
use crate::step::{Stage, UnitFailure};
use crate::target::{Clash, Session};

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
    /// Copies the rows before the line, and stages the others with those that have their keys. Says how many are in the
    /// target; `None`, with nothing done, where it is not to be done so.
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
        let mut rest = reader(self.ground, self.cargo).map_err(failed)?;
        let found = skip_to(hint.line, &mut rest);
        let Some(begin) = found.map_err(|error| failed(UnitFailure::of_file(&error)))? else {
            return Ok(None);
        };
        session.mark("head").map_err(NotLoaded::SessionLost)?;
        match self.parts(session, &clash, begin, rest) {
            Ok(rows) => {
                session.forget("head").map_err(NotLoaded::SessionLost)?;
                Ok(Some(rows))
            }
            // Another writer was there, or has the table now; or nobody may take rows away.
            Err(NotLoaded::Failed(failure))
                if matches!(failure.sqlstate.as_deref(), Some("23505" | "42501" | "55P03")) =>
            {
                log::debug!("the whole file is staged: {}", failure.error);
                session.back_to("head").map_err(NotLoaded::SessionLost)?;
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// `begin`: where in the file's data the rest begins, in bytes.
    fn parts(
        &self,
        session: &mut Session,
        clash: &Clash<'_>,
        begin: u64,
        rest: CheckedReader,
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
        let rest = fill::part(session, self.cargo, stage, rest)?;
        session.touch_all(&clash.remember(), doing).map_err(fatal_or_failed)?;
        let head = reader(self.ground, self.cargo).map_err(failed)?.only(..begin);
        let head = fill::part(session, self.cargo, &into, head)?;
        fill::agree(self.ground, self.cargo, head + rest)?;
        let [look, put, take] = clash.pull_back();
        session.touch(&look, doing).map_err(fatal_or_failed)?;
        let put = session.touch(&put, doing).map_err(fatal_or_failed)?;
        let taken = if put > 0 { session.touch(&take, doing).map_err(fatal_or_failed)? } else { 0 };
        if put == taken {
            return Ok(head.saturating_sub(taken));
        }
        let error =
            format!("{put} rows go back to the staged ones, and {taken} were taken away; rolled back");
        Err(failed(UnitFailure::new(Stage::Load, error, "run again, and report it as a bug")))
    }
}

/// Reads up to where this line begins, counted from 1 as editors do, and says at which byte that is; `None` where it is
/// the first, is not there, or where no row can begin since it is within quotes.
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
        (self.at > 0 && !self.quoted).then_some(self.at)
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
        assert_eq!(begin(1, "a\nb\n"), None);
        assert_eq!(begin(2, "a\nb\n"), Some(2));
        assert_eq!(begin(3, "ab,\"c\nd\"\"\"\ne\n"), Some(11));
        assert_eq!(begin(4, "a\nb\n"), None);
        // The second line of a row is where no row begins.
        assert_eq!(begin(2, "ab,\"c\nd\"\ne\n"), None);
    }
}
