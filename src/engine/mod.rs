//! The run: worker pools that take units through export and load, and one loop that hears of it all.
//!
//! Exporters (per source, one SSH session and one database session each) and loaders (one target session each)
//! share nothing but queues. Everything they have to say goes through one channel of [`Event`]s to the thread
//! that called [`execute`], which keeps the ledger and tells the listener; so nothing here needs a lock around a
//! unit's state.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded, unbounded};
use jiff::Timestamp;

use crate::failure::Failure;
use crate::inventory::{Hours, Inventory};
use crate::ledger::{Ledger, Run};
use crate::mount::{Exported, Mount};
use crate::plan::Plan;
use crate::remote::ssh::Pool;
use crate::step::export::Order;
use crate::step::load::{How, found};
use crate::stop::Stop;
use crate::target::{Address, Session, TargetError};
use crate::unit::Unit;

mod book;
mod event;
mod exporter;
mod loader;
mod nulls;
pub mod prepare;
pub mod remains;
pub mod tables;

use book::Book;
pub use book::Fate;
pub use event::{Event, What};

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
    pub pool: &'a Pool,
    /// Whether to stop.
    pub stop: &'a Stop,
    /// Which halves are done.
    pub halves: Halves,
    /// Whether tables that the target lacks are made.
    pub create_tables: bool,
    /// Whether keys that collide may be shown.
    pub show_keys: bool,
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
}

impl Ground<'_> {
    /// May this unit be begun now, as far as its job's `hours` go?
    fn is_open(&self, unit: &Unit) -> bool {
        self.hours(unit)
            .is_none_or(|hours| hours.contain(self.inventory.timezone.to_datetime(Timestamp::now()).time()))
    }

    fn hours(&self, unit: &Unit) -> Option<Hours> {
        self.inventory.jobs.iter().find(|job| job.name == unit.job).and_then(|job| job.hours)
    }
}

/// A published unit on its way to a loader.
#[derive(Debug)]
struct Shipment {
    index: usize,
    exported: Exported,
}

/// Does the run. `listen` hears every event, after it was noted.
///
/// # Errors
/// [`Failure`] where nothing can go on: no target, no mount, no ledger. Units that fail are no errors.
pub fn execute(
    ground: Ground<'_>,
    ledger: &mut Ledger,
    listen: &mut dyn FnMut(&Event),
) -> Result<Outcome, Failure> {
    let plan = ground.plan;
    let mut book = Book::new(ground, ledger);
    if plan.units.is_empty() {
        return Ok(book.close(false));
    }
    let (mut session, already) = ask_target(ground)?;
    for (index, there) in &already {
        book.note(Event { unit: *index, what: there.clone() }, listen)?;
    }
    let left: Vec<usize> = (0..plan.units.len()).filter(|index| !already.contains_key(index)).collect();
    let (mut ready, mut to_export) = book.resumable(left, ground.halves)?;
    for shipment in &ready {
        let what = What::Resumed(shipment.exported.clone());
        book.note(Event { unit: shipment.index, what }, listen)?;
    }
    let mut no_source_reached = false;
    if ground.create_tables {
        no_source_reached = book.create_tables(&mut session, &mut ready, &mut to_export, listen)?;
        if ground.stop.asked() {
            return Ok(book.close(false));
        }
    }
    let mut orders = Vec::new();
    if !to_export.is_empty() {
        (orders, no_source_reached) = orders_of(&mut book, session, &to_export, listen)?;
        if ground.stop.asked() {
            return Ok(book.close(false));
        }
    }
    let manifest =
        if orders.is_empty() { None } else { Some(Mutex::new(ground.mount.manifest(&ground.run.id)?)) };
    let shared = loader::Shared::default();
    std::thread::scope(|scope| {
        let (tell, events) = unbounded();
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
            exporter::spawn(scope, ground, manifest, orders, &ship, &tell);
        }
        drop((ship, tell));
        let followed = book.follow(&events, listen);
        drop(working);
        followed
    })?;
    Ok(book.close(no_source_reached))
}

/// Asks both sides about the tables of units to come: what can be exported, and whether no source could be reached.
/// What cannot be exported has failed, and is noted.
fn orders_of<'a>(
    book: &mut Book<'a>,
    mut session: Session,
    to_export: &[usize],
    listen: &mut dyn FnMut(&Event),
) -> Result<(Vec<Order<'a>>, bool), Failure> {
    let Ground { inventory, plan, run, pool, stop, .. } = book.ground;
    let tables: Vec<_> = to_export.iter().map(|&index| &plan.units[index].target).collect();
    let targets = session.tables(&tables)?;
    drop(session);
    let units: Vec<_> = to_export.iter().map(|&index| &plan.units[index]).collect();
    let counted = nulls::counted(book.ledger, run.started_at)?;
    let sources = prepare::describe(inventory, &units, &counted, pool, stop);
    nulls::note(book.ledger, &sources, run.started_at)?;
    let unreached = sources.values().all(|asked| asked.as_ref().is_err_and(|error| error.is_unreachable()));
    let mut orders = Vec::new();
    if stop.asked() {
        return Ok((orders, unreached));
    }
    let today = run.started_at.to_zoned(inventory.timezone.clone()).date();
    for (index, order) in prepare::orders(plan, to_export, inventory, &sources, &targets, today) {
        match order {
            Ok(order) => orders.push(order),
            Err(failure) => book.note(Event { unit: index, what: What::Failed(failure) }, listen)?,
        }
    }
    Ok((orders, unreached))
}

/// How often the target is asked at the start, where another try may help.
const ASKED: u32 = 3;

/// A session on the target, with the load log in its place, and what of the plan is there.
fn ask_target(ground: Ground<'_>) -> Result<(Session, BTreeMap<usize, What>), Failure> {
    let ask = || -> Result<_, TargetError> {
        let mut session = Session::open(ground.target, &ground.inventory.target.log_schema)?;
        session.ensure_load_log()?;
        let already = already_there(&mut session, ground.plan)?;
        Ok((session, already))
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
fn already_there(session: &mut Session, plan: &Plan) -> Result<BTreeMap<usize, What>, TargetError> {
    let mut there = HashMap::new();
    for (source, ids) in prepare::by_source(plan.units.iter().map(|unit| &unit.key)) {
        there.extend(session.already_there(source, &ids)?);
    }
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
