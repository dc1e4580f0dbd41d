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

/// A value that is mostly equal to the one before it, kept once: of thousands of tables in an inventory most have the
/// rules of their job.
#[derive(Debug)]
pub struct Last<T>(Option<Arc<T>>);

impl<T> Default for Last<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: PartialEq> Last<T> {
    /// The same value, shared with those before it for as long as they are equal.
    pub fn share(&mut self, value: T) -> Arc<T> {
        if let Some(last) = self.0.as_ref().filter(|last| ***last == value) {
            return Arc::clone(last);
        }
        let value = Arc::new(value);
        self.0 = Some(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_neighbours_are_one() {
        let mut last = Last::default();
        let one = last.share("a".to_owned());
        assert!(Arc::ptr_eq(&one, &last.share("a".to_owned())));
        assert_eq!(*last.share("b".to_owned()), "b");
    }

    #[test]
    fn equal_lists_are_one() {
        let mut lists = Alike::default();
        let (one, other) = (lists.share(vec!["a", "b"]), lists.share(vec!["a"]));
        assert!(Arc::ptr_eq(&one, &lists.share(vec!["a", "b"])) && *other == ["a"]);
    }
}
