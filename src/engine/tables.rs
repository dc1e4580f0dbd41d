//! Tables that the target lacks: made after the source's definition, one transaction each, before anything is
//! exported. A table that is there is never changed.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::prepare::{Asked, ask_about};
use super::talks::Talks;
use crate::failure::Failure;
use crate::inventory::Inventory;
use crate::names::TableName;
use crate::owed::OwedKey;
use crate::plan::Needed;
use crate::source::SourceError;
use crate::source::definition::{Definition, Definitions, define_tables};
use crate::step::check::CheckError;
use crate::step::{Stage, UnitFailure};
use crate::stop::Stop;
use crate::target::create::{Made, Site, ddl, remedy};
use crate::target::{Canceller, Session, TargetError};

/// How often the watcher looks whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// From so many rows on, a key is built after them: for less it is not worth the transaction.
const MANY: u64 = 20_000;
/// Tables that a source is asked for at once.
const AT_ONCE: usize = 2000;

/// A table that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its name in the target.
    pub table: TableName,
    /// What of the source's definition was left out or changed.
    pub notes: Vec<String>,
    /// Its key, where that is built after its rows.
    pub owed: Option<OwedKey>,
}

/// What became of the tables that were needed.
#[derive(Debug, Default)]
pub struct Tables {
    /// How many are in the target now.
    pub there: usize,
    /// Those that were made.
    pub created: Vec<Created>,
    /// Those that could not be made, and why.
    pub failed: BTreeMap<TableName, UnitFailure>,
    /// Some had to be made, and no source that knows how could be reached.
    pub no_source_reached: bool,
}

/// Makes what of `needed` is missing. After a stop the rest is left alone. `can_wait` says of which tables the key may
/// be built after the rows.
///
/// # Errors
/// [`Failure::Target`] where the target cannot be asked. A table that cannot be made is no error.
pub fn create_missing(
    session: &mut Session,
    inventory: &Inventory,
    needed: &[Needed],
    talks: &Talks,
    stop: &Stop,
    can_wait: CanWait<'_>,
) -> Result<Tables, Failure> {
    let targets: Vec<&TableName> = needed.iter().map(|one| &one.target).collect();
    let present = session.tables(&targets)?;
    let missing: Vec<&Needed> = needed.iter().filter(|one| !present.contains_key(&one.target)).collect();
    let mut tables = Tables { there: needed.len() - missing.len(), ..Tables::default() };
    if missing.is_empty() {
        return Ok(tables);
    }
    let sources = define(inventory, &missing, talks, stop);
    tables.no_source_reached =
        sources.values().all(|asked| asked.as_ref().is_err_and(SourceError::is_unreachable));
    let canceller = session.canceller();
    std::thread::scope(|scope| {
        let (working, done) = bounded(0);
        scope.spawn(move || cancel_on(stop, &canceller, &done));
        let made = create_each(session, &missing, &sources, (stop, can_wait), &mut tables);
        drop(working);
        made
    })?;
    Ok(tables)
}

fn create_each(
    session: &mut Session,
    missing: &[&Needed],
    sources: &Sources,
    (stop, can_wait): (&Stop, CanWait<'_>),
    tables: &mut Tables,
) -> Result<(), TargetError> {
    let mut site = session.begin_creating()?;
    for one in missing {
        let made = create(session, &mut site, one, (sources, can_wait));
        let target = || one.target.clone();
        tables.there += usize::from(made.is_ok());
        match made {
            Ok((Made::Created { owed }, notes)) => {
                tables.created.push(Created { table: target(), notes, owed });
            }
            Ok((Made::AlreadyThere, _)) => {}
            // What a stop cancelled has not failed.
            Err(_) if stop.asked() => {}
            Err(NotMade::Lost(error)) => return Err(error),
            Err(NotMade::Failed(failure)) => drop(tables.failed.insert(target(), failure)),
        }
        if stop.asked() {
            // A session that was cancelled is asked nothing more.
            return Ok(());
        }
    }
    session.end_creating()
}

/// Ends what the target is doing once a stop is asked for: it may be waiting for a lock.
pub(super) fn cancel_on(stop: &Stop, canceller: &Canceller, done: &Receiver<()>) {
    while done.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        if stop.asked() {
            canceller.cancel();
        }
    }
}

/// Asks every source how its tables are made.
fn define(inventory: &Inventory, missing: &[&Needed], talks: &Talks, stop: &Stop) -> Sources {
    let wanted = missing.iter().map(|one| (one.source.as_str(), &one.table));
    ask_about(inventory, wanted, talks, stop, |_, questions, facts, tables| {
        let mut definitions = Definitions::default();
        for some in tables.chunks(AT_ONCE) {
            let sql = define_tables(facts, some);
            questions.ask(sql, "asking how its tables are made", |row| definitions.take(row))?;
        }
        Ok(definitions.finish())
    })
}

/// Why a table was not made.
enum NotMade {
    /// This one cannot be.
    Failed(UnitFailure),
    /// The target is gone: none can be.
    Lost(TargetError),
}

fn create(
    session: &mut Session,
    site: &mut Site,
    one: &Needed,
    (sources, can_wait): (&Sources, CanWait<'_>),
) -> Result<(Made, Vec<String>), NotMade> {
    let definition = match sources.get(&one.source) {
        Some(Ok(definitions)) => definitions.get(&one.table),
        Some(Err(error)) => return Err(NotMade::Failed(UnitFailure::of_source(Stage::Check, error))),
        None => None,
    };
    let definition = definition.ok_or_else(|| {
        let error = CheckError::NotInSource(one.table.to_string());
        NotMade::Failed(UnitFailure::new(Stage::Check, &error, error.remedy()))
    })?;
    // A parent's own statistics say nothing of its partitions.
    let large = definition.partitioned_by.is_some() || definition.rows.is_some_and(|rows| rows >= MANY);
    let owes = large && can_wait(&one.target);
    let mut made = attempt(session, site, one, definition, owes)?;
    let computes = site.generates && definition.columns.iter().any(|column| column.generated.is_some());
    if made.as_ref().is_err_and(|error| computes && blames_expression(error)) {
        // An expression may call a function that the target has not: then the values are copied as they are.
        let mut plain = Site { generates: false, ..site.clone() };
        made = attempt(session, &mut plain, one, definition, owes)?;
        site.schemas = plain.schemas;
    }
    made.map_err(|error| match error {
        lost @ (TargetError::Lost { .. }
        | TargetError::Connect { .. }
        | TargetError::Address { .. }
        | TargetError::Program(_)) => NotMade::Lost(lost),
        refused @ TargetError::Refused { .. } => {
            let remedy = remedy(&refused, &one.target, site);
            NotMade::Failed(UnitFailure { remedy, ..UnitFailure::of_target(Stage::Check, &refused) })
        }
    })
}

/// How the tables of each source are made.
type Sources = Asked<HashMap<TableName, Definition>>;
/// May the key of this table be built after its rows?
type CanWait<'a> = &'a dyn Fn(&TableName) -> bool;
type Attempt = Result<(Made, Vec<String>), TargetError>;

fn attempt(
    session: &mut Session,
    site: &mut Site,
    one: &Needed,
    definition: &Definition,
    owes: bool,
) -> Result<Attempt, NotMade> {
    let ddl = ddl(&one.target, definition, site).map_err(|error| {
        let remedy = "look at that column in the source, or create the table in the target yourself";
        NotMade::Failed(UnitFailure::new(Stage::Check, &error, remedy))
    })?;
    Ok(session.create(&one.target, &ddl, site, owes).map(|made| (made, ddl.notes)))
}

/// Could it be the expression of a computed column? Syntax errors and missing things, not missing rights.
fn blames_expression(error: &TargetError) -> bool {
    error.sqlstate().is_some_and(|state| {
        state.starts_with("42") && !["42501", "42P06", "42P07", "42710"].contains(&state) || state == "0A000"
    })
}
