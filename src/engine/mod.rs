//! The run: worker pools that take units through export and load, and one loop that hears of it all.
//!
//! Exporters (per source, one SSH session and one database session each) and loaders (one target session each)
//! share nothing but queues. Everything they have to say goes through one channel of [`Event`]s to the thread
//! that called [`execute`], which keeps the ledger and tells the listener; so nothing here needs a lock around a
//! unit's state.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded, unbounded};
use jiff::Timestamp;

use crate::failure::Failure;
use crate::inventory::{Hours, Inventory};
use crate::ledger::{Ledger, Run};
use crate::mount::{Exported, Mount};
use crate::names::TableName;
use crate::owed::OwedKey;
use crate::plan::{Plan, Selection};
use crate::step::export::Order;
use crate::step::load::{Anew, How, Inlets, found};
use crate::stop::Stop;
use crate::target::{Address, Session, TargetError, TargetTable};
use crate::unit::Unit;

mod ahead;
mod book;
pub mod compare;
mod crowd;
mod event;
mod explain;
mod exporter;
pub mod keys;
mod loader;
mod methods;
mod nulls;
pub mod prepare;
pub mod remains;
#[cfg(test)]
mod size_tests;
pub mod slices;
pub mod tables;
pub mod talks;

use book::Book;
pub use book::Fate;
pub use event::{Event, What};
use methods::{Asking, Methods, Sight};
use prepare::{Asked, SourceCatalog};
use talks::Talks;

/// Which halves of a run are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halves {
    /// `gpferry run`.
    Both,
    /// `gpferry export`.
    Export,
    /// `gpferry load`.
    Load,
}

/// Everything a run stands on.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "sessions have nothing to show")]
pub struct Ground<'a> {
    /// What was meant.
    pub inventory: &'a Inventory,
    /// What is to be done.
    pub plan: &'a Plan,
    /// This run.
    pub run: &'a Run,
    /// The mount, looked at.
    pub mount: &'a Mount,
    /// How the target is reached.
    pub target: &'a Address,
    /// SSH sessions.
    pub pool: &'a Talks,
    /// Whether to stop.
    pub stop: &'a Stop,
    /// Which halves are done.
    pub halves: Halves,
    /// Whether tables that the target lacks are made.
    pub create_tables: bool,
    /// Whether keys that collide may be shown.
    pub show_keys: bool,
    /// What an operator narrowed the command to.
    pub selection: &'a Selection,
    /// Whether units take the place of what is there of them.
    pub anew: Option<&'a Anew>,
}

/// A run's outcome.
#[derive(Debug, Default)]
pub struct Outcome {
    /// One for each unit of the plan that was begun; `None` for those that a stop left alone.
    pub fates: Vec<Option<Box<Fate>>>,
    /// No source host that was needed could be reached.
    pub no_source_reached: bool,
    /// Tables that were made in the target.
    pub created: Vec<tables::Created>,
    /// Units that were not begun, since their job's `hours` are over.
    pub closed: usize,
    /// Primary keys that were to be built after the rows, and what came of it.
    pub keys: Vec<keys::KeyEnd>,
    /// Those that are still to be built, since a stop came first.
    pub owed: Vec<OwedKey>,
}

impl Ground<'_> {
    /// May this unit be begun now, as far as its job's `hours` go?
    fn is_open(&self, unit: &Unit) -> bool {
        self.hours(unit)
            .is_none_or(|hours| hours.contain(self.inventory.timezone.to_datetime(Timestamp::now()).time()))
    }

    fn hours(&self, unit: &Unit) -> Option<Hours> {
        self.inventory.jobs.iter().find(|job| *job.name == *unit.job).and_then(|job| job.hours)
    }
}

/// A published unit on its way to a loader.
#[derive(Debug)]
struct Shipment {
    index: usize,
    exported: Arc<Exported>,
    /// What it weighs, where this run exported it.
    _weight: Option<Weight>,
}

/// Bytes of files that this run exported, and that no loader is done with yet.
#[derive(Debug, Clone, Default)]
struct Waiting(Arc<AtomicU64>);

impl Waiting {
    fn add(&self, bytes: u64) -> Weight {
        self.0.fetch_add(bytes, Ordering::SeqCst);
        Weight { waiting: self.clone(), bytes }
    }

    fn bytes(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A file's part of what waits, for as long as this lives.
#[derive(Debug)]
struct Weight {
    waiting: Waiting,
    bytes: u64,
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.waiting.0.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// What both sides said of a plan.
#[derive(Debug, Default)]
pub struct Answers {
    /// Units that are in the target.
    already: BTreeMap<usize, What>,
    /// Units whose files wait on the mount.
    ready: Vec<Shipment>,
    /// Units that have to be exported.
    to_export: Vec<usize>,
    /// What the sources' catalogs say of those.
    sources: Asked<SourceCatalog>,
    /// What each unit is a slice of, by places in the plan; nothing for those that are none.
    slice_of: HashMap<usize, usize>,
    /// By which way those are exported that COPY does not simply export.
    methods: Methods,
    /// Primary keys that tables of the target are still to get, whoever builds them.
    owed: Vec<OwedKey>,
}

/// Asks both sides what a plan comes to: what of it is there already, and how large the rest is. Where something is large,
/// also the plan that takes the place of the first, with slices in it.
///
/// # Errors
/// [`Failure`] where nothing can go on: no target, no ledger.
pub fn ask(ground: Ground<'_>, ledger: &mut Ledger) -> Result<(Answers, Option<Plan>), Failure> {
    let Ground { plan, inventory, run, pool, stop, .. } = ground;
    let remembered = ledger.owed_keys(&run.target_url)?;
    let (mut ready, mut to_export) =
        book::resumable(plan, ledger, (0..plan.units.len()).collect(), ground.halves)?;
    let units: Vec<_> = to_export.iter().map(|&index| &plan.units[index]).collect();
    let counted = nulls::counted(ledger, run.started_at)?;
    // Both sides at once: what the target turns out to have already was described for nothing.
    let (asked, sources) = std::thread::scope(|scope| {
        let describe = || prepare::describe(inventory, &units, &counted, pool, stop);
        let describing = (!units.is_empty()).then(|| scope.spawn(describe));
        let asked = ask_target(ground, &remembered);
        (asked, describing.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))))
    });
    let (already, owed) = asked?;
    ready.retain(|shipment| !already.contains_key(&shipment.index));
    to_export.retain(|index| !already.contains_key(index));
    let sources = sources.unwrap_or_default();
    if to_export.is_empty() {
        return Ok((Answers { already, ready, owed, ..Answers::default() }, None));
    }
    ahead::begin(ground, &to_export, &sources);
    nulls::note(ledger, &sources, run.started_at)?;
    let mut answers = Answers { already, ready, sources, owed, ..Answers::default() };
    let sliced = slices::slice(inventory, plan, &to_export, &answers.sources, Some(ledger), pool, stop)?;
    let mut cut = match sliced {
        Some(sliced) => {
            ledger.replace(run, run.started_at, &sliced.replaced)?;
            to_export.extend(plan.units.len()..sliced.plan.units.len());
            answers.slice_of = sliced.of;
            Some(sliced.plan)
        }
        None => None,
    };
    let sight = Some(Sight { mount: ground.mount, run: &run.id });
    let asking = Asking { inventory, sight, pool, stop };
    let (moving, slice_of) = (cut.as_ref().unwrap_or(plan), &answers.slice_of);
    answers.methods = methods::choose(asking, moving, &to_export, slice_of, &answers.sources);
    let notes = std::mem::take(&mut answers.methods.notes);
    if !notes.is_empty() {
        cut.get_or_insert_with(|| plan.clone()).notes.extend(notes);
    }
    answers.to_export = to_export;
    Ok((answers, cut))
}

/// Does the run, once both sides were asked about its plan. `listen` hears every event, after it was noted.
///
/// # Errors
/// [`Failure`] where nothing can go on: no target, no mount, no ledger. Units that fail are no errors.
pub fn execute(
    ground: Ground<'_>,
    answers: Answers,
    ledger: &mut Ledger,
    listen: &mut dyn FnMut(&Event),
) -> Result<Outcome, Failure> {
    let mut book = Book::new(ground, ledger);
    let Answers { already, mut ready, mut to_export, sources, slice_of, methods, owed } = answers;
    for (unit, what) in already {
        book.note(Event { unit, what }, listen)?;
    }
    for shipment in &ready {
        let what = What::Resumed(Arc::clone(&shipment.exported));
        book.note(Event { unit: shipment.index, what }, listen)?;
    }
    let mut no_source_reached = false;
    if ground.create_tables {
        no_source_reached = book.create_tables(&mut ready, &mut to_export, listen)?;
        if ground.stop.asked() {
            return Ok(book.close(false));
        }
    }
    // After a stop nothing more is built, and what is owed is said.
    let left: Vec<_> = ready.iter().map(|one| one.index).chain(to_export.iter().copied()).collect();
    let (first, later) = book.keys(owed, &left)?;
    keys::build_all(ground, &first, |end| book.keyed(end))?;
    let mut orders = Vec::new();
    if !to_export.is_empty() {
        (orders, no_source_reached) =
            orders_of(&mut book, &sources, &to_export, &slice_of, &methods, listen)?;
        if ground.stop.asked() {
            return Ok(book.close(false));
        }
    }
    let sharing: HashSet<String> = sources
        .iter()
        .filter(|(_, asked)| asked.as_ref().is_ok_and(SourceCatalog::shares_snapshots))
        .map(|(name, _)| name.clone())
        .collect();
    drop((sources, slice_of, methods, to_export));
    let manifest =
        if orders.is_empty() { None } else { Some(Mutex::new(ground.mount.manifest(&ground.run.id)?)) };
    let shared =
        loader::Shared::new(later, Inlets::new(ground.inventory, ground.target, &ground.run.id, ground.pool));
    std::thread::scope(|scope| {
        let (tell, events) = bounded(EVENTS);
        let (ship, shipments) = unbounded();
        let (working, done) = bounded(0);
        let (shared, stop) = (&shared, ground.stop);
        scope.spawn(move || shared.watch(stop, &done));
        loader::spawn(scope, ground, shared, shipments, &tell, ready.len() + orders.len());
        for shipment in ready {
            // The receiver lives until every sender is gone.
            let _ = ship.send(shipment);
        }
        if let Some(manifest) = &manifest {
            exporter::spawn(scope, ground, manifest, orders, &sharing, &ship, &tell);
        }
        drop((ship, tell));
        let followed = book.follow(&events, listen);
        drop(working);
        followed
    })?;
    keys::build_all(ground, &shared.keys.rest(), |end| book.keyed(end))?;
    Ok(book.close(no_source_reached))
}

/// Asks both sides about the tables of units to come: what can be exported, and whether no source could be reached.
/// What cannot be exported has failed, and is noted.
fn orders_of<'a>(
    book: &mut Book<'a>,
    sources: &Asked<SourceCatalog>,
    to_export: &[usize],
    slice_of: &HashMap<usize, usize>,
    methods: &Methods,
    listen: &mut dyn FnMut(&Event),
) -> Result<(Vec<Order<'a>>, bool), Failure> {
    let Ground { inventory, plan, run, stop, .. } = book.ground;
    let unreached = sources.values().all(|asked| asked.as_ref().is_err_and(|error| error.is_unreachable()));
    let today = run.started_at.to_zoned(inventory.timezone.clone()).date();
    let mut orders = Vec::with_capacity(to_export.len());
    let mut making = prepare::Orders::new(inventory, sources, today);
    std::thread::scope(|scope| {
        // In pieces, so that the target's catalog is never whole in memory; the next piece while this one is looked at.
        let (answer, answers) = bounded(0);
        let ground = book.ground;
        scope.spawn(move || describe_targets(ground, to_export, &answer));
        for (some, targets) in to_export.chunks(DESCRIBED).zip(answers) {
            let targets = targets?;
            if stop.asked() {
                break;
            }
            for &index in some {
                let made = making.order(index, &plan.units[index], &targets);
                match made.and_then(|order| methods.apply(order, sources)) {
                    Ok(order) => orders.push(Order { slice_of: slice_of.get(&index).copied(), ..order }),
                    Err(failure) => book.note(Event { unit: index, what: What::Failed(failure) }, listen)?,
                }
            }
        }
        Ok((orders, unreached))
    })
}

type Targets = HashMap<TableName, TargetTable>;

/// Describes the target's tables of these units, piece by piece, for as long as somebody takes the answers.
fn describe_targets(ground: Ground<'_>, units: &[usize], answer: &Sender<Result<Targets, TargetError>>) {
    let mut open = None;
    for some in units.chunks(DESCRIBED) {
        let tables: Vec<_> = some.iter().map(|&index| &ground.plan.units[index].target).collect();
        let targets = asked_again(ground.stop, || {
            let mut session = open.take().map_or_else(|| session(ground), Ok)?;
            let tables = session.tables(&tables)?;
            open = Some(session);
            Ok(tables)
        });
        if answer.send(targets).is_err() || ground.stop.asked() {
            return;
        }
    }
}

/// Units whose target tables are described at once.
const DESCRIBED: usize = 500;

/// Events that may wait to be heard: a batch begins thousands of units at once. Who has more to tell waits for the
/// ledger; who hears waits for nobody.
const EVENTS: usize = 1024;

/// How often the target is asked at the start, where another try may help.
const ASKED: u32 = 3;

fn session(ground: Ground<'_>) -> Result<Session, TargetError> {
    Session::open(ground.target, &ground.inventory.target.log_schema)
}

/// What of the plan is in the target, once the load log is in its place; and what keys are owed there, of which the ledger
/// remembers these.
fn ask_target(
    ground: Ground<'_>,
    remembered: &[OwedKey],
) -> Result<(BTreeMap<usize, What>, Vec<OwedKey>), Failure> {
    let ask = || -> Result<_, TargetError> {
        let mut session = session(ground)?;
        session.ensure_load_log()?;
        Ok((already_there(&mut session, ground)?, keys::owed(&mut session, remembered)?))
    };
    asked_again(ground.stop, ask).map_err(Failure::Target)
}

/// Asks the target, and again where that may help by itself.
///
/// # Errors
/// That of the last time.
pub fn asked_again<T>(
    stop: &Stop,
    mut ask: impl FnMut() -> Result<T, TargetError>,
) -> Result<T, TargetError> {
    let mut attempt = 1;
    loop {
        match ask() {
            Err(error) if attempt < ASKED && error.can_retry() && !stop.asked() => {
                log::warn!("{error} (attempt {attempt}; trying again)");
                pause(attempt, stop);
                attempt += 1;
            }
            asked => return asked,
        }
    }
}

/// The plan's units that are in the target: a ledger that lags behind, or was deleted, learns of them here.
fn already_there(session: &mut Session, ground: Ground<'_>) -> Result<BTreeMap<usize, What>, TargetError> {
    let plan = ground.plan;
    let mut there = HashMap::new();
    for (source, ids) in prepare::by_source(plan.units.iter().map(|unit| &unit.key)) {
        there.extend(session.already_there(source, &ids)?);
    }
    there.retain(|_, row| ground.anew.is_none_or(|anew| anew.wrote(row)));
    let told = |(index, unit): (usize, &Unit)| {
        let row = there.get(&unit.key)?;
        Some((index, found(unit, row, How::AlreadyThere).map_or_else(What::Failed, What::Loaded)))
    };
    Ok(plan.units.iter().enumerate().filter_map(told).collect())
}

/// Where a worker tells what happened.
#[derive(Debug, Clone)]
struct Tell(Sender<Event>);

impl Tell {
    fn say(&self, unit: usize, what: What) {
        // The receiver lives until every sender is gone.
        let _ = self.0.send(Event { unit, what });
    }
}

/// Waits before another attempt: growing, jittered, and not past a stop.
fn pause(attempt: u32, stop: &Stop) {
    let base = Duration::from_millis(500) * 2u32.saturating_pow(attempt.min(6).saturating_sub(1));
    let mut byte = [128];
    // Without random numbers the pause is merely less spread.
    let _ = openssl::rand::rand_bytes(&mut byte);
    let until = Instant::now() + base.mul_f64(0.5 + f64::from(byte[0]) / 255.0);
    while Instant::now() < until && !stop.asked() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A lock whose holder panicked guards nothing that could be half done here.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
