//! `status`: per job and table, how far, how much, what failed and what to do.

use super::{ledger_path, print, print_json, width};
use crate::cli::{Common, Format, Narrow};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::ledger::Ledger;
use crate::report::status::{json, text};

/// Failed units that are shown at most.
const MOST: u32 = 1000;

/// Shows what the ledger holds.
///
/// # Errors
/// [`Failure::Ledger`].
pub(super) fn status(common: &Common, narrow: &Narrow) -> Result<Exit, Failure> {
    let path = ledger_path(common);
    if !path.exists() {
        let what = format!("there is no ledger at {}", path.display());
        let remedy = "run something first, or name the inventory (-i) or the ledger (--ledger)".into();
        return Err(Failure::Usage { what, remedy });
    }
    let ledger = Ledger::open(&path)?;
    let (mut tables, mut failed) = (ledger.tables()?, ledger.failed_units(MOST)?);
    let jobs: Vec<_> = narrow.job.iter().map(globset::Glob::compile_matcher).collect();
    let names: Vec<_> = narrow.table.iter().map(globset::Glob::compile_matcher).collect();
    let wanted = |job: &str, source: &String| {
        (jobs.is_empty() || jobs.iter().any(|glob| glob.is_match(job)))
            && (narrow.source.is_empty() || narrow.source.contains(source))
    };
    let named = |table: &str| names.is_empty() || names.iter().any(|glob| glob.is_match(table));
    let held = tables.len();
    tables.retain(|one| wanted(&one.job, &one.source) && named(&one.table));
    failed.retain(|one| wanted(&one.job, &one.source) && named(&one.table));
    if tables.is_empty() && held > 0 {
        let what = format!("none of the {held} tables of {} matches", path.display());
        return Err(Failure::Usage { what, remedy: "`gpferry status` without filters lists them".into() });
    }
    match common.format {
        Format::Text => print(&text(&tables, &failed, width()))?,
        Format::Json => print_json(&json(&tables, &failed))?,
    }
    Ok(Exit::Done)
}
