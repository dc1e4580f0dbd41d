//! What was removed since it was old, or would be.

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::{JSON_VERSION, count};
use crate::prune::{Pruned, Swept};

/// For people: one line a kind, and every file where they are named.
pub fn text(pruned: &Pruned, only_look: bool) -> String {
    let mut text = String::new();
    for (what, swept) in kinds(pruned) {
        if swept.files == 0 {
            continue;
        }
        text.push_str(&format!("{}, {}\n", count(swept.files, what), HumanBytes(swept.bytes)));
        for path in &swept.paths {
            text.push_str(&format!("    {}\n", path.display()));
        }
    }
    if pruned.log.rows > 0 {
        let (rows, into) = (count(pruned.log.rows, "row"), count(pruned.log.into, "row"));
        text.push_str(&format!("{rows} of the load log into {into} for the same windows\n"));
    }
    for (number, what) in [
        (pruned.history.units, "loaded unit"),
        (pruned.history.attempts, "attempt"),
        (pruned.history.runs, "run"),
        (pruned.history.alarms, "alarm"),
        (pruned.history.differences, "mended difference"),
    ] {
        if number > 0 {
            text.push_str(&format!("{} of the ledger\n", count(number, what)));
        }
    }
    if pruned.log.in_use {
        text.push_str("the load log is in use by loaders: its rows are left for the next time\n");
    }
    match (text.is_empty(), only_look) {
        (true, _) => "nothing is older than `keep` says\n".into(),
        (false, true) => format!("would be removed:\n{text}"),
        (false, false) => format!("removed:\n{text}"),
    }
}

/// In one line, for the log.
pub fn line(pruned: &Pruned) -> String {
    text(pruned, false).trim_end().replace('\n', "; ").replacen(":;", ":", 1)
}

fn kinds(pruned: &Pruned) -> [(&'static str, &Swept); 3] {
    [("file", &pruned.files), ("file of rejects", &pruned.rejects), ("manifest", &pruned.manifests)]
}

/// For programs.
pub fn json(pruned: &Pruned, only_look: bool) -> Value {
    let swept = |swept: &Swept| {
        let mut value = json!({ "files": swept.files, "bytes": swept.bytes });
        if !swept.paths.is_empty() {
            value["paths"] = swept.paths.iter().map(|path| path.display().to_string()).collect();
        }
        value
    };
    json!({
        "version": JSON_VERSION,
        "dry_run": only_look,
        "files": swept(&pruned.files),
        "rejects": swept(&pruned.rejects),
        "manifests": swept(&pruned.manifests),
        "load_log": { "rows": pruned.log.rows, "into": pruned.log.into, "in_use": pruned.log.in_use },
        "ledger": {
            "units": pruned.history.units, "attempts": pruned.history.attempts, "runs": pruned.history.runs,
            "alarms": pruned.history.alarms, "differences": pruned.history.differences,
        },
        "problems": pruned.problems.iter().map(|problem| json!({
            "error": problem.to_string(), "remedy": problem.remedy(),
        })).collect::<Vec<_>>(),
    })
}
