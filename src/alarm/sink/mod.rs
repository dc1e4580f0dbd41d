//! The ways to tell somebody. Each takes a few messages and says whether all of them arrived: what did not, or of what
//! nobody knows, is told again with the same number.

use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use thiserror::Error;

use crate::inventory::{Inventory, Sink, Way};
use crate::ledger::alarms::Message;

mod command;
mod file;
mod given;
mod table;
mod webhook;

/// Why a sink was not told. Without any secret, and without what a receiver said.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what}")]
pub struct SinkError {
    /// What failed, on what.
    pub what: String,
    /// What to try.
    pub remedy: String,
}

impl SinkError {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

/// What sinks need to know beside their own keys.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    /// The target's URL.
    pub(super) target: String,
    /// Where the target's load log is: a session looks for nothing there, and is opened with it all the same.
    pub(super) log_schema: String,
    /// The zone of times without one.
    pub(super) zone: TimeZone,
}

impl Surroundings {
    /// Out of an inventory.
    pub(super) fn of(inventory: &Inventory) -> Self {
        Self {
            target: inventory.target.url.clone(),
            log_schema: inventory.target.log_schema.clone(),
            zone: inventory.timezone.clone(),
        }
    }
}

/// When it has to be over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// After so long, and not later than `end`.
    fn within(limit: Duration, end: Instant) -> Self {
        Self(end.min(Instant::now() + limit))
    }

    /// What is left; `None` once it is over.
    pub(super) fn left(self) -> Option<Duration> {
        self.0.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

/// Tells a sink, all or nothing, in the time that it may take and not beyond `end`.
///
/// # Errors
/// [`SinkError`]: nobody knows which of the messages arrived.
pub(super) fn tell(
    sink: &Sink,
    messages: &[Message],
    around: &Surroundings,
    end: Instant,
) -> Result<(), SinkError> {
    let deadline = Deadline::within(sink.timeout, end);
    match &sink.way {
        Way::Table(table) => table::tell(table, messages, around, deadline),
        Way::Command(argv) => command::tell(argv, messages, deadline),
        Way::Webhook(webhook) => webhook::tell(webhook, messages, deadline),
        Way::File(path) => file::tell(path, messages),
    }
}
