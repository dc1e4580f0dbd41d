//! What becomes of a unit that a unique constraint refused, after it was rolled back whole.
//!
//! In a transaction of its own the file is staged and its keys are sorted: twice in the file, the same row in the
//! target, another row there. What the inventory says then is done in that same transaction; where it says
//! `rollback`, it only tells, in counts and words. Keys are cell values, and looked up only where an operator asks.

use std::time::Instant;

use super::head::Hint;
use super::rejected::Rejected;
use super::way::{self, KEYS_SHOWN, Road, as_source, cannot_sort};
use super::{Cargo, Done, Ground, How, Loaded, NotLoaded, failed, fatal_or_failed, limits_named};
use crate::csv::{Cutter, Rows};
use crate::inventory::{LoadMode, LoadRule, OnPkViolation};
use crate::source::rows;
use crate::step::{Stage, UnitFailure};
use crate::target::{Clash, Collisions, CommitError, Kind, Session, Shape, TargetError};

/// What is done with rows whose keys collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sorting {
    /// They are only told.
    Tell,
    /// They are left out where each is in the target as it is.
    SkipIdentical,
    /// They are written to the rejects.
    Quarantine,
}

/// How a unit is loaded that was refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Again<'a> {
    /// What is done with rows whose keys collide.
    pub(super) sorting: Sorting,
    /// The constraint that refused the rows.
    pub(super) constraint: Option<&'a str>,
    /// Where the COPY got to that was refused.
    pub(super) hint: Option<Hint<'a>>,
}

/// What came of looking after a unit.
#[derive(Debug)]
pub enum Mended {
    /// Its rows are in the target after all.
    Loaded(Loaded),
    /// They are not; the failure says more than before.
    Failed,
    /// The answer to COMMIT was lost: only the load log knows.
    Unknown(TargetError),
}

/// Looks after a unit that was rolled back on a unique constraint. The session must be outside a transaction; says
/// also whether it is still of use.
pub fn mend(
    session: &mut Session,
    ground: Ground<'_>,
    cargo: &Cargo<'_>,
    failure: &mut UnitFailure,
) -> (Mended, bool) {
    let written: &LoadRule = &cargo.unit.entry.load;
    if matches!(written.mode, LoadMode::Update | LoadMode::Merge) {
        failure.remedy = format!(
            "mode `{}` finds rows by its key columns alone, and these rows break another unique constraint: {}",
            written.mode.word(),
            failure.remedy
        );
        return (Mended::Failed, true);
    }
    let begin = Instant::now();
    let merge = LoadRule { mode: LoadMode::Merge, ..written.clone() };
    let (rule, sorting) = match written.on_pk_violation {
        OnPkViolation::Rollback => (written, Some(Sorting::Tell)),
        OnPkViolation::SkipIdentical => (written, Some(Sorting::SkipIdentical)),
        OnPkViolation::Quarantine => (written, Some(Sorting::Quarantine)),
        OnPkViolation::Merge => (&merge, None),
    };
    let constraint = failure.constraint.as_deref();
    let hint = constraint.zip(failure.line);
    let hint = hint.map(|(constraint, line)| Hint { constraint, line });
    if sorting != Some(Sorting::Tell) {
        let refused = hint.map_or(0, |hint| hint.line);
        // Only to be quicker; whether the session went with it, the next statement shows.
        if let Err(error) = session.take_dead_rows_away(&cargo.unit.target, refused) {
            log::debug!("{error}");
        }
    }
    let begun = session.begin().and_then(|()| session.ease_sorting());
    let again = begun.map_err(NotLoaded::SessionLost).and_then(|()| {
        let again = sorting.map(|sorting| Again { sorting, constraint, hint });
        let done = way::load(session, ground, cargo, rule, again)?;
        if let Done::Copied(counts) = done {
            session.settle().map_err(fatal_or_failed)?;
            session.confirm(&cargo.unit.key, counts.loaded).map_err(NotLoaded::SessionLost)?;
        }
        Ok(done)
    });
    match again {
        Ok(Done::Copied(counts)) => match session.commit() {
            Ok(()) => {
                let (rows, rejected) = (counts.loaded, counts.rejected);
                let how = How::Now;
                (Mended::Loaded(Loaded { rows, rejected, how, took: begin.elapsed() }), true)
            }
            Err(CommitError::Aborted(error)) => (told(failure, &error), false),
            Err(CommitError::Unknown(error)) => (Mended::Unknown(error), false),
        },
        // Somebody else's transaction brought the unit in meanwhile: the load log is asked.
        Ok(Done::AlreadyThere) => {
            let lost = TargetError::Lost {
                doing: "load a unit again".into(),
                why: "another loader has it in the load log".into(),
            };
            (Mended::Unknown(lost), session.rollback().is_ok())
        }
        Err(NotLoaded::Failed(more)) => {
            let usable = session.rollback().is_ok();
            // Told with the collisions, it is the first failure; refused otherwise, the next obstacle.
            let more = limits_named(*more, written, begin.elapsed());
            *failure =
                if more.told { UnitFailure { constraint: failure.constraint.clone(), ..more } } else { more };
            (Mended::Failed, usable)
        }
        Err(NotLoaded::SessionLost(error)) => (told(failure, &error), false),
    }
}

fn told(failure: &mut UnitFailure, error: &TargetError) -> Mended {
    log::warn!("colliding keys could not be looked up: {error}");
    failure.error = format!("{} (which keys collide could not be looked up: {error})", failure.error);
    Mended::Failed
}

/// Sorts the staged rows by how they collide with the table's unique constraints, and does what is said. Returns how
/// many were left out since they are in the target as they are.
pub(super) fn sort_out(
    session: &mut Session,
    road: &Road<'_>,
    again: Again<'_>,
    rejected: &mut Rejected<'_>,
) -> Result<u64, NotLoaded> {
    let Road { ground, cargo, shape, way, .. } = *road;
    let sorting = again.sorting;
    let keys = if ground.show_keys { KEYS_SHOWN } else { 0 };
    let (mut left, mut found) = (0, Vec::new());
    let mut edge = 0;
    for unique in &shape.uniques {
        let Some(clash) = Clash::new(way, unique) else { continue };
        let collisions = session.sort_out(&clash, &unique.name, keys).map_err(fatal_or_failed)?;
        let blocked = match sorting {
            Sorting::Tell => collisions.rows() > 0,
            Sorting::SkipIdentical => collisions.twice_in_file + collisions.different > 0,
            Sorting::Quarantine => false,
        };
        if blocked {
            edge = on_edge(session, ground, cargo, shape, &clash)?;
        }
        if sorting == Sorting::Quarantine {
            for kind in Kind::ALL.into_iter().filter(|kind| collisions.of(*kind) > 0) {
                keep_out(session, &clash, kind, collisions.of(kind), rejected)?;
            }
        }
        left += if sorting == Sorting::SkipIdentical { collisions.identical } else { 0 };
        if !blocked && collisions.rows() == 0 {
            session.touch(clash.forget(), "leave colliding rows out").map_err(fatal_or_failed)?;
        } else if !blocked {
            session.touch_all(&clash.leave_out(), "leave colliding rows out").map_err(fatal_or_failed)?;
        }
        if collisions.rows() > 0 {
            found.push(collisions);
        }
        if blocked {
            return Err(collide(session, cargo, &found, edge));
        }
    }
    let unsorted = again.constraint.filter(|name| !road.sorts_by(name));
    match (sorting, found.as_slice()) {
        (Sorting::Tell, []) if unsorted.is_some() => Err(failed(UnitFailure {
            told: true,
            ..UnitFailure::new(
                Stage::Load,
                format!(
                    "the unique index \"{}\" refused the rows (SQLSTATE 23505; rolled back)",
                    unsorted.unwrap_or_default()
                ),
                unsorted.map(cannot_sort).unwrap_or_default(),
            )
        })),
        (Sorting::Tell, []) => Err(failed(UnitFailure {
            told: true,
            ..UnitFailure::new(
                Stage::Load,
                "a unique constraint refused the rows, and a moment later none of them collides any more",
                "run again; look for a program that writes into the table at the same time",
            )
        })),
        (Sorting::Tell | Sorting::SkipIdentical | Sorting::Quarantine, _) => Ok(left),
    }
}

/// Writes the rows of a kind to the rejects.
fn keep_out(
    session: &mut Session,
    clash: &Clash<'_>,
    kind: Kind,
    rows: u64,
    rejected: &mut Rejected<'_>,
) -> Result<(), NotLoaded> {
    let before = rejected.rows();
    let mut cutter = Cutter::default();
    let mut keep = |rows: Rows| -> Result<(), NotLoaded> {
        let starts = std::iter::once(0).chain(rows.ends.iter().copied());
        for (from, &to) in starts.zip(&rows.ends) {
            rejected.keep(None, kind.reason(), &rows.bytes[from..to])?;
        }
        Ok(())
    };
    session.read_out(clash, kind, |piece| {
        cutter.feed(piece);
        keep(cutter.take())
    })?;
    let broken =
        |what: String| failed(UnitFailure::new(Stage::Load, what, "run again, and report it as a bug"));
    keep(cutter.finish().map_err(|error| broken(error.to_string()))?)?;
    let kept = rejected.rows() - before;
    if kept == rows {
        return Ok(());
    }
    Err(broken(format!("{rows} rows collide, and {kept} were written to the rejects; rolled back")))
}

/// How many of the colliding rows stand on the first instant of the unit's window.
fn on_edge(
    session: &mut Session,
    ground: Ground<'_>,
    cargo: &Cargo<'_>,
    shape: &Shape,
    clash: &Clash<'_>,
) -> Result<u64, NotLoaded> {
    let unit = cargo.unit;
    let condition = rows::on_first_bound(unit, &as_source(shape), &unit.target, ground.zone);
    match condition {
        Some(condition) => {
            session.count(&clash.count_at(&condition), "sort colliding keys").map_err(fatal_or_failed)
        }
        None => Ok(0),
    }
}

/// The failure of a unit whose keys collide, with counts and the likely cause.
fn collide(session: &mut Session, cargo: &Cargo<'_>, found: &[Collisions], edge: u64) -> NotLoaded {
    let parts: Vec<String> = found.iter().map(|one| told_by(one, cargo.exported.rows)).collect();
    let others = match session.others_of(cargo.unit) {
        Ok(others) => others,
        Err(error) => return fatal_or_failed(error),
    };
    let (cause, remedy) = cause(cargo, found, edge, others.as_ref().map(|(key, more)| (key.as_str(), *more)));
    let keys = found.iter().flat_map(|one| one.keys.clone()).collect();
    failed(UnitFailure {
        told: true,
        keys,
        ..UnitFailure::new(
            Stage::Load,
            format!("{} (SQLSTATE 23505; rolled back). Likely cause: {cause}", parts.join("; ")),
            remedy,
        )
    })
}

/// `3 of 500 rows collide with "t_pkey": 1 stands …`.
fn told_by(one: &Collisions, rows: u64) -> String {
    let count = |n: u64, one: &str, more: &str| match n {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {more}")),
    };
    let kinds = [
        count(one.twice_in_file, "whose key stands twice in the file", "whose keys stand twice in the file"),
        count(one.identical, "which is in the target as it is", "which are in the target as they are"),
        count(
            one.different,
            "whose key another row in the target has",
            "whose keys other rows in the target have",
        ),
    ];
    let kinds: Vec<String> = kinds.into_iter().flatten().collect();
    let by_text = if one.by_text.is_empty() || one.identical + one.different == 0 {
        String::new()
    } else {
        format!(" (compared by their text, having no equality: {})", one.by_text.join(", "))
    };
    let collide = if one.rows() == 1 { "collides" } else { "collide" };
    format!(
        "{} of {rows} rows {collide} with the unique constraint \"{}\": {}{by_text}",
        one.rows(),
        one.constraint,
        kinds.join(", ")
    )
}

/// The likely cause, and what to try.
fn cause(cargo: &Cargo<'_>, found: &[Collisions], edge: u64, other: Option<(&str, u64)>) -> (String, String) {
    const OR: &str = "or let `on_pk_violation` decide (skip_identical, quarantine, merge); `--show-keys` shows the first keys";
    let there: u64 = found.iter().map(|one| one.identical + one.different).sum();
    let all: u64 = found.iter().map(Collisions::rows).sum();
    if there == 0 {
        return (
            "the source has no such key, and the rows stand there twice".into(),
            format!("mend the source's rows, {OR}"),
        );
    }
    if edge == all {
        let start = cargo.unit.extent;
        return (
            format!(
                "each of them stands on the first instant of the window ({start}): whoever loaded the window before \
                 it closed it at both ends"
            ),
            format!("delete these rows in the target, {OR}"),
        );
    }
    if let Some((key, more)) = other {
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return (
            format!("the load log holds {key}{more}, which brought rows of the same table and time"),
            format!("take one of the two entries out of the inventory, or tell them apart by `where`, {OR}"),
        );
    }
    (
        "another program writes into the table, or loaded it before: the load log knows of nothing that brought them"
            .into(),
        format!("look for the other writer, delete its rows, {OR}"),
    )
}
