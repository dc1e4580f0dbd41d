//! Loading: one transaction per group of units, the load log in the same transaction. Where one of a group fails, each
//! unit is loaded under a savepoint of its own, so that it takes only itself back.
//!
//! The chain of counts is closed here: rows that the source's COPY reported = rows that the target's COPY
//! reported = rows in the load log. A break anywhere rolls the unit back.

use std::time::{Duration, Instant};

use jiff::tz::TimeZone;

use super::{Stage, UnitFailure};
use crate::gzip::CheckedReader;
use crate::inventory::{LoadMode, LoadRule, OnPkViolation, RejectLimit};
use crate::mount::{Exported, Mount};
use crate::sql;
use crate::stop::Stop;
use crate::target::{Claim, CommitError, Counts, Entry, LACKING, Limits, LogRow, Session, TargetError};
use crate::unit::Unit;

mod anew;
mod doctor;
mod fill;
mod head;
pub mod inlet;
mod reads;
mod rejected;
mod together;
mod way;

pub use anew::{Anew, Proof};
pub use doctor::{Mended, mend};
pub use inlet::Inlets;
pub use reads::Reads;

/// From so many compressed bytes on it is told how much of a file has been read.
const LARGE: u64 = 1 << 20;

/// What a load stands on.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The mount as the runner sees it.
    pub mount: &'a Mount,
    /// This run's id.
    pub run: &'a str,
    /// Says that the run is to stop.
    pub stop: &'a Stop,
    /// The zone of window bounds.
    pub zone: &'a TimeZone,
    /// Whether keys that collide, which are cell values, may be shown.
    pub show_keys: bool,
    /// Who hears how much of a large file has been read.
    pub reads: &'a Reads,
    /// Whether units take the place of what is there of them.
    pub anew: Option<&'a Anew>,
    /// How files get in.
    pub inlets: &'a Inlets,
}

/// A unit with the proof that it was exported.
#[derive(Debug, Clone, Copy)]
pub struct Cargo<'a> {
    /// Its place in the plan.
    pub index: usize,
    /// The unit.
    pub unit: &'a Unit,
    /// The proof.
    pub exported: &'a Exported,
}

/// Rows of a unit are in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// How many.
    pub rows: u64,
    /// Rows of the file that were kept out, and are written down.
    pub rejected: u64,
    /// Whether this run put them there.
    pub how: How,
    /// How long it took.
    pub took: Duration,
}

/// How rows came to be in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By this load.
    Now,
    /// The load log held the unit already.
    AlreadyThere,
}

/// What became of a group.
#[derive(Debug)]
pub enum Group {
    /// Every unit has its answer.
    Answered(Vec<(usize, Result<Loaded, UnitFailure>)>),
    /// The session died before COMMIT was sent: nothing of the group is in the target.
    Dead(TargetError),
    /// The answer to COMMIT was lost: only the load log knows.
    Unknown(TargetError),
}

/// What was done with one unit inside the transaction.
enum Inside {
    Copied(Loaded),
    AlreadyThere,
    Failed(UnitFailure),
}

/// Loads a group of units in one transaction. The session must be outside a transaction, and is of no more use after
/// anything but [`Group::Answered`].
///
/// Nearly always all of it fits, so it is tried without savepoints first; where that fails, one unit after another
/// under its own, which tells whose fault it was.
pub fn load_group(session: &mut Session, ground: Ground<'_>, cargo: &[Cargo<'_>]) -> Group {
    let inside = match together::load(session, ground, cargo) {
        Ok(Some(inside)) => Ok(inside),
        Ok(None) => one_by_one(session, ground, cargo),
        Err(error) => Err(error),
    };
    let inside = match inside {
        Ok(inside) => inside,
        Err(error) => return Group::Dead(error),
    };
    match session.commit() {
        Ok(()) => {}
        Err(CommitError::Aborted(error)) => return Group::Dead(error),
        Err(CommitError::Unknown(error)) => return Group::Unknown(error),
    }
    Group::Answered(
        cargo
            .iter()
            .zip(inside)
            .map(|(one, inside)| (one.index, answer(session, ground, one, inside)))
            .collect(),
    )
}

/// One unit after another, each under its savepoint; the transaction is left open.
///
/// What is checked only at the end of the transaction is checked for all of them together, as the COMMIT would: rows of
/// one may need those of another. Only where that fails is each seen by itself, which tells whose fault it was.
fn one_by_one(
    session: &mut Session,
    ground: Ground<'_>,
    cargo: &[Cargo<'_>],
) -> Result<Vec<Inside>, TargetError> {
    session.begin()?;
    let inside = cargo.iter().map(|one| load_one(session, ground, one, false)).collect::<Result<_, _>>()?;
    match session.settle() {
        Ok(()) => return Ok(inside),
        Err(error) if error.can_retry() => return Err(error),
        Err(error) => log::debug!("a group of units is settled one by one: {error}"),
    }
    session.rollback()?;
    session.begin()?;
    cargo.iter().map(|one| load_one(session, ground, one, true)).collect()
}

/// The answer for one unit, after the COMMIT that holds it.
fn answer(
    session: &mut Session,
    ground: Ground<'_>,
    cargo: &Cargo<'_>,
    inside: Inside,
) -> Result<Loaded, UnitFailure> {
    match inside {
        Inside::Copied(loaded) => {
            forget_rejects(ground, cargo, loaded.rejected);
            Ok(loaded)
        }
        Inside::Failed(failure) => Err(failure),
        Inside::AlreadyThere => {
            let key = &cargo.unit.key;
            let there = session
                .already_there(&key.source, &[&key.id])
                .map_err(|error| UnitFailure::of_target(Stage::Load, &error))?;
            match there.get(key) {
                Some(row) => found(cargo.unit, row, How::AlreadyThere),
                None => {
                    let error = "the load log refused the unit and does not hold it";
                    Err(UnitFailure { own: false, ..UnitFailure::new(Stage::Load, error, "run again") })
                }
            }
        }
    }
}

/// One unit under its savepoint; `settles`: with the constraints that are checked at the end of a transaction.
///
/// # Errors
/// Where the session is of no more use, so that the whole group is to be taken back.
fn load_one(
    session: &mut Session,
    ground: Ground<'_>,
    cargo: &Cargo<'_>,
    settles: bool,
) -> Result<Inside, TargetError> {
    let begin = Instant::now();
    let rule = &cargo.unit.entry.load;
    let limits = Limits { statement: rule.timeout, lock: rule.lock_timeout };
    session.savepoint(limits)?;
    let is_counted = rule.is_plain() && !session.may_miscount(std::iter::once(&cargo.unit.target))?;
    let mut done = if is_counted {
        plain(session, ground, cargo)
    } else {
        way::load(session, ground, cargo, rule, None)
    };
    let some_may_be_kept_out = rule.reject_limit.of(cargo.exported.rows) > 0;
    if matches!(&done, Err(NotLoaded::Failed(failure)) if failure.misfit)
        && rule.is_plain()
        && some_may_be_kept_out
    {
        session.rollback_to_savepoint()?;
        session.savepoint(limits)?;
        done = way::load(session, ground, cargo, rule, None);
    }
    if settles && matches!(done, Ok(Done::Copied(_))) {
        done = done.and_then(|done| session.settle().map(|()| done).map_err(fatal_or_failed));
    }
    match done {
        Ok(Done::Copied(counts)) => match session.confirm(&cargo.unit.key, counts.loaded) {
            Ok(()) => {
                session.release()?;
                let (rows, rejected) = (counts.loaded, counts.rejected);
                Ok(Inside::Copied(Loaded { rows, rejected, how: How::Now, took: begin.elapsed() }))
            }
            Err(error) => Err(error),
        },
        Ok(Done::AlreadyThere) => {
            session.rollback_to_savepoint()?;
            Ok(Inside::AlreadyThere)
        }
        Err(NotLoaded::Failed(failure)) => {
            session.rollback_to_savepoint()?;
            Ok(Inside::Failed(limits_named(*failure, rule, begin.elapsed())))
        }
        Err(NotLoaded::SessionLost(error)) => Err(error),
    }
}

/// Rejects of an earlier try speak of rows that are in the target by now.
fn forget_rejects(ground: Ground<'_>, cargo: &Cargo<'_>, rejected: u64) {
    let rule = &cargo.unit.entry.load;
    let may_have_some =
        rule.reject_limit != RejectLimit::NONE || rule.on_pk_violation == OnPkViolation::Quarantine;
    if rejected == 0 && may_have_some {
        ground.mount.forget_rejects(&cargo.unit.key);
    }
}

/// Claims the unit and copies its file as it is: what most units need.
fn plain(session: &mut Session, ground: Ground<'_>, cargo: &Cargo<'_>) -> Result<Done, NotLoaded> {
    let counts = Counts::all(cargo.exported.rows);
    let entry = entry(ground.run, cargo, LoadMode::Insert, counts);
    match session.claim(&cargo.unit.key, &entry).map_err(fatal_or_failed)? {
        Claim::AlreadyThere => return Ok(Done::AlreadyThere),
        Claim::Ours => {}
    }
    if let Some(failure) = overlap(session, cargo).map_err(NotLoaded::SessionLost)? {
        return Err(failed(failure));
    }
    fill::whole(session, ground, cargo, &sql::table(&cargo.unit.target)).map(|_| Done::Copied(counts))
}

/// Rows of this unit that are in the target by one of other bounds. The plan leaves those out, as far as the ledger
/// knows; this is for a ledger that was deleted, or a runner with another one.
fn overlap(session: &mut Session, cargo: &Cargo<'_>) -> Result<Option<UnitFailure>, TargetError> {
    let overlaps = session.overlapping(cargo.unit)?;
    Ok((!overlaps.is_empty()).then(|| overlap_failure(overlaps)))
}

/// What a unit's own row in the load log says: it is there, with so many rows kept out; unless the row is of another
/// window column, and so stands for other rows.
///
/// # Errors
/// [`UnitFailure`] in the latter case.
pub fn found(unit: &Unit, row: &LogRow, how: How) -> Result<Loaded, UnitFailure> {
    if row.is_of(&unit.rows) {
        Ok(Loaded { rows: row.rows, rejected: row.rejected, how, took: Duration::ZERO })
    } else {
        Err(overlap_failure(vec![row.clone()]))
    }
}

/// The failure of a unit whose rows, or some of them, the load log holds under other names: these.
fn overlap_failure(overlaps: Vec<LogRow>) -> UnitFailure {
    let error = format!(
        "it overlaps what is loaded already: the load log holds {}{}",
        overlaps.first().map_or("", |first| first.key.id.as_str()),
        if overlaps.len() > 1 { format!(" and {} more", overlaps.len() - 1) } else { String::new() }
    );
    let remedy =
        "run again: the ledger did not know of it and does now, and only what is missing will be moved";
    UnitFailure { overlaps, own: false, ..UnitFailure::new(Stage::Load, error, remedy) }
}

/// Why a unit's rows were not copied.
#[derive(Debug)]
enum NotLoaded {
    /// The unit's own fault: it is taken back, the others go on.
    Failed(Box<UnitFailure>),
    /// The session is of no more use.
    SessionLost(TargetError),
}

/// Why a load failed. A limit of ours is named by the key that sets it, told by the number and the clock, since the
/// server's own words may be of any language.
pub fn failure(error: &TargetError, rule: &LoadRule, took: Duration) -> UnitFailure {
    limits_named(UnitFailure::of_target(Stage::Load, error), rule, took)
}

fn limits_named(failure: UnitFailure, rule: &LoadRule, took: Duration) -> UnitFailure {
    let named = |key: &str, limit: Duration, remedy: &str| UnitFailure {
        error: format!("{} (the limit is {} s: {key})", failure.error, limit.as_secs_f64()),
        remedy: remedy.into(),
        ..failure.clone()
    };
    match failure.sqlstate.as_deref() {
        Some(state) if sql::is_cancelled(state) && took >= rule.timeout => named(
            "load.timeout",
            rule.timeout,
            "raise `load.timeout` for this table, or make its windows shorter; look at pg_stat_activity for what \
             slows the target down",
        ),
        // Any other remedy knows more.
        Some("42501") if failure.remedy == LACKING => UnitFailure {
            remedy: format!(
                "grant the loading user what it lacks; mode `{}`, as the inventory has it here, needs {}",
                rule.mode.word(),
                rule.rights().words()
            ),
            ..failure
        },
        Some("55P03") => named("load.lock_timeout", rule.lock_timeout, &failure.remedy),
        _ => failure,
    }
}

impl From<TargetError> for NotLoaded {
    fn from(error: TargetError) -> Self {
        fatal_or_failed(error)
    }
}

fn failed(failure: UnitFailure) -> NotLoaded {
    NotLoaded::Failed(Box::new(failure))
}

/// An error that another try on another session may mend takes the group back; any other is the unit's own.
fn fatal_or_failed(error: TargetError) -> NotLoaded {
    if error.can_retry() {
        return NotLoaded::SessionLost(error);
    }
    failed(UnitFailure::of_target(Stage::Load, &error))
}

/// What was done with one unit's rows, under its savepoint.
#[derive(Debug, Clone, Copy)]
enum Done {
    /// They are in, and the load log says so.
    Copied(Counts),
    /// The load log held the unit already.
    AlreadyThere,
}

fn reader(ground: Ground<'_>, cargo: &Cargo<'_>) -> Result<CheckedReader, UnitFailure> {
    let exported = cargo.exported;
    let reader = ground
        .mount
        .read_exported(exported, ground.stop)
        .map_err(|error| UnitFailure::of_mount(Stage::Load, &error))?;
    Ok(if exported.trailer.bytes < LARGE { reader } else { reader.telling(ground.reads.of(cargo.index)) })
}

fn entry<'a>(run: &'a str, cargo: &Cargo<'a>, mode: LoadMode, counts: Counts) -> Entry<'a> {
    let unit = cargo.unit;
    Entry {
        job: &unit.job,
        table: unit.target.to_string(),
        measure: &unit.rows.measure,
        extent: unit.extent,
        file: cargo.exported.named().display().to_string(),
        mode: mode.word(),
        counts,
        digest: format!("crc32:{:08x}:{}", cargo.exported.trailer.crc32, cargo.exported.trailer.isize),
        run,
    }
}
