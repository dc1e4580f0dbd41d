//! One file per subcommand.

use std::io::{self, Write};
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::Value;

use crate::cli::{Cli, Command, Common, Format, Narrow, Planned, Select};
use crate::engine::talks::Talks;
use crate::engine::{prepare, slices};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inventory::{self, Inventory, Loader};
use crate::ledger::Ledger;
use crate::plan::{self, Catalog, Facts, Plan, SeenIds, Selection, WantedIds};
use crate::progress::Screen;
use crate::remote::ssh::{Options, Pool};
use crate::source::SourceError;
use crate::step::load::inlet;
use crate::stop::Stop;
use crate::target::{Address, Session};

mod alarm;
mod compare;
mod explain;
mod facts;
mod history;
mod jobs;
mod preflight;
mod prune;
mod rebuild;
mod repair;
mod run;
mod status;
mod tables;
mod trust;

/// Does what the command line asks.
///
/// # Errors
/// [`Failure`] where that could not be done at all.
pub fn dispatch(cli: &Cli, screen: &Screen) -> Result<Exit, Failure> {
    let common = &cli.common;
    match &cli.command {
        Command::Plan(planned) => show_plan(common, planned),
        Command::Preflight(look) => preflight::preflight(common, look),
        Command::Run(run) if run.tables_only => tables::create(common, &run.moves.select),
        Command::Run(run) => {
            run::run(common, &run.moves, crate::engine::Halves::Both, run.create_tables, screen)
        }
        Command::Export(moves) => run::run(common, moves, crate::engine::Halves::Export, false, screen),
        Command::Load(moves) => run::run(common, moves, crate::engine::Halves::Load, false, screen),
        Command::Compare(wanted) => compare::compare(common, wanted, screen),
        Command::Repair(wanted) => repair::repair(common, wanted, screen),
        Command::Status(narrow) => status::status(common, narrow),
        Command::History(wanted) => history::history(common, wanted),
        Command::Prune(prune) => prune::prune(common, prune),
        Command::RebuildLedger => rebuild::rebuild(common),
        Command::Import(import) => jobs::import(common, import, screen),
        Command::Alarm { what } => alarm::alarm(common, what),
        Command::Trust(trust) => trust::trust(common, trust),
        Command::Explain { code } => explain::explain(common, *code),
    }
}

fn show_plan(common: &Common, planned: &Planned) -> Result<Exit, Failure> {
    let inventory = jobs::inventory(common, &Stop::default())?;
    let selection = selection(&inventory, &planned.select)?;
    let target = Address::new(&inventory.target.url, |name| std::env::var(name).ok())?;
    let now = Timestamp::now();
    let mut facts = facts::of_plan(&ledger_path(common), &inventory, &target, now)?;
    let looked = look(&inventory, &selection, &mut facts, &pool(common), &Stop::default(), now);
    if let Some((name, error)) = looked.unlisted.into_iter().next() {
        return Err(Failure::source(&name, error));
    }
    let plan = plan::plan(&inventory, &selection, &looked.catalog, &facts, now);
    check_tables(&inventory, &selection, &looked.catalog)?;
    let plan = if planned.slices { sliced(common, &inventory, plan)? } else { plan };
    let loading = if plan.units.is_empty() { None } else { Some(loading(&inventory, &target)) };
    match common.format {
        Format::Text => print(&crate::report::plan::text(&plan, loading.as_deref()))?,
        Format::Json => print_json(&crate::report::plan::json(&plan, loading.as_deref()))?,
    }
    Ok(Exit::Done)
}

/// By what way rows get into the target. Only what a server is decides that, where the inventory does not.
fn loading(inventory: &Inventory, target: &Address) -> String {
    let loader = inventory.target.loader;
    if loader == Loader::Copy {
        return "by COPY, since the inventory says so".into();
    }
    match Session::open(target, &inventory.target.log_schema) {
        Ok(session) => inlet::planned(inlet::Wish::of(&inventory.target), session.facts()),
        Err(error) => format!("not known, since the target is not there to say what it is: {error}"),
    }
}

/// The plan, with what is large as the slices that a run would make of it.
fn sliced(common: &Common, inventory: &Inventory, plan: Plan) -> Result<Plan, Failure> {
    let path = ledger_path(common);
    let ledger = if path.exists() { Some(Ledger::open(&path)?) } else { None };
    let (pool, stop) = (pool(common), Stop::default());
    Ok(slices::of_plan(inventory, &plan, ledger.as_ref(), &pool, &stop)?.unwrap_or(plan))
}

/// A `--table` that means no table is a slip of the keyboard, as a job or a source that is not there.
fn check_tables(inventory: &Inventory, selection: &Selection, catalog: &Catalog) -> Result<(), Failure> {
    if !plan::selects_no_table(inventory, selection, catalog) {
        return Ok(());
    }
    let globs: Vec<_> = selection.tables.iter().map(|glob| format!("`{}`", glob.glob())).collect();
    Err(Failure::Usage {
        what: format!("no table matches {}", globs.join(", ")),
        remedy: "write it as schema.table, with * for any text; `gpferry status` lists the tables".into(),
    })
}

/// What the sources were asked for the sake of a plan.
struct Looked {
    /// The tables of those that a pattern needs.
    catalog: Catalog,
    /// The columns of ids that were asked.
    ids: Vec<WantedIds>,
    /// The sources that could not be asked.
    unlisted: Vec<prepare::Unasked>,
}

/// Asks sources what a plan needs to know of them, where it does: both `plan` and the runs do it so. What ids are there
/// now joins the facts.
fn look(
    inventory: &Inventory,
    selection: &Selection,
    facts: &mut Facts,
    pool: &Talks,
    stop: &Stop,
    now: Timestamp,
) -> Looked {
    let (catalog, mut unlisted) = catalog(inventory, selection, pool, stop);
    let ids = plan::wanted_ids(inventory, selection, &catalog);
    if !ids.is_empty() {
        let (seen, failed) = prepare::ids(inventory, &ids, pool, stop);
        unlisted.extend(failed);
        for (column, span) in seen {
            let known = facts.ids.entry(column).or_default();
            known.extend(span.map(|(lowest, highest)| SeenIds { at: now, lowest, highest }));
        }
    }
    Looked { catalog, ids, unlisted }
}

/// The tables of the sources that a pattern needs, and the sources that could not be asked.
fn catalog(
    inventory: &Inventory,
    selection: &Selection,
    pool: &Talks,
    stop: &Stop,
) -> (Catalog, Vec<(String, SourceError)>) {
    let sources = plan::sources_with_globs(inventory, selection);
    if sources.is_empty() { (Catalog::new(), Vec::new()) } else { prepare::list(sources, pool, stop) }
}

/// What an operator narrowed the command to, checked against the inventory.
fn selection(inventory: &Inventory, select: &Select) -> Result<Selection, Failure> {
    check_names(inventory, &select.narrow)?;
    // The form was looked at when the command line was read.
    let moment = |text: &Option<String>| inventory::moment(text.as_deref()?, &inventory.timezone);
    let (from, until) = (moment(&select.from), moment(&select.until));
    if let (Some(from), Some(until)) = (from, until)
        && from >= until
    {
        let what = format!("--from {from} is not before --until {until}");
        return Err(Failure::Usage { what, remedy: "give an earlier --from or a later --until".into() });
    }
    Ok(Selection {
        jobs: select.narrow.job.clone(),
        tables: select.narrow.table.clone(),
        sources: select.narrow.source.clone(),
        from,
        until,
        max_units: select.max_units,
        retry_failed: select.retry_failed,
    })
}

/// A name that means nothing is a slip of the keyboard, not an empty result.
fn check_names(inventory: &Inventory, narrow: &Narrow) -> Result<(), Failure> {
    for source in &narrow.source {
        if inventory.source(source).is_none() {
            let names: Vec<_> = inventory.sources.iter().map(|source| source.name.as_str()).collect();
            let remedy = format!("the sources of {} are: {}", inventory.path.display(), names.join(", "));
            return Err(Failure::Usage { what: format!("there is no source `{source}`"), remedy });
        }
    }
    for glob in &narrow.job {
        let matcher = glob.compile_matcher();
        if !inventory.jobs.iter().any(|job| matcher.is_match(&job.name)) {
            let names: Vec<_> = inventory.jobs.iter().map(|job| job.name.as_str()).collect();
            let remedy = format!("the jobs of {} are: {}", inventory.path.display(), names.join(", "));
            return Err(Failure::Usage { what: format!("no job matches `{glob}`"), remedy });
        }
    }
    Ok(())
}

/// The ledger's place: as given, or beside the inventory.
fn ledger_path(common: &Common) -> PathBuf {
    common.ledger.clone().unwrap_or_else(|| common.inventory.with_extension("ledger.sqlite"))
}

fn pool(common: &Common) -> Talks {
    Talks::new(Pool::new(ssh_options(common)))
}

fn ssh_options(common: &Common) -> Options {
    Options { config: common.ssh_config.clone(), ..Options::default() }
}

/// Columns of the terminal; 80 where there is none.
fn width() -> u16 {
    let stdout = rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col);
    stdout.filter(|&columns| columns >= 40).unwrap_or(80)
}

/// Writes a result to stdout. A reader that has gone (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("writing to stdout").into())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}
