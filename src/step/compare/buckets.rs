//! Buckets of both sides, held against each other. Pure.

use std::collections::HashMap;

use super::Side;
use crate::source::postgres::fields;

/// So many buckets an answer may have: it is held in memory. A `group` with more values than this is a key.
const MOST: usize = 60_000;

/// Which bucket: a cell, and the value of the group's column.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) group: Option<String>,
    pub(super) group_md5: Option<String>,
    pub(super) cell: i64,
}

/// What is in a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) rows: u64,
    pub(super) sum: u128,
}

/// A bucket in which the sides differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Differing {
    pub(super) place: Place,
    pub(super) rows: [u64; 2],
}

/// Buckets of both sides.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    sides: [HashMap<Place, Content>; 2],
}

/// Takes one row of an answer.
pub(super) fn take(side: &mut HashMap<Place, Content>, row: &str) -> Result<(), &'static str> {
    let fields = fields(row);
    let field = |n: usize| fields.get(n).cloned().flatten();
    let number = |n: usize| field(n).and_then(|text| text.parse::<u64>().ok());
    let (Some(cell), Some(rows)) = (field(0).and_then(|text| text.parse().ok()), number(1)) else {
        return Err("an answer that holds no count");
    };
    // A sum of no rows is NULL.
    let sum = match fields.get(2) {
        Some(Some(text)) => text.parse().map_err(|_| "a digest that is no number")?,
        Some(None) | None => 0,
    };
    if side.len() >= MOST {
        return Err("more than 60000 buckets: `compare.group` should name a column of few values");
    }
    let content = side.entry(Place { group: field(3), group_md5: field(4), cell }).or_default();
    content.rows += rows;
    content.sum += sum;
    Ok(())
}

impl Buckets {
    pub(super) fn of(source: HashMap<Place, Content>, target: HashMap<Place, Content>) -> Self {
        Self { sides: [source, target] }
    }

    /// What each cell holds on a side.
    pub(super) fn of_side(&self, side: Side) -> impl Iterator<Item = (i64, Content)> + '_ {
        self.sides[side as usize].iter().map(|(place, content)| (place.cell, *content))
    }

    /// Buckets that are not the same on both sides, in the order of groups and cells.
    pub(super) fn differing(&self) -> Vec<Differing> {
        let [source, target] = &self.sides;
        let nothing = Content::default();
        let mut differing: Vec<Differing> = source
            .keys()
            .chain(target.keys().filter(|place| !source.contains_key(place)))
            .filter_map(|place| {
                let (one, other) =
                    (source.get(place).unwrap_or(&nothing), target.get(place).unwrap_or(&nothing));
                (one != other).then(|| Differing { place: place.clone(), rows: [one.rows, other.rows] })
            })
            .collect();
        differing.sort_unstable_by(|one, other| one.place.cmp(&other.place));
        differing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_differ_by_count_or_by_sum() {
        let read = |rows: &[&str]| {
            let mut side = HashMap::new();
            rows.iter().for_each(|row| take(&mut side, row).unwrap());
            side
        };
        let source = read(&["0\t2\t30", "1\t1\t5", "2\t1\t7", "4\t0\t\\N"]);
        let target = read(&["0\t2\t30", "1\t1\t6", "3\t1\t7"]);
        let differing = Buckets::of(source, target).differing();
        let seen: Vec<_> = differing.iter().map(|one| (one.place.cell, one.rows)).collect();
        assert_eq!(seen, [(1, [1, 1]), (2, [1, 0]), (3, [0, 1])]);
        for row in ["", "x\t1\t1", "0\t1\t-1", "0\t\\N\t1"] {
            assert!(take(&mut HashMap::new(), row).is_err(), "{row:?}");
        }
    }
}
