//! How far a run is: what the events add up to, over all and per table. Pure but for the clock that is passed in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Event, What};
use crate::names::TableName;
use crate::plan::Plan;

/// A stage of the run, over all tables or of one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Stage {
    /// Units that are through it.
    pub(super) done: usize,
    /// Their rows.
    pub(super) rows: u64,
    /// Compressed bytes of their files.
    pub(super) bytes: u64,
    /// When the first began, since the run did.
    began: Option<Duration>,
    /// When the last that is through was.
    last: Duration,
}

/// One table.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    /// The source, where there are several.
    source: Option<Arc<str>>,
    table: Option<TableName>,
    pub(super) units: usize,
    pub(super) exported: Stage,
    pub(super) loaded: Stage,
    pub(super) failed: usize,
    /// Bytes that loaders have read of its units that are not through.
    reading: u64,
    /// Units that are exported at the moment, and that are loaded at the moment.
    pub(super) exporting: usize,
    pub(super) loading: usize,
    /// Is its key being built?
    pub(super) keying: bool,
}

/// Where a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting,
    Exporting,
    Exported,
    Loading,
    Done,
}

#[derive(Debug, Clone, Copy)]
struct Unit {
    table: usize,
    place: Place,
    /// Rows and compressed bytes of its file.
    rows: u64,
    bytes: u64,
    /// Bytes of it that the loader has read.
    read: u64,
}

/// All of a run.
#[derive(Debug)]
pub(super) struct Tally {
    units: Vec<Unit>,
    tables: Vec<Table>,
    /// Units that need no export.
    resumed: usize,
    pub(super) exported: Stage,
    pub(super) loaded: Stage,
    pub(super) failed: usize,
    /// Bytes that loaders have read of units that are not through.
    reading: u64,
    /// Units that were left or not begun: nothing more comes of them in this run.
    left: usize,
}

impl Tally {
    /// Of a plan that nothing of is done.
    pub(super) fn new(plan: &Plan) -> Self {
        let several = plan.units.windows(2).any(|two| two[0].key.source != two[1].key.source);
        let mut places: HashMap<(&str, &TableName), usize> = HashMap::new();
        let (mut units, mut tables) = (Vec::with_capacity(plan.units.len()), Vec::<Table>::new());
        for unit in &plan.units {
            let table = *places.entry((&unit.key.source, &unit.table)).or_insert_with(|| {
                let source = several.then(|| Arc::clone(&unit.key.source));
                tables.push(Table { source, table: Some(unit.table.clone()), ..Table::default() });
                tables.len() - 1
            });
            tables[table].units += 1;
            units.push(Unit { table, place: Place::Waiting, rows: 0, bytes: 0, read: 0 });
        }
        let (exported, loaded) = (Stage::default(), Stage::default());
        Self { units, tables, resumed: 0, exported, loaded, failed: 0, reading: 0, left: 0 }
    }

    /// All units.
    pub(super) fn units(&self) -> usize {
        self.units.len()
    }

    /// Units that are exported in this run, or will be.
    pub(super) fn to_export(&self) -> usize {
        self.units.len() - self.resumed
    }

    /// Tables that something is done with, by name.
    pub(super) fn in_work(&self) -> Vec<&Table> {
        let mut tables: Vec<&Table> =
            self.tables.iter().filter(|table| table.exporting + table.loading > 0 || table.keying).collect();
        tables.sort_by_cached_key(|table| table.name());
        tables
    }

    /// Compressed bytes that went into the target, those of units that are not through included.
    pub(super) fn bytes_in(&self) -> u64 {
        self.loaded.bytes + self.reading
    }

    /// How much of the units is through, parts of units included.
    pub(super) fn loaded_units(&self) -> f64 {
        let part: f64 = self
            .units
            .iter()
            .filter(|unit| unit.place == Place::Loading && unit.bytes > 0)
            .map(|unit| unit.read.min(unit.bytes) as f64 / unit.bytes as f64)
            .sum();
        self.ended() as f64 + part
    }

    /// Units of which nothing more comes.
    pub(super) fn ended(&self) -> usize {
        self.loaded.done + self.failed + self.left
    }

    /// Takes an event in, that came so long after the run began.
    pub(super) fn hear(&mut self, event: &Event, now: Duration) {
        match &event.what {
            What::Exporting { .. } => self.goes_to(event.unit, Place::Exporting, now),
            What::Exported { exported, .. } => {
                self.published(event.unit, exported.rows, exported.trailer.bytes, now);
                self.goes_to(event.unit, Place::Exported, now);
            }
            What::Resumed(exported) => {
                self.resumed += 1;
                let unit = &mut self.units[event.unit];
                (unit.rows, unit.bytes) = (exported.rows, exported.trailer.bytes);
                self.goes_to(event.unit, Place::Exported, now);
            }
            What::Loading => self.goes_to(event.unit, Place::Loading, now),
            What::Read(bytes) => {
                let unit = &mut self.units[event.unit];
                if unit.place == Place::Loading {
                    for sum in [&mut self.reading, &mut self.tables[unit.table].reading] {
                        *sum = (*sum + bytes).saturating_sub(unit.read);
                    }
                    unit.read = *bytes;
                }
            }
            What::Loaded(loaded) => {
                let was = self.units[event.unit].place;
                self.goes_to(event.unit, Place::Done, now);
                let unit = self.units[event.unit];
                let table = &mut self.tables[unit.table];
                // What was there before has no file of this run.
                if was == Place::Waiting {
                    self.resumed += 1;
                }
                for stage in [&mut self.loaded, &mut table.loaded] {
                    stage.done += 1;
                    stage.rows += loaded.rows;
                    stage.bytes += unit.bytes;
                    stage.last = now;
                }
            }
            What::Failed(_) => {
                self.goes_to(event.unit, Place::Done, now);
                self.failed += 1;
                let table = self.units[event.unit].table;
                self.tables[table].failed += 1;
            }
            What::Left | What::Closed => {
                self.goes_to(event.unit, Place::Done, now);
                self.left += 1;
            }
            What::Retrying(_) => {}
            What::Keying => self.tables[self.units[event.unit].table].keying = true,
            What::Keyed(_) => self.tables[self.units[event.unit].table].keying = false,
        }
    }

    fn published(&mut self, unit: usize, rows: u64, bytes: u64, now: Duration) {
        let unit = &mut self.units[unit];
        (unit.rows, unit.bytes) = (rows, bytes);
        for stage in [&mut self.exported, &mut self.tables[unit.table].exported] {
            stage.done += 1;
            stage.rows += rows;
            stage.bytes += bytes;
            stage.last = now;
        }
    }

    fn goes_to(&mut self, index: usize, place: Place, now: Duration) {
        let unit = &mut self.units[index];
        let table = &mut self.tables[unit.table];
        match unit.place {
            Place::Exporting => table.exporting -= 1,
            Place::Loading => table.loading -= 1,
            Place::Waiting | Place::Exported | Place::Done => {}
        }
        if unit.place == Place::Done {
            return;
        }
        self.reading = self.reading.saturating_sub(unit.read);
        table.reading = table.reading.saturating_sub(unit.read);
        unit.read = 0;
        unit.place = place;
        match place {
            Place::Exporting => {
                table.exporting += 1;
                self.exported.began.get_or_insert(now);
                table.exported.began.get_or_insert(now);
            }
            Place::Loading => {
                table.loading += 1;
                self.loaded.began.get_or_insert(now);
                table.loaded.began.get_or_insert(now);
            }
            Place::Waiting | Place::Exported | Place::Done => {}
        }
    }
}

impl Table {
    /// What it is called.
    pub(super) fn name(&self) -> String {
        let source = self.source.as_ref().map(|source| format!("{source}:")).unwrap_or_default();
        format!("{source}{}", self.table.as_ref().map(TableName::to_string).unwrap_or_default())
    }

    /// As [`Tally::bytes_in`].
    pub(super) fn bytes_in(&self) -> u64 {
        self.loaded.bytes + self.reading
    }
}

impl Stage {
    /// Bytes a second since the stage began, until its end where all of it is through; 0 before.
    pub(super) fn rate(&self, bytes: u64, all: usize, now: Duration) -> f64 {
        let now = if self.done == all { self.last } else { now };
        let seconds = now.saturating_sub(self.began.unwrap_or(now)).as_secs_f64();
        if seconds < 0.2 { 0.0 } else { bytes as f64 / seconds }
    }

    /// How long what is left takes, if it goes on as so far: `done` of `all` units are through.
    pub(super) fn left(&self, done: f64, all: usize, now: Duration) -> Option<Duration> {
        let spent = now.saturating_sub(self.began?).as_secs_f64();
        let rest = all as f64 - done;
        // Too little of it says nothing.
        if done < 0.01 || spent < 0.5 || rest < 0.0 {
            return None;
        }
        Duration::try_from_secs_f64(spent * rest / done).ok()
    }
}
