//! Primary keys that are built after the rows: which are owed, when the last unit of a table has its answer, and the
//! building.
//!
//! The loader that brings the last unit of a table in builds its key, so that target sessions stay within their limit and
//! other tables go on. What is left in the end, since a unit failed on its way or nothing of a table was due, is built
//! when the loaders are done. After a stop nothing more is built: the next run does it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::tables::cancel_on;
use super::{ASKED, Ground, Halves, locked, pause};
use crate::failure::Failure;
use crate::inventory::LoadRule;
use crate::names::TableName;
use crate::owed::OwedKey;
use crate::plan::{key_can_wait, means_target};
use crate::stop::Stop;
use crate::target::{KeyError, Session, TargetError};
use crate::unit::Unit;

/// What came of a key that was owed.
#[derive(Debug, Clone)]
pub struct KeyEnd {
    /// Which.
    pub key: OwedKey,
    /// How long it took.
    pub took: Duration,
    /// Why it could not be built: what failed, and what to try.
    pub failure: Option<(String, String)>,
}

/// What is owed, and how many units of each table have no answer yet.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<HashMap<TableName, Work>>);

/// A key to build.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub(super) key: OwedKey,
    /// How long to wait for the table.
    lock: Duration,
    left: usize,
}

/// All that is owed in the target: what comments on tables say, and what the ledger remembers besides.
pub(super) fn owed(session: &mut Session, remembered: &[OwedKey]) -> Result<Vec<OwedKey>, TargetError> {
    let mut owed = session.owed_keys()?;
    for one in remembered {
        if !owed.iter().any(|told| told.table == one.table) && session.still_owes(one)? {
            owed.push(one.clone());
        }
    }
    Ok(owed)
}

/// Of what is owed, those keys that this run builds: first those that cannot wait for the units to come, then the others.
pub(super) fn sorted(ground: Ground<'_>, owed: &[OwedKey], units: &[&Unit]) -> (Vec<Work>, Vec<Work>) {
    let (mut first, mut later) = (Vec::new(), Vec::new());
    if ground.halves == Halves::Export {
        return (first, later);
    }
    for key in owed {
        let of: Vec<&Unit> = units.iter().filter(|unit| unit.target == key.table).copied().collect();
        if of.is_empty() && !means_target(ground.inventory, ground.selection, &key.table) {
            continue;
        }
        let lock = of.first().map_or(LoadRule::default().lock_timeout, |unit| unit.entry.load.lock_timeout);
        let work = Work { key: key.clone(), lock, left: of.len() };
        if key_can_wait(of) { later.push(work) } else { first.push(work) }
    }
    (first, later)
}

impl Keys {
    pub(super) fn new(later: Vec<Work>) -> Self {
        Self(Mutex::new(later.into_iter().map(|work| (work.key.table.clone(), work)).collect()))
    }

    /// A unit of this table has its answer: the key to build now, where it was the last.
    pub(super) fn answered(&self, table: &TableName) -> Option<Work> {
        let mut owed = locked(&self.0);
        let work = owed.get_mut(table)?;
        work.left = work.left.saturating_sub(1);
        if work.left == 0 { owed.remove(table) } else { None }
    }

    /// Does this table get its key after its rows?
    pub(super) fn come_later(&self, table: &TableName) -> bool {
        locked(&self.0).contains_key(table)
    }

    /// What nobody has begun to build.
    pub(super) fn rest(&self) -> Vec<Work> {
        let mut rest: Vec<Work> = locked(&self.0).drain().map(|(_, work)| work).collect();
        rest.sort_by(|one, other| one.key.cmp(&other.key));
        rest
    }
}

/// Builds a key, with another try where that may help. `None` after a stop: it is still owed then.
///
/// `session` is taken out of its place, and put back where it is of use; `open` opens one.
pub(super) fn build(
    work: &Work,
    stop: &Stop,
    place: &mut Option<Session>,
    mut open: impl FnMut() -> Result<Session, TargetError>,
) -> Option<KeyEnd> {
    let begin = Instant::now();
    log::debug!("building the primary key of {}", work.key.table);
    let mut attempt = 1;
    let failed = loop {
        if stop.asked() {
            return None;
        }
        let mut once = || -> Result<(), KeyError> {
            let mut session = place.take().map_or_else(&mut open, Ok)?;
            session.build_key(&work.key, work.lock)?;
            *place = Some(session);
            Ok(())
        };
        match once() {
            Ok(()) => break None,
            Err(KeyError::Target(error)) if attempt < ASKED && error.can_retry() => {
                log::warn!("{error} (attempt {attempt}; trying again)");
                pause(attempt, stop);
                attempt += 1;
            }
            // What a stop cancelled has not failed.
            Err(_) if stop.asked() => return None,
            Err(error) => break Some((error.to_string(), error.remedy())),
        }
    };
    Some(KeyEnd { key: work.key.clone(), took: begin.elapsed(), failure: failed })
}

/// Builds keys one after the other, apart from the loaders.
///
/// # Errors
/// Those of `told`.
pub(super) fn build_all(
    ground: Ground<'_>,
    all: &[Work],
    mut told: impl FnMut(KeyEnd) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (stop, mut session) = (ground.stop, None);
    for work in all {
        let open = || Session::open(ground.target, &ground.inventory.target.log_schema);
        // Opened here, so that there is something to cancel.
        if session.is_none() {
            session = open().ok();
        }
        let canceller = session.as_ref().map(Session::canceller);
        let ended = std::thread::scope(|scope| {
            let (working, done) = bounded(0);
            if let Some(canceller) = canceller {
                scope.spawn(move || cancel_on(stop, &canceller, &done));
            }
            let ended = build(work, stop, &mut session, open);
            drop(working);
            ended
        });
        ended.map_or(Ok(()), &mut told)?;
    }
    Ok(())
}
