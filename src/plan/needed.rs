//! The tables that are meant, whether or not anything of them is due. Pure.

use std::collections::HashSet;

use super::{Catalog, Selection, Skipped, Why, describe, matches, resolve, selects};
use crate::inventory::Inventory;
use crate::names::TableName;
use crate::unit::Unit;

/// A table that the target needs, and whose copy it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Needed {
    /// The source's name.
    pub source: String,
    /// The table there.
    pub table: TableName,
    /// The table in the target.
    pub target: TableName,
}

impl Needed {
    /// What units need, each target table once: where several tables go to one, it is made after the first.
    pub fn of<'a>(units: impl Iterator<Item = &'a Unit>) -> Vec<Self> {
        let mut seen = HashSet::new();
        units
            .filter(|unit| seen.insert(&unit.target))
            .map(|unit| Self {
                source: unit.key.source.to_string(),
                table: unit.table.clone(),
                target: unit.target.clone(),
            })
            .collect()
    }
}

/// Every table that a selection leaves in, each target table once, in the inventory's order; and what of it means
/// no table.
pub fn tables(
    inventory: &Inventory,
    selection: &Selection,
    catalog: &Catalog,
) -> (Vec<Needed>, Vec<Skipped>) {
    let (mut needed, mut skipped, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for job in inventory.jobs.iter().filter(|job| selects(selection, job)) {
        let listed = catalog.get(&job.source);
        for entry in &job.tables {
            let tables = resolve(entry, listed.map_or(&[][..], Vec::as_slice));
            if tables.is_empty() {
                let why = if listed.is_some() { Why::NoMatch } else { Why::NotListed };
                let (job, table) = (job.name.clone(), describe(&entry.what));
                skipped.push(Skipped { job, table, units: 0, why });
            }
            for table in tables {
                let target = entry.target.clone().unwrap_or_else(|| table.clone());
                let chosen = selection.tables.is_empty() || matches(&selection.tables, &table.to_string());
                if chosen && seen.insert(target.clone()) {
                    needed.push(Needed { source: job.source.clone(), table, target });
                }
            }
        }
    }
    (needed, skipped)
}
