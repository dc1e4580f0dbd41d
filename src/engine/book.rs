//! Where every unit stands: what the workers tell becomes the ledger's rows and the run's outcome.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use jiff::Timestamp;

use super::keys::{self, KeyEnd, Keys, Work};
use super::{Event, Ground, Halves, Outcome, Shipment, What, session, tables};
use crate::failure::Failure;
use crate::ledger::{Ledger, Record, RecordedFailure, State};
use crate::mount::Columns;
use crate::names::TableName;
use crate::owed::OwedKey;
use crate::plan::{Needed, Plan, key_can_wait};
use crate::step::load::How;
use crate::step::{Stage, UnitFailure};
use crate::target::LogRow;
use crate::unit::{Rows, Unit, read_id};

/// How long a unit's progress may wait for the ledger, to be written together with others'.
const LEDGER_PAUSE: Duration = Duration::from_millis(100);
/// And how many times as long as the last writing took: where thousands of units are under way, each is written a
/// few times, not at every step.
const LEDGER_SHARE: u32 = 15;

/// What became of a unit.
#[derive(Debug, Clone)]
pub struct Fate {
    /// As the ledger has it.
    pub record: Record,
    /// Whether this run loaded it.
    pub how: Option<How>,
    /// Why it failed.
    pub failure: Option<Box<UnitFailure>>,
    /// Rows of its file that were kept out.
    pub rejected: u64,
}

/// Where every unit stands, and the ledger that is told of it.
pub(super) struct Book<'a> {
    pub(super) ground: Ground<'a>,
    pub(super) ledger: &'a mut Ledger,
    fates: Vec<Option<Box<Fate>>>,
    created: Vec<tables::Created>,
    closed: usize,
    /// Keys that are owed in the target, whoever builds them.
    owed: Vec<OwedKey>,
    /// Those of them that this run is to build.
    own: Vec<OwedKey>,
    keyed: Vec<KeyEnd>,
    dirty: BTreeSet<usize>,
    written: Instant,
    /// Until when after that nothing is written.
    pause: Duration,
}

impl<'a> Book<'a> {
    pub(super) fn new(ground: Ground<'a>, ledger: &'a mut Ledger) -> Self {
        let fates = vec![None; ground.plan.units.len()];
        let (created, dirty) = (Vec::new(), BTreeSet::new());
        let (owed, own, keyed) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            ground,
            ledger,
            fates,
            created,
            closed: 0,
            owed,
            own,
            keyed,
            dirty,
            written: Instant::now(),
            pause: LEDGER_PAUSE,
        }
    }

    /// Makes the tables that units to come need. Units whose table could not be made have failed, and are taken
    /// out; says whether no source could be reached that knows how they are made.
    pub(super) fn create_tables(
        &mut self,
        ready: &mut Vec<Shipment>,
        to_export: &mut Vec<usize>,
        listen: &mut dyn FnMut(&Event),
    ) -> Result<bool, Failure> {
        let Ground { inventory, plan, pool, stop, .. } = self.ground;
        let waiting: BTreeSet<usize> = ready.iter().map(|shipment| shipment.index).collect();
        let left: BTreeSet<usize> = waiting.iter().chain(&*to_export).copied().collect();
        let needed = Needed::of(left.iter().map(|&index| &plan.units[index]));
        let can_wait = |table: &TableName| {
            key_can_wait(left.iter().map(|&index| &plan.units[index]).filter(|unit| unit.target == *table))
        };
        let mut session = session(self.ground)?;
        let tables = tables::create_missing(&mut session, inventory, &needed, pool, stop, &can_wait)?;
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

    /// Sorts the keys that this run builds, of those that were owed before it and those of tables that it made: before
    /// anything is loaded, and after the units that are left. The ledger learns of all of them first.
    pub(super) fn keys(
        &mut self,
        before: Vec<OwedKey>,
        left: &[usize],
    ) -> Result<(Vec<Work>, Keys), Failure> {
        let Ground { plan, run, .. } = self.ground;
        self.owed = before;
        self.owed.extend(self.created.iter().filter_map(|table| table.owed.clone()));
        self.ledger.owe(&run.target_url, &self.owed)?;
        let units: Vec<&Unit> = left.iter().map(|&index| &plan.units[index]).collect();
        let (first, later) = keys::sorted(self.ground, &self.owed, &units);
        self.own = first.iter().chain(&later).map(|work| work.key.clone()).collect();
        Ok((first, Keys::new(later)))
    }

    /// Takes in what came of a key.
    pub(super) fn keyed(&mut self, end: KeyEnd) -> Result<(), Failure> {
        if end.failure.is_none() {
            self.owed.retain(|one| one.table != end.key.table);
            self.ledger.owe(&self.ground.run.target_url, &self.owed)?;
        }
        self.keyed.push(end);
        Ok(())
    }

    /// Hears events until nobody is left to tell any.
    pub(super) fn follow(
        &mut self,
        events: &Receiver<Event>,
        listen: &mut dyn FnMut(&Event),
    ) -> Result<(), Failure> {
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
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => {}
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if self.written.elapsed() >= self.pause {
                self.write()?;
            }
        }
    }

    pub(super) fn note(&mut self, event: Event, listen: &mut dyn FnMut(&Event)) -> Result<(), Failure> {
        if matches!(event.what, What::Exporting { attempt, .. } if attempt > 1) {
            // The attempt before must be on record before this one takes its place.
            self.write()?;
        }
        listen(&event);
        if matches!(event.what, What::Closed) {
            self.closed += 1;
            return Ok(());
        }
        if matches!(event.what, What::Keying | What::Read(_)) {
            return Ok(());
        }
        if let What::Keyed(end) = event.what {
            return self.keyed(end);
        }
        if let What::Failed(failure) = &event.what {
            self.learn(event.unit, &failure.overlaps)?;
        }
        let fate = self.fates[event.unit].get_or_insert_with(|| Box::new(Fate::begun()));
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
                let loaded = Record {
                    state: State::Loaded,
                    rows_loaded: Some(row.rows),
                    rows_rejected: Some(row.rejected),
                    ..Fate::begun().record
                };
                Some((known, loaded))
            })
            .collect();
        let records = known.iter().map(|(unit, record)| (unit, record));
        Ok(self.ledger.record(self.ground.run, Timestamp::now(), records)?)
    }

    fn write(&mut self) -> Result<(), Failure> {
        let units = &self.ground.plan.units;
        let begin = Instant::now();
        let records =
            self.dirty.iter().filter_map(|&index| Some((&units[index], &self.fates[index].as_ref()?.record)));
        self.ledger.record(self.ground.run, Timestamp::now(), records)?;
        for index in std::mem::take(&mut self.dirty) {
            self.fates[index].iter_mut().for_each(|fate| fate.shrink());
        }
        self.written = Instant::now();
        self.pause = LEDGER_PAUSE.max(begin.elapsed() * LEDGER_SHARE);
        Ok(())
    }

    pub(super) fn close(self, no_source_reached: bool) -> Outcome {
        let Self { fates, created, closed, own, keyed, .. } = self;
        let has_ended = |key: &OwedKey| keyed.iter().any(|end| end.key.table == key.table);
        let owed = own.into_iter().filter(|key| !has_ended(key)).collect();
        Outcome { fates, no_source_reached, created, closed, keys: keyed, owed }
    }
}

/// Sorts what is left into files that an earlier run published and units that have to be exported.
pub(super) fn resumable(
    plan: &Plan,
    ledger: &Ledger,
    left: Vec<usize>,
    halves: Halves,
) -> Result<(Vec<Shipment>, Vec<usize>), Failure> {
    let (mut ready, mut to_export) = (Vec::new(), Vec::new());
    for index in left {
        let unit = &plan.units[index];
        let exported = match halves {
            Halves::Both | Halves::Load if unit.waits => ledger.exported(&unit.key)?,
            Halves::Both | Halves::Load | Halves::Export => None,
        };
        // A file that left out less, or more, than is loaded by now is of no more use.
        let exported = exported.filter(|exported| exported.left_out == unit.rows.left_out());
        match (exported, halves) {
            (Some(exported), _) => {
                ready.push(Shipment { index, exported: Arc::new(exported), _weight: None });
            }
            (None, Halves::Both | Halves::Export) => to_export.push(index),
            (None, Halves::Load) => {}
        }
    }
    Ok((ready, to_export))
}

impl Fate {
    fn begun() -> Self {
        let record = Record {
            attempt: 1,
            state: State::Exporting,
            started_at: Timestamp::now(),
            exported: None,
            rows_loaded: None,
            rows_rejected: None,
            export_seconds: None,
            load_seconds: None,
            failure: None,
        };
        Self { record, how: None, failure: None, rejected: 0 }
    }

    /// Once what was loaded is on record, nobody asks for its columns any more.
    fn shrink(&mut self) {
        if self.record.state == State::Loaded
            && let Some(exported) = &mut self.record.exported
            && !exported.columns.is_empty()
        {
            // In place, once nobody else holds it: a copy would lie beside the gap that the first leaves.
            let exported = Arc::make_mut(exported);
            (exported.columns, exported.left_out) = (Columns::default(), String::new());
        }
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
            What::Closed | What::Read(_) | What::Keying | What::Keyed(_) => {}
            What::Loading => record.state = State::Loading,
            What::Loaded(loaded) => {
                record.state = State::Loaded;
                record.rows_loaded = Some(loaded.rows);
                record.rows_rejected = Some(loaded.rejected);
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
                record.failure = Some(Box::new(RecordedFailure {
                    stage: failure.stage.word(),
                    error: failure.error.clone(),
                    remedy: failure.remedy.clone(),
                    counts,
                }));
                if !failure.file_is_good {
                    record.exported = None;
                }
                self.failure = Some(Box::new(failure));
            }
        }
    }
}
