//! One batch of units, exported by one run of the script, each proven on the mount before it counts.

mod proof;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::snapshot::{EXPORT, JOINED, Place, Ticket};
use super::{Stage, UnitFailure, argv};
use crate::gzip::Trailer;
use crate::inventory::Source;
use crate::mount::{Columns, Exported, Manifest, Mount};
use crate::source::protocol::ProtocolError;
use crate::source::segments::{self, Parts};
use crate::source::{Conversation, Line, Reply, Request, Script, SourceError, rows, settings};
use crate::sql;
use crate::stop::Stop;
use crate::unit::Unit;

use proof::{Published, outcome, prove};
pub(super) use proof::{Written, record};

/// How often a running batch looks whether it should stop.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a script may take to say that it has stopped. It needs up to 5 s where psql does not want to end.
const STOP_PATIENCE: Duration = Duration::from_secs(6);

/// How many units of a batch are asked for ahead of their answers: the script is never idle, and their statements are
/// not all in memory. A batch of no more is asked for at once, with the `end` behind it.
pub const AHEAD: usize = 512;

/// What `statement_timeout` holds at most, in seconds: 2³¹ - 1 milliseconds.
const LONGEST_STATEMENT: u64 = i32::MAX as u64 / 1000;

/// What one batch needs to know of everything around it.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The source.
    pub source: &'a Source,
    /// The script that exports from it.
    pub script: &'a Script,
    /// The inventory's zone.
    pub zone: &'a TimeZone,
    /// The mount as the runner sees it.
    pub mount: &'a Mount,
    /// This run's manifest.
    pub manifest: &'a Mutex<Manifest>,
    /// This run's id.
    pub run: &'a str,
    /// Says that the run is to stop.
    pub stop: &'a Stop,
}

/// A unit that is to be exported.
#[derive(Debug, Clone)]
pub struct Order<'a> {
    /// Its place in the plan.
    pub index: usize,
    /// The unit.
    pub unit: &'a Unit,
    /// Path of its file below the mount's subdirectory.
    pub file: Arc<Path>,
    /// Columns in the file's order.
    pub columns: Columns,
    /// What tells its rows from the others of its table, as SQL; empty for all of them.
    pub condition: Box<str>,
    /// The place in the plan of the unit that it is a slice of; `None` where it is none.
    pub slice_of: Option<usize>,
    /// So small that a process of its own would cost more than its rows.
    pub small: bool,
    /// Where each segment of the source writes a part: what is to be known for that.
    pub segments: Option<Arc<BySegments>>,
}

/// How the segments of a source export a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BySegments {
    /// How many there are.
    pub primaries: u32,
    /// The columns of the table that they write to.
    pub columns: segments::Columns,
}

impl Order<'_> {
    /// The query, written when it is asked: thousands of orders wait for that.
    fn sql(&self) -> String {
        rows::export_query(&self.unit.table, &self.columns, &self.condition)
    }
}

/// What became of one unit of a batch.
#[derive(Debug)]
pub enum Outcome {
    /// Its file is published, and seen.
    Exported {
        /// The proof.
        exported: Arc<Exported>,
        /// How long it took, by the script's clock.
        took: Duration,
    },
    /// It failed; the others of its batch went on.
    Failed(UnitFailure),
}

/// Exports a batch, whose units are read in one state with those of others where there is a ticket. `report` hears of each unit that was answered, by its index in the plan; what it has not
/// heard of when this returns was not answered.
///
/// # Errors
/// [`SourceError`] where the batch as a whole did not come to its end.
pub fn export(
    ground: Ground<'_>,
    line: Line<'_>,
    attempt: u32,
    orders: &[Order<'_>],
    ticket: Option<Ticket>,
    mut report: impl FnMut(usize, Outcome),
) -> Result<(), SourceError> {
    let line = match (ground.source.argv(), line) {
        (Some(script), Line::New(remote)) => return argv::export(ground, script, remote, orders, report),
        (_, line) => line,
    };
    let what = match orders {
        [order] => format!("the export of {}", order.unit.key.id),
        orders => format!("a batch of {} exports", orders.len()),
    };
    // Taken before the host is asked for anything: who joins has to wait for the leader.
    let mut still = Still::new(ticket, orders, ground.stop);
    let mut talk = Conversation::on(line, ground.script, "export", &what, limit(orders))?;
    set_up(&mut talk, ground, attempt, orders, &still);
    let mut to_ask = orders.iter().enumerate();
    let (began, asked_at) = (Timestamp::now(), Instant::now());
    let mut told_to_stop: Option<Instant> = None;
    let (mut late, mut parts) = (Vec::new(), HashMap::<u32, Vec<(u32, Trailer)>>::new());
    loop {
        if ground.stop.asked() {
            let told = told_to_stop.get_or_insert_with(|| {
                talk.ask(&Request::Stop);
                Instant::now()
            });
            if told.elapsed() > STOP_PATIENCE {
                // Its stdin closes with the connection, which tells it the same.
                return Err(talk.silent());
            }
        }
        while talk.unanswered().len() < AHEAD
            && told_to_stop.is_none()
            && let Some((no, order)) = to_ask.next()
        {
            match request(ground, attempt, no, order) {
                Ok(request) => talk.ask(&request),
                Err(error) => {
                    let remedy = "let `segments: { mount: … }` name a path without control characters";
                    report(order.index, Outcome::Failed(UnitFailure::new(Stage::Export, error, remedy)));
                }
            }
        }
        if to_ask.len() == 0 && still.may_end(&talk) {
            talk.ask(&Request::End);
        }
        match talk.next(LOOK_EVERY)? {
            None | Some(Reply::Beat | Reply::Hello { .. }) => {}
            Some(Reply::Row { no, text }) if Some(no) == still.question => still.hear(&text),
            Some(Reply::Done { no, .. }) if Some(no) == still.question => still.answered(None),
            Some(Reply::Error { no, message, .. }) if Some(no) == still.question => {
                still.answered(Some(&message));
            }
            Some(Reply::Part { no, segment, trailer })
                if orders.get(no as usize).is_some_and(|order| order.segments.is_some()) =>
            {
                parts.entry(no).or_default().push((segment, trailer));
            }
            // Nobody asked for rows, or for parts of this one.
            Some(Reply::Part { no, .. }) => return Err(talk.protocol(ProtocolError::Unasked(no))),
            Some(Reply::Row { no, .. }) => return Err(talk.protocol(ProtocolError::Unasked(no))),
            Some(Reply::Done { no, rows, bytes, took, compressor }) => {
                if let Some(order) = orders.get(no as usize) {
                    let parts = parts.remove(&no).unwrap_or_default();
                    let published = Published { rows, bytes, took, compressor, began, parts };
                    match prove(ground, order, &published, Instant::now()) {
                        // Waiting here would keep the script from hearing of us.
                        Err(error) if error.may_be_late() => late.push((order, published)),
                        seen => report(order.index, outcome(seen, took)),
                    }
                }
            }
            Some(Reply::Error { no, sqlstate, message, .. }) => {
                parts.remove(&no);
                if let Some(order) = orders.get(no as usize) {
                    report(
                        order.index,
                        Outcome::Failed(refused(ground, order, sqlstate.as_deref(), &message, asked_at)),
                    );
                }
            }
            Some(Reply::End { code }) => {
                let until = ground.mount.patience();
                for (order, published) in late {
                    let seen = prove(ground, order, &published, until);
                    report(order.index, outcome(seen, published.took));
                }
                let unanswered = talk.unanswered().len() + to_ask.len();
                let host = talk.host().to_owned();
                log_stderr(&host, &talk.stderr());
                let early = talk.protocol(ProtocolError::EndedEarly(unanswered));
                talk.finish();
                return match (code, unanswered) {
                    (0, 0) => Ok(()),
                    // `end 0` with units left unanswered is a broken script: nobody knows about them.
                    (0, _) => Err(early),
                    (code, _) => Err(SourceError::GivenUp { host, code }),
                };
            }
        }
    }
}

/// Longest time a batch may take: each unit has its own limit in the database.
fn limit(orders: &[Order<'_>]) -> Duration {
    let all: Duration =
        orders
            .iter()
            .map(|order| {
                if order.small {
                    order.unit.entry.export.timeout / 16
                } else {
                    order.unit.entry.export.timeout
                }
            })
            .sum();
    let longest = orders.iter().map(|order| order.unit.entry.export.timeout).max().unwrap_or_default();
    all.max(longest) + Duration::from_secs(60)
}

/// A batch's part in reading one state of the database together with others.
struct Still {
    ticket: Option<Ticket>,
    place: Place,
    /// The number of the question that is asked first: for the state's name, or to be heard to have joined.
    question: Option<u32>,
    name: Option<String>,
    ended: bool,
}

impl Still {
    fn new(mut ticket: Option<Ticket>, orders: &[Order<'_>], stop: &Stop) -> Self {
        let place = ticket.as_mut().map_or(Place::Alone, |ticket| ticket.place(stop));
        let question = (place != Place::Alone).then(|| u32::try_from(orders.len()).unwrap_or(u32::MAX));
        Self { ticket, place, question, name: None, ended: false }
    }

    /// The setting of the script, and the question; nothing for a batch that reads what it finds.
    fn asks(&self) -> Option<(String, Request)> {
        let no = self.question?;
        let (value, sql) = match &self.place {
            Place::Leads => ("new".to_owned(), EXPORT),
            Place::Joins(name) => (name.clone(), JOINED),
            Place::Alone => return None,
        };
        Some((value, Request::Query { no, sql: sql.into() }))
    }

    fn hear(&mut self, row: &str) {
        let is_plain = row.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        self.name = (is_plain && !row.is_empty()).then(|| row.to_owned());
    }

    fn answered(&mut self, error: Option<&str>) {
        let Some(ticket) = &mut self.ticket else { return };
        if self.place == Place::Leads {
            if let Some(error) = error {
                log::warn!(
                    "slices are read at different moments, since the server shares no snapshot: {error}"
                );
            }
            ticket.say(self.name.take());
        }
        ticket.settle();
    }

    /// Once: is there nothing left to ask, and nobody to wait for?
    fn may_end(&mut self, talk: &Conversation<'_>) -> bool {
        let waits = self.place == Place::Leads
            && (talk.unanswered().len() > 0 || self.ticket.as_ref().is_some_and(|one| !one.is_last()));
        !waits && !std::mem::replace(&mut self.ended, true)
    }
}

/// What holds for all units of a batch.
fn set_up(
    talk: &mut Conversation<'_>,
    ground: Ground<'_>,
    attempt: u32,
    orders: &[Order<'_>],
    still: &Still,
) {
    let mut set = |name: &'static str, value: String| talk.ask(&Request::Set { name, value });
    let source = ground.source;
    settings(source, ground.run).for_each(|(name, value)| set(name, value));
    set("PART", part_tag(ground, attempt));
    if let Some(longest) = orders.iter().map(|order| order.unit.entry.export.timeout).max() {
        set("UNIT_TIMEOUT", longest.as_secs().clamp(1, LONGEST_STATEMENT).to_string());
    }
    // In a transaction of several, one that fails is to fail alone: the script's way of small ones has no savepoints.
    if still.question.is_none() && orders.iter().all(|order| order.small) {
        set("SMALL", "1".into());
    }
    if let Some((value, question)) = still.asks() {
        talk.ask(&Request::Set { name: "SNAPSHOT", value });
        talk.ask(&question);
    }
}

fn request(
    ground: Ground<'_>,
    attempt: u32,
    no: usize,
    order: &Order<'_>,
) -> Result<Request, segments::Unquotable> {
    let no = u32::try_from(no).unwrap_or(u32::MAX);
    let path = ground.mount.path_on(&ground.source.mount, &order.file).display().to_string();
    let compressor = order.unit.entry.export.compressor;
    let Some(by) = &order.segments else {
        return Ok(Request::Export { no, path, compressor: compressor.word(), sql: order.sql() });
    };
    let file = ground.mount.path_on(&ground.source.segments_mount, &order.file);
    let parts = Parts { file: &file, tag: &part_tag(ground, attempt), compressor };
    let statements = segments::statements(parts, &order.unit.table, &by.columns, &order.sql())?;
    Ok(Request::Segments { no, path, parts: by.primaries, statements: statements.into() })
}

/// What unfinished files are named by.
fn part_tag(ground: Ground<'_>, attempt: u32) -> String {
    format!("{}.{attempt}", ground.run)
}

fn refused(
    ground: Ground<'_>,
    order: &Order<'_>,
    sqlstate: Option<&str>,
    message: &str,
    asked_at: Instant,
) -> UnitFailure {
    let what = format!("exporting {}", order.unit.table);
    let error = SourceError::failed(&ground.source.host, what, sqlstate, message);
    let failure = UnitFailure::of_source(Stage::Export, &error);
    // By the clock, since the message may be of any language.
    if sqlstate.is_some_and(sql::is_cancelled) && asked_at.elapsed() >= order.unit.entry.export.timeout {
        let limit = order.unit.entry.export.timeout.as_secs_f64();
        return UnitFailure {
            error: format!("{} (the limit is {limit} s: export.timeout)", failure.error),
            remedy: "raise `export.timeout` for this table, or make its windows shorter".into(),
            ..failure
        };
    }
    failure
}

fn log_stderr(host: &str, stderr: &str) {
    for line in stderr.lines().filter(|line| !line.is_empty()) {
        log::debug!("{host}: stderr: {line}");
    }
}
