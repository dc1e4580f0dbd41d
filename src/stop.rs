//! An orderly stop: SIGINT or SIGTERM once asks for it, a second time ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::exit::Exit;

/// Whether the run is to stop, and why. Clones look at the same thing.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicUsize>);

/// How often the watch over a stop looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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

    /// Sees that a stop ends: what has not come to an end in order by `limit` after it was asked for is ended as a
    /// second Ctrl+C would. A server that stands still, or a file system that hangs, lets no thread go that waits for
    /// it; nothing is lost by that, since what is not committed is taken back, and what is, is in the load log.
    ///
    /// # Errors
    /// Of the system, where no thread can be had.
    pub fn end_within(&self, limit: Duration) -> io::Result<()> {
        let stop = self.clone();
        let watch = move || {
            let mut asked: Option<Instant> = None;
            loop {
                std::thread::sleep(LOOK_EVERY);
                let Some(exit) = stop.exit() else { continue };
                if asked.get_or_insert_with(Instant::now).elapsed() >= limit {
                    log::error!(
                        "something did not let go within {} s of the stop, so this ends at once; \
                         the same command resumes what is left",
                        limit.as_secs()
                    );
                    std::process::exit(i32::from(exit.code()));
                }
            }
        };
        // It ends with the process.
        std::thread::Builder::new().name("stop".into()).spawn(watch).map(drop)
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
