//! Units that are loaded again, in the place of what the target holds of them.
//!
//! Their rows, and what the load log says of them, are replaced in one transaction, so a crash at any instant leaves the
//! one or the other. A load log row of such a unit proves nothing by itself: only one of this run does.

use std::collections::HashMap;

use super::{Cargo, NotLoaded, failed, fatal_or_failed};
use crate::step::{Stage, UnitFailure};
use crate::target::{LogRow, Session};

/// What a window of the target held when it was compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Asks for it: a bucket, the number of rows, the sum of their digests.
    pub sql: String,
    /// The number of rows.
    pub rows: u64,
    /// The sum of their digests.
    pub sum: u128,
}

/// Units that are loaded again.
#[derive(Debug, Clone, Default)]
pub struct Anew {
    /// The run that does so.
    pub run: String,
    /// What must still be so, by unit: what is not in the source would be taken away.
    pub proofs: HashMap<String, Proof>,
}

impl Anew {
    /// Did this run write that row of the load log?
    pub fn wrote(&self, row: &LogRow) -> bool {
        row.run == self.run
    }

    /// Sees that a window is as it was compared, once nobody can change it any more.
    pub(super) fn check(&self, session: &mut Session, cargo: &Cargo<'_>) -> Result<(), NotLoaded> {
        let Some(proof) = self.proofs.get(&cargo.unit.key.id) else { return Ok(()) };
        let doing = "see that the window is as it was compared";
        let (rows, sum) = session.rows_and_sum(&proof.sql, doing).map_err(fatal_or_failed)?;
        if (rows, sum) == (proof.rows, proof.sum) {
            return Ok(());
        }
        let error = format!(
            "{} is not as it was compared in this window: {} rows then, {rows} now; nothing was taken away",
            cargo.unit.target, proof.rows
        );
        let remedy = "run `gpferry repair` again: it compares first";
        Err(failed(UnitFailure { own: false, ..UnitFailure::new(Stage::Load, error, remedy) }))
    }
}
