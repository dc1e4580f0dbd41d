//! The levels: rows per window, digests per bucket of the windows that differ or that are to be looked at, and then
//! [`super::refine`] for the rows of the buckets that differ.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use jiff::tz::TimeZone;

use super::buckets::{Buckets, Content, Differing, Place, take};
use super::chunks::{Chunk, Placed, chunks};
use super::refine::{Refine, Spot};
use super::subject::{Known, Subject};
use super::{Both, Difference, Side, Told, Unread, Window};
use crate::plan::Compared;
use crate::step::load::Proof;
use crate::unit::Extent;

/// About so many cells a question about digests has: a cell of two million rows is so small that its rows are quickly
/// read one by one.
const CELLS: i64 = 1024;
/// Parts that a table without windows is cut in.
const PARTS: i64 = 1021;
/// Below so many bytes a table is not cut at all.
const SMALL: u64 = 1 << 20;

/// How deep to look.
#[derive(Debug, Clone, Copy)]
pub struct Depth<'a> {
    /// Digests of all windows, not only of those whose number of rows differs.
    pub deep: bool,
    /// Digests of these windows in any case: they differed before. By their place among the table's.
    pub suspects: &'a [usize],
    /// So many keys are told.
    pub keys: usize,
    /// What their columns hold on both sides is told too.
    pub values: bool,
    /// What the target held of windows that differ is told, so that it can be asked again.
    pub proofs: bool,
}

/// Compares the windows of one table.
///
/// # Errors
/// [`Unread`] where it cannot be compared, or a side has no answer.
pub fn look(
    compared: &Compared,
    known: Known<'_>,
    zone: &TimeZone,
    depth: Depth<'_>,
    both: &mut dyn Both,
) -> Result<Told, Unread> {
    let subject = Subject::new(compared, known, zone)?;
    let window = |extent: &Extent| Window {
        extent: *extent,
        rows: [0, 0],
        digested: false,
        difference: Difference::NONE,
    };
    let extents = compared.extents();
    let told = Told {
        windows: extents.iter().map(window).collect(),
        key_columns: subject.key.iter().map(|column| column.name.clone()).collect(),
        keyed: subject.keyed,
        skipped: subject.skipped.clone(),
        notes: subject
            .row
            .columns
            .iter()
            .filter_map(|column| Some(format!("{}: {}", column.name, column.note.as_ref()?)))
            .collect(),
        ..Told::default()
    };
    let sums = vec![0; extents.len()];
    let mut look = Look { subject: &subject, both, depth, told, sums };
    let all: Vec<usize> = (0..extents.len()).collect();
    if depth.deep {
        look.digests(&all)?;
    } else {
        look.counts(&all)?;
        let mut wanted: Vec<usize> = depth.suspects.to_vec();
        wanted.extend(all.iter().filter(|&&n| look.told.windows[n].rows[0] != look.told.windows[n].rows[1]));
        wanted.sort_unstable();
        wanted.dedup();
        look.digests(&wanted)?;
    }
    if depth.proofs {
        look.prove()?;
    }
    Ok(look.told)
}

struct Look<'a, 'b> {
    subject: &'a Subject<'a>,
    both: &'b mut dyn Both,
    depth: Depth<'a>,
    told: Told,
    /// The sum of the target's digests, by window.
    sums: Vec<u128>,
}

impl Look<'_, '_> {
    /// Level 1.
    fn counts(&mut self, windows: &[usize]) -> Result<(), Unread> {
        let (chunks, single) = self.cut(windows);
        for chunk in chunks {
            let cells = |side| self.subject.cell(side, chunk.origin, chunk.step);
            let conditions = self.hull(&chunk)?;
            let buckets = self.buckets(Side::BOTH.map(cells), conditions, false)?;
            self.note_rows(&buckets, |cell| chunk.window_of(cell));
        }
        for window in single {
            let conditions = self.conditions(self.told.windows[window].extent)?;
            let buckets = self.buckets(Side::BOTH.map(|_| "CAST(0 AS bigint)".into()), conditions, false)?;
            self.note_rows(&buckets, |_| Some(window));
        }
        Ok(())
    }

    /// Level 2, and level 3 where that finds something.
    fn digests(&mut self, windows: &[usize]) -> Result<(), Unread> {
        for &window in windows {
            let one = &mut self.told.windows[window];
            (one.digested, one.rows) = (true, [0, 0]);
            self.sums[window] = 0;
        }
        let (chunks, single) = self.cut(windows);
        let mut spots = Vec::new();
        let wanted = self.wanted_cells();
        for chunk in chunks.into_iter().map(|chunk| chunk.finer(wanted)) {
            let cells = |side| self.subject.cell(side, chunk.origin, chunk.step);
            let conditions = self.hull(&chunk)?;
            let buckets = self.buckets(Side::BOTH.map(cells), conditions, true)?;
            self.note_rows(&buckets, |cell| chunk.window_of(cell));
            let bucket = Rc::new(Side::BOTH.map(cells));
            let mut within = Within::default();
            for differing in buckets.differing() {
                let cell = differing.place.cell;
                let Some(window) = chunk.window_of(cell) else { continue };
                let within = self.within(&mut within, window, &differing.place)?;
                spots.push(spot(window, within, &bucket, Some(chunk.bounds(cell)), differing));
            }
        }
        for window in single {
            let parts = if self.is_small() { 1 } else { PARTS };
            let bucket = |side| match parts {
                1 => "CAST(0 AS bigint)".into(),
                parts => self.subject.spread(side, parts),
            };
            let bucket = Rc::new(Side::BOTH.map(bucket));
            let conditions = self.conditions(self.told.windows[window].extent)?;
            let buckets = self.buckets(bucket.as_ref().clone(), conditions, true)?;
            self.note_rows(&buckets, |_| Some(window));
            let mut within = Within::default();
            for differing in buckets.differing() {
                let within = self.within(&mut within, window, &differing.place)?;
                spots.push(spot(window, within, &bucket, None, differing));
            }
        }
        self.refine(spots)
    }

    fn prove(&mut self) -> Result<(), Unread> {
        for (n, window) in self.told.windows.iter().enumerate().filter(|(_, one)| !one.difference.is_none()) {
            let conditions = self.subject.conditions(Side::Target, window.extent)?;
            let sql = self.subject.sum(Side::Target, &conditions);
            self.told.proofs.push((n, Proof { sql, rows: window.rows[1], sum: self.sums[n] }));
        }
        Ok(())
    }

    fn refine(&mut self, spots: Vec<Spot>) -> Result<(), Unread> {
        let mut by_part: BTreeMap<(usize, Option<String>), Difference> = BTreeMap::new();
        let mut refine = Refine::new(self.subject, self.both, self.depth, &mut self.told);
        for (window, group, difference) in refine.all(spots)? {
            self.told.windows[window].difference.add(difference);
            if self.subject.groups() && !difference.is_none() {
                by_part.entry((window, group)).or_insert(Difference::NONE).add(difference);
            }
        }
        let mut by_group: BTreeMap<Option<String>, Difference> = BTreeMap::new();
        for ((_, group), difference) in &by_part {
            by_group.entry(group.clone()).or_insert(Difference::NONE).add(*difference);
        }
        self.told.groups = by_group.into_iter().collect();
        self.told.parts =
            by_part.into_iter().map(|((window, group), found)| (window, group, found)).collect();
        Ok(())
    }

    /// Windows put together along their axis, and those that have none.
    fn cut(&self, windows: &[usize]) -> (Vec<Chunk>, Vec<usize>) {
        let (mut placed, mut single) = (Vec::new(), Vec::new());
        for &window in windows {
            let numbers = self.told.windows[window].extent.numbers();
            match (self.subject.place(numbers.start()), self.subject.place(numbers.end())) {
                (Some(first), Some(end)) => placed.push(Placed { window, first, end }),
                (None, _) | (_, None) => single.push(window),
            }
        }
        (chunks(placed), single)
    }

    /// What holds of all rows of a chunk's windows, and of those between them.
    fn hull(&self, chunk: &Chunk) -> Result<[Vec<String>; 2], Unread> {
        let extent = |window: usize| self.told.windows[window].extent;
        let whole = match (chunk.windows.first(), chunk.windows.last()) {
            (Some(first), Some(last)) => hull(extent(first.window), extent(last.window)),
            (None, _) | (_, None) => Extent::Whole,
        };
        self.conditions(whole)
    }

    fn conditions(&self, extent: Extent) -> Result<[Vec<String>; 2], Unread> {
        Ok([self.subject.conditions(Side::Source, extent)?, self.subject.conditions(Side::Target, extent)?])
    }

    fn wanted_cells(&self) -> i64 {
        if self.is_small() { 1 } else { CELLS }
    }

    fn is_small(&self) -> bool {
        self.subject.bytes().is_some_and(|bytes| bytes < SMALL)
    }

    fn buckets(
        &mut self,
        bucket: [String; 2],
        conditions: [Vec<String>; 2],
        digest: bool,
    ) -> Result<Buckets, Unread> {
        let subject = self.subject;
        buckets(subject, self.both, &bucket, &conditions, digest)
    }

    fn note_rows(&mut self, buckets: &Buckets, window_of: impl Fn(i64) -> Option<usize>) {
        for side in Side::BOTH {
            for (cell, content) in buckets.of_side(side) {
                let Some(window) = window_of(cell) else { continue };
                self.told.windows[window].rows[side as usize] += content.rows;
                if side == Side::Target {
                    self.sums[window] += content.sum;
                }
            }
        }
    }

    /// What holds of a bucket's rows on each side, by the window and the group.
    fn within(
        &self,
        known: &mut Within,
        window: usize,
        place: &Place,
    ) -> Result<Rc<[Vec<String>; 2]>, Unread> {
        let of = (window, place.group_md5.clone());
        if let Some(found) = known.get(&of) {
            return Ok(Rc::clone(found));
        }
        let mut within = self.conditions(self.told.windows[window].extent)?;
        for side in Side::BOTH {
            within[side as usize].extend(self.subject.in_group(side, place.group_md5.as_deref()));
        }
        let within = Rc::new(within);
        known.insert(of, Rc::clone(&within));
        Ok(within)
    }
}

/// Conditions by window and group, which many buckets share.
type Within = HashMap<(usize, Option<String>), Rc<[Vec<String>; 2]>>;

fn spot(
    window: usize,
    within: Rc<[Vec<String>; 2]>,
    bucket: &Rc<[String; 2]>,
    bounds: Option<(i64, i64)>,
    differing: Differing,
) -> Spot {
    let Differing { place: Place { group, cell, .. }, rows } = differing;
    Spot { window, group, within, bucket: Rc::clone(bucket), cells: vec![cell], bounds, rows, depth: 0 }
}

/// Asks both sides for buckets.
pub(super) fn buckets(
    subject: &Subject<'_>,
    both: &mut dyn Both,
    bucket: &[String; 2],
    conditions: &[Vec<String>; 2],
    digest: bool,
) -> Result<Buckets, Unread> {
    let question =
        |side: Side| subject.by_bucket(side, &bucket[side as usize], &conditions[side as usize], digest);
    let (mut source, mut target): (HashMap<Place, Content>, HashMap<Place, Content>) = Default::default();
    let (mut wrong, mut also_wrong) = (None, None);
    both.ask(
        Side::BOTH.map(question),
        if digest { "digest rows" } else { "count rows" },
        [&mut |row| wrong = wrong.or(take(&mut source, row).err()), &mut |row| {
            also_wrong = also_wrong.or(take(&mut target, row).err());
        }],
    )?;
    for (side, wrong) in Side::BOTH.into_iter().zip([wrong, also_wrong]) {
        if let Some(wrong) = wrong {
            return Err(Unread::new(
                side,
                format!("it answered with {wrong}"),
                "look at `compare` of this table",
            ));
        }
    }
    Ok(Buckets::of(source, target))
}

/// From the beginning of one window to the end of another.
fn hull(first: Extent, last: Extent) -> Extent {
    match (first, last) {
        (Extent::Times(first), Extent::Times(last)) => {
            crate::window::Window::new(first.start(), last.end()).map_or(Extent::Times(first), Extent::Times)
        }
        (Extent::Ids(first), Extent::Ids(last)) => {
            crate::interval::Interval::new(first.start(), last.end()).map_or(Extent::Ids(first), Extent::Ids)
        }
        (first, _) => first,
    }
}
