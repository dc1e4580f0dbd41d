//! At the start of a run: what dead runs of the same ledger left on the mount is removed, and only that.

use std::collections::BTreeSet;

use jiff::civil::Date;

use crate::failure::Failure;
use crate::inventory::Inventory;
use crate::ledger::{Ledger, Run};
use crate::mount::Mount;
use crate::plan::Plan;

/// Removes half-written files and staging directories of runs that are over. What cannot be removed is said and
/// tried again by the next run; it does no harm but for its room, since every attempt has names of its own. The
/// mount is looked at only where something may be left.
///
/// # Errors
/// [`Failure::Ledger`].
pub fn sweep(inventory: &Inventory, plan: &Plan, run: &Run, ledger: &Ledger) -> Result<(), Failure> {
    let dead = ledger.dead_runs(run, &inventory.timezone)?;
    let (dead, clean): (Vec<_>, Vec<_>) =
        dead.into_iter().partition(|run| run.crashed || !run.days.is_empty());
    for run in clean {
        ledger.note_swept(&run.id)?;
    }
    if dead.is_empty() {
        return Ok(());
    }
    let mount = match Mount::open(&inventory.mount) {
        Ok(mount) => mount,
        Err(error) => {
            log::warn!("{error}; what runs that died left there stays until the next run");
            return Ok(());
        }
    };
    let mut days: BTreeSet<(String, Date)> = BTreeSet::new();
    for run in &dead {
        days.extend(run.days.iter().cloned());
        if run.crashed {
            // What it began last is not on record: most likely what is due again now.
            days.extend(plan.units.iter().map(|unit| {
                let day = unit.extent.window().map_or(run.day, |window| window.start().date());
                (unit.key.source.to_string(), day)
            }));
        }
    }
    let ids: Vec<String> = dead.into_iter().map(|run| run.id).collect();
    let swept = mount.sweep(&ids, &days);
    if !swept.removed.is_empty() {
        log::info!("removed {} half-written files of runs that died", swept.removed.len());
    }
    for (path, error) in &swept.refused {
        let path = mount.path(path);
        log::warn!("cannot remove what a run that died left in {}: {error}", path.display());
    }
    if swept.refused.is_empty() {
        for id in &ids {
            ledger.note_swept(id)?;
        }
    }
    Ok(())
}
