//! Units whose size nothing else says: the sources are asked what plan they have for their queries.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::prepare::{self, Asked, SourceCatalog};
use super::talks::Talks;
use crate::inventory::Inventory;
use crate::source::postgres::SourceTable;
use crate::source::{Questions, SourceError, explain, rows};
use crate::stop::Stop;
use crate::unit::Unit;

/// How long a server may think about one plan.
const EACH: Duration = Duration::from_secs(5);
/// How long all of a run's plans may take: whoever waits for more would have moved it by then.
const ALL: Duration = Duration::from_secs(30);

/// A unit, by its place in the plan, and the query whose plan says how large it is.
type Wanted<'a> = (usize, &'a Unit, String);

/// About how many bytes of CSV these units are, by their place in the plan. Whatever cannot be asked for is left out, and
/// only said: it is moved in one piece.
pub(super) fn ask(
    inventory: &Inventory,
    units: &[(usize, Unit)],
    described: &Asked<SourceCatalog>,
    talks: &Talks,
    stop: &Stop,
) -> HashMap<usize, u64> {
    let mut by_source: BTreeMap<&str, Vec<Wanted<'_>>> = BTreeMap::new();
    for (index, unit) in units {
        let catalog = described.get(&*unit.key.source).and_then(|asked| asked.as_ref().ok());
        let table = catalog.and_then(|catalog| catalog.table(&unit.table));
        if let Some(sql) = table.and_then(|table| query(inventory, unit, table)) {
            by_source.entry(&unit.key.source).or_default().push((*index, unit, sql));
        }
    }
    if by_source.is_empty() {
        return HashMap::new();
    }
    let until = Instant::now() + ALL;
    let sources = inventory.sources.iter().filter(|source| by_source.contains_key(source.name.as_str()));
    let asked = prepare::ask_each(sources.collect(), talks, stop, "catalog", |source, questions| {
        let wanted = by_source.get(source.name.as_str()).map_or(&[][..], Vec::as_slice);
        plans(&source.name, wanted, questions, until, stop)
    });
    let mut known = HashMap::new();
    for (source, plans) in asked {
        match plans {
            Ok(plans) => known.extend(plans),
            Err(error) => log::warn!(
                "source {source}: units of unknown size are moved in one piece, since it did not explain their queries: \
                 {error} (try: {})",
                error.remedy()
            ),
        }
    }
    known
}

/// Asks one source, one plan after another.
fn plans(
    source: &str,
    wanted: &[Wanted<'_>],
    questions: &mut Questions<'static>,
    until: Instant,
    stop: &Stop,
) -> Result<Vec<(usize, u64)>, SourceError> {
    questions.limit(EACH);
    let (mut known, mut refused, mut left) = (Vec::new(), HashSet::new(), 0);
    for (index, unit, sql) in wanted {
        // What fails for one window of a table fails for the next.
        if refused.contains(&unit.table) {
            continue;
        }
        if stop.asked() || Instant::now() >= until {
            left += 1;
            continue;
        }
        let mut bytes = None;
        let what = format!("asking for the plan of {}", unit.key);
        match questions.explain(sql.clone(), &what, |line| bytes = explain::read(line)) {
            Ok(()) => {
                log::debug!("{source}: {} is about {bytes:?} bytes, by its plan", unit.key);
                known.extend(bytes.map(|bytes| (*index, bytes)));
            }
            Err(error @ SourceError::Failed { .. }) => {
                log::warn!(
                    "source {source}: {} is moved in one piece, since nobody says how large it is: {error} (try: {})",
                    unit.table,
                    error.remedy()
                );
                refused.insert(&unit.table);
            }
            Err(error) => return Err(error),
        }
    }
    if left > 0 && !stop.asked() {
        log::warn!(
            "source {source}: {left} units of unknown size are moved in one piece: the plans of others took too long"
        );
    }
    Ok(known)
}

/// The query of a unit's rows; `None` where it cannot be written, as its export will say.
fn query(inventory: &Inventory, unit: &Unit, table: &SourceTable) -> Option<String> {
    let columns: Vec<String> =
        table.columns.iter().filter(|column| !column.generated).map(|column| column.name.clone()).collect();
    let condition = rows::condition(unit, table, &inventory.timezone).ok()?;
    (!columns.is_empty()).then(|| rows::export_query(&unit.table, &columns, &condition))
}
