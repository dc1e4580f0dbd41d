//! `prune`, and the same at the end of a run.

use anyhow::Context;
use jiff::Timestamp;

use super::{ledger_path, print, print_json};
use crate::cli::{Common, Format, Prune};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inventory::{Inventory, Keep};
use crate::ledger::lock::JobLock;
use crate::ledger::{Ledger, LedgerError};
use crate::plan::{Selection, selects};
use crate::prune::{Ground, is_due};
use crate::report::prune::{json, line, text};
use crate::stop::Stop;
use crate::target::Address;

/// Removes what is old, and shows what that was. It holds the jobs meanwhile; what belongs to a job that another
/// process holds stays.
///
/// # Errors
/// [`Failure`], after everything else was done: the first thing that could not be looked at.
pub(super) fn prune(common: &Common, asked: &Prune) -> Result<Exit, Failure> {
    let stop = Stop::on_signals().context("listening for signals")?;
    let inventory = super::jobs::inventory(common, &stop)?;
    if inventory.keep == Keep::default() {
        let what = format!("{} keeps everything: it has no `keep`", inventory.path.display());
        let remedy = "write one, as in keep: { files: 7d, rejects: 90d, history: 400d }".into();
        return Err(Failure::Usage { what, remedy });
    }
    let target = Address::new(&inventory.target.url, |name| std::env::var(name).ok())?;
    let path = ledger_path(common);
    let mut ledger = path.exists().then(|| Ledger::open(&path)).transpose()?;
    let now = Timestamp::now();
    let (mut locks, mut busy) = (Vec::new(), Vec::new());
    if !asked.dry_run {
        for job in &inventory.jobs {
            match JobLock::take(&path, &job.name, now) {
                Ok(lock) => locks.push(lock),
                Err(error @ LedgerError::JobHeld { .. }) => {
                    log::warn!("{error}: what is its stays");
                    busy.push(job.name.clone());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    let ground = Ground {
        inventory: &inventory,
        target: &target,
        now,
        busy: &busy,
        stop: &stop,
        only_look: asked.dry_run,
        name_files: common.verbose > 0,
    };
    let pruned = crate::prune::prune(ground, ledger.as_mut());
    match common.format {
        Format::Text => print(&text(&pruned, asked.dry_run))?,
        Format::Json => print_json(&json(&pruned, asked.dry_run))?,
    }
    match pruned.problems.into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(stop.exit().unwrap_or(Exit::Done)),
    }
}

/// The same after a run, for the jobs that it holds, now and then. Whatever fails is said and no failure of the run.
pub(super) fn after_run(
    inventory: &Inventory,
    selection: &Selection,
    target: &Address,
    ledger: &mut Ledger,
    stop: &Stop,
) {
    let now = Timestamp::now();
    match is_due(ledger, inventory.keep, now) {
        Ok(true) if !stop.asked() => {}
        Ok(_) => return,
        Err(error) => return log::warn!("what is old is not removed: {error}"),
    }
    let others = inventory.jobs.iter().filter(|job| !selects(selection, job));
    let busy: Vec<String> = others.map(|job| job.name.clone()).collect();
    let ground = Ground { inventory, target, now, busy: &busy, stop, only_look: false, name_files: false };
    let pruned = crate::prune::prune(ground, Some(ledger));
    if !pruned.is_nothing() {
        log::info!("older than `keep` says, {}", line(&pruned));
    }
    for problem in &pruned.problems {
        let remedy = problem.remedy().map(|remedy| format!(" (try: {remedy})")).unwrap_or_default();
        log::warn!("what is old is not all removed: {problem}{remedy}");
    }
}
