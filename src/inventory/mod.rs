//! The YAML file that names mount, target, sources and jobs: from what was written to what is meant.
//!
//! One turn: text → tree of nodes with places (`yaml`) → [`Inventory`], every name checked and every default
//! filled. Whatever is wrong is collected on the way and told at once, with file, line, column, key and
//! remedy. A fault anywhere means that there is no inventory; a secret anywhere is a fault, and is not shown.

mod alarms;
mod argv;
mod catalog;
mod compare;
mod draft;
mod fault;
mod gpfdist;
mod jobs;
mod load_keys;
pub mod model;
mod overlap;
mod reader;
mod rules;
mod scalars;
mod secrets;
mod sources;
mod suggest;
mod support;
mod tables;
mod top;
mod yaml;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

pub use catalog::{Answer, CatalogQuery, Fetched, Finding, JobCatalog};
pub use draft::{Draft, Import};
pub use fault::{Fault, InventoryError, Place};
pub use model::*;

/// The civil time, in `zone`, that a text means: `2021-08-10`, `2021-08-10 00:00:00`, also with an offset or `Z`. At most
/// microseconds. `None` for anything else.
pub fn moment(text: &str, zone: &TimeZone) -> Option<DateTime> {
    scalars::moment(text, zone)
}

/// Reads an inventory from a file. Nobody is asked: jobs of its catalogs are not in it.
///
/// # Errors
/// [`InventoryError`] with everything that is wrong; a file that cannot be read is a fault too.
pub fn load(path: &Path) -> Result<Inventory, InventoryError> {
    Draft::open(path).map(Draft::into_inventory)
}

/// Reads an inventory from its text, as [`load`] does; `path` is for messages only.
///
/// # Errors
/// [`InventoryError`] with everything that is wrong.
pub fn parse(text: &str, path: &Path) -> Result<Inventory, InventoryError> {
    Draft::parse(text, path).map(Draft::into_inventory)
}

/// What a file holds.
fn text(path: &Path) -> Result<String, InventoryError> {
    const MOST: u64 = yaml::MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| {
        let long = file.metadata().map_or(0, |data| data.len()).min(MOST);
        // One byte more shows the end without another growth.
        bytes.reserve_exact(usize::try_from(long).unwrap_or_default() + 1);
        file.take(MOST).read_to_end(&mut bytes)
    });
    if let Err(error) = read {
        return Err(whole_file(
            path,
            format!("the inventory cannot be read: {error}"),
            "name it with --inventory PATH or in GPFERRY_INVENTORY; inventory/first.yml is one to start from",
        ));
    }
    String::from_utf8(bytes).or_else(|error| {
        let (valid, bytes) = (error.utf8_error().valid_up_to(), error.into_bytes());
        if bytes.len() > yaml::MAX_BYTES {
            // A character may be cut where a file is too long: that is what is wrong with it then.
            return Ok(" ".repeat(bytes.len()));
        }
        let line = 1 + bytes[..valid].iter().filter(|byte| **byte == b'\n').count();
        Err(whole_file(
            path,
            format!("line {line} holds bytes that are not UTF-8"),
            "save the file as UTF-8: iconv -f GB18030 -t UTF-8 inventory.yml",
        ))
    })
}

fn whole_file(path: &Path, what: String, remedy: &str) -> InventoryError {
    InventoryError::new(path, vec![Fault::new(Place::FILE, "", what, remedy)])
}
