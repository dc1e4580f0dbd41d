//! Which hosts and tables are meant, out of the inventory and what the operator chose. Pure.

use std::collections::BTreeSet;

use super::gather::Ground;
use super::visit::{Place, SourceVisit, Wanted, WantedWindow};
use crate::inventory::{Compressor, Cut, Engine, Job, NullWindow, Source, TableSelector, WindowRule};
use crate::measure::Scale;
use crate::names::TableName;
use crate::plan;

/// The sources of selected jobs; without a selection also those that no job uses.
pub(super) fn selected(ground: Ground<'_>) -> Vec<&Source> {
    let selection = ground.selection;
    let jobs: Vec<&Job> = jobs(ground).collect();
    let everything = selection.jobs.is_empty() && selection.tables.is_empty();
    let wanted = |source: &&Source| {
        let by_job = jobs.iter().any(|job| job.source == source.name) || everything;
        let by_name = selection.sources.is_empty() || selection.sources.contains(&source.name);
        let name = source.host.rsplit('@').next().unwrap_or(&source.host);
        let by_host = ground.hosts.is_empty()
            || [source.host.as_str(), name, &source.name]
                .iter()
                .any(|text| plan::matches(ground.hosts, text));
        by_job && by_name && by_host
    };
    ground.inventory.sources.iter().filter(wanted).collect()
}

fn jobs(ground: Ground<'_>) -> impl Iterator<Item = &Job> {
    ground.inventory.jobs.iter().filter(move |job| plan::selects(ground.selection, job))
}

/// One place for each host and mount path.
pub(super) fn places(ground: Ground<'_>, sources: &[&Source]) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for source in sources {
        let mount = source.mount.display().to_string();
        let at = places.iter().position(|place| place.host == source.host && place.mount == mount);
        let at = at.unwrap_or_else(|| {
            places.push(Place { host: source.host.clone(), mount, ..nowhere() });
            places.len() - 1
        });
        let place = &mut places[at];
        place.sources.push(source.name.clone());
        place.sessions += source.sessions;
        place.needs_psql |= matches!(source.engine, Engine::Greenplum | Engine::Postgres);
        place.psql = place
            .psql
            .take()
            .or_else(|| source.connection.psql.as_ref().map(|path| path.display().to_string()));
        let named: BTreeSet<&str> = jobs(ground)
            .filter(|job| job.source == source.name)
            .flat_map(|job| &job.tables)
            .filter(|entry| entry.export.compressor != Compressor::Auto)
            .map(|entry| entry.export.compressor.word())
            .collect();
        place.compressors.extend(
            named
                .into_iter()
                .filter_map(|word| ["igzip", "pigz", "gzip"].into_iter().find(|one| *one == word)),
        );
    }
    places
}

pub(super) fn nowhere() -> Place {
    Place {
        host: String::new(),
        sources: Vec::new(),
        mount: String::new(),
        sessions: 0,
        psql: None,
        needs_psql: false,
        compressors: Vec::new(),
    }
}

/// A source before it is asked: what the inventory names without a glob.
pub(super) fn unasked(ground: Ground<'_>, source: &Source) -> SourceVisit {
    let entries: Vec<_> =
        jobs(ground).filter(|job| job.source == source.name).flat_map(|job| &job.tables).cloned().collect();
    let mut visit = SourceVisit {
        name: source.name.clone(),
        database: source.database.clone(),
        engine: source.engine,
        entries,
        tables: ground.selection.tables.clone(),
        wanted: Vec::new(),
        unmatched: Vec::new(),
        found: None,
    };
    visit.resolve(&[]);
    visit
}

impl SourceVisit {
    /// Are there globs, for which the catalog is needed?
    pub(super) fn has_globs(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.what, TableSelector::Glob { .. }))
    }

    /// Finds the tables that are meant; `catalog` is what globs are matched against.
    pub(super) fn resolve(&mut self, catalog: &[TableName]) {
        self.wanted.clear();
        self.unmatched.clear();
        for entry in &self.entries {
            let tables = plan::resolve(entry, catalog);
            if tables.is_empty() {
                self.unmatched.push(plan::describe(&entry.what));
            }
            for table in tables {
                if !self.tables.is_empty() && !plan::matches(&self.tables, &table.to_string()) {
                    continue;
                }
                let window = match &entry.window {
                    WindowRule::None { .. } => None,
                    WindowRule::By(by) => Some(WantedWindow {
                        column: by.column.clone(),
                        scale: match by.cut {
                            Cut::Time { scale, .. } => scale,
                            Cut::Ids { .. } => Scale::Id,
                        },
                        includes_nulls: by.null_window == NullWindow::Include,
                    }),
                };
                let target = entry.target.clone().unwrap_or_else(|| table.clone());
                let rights = entry.load.rights();
                let changes = entry.load.changes();
                let computed = entry.load.mapping.iter().map(|(column, _)| column.clone()).collect();
                let wanted = Wanted { table, target, window, rights, changes, computed };
                if !self.wanted.contains(&wanted) {
                    self.wanted.push(wanted);
                }
            }
        }
    }
}
