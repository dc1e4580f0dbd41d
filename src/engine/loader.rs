//! Loaders: as many threads as the target may have sessions, each taking group after group.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::crowd::{Crowds, most_of_a_table};
use super::keys::{self, Keys};
use super::{Event, Ground, Shipment, Tell, What, locked, pause, prepare};
use crate::names::TableName;
use crate::step::UnitFailure;
use crate::step::load::{self, Cargo, Group, How, Inlets, Loaded, Mended, Reads, load_group, mend};
use crate::stop::Stop;
use crate::target::{Canceller, Session, TargetError};

/// How long a load may go on after a stop was asked for.
const GRACE: Duration = Duration::from_secs(5);
/// How much longer than the server's own limit a load may take before it is cancelled from here.
const CANCEL_AFTER: Duration = Duration::from_secs(10);
/// How often the watcher looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Files up to this size share a transaction. Compressed bytes.
const SMALL: u64 = 256 * 1024;
/// What one transaction takes at most.
const GROUP_UNITS: usize = 100;
const GROUP_BYTES: u64 = 8 << 20;

/// What the loaders share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Set once the target took no session in all the attempts of a unit: the others would fare no better.
    target_down: AtomicBool,
    /// How to cancel what each thread's session is doing.
    cancellers: Mutex<HashMap<usize, Canceller>>,
    /// Primary keys that are built after the rows.
    pub(super) keys: Keys,
    /// Which tables are being loaded by several.
    crowds: Crowds<Shipment>,
    /// When each thread's load has taken longer than it may.
    overdue: Mutex<HashMap<usize, Instant>>,
    /// How files get into their tables.
    inlets: Inlets,
}

impl Shared {
    /// Of loaders that build these keys, and that let files in by these ways.
    pub(super) fn new(keys: Keys, inlets: Inlets) -> Self {
        Self {
            target_down: AtomicBool::default(),
            cancellers: Mutex::default(),
            keys,
            crowds: Crowds::default(),
            overdue: Mutex::default(),
            inlets,
        }
    }

    /// Sees that a stop ends: loads may finish for a while, then their statements are cancelled. Returns when
    /// `done` is closed.
    pub(super) fn watch(&self, stop: &Stop, done: &Receiver<()>) {
        let mut asked: Option<Instant> = None;
        while done.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            self.cancel_overdue();
            if !stop.asked() {
                continue;
            }
            if asked.get_or_insert_with(Instant::now).elapsed() >= GRACE {
                let cancellers: Vec<Canceller> = locked(&self.cancellers).values().cloned().collect();
                cancellers.iter().for_each(Canceller::cancel);
            }
        }
    }
}

impl Shared {
    /// The server has the same limit and comes first, unless it is too busy to notice.
    fn cancel_overdue(&self) {
        let now = Instant::now();
        let mut late: Vec<usize> = Vec::new();
        locked(&self.overdue).retain(|&thread, at| {
            if now >= *at {
                late.push(thread);
            }
            now < *at
        });
        for thread in late {
            let canceller = locked(&self.cancellers).get(&thread).cloned();
            log::warn!("a load took longer than `load.timeout` allows, and is cancelled");
            canceller.iter().for_each(Canceller::cancel);
        }
    }
}

/// Starts the loaders; they end when no shipment can come any more.
pub(super) fn spawn<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    ground: Ground<'env>,
    shared: &'env Shared,
    shipments: Receiver<Shipment>,
    tell: &Sender<Event>,
    most: usize,
) {
    let threads = ground.inventory.target.sessions.min(most);
    for thread in 0..threads {
        let (shipments, tell) = (shipments.clone(), Tell(tell.clone()));
        let reads = Reads::new({
            let tell = tell.clone();
            move |unit, bytes| tell.say(unit, What::Read(bytes))
        });
        let mut loader = Loader { ground, thread, shared, session: None, tell, reads };
        scope.spawn(move || {
            let mut left = None;
            while let Some(first) = left.take().or_else(|| shipments.recv().ok()) {
                let table = &ground.plan.units[first.index].target;
                let locks = |one: &Shipment| ground.plan.units[one.index].entry.load.mode.locks_table();
                if locks(&first) {
                    loader.one_of_a_crowd(table, first, 1);
                } else if first.exported.trailer.bytes > SMALL {
                    let all = shared.keys.come_later(table);
                    let most = if all { threads } else { most_of_a_table(threads) };
                    loader.one_of_a_crowd(table, first, most);
                } else {
                    let group;
                    (group, left) = gather(first, &shipments, threads, locks, |one| {
                        ground.plan.units[one.index].entry.load.is_plain()
                    });
                    loader.all(&group);
                }
            }
        });
    }
}

/// Small files that wait are taken together, but not away from idle siblings. A large one ends its group, and so does one
/// that runs statements of an operator. One that locks its table is none of the group: it is handed back.
fn gather(
    first: Shipment,
    shipments: &Receiver<Shipment>,
    threads: usize,
    locks: impl Fn(&Shipment) -> bool,
    is_plain: impl Fn(&Shipment) -> bool,
) -> (Vec<Shipment>, Option<Shipment>) {
    let most = (shipments.len() / threads + 1).min(GROUP_UNITS);
    let mut last = first.exported.trailer.bytes;
    let mut bytes = last;
    let mut plain = is_plain(&first);
    let mut group = vec![first];
    while plain && last <= SMALL && bytes < GROUP_BYTES && group.len() < most {
        let Ok(next) = shipments.try_recv() else { break };
        if locks(&next) {
            return (group, Some(next));
        }
        last = next.exported.trailer.bytes;
        bytes += last;
        plain = is_plain(&next);
        group.push(next);
    }
    (group, None)
}

/// One thread with its own session.
struct Loader<'a> {
    ground: Ground<'a>,
    thread: usize,
    shared: &'a Shared,
    session: Option<Session>,
    tell: Tell,
    reads: Reads,
}

impl Loader<'_> {
    /// A file of which `most` of its table may be loaded at once, and those that are put aside meanwhile.
    fn one_of_a_crowd(&mut self, table: &TableName, first: Shipment, most: usize) {
        let crowds = &self.shared.crowds;
        let mut next = crowds.enter(table, first, most);
        while let Some(shipment) = next {
            self.all(&[shipment]);
            next = crowds.leave(table);
        }
    }

    /// A group and the keys that are due after it. What is not loaded stays on the mount, and the next run finds it there.
    fn all(&mut self, group: &[Shipment]) {
        if !self.ground.stop.asked() && !self.shared.target_down.load(Ordering::SeqCst) {
            self.group(group);
            self.keys(group);
        }
    }

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
        let began = Instant::now();
        if let Err((error, left)) = self.try_once(&cargo) {
            // Whatever it was, each unit now stands for itself.
            for one in &left {
                self.single(*one, cargo.len() == 1, &error, began);
            }
        }
    }

    /// Builds the keys of tables whose last unit has its answer now.
    fn keys(&mut self, group: &[Shipment]) {
        for shipment in group {
            let unit = &self.ground.plan.units[shipment.index];
            let Some(work) = self.shared.keys.answered(&unit.target) else { continue };
            if self.ground.stop.asked() || self.shared.target_down.load(Ordering::SeqCst) {
                continue;
            }
            self.tell.say(shipment.index, What::Keying);
            let mut session = self.session.take();
            let ended = keys::build(&work, self.ground.stop, &mut session, || self.open());
            self.session = session;
            ended.into_iter().for_each(|ended| self.tell.say(shipment.index, What::Keyed(ended)));
        }
    }

    /// Loads one unit that its group, or its first try, could not.
    fn single(&mut self, cargo: Cargo<'_>, tried_alone: bool, error: &TargetError, began: Instant) {
        let retries = cargo.unit.entry.export.retries;
        let failure = |error: &TargetError, began: Instant| {
            (load::failure(error, &cargo.unit.entry.load, began.elapsed()), error.is_unreachable())
        };
        let mut failed = tried_alone.then(|| failure(error, began));
        for attempt in 1..=retries + 1 {
            if failed.as_ref().is_some_and(|(failure, _)| !failure.can_retry) || self.ground.stop.asked() {
                break;
            }
            if let Some((failure, _)) = &failed {
                log::warn!("{}: {} (attempt {attempt}; trying again)", cargo.unit.key, failure.error);
                self.tell.say(cargo.index, What::Retrying(failure.clone()));
                pause(attempt, self.ground.stop);
                if self.ground.stop.asked() {
                    break;
                }
            }
            self.tell.say(cargo.index, What::Loading);
            let began = Instant::now();
            match self.try_once(&[cargo]) {
                Ok(()) => return,
                Err((error, _)) => failed = Some(failure(&error, began)),
            }
        }
        let cut_short = |failure: &UnitFailure| failure.can_retry || failure.cancelled();
        if self.ground.stop.asked() && failed.as_ref().is_none_or(|(failure, _)| cut_short(failure)) {
            // What a stop cut short has not failed: its file waits.
            return self.tell.say(cargo.index, What::Left);
        }
        if let Some((failure, down)) = failed {
            if down && !self.ground.stop.asked() {
                self.shared.target_down.store(true, Ordering::SeqCst);
            }
            self.tell.say(cargo.index, What::Failed(failure));
        }
    }

    /// One try at a group: what of it has no answer yet, and why.
    fn try_once<'c>(&mut self, cargo: &[Cargo<'c>]) -> Result<(), (TargetError, Vec<Cargo<'c>>)> {
        let all = |error| (error, cargo.to_vec());
        let mut session = self.session.take().map_or_else(|| self.open(), Ok).map_err(all)?;
        let longest: Duration = cargo.iter().map(|one| one.unit.entry.load.timeout).sum();
        let overdue = Instant::now().checked_add(longest + CANCEL_AFTER);
        overdue.map(|at| locked(&self.shared.overdue).insert(self.thread, at));
        let loaded = load_group(&mut session, self.step(), cargo);
        locked(&self.shared.overdue).remove(&self.thread);
        match loaded {
            Group::Answered(answers) => {
                let mut usable = true;
                for (one, (_, answer)) in cargo.iter().zip(answers) {
                    usable = self.answered(&mut session, one, answer, usable);
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
        &mut self,
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
            Err(failure) if self.ground.stop.asked() && failure.cancelled() => {
                self.tell.say(cargo.index, What::Left);
                usable
            }
            Err(mut failure) => {
                if !usable || failure.constraint.is_none() {
                    self.tell.say(cargo.index, What::Failed(failure));
                    return usable;
                }
                let (mended, usable) = mend(session, self.step(), cargo, &mut failure);
                match mended {
                    Mended::Loaded(loaded) => self.tell.say(cargo.index, What::Loaded(loaded)),
                    Mended::Failed => self.tell.say(cargo.index, What::Failed(failure)),
                    Mended::Unknown(error) => {
                        if self.ask_the_load_log(&[*cargo], error).is_err() {
                            self.tell.say(cargo.index, What::Failed(failure));
                        }
                    }
                }
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
        there.retain(|_, row| self.ground.anew.is_none_or(|anew| anew.wrote(row)));
        self.session = Some(session);
        let mut left = Vec::new();
        for one in cargo {
            match there.get(&one.unit.key) {
                // This run put them there: it only did not hear so.
                Some(row) => {
                    let told = load::found(one.unit, row, How::Now).map_or_else(What::Failed, What::Loaded);
                    self.tell.say(one.index, told);
                }
                None => left.push(*one),
            }
        }
        if left.is_empty() { Ok(()) } else { Err((lost, left)) }
    }

    fn step(&self) -> load::Ground<'_> {
        let Ground { mount, run, stop, inventory, show_keys, anew, .. } = self.ground;
        let (run, zone, reads, inlets) = (&run.id, &inventory.timezone, &self.reads, &self.shared.inlets);
        load::Ground { mount, run, stop, zone, show_keys, reads, anew, inlets }
    }

    fn open(&self) -> Result<Session, TargetError> {
        let session = Session::open(self.ground.target, &self.ground.inventory.target.log_schema)?;
        locked(&self.shared.cancellers).insert(self.thread, session.canceller());
        Ok(session)
    }
}
