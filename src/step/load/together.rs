//! A group of small units as one: claimed by one statement, asked for overlaps by one, confirmed by one. What is left
//! for each is its COPY.
//!
//! Whatever goes wrong with one of them, and whatever has to be waited for, takes the whole group back: then each
//! goes its own way, under its savepoint and its own limits.

use std::time::{Duration, Instant};

use super::{Cargo, Ground, How, Inside, Loaded, NotLoaded, entry, fatal_or_failed, fill, overlap};
use crate::inventory::LoadMode;
use crate::sql;
use crate::target::{Claim, Counts, Limits, Session, TargetError};

/// How long a statement of a group may take, and wait for a lock: small files need far less. A unit that has to wait
/// does so by itself, not with all the others behind it.
const HURRY: Limits = Limits { statement: Duration::from_secs(30), lock: Duration::from_secs(2) };

/// Loads the group and leaves the transaction open; `None` where it could not, or cannot, be loaded as one: then
/// nothing of it is done, and no transaction is open.
///
/// # Errors
/// Where the session is of no more use.
pub(super) fn load(
    session: &mut Session,
    ground: Ground<'_>,
    cargo: &[Cargo<'_>],
) -> Result<Option<Vec<Inside>>, TargetError> {
    if cargo.len() < 2 || !cargo.iter().all(|one| one.unit.entry.load.is_plain()) {
        return Ok(None);
    }
    session.begin_within(limits(cargo))?;
    match all(session, ground, cargo) {
        Ok(Some(inside)) => return Ok(Some(inside)),
        Ok(None) => log::debug!(
            "a group of {} units has some that are there already, or that need a closer look",
            cargo.len()
        ),
        Err(NotLoaded::Failed(failure)) => {
            log::debug!("a group of {} units is loaded one by one: {}", cargo.len(), failure.error);
        }
        Err(NotLoaded::SessionLost(error)) => return Err(error),
    }
    session.rollback()?;
    Ok(None)
}

/// The shortest of the units' own limits, and no more than a group may take.
fn limits(cargo: &[Cargo<'_>]) -> Limits {
    let rules = || cargo.iter().map(|one| &one.unit.entry.load);
    let least = |own: Option<Duration>, most: Duration| own.map_or(most, |own| own.min(most));
    Limits {
        statement: least(rules().map(|rule| rule.timeout).min(), HURRY.statement),
        lock: least(rules().map(|rule| rule.lock_timeout).min(), HURRY.lock),
    }
}

/// `None` where one of them, or what may hold its rows, is in the target already.
fn all(
    session: &mut Session,
    ground: Ground<'_>,
    cargo: &[Cargo<'_>],
) -> Result<Option<Vec<Inside>>, NotLoaded> {
    // In one order everywhere: two loaders that claim the same units wait for each other in a line, not in a ring.
    let mut sorted: Vec<&Cargo<'_>> = cargo.iter().collect();
    sorted.sort_unstable_by_key(|one| &one.unit.key);
    let claims = sorted.iter().map(|one| {
        let counts = Counts::all(one.exported.rows);
        (&one.unit.key, entry(ground.run, one, LoadMode::Insert, counts))
    });
    match session.claim_all(claims).map_err(fatal_or_failed)? {
        Claim::AlreadyThere => return Ok(None),
        Claim::Ours => {}
    }
    for n in session.may_overlap(cargo.iter().map(|one| one.unit)).map_err(fatal_or_failed)? {
        if let Some(one) = cargo.get(n)
            && overlap(session, one).map_err(fatal_or_failed)?.is_some()
        {
            return Ok(None);
        }
    }
    if session.may_miscount(cargo.iter().map(|one| &one.unit.target)).map_err(fatal_or_failed)? {
        return Ok(None);
    }
    let mut inside = Vec::with_capacity(cargo.len());
    for one in cargo {
        let begin = Instant::now();
        let rows = fill::whole(session, ground, one, &sql::table(&one.unit.target))?;
        inside.push(Inside::Copied(Loaded { rows, rejected: 0, how: How::Now, took: begin.elapsed() }));
    }
    session.settle().map_err(fatal_or_failed)?;
    let loaded: Vec<_> = cargo.iter().map(|one| (&one.unit.key, one.exported.rows)).collect();
    session.confirm_all(&loaded).map_err(NotLoaded::SessionLost)?;
    Ok(Some(inside))
}
