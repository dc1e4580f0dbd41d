//! What is known before anything is planned: from the ledger, and from the target's load log where the ledger never
//! saw it.

use std::path::Path;

use jiff::Timestamp;

use crate::failure::Failure;
use crate::inventory::Inventory;
use crate::ledger::{Ledger, Logged};
use crate::plan::Facts;
use crate::report::count;
use crate::stop::Stop;
use crate::target::{Address, LogRow, Session};

/// What a ledger knows, caught up from the load log of a target that it never saw: a ledger that was deleted, or one
/// that served another target so far.
///
/// # Errors
/// [`Failure`]: the ledger, or the target where it has to be asked.
pub(super) fn of_run(
    ledger: &mut Ledger,
    inventory: &Inventory,
    target: &Address,
    now: Timestamp,
) -> Result<Facts, Failure> {
    if !ledger.has_caught_up(target.shown())? {
        let taken = catch_up(ledger, inventory, target, now)?;
        if taken > 0 {
            let are = if taken == 1 { "is" } else { "are" };
            let units = count(taken, "unit");
            log::info!("{units} that the ledger did not know {are} taken over from the load log");
        }
    }
    Ok(ledger.facts(target.shown())?)
}

/// Reads the load log of a target into a ledger, whole; how many units it holds.
///
/// # Errors
/// [`Failure`]: the target, or the ledger.
pub(super) fn catch_up(
    ledger: &mut Ledger,
    inventory: &Inventory,
    target: &Address,
    now: Timestamp,
) -> Result<u64, Failure> {
    let open = || Session::open(target, &inventory.target.log_schema);
    let mut session = crate::engine::asked_again(&Stop::default(), open)?;
    let taken = ledger.catch_up(target.shown(), now, |take| {
        session.read_load_log(|row| take(logged(row))).map(drop).map_err(Failure::from)
    })?;
    ledger.owe(target.shown(), &session.owed_keys()?)?;
    Ok(taken)
}

/// As [`of_run`], and nothing is written: what is missing is read for this once.
///
/// # Errors
/// [`Failure::Ledger`]. A target that cannot be asked is only said.
pub(super) fn of_plan(
    path: &Path,
    inventory: &Inventory,
    target: &Address,
    now: Timestamp,
) -> Result<Facts, Failure> {
    let ledger = if path.exists() { Some(Ledger::open(path)?) } else { None };
    let mut facts =
        ledger.as_ref().map(|ledger| ledger.facts(target.shown())).transpose()?.unwrap_or_default();
    if ledger.map(|ledger| ledger.has_caught_up(target.shown())).transpose()? == Some(true) {
        return Ok(facts);
    }
    let mut scratch = Ledger::scratch()?;
    match catch_up(&mut scratch, inventory, target, now) {
        Ok(_) => {}
        Err(error) => {
            log::warn!(
                "what is loaded already may be shown as due, since the load log cannot be read: {error}"
            );
            return Ok(facts);
        }
    }
    let scratch = scratch.facts(target.shown())?;
    facts.owed = scratch.owed;
    for ((source, series), logged) in scratch.series {
        let known = facts.series_mut(&source, &series);
        (known.loaded, known.unmeasured) = (logged.loaded, logged.unmeasured);
    }
    Ok(facts)
}

fn logged(row: LogRow) -> Logged {
    Logged {
        key: row.key,
        job: row.job,
        target: row.table,
        measure: row.measure,
        rows: row.rows,
        rejected: row.rejected,
        loaded_at: row.loaded_at,
        run: row.run,
    }
}
