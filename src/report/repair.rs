//! What a repair did: a line for each window that differed.

use comfy_table::CellAlignment;
use serde_json::{Value, json};

use super::{JSON_VERSION, block, count, table, trimmed};
use crate::plan::Compared;
use crate::step::UnitFailure;
use crate::step::compare::Difference;
use crate::unit::Extent;

/// A window that differed.
#[derive(Debug)]
pub struct Mended<'a> {
    /// Its table.
    pub compared: &'a Compared,
    /// Which.
    pub extent: Extent,
    /// How it differed.
    pub difference: Difference,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a window.
#[derive(Debug)]
pub enum Fate {
    /// It would be moved again, in this mode.
    Would(&'static str),
    /// It was moved again, and agrees.
    Agrees {
        /// Rows that were moved.
        rows: u64,
    },
    /// It was moved again, and differs still.
    Differs(Difference),
    /// It was moved again, and could not be compared.
    Unknown(String),
    /// It was not moved, and why.
    Left(String),
    /// It could not be moved.
    Failed(Box<UnitFailure>),
}

impl Fate {
    fn word(&self) -> &'static str {
        match self {
            Fate::Would(_) => "would_move",
            Fate::Agrees { .. } => "repaired",
            Fate::Differs(_) => "differs",
            Fate::Unknown(_) => "unknown",
            Fate::Left(_) => "left",
            Fate::Failed(_) => "failed",
        }
    }

    fn words(&self) -> String {
        match self {
            Fate::Would(mode) => format!("would be moved again ({mode})"),
            Fate::Agrees { rows } => format!("moved again ({}), equal", count(*rows, "row")),
            Fate::Differs(left) => format!(
                "moved again, DIFFERS still: {} missing, {} only in the target, {} changed",
                left.missing, left.extra, left.changed
            ),
            Fate::Unknown(_) => "moved again, NOT COMPARED".into(),
            Fate::Left(_) => "left as it is".into(),
            Fate::Failed(_) => "FAILED".into(),
        }
    }
}

/// For people.
pub fn text(mended: &[Mended<'_>], healed: usize, width: u16) -> String {
    let mut text = String::new();
    if !mended.is_empty() {
        let mut shown = table(&["JOB", "TABLE", "WINDOW", "MISSING", "EXTRA", "CHANGED", "RESULT"]);
        for column in shown.column_iter_mut().skip(3).take(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for one in mended {
            shown.add_row([
                one.compared.job.clone(),
                one.compared.target.to_string(),
                one.extent.to_string(),
                one.difference.missing.to_string(),
                one.difference.extra.to_string(),
                one.difference.changed.to_string(),
                one.fate.words(),
            ]);
        }
        text.push_str(&trimmed(&shown));
    }
    for one in mended {
        let (error, remedy) = match &one.fate {
            Fate::Failed(failure) => (failure.error.as_str(), Some(failure.remedy.as_str())),
            Fate::Left(why) | Fate::Unknown(why) => (why.as_str(), None),
            Fate::Would(_) | Fate::Agrees { .. } | Fate::Differs(_) => continue,
        };
        text.push_str(&format!("\n{} {}:\n", one.compared.target, one.extent));
        text.push_str(&block("    ", error, width));
        remedy.iter().for_each(|remedy| text.push_str(&block("    try: ", remedy, width)));
    }
    let of = |word: &str| mended.iter().filter(|one| one.fate.word() == word).count() as u64;
    let parts = [
        (of("would_move"), "would be moved again"),
        (of("repaired"), "repaired"),
        (of("differs") + of("unknown"), "moved again and not known to be equal"),
        (of("left"), "left as they are"),
        (of("failed"), "failed"),
        (healed as u64, "equal by now, and not moved"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, words)| format!("{}: {words}", count(*number, "window")))
        .collect();
    if parts.is_empty() {
        text.push_str("nothing is known to differ; `gpferry compare` looks\n");
    } else {
        text.push_str(&format!("\n{}\n", parts.join(", ")));
    }
    text
}

/// For programs.
pub fn json(run: Option<&str>, mended: &[Mended<'_>], healed: usize, exit_code: u8) -> Value {
    let windows: Vec<Value> = mended
        .iter()
        .map(|one| {
            let unit = one.compared.unit(one.extent);
            let mut value = super::plan::unit(&unit);
            let (error, remedy, rows) = match &one.fate {
                Fate::Failed(failure) => (Some(failure.error.clone()), Some(failure.remedy.clone()), None),
                Fate::Left(why) | Fate::Unknown(why) => (Some(why.clone()), None, None),
                Fate::Agrees { rows } => (None, None, Some(*rows)),
                Fate::Would(_) | Fate::Differs(_) => (None, None, None),
            };
            let more = json!({ "difference": one.difference, "result": one.fate.word(), "error": error,
                               "remedy": remedy, "rows": rows });
            if let (Some(value), Some(more)) = (value.as_object_mut(), more.as_object()) {
                value.extend(more.clone());
            }
            value
        })
        .collect();
    json!({ "version": JSON_VERSION, "run": run, "windows": windows, "equal_by_now": healed, "exit_code": exit_code })
}
