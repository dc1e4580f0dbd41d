//! By which way each unit of a run is exported: COPY, or a part by each segment of a Greenplum. The choice itself is
//! pure ([`crate::source::segments::choose`]); here the sources are asked what it needs to know, and only those where
//! something might be exported by segments.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::prepare::{self, Asked, SourceCatalog};
use super::talks::Talks;
use crate::inventory::{Engine, ExportMethod, Inventory, Source};
use crate::mount::Mount;
use crate::names::TableName;
use crate::plan::{Change, Note, Plan};
use crate::source::segments::{self, Choice, Facts, Seen, Wanted};
use crate::source::{Questions, SourceError};
use crate::step::export::{BySegments, Order};
use crate::step::{Stage, UnitFailure};
use crate::stop::Stop;
use crate::unit::Unit;

/// Where a sign is put up that the segments have to read. A plan that is only shown puts none up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight<'a> {
    pub(super) mount: &'a Mount,
    pub(super) run: &'a str,
}

/// By what the sources are asked.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) sight: Option<Sight<'a>>,
    pub(super) pool: &'a Talks,
    pub(super) stop: &'a Stop,
}

/// What was chosen for the units that COPY does not simply export.
#[derive(Debug, Default)]
pub(super) struct Methods {
    by: HashMap<usize, Result<Spread, UnitFailure>>,
    /// What an operator should know, table by table.
    pub(super) notes: Vec<Note>,
}

/// What segments write a unit, and where its rows are.
#[derive(Debug, Clone, Copy)]
struct Spread {
    primaries: u32,
    by_columns: bool,
}

/// What one source said.
#[derive(Debug)]
struct Said {
    facts: Facts,
    spread: HashSet<TableName>,
    seen: Seen,
}

/// Chooses for these units of a plan, of which some are slices.
pub(super) fn choose(
    asking: Asking<'_>,
    plan: &Plan,
    among: &[usize],
    slice_of: &HashMap<usize, usize>,
    described: &Asked<SourceCatalog>,
) -> Methods {
    let Asking { inventory, sight, .. } = asking;
    let wanted: Vec<(usize, Wanted)> = among
        .iter()
        .map(|&index| (index, wanted(&plan.units[index], slice_of.contains_key(&index), described)))
        .filter(|(_, wanted)| wanted.may_be())
        .collect();
    let tables = wanted.iter().map(|(index, _)| &plan.units[*index]);
    let said = ask(asking, tables);
    let (mut methods, mut notes) = (Methods::default(), BTreeSet::new());
    for (index, wanted) in wanted {
        let unit = &plan.units[index];
        let choice = match said.get(&*unit.key.source) {
            Some(Ok(said)) => segments::choose(wanted, &said.facts, &said.seen),
            Some(Err(error)) => unasked(wanted, error),
            None => not_here(inventory, wanted, &unit.key.source),
        };
        let how = match choice {
            // Of a source without segments there is nothing to say.
            Choice::Copy(_) if !has_segments(&said, unit) => continue,
            Choice::Copy(why) => format!("exported by COPY: {why}"),
            Choice::Segments(why) => {
                if let Some(Ok(said)) = said.get(&*unit.key.source) {
                    let by_columns = said.spread.contains(&unit.table);
                    methods.by.insert(index, Ok(Spread { primaries: said.facts.primaries, by_columns }));
                }
                let unproven =
                    if sight.is_none() { "; whether they see the mount is asked by the run" } else { "" };
                format!("exported by the segments of {}: {why}{unproven}", unit.key.source)
            }
            Choice::Impossible { missing, remedy } => {
                let error = format!("the segments of {} cannot export it: {missing}", unit.key.source);
                let how = format!("{error} (try: {remedy})");
                methods.by.insert(
                    index,
                    Err(UnitFailure { own: false, ..UnitFailure::new(Stage::Check, error, remedy) }),
                );
                how
            }
        };
        notes.insert((unit.job.to_string(), unit.table.to_string(), how));
    }
    let note = |(job, table, how)| Note { job, table, change: Change::Exported { how } };
    methods.notes = notes.into_iter().map(note).collect();
    methods
}

/// Has the source of a unit said that it is a Greenplum?
fn has_segments(said: &Asked<Said>, unit: &Unit) -> bool {
    matches!(said.get(&*unit.key.source), Some(Ok(said)) if said.facts.greenplum)
}

/// A source by whose nature it cannot be.
fn not_here(inventory: &Inventory, wanted: Wanted, source: &str) -> Choice {
    let has_script = inventory.source(source).is_some_and(|source| source.script.is_some());
    let missing = if has_script { "it has a script of its own" } else { "it is no Greenplum (`engine:`)" };
    match wanted.method {
        ExportMethod::Segments => {
            let remedy = "write `export: { method: copy }` for its tables".into();
            Choice::Impossible { missing: format!("{source}: {missing}"), remedy }
        }
        ExportMethod::Auto | ExportMethod::Copy => Choice::Copy(missing.into()),
    }
}

/// A source that did not answer.
fn unasked(wanted: Wanted, error: &SourceError) -> Choice {
    match wanted.method {
        ExportMethod::Segments => Choice::Impossible { missing: error.to_string(), remedy: error.remedy() },
        ExportMethod::Auto | ExportMethod::Copy => {
            Choice::Copy(format!("the source did not say what its segments can do: {error}"))
        }
    }
}

/// Whole tables are as large as their catalog says, and windows are known to be large where they were cut.
fn wanted(unit: &Unit, is_slice: bool, described: &Asked<SourceCatalog>) -> Wanted {
    let catalog = described.get(&*unit.key.source).and_then(|asked| asked.as_ref().ok());
    let bytes = catalog.and_then(|catalog| catalog.bytes(&unit.table)).flatten();
    Wanted { method: unit.entry.export.method, bytes: bytes.filter(|_| unit.extent.is_whole()), is_slice }
}

/// May the segments of a source be asked at all?
fn is_asked(source: &Source) -> bool {
    source.engine == Engine::Greenplum && source.script.is_none()
}

fn ask<'a>(asking: Asking<'_>, units: impl Iterator<Item = &'a Unit>) -> Asked<Said> {
    let Asking { inventory, sight, pool, stop } = asking;
    let asked = |unit: &&Unit| inventory.source(&unit.key.source).is_some_and(is_asked);
    let wanted = units.filter(asked).map(|unit| (&*unit.key.source, &unit.table));
    prepare::ask_about(inventory, wanted, pool, stop, |source, questions, server, tables| {
        let (version, greenplum) = (server.version, server.greenplum);
        let none = Facts {
            version,
            greenplum,
            user: String::new(),
            superuser: false,
            may_execute: false,
            primaries: 0,
        };
        let mut said = Said { facts: none, spread: HashSet::new(), seen: Seen::NotAsked };
        if greenplum {
            questions.ask(segments::FACTS.into(), "asking what its segments can do", |row| {
                said.facts = segments::read_facts(row).unwrap_or(said.facts.clone());
            })?;
            questions.ask(segments::list_spread(tables), "asking how its tables are spread", |row| {
                said.spread.extend(crate::source::postgres::read_table_name(row));
            })?;
            let can = said.facts.superuser && said.facts.may_execute && said.facts.primaries > 0;
            if let Some(sight) = sight.filter(|_| can) {
                said.seen = look(questions, source, sight, said.facts.primaries)?;
            }
        }
        Ok(said)
    })
}

/// Has each segment read a sign that is put up on the mount.
fn look(
    questions: &mut Questions<'_>,
    source: &Source,
    sight: Sight<'_>,
    primaries: u32,
) -> Result<Seen, SourceError> {
    let sign = match sight.mount.sign(sight.run) {
        Ok(sign) => sign,
        Err(error) => return Ok(Seen::Not(error.to_string())),
    };
    let file = sight.mount.path_on(&source.segments_mount, &sign.file());
    let sql = match segments::ask_who_sees(&file) {
        Ok(sql) => sql,
        Err(error) => return Ok(Seen::Not(error.to_string())),
    };
    let mut rows = Vec::new();
    let looked = questions.look(sql, "having its segments look at the mount", |row| {
        rows.push(crate::source::postgres::fields(row).into_iter().flatten().collect::<String>());
    });
    match looked {
        Ok(()) => Ok(segments::read_who_sees(rows.iter().map(String::as_str), sign.text(), primaries)),
        // The server refused: that is an answer.
        Err(error @ SourceError::Failed { .. }) => Ok(Seen::Not(error.to_string())),
        Err(error) => Err(error),
    }
}

impl Methods {
    /// The order, by the way that was chosen for it.
    ///
    /// # Errors
    /// [`UnitFailure`] where the inventory says `segments` and that cannot be.
    pub(super) fn apply<'a>(
        &self,
        order: Order<'a>,
        sources: &Asked<SourceCatalog>,
    ) -> Result<Order<'a>, UnitFailure> {
        let Some(chosen) = self.by.get(&order.index) else { return Ok(order) };
        let Spread { primaries, by_columns } = chosen.clone()?;
        let unit = order.unit;
        let catalog = sources.get(&*unit.key.source).and_then(|asked| asked.as_ref().ok());
        let described = catalog.and_then(|catalog| catalog.columns(&unit.table)).unwrap_or_default();
        match segments::columns(&order.columns, described, by_columns) {
            Some(columns) => {
                let segments = Some(Arc::new(BySegments { primaries, columns }));
                Ok(Order { segments, small: false, ..order })
            }
            None if unit.entry.export.method == ExportMethod::Segments => {
                let error = format!("the types of the columns of {} cannot stand in a statement", unit.table);
                Err(UnitFailure::new(Stage::Check, error, "write `export: { method: copy }` for it"))
            }
            None => Ok(order),
        }
    }
}
