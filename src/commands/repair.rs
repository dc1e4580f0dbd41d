//! `repair`: moves again exactly the windows that differ.
//!
//! The ledger says which windows were found to differ. They are compared again first, so what has come right by itself
//! is not moved; then they are moved, each in one transaction, through the engine that moves everything; and compared
//! once more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, BufRead, IsTerminal, Write as _};

use anyhow::Context;
use jiff::Timestamp;

use super::compare::{names, note, suspects};
use super::run::{STOP_LIMIT, lock_jobs, refuse, run_id};
use super::{check_tables, facts, ledger_path, pool, print, print_json, selection, width};
use crate::cli::{Common, Format, Repair};
use crate::engine::compare::{Ground as Looking, compare};
use crate::engine::talks::Talks;
use crate::engine::{Ground, Halves, Outcome, ask as ask_both, execute, remains};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inventory::Inventory;
use crate::ledger::{Ledger, Run};
use crate::mount::Mount;
use crate::plan::{Comparison, Plan, Selection, Windows, compared};
use crate::progress::{Comparing, Progress, Screen};
use crate::report::count;
use crate::report::repair::{Fate, Mended, json, text};
use crate::step::UnitFailure;
use crate::step::compare::{Difference, Told, Unread};
use crate::step::load::{Anew, Proof};
use crate::stop::Stop;
use crate::target::Address;
use crate::unit::Extent;

mod way;

use way::{Differing, Way, again, way};

/// Everything that a repair stands on.
struct World<'a> {
    inventory: &'a Inventory,
    selection: &'a Selection,
    target: &'a Address,
    pool: &'a Talks,
    stop: &'a Stop,
    screen: &'a Screen,
    /// No progress is shown.
    silent: bool,
}

/// Moves again what differs.
///
/// # Errors
/// [`Failure`] where that could not be done at all.
pub(super) fn repair(common: &Common, wanted: &Repair, screen: &Screen) -> Result<Exit, Failure> {
    let stop = Stop::on_signals().context("listening for signals")?;
    stop.end_within(STOP_LIMIT).context("watching over a stop")?;
    let inventory = super::jobs::inventory(common, &stop)?;
    let selection = selection(&inventory, &wanted.between.select())?;
    let target = Address::new(&inventory.target.url, |name| std::env::var(name).ok())?;
    let now = Timestamp::now();
    let path = ledger_path(common);
    let mut ledger = Ledger::open(&path)?;
    let locks = lock_jobs(&inventory, &selection, &path, now)?;
    let facts = facts::of_run(&mut ledger, &inventory, &target, now)?;
    let pool = pool(common);
    let (catalog, unlisted) = super::catalog(&inventory, &selection, &pool, &stop);
    check_tables(&inventory, &selection, &catalog)?;
    for (name, error) in &unlisted {
        log::error!("source {name}: {error} (try: {})", error.remedy());
    }
    let mut comparison = compared(&inventory, &selection, &catalog, &facts, now);
    drop(facts);
    only_open(&mut comparison, &ledger, &target)?;
    let world = World {
        inventory: &inventory,
        selection: &selection,
        target: &target,
        pool: &pool,
        stop: &stop,
        screen,
        silent: common.no_progress,
    };
    let first = look(&world, &comparison, &mut ledger, true)?;
    let healed = comparison.tables.iter().map(|table| table.extents().len()).sum::<usize>()
        - first.differing.len()
        - first.unread.iter().map(|(table, _)| comparison.tables[*table].extents().len()).sum::<usize>();
    let ways: Vec<(Differing, Way)> = first
        .differing
        .into_iter()
        .map(|one| {
            let mixed = comparison.tables[one.table].entry.compare.filter.is_some();
            let way = way(&one, wanted.delete_extra, mixed);
            (one, way)
        })
        .collect();
    let unread = first.unread;
    let moving = ways.iter().filter(|(_, way)| !matches!(way, Way::Leave(_))).count();
    if let Some(exit) = stop.exit() {
        return Ok(exit);
    }
    if !wanted.dry_run && moving > 0 {
        ask(moving, wanted)?;
        if !wanted.no_preflight {
            refuse(&inventory, true)?;
        }
    }
    let (run, fates) = if wanted.dry_run || moving == 0 {
        (None, HashMap::new())
    } else {
        let (run, fates) = mend(&world, common, screen, &comparison, &ways, &mut ledger)?;
        (Some(run), fates)
    };
    let mended: Vec<Mended<'_>> = told(&comparison, ways, fates, wanted.dry_run, &unread);
    let exit = stop.exit().unwrap_or_else(|| exit(&mended, unread.len() + unlisted.len(), wanted.dry_run));
    if let Some(run) = &run {
        ledger.end_run(run, exit.code(), Timestamp::now())?;
    }
    for (_, unread) in &unread {
        log::error!("{} (try: {})", unread.error, unread.remedy);
    }
    match common.format {
        Format::Text => print(&text(&mended, healed, width()))?,
        Format::Json => print_json(&json(run.as_deref(), &mended, healed, exit.code()))?,
    }
    drop(locks);
    super::alarm::after_run(&inventory, &target, &ledger, &stop);
    Ok(exit)
}

/// Leaves only the windows whose difference is open.
fn only_open(comparison: &mut Comparison, ledger: &Ledger, target: &Address) -> Result<(), Failure> {
    let open = suspects(comparison, &ledger.open_differences(target.shown())?);
    let mut open = open.into_iter();
    comparison.tables.retain_mut(|table| {
        let open = open.next().unwrap_or_default();
        let extents = if open.is_empty() { Vec::new() } else { table.extents() };
        table.windows = Windows::Listed(open.iter().map(|&n| extents[n]).collect());
        !open.is_empty()
    });
    Ok(())
}

/// What a look at all windows found.
#[derive(Default)]
struct Found {
    differing: Vec<Differing>,
    unread: Vec<(usize, Unread)>,
    /// Tables that were looked at; after a stop not all of them are.
    looked_at: BTreeSet<usize>,
}

/// Compares by digests, and writes down what was found.
fn look(
    world: &World<'_>,
    comparison: &Comparison,
    ledger: &mut Ledger,
    proofs: bool,
) -> Result<Found, Failure> {
    let progress = Comparing::new(world.screen, names(comparison), world.silent);
    let ground = Looking {
        inventory: world.inventory,
        comparison,
        target: world.target,
        pool: world.pool,
        stop: world.stop,
        deep: true,
        suspects: &[],
        keys: 0,
        values: false,
        proofs,
        watch: &progress.watch,
    };
    let mut found = Found::default();
    let done = compare(ground, &mut |outcome| {
        let table = outcome.table;
        found.looked_at.insert(table);
        let shown = note(ledger, comparison, world.target.shown(), true, outcome)?;
        match shown.told {
            Err(unread) => found.unread.push((table, unread)),
            Ok(told) => found.differing.extend(differing(table, told)),
        }
        Ok(())
    });
    progress.finish();
    done?;
    found.differing.sort_by_key(|one| (one.table, one.extent));
    Ok(found)
}

fn differing(table: usize, told: Told) -> Vec<Differing> {
    let Told { windows, key_columns, keyed, proofs, .. } = told;
    let mut proofs: HashMap<usize, Proof> = proofs.into_iter().collect();
    let key = keyed.then_some(key_columns);
    let windows = windows.into_iter().enumerate();
    windows
        .map(|(n, window)| Differing {
            table,
            extent: window.extent,
            difference: window.difference,
            key: key.clone(),
            proof: proofs.remove(&n),
        })
        .collect()
}

/// Asks before many windows are moved.
fn ask(moving: usize, wanted: &Repair) -> Result<(), Failure> {
    if moving <= wanted.max_windows || wanted.yes {
        return Ok(());
    }
    let windows = count(moving as u64, "window");
    let no = |what: String| {
        let remedy = "look at them with --dry-run; then raise --max-windows, narrow it with --table, --from and --until, \
                      or say --yes";
        Err(Failure::Usage { what, remedy: remedy.into() })
    };
    if !io::stdin().is_terminal() {
        return no(format!("{windows} would be moved again, and --max-windows is {}", wanted.max_windows));
    }
    let mut stderr = io::stderr().lock();
    let asked = write!(stderr, "{windows} would be moved again. Go on? [y/N] ").and_then(|()| stderr.flush());
    asked.context("asking on the terminal")?;
    drop(stderr);
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => no(format!("{windows} were not moved again: the answer was not yes")),
    }
}

/// What became of the windows that were moved: by table and window.
type Fates = HashMap<(usize, Extent), Fate>;

/// Moves windows again, and compares them.
fn mend(
    world: &World<'_>,
    common: &Common,
    screen: &Screen,
    comparison: &Comparison,
    ways: &[(Differing, Way)],
    ledger: &mut Ledger,
) -> Result<(String, Fates), Failure> {
    let started_at = Timestamp::now();
    let run = Run {
        id: run_id(started_at),
        command: "repair".into(),
        inventory: world.inventory.path.display().to_string(),
        target_url: world.target.shown().to_owned(),
        started_at,
    };
    let mut anew = Anew { run: run.id.clone(), proofs: HashMap::new() };
    let mut places = Vec::new();
    let mut plan = Plan::default();
    for (differing, way) in ways {
        let unit = comparison.tables[differing.table].unit(differing.extent);
        let Some(unit) = again(unit, differing, way) else { continue };
        if let (Way::Replace, Some(proof)) = (way, &differing.proof) {
            anew.proofs.insert(unit.key.id.clone(), proof.clone());
        }
        places.push((differing.table, differing.extent));
        plan.units.push(unit);
    }
    let _alive = ledger.hold_run(&run)?;
    ledger.begin_run(&run)?;
    let fates = move_again(world, common, screen, &plan, &run, &anew, ledger)
        .and_then(|outcome| again_compared(world, comparison, &places, &outcome, ledger));
    match fates {
        Ok(fates) => Ok((run.id.clone(), fates)),
        Err(error) => {
            ledger.end_run(&run.id, error.exit().code(), Timestamp::now())?;
            Err(error)
        }
    }
}

fn move_again(
    world: &World<'_>,
    common: &Common,
    screen: &Screen,
    plan: &Plan,
    run: &Run,
    anew: &Anew,
    ledger: &mut Ledger,
) -> Result<Outcome, Failure> {
    remains::sweep(world.inventory, plan, run, ledger)?;
    let mount = Mount::open(&world.inventory.mount)?;
    let ground = Ground {
        inventory: world.inventory,
        plan,
        run,
        mount: &mount,
        target: world.target,
        pool: world.pool,
        stop: world.stop,
        halves: Halves::Both,
        create_tables: false,
        show_keys: false,
        selection: world.selection,
        anew: Some(anew),
    };
    let (answers, sliced) = ask_both(ground, ledger)?;
    // What is noted of units that are not cut.
    let ground = Ground { plan: sliced.as_ref().unwrap_or(plan), ..ground };
    let mut progress = Progress::new(screen, ground.plan, Halves::Both, common.no_progress);
    let outcome = execute(ground, answers, ledger, &mut |event| progress.hear(event));
    progress.finish();
    outcome
}

/// Compares what was moved, and says what became of each window.
fn again_compared(
    world: &World<'_>,
    comparison: &Comparison,
    places: &[(usize, Extent)],
    outcome: &Outcome,
    ledger: &mut Ledger,
) -> Result<Fates, Failure> {
    let mut fates = Fates::new();
    let mut moved: BTreeMap<usize, BTreeSet<Extent>> = BTreeMap::new();
    for (place, fate) in places.iter().zip(&outcome.fates) {
        match fate {
            Some(fate) if fate.how.is_some() => {
                moved.entry(place.0).or_default().insert(place.1);
                let rows = fate.record.rows_loaded.unwrap_or(0);
                fates.insert(*place, Fate::Agrees { rows });
            }
            Some(fate) => {
                let failure = fate.failure.clone();
                let left = || Fate::Left("it was begun, and stopped".into());
                fates.insert(*place, failure.map_or_else(left, Fate::Failed));
            }
            None => {
                let why = "it was not begun: a stop was asked for, or the job's `hours` are over";
                fates.insert(*place, Fate::Left(why.into()));
            }
        }
    }
    let mut second = Comparison::default();
    let mut tables = Vec::new();
    for (table, extents) in moved {
        let mut one = comparison.tables[table].clone();
        one.windows = Windows::Listed(extents.into_iter().collect());
        second.tables.push(one);
        tables.push(table);
    }
    let found = look(world, &second, ledger, false)?;
    for one in found.differing {
        fates.insert((tables[one.table], one.extent), Fate::Differs(one.difference));
    }
    for (n, table) in tables.iter().enumerate().filter(|(n, _)| !found.looked_at.contains(n)) {
        for extent in second.tables[n].extents() {
            fates.insert((*table, extent), Fate::Unknown("stopped before it was compared again".into()));
        }
    }
    for (table, unread) in found.unread {
        for extent in second.tables[table].extents() {
            fates.insert((tables[table], extent), Fate::Unknown(unread.error.clone()));
        }
    }
    Ok(fates)
}

/// Every window with what became of it.
fn told<'a>(
    comparison: &'a Comparison,
    ways: Vec<(Differing, Way)>,
    mut fates: Fates,
    dry_run: bool,
    unread: &[(usize, Unread)],
) -> Vec<Mended<'a>> {
    let mut mended: Vec<Mended<'a>> = ways
        .into_iter()
        .map(|(one, way)| {
            let fate = match (way, dry_run) {
                (Way::Leave(why), _) => Fate::Left(why.into()),
                (Way::Replace | Way::ReplaceAll, true) => Fate::Would("replace"),
                (Way::Merge, true) => Fate::Would("merge"),
                (Way::Replace | Way::ReplaceAll | Way::Merge, false) => fates
                    .remove(&(one.table, one.extent))
                    .unwrap_or_else(|| Fate::Left("it was not begun".into())),
            };
            let (compared, extent) = (&comparison.tables[one.table], one.extent);
            Mended { compared, extent, difference: one.difference, fate }
        })
        .collect();
    for (table, unread) in unread {
        let compared = &comparison.tables[*table];
        mended.extend(compared.extents().into_iter().map(|extent| {
            let failure = UnitFailure::new(crate::step::Stage::Check, &unread.error, unread.remedy.clone());
            let fate = Fate::Failed(Box::new(failure));
            Mended { compared, extent, difference: Difference::NONE, fate }
        }));
    }
    mended
}

fn exit(mended: &[Mended<'_>], unread: usize, dry_run: bool) -> Exit {
    let is_failed = |one: &Mended<'_>| matches!(one.fate, Fate::Failed(_) | Fate::Unknown(_));
    let differs = |one: &Mended<'_>| matches!(one.fate, Fate::Differs(_) | Fate::Left(_));
    if unread > 0 || mended.iter().any(is_failed) {
        Exit::UnitsFailed
    } else if !dry_run && mended.iter().any(differs) {
        Exit::Differ
    } else {
        Exit::Done
    }
}
