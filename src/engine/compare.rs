//! Comparing: tables in parallel, and both sides of each at once.
//!
//! As many tables of a source are compared at a time as it has `sessions`, and as many in all as the target has. Each
//! worker has an SSH session with one database session of the source behind it, and a session of the target.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use jiff::Timestamp;

use super::prepare::{Asked, ask_about, host};
use super::talks::Talks;
use super::{asked_again, locked, pause};
use crate::canon::{Dialect, Family, Sides};
use crate::failure::Failure;
use crate::inventory::{Inventory, Source};
use crate::names::TableName;
use crate::plan::Comparison;
use crate::remote::ssh::Pooled;
use crate::source::keys::{ENCODING, list_keys, read_key};
use crate::source::postgres::{self, Described, SourceColumn, SourceTable};
use crate::source::{Bounds, SourceError};
use crate::step::compare::{Depth, Known, Told, Unread, look};
use crate::stop::Stop;
use crate::target::{Address, Canceller, Session, TargetError, TargetTable};

mod pair;
mod watch;

pub use watch::{Doing, Seen, Watch};

use pair::{Pair, of_source, of_target};

/// Tables that a source is asked for at once.
const AT_ONCE: usize = 2000;
/// How often a table is tried where a session was lost.
const ATTEMPTS: u32 = 3;
/// How long one conversation with a source may take: its questions have limits of their own.
const CONVERSATION: Duration = Duration::from_secs(30 * 86_400);
/// How often the watcher looks whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a comparison stands on.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "sessions have nothing to show")]
pub struct Ground<'a> {
    /// What was meant.
    pub inventory: &'a Inventory,
    /// What is compared.
    pub comparison: &'a Comparison,
    /// How the target is reached.
    pub target: &'a Address,
    /// SSH sessions.
    pub pool: &'a Talks,
    /// Whether to stop.
    pub stop: &'a Stop,
    /// Digests of everything?
    pub deep: bool,
    /// Windows that differed before, by table: looked at by digests in any case.
    pub suspects: &'a [Vec<usize>],
    /// So many keys are told of each table.
    pub keys: usize,
    /// And what their columns hold.
    pub values: bool,
    /// What the target held of windows that differ.
    pub proofs: bool,
    /// Where is said what is done.
    pub watch: &'a Watch,
}

/// What came of one table.
#[derive(Debug)]
pub struct Outcome {
    /// Its place in the comparison.
    pub table: usize,
    /// What was found, or why it could not be compared.
    pub told: Result<Told, Unread>,
    /// When the look at it began.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
}

/// Compares all tables, and hands each on when it is done. After a stop the rest is left alone.
///
/// # Errors
/// [`Failure::Target`] where the target cannot be asked. A table that cannot be compared is no error.
pub fn compare(
    ground: Ground<'_>,
    each: &mut dyn FnMut(Outcome) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if ground.comparison.tables.is_empty() {
        return Ok(());
    }
    let (asked, sources) = std::thread::scope(|scope| {
        let there = scope.spawn(|| asked_again(ground.stop, || ask_target(ground)));
        let sources = ask_sources(ground);
        let lost = |_| {
            Err(TargetError::Lost { doing: "say what it holds".into(), why: "its thread ended early".into() })
        };
        (there.join().unwrap_or_else(lost), sources)
    });
    let (target, seen) = asked.map_err(Failure::Target)?;
    // Each table has a conversation of its own: one more would be more than a source may have.
    ground.pool.leave_all();
    let shared = Shared { ground, target: &target, seen: &seen, cancellers: Mutex::default() };
    let (tell, told) = unbounded();
    let permits: (Sender<()>, Receiver<()>) = bounded(ground.inventory.target.sessions.max(1));
    std::thread::scope(|scope| {
        let (working, done) = bounded(0);
        let shared = &shared;
        scope.spawn(move || shared.watch(&done));
        let mut threads = 0;
        for source in &ground.inventory.sources {
            let tables: Vec<usize> = shared.tables_of(source);
            match sources.get(&source.name) {
                None => {}
                Some(Err(error)) => {
                    tables.iter().for_each(|&table| tell_unread(&tell, table, of_source(error)));
                }
                Some(Ok(known)) => {
                    let (queue, work) = unbounded();
                    // The receiver lives as long as this.
                    for table in &tables {
                        let _ = queue.send(*table);
                    }
                    for _ in 0..source.sessions.clamp(1, tables.len().max(1)) {
                        threads += 1;
                        let (work, tell) = (work.clone(), tell.clone());
                        let (permits, permitted) = (permits.0.clone(), permits.1.clone());
                        let worker = Worker { shared, source, known, tell, thread: threads };
                        scope.spawn(move || worker.all(&work, &permits, &permitted));
                    }
                }
            }
        }
        drop(tell);
        let mut failed = None;
        for outcome in told {
            if failed.is_none() {
                failed = each(outcome).err();
            }
            if failed.is_some() {
                ground.stop.give_up();
            }
        }
        drop(working);
        failed.map_or(Ok(()), Err)
    })
}

/// What a source said of itself and its tables.
#[derive(Debug)]
struct SourceSeen {
    dialect: Dialect,
    tables: HashMap<TableName, SourceTable>,
    keys: HashMap<TableName, Vec<String>>,
}

fn ask_sources(ground: Ground<'_>) -> Asked<SourceSeen> {
    let wanted = ground.comparison.tables.iter().map(|one| (one.source.as_str(), &one.table));
    ask_about(ground.inventory, wanted, ground.pool, ground.stop, |_, questions, facts, tables| {
        let mut encoding = String::new();
        questions.ask(ENCODING.into(), "asking for its encoding", |row| encoding = row.to_owned())?;
        let (version, segments) = (facts.version, facts.greenplum);
        let dialect = Dialect { family: Family::Postgres, version, encoding, segments };
        let mut seen = SourceSeen { dialect, tables: HashMap::new(), keys: HashMap::new() };
        let mut described = Described::of(tables.len());
        for some in tables.chunks(AT_ONCE) {
            let sized =
                questions.ask(postgres::describe_tables(facts, some, true), "reading its catalog", |row| {
                    described.take(row);
                });
            if matches!(sized, Err(SourceError::Failed { .. })) {
                // Somebody holds a table: sizes are only a hint.
                described.forget(some);
                let sql = postgres::describe_tables(facts, some, false);
                questions.ask(sql, "reading its catalog", |row| described.take(row))?;
            } else {
                sized?;
            }
            questions.ask(list_keys(some), "reading its primary keys", |row| {
                if let Some((table, column)) = read_key(row) {
                    seen.keys.entry(table).or_default().push(column);
                }
            })?;
        }
        Ok(SourceSeen { tables: described.into_tables(), ..seen })
    })
}

fn ask_target(ground: Ground<'_>) -> Result<(Dialect, HashMap<TableName, TargetTable>), TargetError> {
    let mut session = Session::open(ground.target, &ground.inventory.target.log_schema)?;
    let encoding = session.encoding()?;
    let (version, segments) = (session.facts().version, session.facts().distributes());
    let dialect = Dialect { family: Family::Postgres, version, encoding, segments };
    let targets: HashSet<&TableName> = ground.comparison.tables.iter().map(|one| &one.target).collect();
    let seen = session.tables(&targets.into_iter().collect::<Vec<_>>())?;
    Ok((dialect, seen))
}

/// What the workers share.
struct Shared<'a> {
    ground: Ground<'a>,
    target: &'a Dialect,
    seen: &'a HashMap<TableName, TargetTable>,
    cancellers: Mutex<HashMap<usize, Canceller>>,
}

impl Shared<'_> {
    fn tables_of(&self, source: &Source) -> Vec<usize> {
        let tables = self.ground.comparison.tables.iter().enumerate();
        tables.filter(|(_, one)| one.source == source.name).map(|(n, _)| n).collect()
    }

    /// Sees that a stop ends what the target is doing; returns when `done` is closed.
    fn watch(&self, done: &Receiver<()>) {
        while done.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            if self.ground.stop.asked() {
                let cancellers: Vec<Canceller> = locked(&self.cancellers).values().cloned().collect();
                cancellers.iter().for_each(Canceller::cancel);
            }
        }
    }
}

/// One thread, with a session on each side.
struct Worker<'a> {
    shared: &'a Shared<'a>,
    source: &'a Source,
    known: &'a SourceSeen,
    tell: Sender<Outcome>,
    /// Which of all workers it is.
    thread: usize,
}

impl Worker<'_> {
    /// Compares table after table, with new sessions where one was lost.
    fn all(&self, work: &Receiver<usize>, permits: &Sender<()>, permitted: &Receiver<()>) {
        let mut pending: Option<(usize, u32)> = None;
        while let Some((table, attempt)) =
            pending.take().or_else(|| work.try_recv().ok().map(|table| (table, 1)))
        {
            if self.shared.ground.stop.asked() {
                return;
            }
            // As many at a time as the target has sessions. The receiver lives as long as this.
            let _ = permits.send(());
            pending = self.some(work, table, attempt);
            let _ = permitted.try_recv();
            if let Some((_, attempt)) = pending {
                pause(attempt, self.shared.ground.stop);
            }
        }
    }

    /// Compares tables until a session is lost; gives back the one that is to be tried again.
    fn some(&self, work: &Receiver<usize>, first: usize, attempt: u32) -> Option<(usize, u32)> {
        let again = |unread: Unread, table: usize, attempt: u32| {
            // What a stop cut short was not compared.
            if self.shared.ground.stop.asked() {
                return None;
            }
            if unread.lost && attempt < ATTEMPTS {
                log::warn!("{} (attempt {attempt}; trying again)", unread.error);
                return Some((table, attempt + 1));
            }
            tell_unread(&self.tell, table, unread);
            None
        };
        let mut remote = match self.remote() {
            Ok(remote) => remote,
            Err(error) => return again(of_source(&error), first, attempt),
        };
        let (mut pair, mut next) = match self.open(&mut remote, first) {
            Ok(pair) => (pair, Some((first, attempt))),
            Err(unread) => return again(unread, first, attempt),
        };
        while let Some((table, attempt)) = next {
            if self.shared.ground.stop.asked() {
                break;
            }
            let (at, began) = (Timestamp::now(), Instant::now());
            let watch = self.shared.ground.watch;
            pair.watched = Some((watch, table));
            let told = self.one(&mut pair, table);
            match &told {
                Ok(told) => watch.ends(table, Some(!told.difference().is_none())),
                Err(unread) if unread.lost => watch.leaves(table),
                Err(_) => watch.ends(table, None),
            }
            match told {
                Err(unread) if unread.lost => return again(unread, table, attempt),
                // What a stop cut short was not compared.
                Err(_) if self.shared.ground.stop.asked() => break,
                told => {
                    // The receiver lives until every sender is gone.
                    let _ = self.tell.send(Outcome { table, told, at, took: began.elapsed() });
                }
            }
            if pair.is_broken() {
                return None;
            }
            next = work.try_recv().ok().map(|table| (table, 1));
        }
        if let Err(error) = pair.end() {
            log::debug!("{}: {error}", self.source.name);
        }
        None
    }

    fn remote(&self) -> Result<Pooled, SourceError> {
        // The script is there: it has just told of the tables.
        Ok(self.shared.ground.pool.get(&host(self.source)?)?)
    }
    /// One table, by both sides' own limits.
    fn one(&self, pair: &mut Pair<'_>, table: usize) -> Result<Told, Unread> {
        let Ground { inventory, comparison, deep, suspects, keys, values, proofs, .. } = self.shared.ground;
        let compared = &comparison.tables[table];
        pair.limit(compared.entry.export.timeout, compared.entry.load.timeout)?;
        let sides = Sides { source: self.known.dialect.clone(), target: self.shared.target.clone() };
        let target = self.shared.seen.get(&compared.target);
        let target_table = target.map(as_source);
        let known = Known {
            source: self.known.tables.get(&compared.table),
            source_key: self.known.keys.get(&compared.table).map_or(&[], Vec::as_slice),
            target: target_table.as_ref(),
            target_key: target.map_or(&[], |target| &target.primary_key),
            sides: &sides,
        };
        let suspects = suspects.get(table).map_or(&[][..], Vec::as_slice);
        let depth = Depth { deep, suspects, keys, values, proofs };
        look(compared, known, &inventory.timezone, depth, pair)
    }

    fn open<'r>(&'r self, remote: &'r mut Pooled, table: usize) -> Result<Pair<'r>, Unread> {
        let Ground { inventory, comparison, target, stop, .. } = self.shared.ground;
        let each = comparison.tables[table].entry.export.timeout;
        let bounds = Bounds { all: CONVERSATION, each, stop };
        let version = self.known.dialect.version;
        let open = Session::open(target, &inventory.target.log_schema).map_err(|error| of_target(&error))?;
        locked(&self.shared.cancellers).insert(self.thread, open.canceller());
        Pair::begin(remote, self.source, open, version, bounds)
    }
}

fn tell_unread(tell: &Sender<Outcome>, table: usize, unread: Unread) {
    let outcome = Outcome { table, told: Err(unread), at: Timestamp::now(), took: Duration::ZERO };
    // The receiver lives until every sender is gone.
    let _ = tell.send(outcome);
}

/// The target's table as one that conditions are written for.
fn as_source(table: &TargetTable) -> SourceTable {
    let columns = table.columns.iter().map(|column| SourceColumn {
        name: column.name.clone(),
        type_name: column.type_name.clone(),
        generated: column.generated,
        not_null: false,
    });
    SourceTable { columns: columns.collect(), ..SourceTable::default() }
}
