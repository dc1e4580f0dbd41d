//! Telling people that something is wrong: once, again after a while, and once more when it is over.
//!
//! What is wrong is worked out from the ledger and the inventory (`seen`), held against what stands already by a pure
//! function (`judge`), and written down in the same transaction, with a message for every sink that takes it. Only
//! then is anybody told (`deliver`): a sink that cannot be reached is told the next time, and what dies in between
//! loses nothing. Each message has a number, by which a receiver knows one that it has heard already.

use jiff::Timestamp;

use crate::inventory::Inventory;
use crate::ledger::alarms::Alarm;
use crate::ledger::{Ledger, LedgerError};

mod deliver;
pub mod document;
pub mod judge;
mod seen;
mod sink;
#[cfg(test)]
mod tests;

pub use deliver::{Told, deliver, test};
pub use sink::SinkError;

/// What a look at everything found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// How many were raised by it.
    pub raised: usize,
    /// How many were found to go on for long enough to be told again.
    pub reminded: usize,
    /// How many were found to be over.
    pub over: usize,
    /// What stands now, of the jobs of this inventory; newest first.
    pub standing: Vec<Alarm>,
}

/// Looks at everything, and writes down what is new, what goes on and what is over. Nobody is told yet. `target` is named
/// as [`crate::target::Address::shown`] does.
///
/// # Errors
/// [`LedgerError`]; nothing is written down then.
pub fn look(
    ledger: &Ledger,
    inventory: &Inventory,
    target: &str,
    now: Timestamp,
) -> Result<Looked, LedgerError> {
    ledger.atomically(|ledger| {
        let standing = ledger.alarms(false)?;
        let seen = seen::seen(ledger, inventory, target, now)?;
        let changes = judge::judge(&standing, seen, inventory.alarms.remind, ledger.last_look()?, now);
        ledger.note_alarms(&changes, &inventory.alarms.sinks, now)?;
        let mut standing = ledger.alarms(false)?;
        standing.retain(|alarm| inventory.jobs.iter().any(|job| job.name == alarm.condition.job));
        let reminded = changes.reminded();
        Ok(Looked { raised: changes.raised.len(), reminded, over: changes.over.len(), standing })
    })
}
