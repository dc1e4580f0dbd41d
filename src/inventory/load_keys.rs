//! The keys of `load` beyond mode and key columns: what is updated, computed, run beside it, and kept out.

use super::fault::Fault;
use super::model::{Duplicates, Inventory, LoadMode, LoadRule, RejectLimit, Rejects, TableEntry, WindowRule};
use super::reader::{At, Fields, Reader};
use super::scalars::{any_text, text, word};
use super::top::Written;
use super::yaml::Value;
use crate::sql::{Condition, Statement};

/// All keys of `load`.
pub(super) const KNOWN: &[&str] = &[
    "mode",
    "match",
    "update_columns",
    "update_condition",
    "mapping",
    "before",
    "after",
    "truncate",
    "duplicates",
    "on_pk_violation",
    "reject_limit",
    "rejects",
    "timeout",
    "lock_timeout",
];

const DUPLICATES: &str = "duplicates: refuse, or duplicates: last by upd_time";

/// What one layer says of them, or several laid over each other.
#[derive(Debug, Clone, Default)]
pub(super) struct LoadKeys {
    update_columns: Option<Vec<String>>,
    update_condition: Option<Condition>,
    mapping: Option<Vec<(String, Condition)>>,
    before: Option<Vec<Statement>>,
    after: Option<Vec<Statement>>,
    truncate: Option<bool>,
    duplicates: Option<Duplicates>,
    reject_limit: Option<RejectLimit>,
    rejects: Option<Rejects>,
}

impl LoadKeys {
    pub(super) fn read(reader: &mut Reader, fields: &Fields<'_>) -> Self {
        const REJECTS: [(&str, Rejects); 2] = [("fail", Rejects::Fail), ("allow", Rejects::Allow)];
        const YES_NO: [(&str, bool); 2] = [("true", true), ("false", false)];
        Self {
            update_columns: fields
                .get("update_columns")
                .map(|at| columns(reader, &at, "update_columns: [\"price\"]")),
            update_condition: fields.get("update_condition").and_then(|at| {
                let example = "update_condition: \"from_table.upd_time > into_table.upd_time\"";
                expression(reader, &at, example)
            }),
            mapping: fields.get("mapping").map(|at| read_mapping(reader, &at)),
            before: fields.get("before").map(|at| statements(reader, &at, "before")),
            after: fields.get("after").map(|at| statements(reader, &at, "after")),
            truncate: fields.get("truncate").and_then(|at| match &at.node.value {
                Value::Bool(value) => Some(*value),
                _ => word(reader, &at, &YES_NO),
            }),
            duplicates: fields.get("duplicates").and_then(|at| read_duplicates(reader, &at)),
            reject_limit: fields.get("reject_limit").and_then(|at| read_limit(reader, &at)),
            rejects: fields.get("rejects").and_then(|at| word(reader, &at, &REJECTS)),
        }
    }

    /// These where they say something, those below where not.
    pub(super) fn over(self, below: &LoadKeys) -> LoadKeys {
        LoadKeys {
            update_columns: self.update_columns.or_else(|| below.update_columns.clone()),
            update_condition: self.update_condition.or_else(|| below.update_condition.clone()),
            mapping: self.mapping.or_else(|| below.mapping.clone()),
            before: self.before.or_else(|| below.before.clone()),
            after: self.after.or_else(|| below.after.clone()),
            truncate: self.truncate.or(below.truncate),
            duplicates: self.duplicates.or_else(|| below.duplicates.clone()),
            reject_limit: self.reject_limit.or(below.reject_limit),
            rejects: self.rejects.or(below.rejects),
        }
    }

    /// A rule with these keys in it.
    pub(super) fn complete(&self, rule: LoadRule) -> LoadRule {
        let default = LoadRule::default();
        LoadRule {
            update_columns: self.update_columns.clone().unwrap_or_default(),
            update_condition: self.update_condition.clone(),
            mapping: self.mapping.clone().unwrap_or_default(),
            before: self.before.clone().unwrap_or_default(),
            after: self.after.clone().unwrap_or_default(),
            truncate: self.truncate.unwrap_or(default.truncate),
            duplicates: self.duplicates.clone().unwrap_or(default.duplicates),
            reject_limit: self.reject_limit.unwrap_or(default.reject_limit),
            rejects: self.rejects.unwrap_or(default.rejects),
            ..rule
        }
    }
}

/// A list of column names, none of them twice.
pub(super) fn columns(reader: &mut Reader, at: &At<'_>, example: &str) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    for item in reader.items(at, example) {
        let Some(column) = text(reader, &item, example) else { continue };
        if columns.iter().any(|known| known == column) {
            let shown = reader.secrets.echo(column);
            reader.fault(&item, format!("{shown} stands twice in the list"), "name each column once");
        }
        columns.push(column.to_owned());
    }
    columns
}

fn expression(reader: &mut Reader, at: &At<'_>, example: &str) -> Option<Condition> {
    let written = any_text(reader, at, example)?;
    Condition::parse(written)
        .map_err(|error| reader.fault(at, error.to_string(), format!("one expression, as in {example}")))
        .ok()
}

fn read_mapping(reader: &mut Reader, at: &At<'_>) -> Vec<(String, Condition)> {
    let example = "mapping: { price: \"CAST(amount AS numeric) / 100\" }";
    let entries = reader.entries(at, example);
    entries
        .into_iter()
        .filter_map(|(key, at)| Some((key.text.to_string(), expression(reader, &at, example)?)))
        .collect()
}

/// One statement, or a list of them.
fn statements(reader: &mut Reader, at: &At<'_>, key: &str) -> Vec<Statement> {
    let example = format!("{key}: [ \"SELECT eda.refresh()\" ]");
    let items = match &at.node.value {
        Value::List(_) => reader.items(at, &example),
        _ => vec![at.clone()],
    };
    items
        .iter()
        .filter_map(|item| {
            let written = any_text(reader, item, &example)?;
            Statement::parse(written)
                .map_err(|error| reader.fault(item, error.to_string(), format!("write it as {example}")))
                .ok()
        })
        .collect()
}

fn read_duplicates(reader: &mut Reader, at: &At<'_>) -> Option<Duplicates> {
    let written = text(reader, at, DUPLICATES)?;
    let column = written.strip_prefix("last by ").map(str::trim).filter(|column| !column.is_empty());
    match (written, column) {
        ("refuse", _) => Some(Duplicates::Refuse),
        (_, Some(column)) => Some(Duplicates::LastBy(column.to_owned())),
        (_, None) => {
            let shown = reader.secrets.echo(written);
            let what = format!("{shown} does not say which of two rows with one key wins");
            reader.fault(at, what, format!("write it as {DUPLICATES}"));
            None
        }
    }
}

fn read_limit(reader: &mut Reader, at: &At<'_>) -> Option<RejectLimit> {
    const EXAMPLE: &str = "reject_limit: 10 rows, or reject_limit: 0.5 %";
    let written = match &at.node.value {
        Value::Number(number) => number,
        _ => text(reader, at, EXAMPLE)?,
    };
    let limit = limit(written);
    if limit.is_none() {
        let shown = reader.secrets.echo(written);
        let what = format!("{shown} is neither a number of rows nor a percentage up to 100");
        reader.fault(at, what, format!("write it as {EXAMPLE}"));
    }
    limit
}

fn limit(written: &str) -> Option<RejectLimit> {
    let written = written.trim();
    if let Some(percent) = written.strip_suffix('%') {
        let percent: f64 = percent.trim().parse().ok().filter(|percent| (0.0..=100.0).contains(percent))?;
        // Between 0 and 10,000.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
        let points = (percent * 100.0).round() as u32;
        return Some(RejectLimit::BasisPoints(points));
    }
    let rows = written.strip_suffix("rows").or_else(|| written.strip_suffix("row")).unwrap_or(written);
    rows.trim().parse().ok().map(RejectLimit::Rows)
}

/// Keys that a table's own `load` holds and its mode has no use for: what is read and ignored would be a lie. Above
/// the table they are for those tables that have a use for them.
pub(super) fn check(reader: &mut Reader, inventory: &Inventory, written: &Written) {
    for (job, (_, tables)) in inventory.jobs.iter().zip(&written.jobs) {
        for (entry, path) in job.tables.iter().zip(tables) {
            for (key, why, remedy) in useless(entry) {
                let path = format!("{path}.load.{key}");
                if reader.is_written(&path) {
                    reader.add(Fault::new(reader.place(&path), path, why, remedy));
                }
            }
            if entry.load.truncate && entry.load.mode == LoadMode::Replace && !is_whole(entry) {
                let path = format!("{path}.load.truncate");
                let why =
                    "`truncate` would take more than what is replaced: the table has a window or a `where`";
                reader.add(Fault::new(
                    reader.place(&path),
                    path,
                    why,
                    "remove it: what is replaced is deleted",
                ));
            }
        }
    }
}

fn is_whole(entry: &TableEntry) -> bool {
    matches!(entry.window, WindowRule::None { .. }) && entry.filter.is_none()
}

/// Keys without use in this entry, why, and what to do.
fn useless(entry: &TableEntry) -> Vec<(&'static str, &'static str, &'static str)> {
    const UPDATES: &str = "remove it, or write `mode: merge` or `mode: update` beside it";
    let mut found = Vec::new();
    let updates = matches!(entry.load.mode, LoadMode::Update | LoadMode::Merge)
        || entry.load.on_pk_violation == super::model::OnPkViolation::Merge;
    if !updates {
        found.push(("update_columns", "nothing is updated in this mode", UPDATES));
        found.push(("update_condition", "nothing is updated in this mode", UPDATES));
        found.push((
            "duplicates",
            "keys within the file matter in modes `update` and `merge` alone",
            UPDATES,
        ));
    }
    if entry.load.mode != LoadMode::Replace {
        let why = "a table is emptied in mode `replace` alone";
        found.push(("truncate", why, "remove it, or write `mode: replace` beside it"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_of_rows_or_a_part_of_them() {
        for (text, shown) in [
            ("10 rows", "10 rows"),
            ("1 row", "1 row"),
            ("0", "0 rows"),
            ("5%", "5 %"),
            (" 0.25 % ", "0.25 %"),
        ] {
            assert_eq!(limit(text).unwrap().to_string(), shown);
        }
        for text in ["", "-1", "10 lines", "101 %", "NaN %", "% 5"] {
            assert_eq!(limit(text), None, "{text:?}");
        }
        assert_eq!(RejectLimit::BasisPoints(50).of(1_999), 9);
        assert_eq!(RejectLimit::BasisPoints(10_000).of(u64::MAX), u64::MAX);
    }
}
