//! One file per subcommand.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::Value;

use crate::cli::{Cli, Command, Common, Format, Narrow, Select};
use crate::engine::prepare;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inventory::Inventory;
use crate::plan::{self, Catalog, Known, Plan, Selection};
use crate::progress::Screen;
use crate::remote::ssh::{Options, Pool};
use crate::source::SourceError;
use crate::stop::Stop;
use crate::target::Address;
use crate::unit::UnitKey;

mod catalog;
mod explain;
mod preflight;
mod run;
mod status;
mod trust;

/// Does what the command line asks.
///
/// # Errors
/// [`Failure`] where that could not be done at all.
pub fn dispatch(cli: &Cli, screen: &Screen) -> Result<Exit, Failure> {
    let common = &cli.common;
    match &cli.command {
        Command::Plan(select) => show_plan(common, select),
        Command::Preflight(look) => preflight::preflight(common, look),
        Command::Run(moves) => run::run(common, moves, crate::engine::Halves::Both, screen),
        Command::Export(moves) => run::run(common, moves, crate::engine::Halves::Export, screen),
        Command::Load(moves) => run::run(common, moves, crate::engine::Halves::Load, screen),
        Command::Status(narrow) => status::status(common, narrow),
        Command::Import(import) => catalog::import(common, import, screen),
        Command::Trust(trust) => trust::trust(common, trust),
        Command::Explain { code } => explain::explain(common, *code),
    }
}

fn show_plan(common: &Common, select: &Select) -> Result<Exit, Failure> {
    let inventory = catalog::inventory(common, &Stop::default())?;
    let selection = selection(&inventory, select)?;
    let target = Address::new(&inventory.target.url, |name| std::env::var(name).ok())?;
    let known = run::known(&ledger_path(common), target.shown())?;
    let (plan, unlisted) =
        make_plan(&inventory, &selection, &known, &pool(common), &Stop::default(), Timestamp::now())?;
    if let Some((name, error)) = unlisted.into_iter().next() {
        return Err(Failure::source(&name, error));
    }
    match common.format {
        Format::Text => print(&crate::report::plan::text(&plan))?,
        Format::Json => print_json(&crate::report::plan::json(&plan))?,
    }
    Ok(Exit::Done)
}

/// The plan, as both `plan` and the runs make it, and the sources that could not be asked for their tables.
fn make_plan(
    inventory: &Inventory,
    selection: &Selection,
    known: &HashMap<UnitKey, Known>,
    pool: &Pool,
    stop: &Stop,
    now: Timestamp,
) -> Result<(Plan, Vec<(String, SourceError)>), Failure> {
    let sources = plan::sources_with_globs(inventory, selection);
    let (catalog, unlisted) =
        if sources.is_empty() { (Catalog::new(), Vec::new()) } else { prepare::list(sources, pool, stop) };
    Ok((plan::plan(inventory, selection, &catalog, known, now), unlisted))
}

/// What an operator narrowed the command to, checked against the inventory.
fn selection(inventory: &Inventory, select: &Select) -> Result<Selection, Failure> {
    check_names(inventory, &select.narrow)?;
    if let (Some(from), Some(until)) = (select.from, select.until)
        && from >= until
    {
        let what = format!("--from {from} is not before --until {until}");
        return Err(Failure::Usage { what, remedy: "give an earlier --from or a later --until".into() });
    }
    Ok(Selection {
        jobs: select.narrow.job.clone(),
        tables: select.narrow.table.clone(),
        sources: select.narrow.source.clone(),
        from: select.from,
        until: select.until,
        max_units: select.max_units,
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

fn pool(common: &Common) -> Pool {
    Pool::new(ssh_options(common))
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
