//! What workers tell: the one stream that ledger, progress and report read.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::keys::KeyEnd;
use crate::mount::Exported;
use crate::step::UnitFailure;
use crate::step::load::Loaded;

/// Something happened to a unit, named by its place in the plan.
#[derive(Debug, Clone)]
pub struct Event {
    /// Place of the unit in the plan.
    pub unit: usize,
    /// What happened.
    pub what: What,
}

/// What happened to a unit.
#[derive(Debug, Clone)]
pub enum What {
    /// An attempt at exporting it began.
    Exporting {
        /// Which attempt of this run, from 1.
        attempt: u32,
        /// When.
        at: Timestamp,
    },
    /// Its file is published.
    Exported {
        /// The proof.
        exported: Arc<Exported>,
        /// How long it took.
        took: Duration,
    },
    /// An earlier run published its file, and it is loaded from there.
    Resumed(Arc<Exported>),
    /// Its load began.
    Loading,
    /// So many compressed bytes of its file have been read by its load: a few times a second, for large files only.
    Read(u64),
    /// Its rows are in the target.
    Loaded(Loaded),
    /// An attempt failed and another one follows.
    Retrying(UnitFailure),
    /// A stop came first: the next run goes on from where it stands.
    Left,
    /// It is given up, for this run.
    Failed(UnitFailure),
    /// It was not begun, since its job's `hours` are over.
    Closed,
    /// It was the last of its table, whose primary key is built now.
    Keying,
    /// That has ended.
    Keyed(KeyEnd),
}
