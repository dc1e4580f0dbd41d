//! One source table that goes to one target table by two entries would be loaded twice.

use std::collections::HashMap;

use super::fault::Fault;
use super::model::{Inventory, TableSelector};
use super::reader::Reader;
use super::top::Written;

/// Puts down a fault for each entry that repeats an earlier one of the same source, unless their `where`
/// differ. Patterns are compared as texts here; what they match is known only with the catalog.
pub(super) fn check(reader: &mut Reader, inventory: &Inventory, written: &Written) {
    let mut first: HashMap<(&str, String, String), &str> = HashMap::new();
    for (job, (_, paths)) in inventory.jobs.iter().zip(&written.jobs) {
        for (entry, path) in job.tables.iter().zip(paths) {
            let (what, target) = match &entry.what {
                TableSelector::One(name) => {
                    (format!("{name} to {}", entry.target.as_ref().unwrap_or(name)), "source table")
                }
                TableSelector::Glob { pattern, .. } => (format!("pattern {pattern}"), "pattern"),
            };
            let filter = entry.filter.as_ref().map(ToString::to_string).unwrap_or_default();
            let Some(earlier) = first.insert((&job.source, what.clone(), filter.clone()), path) else {
                continue;
            };
            first.insert((&job.source, what, filter), earlier);
            let earlier = reader.whereabouts(earlier);
            let source = reader.secrets.echo(&job.source);
            reader.add(Fault::new(
                reader.place(path),
                path.clone(),
                format!("the same {target} of source {source} goes to the same place by {earlier}"),
                "remove one of the two, or give both a `where` so that no row is in both",
            ));
        }
    }
}
