//! How much of a large file a load has read: told a few times a second, so that whoever watches sees it move.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often at most.
const EVERY: Duration = Duration::from_millis(250);

/// Who hears of it: the unit's place in the plan, and the compressed bytes.
#[derive(Clone)]
pub struct Reads(Arc<dyn Fn(usize, u64) + Send + Sync>);

impl Reads {
    /// What a load has read goes there.
    pub fn new(hear: impl Fn(usize, u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    /// For the file of one unit.
    pub(super) fn of(&self, unit: usize) -> impl FnMut(u64) + Send + 'static {
        let (hear, mut last) = (Arc::clone(&self.0), Instant::now());
        move |bytes| {
            if last.elapsed() >= EVERY {
                last = Instant::now();
                hear(unit, bytes);
            }
        }
    }
}

impl fmt::Debug for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reads")
    }
}
