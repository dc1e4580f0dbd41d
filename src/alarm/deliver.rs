//! Who waits to be told is told: all sinks at once, each for its own time at most, and all together for a limit. One
//! process tells at a time.

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::SinkError;
use super::sink::{Surroundings, tell};
use crate::inventory::{Inventory, Sink};
use crate::ledger::alarms::Message;
use crate::ledger::lock::AlarmLock;
use crate::ledger::{Ledger, LedgerError};

/// Messages that are told together. What does not arrive is told again, all of them.
const TOGETHER: usize = 200;

/// Messages that a sink is told on one occasion, at most.
const AT_ONCE: usize = 10_000;

/// For how long another process that tells is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// How much longer than it may a sink's thread takes to say so.
const GRACE: Duration = Duration::from_millis(500);

/// What became of a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its name.
    pub sink: String,
    /// So many messages arrived.
    pub messages: usize,
    /// Why the others did not, if there are any.
    pub error: Option<SinkError>,
}

/// Some messages were told to a sink, or not.
struct Heard {
    sink: usize,
    ids: Vec<String>,
    result: Result<(), SinkError>,
}

/// What a sink's thread says.
enum Word {
    Heard(Heard),
    Done(usize),
}

/// Tells every sink what it has not heard. Sinks that wait for nothing are not in the answer. It takes `limit` at most;
/// what is not told by then is told the next time. `None`: another process tells at the moment.
///
/// # Errors
/// [`LedgerError`]; a sink that fails is none.
pub fn deliver(
    ledger: &Ledger,
    inventory: &Inventory,
    limit: Duration,
) -> Result<Option<Vec<Told>>, LedgerError> {
    let end = Instant::now() + limit;
    if ledger.untold()?.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let Some(_lock) = AlarmLock::take(ledger.path(), PATIENCE.min(limit))? else { return Ok(None) };
    let sinks = &inventory.alarms.sinks;
    let mut work = Vec::new();
    for untold in ledger.untold()? {
        match sinks.iter().find(|sink| sink.name == untold.sink) {
            Some(sink) => work.push((sink, ledger.untold_messages(&sink.name, AT_ONCE)?)),
            None => {
                let gone = ledger.forget_sink(&untold.sink)?;
                let name = untold.sink;
                log::warn!("{name} is no sink any more: {gone} message(s) that waited for it are forgotten");
            }
        }
    }
    let mut told: Vec<Told> =
        work.iter().map(|(sink, _)| Told { sink: sink.name.clone(), messages: 0, error: None }).collect();
    let mut unfinished: Vec<usize> = (0..told.len()).collect();
    let heard = begin(work, inventory, end);
    let note = |heard: Heard, told: &mut [Told]| {
        let one = &mut told[heard.sink];
        let error = heard.result.as_ref().err().map(ToString::to_string);
        match heard.result {
            Ok(()) => one.messages += heard.ids.len(),
            Err(error) => one.error = Some(error),
        }
        ledger.note_told(&one.sink, &heard.ids, error.as_deref(), Timestamp::now())
    };
    loop {
        let left = (end + GRACE).saturating_duration_since(Instant::now());
        match heard.recv_timeout(left) {
            Ok(Word::Heard(heard)) => note(heard, &mut told)?,
            Ok(Word::Done(sink)) => unfinished.retain(|one| *one != sink),
            // Every sink is done, or the time is over.
            Err(_) => break,
        }
    }
    for sink in unfinished {
        let error = SinkError::new(
            format!("no answer within {} s", limit.as_secs()),
            "look at what the sink stands for; it is told again the next time",
        );
        told[sink].error.get_or_insert(error);
    }
    Ok(Some(told))
}

/// Tells all sinks at once, each by a thread of its own, which is left behind when it takes too long.
fn begin(work: Vec<(&Sink, Vec<Message>)>, inventory: &Inventory, end: Instant) -> Receiver<Word> {
    let around = Surroundings::of(inventory);
    let (say, hear) = channel();
    for (number, (sink, messages)) in work.into_iter().enumerate() {
        let (sink, around, say) = (sink.clone(), around.clone(), say.clone());
        thread::spawn(move || {
            for some in messages.chunks(TOGETHER) {
                if Instant::now() >= end {
                    break;
                }
                let result = tell(&sink, some, &around, end);
                let failed = result.is_err();
                let ids = some.iter().map(|message| message.id.clone()).collect();
                // Nobody listens any more where it took too long.
                let heard = say.send(Word::Heard(Heard { sink: number, ids, result }));
                if failed || heard.is_err() {
                    break;
                }
            }
            let _ = say.send(Word::Done(number));
        });
    }
    hear
}

/// Tells one sink that it is tried: nothing of it is written down.
///
/// # Errors
/// [`SinkError`].
pub fn test(sink: &Sink, inventory: &Inventory, now: Timestamp) -> Result<(), SinkError> {
    let (sink, around) = (sink.clone(), Surroundings::of(inventory));
    let limit = sink.timeout + PATIENCE;
    let (say, hear) = channel();
    thread::spawn(move || {
        let _ = say.send(tell(&sink, &[Message::test(now)], &around, Instant::now() + limit));
    });
    hear.recv_timeout(limit).unwrap_or_else(|_| {
        let what = format!("no answer within {} s", limit.as_secs());
        Err(SinkError::new(what, "look at what the sink stands for"))
    })
}
