//! Windows put together so that one query serves many: cells of one length, of which each window is a whole number. Pure.

/// So many cells one query may have: its answer is held in memory.
pub(super) const MOST_CELLS: i64 = 4096;

/// A window on its axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    /// Its place among the windows of the table.
    pub(super) window: usize,
    /// Its first number.
    pub(super) first: i64,
    /// The first number behind it.
    pub(super) end: i64,
}

/// Windows that one query serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    /// In order, none of them empty.
    pub(super) windows: Vec<Placed>,
    /// Where the first cell begins.
    pub(super) origin: i64,
    /// How long a cell is.
    pub(super) step: i64,
}

/// Puts windows together, which are in order and do not overlap. What is empty on its axis (a time that the clock skips)
/// is left out: it holds no rows.
pub(super) fn chunks(placed: impl IntoIterator<Item = Placed>) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for one in placed.into_iter().filter(|one| one.first < one.end) {
        let Some(length) = one.end.checked_sub(one.first) else { continue };
        if let Some(chunk) = chunks.last_mut()
            && let (Some(past), Some(hull)) =
                (one.first.checked_sub(chunk.origin), one.end.checked_sub(chunk.origin))
        {
            let step = gcd(gcd(chunk.step, past), length);
            if hull / step <= MOST_CELLS {
                chunk.step = step;
                chunk.windows.push(one);
                continue;
            }
        }
        chunks.push(Chunk { windows: vec![one], origin: one.first, step: length });
    }
    chunks
}

impl Chunk {
    /// How many cells lie between its first number and its last.
    pub(super) fn cells(&self) -> i64 {
        let end = self.windows.last().map_or(self.origin, |last| last.end);
        (end - self.origin) / self.step
    }

    /// The same windows in shorter cells, about so many of them.
    pub(super) fn finer(self, wanted: i64) -> Chunk {
        let most = (wanted / self.cells().max(1)).max(1);
        let parts = (1..=most).rev().find(|parts| self.step % parts == 0).unwrap_or(1);
        Chunk { step: self.step / parts, ..self }
    }

    /// Where a cell begins and ends.
    pub(super) fn bounds(&self, cell: i64) -> (i64, i64) {
        let first = self.origin.saturating_add(cell.saturating_mul(self.step));
        (first, first.saturating_add(self.step))
    }

    /// The window that a cell belongs to; `None` between windows.
    pub(super) fn window_of(&self, cell: i64) -> Option<usize> {
        let (first, _) = self.bounds(cell);
        let next = self.windows.partition_point(|one| one.end <= first);
        self.windows.get(next).filter(|one| one.first <= first).map(|one| one.window)
    }
}

fn gcd(one: i64, other: i64) -> i64 {
    if other == 0 { one } else { gcd(other, one % other) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_day_of_hours_is_one_query_and_a_gap_of_years_is_two() {
        let hour = 3_600_000_000;
        let day = (0..24).map(|n| Placed { window: n, first: n as i64 * hour, end: (n as i64 + 1) * hour });
        let one = chunks(day);
        assert_eq!((one.len(), one[0].step, one[0].cells()), (1, hour, 24));
        assert!(one[0].clone().finer(1024).cells() > 900);
        let far = [
            Placed { window: 0, first: 0, end: 7 },
            Placed { window: 1, first: i64::MAX - 7, end: i64::MAX },
        ];
        assert_eq!(chunks(far).len(), 2);
    }

    proptest! {
        #[test]
        fn every_number_of_a_window_lies_in_a_cell_of_it(
            parts in proptest::collection::vec((0i64..40, 0i64..60), 1..30), origin in -100i64..100, wanted in 1i64..600,
        ) {
            let (mut at, mut placed) = (origin, Vec::new());
            for (window, (gap, length)) in parts.iter().enumerate() {
                placed.push(Placed { window, first: at + gap, end: at + gap + length });
                at += gap + length;
            }
            let mut seen = 0;
            for chunk in chunks(placed.clone()).into_iter().map(|chunk| chunk.finer(wanted)) {
                prop_assert!(chunk.cells() <= MOST_CELLS);
                for one in &chunk.windows {
                    for number in one.first..one.end {
                        let cell = (number - chunk.origin).div_euclid(chunk.step);
                        prop_assert_eq!(chunk.window_of(cell), Some(one.window));
                        seen += 1;
                    }
                }
                for cell in 0..chunk.cells() {
                    let (first, _) = chunk.bounds(cell);
                    let within = placed.iter().find(|one| one.first <= first && first < one.end);
                    prop_assert_eq!(chunk.window_of(cell), within.map(|one| one.window));
                }
            }
            prop_assert_eq!(seen, placed.iter().map(|one| one.end - one.first).sum::<i64>());
        }
    }
}
