//! Before the first row moves: every source and the target are asked what they hold, and each unit is either
//! ready or failed with its reason.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use jiff::civil::Date;
use rayon::prelude::*;

use super::talks::Talks;
use super::{ASKED, pause};
use crate::alike::Alike;
use crate::inventory::{Inventory, Source};
use crate::mount::Columns;
use crate::names::TableName;
use crate::plan::{self, Catalog, IdColumn, WantedIds};
use crate::remote::RemoteError;
use crate::remote::ssh::HostText;
use crate::source::nulls::{self, Nulls};
use crate::source::postgres::{self, Described, SourceColumn, SourceFacts, SourceTable};
use crate::source::{Bounds, Questions, Script, SourceError, rows};
use crate::step::export::Order;
use crate::step::{Stage, UnitFailure, argv, check};
use crate::stop::Stop;
use crate::target::TargetTable;
use crate::unit::{Unit, UnitKey};

/// Tables below this size share sessions, processes and transactions. Bytes, uncompressed.
const SMALL: u64 = 1 << 20;
/// Tables that a catalog is asked for at once.
const AT_ONCE: usize = 2000;
/// How long one question to a catalog may take.
const CATALOG_STATEMENT: Duration = Duration::from_secs(20);
/// How long a catalog may take to answer.
const CATALOG_LIMIT: Duration = Duration::from_secs(300);

/// What a source's catalog says.
#[derive(Debug, Default)]
pub struct SourceCatalog {
    facts: Option<SourceFacts>,
    tables: HashMap<TableName, SourceTable>,
    /// Rows without a value in a window column, where they were counted.
    pub(super) nulls: Vec<(TableName, String, Nulls)>,
}

impl SourceCatalog {
    /// Can its server's sessions read one and the same state?
    pub(super) fn shares_snapshots(&self) -> bool {
        self.facts.is_some_and(SourceFacts::shares_snapshots)
    }

    /// A table's columns, in the table's order.
    pub(super) fn columns(&self, table: &TableName) -> Option<&[SourceColumn]> {
        self.tables.get(table).map(|table| &*table.columns)
    }

    /// A table, as it is described.
    pub(super) fn table(&self, table: &TableName) -> Option<&SourceTable> {
        self.tables.get(table)
    }

    /// An upper bound for a table's size in bytes, where the catalog knows one cheaply. The outer `None`: no such table.
    pub(super) fn bytes(&self, table: &TableName) -> Option<Option<u64>> {
        self.tables.get(table).map(|table| table.bytes)
    }
}

/// A source that was asked: its catalog, or why it has none.
pub type Asked<T> = BTreeMap<String, Result<T, SourceError>>;

/// A source that could not be asked, and why.
pub type Unasked = (String, SourceError);

/// A column's lowest and highest id.
pub type Span = (IdColumn, Option<(i64, i64)>);

/// Asks every source in parallel, in a conversation that was left open where there is one. A source that cannot be reached
/// does not hold the others up.
pub(super) fn ask_each<T: Send>(
    sources: Vec<&Source>,
    talks: &Talks,
    stop: &Stop,
    name: &str,
    ask: impl Fn(&Source, &mut Questions<'static>) -> Result<T, SourceError> + Sync,
) -> Asked<T> {
    let asked = |source: &&Source| {
        let script = Script::greenplum();
        let once = || {
            let talk = match talks.take(source) {
                Some(talk) => talk,
                None => {
                    script.ensure(&mut talks.get(&host(source)?)?)?;
                    talks.take_or_begin(source, &script)?
                }
            };
            let mut questions = Questions::go_on(talk, source, name, bounds(stop));
            let answer = ask(source, &mut questions)?;
            if let Some(talk) = questions.into_talk() {
                talks.keep(source, talk);
            }
            Ok(answer)
        };
        let mut attempt = 1;
        loop {
            match once() {
                Err(error) if attempt < ASKED && passes(&error) && !stop.asked() => {
                    log::warn!("{}: {error} (attempt {attempt}; trying again)", source.name);
                    pause(attempt, stop);
                    attempt += 1;
                }
                answer => return (source.name.clone(), answer),
            }
        }
    };
    // One thread per source: they wait, they do not compute.
    match rayon::ThreadPoolBuilder::new().num_threads(sources.len().clamp(1, 64)).build() {
        Ok(threads) => threads.install(|| sources.par_iter().map(asked).collect()),
        Err(_) => sources.iter().map(asked).collect(),
    }
}

/// Was somebody there, and can another try help? A host that is down is tried once.
fn passes(error: &SourceError) -> bool {
    match error {
        SourceError::Remote(RemoteError::Lost { .. } | RemoteError::Handshake { .. }) => true,
        SourceError::Remote(_) | SourceError::Silent { .. } | SourceError::Protocol { .. } => false,
        SourceError::Command(_) | SourceError::GivenUp { .. } | SourceError::Failed { .. } => {
            error.can_retry()
        }
    }
}

/// The host of a source; the inventory's reader has looked at its form already.
pub(super) fn host(source: &Source) -> Result<HostText, SourceError> {
    Ok(source.host.parse::<HostText>()?)
}

/// Lists the tables of sources, for the globs of a plan; and the sources that could not be asked.
pub fn list(sources: Vec<&Source>, talks: &Talks, stop: &Stop) -> (Catalog, Vec<Unasked>) {
    let asked = ask_each(sources, talks, stop, "catalog", |_, questions| {
        let mut tables = Vec::new();
        questions.ask(postgres::list_tables(), "listing its tables", |row| {
            tables.extend(postgres::read_table_name(row));
        })?;
        Ok(tables)
    });
    let (mut catalog, mut unlisted) = (Catalog::new(), Vec::new());
    for (name, answer) in asked {
        match answer {
            Ok(tables) => drop(catalog.insert(name, tables)),
            Err(error) => unlisted.push((name, error)),
        }
    }
    (catalog, unlisted)
}

/// The lowest and the highest id of columns, `None` where a table holds none; and the sources that could not be asked. A
/// table that cannot be asked is only said: it may be missing, or be of another type.
pub fn ids(
    inventory: &Inventory,
    wanted: &[WantedIds],
    talks: &Talks,
    stop: &Stop,
) -> (Vec<Span>, Vec<Unasked>) {
    let is_asked = |source: &&Source| wanted.iter().any(|one| one.column.source == source.name);
    let sources = inventory.sources.iter().filter(is_asked).collect();
    let asked = ask_each(sources, talks, stop, "catalog", |source, questions| {
        let mut seen = Vec::new();
        for one in wanted.iter().filter(|one| one.column.source == source.name) {
            let mut span = None;
            let sql = postgres::span_of_ids(&one.table, &one.column.column);
            match questions.ask(sql, &format!("asking for the ids of {}", one.table), |row| {
                span = postgres::read_span(row);
            }) {
                Ok(()) => seen.push((one.column.clone(), span)),
                Err(error @ SourceError::Failed { .. }) => log::error!("{error} (try: {})", error.remedy()),
                Err(error) => return Err(error),
            }
        }
        Ok(seen)
    });
    let (mut seen, mut failed) = (Vec::new(), Vec::new());
    for (name, answer) in asked {
        match answer {
            Ok(some) => seen.extend(some),
            Err(error) => failed.push((name, error)),
        }
    }
    (seen, failed)
}

/// Asks each source about those of these tables that are its own, once it has said what server it is.
pub(super) fn ask_about<'a, T: Send>(
    inventory: &Inventory,
    wanted: impl Iterator<Item = (&'a str, &'a TableName)>,
    talks: &Talks,
    stop: &Stop,
    ask: impl Fn(&Source, &mut Questions<'static>, SourceFacts, &[&TableName]) -> Result<T, SourceError> + Sync,
) -> Asked<T> {
    let mut by_source: BTreeMap<&str, BTreeSet<&TableName>> = BTreeMap::new();
    for (source, table) in wanted {
        by_source.entry(source).or_default().insert(table);
    }
    let sources = inventory.sources.iter().filter(|source| by_source.contains_key(source.name.as_str()));
    ask_each(sources.collect(), talks, stop, "catalog", |source, questions| {
        let tables: Vec<&TableName> =
            by_source.get(source.name.as_str()).into_iter().flatten().copied().collect();
        let facts = match talks.facts(source) {
            Some(facts) => facts,
            None => {
                let mut facts = SourceFacts { version: 0, greenplum: false };
                questions.ask(postgres::FACTS.into(), "asking what the database is", |row| {
                    facts = postgres::read_facts(row);
                })?;
                talks.note_facts(source, facts);
                facts
            }
        };
        ask(source, questions, facts, &tables)
    })
}

/// Describes the tables of a plan, source by source, and counts rows in no window but for the columns in `counted`.
pub fn describe(
    inventory: &Inventory,
    units: &[&Unit],
    counted: &HashSet<IdColumn>,
    talks: &Talks,
    stop: &Stop,
) -> Asked<SourceCatalog> {
    let wanted = units.iter().map(|unit| (&*unit.key.source, &unit.table));
    ask_about(inventory, wanted, talks, stop, |source, questions, facts, tables| {
        let mut described = Described::of(tables.len());
        for some in tables.chunks(AT_ONCE) {
            let sql = postgres::describe_tables(facts, some, true);
            match questions.ask(sql, "reading its catalog", |row| described.take(row)) {
                // Somebody holds a table: sizes are only a hint, and no reason to hold up all the others.
                Err(SourceError::Failed { .. }) => {
                    // What came before it failed comes again.
                    described.forget(some);
                    let sql = postgres::describe_tables(facts, some, false);
                    questions.ask(sql, "reading its catalog", |row| described.take(row))?;
                }
                asked => asked?,
            }
            let children = described.take_children();
            if !children.is_empty() {
                let sql = postgres::list_ancestors(&children.iter().collect::<Vec<_>>());
                questions.ask(sql, "reading its partitions", |row| described.take_ancestor(row))?;
            }
        }
        let tables = described.into_tables();
        let mut catalog = SourceCatalog { facts: Some(facts), tables, ..SourceCatalog::default() };
        let wanted = super::nulls::wanted(source, units, &catalog.tables, counted);
        match nulls::count(questions, wanted.iter().map(|(table, column)| (*table, *column))) {
            Ok(nulls) => catalog.nulls = nulls,
            // What was asked for is known: this was only a look.
            Err(error) => {
                log::warn!("rows without a time are not counted: {error}");
                return Ok(catalog);
            }
        }
        Ok(catalog)
    })
}

fn bounds(stop: &Stop) -> Bounds<'_> {
    Bounds { all: CATALOG_LIMIT, each: CATALOG_STATEMENT, stop }
}

/// Sorts units into those that can be exported and those that cannot.
pub(super) struct Orders<'a> {
    inventory: &'a Inventory,
    sources: &'a Asked<SourceCatalog>,
    today: Date,
    /// Files of units whose names a script of the user's own has a say in.
    files: HashSet<PathBuf>,
    /// Lists of columns: tables that are alike share them.
    lists: Alike<String>,
}

impl<'a> Orders<'a> {
    pub(super) fn new(inventory: &'a Inventory, sources: &'a Asked<SourceCatalog>, today: Date) -> Self {
        Self { inventory, sources, today, files: HashSet::new(), lists: Alike::default() }
    }

    /// The order for a unit, whose target table is among these.
    ///
    /// # Errors
    /// [`UnitFailure`] where it cannot be exported.
    pub(super) fn order<'p>(
        &mut self,
        index: usize,
        unit: &'p Unit,
        targets: &HashMap<TableName, TargetTable>,
    ) -> Result<Order<'p>, UnitFailure> {
        let Self { inventory, sources, today, .. } = *self;
        let made =
            order(index, unit, inventory, sources, targets, today, |columns| self.lists.share(columns))?;
        let by_pattern = inventory.source(&unit.key.source).is_some_and(|source| source.argv().is_some());
        // The pattern may not tell them apart, as ids do.
        if by_pattern && !self.files.insert(made.file.to_path_buf()) {
            let error = format!("{} is the file of another unit as well", made.file.display());
            return Err(UnitFailure::new(Stage::Check, error, "let `script.file` of the source hold {unit}"));
        }
        Ok(made)
    }
}

fn order<'a>(
    index: usize,
    unit: &'a Unit,
    inventory: &Inventory,
    sources: &Asked<SourceCatalog>,
    targets: &HashMap<TableName, TargetTable>,
    today: Date,
    share: impl FnOnce(Vec<String>) -> Columns,
) -> Result<Order<'a>, UnitFailure> {
    let source = match sources.get(&*unit.key.source) {
        Some(Ok(catalog)) => catalog.tables.get(&unit.table),
        Some(Err(error)) => return Err(UnitFailure::of_source(Stage::Check, error)),
        None => None,
    };
    let moves = |table: &TableName| plan::mover(inventory, &unit.key.source, table);
    let columns = check::with_parent(unit, source, moves)
        .and_then(|()| check::columns(unit, source, targets.get(&unit.target)))
        .map_err(|error| UnitFailure::new(Stage::Check, &error, error.remedy()))?;
    let described = source.cloned().unwrap_or_default();
    let condition = rows::condition(unit, &described, &inventory.timezone)
        .map_err(|error| UnitFailure::new(Stage::Check, &error, error.remedy()))?;
    let file = match inventory.source(&unit.key.source) {
        Some(source) => argv::file(source, unit, today)?,
        None => unit.relative_path(today),
    };
    let small = described.bytes.is_some_and(|bytes| bytes <= SMALL);
    let (columns, condition) = (share(columns), condition.into());
    Ok(Order { index, unit, file: file.into(), columns, condition, slice_of: None, small, segments: None })
}

/// Keys of units, by source: how the load log is asked.
pub(super) fn by_source<'a>(keys: impl Iterator<Item = &'a UnitKey>) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut sorted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for key in keys {
        sorted.entry(&key.source).or_default().push(&key.id);
    }
    sorted
}
