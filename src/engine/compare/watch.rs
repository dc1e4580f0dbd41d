//! What a comparison is at, for whoever looks on.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use crate::engine::locked;

/// How far a comparison is: written by its workers, read by the clock.
#[derive(Debug, Default)]
pub struct Watch(Mutex<Seen>);

/// How far it is at a moment.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Tables that are done.
    pub done: usize,
    /// Of them, those that differ.
    pub differ: usize,
    /// Of them, those that could not be compared.
    pub unread: usize,
    /// Tables in work, by their place in the comparison.
    pub in_work: BTreeMap<usize, Doing>,
}

/// What is done with a table.
#[derive(Debug, Clone)]
pub struct Doing {
    /// What its last question was, as a verb: `digest rows`.
    pub what: String,
    /// How many questions it took so far.
    pub questions: usize,
    /// When it began.
    pub began: Instant,
}

impl Watch {
    /// How far it is now.
    pub fn seen(&self) -> Seen {
        locked(&self.0).clone()
    }

    /// A table is asked something.
    pub(super) fn asks(&self, table: usize, what: &str) {
        let mut seen = locked(&self.0);
        let begin = || Doing { what: String::new(), questions: 0, began: Instant::now() };
        let doing = seen.in_work.entry(table).or_insert_with(begin);
        doing.questions += 1;
        what.clone_into(&mut doing.what);
    }

    /// A table is done: whether it differs, or could not be compared.
    pub(super) fn ends(&self, table: usize, differs: Option<bool>) {
        let mut seen = locked(&self.0);
        seen.in_work.remove(&table);
        seen.done += 1;
        match differs {
            Some(differs) => seen.differ += usize::from(differs),
            None => seen.unread += 1,
        }
    }

    /// A table is left for another try.
    pub(super) fn leaves(&self, table: usize) {
        locked(&self.0).in_work.remove(&table);
    }
}
