//! The run: worker pools that take units through export and load, and one loop that hears of it all.
//!
//! Exporters (per source, one SSH session and one database session each) and loaders (one target session each)
//! share nothing but queues. Everything they have to say goes through one channel of [`Event`]s to the thread
//! that called [`execute`], which keeps the ledger and tells the listener; so nothing here needs a lock around a
//! unit's state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use jiff::Timestamp;

use crate::failure::Failure;
use crate::inventory::{Hours, Inventory};
use crate::ledger::{Ledger, Record, RecordedFailure, Run, State};
use crate::mount::{Exported, Mount};
use crate::plan::{Needed, Plan};
use crate::remote::ssh::Pool;
use crate::step::load::{How, Loaded, overlap_failure};
use crate::step::{Stage, UnitFailure};
use crate::stop::Stop;
use crate::target::{Address, LogRow, Session, TargetError};
use crate::unit::{Rows, Unit, read_id};

mod event;
mod exporter;
mod loader;
mod nulls;
pub mod prepare;
pub mod remains;
pub mod tables;

pub use event::{Event, What};

/// How long a unit's progress may wait for the ledger, to be written together with others'.
const LEDGER_PAUSE: Duration = Duration::from_millis(100);

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

/// What became of a unit.
#[derive(Debug, Clone)]
pub struct Fate {
    /// As the ledger has it.
    pub record: Record,
    /// Whether this run loaded it.
    pub how: Option<How>,
    /// Why it failed.
    pub failure: Option<UnitFailure>,
    /// Rows of its file that were kept out.
    pub rejected: u64,
}

/// A run's outcome.
#[derive(Debug, Default)]
pub struct Outcome {
    /// One for each unit of the plan that was begun; `None` for those that a stop left alone.
    pub fates: Vec<Option<Fate>>,
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
        let tables: Vec<_> = to_export.iter().map(|&index| &plan.units[index].target).collect();
        let targets = session.tables(&tables)?;
        drop(session);
        let units: Vec<_> = to_export.iter().map(|&index| &plan.units[index]).collect();
        let counted = nulls::counted(book.ledger, ground.run.started_at)?;
        let sources = prepare::describe(ground.inventory, &units, &counted, ground.pool, ground.stop);
        nulls::note(book.ledger, &sources, ground.run.started_at)?;
        if ground.stop.asked() {
            return Ok(book.close(false));
        }
        no_source_reached =
            sources.values().all(|asked| asked.as_ref().is_err_and(|error| error.is_unreachable()));
        let today = ground.run.started_at.to_zoned(ground.inventory.timezone.clone()).date();
        let sorted = prepare::orders(plan, &to_export, ground.inventory, &sources, &targets, today);
        for (index, order) in sorted {
            match order {
                Ok(order) => orders.push(order),
                Err(failure) => book.note(Event { unit: index, what: What::Failed(failure) }, listen)?,
            }
        }
    } else {
        drop(session);
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
    let found = |(index, unit): (usize, &Unit)| Some((index, what_is_there(unit, there.get(&unit.key)?)));
    Ok(plan.units.iter().enumerate().filter_map(found).collect())
}

/// A unit's row in the load log says that it is there; unless it stands for other rows, by another window column.
fn what_is_there(unit: &Unit, row: &LogRow) -> What {
    if row.is_of(&unit.rows) {
        return What::Loaded(Loaded {
            rows: row.rows,
            rejected: 0,
            how: How::AlreadyThere,
            took: Duration::ZERO,
        });
    }
    // There is a row, so there is a failure.
    let failure = overlap_failure(vec![row.clone()]);
    failure.map_or(What::Loading, What::Failed)
}

/// Where every unit stands, and the ledger that is told of it.
struct Book<'a> {
    ground: Ground<'a>,
    ledger: &'a mut Ledger,
    fates: Vec<Option<Fate>>,
    created: Vec<tables::Created>,
    closed: usize,
    dirty: BTreeSet<usize>,
    written: Instant,
}

impl<'a> Book<'a> {
    fn new(ground: Ground<'a>, ledger: &'a mut Ledger) -> Self {
        let fates = vec![None; ground.plan.units.len()];
        let (created, dirty) = (Vec::new(), BTreeSet::new());
        Self { ground, ledger, fates, created, closed: 0, dirty, written: Instant::now() }
    }

    /// Makes the tables that units to come need. Units whose table could not be made have failed, and are taken
    /// out; says whether no source could be reached that knows how they are made.
    fn create_tables(
        &mut self,
        session: &mut Session,
        ready: &mut Vec<Shipment>,
        to_export: &mut Vec<usize>,
        listen: &mut dyn FnMut(&Event),
    ) -> Result<bool, Failure> {
        let Ground { inventory, plan, pool, stop, .. } = self.ground;
        let waiting: BTreeSet<usize> = ready.iter().map(|shipment| shipment.index).collect();
        let left: BTreeSet<usize> = waiting.iter().chain(&*to_export).copied().collect();
        let needed = Needed::of(left.iter().map(|&index| &plan.units[index]));
        let tables = tables::create_missing(session, inventory, &needed, pool, stop)?;
        let failure = |index: usize| tables.failed.get(&plan.units[index].target);
        for &unit in &left {
            if let Some(failure) = failure(unit) {
                // What is published already waits with its file for the table.
                let is_ready = waiting.contains(&unit);
                let stage = if is_ready { Stage::Load } else { failure.stage };
                let failure = UnitFailure { stage, file_is_good: is_ready, ..failure.clone() };
                self.note(Event { unit, what: What::Failed(failure) }, listen)?;
            }
        }
        ready.retain(|shipment| failure(shipment.index).is_none());
        to_export.retain(|&index| failure(index).is_none());
        self.created = tables.created;
        Ok(tables.no_source_reached)
    }

    /// Sorts what is left into files that an earlier run published and units that have to be exported.
    fn resumable(&self, left: Vec<usize>, halves: Halves) -> Result<(Vec<Shipment>, Vec<usize>), Failure> {
        let (mut ready, mut to_export) = (Vec::new(), Vec::new());
        for index in left {
            let unit = &self.ground.plan.units[index];
            let exported = match halves {
                Halves::Both | Halves::Load if unit.waits => self.ledger.exported(&unit.key)?,
                Halves::Both | Halves::Load | Halves::Export => None,
            };
            // A file that left out less, or more, than is loaded by now is of no more use.
            let exported = exported.filter(|exported| exported.left_out == unit.rows.left_out());
            match (exported, halves) {
                (Some(exported), _) => ready.push(Shipment { index, exported }),
                (None, Halves::Both | Halves::Export) => to_export.push(index),
                (None, Halves::Load) => {}
            }
        }
        Ok((ready, to_export))
    }

    /// Hears events until nobody is left to tell any.
    fn follow(&mut self, events: &Receiver<Event>, listen: &mut dyn FnMut(&Event)) -> Result<(), Failure> {
        let followed = self.hear_all(events, listen).and_then(|()| self.write());
        if followed.is_err() {
            // The ledger cannot be written: stop the workers, and hear them out so that none blocks.
            self.ground.stop.give_up();
            events.iter().for_each(drop);
        }
        followed
    }

    fn hear_all(&mut self, events: &Receiver<Event>, listen: &mut dyn FnMut(&Event)) -> Result<(), Failure> {
        loop {
            match events.recv_timeout(LEDGER_PAUSE) {
                Ok(event) => self.note(event, listen)?,
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => self.write()?,
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if self.written.elapsed() >= LEDGER_PAUSE {
                self.write()?;
            }
        }
    }

    fn note(&mut self, event: Event, listen: &mut dyn FnMut(&Event)) -> Result<(), Failure> {
        if matches!(event.what, What::Exporting { attempt, .. } if attempt > 1) {
            // The attempt before must be on record before this one takes its place.
            self.write()?;
        }
        listen(&event);
        if matches!(event.what, What::Closed) {
            self.closed += 1;
            return Ok(());
        }
        if let What::Failed(failure) = &event.what {
            self.learn(event.unit, &failure.overlaps)?;
        }
        let fate = self.fates[event.unit].get_or_insert_with(Fate::begun);
        fate.apply(event.what);
        self.dirty.insert(event.unit);
        Ok(())
    }

    /// Takes over from the load log what the ledger did not know: units of the same table by other bounds.
    fn learn(&mut self, index: usize, rows: &[LogRow]) -> Result<(), Failure> {
        let unit = &self.ground.plan.units[index];
        let known: Vec<(Unit, Record)> = rows
            .iter()
            .filter_map(|row| {
                let named = read_id(&row.key.id)?;
                // What was written without a measure was told apart by a time: by this one, unless there is another.
                let others = &unit.rows.without;
                let is_only =
                    unit.rows.measure.is_time() && !others.iter().any(|other| other.measure.is_time());
                let own = is_only.then(|| unit.rows.measure.clone());
                let measure = row.measure.clone().or(own)?;
                let shared = Rows { series: named.series, measure, tag: named.tag, without: Vec::new() };
                let known =
                    Unit { key: row.key.clone(), extent: named.extent, rows: shared.into(), ..unit.clone() };
                let loaded =
                    Record { state: State::Loaded, rows_loaded: Some(row.rows), ..Fate::begun().record };
                Some((known, loaded))
            })
            .collect();
        let records = known.iter().map(|(unit, record)| (unit, record));
        Ok(self.ledger.record(self.ground.run, Timestamp::now(), records)?)
    }

    fn write(&mut self) -> Result<(), Failure> {
        let units = &self.ground.plan.units;
        let records =
            self.dirty.iter().filter_map(|&index| Some((&units[index], &self.fates[index].as_ref()?.record)));
        self.ledger.record(self.ground.run, Timestamp::now(), records)?;
        self.dirty.clear();
        self.written = Instant::now();
        Ok(())
    }

    fn close(self, no_source_reached: bool) -> Outcome {
        let Self { fates, created, closed, .. } = self;
        Outcome { fates, no_source_reached, created, closed }
    }
}

impl Fate {
    fn begun() -> Self {
        let record = Record {
            attempt: 1,
            state: State::Exporting,
            started_at: Timestamp::now(),
            exported: None,
            rows_loaded: None,
            export_seconds: None,
            load_seconds: None,
            failure: None,
        };
        Self { record, how: None, failure: None, rejected: 0 }
    }

    fn apply(&mut self, what: What) {
        let record = &mut self.record;
        match what {
            What::Exporting { attempt, at } => {
                *self = Self {
                    record: Record { attempt, started_at: at, ..Self::begun().record },
                    ..Self::begun()
                }
            }
            What::Exported { exported, took } => {
                record.state = State::Exported;
                record.exported = Some(exported);
                record.export_seconds = Some(took.as_secs_f64());
            }
            What::Resumed(exported) => {
                record.state = State::Exported;
                record.exported = Some(exported);
            }
            What::Closed => {}
            What::Loading => record.state = State::Loading,
            What::Loaded(loaded) => {
                record.state = State::Loaded;
                record.rows_loaded = Some(loaded.rows);
                record.load_seconds = (loaded.how == How::Now).then_some(loaded.took.as_secs_f64());
                self.how = Some(loaded.how);
                self.rejected = loaded.rejected;
            }
            What::Left => {
                // Not failed: its file waits, or nothing was done yet.
                record.state = if record.exported.is_some() { State::Exported } else { State::Exporting };
                record.failure = None;
                self.failure = None;
            }
            What::Retrying(ref failure) | What::Failed(ref failure) => {
                let counts = failure.own && matches!(what, What::Failed(_));
                let failure = failure.clone();
                record.state = State::Failed;
                record.failure = Some(RecordedFailure {
                    stage: failure.stage.word(),
                    error: failure.error.clone(),
                    remedy: failure.remedy.clone(),
                    counts,
                });
                if !failure.file_is_good {
                    record.exported = None;
                }
                self.failure = Some(failure);
            }
        }
    }
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
