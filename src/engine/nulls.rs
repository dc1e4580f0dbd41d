//! Rows that are in no window, since their window column is NULL: a run counts them now and then, for `status`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use super::prepare::{Asked, SourceCatalog};
use crate::inventory::{Source, WindowRule};
use crate::ledger::{Ledger, LedgerError};
use crate::names::TableName;
use crate::plan::IdColumn;
use crate::source::nulls::Nulls;
use crate::source::postgres::SourceTable;
use crate::unit::Unit;

/// A column is counted this often at most.
const EVERY: Duration = Duration::from_secs(24 * 3600);

/// The columns that were counted a short while ago.
pub(super) fn counted(ledger: &Ledger, now: Timestamp) -> Result<HashSet<IdColumn>, LedgerError> {
    ledger.nulls_counted_since(now.checked_sub(EVERY).unwrap_or(Timestamp::MIN))
}

/// Window columns of a source's units that can hold NULL and are to be counted.
pub(super) fn wanted<'a>(
    source: &Source,
    units: &[&'a Unit],
    tables: &HashMap<TableName, SourceTable>,
    counted: &HashSet<IdColumn>,
) -> BTreeSet<(&'a TableName, &'a str)> {
    let mut wanted = BTreeSet::new();
    for unit in units.iter().filter(|unit| *unit.key.source == *source.name) {
        let WindowRule::By(by) = &unit.entry.window else { continue };
        let Some(table) = tables.get(&unit.table) else { continue };
        if table.columns.iter().any(|column| column.name == by.column && !column.not_null) {
            wanted.insert((&unit.table, by.column.as_str()));
        }
    }
    wanted.retain(|(table, column)| !counted.contains(&of(source.name.as_str(), table, column)));
    wanted
}

/// Notes what was counted; what the database refused is asked again by the next run.
pub(super) fn note(
    ledger: &Ledger,
    sources: &Asked<SourceCatalog>,
    now: Timestamp,
) -> Result<(), LedgerError> {
    for (source, catalog) in sources.iter().filter_map(|(name, asked)| Some((name, asked.as_ref().ok()?))) {
        for (table, column, nulls) in &catalog.nulls {
            let rows = match nulls {
                Nulls::Rows(rows) => Some(*rows),
                Nulls::TooLong => None,
                Nulls::Refused => continue,
            };
            if let Some(rows) = rows.filter(|rows| *rows > 0) {
                log::info!("{rows} rows of {table} in {source} have no {column}, so they are in no window");
            }
            ledger.note_nulls(&of(source, table, column), rows, now)?;
        }
    }
    Ok(())
}

fn of(source: &str, table: &TableName, column: &str) -> IdColumn {
    IdColumn { source: source.to_owned(), table: table.to_string(), column: column.to_owned() }
}
