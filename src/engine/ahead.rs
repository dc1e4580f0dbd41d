//! Export sessions that are begun while the rest of a plan is still being asked for.

use std::collections::BTreeMap;

use super::Ground;
use super::prepare::{Asked, SourceCatalog};
use crate::plan::slices::may_be_cut;

/// Begins the sessions that the exports of these units will want, beside the one in which each source was asked. Where
/// nobody knows how large a table is, one more may be wanted later, and is begun then.
pub(super) fn begin(ground: Ground<'_>, to_export: &[usize], sources: &Asked<SourceCatalog>) {
    let Ground { plan, inventory, run, pool, stop, .. } = ground;
    let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
    for &index in to_export {
        let unit = &plan.units[index];
        let catalog = sources.get(&*unit.key.source).and_then(|asked| asked.as_ref().ok());
        let bytes = catalog.and_then(|catalog| catalog.bytes(&unit.table)).flatten();
        let is_cut =
            bytes.is_some_and(|bytes| bytes > unit.entry.export.slice_bytes) && may_be_cut(unit).is_ok();
        // As many slices as there are sessions, or nearly.
        let sessions = if is_cut { usize::MAX } else { 1 };
        let of_source = wanted.entry(&unit.key.source).or_default();
        *of_source = of_source.saturating_add(sessions);
    }
    for source in &inventory.sources {
        let many = wanted.get(source.name.as_str()).copied().unwrap_or(0).min(source.sessions);
        if many > 1 && sources.get(&source.name).is_some_and(Result::is_ok) {
            pool.begin_ahead(source, many - 1, &run.id, stop);
        }
    }
}
