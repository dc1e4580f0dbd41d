//! Running the ways of loading: statements whose rows are counted, the staging table, what collides.

use std::io::Read;
use std::time::Duration;

use super::clash::{Clash, Kind};
use super::copy::CHUNK;
use super::modes::Way;
use super::{Session, TargetError};
use crate::sql::Statement;

/// How long is soon: longer than `deadlock_timeout`, after which a vacuum gives way.
const SOON: Duration = Duration::from_secs(3);

/// Rows that collide with one unique constraint, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collisions {
    /// The constraint.
    pub constraint: String,
    /// Rows whose key stands more than once in the file.
    pub twice_in_file: u64,
    /// Rows that are in the target as they are.
    pub identical: u64,
    /// Rows with the key of another row of the target.
    pub different: u64,
    /// Columns that were compared by their text.
    pub by_text: Vec<String>,
    /// The first keys of each kind, `(a, b)=(1, x)`: cell values, so looked up only where an operator asks for them.
    pub keys: Vec<(Kind, String)>,
}

impl Collisions {
    /// All rows that collide.
    pub fn rows(&self) -> u64 {
        self.twice_in_file + self.identical + self.different
    }

    /// Rows of a kind.
    pub fn of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Twice => self.twice_in_file,
            Kind::Identical => self.identical,
            Kind::Different => self.different,
        }
    }
}

impl Session {
    /// Runs a statement of this crate and says how many rows it touched.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn touch(&mut self, sql: &str, doing: &str) -> Result<u64, TargetError> {
        log::debug!("target: {sql}");
        self.client.execute(sql, &[]).map_err(|error| TargetError::of(&error, doing))
    }

    /// Runs statements one after the other; says how many rows the last one touched.
    ///
    /// # Errors
    /// [`TargetError`] of the first that was refused.
    pub fn touch_all(&mut self, statements: &[String], doing: &str) -> Result<u64, TargetError> {
        statements.iter().try_fold(0, |_, sql| self.touch(sql, doing))
    }

    /// Runs an operator's own statement. The extended protocol takes one at a time.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn run_own(&mut self, statement: &Statement, doing: &str) -> Result<(), TargetError> {
        log::debug!("target: {doing}");
        let done = self.client.execute(statement.as_str(), &[]);
        done.map(drop).map_err(|error| TargetError::of(&error, doing))
    }

    /// A number out of a query of one row.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn count(&mut self, sql: &str, doing: &str) -> Result<u64, TargetError> {
        Ok(self.counts(sql, doing)?.0)
    }

    /// Two numbers out of a query of one row; the second is 0 where there is one alone.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn counts(&mut self, sql: &str, doing: &str) -> Result<(u64, u64), TargetError> {
        log::debug!("target: {sql}");
        let row = self.client.query_one(sql, &[]).map_err(|error| TargetError::of(&error, doing))?;
        let number = |n: usize| {
            if n < row.len() { u64::try_from(row.get::<_, i64>(n)).unwrap_or(0) } else { 0 }
        };
        Ok((number(0), number(1)))
    }

    /// Keys out of a query whose columns are texts, each as `(a, b)=(1, x)`.
    pub(super) fn key_texts(&mut self, names: &[String], sql: &str) -> Result<Vec<String>, TargetError> {
        let rows =
            self.client.query(sql, &[]).map_err(|error| TargetError::of(&error, "look colliding keys up"))?;
        let names = names.join(", ");
        let one = |row: &postgres::Row| {
            let values: Vec<String> = (0..row.len())
                .map(|n| row.get::<_, Option<String>>(n).unwrap_or_else(|| "NULL".into()))
                .collect();
            format!("({names})=({})", values.join(", "))
        };
        Ok(rows.iter().map(one).collect())
    }

    /// The first keys that stand more than once in the staged file.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn duplicate_keys(&mut self, way: &Way<'_>, limit: usize) -> Result<Vec<String>, TargetError> {
        self.key_texts(&way.key_names(), &way.first_duplicates(limit))
    }

    /// Copies some rows, as they stand in a file, into a table given as quoted SQL.
    ///
    /// # Errors
    /// [`TargetError`]; the caller rolls back.
    pub fn copy_rows(&mut self, table: &str, columns: &[String], rows: &[u8]) -> Result<u64, TargetError> {
        use std::io::Write;
        let mut writer = self
            .client
            .copy_in(super::copy::statement(table, columns).as_str())
            .map_err(|error| TargetError::of(&error, "start a COPY"))?;
        for piece in rows.chunks(CHUNK) {
            writer.write_all(piece).map_err(|error| super::copy::data_error(&error))?;
        }
        writer.finish().map_err(|error| TargetError::of(&error, "take the rows"))
    }

    /// Lets the sorting of keys use memory until the end of the transaction: with the server's default a million keys go
    /// to disk several times. Greenplum has limits of its own, which stay.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn ease_sorting(&mut self) -> Result<(), TargetError> {
        let jit = if self.facts.compiles() { "; SET LOCAL jit = off" } else { "" };
        let memory = if self.facts.distributes() { "" } else { "SET LOCAL work_mem = '128MB'" };
        self.run(&format!("{memory}{jit}"), "set a limit")
    }

    /// Takes a lock that is of use only where it is to be had soon: a few seconds, in which a server's own cleaning up
    /// makes way. For servers that can limit the wait.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn lock_soon(&mut self, lock: &str) -> Result<(), TargetError> {
        log::debug!("target: {lock}");
        let (soon, usual) = (super::milliseconds(SOON), super::milliseconds(super::LOCK_TIMEOUT));
        let sql = format!("SET LOCAL lock_timeout = {soon}; {lock}; SET LOCAL lock_timeout = {usual}");
        self.run(&sql, "lock the table")
    }

    /// Finds what of the staged rows collides with a constraint. `keys` of each kind are shown.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn sort_out(
        &mut self,
        clash: &Clash<'_>,
        constraint: &str,
        keys: usize,
    ) -> Result<Collisions, TargetError> {
        let doing = "sort colliding keys";
        self.touch_all(&clash.find(), doing)?;
        let mut found = Collisions {
            constraint: constraint.to_owned(),
            by_text: clash.by_text(),
            ..Collisions::default()
        };
        for kind in Kind::ALL {
            let rows = self.count(&clash.count(kind), doing)?;
            match kind {
                Kind::Twice => found.twice_in_file = rows,
                Kind::Identical => found.identical = rows,
                Kind::Different => found.different = rows,
            }
            if rows > 0 && keys > 0 {
                let first = self.key_texts(&clash.key_names(), &clash.first(kind, keys))?;
                found.keys.extend(first.into_iter().map(|key| (kind, key)));
            }
        }
        Ok(found)
    }

    /// Reads the rows of a kind, as CSV, piece by piece.
    ///
    /// # Errors
    /// [`TargetError`]; `Err` of `take` ends it as such.
    pub fn read_out<E: From<TargetError>>(
        &mut self,
        clash: &Clash<'_>,
        kind: Kind,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let of = |error: &postgres::Error| TargetError::of(error, "write colliding rows out");
        let mut rows = self.client.copy_out(clash.write_out(kind).as_str()).map_err(|error| of(&error))?;
        let mut piece = vec![0; CHUNK];
        loop {
            match rows.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(n) => take(&piece[..n])?,
                Err(error) => return Err(super::copy::data_error(&error).into()),
            }
        }
    }
}
