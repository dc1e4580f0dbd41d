//! Lists that are equal, kept once: of thousands of tables many have the same columns.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// The lists that there are.
#[derive(Debug)]
pub struct Alike<T>(HashSet<Arc<[T]>>);

impl<T> Default for Alike<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: Eq + Hash> Alike<T> {
    /// The same list, shared with all that are equal to it.
    pub fn share(&mut self, list: Vec<T>) -> Arc<[T]> {
        if let Some(known) = self.0.get(list.as_slice()) {
            return Arc::clone(known);
        }
        let list: Arc<[T]> = list.into();
        self.0.insert(Arc::clone(&list));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lists_are_one() {
        let mut lists = Alike::default();
        let (one, other) = (lists.share(vec!["a", "b"]), lists.share(vec!["a"]));
        assert!(Arc::ptr_eq(&one, &lists.share(vec!["a", "b"])) && *other == ["a"]);
    }
}
