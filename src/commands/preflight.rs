//! `preflight`: is every host, path, user, script and database ready?

use std::time::Instant;

use jiff::Timestamp;

use super::{check_names, pool, print, print_json, width};
use crate::cli::{Common, Format, Look, Part};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inventory::{self, Inventory};
use crate::plan::Selection;
use crate::report::preflight::{json, text};
use crate::step::preflight::{Area, Ground, Preflight, gather};
use crate::stop::Stop;
use crate::target::Address;

/// Asks everybody, judges, and shows it.
///
/// # Errors
/// [`Failure`] where that could not be done at all. What must be mended is no error but exit code 13.
pub(super) fn preflight(common: &Common, look: &Look) -> Result<Exit, Failure> {
    let begin = Instant::now();
    let inventory = super::jobs::inventory(common, &Stop::default())?;
    check_names(&inventory, &look.narrow)?;
    check_hosts(&inventory, look)?;
    let target = Address::new(&inventory.target.url, |name| std::env::var(name).ok())?;
    let selection = Selection {
        jobs: look.narrow.job.clone(),
        tables: look.narrow.table.clone(),
        sources: look.narrow.source.clone(),
        ..Selection::default()
    };
    let areas: Vec<Area> = match look.only.as_slice() {
        [] => Area::ALL.to_vec(),
        parts => parts.iter().copied().map(area).collect(),
    };
    let pool = pool(common);
    let gathered = gather(Ground {
        inventory: &inventory,
        selection: &selection,
        hosts: &look.host,
        areas: &areas,
        pool: &pool,
        target: &target,
        run: &super::run::run_id(Timestamp::now()),
    });
    let preflight = Preflight::judge(gathered, &areas);
    let exit = if preflight.failed() { Exit::Preflight } else { Exit::Done };
    match common.format {
        Format::Text => print(&text(&preflight, begin.elapsed(), width()))?,
        Format::Json => print_json(&json(&preflight, begin.elapsed(), exit.code()))?,
    }
    Ok(exit)
}

/// A glob that means no host is a slip of the keyboard.
fn check_hosts(inventory: &Inventory, look: &Look) -> Result<(), Failure> {
    for glob in &look.host {
        let matcher = glob.compile_matcher();
        let names = |source: &inventory::Source| {
            let bare = source.host.rsplit('@').next().unwrap_or(&source.host).to_owned();
            [source.host.clone(), bare, source.name.clone()]
        };
        if !inventory.sources.iter().flat_map(names).any(|name| matcher.is_match(name)) {
            let hosts: Vec<_> = inventory.sources.iter().map(|source| source.host.as_str()).collect();
            let remedy = format!("the hosts of {} are: {}", inventory.path.display(), hosts.join(", "));
            return Err(Failure::Usage { what: format!("no host matches `{glob}`"), remedy });
        }
    }
    Ok(())
}

fn area(part: Part) -> Area {
    match part {
        Part::Reach => Area::Reach,
        Part::Host => Area::Host,
        Part::Mount => Area::Mount,
        Part::Script => Area::Script,
        Part::Source => Area::Source,
        Part::Target => Area::Target,
    }
}
