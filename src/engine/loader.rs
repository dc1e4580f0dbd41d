//! Loaders: as many threads as the target may have sessions, each taking group after group.

use std::collections::HashMap;
use std::thread::Scope;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::{Event, Ground, Shipment, Tell, What, pause, prepare};
use crate::step::load::{Cargo, Group, How, Loaded, diagnose, load_group};
use crate::step::{Stage, UnitFailure};
use crate::target::{Session, TargetError};

/// Files up to this size share a transaction. Compressed bytes.
const SMALL: u64 = 256 * 1024;
/// What one transaction takes at most.
const GROUP_UNITS: usize = 100;
const GROUP_BYTES: u64 = 8 << 20;

/// Starts the loaders; they end when no shipment can come any more.
pub(super) fn spawn<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    ground: Ground<'env>,
    shipments: Receiver<Shipment>,
    tell: &Sender<Event>,
    most: usize,
) {
    let threads = ground.inventory.target.sessions.min(most);
    for _ in 0..threads {
        let (shipments, tell) = (shipments.clone(), Tell(tell.clone()));
        let mut loader = Loader { ground, session: None, tell };
        scope.spawn(move || {
            while let Ok(first) = shipments.recv() {
                let group = gather(first, &shipments, threads);
                if !ground.stop.asked() {
                    loader.group(&group);
                }
            }
        });
    }
}

/// Small files that wait are taken together, but not away from idle siblings. A large one ends its group.
fn gather(first: Shipment, shipments: &Receiver<Shipment>, threads: usize) -> Vec<Shipment> {
    let most = (shipments.len() / threads + 1).min(GROUP_UNITS);
    let mut last = first.exported.trailer.bytes;
    let mut bytes = last;
    let mut group = vec![first];
    while last <= SMALL && bytes < GROUP_BYTES && group.len() < most {
        let Ok(next) = shipments.try_recv() else { break };
        last = next.exported.trailer.bytes;
        bytes += last;
        group.push(next);
    }
    group
}

/// One thread with its own session.
struct Loader<'a> {
    ground: Ground<'a>,
    session: Option<Session>,
    tell: Tell,
}

impl Loader<'_> {
    fn group(&mut self, group: &[Shipment]) {
        let cargo: Vec<Cargo<'_>> = group
            .iter()
            .map(|shipment| Cargo {
                index: shipment.index,
                unit: &self.ground.plan.units[shipment.index],
                exported: &shipment.exported,
            })
            .collect();
        for one in &cargo {
            self.tell.say(one.index, What::Loading);
        }
        if let Err((error, left)) = self.try_once(&cargo) {
            // Whatever it was, each unit now stands for itself.
            for one in &left {
                self.single(*one, cargo.len() == 1, &error);
            }
        }
    }

    /// Loads one unit that its group, or its first try, could not.
    fn single(&mut self, cargo: Cargo<'_>, tried_alone: bool, error: &TargetError) {
        let retries = cargo.unit.entry.export.retries;
        let mut failed = tried_alone.then(|| UnitFailure::of_target(Stage::Load, error));
        for attempt in 1..=retries + 1 {
            if failed.as_ref().is_some_and(|failure| !failure.can_retry) || self.ground.stop.asked() {
                break;
            }
            if failed.is_some() {
                pause(attempt, self.ground.stop);
            }
            match self.try_once(&[cargo]) {
                Ok(()) => return,
                Err((error, _)) => failed = Some(UnitFailure::of_target(Stage::Load, &error)),
            }
        }
        if let Some(failure) = failed {
            self.tell.say(cargo.index, What::Failed(failure));
        }
    }

    /// One try at a group: what of it has no answer yet, and why.
    fn try_once<'c>(&mut self, cargo: &[Cargo<'c>]) -> Result<(), (TargetError, Vec<Cargo<'c>>)> {
        let all = |error| (error, cargo.to_vec());
        let mut session = self.session.take().map_or_else(|| self.open(), Ok).map_err(all)?;
        match load_group(&mut session, self.ground.mount, &self.ground.run.id, cargo) {
            Group::Answered(answers) => {
                let mut usable = true;
                for (one, (_, answer)) in cargo.iter().zip(answers) {
                    usable &= self.answered(&mut session, one, answer, usable);
                }
                self.session = usable.then_some(session);
                Ok(())
            }
            Group::Dead(error) => Err(all(error)),
            Group::Unknown(error) => self.ask_the_load_log(cargo, error),
        }
    }

    /// Tells what became of a unit; says whether the session is still of use.
    fn answered(
        &self,
        session: &mut Session,
        cargo: &Cargo<'_>,
        answer: Result<Loaded, UnitFailure>,
        usable: bool,
    ) -> bool {
        match answer {
            Ok(loaded) => {
                self.tell.say(cargo.index, What::Loaded(loaded));
                usable
            }
            Err(mut failure) => {
                let usable = usable && diagnose(session, self.ground.mount, cargo, &mut failure);
                self.tell.say(cargo.index, What::Failed(failure));
                usable
            }
        }
    }

    /// The answer to COMMIT was lost: what the load log holds was committed, and nothing else was.
    fn ask_the_load_log<'c>(
        &mut self,
        cargo: &[Cargo<'c>],
        lost: TargetError,
    ) -> Result<(), (TargetError, Vec<Cargo<'c>>)> {
        log::warn!("{lost}; asking the load log what became of {} units", cargo.len());
        let mut session = self.open().map_err(|error| (error, cargo.to_vec()))?;
        let mut there = HashMap::new();
        for (source, ids) in prepare::by_source(cargo.iter().map(|one| &one.unit.key)) {
            there.extend(session.already_there(source, &ids).map_err(|error| (error, cargo.to_vec()))?);
        }
        self.session = Some(session);
        let mut left = Vec::new();
        for one in cargo {
            match there.get(&one.unit.key) {
                // This run put them there: it only did not hear so.
                Some(&rows) => {
                    let loaded = Loaded { rows, how: How::Now, took: Duration::ZERO };
                    self.tell.say(one.index, What::Loaded(loaded));
                }
                None => left.push(*one),
            }
        }
        if left.is_empty() { Ok(()) } else { Err((lost, left)) }
    }

    fn open(&self) -> Result<Session, TargetError> {
        Session::open(self.ground.target, &self.ground.inventory.target.log_schema)
    }
}
