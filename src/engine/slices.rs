//! Large units become slices, once the sources have said how large they are.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::explain;
use super::methods;
use super::prepare::{self, Asked, SourceCatalog};
use super::talks::Talks;
use crate::inventory::Inventory;
use crate::ledger::{Ledger, LedgerError};
use crate::names::TableName;
use crate::plan::slices::{Size, Told, Uncut, asked_for_plan, cut, may_be_cut};
use crate::plan::{Change, Note, Plan};
use crate::source::postgres::SourceFacts;
use crate::source::{SourceError, statistics};
use crate::stop::Stop;
use crate::unit::{Extent, Unit, UnitKey};

/// A plan whose large units are slices.
#[derive(Debug)]
pub struct Sliced {
    /// The plan. A unit that was cut has its first slice in its place; the others stand behind all units.
    pub plan: Plan,
    /// What was cut: nothing is left to do for it under that name.
    pub replaced: Vec<UnitKey>,
    /// For each unit of the plan, the place of the one that it is a slice of.
    pub of: HashMap<usize, usize>,
}

/// Cuts what is large among these units of a plan; `None` where nothing is. Tables that nobody can say the size of are
/// moved as they are.
///
/// # Errors
/// [`LedgerError`].
pub fn slice(
    inventory: &Inventory,
    plan: &Plan,
    among: &[usize],
    described: &Asked<SourceCatalog>,
    ledger: Option<&Ledger>,
    talks: &Talks,
    stop: &Stop,
) -> Result<Option<Sliced>, LedgerError> {
    let (mut wanted, mut notes) = (Vec::new(), BTreeSet::new());
    for &index in among {
        let unit = &plan.units[index];
        match is_large(inventory, unit, described).then(|| may_be_cut(unit)) {
            None => {}
            Some(Ok(())) => wanted.push(index),
            Some(Err(why)) => {
                notes.insert((unit.job.clone(), unit.table.to_string(), why.words()));
            }
        }
    }
    let sizes = if wanted.is_empty() {
        BTreeMap::new()
    } else {
        ask(inventory, wanted.iter().map(|&index| &plan.units[index]), talks, stop)
    };
    for (source, error) in sizes.iter().filter_map(|(name, asked)| Some((name, asked.as_ref().err()?))) {
        log::warn!(
            "source {source}: large units are moved in one piece, since it did not say how large they are: {error} (try: {})",
            error.remedy()
        );
    }
    let size_of = |index: &usize| {
        let unit = &plan.units[*index];
        let (facts, sizes) = sizes.get(&*unit.key.source)?.as_ref().ok()?;
        Some((*facts, sizes.get(&unit.table)?))
    };
    let known: Vec<_> = wanted.into_iter().filter_map(|index| Some((index, size_of(&index)?))).collect();
    let told = tell(inventory, plan, &known, described, ledger, talks, stop)?;
    let (mut slices, mut replaced, mut of) = (Vec::new(), Vec::new(), HashMap::new());
    let (next, mut begun) = (plan.units.len(), HashSet::new());
    for ((index, (facts, size)), told) in known.into_iter().zip(told) {
        let unit = &plan.units[index];
        let mut note = |why| {
            notes.insert((unit.job.clone(), unit.table.to_string(), why));
        };
        // While the first of a source is exported there is nothing yet to load.
        let ramp = !begun.contains(&*unit.key.source);
        match cut(unit, size, told, &inventory.timezone, ramp) {
            Ok(cut) if cut.is_empty() => {}
            Ok(cut) => {
                begun.insert(&*unit.key.source);
                if !facts.shares_snapshots() {
                    note(NO_SNAPSHOT);
                }
                if told.planned.is_some() {
                    note(BY_PLAN);
                }
                replaced.push(unit.key.clone());
                of.insert(index, index);
                let behind = next + slices.iter().map(|(_, rest): &(_, Vec<Unit>)| rest.len()).sum::<usize>();
                of.extend((behind..behind + cut.len() - 1).map(|place| (place, index)));
                let mut cut = cut.into_iter();
                slices.extend(cut.next().map(|first| ((index, first), cut.collect())));
            }
            Err(why @ (Uncut::Mode | Uncut::Key | Uncut::Skewed | Uncut::Scan)) => note(why.words()),
        }
    }
    if slices.is_empty() && notes.is_empty() {
        return Ok(None);
    }
    let mut plan = plan.clone();
    let (firsts, rest): (Vec<_>, Vec<_>) = slices.into_iter().unzip();
    for (index, first) in firsts {
        plan.units[index] = first;
    }
    plan.units.extend(rest.into_iter().flatten());
    plan.notes.extend(notes.into_iter().map(|(job, table, why)| Note {
        job: job.to_string(),
        table,
        change: Change::Large { why },
    }));
    Ok(Some(Sliced { plan, replaced, of }))
}

/// What a run would make of a plan, asking the sources about all of its units; `None` where nothing is large. Of a source
/// that cannot be asked it is only said.
///
/// # Errors
/// [`LedgerError`].
pub fn of_plan(
    inventory: &Inventory,
    plan: &Plan,
    ledger: Option<&Ledger>,
    talks: &Talks,
    stop: &Stop,
) -> Result<Option<Plan>, LedgerError> {
    let among: Vec<usize> = (0..plan.units.len()).filter(|&index| !plan.units[index].waits).collect();
    let units: Vec<&Unit> = among.iter().map(|&index| &plan.units[index]).collect();
    let described = prepare::describe(inventory, &units, &HashSet::new(), talks, stop);
    for (source, error) in described.iter().filter_map(|(name, asked)| Some((name, asked.as_ref().err()?))) {
        log::warn!("source {source} was not asked how large its tables are: {error}");
    }
    let sliced = slice(inventory, plan, &among, &described, ledger, talks, stop)?;
    let (mut plan, of) = match sliced {
        Some(Sliced { plan, of, .. }) => (plan, of),
        None => (plan.clone(), HashMap::new()),
    };
    let among: Vec<usize> = (0..plan.units.len()).filter(|&index| !plan.units[index].waits).collect();
    let asking = methods::Asking { inventory, sight: None, pool: talks, stop };
    let chosen = methods::choose(asking, &plan, &among, &of, &described);
    plan.notes.extend(chosen.notes);
    Ok(Some(plan))
}

/// What says how large each of these units is, beside the catalog: the ledger's last windows, and where neither does, the
/// plan of its query.
fn tell(
    inventory: &Inventory,
    plan: &Plan,
    known: &[(usize, (SourceFacts, &Size))],
    described: &Asked<SourceCatalog>,
    ledger: Option<&Ledger>,
    talks: &Talks,
    stop: &Stop,
) -> Result<Vec<Told>, LedgerError> {
    let (mut told, mut unsaid) = (Vec::with_capacity(known.len()), Vec::new());
    for (index, (_, size)) in known {
        let unit = &plan.units[*index];
        let windows = ledger.filter(|_| !unit.extent.is_whole());
        let lately = windows.map(|ledger| ledger.bytes_per_number(unit)).transpose()?.flatten();
        unsaid.extend(asked_for_plan(unit, size, lately).map(|asked| (*index, asked)));
        told.push(Told { lately, planned: None });
    }
    let planned = explain::ask(inventory, &unsaid, described, talks, stop);
    for ((index, _), told) in known.iter().zip(&mut told) {
        told.planned = planned.get(index).copied();
    }
    Ok(told)
}

const BY_PLAN: &str = "its size is an estimate by the plan of its query (EXPLAIN), since neither its last windows nor its catalog say it";

const NO_SNAPSHOT: &str =
    "its slices are read at different moments: the source's server cannot share a snapshot";

/// May a table be larger than its entry wants a piece to be? Where nobody knows, it may. How many of its rows are in no
/// window the table's size does not tell.
fn is_large(inventory: &Inventory, unit: &Unit, described: &Asked<SourceCatalog>) -> bool {
    if unit.extent == Extent::Nulls {
        return false;
    }
    let by_script = inventory.source(&unit.key.source).is_some_and(|source| source.argv().is_some());
    let Some(Ok(catalog)) = described.get(&*unit.key.source) else { return false };
    let Some(bytes) = catalog.bytes(&unit.table) else { return false };
    !by_script && bytes.is_none_or(|bytes| bytes > unit.entry.export.slice_bytes)
}

type Sizes = (SourceFacts, HashMap<TableName, Size>);

/// Asks the sources about the tables of these units: their size, and how the values are spread of the columns by which
/// they could be cut.
fn ask<'a>(
    inventory: &Inventory,
    units: impl Iterator<Item = &'a Unit> + Clone,
    talks: &Talks,
    stop: &Stop,
) -> Asked<Sizes> {
    let mut columns: HashMap<(&str, &TableName), BTreeSet<&str>> = HashMap::new();
    for unit in units.clone() {
        let of = columns.entry((&unit.key.source, &unit.table)).or_default();
        of.extend(unit.rows.measure.column());
    }
    let wanted = units.map(|unit| (&*unit.key.source, &unit.table));
    prepare::ask_about(inventory, wanted, talks, stop, |source, questions, facts, tables| {
        let mut sizes = HashMap::new();
        for &table in tables {
            let others: Vec<&str> =
                columns.get(&(source.name.as_str(), table)).into_iter().flatten().copied().collect();
            let mut size = Size::default();
            let what = format!("asking for the size of {table}");
            let mut ask = |sql, size: &mut Size| questions.ask(sql, &what, |row| statistics::take(size, row));
            let mut asked = ask(statistics::ask(facts, table, &others), &mut size);
            if asked.is_ok() && size.bytes.is_none() && facts.greenplum {
                asked = ask(statistics::ask_files(table), &mut size);
            }
            match asked {
                Ok(()) => drop(sizes.insert(table.clone(), size)),
                // Somebody holds it: it is moved in one piece.
                Err(error @ SourceError::Failed { .. }) => log::warn!("{}: {error}", source.name),
                Err(error) => return Err(error),
            }
        }
        Ok((facts, sizes))
    })
}
