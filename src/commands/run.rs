//! `run`, and its halves `export` and `load`.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;

use super::prune::after_run;
use super::{check_tables, facts, ledger_path, look, pool, print, print_json, selection, width};
use crate::cli::{Common, Format, Moves};
use crate::engine::remains;
use crate::engine::{Ground, Halves, Outcome, ask, execute};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inventory::Inventory;
use crate::ledger::lock::JobLock;
use crate::ledger::{Ledger, Run};
use crate::mount::Mount;
use crate::plan::{Plan, Selection, plan, selects};
use crate::progress::{Progress, Screen};
use crate::report::run::{Totals, json, text};
use crate::source::SourceError;
use crate::step::preflight::{Verdict, cheap};
use crate::stop::Stop;
use crate::target::Address;

/// From Ctrl+C to the end: loads may finish for a while, scripts clean up, and then it is over.
pub(super) const STOP_LIMIT: Duration = Duration::from_millis(9000);

/// Does what is due.
///
/// # Errors
/// [`Failure`] where that could not be done at all.
pub(super) fn run(
    common: &Common,
    moves: &Moves,
    halves: Halves,
    create_tables: bool,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let begin = Instant::now();
    let stop = Stop::on_signals().context("listening for signals")?;
    stop.end_within(STOP_LIMIT).context("watching over a stop")?;
    let inventory = super::jobs::inventory(common, &stop)?;
    let selection = selection(&inventory, &moves.select)?;
    let target = Address::new(&inventory.target.url, |name| std::env::var(name).ok())?;
    let started_at = Timestamp::now();
    let path = ledger_path(common);
    // The ledger first: what is no ledger gets no lock files beside it.
    let mut ledger = Ledger::open(&path)?;
    let locks = lock_jobs(&inventory, &selection, &path, started_at)?;
    let pool = pool(common);
    if !ledger.has_caught_up(target.shown())? && !moves.no_preflight {
        // Before the target is asked for what it holds: what costs nothing is said first.
        refuse(&inventory, halves != Halves::Load)?;
    }
    let mut facts = facts::of_run(&mut ledger, &inventory, &target, started_at)?;
    let wanted =
        Selection { max_units: if halves == Halves::Load { None } else { selection.max_units }, ..selection };
    let looked = look(&inventory, &wanted, &mut facts, &pool, &stop, started_at);
    for one in &looked.ids {
        if let Some(seen) = facts.ids.get(&one.column).and_then(|seen| seen.last()) {
            ledger.note_ids(&one.column, *seen, one.lag)?;
        }
    }
    let unlisted = looked.unlisted;
    let mut plan = plan(&inventory, &wanted, &looked.catalog, &facts, started_at);
    check_tables(&inventory, &wanted, &looked.catalog)?;
    drop((facts, looked.catalog));
    if halves == Halves::Load {
        plan.units.retain(|unit| unit.waits);
        plan.units.truncate(moves.select.max_units.unwrap_or(usize::MAX));
    }
    for (name, error) in &unlisted {
        log::error!("source {name}: {error} (try: {})", error.remedy());
    }
    if !moves.no_preflight && !plan.units.is_empty() {
        refuse(&inventory, halves != Halves::Load && plan.units.iter().any(|unit| !unit.waits))?;
    }
    let run = Run {
        id: run_id(started_at),
        command: word(halves).into(),
        inventory: inventory.path.display().to_string(),
        target_url: target.shown().to_owned(),
        started_at,
    };
    let _alive = ledger.hold_run(&run)?;
    ledger.begin_run(&run)?;
    ledger.begin_jobs(&run.id, whole_jobs(&inventory, &wanted))?;
    if halves != Halves::Load {
        ledger.replace(&run, started_at, &plan.replaced)?;
    }
    ledger.assume(target.shown(), &plan.assumed)?;
    let carry_out = |ledger: &mut Ledger| {
        remains::sweep(&inventory, &plan, &run, ledger)?;
        if plan.units.is_empty() && (plan.owed.is_empty() || halves == Halves::Export) {
            // Where nothing is due, nothing is touched: neither mount nor target.
            return Ok((Outcome::default(), None));
        }
        let mount = Mount::open(&inventory.mount)?;
        let ground = Ground {
            inventory: &inventory,
            plan: &plan,
            run: &run,
            mount: &mount,
            target: &target,
            pool: &pool,
            stop: &stop,
            halves,
            create_tables,
            show_keys: moves.show_keys,
            selection: &wanted,
            anew: None,
        };
        let (answers, sliced) = ask(ground, ledger)?;
        let ground = Ground { plan: sliced.as_ref().unwrap_or(&plan), ..ground };
        let mut progress = Progress::new(screen, ground.plan, halves, common.no_progress);
        let outcome = execute(ground, answers, ledger, &mut |event| progress.hear(event));
        progress.finish();
        Ok((outcome?, sliced))
    };
    let outcome = carry_out(&mut ledger);
    let exit = outcome.as_ref().map_or_else(Failure::exit, |(outcome, sliced)| {
        exit(outcome, sliced.as_ref().unwrap_or(&plan), halves, &unlisted, &stop)
    });
    ledger.end_run(&run.id, exit.code(), Timestamp::now())?;
    if matches!(exit, Exit::Done | Exit::UnitsFailed) {
        ledger.end_jobs(&run.id, Timestamp::now())?;
    }
    let shown = outcome.and_then(|(outcome, sliced)| {
        let (plan, took) = (sliced.as_ref().unwrap_or(&plan), begin.elapsed());
        match common.format {
            Format::Text => print(&text(plan, &outcome, halves, took, width())),
            Format::Json => print_json(&json(&run.id, plan, &outcome, halves, took, exit.code())),
        }
    });
    if shown.is_ok() {
        after_run(&inventory, &wanted, &target, &mut ledger, &stop);
    }
    // Whoever is told may be slow: the next run shall not wait for that.
    drop(locks);
    super::alarm::after_run(&inventory, &target, &ledger, &stop);
    shown.map(|()| exit)
}

/// The jobs that are run with everything that is due of them: what was narrowed by hand is not what somebody expects.
fn whole_jobs<'a>(inventory: &'a Inventory, wanted: &'a Selection) -> impl Iterator<Item = &'a str> {
    let whole = wanted.tables.is_empty()
        && wanted.from.is_none()
        && wanted.until.is_none()
        && wanted.max_units.is_none();
    let jobs = inventory.jobs.iter().filter(move |job| whole && selects(wanted, job));
    jobs.map(|job| job.name.as_str())
}

/// Does not start what would certainly fail: the cheap part of preflight.
pub(super) fn refuse(inventory: &Inventory, exports: bool) -> Result<(), Failure> {
    let failed = cheap::checks(&inventory.mount, exports).into_iter();
    match failed.filter(|check| check.verdict == Verdict::Fail).collect::<Vec<_>>() {
        failed if failed.is_empty() => Ok(()),
        failed => Err(Failure::Preflight(failed)),
    }
}

/// Holds every selected job, so that no second process works on one.
pub(super) fn lock_jobs(
    inventory: &Inventory,
    selection: &Selection,
    ledger: &Path,
    now: Timestamp,
) -> Result<Vec<JobLock>, Failure> {
    let jobs = inventory.jobs.iter().filter(|job| selects(selection, job));
    Ok(jobs.map(|job| JobLock::take(ledger, &job.name, now)).collect::<Result<_, _>>()?)
}

fn exit(
    outcome: &Outcome,
    plan: &Plan,
    halves: Halves,
    unlisted: &[(String, SourceError)],
    stop: &Stop,
) -> Exit {
    let totals = Totals::of(plan, outcome, halves);
    let unreachable = !unlisted.is_empty() && unlisted.iter().all(|(_, error)| error.is_unreachable());
    if let Some(exit) = stop.exit() {
        exit
    } else if outcome.no_source_reached || (plan.units.is_empty() && unreachable) {
        Exit::Unreachable
    } else if totals.failed + totals.left() + totals.refused + totals.keys_failed > 0
        || plan.leaves_something()
        || !unlisted.is_empty()
    {
        Exit::UnitsFailed
    } else {
        Exit::Done
    }
}

fn word(halves: Halves) -> &'static str {
    match halves {
        Halves::Both => "run",
        Halves::Export => "export",
        Halves::Load => "load",
    }
}

/// Start time and four random digits: sorts by time, and two runs of one second differ.
pub(super) fn run_id(now: Timestamp) -> String {
    let mut bytes = [0; 2];
    // Without random numbers the job locks still keep runs of one ledger apart.
    let _ = openssl::rand::rand_bytes(&mut bytes);
    let mut id = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let _ = write!(id, "-{:02x}{:02x}", bytes[0], bytes[1]);
    id
}
