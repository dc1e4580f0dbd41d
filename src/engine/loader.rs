//! Loaders: as many threads as the target may have sessions, each taking group after group.

use std::thread::Scope;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::{Event, Ground, Shipment, Tell, What, pause};
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

/// Small files that wait are taken together, but not away from idle siblings.
fn gather(first: Shipment, shipments: &Receiver<Shipment>, threads: usize) -> Vec<Shipment> {
    let most = (shipments.len() / threads + 1).min(GROUP_UNITS);
    let mut bytes = first.exported.trailer.bytes;
    let mut group = vec![first];
    while bytes <= SMALL.max(bytes) && group.len() < most && bytes < GROUP_BYTES {
        if group.last().is_some_and(|last| last.exported.trailer.bytes > SMALL) {
            break;
        }
        let Ok(next) = shipments.try_recv() else { break };
        bytes += next.exported.trailer.bytes;
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
        if let Some(error) = self.try_once(&cargo) {
            // Whatever it was, each unit now stands for itself.
            for one in &cargo {
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
            if attempt > 1 || tried_alone {
                pause(attempt, self.ground.stop);
            }
            match self.try_once(&[cargo]) {
                None => return,
                Some(error) => failed = Some(UnitFailure::of_target(Stage::Load, &error)),
            }
        }
        if let Some(failure) = failed {
            self.tell.say(cargo.index, What::Failed(failure));
        }
    }

    /// One try at a group. `None`: every unit has its answer.
    fn try_once(&mut self, cargo: &[Cargo<'_>]) -> Option<TargetError> {
        let mut session = match self.session.take().map_or_else(|| self.open(), Ok) {
            Ok(session) => session,
            Err(error) => return Some(error),
        };
        match load_group(&mut session, self.ground.mount, &self.ground.run.id, cargo) {
            Group::Answered(answers) => {
                let mut usable = true;
                for (one, (_, answer)) in cargo.iter().zip(answers) {
                    usable &= self.answered(&mut session, one, answer, usable);
                }
                self.session = usable.then_some(session);
                None
            }
            Group::Dead(error) => Some(error),
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
                true
            }
            Err(mut failure) => {
                let usable = !usable || diagnose(session, self.ground.mount, cargo, &mut failure);
                self.tell.say(cargo.index, What::Failed(failure));
                usable
            }
        }
    }

    /// The answer to COMMIT was lost. A unit that the load log holds is loaded; if it holds none, nothing was.
    fn ask_the_load_log(&mut self, cargo: &[Cargo<'_>], lost: TargetError) -> Option<TargetError> {
        log::warn!("{lost}: asking the load log what became of {} units", cargo.len());
        let mut session = match self.open() {
            Ok(session) => session,
            Err(error) => return Some(error),
        };
        let first = cargo.first()?;
        let ids: Vec<&str> = cargo.iter().map(|one| one.unit.key.id.as_str()).collect();
        match session.already_there(&first.unit.key.source, &ids) {
            Ok(there) if there.is_empty() => Some(lost),
            Ok(_) => {
                // They committed together; a group is of one transaction. Each is looked up by its own claim.
                self.session = Some(session);
                self.try_again_known(cargo)
            }
            Err(error) => Some(error),
        }
    }

    /// Loads a group again of which some units are known to be in the target: their claims say so.
    fn try_again_known(&mut self, cargo: &[Cargo<'_>]) -> Option<TargetError> {
        let mut session = self.session.take()?;
        match load_group(&mut session, self.ground.mount, &self.ground.run.id, cargo) {
            Group::Answered(answers) => {
                for (one, (_, answer)) in cargo.iter().zip(answers) {
                    // This run put them there: it only did not hear so.
                    let answer = answer.map(|loaded| Loaded {
                        how: How::Now,
                        took: Duration::ZERO.max(loaded.took),
                        ..loaded
                    });
                    self.answered(&mut session, one, answer, false);
                }
                self.session = Some(session);
                None
            }
            Group::Dead(error) | Group::Unknown(error) => Some(error),
        }
    }

    fn open(&self) -> Result<Session, TargetError> {
        Session::open(self.ground.target, &self.ground.inventory.target.log_schema)
    }
}
