//! Rows of a unit that are kept out: counted, written down, and no more of them than the inventory allows.

use super::{Cargo, Ground, NotLoaded, failed};
use crate::mount::MountError;
use crate::mount::rejects::{self, RejectFile};
use crate::step::{Stage, UnitFailure};

/// The rejects of one unit.
#[derive(Debug)]
pub(super) struct Rejected<'a> {
    ground: Ground<'a>,
    cargo: Cargo<'a>,
    limit: u64,
    rows: u64,
    file: Option<RejectFile>,
}

impl<'a> Rejected<'a> {
    /// None yet, and no more than `limit` of those that do not fit.
    pub(super) fn new(ground: Ground<'a>, cargo: Cargo<'a>, limit: u64) -> Self {
        Self { ground, cargo, limit, rows: 0, file: None }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// A row that does not fit. One more than the limit ends the unit; those up to it are kept.
    pub(super) fn add(&mut self, line: Option<u64>, reason: &str, row: &[u8]) -> Result<(), NotLoaded> {
        self.keep(line, reason, row)?;
        if self.rows <= self.limit {
            return Ok(());
        }
        let (rows, limit) = (self.rows, self.cargo.unit.entry.load.reject_limit);
        self.publish()?;
        let path = self.ground.mount.path(&rejects::path(&self.cargo.unit.key));
        let error = format!(
            "more rows do not fit than `reject_limit` allows ({limit}); rolled back. The first {rows} of them are in {}",
            path.display()
        );
        Err(failed(UnitFailure::new(
            Stage::Load,
            error,
            "look at the reasons in that file; correct the rows or the table, or raise `reject_limit`",
        )))
    }

    /// A row that is kept out whatever the limit.
    pub(super) fn keep(&mut self, line: Option<u64>, reason: &str, row: &[u8]) -> Result<(), NotLoaded> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = self.ground.mount.rejects(&self.cargo.unit.key, self.ground.run);
                self.file.insert(file.map_err(|error| of_mount(&error))?)
            }
        };
        self.rows += 1;
        file.add(line, reason, row).map_err(|error| of_mount(&error))
    }

    /// Puts them where they belong, flushed to disk: before the unit is committed.
    pub(super) fn publish(&mut self) -> Result<(), NotLoaded> {
        match self.file.take() {
            Some(file) => file.publish().map_err(|error| of_mount(&error)),
            None => Ok(()),
        }
    }
}

fn of_mount(error: &MountError) -> NotLoaded {
    let failure = UnitFailure::of_mount(Stage::Load, error);
    failed(UnitFailure { file_is_good: true, ..failure })
}
