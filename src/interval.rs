//! Half-open intervals, what is left of one when others are taken away, and the grids they are cut by. Pure.

/// A half-open interval `[start, end)`, `start < end`: its end belongs to the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interval<T> {
    start: T,
    end: T,
}

impl<T: Ord + Copy> Interval<T> {
    /// The interval, or `None` where it would be empty.
    pub fn new(start: T, end: T) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// First value inside.
    pub fn start(&self) -> T {
        self.start
    }

    /// First value after it.
    pub fn end(&self) -> T {
        self.end
    }

    /// Is all of `other` inside?
    pub fn holds(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Do the two share a value?
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The parts that none of `taken` covers. `taken` is in order, and its intervals do not overlap ([`merged`]).
    pub fn without(self, taken: &[Self]) -> Vec<Self> {
        let first = taken.partition_point(|other| other.end <= self.start);
        let mut parts = Vec::new();
        let mut reached = self.start;
        for other in taken[first..].iter().take_while(|other| other.start < self.end) {
            parts.extend(Self::new(reached, other.start));
            reached = reached.max(other.end);
        }
        parts.extend(Self::new(reached, self.end));
        parts
    }
}

/// The same values in order, in as few intervals as can be: what touches or overlaps becomes one.
pub fn merged<T: Ord + Copy>(mut intervals: Vec<Interval<T>>) -> Vec<Interval<T>> {
    intervals.sort_unstable();
    let mut merged: Vec<Interval<T>> = Vec::with_capacity(intervals.len());
    for next in intervals {
        match merged.last_mut() {
            Some(last) if next.start <= last.end => last.end = last.end.max(next.end),
            Some(_) | None => merged.push(next),
        }
    }
    merged
}

/// Cells of one size that touch, one of them beginning at `origin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Where a cell begins.
    pub origin: i64,
    /// How long a cell is, more than 0; `None`: one cell holds everything.
    pub step: Option<i64>,
}

impl Grid {
    /// The last place at or before `value` where a cell begins; without a step, the origin.
    pub fn floor(&self, value: i64) -> i64 {
        match self.step {
            // Between numbers of 64 bits: a difference may take 65.
            Some(step) => {
                let past = (i128::from(value) - i128::from(self.origin)).rem_euclid(i128::from(step));
                i64::try_from(i128::from(value) - past).unwrap_or(i64::MIN)
            }
            None => self.origin,
        }
    }

    /// The parts of cells that lie in `range`, in order.
    pub fn cells(&self, range: Interval<i64>) -> impl Iterator<Item = Interval<i64>> + use<> {
        let grid = *self;
        let mut start = range.start;
        std::iter::from_fn(move || {
            let end = match grid.step {
                Some(step) => grid.floor(start).saturating_add(step).min(range.end),
                None => range.end,
            };
            let cell = Interval::new(start, end)?;
            start = end;
            Some(cell)
        })
    }

    /// How many cells `ranges` touch, which are in order and do not overlap.
    pub fn touched(&self, ranges: &[Interval<i64>]) -> usize {
        let shared =
            ranges.windows(2).filter(|pair| self.floor(pair[0].end - 1) == self.floor(pair[1].start));
        ranges.iter().map(|range| self.count(*range)).sum::<usize>() - shared.count()
    }

    /// How many cells `range` touches.
    pub fn count(&self, range: Interval<i64>) -> usize {
        let Some(step) = self.step else { return 1 };
        let first = i128::from(self.floor(range.start));
        let last = i128::from(self.floor(range.end - 1));
        usize::try_from((last - first) / i128::from(step) + 1).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn interval(start: i64, end: i64) -> Interval<i64> {
        Interval::new(start, end).unwrap()
    }

    #[test]
    fn cells_are_cut_at_the_edges_of_the_range() {
        let grid = Grid { origin: 1, step: Some(4) };
        let cells: Vec<_> = grid.cells(interval(3, 10)).collect();
        assert_eq!(cells, [interval(3, 5), interval(5, 9), interval(9, 10)]);
        assert_eq!(grid.count(interval(3, 10)), 3);
        let whole = Grid { origin: 1, step: None };
        assert_eq!(whole.cells(interval(3, 10)).collect::<Vec<_>>(), [interval(3, 10)]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_doubled(
            range in (-50i64..50, 1i64..60), taken in proptest::collection::vec((-60i64..60, 1i64..20), 0..6),
            origin in -30i64..30, step in 1i64..9,
        ) {
            let range = interval(range.0, range.0 + range.1);
            let taken = merged(taken.into_iter().map(|(start, length)| interval(start, start + length)).collect());
            prop_assert!(taken.windows(2).all(|pair| pair[0].end < pair[1].start));
            let grid = Grid { origin, step: Some(step) };
            let mut seen = Vec::new();
            for gap in range.without(&taken) {
                let cells: Vec<_> = grid.cells(gap).collect();
                prop_assert_eq!(cells.len(), grid.count(gap));
                for cell in cells {
                    prop_assert!(cell.end - cell.start <= step && grid.floor(cell.start) == grid.floor(cell.end - 1));
                    seen.extend(cell.start..cell.end);
                }
            }
            let is_taken = |value: &i64| taken.iter().any(|one| one.start <= *value && *value < one.end);
            let wanted: Vec<i64> = (range.start..range.end).filter(|value| !is_taken(value)).collect();
            let mut cells: Vec<i64> = wanted.iter().map(|value| grid.floor(*value)).collect();
            cells.dedup();
            prop_assert_eq!(grid.touched(&range.without(&taken)), cells.len());
            prop_assert_eq!(seen, wanted);
        }
    }
}
