//! One job's tables: what of each is due, and is not in the target yet.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::facts::{Facts, IdColumn, Open, OpenState, Series};
use super::{Assumed, Change, Note, Plan, Selection, Skipped, Why};
use crate::interval::{Grid, Interval, merged};
use crate::inventory::{Cut, Job, LoadMode, NullWindow, Source, TableEntry, WindowBy, WindowRule};
use crate::measure::{Loaded, Measure, Scale, all_numbers};
use crate::names::TableName;
use crate::unit::{Extent, Rows, Unit, UnitKey, tag, unit_id};
use crate::window::{Length, Window, civil, micros, settled};

/// So many windows of one table are planned at once: a job of years by seconds must not fill the memory.
const MOST: usize = 100_000;

/// What one job's tables are planned on.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) selection: &'a Selection,
    pub(super) facts: &'a Facts,
    pub(super) source: &'a Source,
    pub(super) job: &'a Job,
    /// Those two, as units name them.
    pub(super) names: &'a (Arc<str>, Arc<str>),
    pub(super) zone: &'a TimeZone,
    pub(super) now: Timestamp,
}

/// The tables of a job, added to a plan one after the other.
pub(super) struct Tables<'a, 'p> {
    ground: Ground<'a>,
    plan: &'p mut Plan,
    is_open: bool,
    /// Tables of which nothing was moved before; some others were.
    unknown: Vec<String>,
    some_known: bool,
}

/// A unit to be.
struct Cell {
    id: String,
    extent: Extent,
    tries: u32,
    waits: bool,
}

impl Cell {
    fn waiting(open: &Open, measure: &Measure) -> Self {
        Self { id: open.id.clone(), extent: extent(measure, open.extent), tries: open.tries, waits: true }
    }
}

/// What of a measure's numbers is due.
struct Due {
    grid: Grid,
    range: Option<Interval<i64>>,
    not_due: usize,
}

impl<'a, 'p> Tables<'a, 'p> {
    pub(super) fn new(ground: Ground<'a>, plan: &'p mut Plan) -> Self {
        let time = ground.zone.to_datetime(ground.now).time();
        let is_open = ground.job.hours.is_none_or(|hours| hours.contain(time));
        Self { ground, plan, is_open, unknown: Vec::new(), some_known: false }
    }

    pub(super) fn skip(&mut self, table: &str, units: usize, why: Why) {
        let (job, table) = (self.ground.job.name.clone(), table.to_owned());
        self.plan.skipped.push(Skipped { job, table, units, why });
    }

    fn note(&mut self, table: &str, change: Change) {
        let (job, table) = (self.ground.job.name.clone(), table.to_owned());
        self.plan.notes.push(Note { job, table, change });
    }

    /// Adds what is due of one table.
    pub(super) fn add(&mut self, entry: &Arc<TableEntry>, table: TableName, series: String) {
        let nothing = Series::default();
        let ground = self.ground;
        let known = ground.facts.series(&ground.source.name, &series);
        if known.is_some_and(|known| !known.loaded.is_empty() || !known.unmeasured.is_empty()) {
            self.some_known = true;
        } else {
            self.unknown.push(table.to_string());
        }
        let mut piece = Piece { entry, table, series, known: known.unwrap_or(&nothing) };
        if !piece.known.unmeasured.is_empty() {
            match &entry.window {
                WindowRule::By(by) if by.measure().is_time() => self.assume(&piece, by.measure()),
                WindowRule::By(_) | WindowRule::None { .. } => {
                    return self.skip(&piece.table.to_string(), 0, Why::Unmeasured);
                }
            }
        }
        match &entry.window {
            WindowRule::None { every } => match (every, piece.known.moved_whole_at()) {
                (Some(every), Some(last)) => self.add_again(&piece, *every, last),
                (Some(_) | None, _) => match piece.sliced() {
                    Some(measure) => self.add_windows(&mut piece, &measure, Due::every_slice()),
                    None => self.add_all_or_nothing(&mut piece, &Measure::All, Extent::Whole),
                },
            },
            WindowRule::By(by) => {
                if piece.known.holds_all(&Measure::All) {
                    return self.skip(&piece.table.to_string(), 0, Why::MovedWhole);
                }
                match self.due(&piece.table, by) {
                    Ok(due) => self.add_windows(&mut piece, &by.measure(), due),
                    Err(why) => self.skip(&piece.table.to_string(), 0, why),
                }
                if by.null_window == NullWindow::Include && ground.selection.from.is_none() {
                    let nulls = Measure::Null(by.column.clone());
                    self.add_all_or_nothing(&mut piece, &nulls, Extent::Nulls);
                }
            }
        }
    }

    fn assume(&mut self, piece: &Piece<'_>, measure: Measure) {
        let (source, series) = (self.ground.source.name.clone(), piece.series.clone());
        self.plan.assumed.push(Assumed { source, series, measure });
    }

    /// A unit that is there or not: the whole table, or the rows without a time.
    fn add_all_or_nothing(&mut self, piece: &mut Piece<'_>, measure: &Measure, extent: Extent) {
        let name = piece.table.to_string();
        if piece.known.holds_all(measure) {
            return self.skip(&name, 1, Why::AlreadyLoaded);
        }
        let rows = Arc::new(piece.rows(measure));
        let id = unit_id(&rows.series, &extent, rows.tag.as_deref());
        let open = piece.known.open.iter().find(|open| open.is_by(measure) && open.id == id);
        let tries = open.map_or(0, |open| open.tries);
        let waits = open.is_some_and(|open| open.state == OpenState::Exported);
        // Slices that were begun, and of which nothing is there: the table is moved from its beginning.
        let slices = piece.known.open.iter().filter(|open| extent.is_whole() && open.is_slice());
        let slices: Vec<UnitKey> = slices.map(|open| self.key(open.id.clone())).collect();
        self.plan.replaced.extend(slices);
        self.admit(piece, vec![Cell { id, extent, tries, waits }], &rows);
    }

    /// A whole table that is moved again and again, and was moved `last`: microseconds since 1970-01-01 UTC. Its id
    /// names the time it was due, so it is one unit until it is due the next time.
    fn add_again(&mut self, piece: &Piece<'_>, every: Length, last: i64) {
        let times = (self.ground.now.as_microsecond() - last).div_euclid(every.micros());
        if times < 1 {
            return self.skip(&piece.table.to_string(), 1, Why::NotDueYet);
        }
        let extent = Extent::Repeated(civil(last.saturating_add(every.micros().saturating_mul(times))));
        let rows = Arc::new(piece.rows(&Measure::All));
        let id = unit_id(&rows.series, &extent, rows.tag.as_deref());
        let open = || piece.known.open.iter().filter(|open| open.is_by(&Measure::All));
        let own = open().find(|open| open.id == id);
        let tries = own.map_or(0, |open| open.tries);
        let waits = own.is_some_and(|open| open.state == OpenState::Exported);
        let outdated: Vec<UnitKey> =
            open().filter(|open| open.id != id).map(|open| self.key(open.id.clone())).collect();
        self.plan.replaced.extend(outdated);
        self.admit(piece, vec![Cell { id, extent, tries, waits }], &rows);
    }

    /// The windows, or slices of a whole table, that are due and not loaded.
    fn add_windows(&mut self, piece: &mut Piece<'_>, measure: &Measure, due: Due) {
        let name = piece.table.to_string();
        let rows = Arc::new(piece.rows(measure));
        let loaded = piece.loaded(measure);
        let gaps = due.range.map(|range| range.without(&loaded)).unwrap_or_default();
        let open: Vec<&Open> = piece.known.open.iter().filter(|open| open.is_by(measure)).collect();
        // A file that waits on the mount keeps its bounds; what lies beside it is cut anew. Under a plain id, where
        // units of another column have taken those by now, it may stand for the rows of one of them: not that one.
        let is_own = |open: &Open| {
            unit_id(&rows.series, &extent(measure, open.extent), rows.tag.as_deref()) == open.id
        };
        let waiting: Vec<&Open> = disjoint(open.iter().copied().filter(|open| {
            open.state == OpenState::Exported
                && is_own(open)
                && gaps.iter().any(|gap| gap.holds(&open.extent))
        }));
        let mut cells: Vec<Cell> = waiting.iter().map(|open| Cell::waiting(open, measure)).collect();
        let taken = merged(waiting.iter().map(|open| open.extent).collect());
        let rest: Vec<Interval<i64>> = gaps.iter().flat_map(|gap| gap.without(&taken)).collect();
        for cell in rest.iter().flat_map(|gap| due.grid.cells(*gap)).take(MOST) {
            let extent = extent(measure, cell);
            let id = unit_id(&rows.series, &extent, rows.tag.as_deref());
            let tries = open.iter().find(|open| open.id == id).map_or(0, |open| open.tries);
            cells.push(Cell { id, extent, tries, waits: false });
        }
        let beyond = due.grid.touched(&rest).saturating_sub(MOST);
        cells.sort_unstable_by_key(|cell| cell.extent);
        self.tell_changes(&name, &rows, &due, &loaded, &cells);
        let planned: HashSet<&str> = cells.iter().map(|cell| cell.id.as_str()).collect();
        let replaced = open.iter().filter(|open| {
            let is_recut = |cell: &Cell| cell.extent.numbers().overlaps(&open.extent);
            !planned.contains(open.id.as_str()) && cells.iter().any(is_recut)
        });
        let replaced: Vec<UnitKey> = replaced.map(|open| self.key(open.id.clone())).collect();
        self.plan.replaced.extend(replaced);
        let touched = due.grid.touched(&gaps);
        let all = due.range.map_or(0, |range| due.grid.count(range));
        for (units, why) in
            [(all - touched, Why::AlreadyLoaded), (due.not_due, Why::NotDueYet), (beyond, Why::TooMany)]
        {
            if units > 0 {
                self.skip(&name, units, why);
            }
        }
        self.admit(piece, cells, &rows);
    }

    /// Takes units into the plan, but for those that were given up or may not start now.
    fn admit(&mut self, piece: &Piece<'_>, cells: Vec<Cell>, rows: &Arc<Rows>) {
        let ground = self.ground;
        let retries = piece.entry.export.retries;
        let (mut closed, mut given_up) = (0, 0);
        for Cell { id, extent, tries, waits } in cells {
            if tries > retries && !ground.selection.retry_failed {
                given_up += 1;
            } else if !self.is_open {
                closed += 1;
            } else {
                self.plan.units.push(Unit {
                    key: self.key(id),
                    job: Arc::clone(&ground.names.1),
                    target: piece.entry.target.clone().unwrap_or_else(|| piece.table.clone()),
                    table: piece.table.clone(),
                    extent,
                    waits,
                    rows: Arc::clone(rows),
                    entry: Arc::clone(piece.entry),
                });
            }
        }
        for (units, why) in [(given_up, Why::GivenUp), (closed, Why::OutsideHours)] {
            if units > 0 {
                self.skip(&piece.table.to_string(), units, why);
            }
        }
    }

    /// Says what is not as it was when the table was last moved.
    fn tell_changes(&mut self, name: &str, rows: &Rows, due: &Due, loaded: &[Interval<i64>], cells: &[Cell]) {
        for other in &rows.without {
            self.note(name, Change::Column { was: other.measure.to_string() });
        }
        if matches!(rows.measure, Measure::Slice(..)) {
            return;
        }
        let (Some(first), Some(range)) = (loaded.first(), due.range) else { return };
        if cells.first().is_some_and(|cell| cell.extent.numbers().end() <= first.start()) {
            self.note(name, Change::Earlier);
        }
        let off_grid = |edge: i64| range.start() < edge && edge < range.end() && due.grid.floor(edge) != edge;
        if loaded.iter().any(|one| off_grid(one.start()) || off_grid(one.end())) {
            self.note(name, Change::Bounds);
        }
    }

    fn key(&self, id: String) -> UnitKey {
        UnitKey { source: Arc::clone(&self.ground.names.0), id }
    }

    /// What is due by a column, whether it is loaded or not.
    fn due(&self, table: &TableName, by: &WindowBy) -> Result<Due, Why> {
        match by.cut {
            Cut::Time { length, .. } => {
                let from = self.ground.selection.from.or(self.ground.job.from).ok_or(Why::NoStart)?;
                let until = self.ground.selection.until.or(self.ground.job.until);
                if until.is_none() && length.is_none() {
                    return Err(Why::NoEnd);
                }
                let ripe = self.ground.now.checked_sub(by.lag).unwrap_or(Timestamp::MIN);
                let over = micros(settled(ripe, self.ground.zone));
                let grid = Grid { origin: micros(from), step: length.map(|length| length.micros()) };
                Ok(up_to(grid, micros(from), until.map(micros), over))
            }
            Cut::Ids { step, from, until } => {
                if self.ground.selection.from.is_some() || self.ground.selection.until.is_some() {
                    return Err(Why::NotByTime);
                }
                let seen = self.ground.facts.ids.get(&IdColumn {
                    source: self.ground.source.name.clone(),
                    table: table.to_string(),
                    column: by.column.clone(),
                });
                let seen = seen.ok_or(Why::NotListed)?;
                let ripe = self.ground.now.checked_sub(by.lag).unwrap_or(Timestamp::MIN);
                let lowest = seen.iter().map(|seen| seen.lowest).min();
                let highest = seen.iter().filter(|seen| seen.at <= ripe).map(|seen| seen.highest).max();
                let Some(start) = from.or(lowest) else { return Err(Why::NotDueYet) };
                let grid = Grid { origin: start, step: Some(step) };
                let end = highest.map_or(start, |highest| highest.saturating_add(1));
                let end = until.map_or(end, |until| until.min(end));
                // Ids that are there are whole, however few: a window does not wait until it is full.
                Ok(Due { grid, range: Interval::new(start, end), not_due: usize::from(until != Some(end)) })
            }
        }
    }

    /// Says of new tables that they are new.
    pub(super) fn finish(mut self) {
        if self.some_known {
            for name in std::mem::take(&mut self.unknown) {
                self.note(&name, Change::New);
            }
        }
    }
}

/// What of a grid lies between `from` and `until` and is over: whole cells, the last one cut by `until`.
fn up_to(grid: Grid, from: i64, until: Option<i64>, over: i64) -> Due {
    let end = match until {
        Some(until) if until <= over => until,
        Some(until) => grid.floor(over.min(until)),
        None => grid.floor(over),
    };
    let rest =
        until.map_or(1, |until| Interval::new(end.max(from), until).map_or(0, |rest| grid.count(rest)));
    Due { grid, range: Interval::new(from, end), not_due: rest }
}

/// An interval of a measure's numbers, as the extent of a unit.
pub(super) fn extent(measure: &Measure, cell: Interval<i64>) -> Extent {
    match measure {
        Measure::By(Scale::Id, _) => Extent::Ids(cell),
        Measure::Slice(..) => Extent::Slice(cell),
        // Both ends are the numbers of civil times, one before the other.
        Measure::By(..) | Measure::All | Measure::Null(_) => {
            Window::new(civil(cell.start()), civil(cell.end())).map_or(Extent::Ids(cell), Extent::Times)
        }
    }
}

/// Those that overlap none before them.
fn disjoint<'a>(open: impl Iterator<Item = &'a Open>) -> Vec<&'a Open> {
    let mut open: Vec<&Open> = open.collect();
    open.sort_unstable_by_key(|open| open.extent);
    let mut kept: Vec<&Open> = Vec::with_capacity(open.len());
    for one in open {
        if kept.last().is_none_or(|last| !last.extent.overlaps(&one.extent)) {
            kept.push(one);
        }
    }
    kept
}

impl Due {
    /// All the slices of a table.
    fn every_slice() -> Self {
        Due { grid: Grid { origin: i64::MIN, step: None }, range: Some(all_numbers()), not_due: 0 }
    }
}

impl Open {
    /// Was it one slice of a whole table?
    fn is_slice(&self) -> bool {
        matches!(self.measure, Some(Measure::Slice(..)))
    }

    /// Was it begun by this measure? What an older ledger kept without one counts as such.
    fn is_by(&self, measure: &Measure) -> bool {
        self.measure.as_ref().map_or(measure.is_time(), |own| own == measure)
    }
}

/// One table of one entry, and what is known of it.
struct Piece<'a> {
    entry: &'a Arc<TableEntry>,
    table: TableName,
    series: String,
    known: &'a Series,
}

impl Piece<'_> {
    /// What is loaded by a measure; what an older ledger kept without one counts for it.
    fn loaded(&self, measure: &Measure) -> Vec<Interval<i64>> {
        let by = self.known.loaded_by(measure).map_or(&[][..], |loaded| &loaded.intervals);
        let unmeasured = if measure.is_time() { &self.known.unmeasured[..] } else { &[] };
        merged(by.iter().chain(unmeasured).copied().collect())
    }

    /// By what a table was cut that is partly in the target, or waits in part on the mount. Such a table is moved to its
    /// end in the same way: other slices would hold other rows.
    fn sliced(&self) -> Option<Measure> {
        let known = self.known;
        if self.entry.load.mode == LoadMode::Replace || known.holds_all(&Measure::All) {
            return None;
        }
        let is_slice = |measure: &&Measure| matches!(measure, Measure::Slice(..));
        let loaded = known.loaded.iter().filter(|loaded| !loaded.intervals.is_empty());
        let waiting = known.open.iter().filter(|open| open.state == OpenState::Exported);
        let mut measures =
            loaded.map(|loaded| &loaded.measure).chain(waiting.filter_map(|open| open.measure.as_ref()));
        measures.find(is_slice).cloned()
    }

    /// What the units of a measure share.
    fn rows(&self, measure: &Measure) -> Rows {
        let others: Vec<Loaded> = self
            .known
            .loaded
            .iter()
            .filter(|other| other.measure != *measure && other.measure != Measure::All)
            .filter(|other| !other.intervals.is_empty() && !other.measure.is_beside(measure))
            // A whole table takes the place of slices of it.
            .filter(|other| *measure != Measure::All || !matches!(other.measure, Measure::Slice(..)))
            .cloned()
            .collect();
        let rival = |other: &&Loaded| {
            std::mem::discriminant(&other.measure) == std::mem::discriminant(measure)
                && other.measure != *measure
        };
        let own = self.known.loaded_by(measure).map(|loaded| loaded.tag.clone());
        let tag = own.unwrap_or_else(|| self.known.loaded.iter().find(rival).map(|_| tag(measure)));
        Rows { series: self.series.clone(), measure: measure.clone(), tag, without: others }
    }
}
