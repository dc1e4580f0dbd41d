//! From buckets that differ to the rows that do.
//!
//! A bucket of few rows is read row by row: md5 of the key, and digest. A larger one is cut by the md5 of the key first,
//! and only what differs of it is gone into. Rows are told by multisets, so equal rows and equal keys are counted, and
//! NULL in a key is a value like any other.

use std::collections::HashMap;
use std::rc::Rc;

use super::look::{Depth, buckets};
use super::subject::Subject;
use super::{Both, Difference, Key, Kind, Side, Told, Unread};
use crate::source::postgres::fields;

/// So many rows are read one by one at a time.
const AT_ONCE: u64 = 10_000;
/// So many rows of a table are read one by one in all; beyond it a difference is told as "at least".
const BUDGET: u64 = 2_000_000;
/// So many buckets one question names.
const MOST_CELLS: usize = 500;
/// How often a bucket is cut: by three of md5's digits each time.
const DEEPEST: usize = 8;
/// Keys that one question names.
const KEYS: usize = 200;
/// So many bytes of keys are held of a side; what is beyond them is asked for again.
const KEY_BYTES: usize = 1 << 20;

/// Buckets that differ, of one window and one group.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) window: usize,
    pub(super) group: Option<String>,
    /// What holds of the rows of all buckets, on each side. Thousands of spots share it.
    pub(super) within: Rc<[Vec<String>; 2]>,
    /// The number of a row's bucket, on each side.
    pub(super) bucket: Rc<[String; 2]>,
    /// The buckets.
    pub(super) cells: Vec<i64>,
    /// From where to where they lie on the axis, where there is one.
    pub(super) bounds: Option<(i64, i64)>,
    pub(super) rows: [u64; 2],
    pub(super) depth: usize,
}

impl Spot {
    /// Puts another one to it, where the two are read together as quickly as one.
    fn join(&mut self, other: &Spot) -> bool {
        let rows = [self.rows[0] + other.rows[0], self.rows[1] + other.rows[1]];
        let is_alike = self.window == other.window
            && self.group == other.group
            && self.depth == other.depth
            && self.bucket == other.bucket
            && self.within == other.within;
        if !is_alike || rows[0].max(rows[1]) > AT_ONCE || self.cells.len() >= MOST_CELLS {
            return false;
        }
        self.rows = rows;
        self.cells.extend(&other.cells);
        self.bounds = match (self.bounds, other.bounds) {
            (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
            (None, _) | (_, None) => None,
        };
        true
    }

    /// First what keeps most rows out: where no index serves, all rows of the table come by.
    fn conditions(&self, subject: &Subject<'_>, side: Side) -> Vec<String> {
        let mut conditions: Vec<String> =
            self.bounds.and_then(|bounds| subject.around(side, bounds)).into_iter().collect();
        conditions.extend(self.within[side as usize].iter().cloned());
        let cells: Vec<String> = self.cells.iter().map(i64::to_string).collect();
        conditions.push(format!("({}) IN ({})", self.bucket[side as usize], cells.join(", ")));
        conditions
    }
}

/// Buckets that are read together where that can be.
fn joined(spots: Vec<Spot>) -> Vec<Spot> {
    let mut joined: Vec<Spot> = Vec::new();
    for spot in spots {
        let is_in = joined.last_mut().is_some_and(|last| last.join(&spot));
        if !is_in {
            joined.push(spot);
        }
    }
    joined
}

/// What became of a bucket: its window, its group, and how it differs.
pub(super) type Found = (usize, Option<String>, Difference);

pub(super) struct Refine<'a, 'b> {
    subject: &'a Subject<'a>,
    both: &'b mut dyn Both,
    depth: Depth<'a>,
    told: &'b mut Told,
    read: u64,
}

/// Rows of one key and one digest: how many stand on each side.
#[derive(Debug, Clone, Copy)]
struct Alike {
    key: u128,
    digest: u64,
    rows: [u64; 2],
}

/// What the columns of rows hold, by the md5 of their key.
type Values = HashMap<u128, Vec<Option<String>>>;

/// One side's rows of a spot.
#[derive(Debug)]
struct Read {
    side: Side,
    rows: Vec<Alike>,
    /// Rows with NULL in their key.
    nulls: u64,
    /// Keys as they came, by their md5.
    keys: HashMap<u128, Box<str>>,
    bytes: usize,
    wrong: bool,
}

impl<'a, 'b> Refine<'a, 'b> {
    pub(super) fn new(
        subject: &'a Subject<'a>,
        both: &'b mut dyn Both,
        depth: Depth<'a>,
        told: &'b mut Told,
    ) -> Self {
        Self { subject, both, depth, told, read: 0 }
    }

    /// Looks into all of them.
    pub(super) fn all(&mut self, spots: Vec<Spot>) -> Result<Vec<Found>, Unread> {
        let mut found = Vec::new();
        let mut spots = spots;
        spots.sort_by(|one, other| (one.window, &one.group).cmp(&(other.window, &other.group)));
        for spot in joined(spots) {
            let mut left = vec![spot];
            while let Some(spot) = left.pop() {
                let most = spot.rows[0].max(spot.rows[1]);
                if self.read.saturating_add(most) > BUDGET {
                    found.push((spot.window, spot.group, at_least(spot.rows)));
                } else if most <= AT_ONCE || spot.depth >= DEEPEST {
                    self.read += most;
                    let difference = self.read_rows(&spot)?;
                    found.push((spot.window, spot.group, difference));
                } else {
                    left.extend(joined(self.cut(&spot)?));
                }
            }
        }
        Ok(found)
    }

    /// The parts of a large bucket that differ.
    fn cut(&mut self, spot: &Spot) -> Result<Vec<Spot>, Unread> {
        let from = spot.depth * 3 + 1;
        let number = |side| {
            let digits = format!("substr({}, {from}, 3)", self.subject.key_hash(side));
            format!("CAST(CAST(CAST('x' || {digits} AS bit(12)) AS integer) AS bigint)")
        };
        let bucket = Rc::new(Side::BOTH.map(number));
        let within = Rc::new(Side::BOTH.map(|side| spot.conditions(self.subject, side)));
        let parts = buckets(self.subject, self.both, &bucket, &within, true)?;
        let part = |differing: super::buckets::Differing| Spot {
            window: spot.window,
            group: spot.group.clone(),
            within: Rc::clone(&within),
            bucket: Rc::clone(&bucket),
            // Within one group there is one bucket a cell.
            cells: vec![differing.place.cell],
            bounds: None,
            rows: differing.rows,
            depth: spot.depth + 1,
        };
        Ok(parts.differing().into_iter().map(part).collect())
    }

    /// Reads the rows of both sides, and says how they differ.
    fn read_rows(&mut self, spot: &Spot) -> Result<Difference, Unread> {
        // The keys come with them: to look for a few of them afterwards takes as long as all of this again. Where a row has
        // no other name than all of it, what is alike would come too.
        let keys = self.subject.keyed && self.told.keys.len() < self.depth.keys;
        let question =
            |side: Side| self.subject.row_digests(side, &spot.conditions(self.subject, side), keys);
        let (mut source, mut target) = Side::BOTH.map(Read::of).into();
        self.both.ask(
            Side::BOTH.map(question),
            "read digests of rows",
            [&mut |row| source.take(row), &mut |row| target.take(row)],
        )?;
        for read in [&source, &target] {
            if read.wrong {
                let error = "it answered with what is no digest of a row";
                return Err(Unread::new(read.side, error, "report it as a bug"));
            }
            self.told.null_keys += read.nulls;
        }
        let mut rows = std::mem::take(&mut source.rows);
        rows.append(&mut target.rows);
        rows.sort_unstable_by_key(|one| (one.key, one.digest));
        let mut differing: Vec<(u128, Difference)> = Vec::new();
        for of_key in rows.chunk_by(|one, other| one.key == other.key) {
            let on = |side: Side| of_key.iter().map(|one| one.rows[side as usize]).sum::<u64>();
            self.told.shared_keys += u64::from(on(Side::Source) > 1 || on(Side::Target) > 1);
            let difference = difference(of_key, self.subject.keyed);
            if !difference.is_none() {
                differing.push((of_key[0].key, difference));
            }
        }
        let mut sum = Difference::NONE;
        differing.iter().for_each(|(_, difference)| sum.add(*difference));
        let wanted = self.depth.keys.saturating_sub(self.told.keys.len());
        for some in differing[..wanted.min(differing.len())].chunks(KEYS) {
            let known = |(key, _): &(u128, _)| source.keys.contains_key(key) || target.keys.contains_key(key);
            if keys && !self.depth.values && some.iter().all(known) {
                let of = |read: &Read| -> Values {
                    let found = some.iter().filter_map(|(key, _)| Some((*key, fields(read.keys.get(key)?))));
                    found.collect()
                };
                self.note(spot, some, [&of(&source), &of(&target)], false);
            } else {
                self.tell(spot, some)?;
            }
        }
        Ok(sum)
    }

    /// Asks for the values of keys that differ.
    fn tell(&mut self, spot: &Spot, differing: &[(u128, Difference)]) -> Result<(), Unread> {
        let keys: Vec<String> = differing.iter().map(|(key, _)| format!("{key:032x}")).collect();
        let values = self.depth.values && self.subject.keyed;
        let question =
            |side: Side| self.subject.rows_of(side, &spot.conditions(self.subject, side), &keys, values);
        let (mut source, mut target) = (Values::new(), Values::new());
        let take = |rows: &mut Values, row: &str| {
            let mut fields = fields(row).into_iter();
            let key = fields.next().flatten().and_then(|key| u128::from_str_radix(&key, 16).ok());
            if let Some(key) = key {
                rows.entry(key).or_insert_with(|| fields.collect());
            }
        };
        self.both.ask(
            Side::BOTH.map(question),
            "read keys",
            [&mut |row| take(&mut source, row), &mut |row| take(&mut target, row)],
        )?;
        self.note(spot, differing, [&source, &target], values);
        Ok(())
    }

    /// Writes down which keys differ: their columns, and with `values` all others behind them.
    fn note(
        &mut self,
        spot: &Spot,
        differing: &[(u128, Difference)],
        [source, target]: [&Values; 2],
        values: bool,
    ) {
        let width = self.subject.key.len();
        for (key, difference) in differing {
            let (one, other) = (source.get(key), target.get(key));
            let Some(row) = one.or(other) else { continue };
            let key = row.iter().take(width).cloned().collect::<Vec<_>>();
            let columns = match (one, other) {
                (Some(one), Some(other)) if values => self.changed(&one[width..], &other[width..]),
                _ => Vec::new(),
            };
            for (kind, rows) in [
                (Kind::Missing, difference.missing),
                (Kind::Extra, difference.extra),
                (Kind::Changed, difference.changed),
            ] {
                if rows > 0 {
                    let columns = if kind == Kind::Changed { columns.clone() } else { Vec::new() };
                    self.told.keys.push(Key {
                        window: spot.window,
                        kind,
                        rows,
                        values: key.clone(),
                        columns,
                    });
                }
            }
        }
    }

    fn changed(
        &self,
        source: &[Option<String>],
        target: &[Option<String>],
    ) -> Vec<(String, Option<String>, Option<String>)> {
        let names = self.subject.row.columns.iter().map(|column| &column.name);
        let both = source.iter().zip(target);
        names
            .zip(both)
            .filter(|(_, (one, other))| one != other)
            .map(|(name, (one, other))| (name.clone(), one.clone(), other.clone()))
            .collect()
    }
}

/// How the rows of one key differ, in the order of their digests.
fn difference(of_key: &[Alike], keyed: bool) -> Difference {
    let (mut missing, mut extra) = (0, 0);
    for alike in of_key.chunk_by(|one, other| one.digest == other.digest) {
        let on = |side: usize| alike.iter().map(|one| one.rows[side]).sum::<u64>();
        let (source, target) = (on(0), on(1));
        missing += source.saturating_sub(target);
        extra += target.saturating_sub(source);
    }
    // Without a key, two rows that differ are two rows.
    let changed = if keyed { missing.min(extra) } else { 0 };
    Difference { missing: missing - changed, extra: extra - changed, changed, exact: true }
}

/// What the numbers of rows alone say.
fn at_least(rows: [u64; 2]) -> Difference {
    let [source, target] = rows;
    Difference {
        missing: source.saturating_sub(target),
        extra: target.saturating_sub(source),
        changed: 0,
        exact: false,
    }
}

impl Read {
    fn of(side: Side) -> Self {
        Self { side, rows: Vec::new(), nulls: 0, keys: HashMap::new(), bytes: 0, wrong: false }
    }

    /// md5 of the key, digest, whether the key holds NULL, how many rows, and perhaps the key.
    fn take(&mut self, row: &str) {
        let mut parts = row.splitn(5, '\t');
        let read = (|| {
            let key = u128::from_str_radix(parts.next()?, 16).ok()?;
            let digest = parts.next()?.parse().ok()?;
            let null = parts.next()? == "1";
            Some((key, digest, null, parts.next()?.parse::<u64>().ok()?))
        })();
        let Some((key, digest, null, number)) = read else {
            self.wrong = true;
            return;
        };
        let mut rows = [0, 0];
        rows[self.side as usize] = number;
        self.rows.push(Alike { key, digest, rows });
        self.nulls += if null { number } else { 0 };
        if let Some(columns) = parts.next()
            && self.bytes < KEY_BYTES
        {
            self.bytes += columns.len();
            self.keys.entry(key).or_insert_with(|| columns.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_key_are_a_multiset() {
        let seen = |source: &[(u64, u64)], target: &[(u64, u64)], keyed| {
            let of = |side: &[(u64, u64)], rows: fn(u64) -> [u64; 2]| -> Vec<Alike> {
                side.iter().map(|&(digest, number)| Alike { key: 1, digest, rows: rows(number) }).collect()
            };
            let mut rows = of(source, |rows| [rows, 0]);
            rows.extend(of(target, |rows| [0, rows]));
            rows.sort_unstable_by_key(|one| one.digest);
            let difference = difference(&rows, keyed);
            (difference.missing, difference.extra, difference.changed)
        };
        assert_eq!(seen(&[(7, 2)], &[(7, 2)], true), (0, 0, 0));
        assert_eq!(seen(&[(7, 3)], &[(7, 1)], true), (2, 0, 0));
        assert_eq!(seen(&[(7, 1), (8, 1)], &[(7, 1), (9, 1)], true), (0, 0, 1));
        assert_eq!(seen(&[(8, 1)], &[(9, 1)], false), (1, 1, 0));
        assert_eq!(seen(&[(8, 1)], &[(9, 2)], true), (0, 1, 1));
    }
}
