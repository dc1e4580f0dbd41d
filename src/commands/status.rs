//! `status`: per job and table, how far, how late, how much, what failed and what to do. Asks no host and no database.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{ledger_path, print, print_json, width};
use crate::cli::{Common, Format, Narrow};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inventory::{self, Inventory};
use crate::ledger::Ledger;
use crate::ledger::overview::{overview, tell_tries};
use crate::report::status::{json, text};
use crate::target::Address;

/// Shows what the ledger holds, held against the inventory where that can be read.
///
/// # Errors
/// [`Failure::Ledger`]; [`Failure::Usage`] where there is none, or where nothing matches.
pub(super) fn status(common: &Common, narrow: &Narrow) -> Result<Exit, Failure> {
    let path = ledger_path(common);
    if !path.exists() {
        let what = format!("there is no ledger at {}", path.display());
        let remedy = "run something first, or name the inventory (-i) or the ledger (--ledger)".into();
        return Err(Failure::Usage { what, remedy });
    }
    let ledger = Ledger::open(&path)?;
    let inventory = readable(common);
    let now = Timestamp::now();
    let zone = inventory.as_ref().map_or(TimeZone::UTC, |inventory| inventory.timezone.clone());
    let target = match address(inventory.as_ref()) {
        Some(target) => target,
        None => ledger.last_target()?.unwrap_or_default(),
    };
    let known = ledger.known(&target, midnight(now, &zone))?;
    let mut tables = overview(inventory.as_ref(), &known, now);
    let mut failed = ledger.failed_units()?;
    if let Some(inventory) = &inventory {
        tell_tries(inventory, &known, &mut failed);
    }
    let jobs: Vec<_> = narrow.job.iter().map(globset::Glob::compile_matcher).collect();
    let names: Vec<_> = narrow.table.iter().map(globset::Glob::compile_matcher).collect();
    let wanted = |job: &str, source: &String, table: &str| {
        (jobs.is_empty() || jobs.iter().any(|glob| glob.is_match(job)))
            && (narrow.source.is_empty() || narrow.source.contains(source))
            && (names.is_empty() || names.iter().any(|glob| glob.is_match(table)))
    };
    let held = tables.len();
    tables.retain(|one| wanted(&one.job, &one.source, &one.table));
    failed.retain(|one| wanted(&one.job, &one.source, &one.table));
    if tables.is_empty() && held > 0 {
        let what = format!("none of the {held} tables of {} matches", path.display());
        return Err(Failure::Usage { what, remedy: "`gpferry status` without filters lists them".into() });
    }
    let owed = ledger.owed_keys(&target)?;
    match common.format {
        Format::Text => print(&text(&tables, &failed, &owed, width()))?,
        Format::Json => print_json(&json(&tables, &failed, &owed))?,
    }
    Ok(Exit::Done)
}

/// The inventory, where it can be read; why not is only said.
pub(super) fn readable(common: &Common) -> Option<Inventory> {
    match inventory::load(&common.inventory) {
        Ok(inventory) => Some(inventory),
        Err(error) => {
            log::warn!("only what the ledger knows is shown, and times are UTC: {error}");
            None
        }
    }
}

/// The target as the ledger names it.
fn address(inventory: Option<&Inventory>) -> Option<String> {
    let address = Address::new(&inventory?.target.url, |name| std::env::var(name).ok());
    address
        .inspect_err(|error| log::warn!("what was loaded into the target of the last run is shown: {error}"))
        .ok()
        .map(|address| address.shown().to_owned())
}

/// When today began in a zone.
fn midnight(now: Timestamp, zone: &TimeZone) -> Timestamp {
    now.to_zoned(zone.clone()).start_of_day().map_or(now, |zoned| zoned.timestamp())
}
