//! Exporters: per source as many threads as it may have sessions, each taking batch after batch.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::Duration;

use crossbeam_channel::Sender;
use jiff::Timestamp;

use super::{Event, Ground, Shipment, Tell, Waiting, What, locked, pause, prepare};
use crate::engine::Halves;
use crate::inventory::Source;
use crate::mount::Manifest;
use crate::remote::ssh::Pooled;
use crate::source::{Line, Script, SourceError};
use crate::step::export::{self, Order, Outcome, export};
use crate::step::snapshot::Ticket;
use crate::step::{Stage, UnitFailure};
use crate::unit::Unit;

/// Small units that one run of the script takes: what starting one costs is spread over them.
const SMALL_BATCH: usize = 4096;
/// The same where hours may end, since what is in a batch is begun with it; and for scripts of the user's own, one of
/// which may want to read a batch to its end before it begins.
const SMALL_BATCH_AT_ONCE: usize = export::AHEAD;
/// Others that share one run of the script and one database session.
const BATCH: usize = 8;

/// How often an exporter that waits for loads looks again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the exporters of one source share.
struct Queue<'a> {
    batches: Mutex<VecDeque<Batch<'a>>>,
    /// Set once the host is given up, so that it is not tried again for every unit.
    down: Mutex<Option<UnitFailure>>,
    /// Some session has had an answer: then one that fails says nothing of the host.
    worked: AtomicBool,
}

/// What one run of the script takes.
struct Batch<'a> {
    orders: Vec<Order<'a>>,
    /// For slices that are read in one state with those of other batches.
    ticket: Option<Ticket>,
}

/// Starts the exporters of every source.
pub(super) fn spawn<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    ground: Ground<'env>,
    manifest: &'env Mutex<Manifest>,
    orders: Vec<Order<'env>>,
    sharing: &HashSet<String>,
    ship: &Sender<Shipment>,
    tell: &Sender<Event>,
) {
    let waiting = Waiting::default();
    let mut by_source: BTreeMap<&str, Vec<Order<'env>>> = BTreeMap::new();
    for order in orders {
        by_source.entry(&order.unit.key.source).or_default().push(order);
    }
    for source in &ground.inventory.sources {
        let Some(orders) = by_source.remove(source.name.as_str()) else { continue };
        let shares = sharing.contains(&source.name) && source.script.is_none();
        let has_hours = |unit: &Unit| ground.hours(unit).is_some();
        let batches = batches(orders, source.sessions, shares, source.script.is_none(), &has_hours);
        let threads = source.sessions.min(batches.len());
        let queue = std::sync::Arc::new(Queue {
            batches: Mutex::new(batches),
            down: Mutex::new(None),
            worked: AtomicBool::new(false),
        });
        for _ in 0..threads {
            let (queue, ship, tell) = (std::sync::Arc::clone(&queue), ship.clone(), Tell(tell.clone()));
            let waiting = waiting.clone();
            scope.spawn(move || Exporter::new(ground, source, manifest, ship, waiting, tell).work(&queue));
        }
    }
}

/// Units that are not small come first: they take longest. Those of one batch share its attempts and the time
/// limit of its session, so they are of one mind about both.
fn batches<'a>(
    orders: Vec<Order<'a>>,
    sessions: usize,
    shares: bool,
    bundled: bool,
    has_hours: &dyn Fn(&Unit) -> bool,
) -> VecDeque<Batch<'a>> {
    let mut alike: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut sliced: BTreeMap<usize, Vec<_>> = BTreeMap::new();
    for order in orders {
        if let Some(of) = order.slice_of {
            sliced.entry(of).or_default().push(order);
            continue;
        }
        let rule = &order.unit.entry.export;
        // What is in a batch is begun with it: where hours may end, large units stand alone.
        let most = match (order.small, has_hours(order.unit)) {
            (true, false) if bundled => SMALL_BATCH,
            (true, _) => SMALL_BATCH_AT_ONCE,
            (false, true) => 1,
            (false, false) => BATCH,
        };
        alike.entry((most, rule.timeout, rule.retries)).or_default().push(order);
    }
    let mut batches: VecDeque<Batch<'_>> =
        sliced.into_values().flat_map(|slices| beside(slices, sessions, shares, has_hours)).collect();
    for ((most, ..), orders) in alike {
        let size = orders.len().div_ceil(sessions.max(1)).clamp(1, most);
        let mut orders = orders.into_iter().peekable();
        while orders.peek().is_some() {
            batches.push_back(Batch { orders: orders.by_ref().take(size).collect(), ticket: None });
        }
    }
    batches
}

/// The batches of a unit's slices, one for each session, so that they run side by side. Where hours may end, each slice
/// stands alone; but where there is one session, who leads would wait for ever for who joins.
fn beside<'a>(
    slices: Vec<Order<'a>>,
    sessions: usize,
    shares: bool,
    has_hours: &dyn Fn(&Unit) -> bool,
) -> Vec<Batch<'a>> {
    let alone = sessions > 1 && slices.iter().any(|order| has_hours(order.unit));
    let many = if alone { slices.len() } else { slices.len().min(sessions.max(1)) };
    let mut batches: Vec<Vec<_>> = std::iter::repeat_with(Vec::new).take(many).collect();
    for (n, order) in slices.into_iter().enumerate() {
        batches[n % many].push(order);
    }
    let tickets = if shares { Ticket::of(many) } else { Vec::new() };
    let tickets = tickets.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
    batches.into_iter().zip(tickets).map(|(orders, ticket)| Batch { orders, ticket }).collect()
}

/// One thread with its own SSH session.
struct Exporter<'a> {
    ground: Ground<'a>,
    source: &'a Source,
    script: Script,
    manifest: &'a Mutex<Manifest>,
    remote: Option<Pooled>,
    ship: Sender<Shipment>,
    waiting: Waiting,
    tell: Tell,
}

impl<'a> Exporter<'a> {
    fn new(
        ground: Ground<'a>,
        source: &'a Source,
        manifest: &'a Mutex<Manifest>,
        ship: Sender<Shipment>,
        waiting: Waiting,
        tell: Tell,
    ) -> Self {
        Self {
            ground,
            source,
            script: Script::exporting(source),
            manifest,
            remote: None,
            ship,
            waiting,
            tell,
        }
    }

    /// Waits while so much is exported and not loaded that the mount would only fill.
    fn wait_for_loads(&self) {
        let most = self.ground.inventory.mount.waiting;
        if self.waiting.bytes() > most {
            log::info!(
                "{}: exports wait for loads, since more than `mount.waiting` is on the mount",
                self.source.name
            );
        }
        while self.waiting.bytes() > most && !self.ground.stop.asked() {
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn work(mut self, queue: &Queue<'_>) {
        // Not `while let`: the lock would be held while the batch is exported.
        loop {
            self.wait_for_loads();
            let next = locked(&queue.batches).pop_front();
            let Some(Batch { orders: mut batch, ticket }) = next else { return };
            if self.ground.stop.asked() {
                return;
            }
            batch.retain(|order| {
                let is_open = self.ground.is_open(order.unit);
                if !is_open {
                    self.tell.say(order.index, What::Closed);
                }
                is_open
            });
            if batch.is_empty() {
                continue;
            }
            let down = locked(&queue.down).clone();
            match down {
                Some(failure) => self.fail_all(&batch, &failure),
                None => self.batch(batch, ticket, queue),
            }
        }
    }

    /// Takes a batch through its attempts.
    fn batch(&mut self, batch: Vec<Order<'_>>, mut ticket: Option<Ticket>, queue: &Queue<'_>) {
        // Units of one batch have the same limits.
        let retries = batch.first().map_or(0, |order| order.unit.entry.export.retries);
        let mut left = batch;
        for attempt in 1..=retries + 1 {
            let last = attempt > retries;
            let (again, broken) = self.attempt(&left, ticket.take(), attempt, last);
            if again.len() < left.len() {
                queue.worked.store(true, Ordering::SeqCst);
            }
            if again.is_empty() {
                return;
            }
            left.retain(|order| again.contains(&order.index));
            if self.ground.stop.asked() {
                return self.leave(&left);
            }
            if let Some(error) = broken {
                let failure = UnitFailure::of_source(Stage::Export, &error);
                if last || !failure.can_retry {
                    if error.concerns_host() && !queue.worked.load(Ordering::SeqCst) {
                        *locked(&queue.down) = Some(failure.clone());
                    }
                    return self.fail_all(&left, &failure);
                }
                log::warn!("{}: {} (attempt {attempt}; trying again)", self.source.name, failure.error);
                for order in &left {
                    self.tell.say(order.index, What::Retrying(failure.clone()));
                }
            }
            pause(attempt, self.ground.stop);
            if self.ground.stop.asked() {
                return self.leave(&left);
            }
        }
    }

    /// A stop came before another attempt.
    fn leave(&self, left: &[Order<'_>]) {
        for order in left {
            self.tell.say(order.index, What::Left);
        }
    }

    /// One attempt: which units are to be tried again, and what broke the batch as a whole.
    fn attempt(
        &mut self,
        batch: &[Order<'_>],
        ticket: Option<Ticket>,
        attempt: u32,
        last: bool,
    ) -> (Vec<usize>, Option<SourceError>) {
        for order in batch {
            self.tell.say(order.index, What::Exporting { attempt, at: Timestamp::now() });
        }
        let mut again: Vec<usize> = batch.iter().map(|order| order.index).collect();
        let mut retry = Vec::new();
        let kept =
            if self.remote.is_none() && attempt == 1 { self.ground.pool.take(self.source) } else { None };
        let connected = match (kept.is_some(), self.remote.take()) {
            (true, _) => Ok(None),
            (false, Some(remote)) => Ok(Some(remote)),
            (false, None) => self.connect().map(Some),
        };
        let mut remote = match connected {
            Ok(remote) => remote,
            Err(error) => return (again, Some(error)),
        };
        let line = match (kept, &mut remote) {
            (Some(talk), _) => Line::Kept(Box::new(talk)),
            (None, Some(remote)) => Line::New(remote),
            (None, None) => unreachable!("there is one or the other"),
        };
        let ground = export::Ground {
            source: self.source,
            script: &self.script,
            zone: &self.ground.inventory.timezone,
            mount: self.ground.mount,
            manifest: self.manifest,
            run: &self.ground.run.id,
            stop: self.ground.stop,
        };
        let ended = export(ground, line, attempt, batch, ticket, |index, outcome| {
            again.retain(|&other| other != index);
            match outcome {
                Outcome::Exported { exported, took } => {
                    self.tell.say(index, What::Exported { exported: exported.clone(), took });
                    if self.ground.halves == Halves::Both {
                        // The receiver lives until every sender is gone.
                        let _weight = Some(self.waiting.add(exported.trailer.bytes));
                        let _ = self.ship.send(Shipment { index, exported, _weight });
                    }
                }
                Outcome::Failed(failure) if failure.can_retry && !last => {
                    self.tell.say(index, What::Retrying(failure));
                    retry.push(index);
                }
                Outcome::Failed(failure) => self.tell.say(index, What::Failed(failure)),
            }
        });
        match ended {
            Ok(()) => {
                self.remote = remote;
                (retry, None)
            }
            Err(error) if again.is_empty() => {
                log::debug!("{}: after the last unit was answered: {error}", self.source.name);
                (retry, None)
            }
            Err(error) => {
                again.extend(retry);
                (again, Some(error))
            }
        }
    }

    fn connect(&self) -> Result<Pooled, SourceError> {
        Ok(self.ground.pool.get(&prepare::host(self.source)?)?)
    }

    fn fail_all(&self, batch: &[Order<'_>], failure: &UnitFailure) {
        for order in batch {
            self.tell.say(order.index, What::Failed(failure.clone()));
        }
    }
}
