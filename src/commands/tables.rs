//! `run --tables-only`: makes what the target lacks, and moves nothing.

use std::time::Instant;

use anyhow::Context;

use super::{catalog, pool, print, print_json, selection, width};
use crate::cli::{Common, Format, Select};
use crate::engine::tables::{Tables, create_missing};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::plan;
use crate::report::tables::{json, text};
use crate::source::SourceError;
use crate::stop::Stop;
use crate::target::{Address, Session};

/// Makes the tables of the selected jobs that the target lacks. Neither ledger nor load log nor mount is touched,
/// and no job is held: making a table twice at once does no harm.
///
/// # Errors
/// [`Failure`] where that could not be done at all.
pub(super) fn create(common: &Common, select: &Select) -> Result<Exit, Failure> {
    let begin = Instant::now();
    let stop = Stop::on_signals().context("listening for signals")?;
    let inventory = super::jobs::inventory(common, &stop)?;
    let selection = selection(&inventory, select)?;
    let target = Address::new(&inventory.target.url, |name| std::env::var(name).ok())?;
    let pool = pool(common);
    let mut session = Session::open(&target, &inventory.target.log_schema)?;
    let (catalog, unlisted) = catalog(&inventory, &selection, &pool, &stop);
    for (name, error) in &unlisted {
        log::error!("source {name}: {error} (try: {})", error.remedy());
    }
    let (needed, skipped) = plan::tables(&inventory, &selection, &catalog);
    let tables = create_missing(&mut session, &inventory, &needed, &pool, &stop, &|_| false)?;
    let exit = exit(&tables, needed.len(), &unlisted, &stop);
    match common.format {
        Format::Text => print(&text(&tables, needed.len(), &skipped, begin.elapsed(), width()))?,
        Format::Json => {
            print_json(&json(&tables, needed.len(), &skipped, begin.elapsed(), exit.code()))?;
        }
    }
    Ok(exit)
}

fn exit(tables: &Tables, needed: usize, unlisted: &[(String, SourceError)], stop: &Stop) -> Exit {
    let unlisted_all = !unlisted.is_empty() && unlisted.iter().all(|(_, error)| error.is_unreachable());
    if let Some(exit) = stop.exit() {
        exit
    } else if tables.no_source_reached || (needed == 0 && unlisted_all) {
        Exit::Unreachable
    } else if tables.there < needed || !unlisted.is_empty() {
        Exit::UnitsFailed
    } else {
        Exit::Done
    }
}
