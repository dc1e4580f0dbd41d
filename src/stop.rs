//! An orderly stop: SIGINT or SIGTERM once asks for it, a second time ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::exit::Exit;

/// Whether the run is to stop, and why. Clones look at the same thing.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicUsize>);

const INTERRUPTED: usize = 1;
const TERMINATED: usize = 2;
const GIVEN_UP: usize = 3;

impl Stop {
    /// Listens for signals from now on. SIGHUP (the operator's terminal went away) counts as SIGTERM.
    ///
    /// # Errors
    /// Of the system, where a handler cannot be installed.
    pub fn on_signals() -> io::Result<Self> {
        let stop = Self::default();
        let second = Arc::new(AtomicBool::new(false));
        let signals = [(SIGINT, INTERRUPTED, Exit::Interrupted), (SIGTERM, TERMINATED, Exit::Terminated)];
        for (signal, word, exit) in signals {
            // In this order: the first signal arms what the second finds armed.
            flag::register_conditional_shutdown(signal, i32::from(exit.code()), Arc::clone(&second))?;
            flag::register(signal, Arc::clone(&second))?;
            flag::register_usize(signal, Arc::clone(&stop.0), word)?;
        }
        flag::register_usize(SIGHUP, Arc::clone(&stop.0), TERMINATED)?;
        Ok(stop)
    }

    /// Asks for a stop from inside, because going on makes no sense.
    pub fn give_up(&self) {
        let _ = self.0.compare_exchange(0, GIVEN_UP, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Is the run to stop?
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }

    /// The exit code of a run that a signal stopped.
    pub fn exit(&self) -> Option<Exit> {
        match self.0.load(Ordering::SeqCst) {
            INTERRUPTED => Some(Exit::Interrupted),
            TERMINATED => Some(Exit::Terminated),
            _ => None,
        }
    }
}
