//! The inventory with the jobs of its catalogs in it; and `import`, which writes those down once.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::Context;

use super::print;
use crate::catalog::{Limits, fetch};
use crate::cli::{Common, Import};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inventory::{Draft, Fetched, Inventory, JobCatalog};
use crate::progress::Screen;
use crate::report::import::text;
use crate::stop::Stop;

/// Reads the inventory, and asks its catalogs where it has any.
///
/// # Errors
/// [`Failure::Inventory`], also for what is wrong with rows of a catalog, and [`Failure::Catalog`].
pub(super) fn inventory(common: &Common, stop: &Stop) -> Result<Inventory, Failure> {
    let draft = Draft::open(&common.inventory)?;
    if draft.inventory().catalogs.is_empty() {
        return Ok(draft.into_inventory());
    }
    let fetched = ask(&draft.inventory().catalogs, stop)?;
    let (inventory, findings) = draft.complete(&fetched)?;
    findings.iter().for_each(|finding| log::debug!("{finding}"));
    if !findings.is_empty() {
        log::info!("odd things in the catalogs: {}; `-v` or `gpferry import` lists them", findings.len());
    }
    Ok(inventory)
}

fn ask<'a>(
    catalogs: impl IntoIterator<Item = &'a JobCatalog>,
    stop: &Stop,
) -> Result<BTreeMap<String, Fetched>, Failure> {
    Ok(fetch(catalogs, &|name: &str| std::env::var(name).ok(), Limits::default(), stop)?)
}

/// Writes an inventory that holds what its catalogs held.
///
/// # Errors
/// [`Failure`]: there is no such catalog, it cannot be read, its rows are wrong, the file is there already.
pub(super) fn import(common: &Common, import: &Import, screen: &Screen) -> Result<Exit, Failure> {
    let draft = Draft::open(&common.inventory)?;
    let catalogs = &draft.inventory().catalogs;
    check_names(common, catalogs, &import.catalog)?;
    let wanted = |catalog: &&JobCatalog| import.catalog.is_empty() || import.catalog.contains(&catalog.name);
    let fetched = ask(catalogs.iter().filter(wanted), &Stop::default())?;
    let imported = draft.import(&fetched)?;
    if !common.quiet {
        // Where stderr is gone the comments in the file must do.
        let _ = screen.clone().write_all(text(&imported.findings, super::width()).as_bytes());
    }
    match &import.output {
        Some(path) => create(path, &imported.yaml)?,
        None => print(&imported.yaml)?,
    }
    Ok(Exit::Done)
}

fn check_names(common: &Common, catalogs: &[JobCatalog], wanted: &[String]) -> Result<(), Failure> {
    let known: Vec<&str> = catalogs.iter().map(|catalog| catalog.name.as_str()).collect();
    let path = common.inventory.display();
    if known.is_empty() {
        let what = format!("{path} has no `catalog:` to import from");
        let remedy = "write one: docs/catalog.md shows it".into();
        return Err(Failure::Usage { what, remedy });
    }
    match wanted.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(Failure::Usage {
            what: format!("there is no catalog `{name}`"),
            remedy: format!("the catalogs of {path} are: {}", known.join(", ")),
        }),
        None => Ok(()),
    }
}

/// Writes a new file, whole or not at all. One that is there is somebody's work.
fn create(path: &Path, text: &str) -> Result<(), Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = match opened {
        Err(error) => {
            let what = format!("{} cannot be made: {error}", path.display());
            let remedy = "name a file that is not there yet, in a directory that you may write in".into();
            return Err(Failure::Usage { what, remedy });
        }
        Ok(file) => file,
    };
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    Ok(written.with_context(|| format!("writing {}", path.display()))?)
}
