//! How many load into one table at once.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use super::locked;
use crate::names::TableName;

/// Files of one table that are loaded at once. Large ones each take a core of the target for themselves, but they meet
/// in the table's key. Units that lock their table would wait for each other, each with a session in its hand. What is
/// left of the sessions is there for other tables.
#[derive(Debug)]
pub(super) struct Crowds<T>(Mutex<HashMap<TableName, Crowd<T>>>);

#[derive(Debug)]
struct Crowd<T> {
    loading: usize,
    /// Those that wait until so few are left that each may come in: with how many it may be loaded at most.
    aside: VecDeque<(T, usize)>,
}

impl<T> Default for Crowds<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Crowds<T> {
    /// Lets a file in, or puts it aside where `most` of its table are being loaded: whoever is done takes it then.
    pub(super) fn enter(&self, table: &TableName, file: T, most: usize) -> Option<T> {
        let mut crowds = locked(&self.0);
        let crowd =
            crowds.entry(table.clone()).or_insert_with(|| Crowd { loading: 0, aside: VecDeque::new() });
        if crowd.loading >= most {
            crowd.aside.push_back((file, most));
            return None;
        }
        crowd.loading += 1;
        Some(file)
    }

    /// Leaves after a file; the next one that was put aside takes its place.
    pub(super) fn leave(&self, table: &TableName) -> Option<T> {
        let mut crowds = locked(&self.0);
        let crowd = crowds.get_mut(table)?;
        crowd.loading -= 1;
        if crowd.aside.front().is_some_and(|(_, most)| crowd.loading < *most) {
            crowd.loading += 1;
            return crowd.aside.pop_front().map(|(file, _)| file);
        }
        if crowd.loading == 0 {
            crowds.remove(table);
        }
        None
    }
}

/// How many large files of one table may be loaded at once by so many sessions.
pub(super) fn most_of_a_table(sessions: usize) -> usize {
    (sessions / 2).max(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_done_takes_what_was_put_aside_and_nothing_stays_behind() {
        let (crowds, t) = (Crowds::default(), TableName::parse("a.t").unwrap());
        assert_eq!([1, 2, 3, 4].map(|file| crowds.enter(&t, file, 2)), [Some(1), Some(2), None, None]);
        assert_eq!(crowds.enter(&TableName::parse("a.u").unwrap(), 5, 2), Some(5));
        assert_eq!([(); 4].map(|()| crowds.leave(&t)), [Some(3), Some(4), None, None]);
        assert_eq!(crowds.enter(&t, 6, 2), Some(6));
        assert_eq!(crowds.leave(&t), None);
        // One that wants the table for itself waits until it is alone.
        assert_eq!(
            [(7, 2), (8, 2), (9, 1)].map(|(file, most)| crowds.enter(&t, file, most)),
            [Some(7), Some(8), None]
        );
        assert_eq!([(); 3].map(|()| crowds.leave(&t)), [None, Some(9), None]);
        assert_eq!([1, 2, 4, 9].map(most_of_a_table), [2, 2, 2, 4]);
    }
}
