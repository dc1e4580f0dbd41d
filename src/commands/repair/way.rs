//! How a window that differs is moved again: decided from what was compared. Pure.

use std::sync::Arc;

use crate::inventory::{LoadMode, LoadRule, OnPkViolation};
use crate::step::compare::Difference;
use crate::step::load::Proof;
use crate::unit::{Extent, Unit};

/// A window that differs, as it was just compared.
pub(super) struct Differing {
    pub(super) table: usize,
    pub(super) extent: Extent,
    pub(super) difference: Difference,
    /// Columns by which its rows are found, where there are such.
    pub(super) key: Option<Vec<String>>,
    pub(super) proof: Option<Proof>,
}

/// How a window is moved again.
pub(super) enum Way {
    /// What is there goes, as long as it is what was compared.
    Replace,
    /// What is there goes, whatever it is.
    ReplaceAll,
    /// Rows are updated and inserted; what only the target has stays.
    Merge,
    /// It is not.
    Leave(&'static str),
}

/// Decides how a window is moved again. `mixed`: rows of others stand in it too, which a replacement would take away.
pub(super) fn way(differing: &Differing, delete_extra: bool, mixed: bool) -> Way {
    let Difference { missing, extra, changed, exact } = differing.difference;
    if mixed {
        return match &differing.key {
            Some(_) if missing + changed > 0 || !exact => Way::Merge,
            Some(_) | None => Way::Leave(
                "others fill the table too (`compare.where`), so it is not emptied: delete by hand what is too much",
            ),
        };
    }
    match (extra == 0 && exact, delete_extra, missing + changed == 0 && exact, &differing.key) {
        (true, _, _, _) => Way::Replace,
        (false, true, _, _) => Way::ReplaceAll,
        (false, false, true, _) => Way::Leave(
            "only the target has these rows; `--delete-extra` deletes what the source does not have",
        ),
        (false, false, false, Some(_)) => Way::Merge,
        (false, false, false, None) => Way::Leave(
            "rows of it are in the target alone, and without a key nobody can tell which: `--delete-extra` replaces the \
             window, and `compare: { key: [ … ] }` names a key",
        ),
    }
}

/// A unit that takes the place of what is there.
pub(super) fn again(unit: Unit, differing: &Differing, way: &Way) -> Option<Unit> {
    let written = LoadRule::clone(&unit.entry.load);
    let key = differing.key.clone().unwrap_or_default();
    let load = match way {
        Way::Leave(_) => return None,
        Way::Replace | Way::ReplaceAll => LoadRule {
            mode: LoadMode::Replace,
            // A row of it that stands in another window by now is found by its key.
            on_pk_violation: if key.is_empty() { OnPkViolation::Rollback } else { OnPkViolation::Merge },
            match_columns: key,
            truncate: false,
            update_condition: None,
            ..written
        },
        Way::Merge => LoadRule {
            mode: LoadMode::Merge,
            match_columns: key,
            update_condition: None,
            truncate: false,
            ..written
        },
    };
    let mut entry = (*unit.entry).clone();
    entry.load = Arc::new(load);
    // One window, one transaction.
    entry.export.slice_bytes = u64::MAX;
    Some(Unit { entry: Arc::new(entry), ..unit })
}
