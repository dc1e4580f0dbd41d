//! Keys that tables are still to get: which of them a command may build, and which of them can wait for the rows. Pure.

use super::{Selection, matches, resolve, selects};
use crate::inventory::{Inventory, OnPkViolation, TableSelector};
use crate::names::TableName;
use crate::unit::Unit;

/// Does a selection mean something that goes to this table of the target?
pub fn means_target(inventory: &Inventory, selection: &Selection, target: &TableName) -> bool {
    let chosen =
        |table: &TableName| selection.tables.is_empty() || matches(&selection.tables, &table.to_string());
    inventory.jobs.iter().filter(|job| selects(selection, job)).flat_map(|job| &job.tables).any(|entry| {
        match (&entry.target, &entry.what) {
            (Some(to), TableSelector::One(table)) => to == target && chosen(table),
            // Whatever it is called in the source.
            (Some(to), TableSelector::Glob { .. }) => to == target,
            (None, _) => chosen(target) && resolve(entry, std::slice::from_ref(target)).contains(target),
        }
    })
}

/// Can the key of a table wait until these units, which are all that a plan has for it, are loaded? Only where nothing
/// needs it to find rows, and where no two units are of different tables: their rows may collide, and that is found out
/// unit by unit.
pub fn key_can_wait<'a>(units: impl IntoIterator<Item = &'a Unit>) -> bool {
    let mut from = None;
    units.into_iter().all(|unit| {
        let table = (&unit.key.source, &unit.rows.series);
        let load = &unit.entry.load;
        *from.get_or_insert(table) == table
            && load.is_plain()
            && load.on_pk_violation == OnPkViolation::Rollback
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{self, LoadMode};
    use crate::plan::{Catalog, Facts, plan};

    const JOBS: &str = "version: 1\nmount: { path: /m }\ntarget: { url: postgresql://l@t/d }\n\
        sources: { s: { host: h, engine: postgres, database: d } }\n\
        jobs:\n  j: { source: s, tables: [ { table: a.b, target: x.y, window: none }, { tables: 'tiny.d*', window: none }, \
        { table: a.c, window: none, load: { on_pk_violation: skip_identical } } ] }\n  \
        k: { source: s, tables: [ { table: a.k, window: none } ] }\n";

    fn inventory() -> Inventory {
        inventory::parse(JOBS, std::path::Path::new("i.yml")).unwrap()
    }

    #[test]
    fn a_table_is_meant_by_its_name_in_the_target_and_by_what_was_selected() {
        let inventory = inventory();
        let means = |selection: &Selection, name: &str| {
            means_target(&inventory, selection, &TableName::parse(name).unwrap())
        };
        let all = Selection::default();
        for (name, meant) in
            [("x.y", true), ("a.b", false), ("tiny.d7", true), ("tiny.e", false), ("a.k", true)]
        {
            assert_eq!(means(&all, name), meant, "{name}");
        }
        let job = Selection { jobs: vec![globset::Glob::new("j").unwrap()], ..Selection::default() };
        assert!(means(&job, "x.y") && !means(&job, "a.k"));
        let table = Selection { tables: vec![globset::Glob::new("a.b").unwrap()], ..Selection::default() };
        assert!(means(&table, "x.y") && !means(&table, "tiny.d7"));
    }

    #[test]
    fn a_key_waits_only_where_nothing_needs_it() {
        let inventory = inventory();
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let units = plan(&inventory, &Selection::default(), &Catalog::new(), &Facts::default(), now).units;
        let of = |name: &str| units.iter().find(|unit| unit.table.to_string() == name).unwrap().clone();
        assert!(key_can_wait([&of("a.b"), &of("a.b")]));
        assert!(!key_can_wait([&of("a.b"), &of("a.k")]), "two tables into one");
        assert!(!key_can_wait([&of("a.c")]), "what collides is looked up by the key");
        let mut merging = of("a.b");
        let entry = std::sync::Arc::make_mut(&mut merging.entry);
        std::sync::Arc::make_mut(&mut entry.load).mode = LoadMode::Merge;
        assert!(!key_can_wait([&merging]));
    }
}
