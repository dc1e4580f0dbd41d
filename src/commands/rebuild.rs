//! `rebuild-ledger`: a new ledger from the load log; the old one is kept aside.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::json;

use super::{facts, ledger_path, print, print_json};
use crate::cli::{Common, Format};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inventory;
use crate::ledger::lock::JobLock;
use crate::ledger::{Ledger, LedgerError};
use crate::target::Address;

/// What belongs to SQLite's file.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

/// Makes a new ledger first, and moves the old one aside only when the new one is whole.
///
/// # Errors
/// [`Failure`]: a job that is held, the target, a directory that cannot be written.
pub(super) fn rebuild(common: &Common) -> Result<Exit, Failure> {
    let inventory = inventory::load(&common.inventory)?;
    let target = Address::new(&inventory.target.url, |name| std::env::var(name).ok())?;
    let path = ledger_path(common);
    let now = Timestamp::now();
    let jobs = inventory.jobs.iter().map(|job| job.name.clone());
    let _locks = JobLock::take_all(&path, jobs, now)?;
    let stamp = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let fresh = with(&path, &format!(".new-{stamp}"));
    let made = make(&fresh, &inventory, &target, now);
    if made.is_err() {
        PARTS.iter().for_each(|part| drop(fs::remove_file(with(&fresh, part))));
    }
    let units = made?;
    let aside = with(&path, &format!(".{stamp}"));
    let moved = path.exists();
    let io = |error| LedgerError::Io { path: path.clone(), error };
    for part in PARTS {
        match fs::rename(with(&path, part), with(&aside, part)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error).into()),
            Ok(()) | Err(_) => {}
        }
    }
    fs::rename(&fresh, &path).map_err(io)?;
    let moved = moved.then(|| aside.display().to_string());
    match common.format {
        Format::Text => {
            let aside = moved.map(|aside| format!("the old ledger is {aside}\n")).unwrap_or_default();
            let units = if units == 1 { "1 unit".into() } else { format!("{units} units") };
            print(&format!("{}: {units} from the load log of {}\n{aside}", path.display(), target.shown()))?;
        }
        Format::Json => print_json(&json!({
            "version": crate::report::JSON_VERSION,
            "ledger": path.display().to_string(),
            "moved_aside": moved,
            "units": units,
        }))?,
    }
    Ok(Exit::Done)
}

fn make(
    path: &Path,
    inventory: &inventory::Inventory,
    target: &Address,
    now: Timestamp,
) -> Result<u64, Failure> {
    let mut ledger = Ledger::open(path)?;
    let units = facts::catch_up(&mut ledger, inventory, target, now)?;
    Ok(ledger.close().map(|()| units)?)
}

fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
