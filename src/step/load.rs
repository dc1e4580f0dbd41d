//! Loading: one transaction per group of units, each unit under its own savepoint, the load log in the same
//! transaction.
//!
//! The chain of counts is closed here: rows that the source's COPY reported = rows that the target's COPY
//! reported = rows in the load log. A break anywhere rolls the unit back.

use std::time::{Duration, Instant};

use super::{Stage, UnitFailure};
use crate::gzip::CheckedReader;
use crate::inventory::LoadRule;
use crate::mount::{Exported, Mount};
use crate::stop::Stop;
use crate::target::{Claim, CommitError, CopyError, Entry, Limits, LogRow, Session, TargetError};
use crate::unit::Unit;

/// How many colliding keys of each kind are looked up.
const KEYS_SHOWN: usize = 3;

/// What a load stands on.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The mount as the runner sees it.
    pub mount: &'a Mount,
    /// This run's id.
    pub run: &'a str,
    /// Says that the run is to stop.
    pub stop: &'a Stop,
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

/// Loads a group of units of one source in one transaction. The session must be outside a transaction, and is
/// of no more use after anything but [`Group::Answered`].
pub fn load_group(session: &mut Session, ground: Ground<'_>, cargo: &[Cargo<'_>]) -> Group {
    if let Err(error) = session.begin() {
        return Group::Dead(error);
    }
    let mut inside = Vec::with_capacity(cargo.len());
    for one in cargo {
        match load_one(session, ground, one) {
            Ok(done) => inside.push(done),
            Err(error) => return Group::Dead(error),
        }
    }
    match session.commit() {
        Ok(()) => {}
        Err(CommitError::Aborted(error)) => return Group::Dead(error),
        Err(CommitError::Unknown(error)) => return Group::Unknown(error),
    }
    Group::Answered(
        cargo.iter().zip(inside).map(|(one, inside)| (one.index, answer(session, one, inside))).collect(),
    )
}

/// The answer for one unit, after the COMMIT that holds it.
fn answer(session: &mut Session, cargo: &Cargo<'_>, inside: Inside) -> Result<Loaded, UnitFailure> {
    match inside {
        Inside::Copied(loaded) => Ok(loaded),
        Inside::Failed(failure) => Err(failure),
        Inside::AlreadyThere => {
            let key = &cargo.unit.key;
            let there = session
                .already_there(&key.source, &[&key.id])
                .map_err(|error| UnitFailure::of_target(Stage::Load, &error))?;
            match there.into_values().next() {
                Some(row) if row.is_of(&cargo.unit.rows) => {
                    Ok(Loaded { rows: row.rows, how: How::AlreadyThere, took: Duration::ZERO })
                }
                // The same id by another column: what is there are other rows.
                other => Err(overlap_failure(other.into_iter().collect()).unwrap_or_else(|| {
                    let error = "the load log refused the unit and does not hold it";
                    UnitFailure::new(Stage::Load, error, "run again")
                })),
            }
        }
    }
}

/// One unit under its savepoint.
///
/// # Errors
/// Where the session is of no more use, so that the whole group is to be taken back.
fn load_one(session: &mut Session, ground: Ground<'_>, cargo: &Cargo<'_>) -> Result<Inside, TargetError> {
    let begin = Instant::now();
    let clock = Clock { begin, rule: &cargo.unit.entry.load };
    session.savepoint(Limits { statement: clock.rule.timeout, lock: clock.rule.lock_timeout })?;
    let done = match session.claim(&cargo.unit.key, &entry(ground.run, cargo)) {
        Ok(Claim::AlreadyThere) => Ok(None),
        Ok(Claim::Ours) => match overlap(session, cargo)? {
            None => copy(session, ground, cargo, clock).map(Some),
            Some(failure) => Err(NotLoaded::Failed(Box::new(failure))),
        },
        Err(error) => Err(clock.fatal_or_failed(error)?),
    };
    match done {
        Ok(Some(rows)) => match session.confirm(&cargo.unit.key, rows) {
            Ok(()) => {
                session.release()?;
                Ok(Inside::Copied(Loaded { rows, how: How::Now, took: begin.elapsed() }))
            }
            Err(error) => Err(error),
        },
        Ok(None) => {
            session.rollback_to_savepoint()?;
            Ok(Inside::AlreadyThere)
        }
        Err(NotLoaded::Failed(failure)) => {
            session.rollback_to_savepoint()?;
            Ok(Inside::Failed(*failure))
        }
        Err(NotLoaded::SessionLost(error)) => Err(error),
    }
}

/// Rows of this unit that are in the target by one of other bounds. The plan leaves those out, as far as the ledger
/// knows; this is for a ledger that was deleted, or a runner with another one.
fn overlap(session: &mut Session, cargo: &Cargo<'_>) -> Result<Option<UnitFailure>, TargetError> {
    Ok(overlap_failure(session.overlapping(cargo.unit)?))
}

/// The failure of a unit whose rows, or some of them, the load log holds under other names.
pub fn overlap_failure(overlaps: Vec<LogRow>) -> Option<UnitFailure> {
    let first = overlaps.first()?;
    let error = format!(
        "it overlaps what is loaded already: the load log holds {}{}",
        first.key.id,
        if overlaps.len() > 1 { format!(" and {} more", overlaps.len() - 1) } else { String::new() }
    );
    let remedy =
        "run again: the ledger did not know of it and does now, and only what is missing will be moved";
    Some(UnitFailure { overlaps, own: false, ..UnitFailure::new(Stage::Load, error, remedy) })
}

/// Why a unit's rows were not copied.
enum NotLoaded {
    /// The unit's own fault: it is taken back, the others go on.
    Failed(Box<UnitFailure>),
    /// The session is of no more use.
    SessionLost(TargetError),
}

/// When a unit's load began, and how long it may take.
#[derive(Clone, Copy)]
struct Clock<'a> {
    begin: Instant,
    rule: &'a LoadRule,
}

impl Clock<'_> {
    /// An error that another try on another session may mend takes the group back; any other is the unit's own.
    fn fatal_or_failed(self, error: TargetError) -> Result<NotLoaded, TargetError> {
        if error.can_retry() {
            return Err(error);
        }
        Ok(NotLoaded::Failed(Box::new(failure(&error, self.rule, self.begin.elapsed()))))
    }
}

/// Why a load failed. A limit of ours is named by the key that sets it, told by the number and the clock, since the
/// server's own words may be of any language.
pub fn failure(error: &TargetError, rule: &LoadRule, took: Duration) -> UnitFailure {
    let failure = UnitFailure::of_target(Stage::Load, error);
    let named = |key: &str, limit: Duration, remedy: &str| UnitFailure {
        error: format!("{} (the limit is {} s: {key})", failure.error, limit.as_secs_f64()),
        remedy: remedy.into(),
        ..failure.clone()
    };
    match error.sqlstate() {
        Some("57014") if took >= rule.timeout => named(
            "load.timeout",
            rule.timeout,
            "raise `load.timeout` for this table, or make its windows shorter; look at pg_stat_activity for what \
             slows the target down",
        ),
        Some("55P03") => named("load.lock_timeout", rule.lock_timeout, &failure.remedy),
        _ => failure,
    }
}

/// Copies the rows and holds their number against what was exported.
fn copy(
    session: &mut Session,
    ground: Ground<'_>,
    cargo: &Cargo<'_>,
    clock: Clock<'_>,
) -> Result<u64, NotLoaded> {
    let failed = |failure: UnitFailure| NotLoaded::Failed(Box::new(failure));
    let reader = reader(ground, cargo.exported).map_err(failed)?;
    match session.copy(&cargo.unit.target, &cargo.exported.columns, reader) {
        Ok(rows) if rows == cargo.exported.rows => Ok(rows),
        Ok(rows) => Err(failed(UnitFailure::new(
            Stage::Load,
            format!(
                "{}: the source's COPY reported {} rows, the target's COPY {rows}; rolled back",
                ground.mount.path(&cargo.exported.file).display(),
                cargo.exported.rows
            ),
            "run again: the unit is exported afresh. If it comes back, the file holds an unquoted line of `\\.` \
             or is written by something else",
        ))),
        Err(CopyError::File(error)) => Err(failed(UnitFailure::of_file(&error))),
        Err(CopyError::Start(error)) => Err(NotLoaded::SessionLost(error)),
        Err(CopyError::Data(error)) => match clock.fatal_or_failed(error) {
            Ok(own) => Err(own),
            Err(error) => Err(NotLoaded::SessionLost(error)),
        },
    }
}

fn reader(ground: Ground<'_>, exported: &Exported) -> Result<CheckedReader, UnitFailure> {
    let file = ground
        .mount
        .open_exported(exported, ground.stop)
        .map_err(|error| UnitFailure::of_mount(Stage::Load, &error))?;
    Ok(CheckedReader::new(file, &ground.mount.path(&exported.file), &exported.trailer))
}

fn entry<'a>(run: &'a str, cargo: &Cargo<'a>) -> Entry<'a> {
    let unit = cargo.unit;
    Entry {
        job: &unit.job,
        table: unit.target.to_string(),
        measure: &unit.rows.measure,
        extent: unit.extent,
        file: cargo.exported.file.display().to_string(),
        mode: "insert",
        exported: cargo.exported.rows,
        digest: format!("crc32:{:08x}:{}", cargo.exported.trailer.crc32, cargo.exported.trailer.isize),
        run,
    }
}

/// Says which keys collide, for a unit that was rolled back on a unique constraint. The session must be outside
/// a transaction; returns whether it is still of use.
pub fn diagnose(
    session: &mut Session,
    ground: Ground<'_>,
    cargo: &Cargo<'_>,
    failure: &mut UnitFailure,
) -> bool {
    let Some(constraint) = failure.constraint.clone() else { return true };
    let Ok(reader) = reader(ground, cargo.exported) else { return true };
    let (table, columns) = (&cargo.unit.target, &cargo.exported.columns);
    match session.collisions(table, columns, &constraint, reader, KEYS_SHOWN) {
        Ok(found) => {
            failure.keys = Some(found);
            true
        }
        Err(CopyError::File(_)) => true,
        Err(CopyError::Start(error) | CopyError::Data(error)) => {
            log::debug!("colliding keys of {} could not be looked up: {error}", cargo.unit.key);
            false
        }
    }
}
