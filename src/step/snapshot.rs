//! One state of the source's database for all slices of a unit, whichever sessions read them.
//!
//! The first session to begin leads: it opens a transaction and says under what name others may read the same state. They
//! can join it only while it is open, so it stays until each of them has, or never will.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::stop::Stop;

/// How often one that waits looks whether it should stop.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What a session asks for the name of its state.
pub(super) const EXPORT: &str = "SELECT pg_export_snapshot()";
/// What a session that has joined asks, to be heard.
pub(super) const JOINED: &str = "SELECT 1";

#[derive(Debug)]
enum Name {
    /// Nobody leads yet.
    Wanted,
    /// Somebody does.
    Awaited,
    Known(String),
    /// It could not be had: each session reads what it finds.
    Gone,
}

#[derive(Debug)]
struct Shared {
    name: Mutex<(Name, usize)>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, (Name, usize)> {
        // Whoever panicked left a name or a number, and either is whole.
        self.name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's right to read the common state: once, since a later attempt comes when the leader may have gone.
#[derive(Debug)]
pub struct Ticket {
    shared: Arc<Shared>,
    leads: bool,
    settled: bool,
}

/// What a session is among those that read one state.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It opens the state, and says its name.
    Leads,
    /// It joins under this name.
    Joins(String),
    /// There is none to be had.
    Alone,
}

impl Ticket {
    /// Tickets for so many sessions.
    pub fn of(sessions: usize) -> Vec<Ticket> {
        let shared = Arc::new(Shared { name: Mutex::new((Name::Wanted, sessions)), changed: Condvar::new() });
        (0..sessions).map(|_| Ticket { shared: Arc::clone(&shared), leads: false, settled: false }).collect()
    }

    /// Takes a place: the first leads, the others wait for it to say the name.
    pub(super) fn place(&mut self, stop: &Stop) -> Place {
        let mut state = self.shared.lock();
        loop {
            match &state.0 {
                Name::Wanted => {
                    state.0 = Name::Awaited;
                    drop(state);
                    self.leads = true;
                    return Place::Leads;
                }
                Name::Known(name) => return Place::Joins(name.clone()),
                Name::Gone => return Place::Alone,
                Name::Awaited if stop.asked() => return Place::Alone,
                Name::Awaited => {
                    let waited = self.shared.changed.wait_timeout(state, LOOK_EVERY);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// The leader says the name; `None` where there is none.
    pub(super) fn say(&self, name: Option<String>) {
        self.shared.lock().0 = name.map_or(Name::Gone, Name::Known);
        self.shared.changed.notify_all();
    }

    /// This session needs the leader no more.
    pub(super) fn settle(&mut self) {
        if !std::mem::replace(&mut self.settled, true) {
            self.shared.lock().1 -= 1;
        }
    }

    /// Does no session but this one need the leader any more?
    pub(super) fn is_last(&self) -> bool {
        self.shared.lock().1 <= usize::from(!self.settled)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.settle();
        if self.leads {
            // Who comes now comes too late to join.
            self.say(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_leads_and_stays_until_the_others_have_joined() {
        let stop = Stop::default();
        let mut tickets = Ticket::of(3);
        let (mut third, mut second, mut first) = (tickets.remove(2), tickets.remove(1), tickets.remove(0));
        assert_eq!(first.place(&stop), Place::Leads);
        std::thread::scope(|scope| {
            let joined = scope.spawn(|| {
                let place = second.place(&Stop::default());
                second.settle();
                place
            });
            first.say(Some("00000003-1".into()));
            assert_eq!(joined.join().unwrap(), Place::Joins("00000003-1".into()));
        });
        assert!(!first.is_last());
        assert_eq!(third.place(&stop), Place::Joins("00000003-1".into()));
        drop(third);
        assert!(first.is_last());
        drop(first);
        assert_eq!(second.place(&stop), Place::Alone);
    }

    #[test]
    fn nobody_waits_for_a_leader_that_is_gone() {
        let mut tickets = Ticket::of(2);
        let (mut second, mut first) = (tickets.remove(1), tickets.remove(0));
        assert_eq!(first.place(&Stop::default()), Place::Leads);
        std::thread::scope(|scope| {
            let joined = scope.spawn(|| second.place(&Stop::default()));
            drop(first);
            assert_eq!(joined.join().unwrap(), Place::Alone);
        });
    }
}
