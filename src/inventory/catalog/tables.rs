//! Rows of `tables`: which table of which source, and how it is cut.

use std::collections::{BTreeMap, BTreeSet};

use super::nodes::{scalar, text};
use super::origin::{Row, shown};
use super::sheet::{Notes, Sheet};
use super::times::length;
use super::{Fetched, Field, SourceRule, Way, Which};
use crate::inventory::yaml::{Node, Value};
use crate::names::TableName;

/// A row of `tables`.
pub(super) struct Table {
    pub(super) row: Row,
    pub(super) source: String,
    pub(super) name: TableName,
    pub(super) column: Option<Node>,
    pub(super) length: Option<Node>,
    pub(super) mode: Option<Node>,
}

/// The rows of `tables` that are to be moved, by group.
pub(super) fn read(notes: &mut Notes<'_>, fetched: &Fetched, way: Way) -> BTreeMap<String, Vec<Table>> {
    let mut groups: BTreeMap<String, Vec<Table>> = BTreeMap::new();
    let sheet = fetched.tables.as_ref().and_then(|answer| Sheet::open(notes, Which::Tables, answer));
    let Some(sheet) = sheet else { return groups };
    let mut seen = BTreeSet::new();
    for (number, cells) in sheet.rows.iter().enumerate() {
        let row = notes.row(Some(Which::Tables), &told(&sheet, cells, number));
        match sheet.valid(notes, row, cells) {
            Some(true) => {}
            Some(false) => {
                notes.finding(row, "its valid flag says no: the table is left out");
                continue;
            }
            None => continue,
        }
        let group = sheet.need(notes, row, cells, Field::Group);
        let Some(table) = read_table(notes, &sheet, row, cells) else { continue };
        let Some(group) = group else { continue };
        if !seen.insert((table.source.clone(), table.name.clone())) && way == Way::LeaveOut {
            notes.finding(row, "the table is listed twice: the first row is taken");
            continue;
        }
        groups.entry(group.to_owned()).or_default().push(table);
    }
    for tables in groups.values_mut() {
        tables.sort_by(|a, b| (&a.source, &a.name).cmp(&(&b.source, &b.name)));
    }
    groups
}

/// How a row is told: by its key columns.
fn told(sheet: &Sheet<'_>, cells: &[Option<String>], number: usize) -> String {
    let keys: Vec<&str> = [Field::Database, Field::Schema, Field::Table]
        .into_iter()
        .filter_map(|field| sheet.cell(cells, field))
        .collect();
    let group = sheet.cell(cells, Field::Group).map(|group| format!(" of group {}", shown(group)));
    let row = match keys.as_slice() {
        [] => format!("row {} of `tables`", number + 1),
        keys => format!("`tables` row {}", shown(&keys.join("."))),
    };
    format!("{row}{}", group.unwrap_or_default())
}

fn read_table(notes: &mut Notes<'_>, sheet: &Sheet<'_>, row: Row, cells: &[Option<String>]) -> Option<Table> {
    let schema = sheet.need(notes, row, cells, Field::Schema);
    let table = sheet.need(notes, row, cells, Field::Table);
    let source = source_of(notes, row, sheet.cell(cells, Field::Database));
    let mode = sheet.cell(cells, Field::Mode).map(|mode| read_mode(notes, row, mode));
    let (column, duration) = (sheet.cell(cells, Field::Window), sheet.cell(cells, Field::Duration));
    for value in [column, duration].into_iter().flatten() {
        notes.origins.hide(value);
    }
    let duration = duration.map(length);
    if let Some(Value::Text(text)) = &duration {
        notes.origins.hide(text);
    }
    let name = TableName::new(schema?, table?)
        .map_err(|_| notes.fault(row, Field::Table, "a control character stands in the name"))
        .ok()?;
    Some(Table {
        row,
        source: source?,
        name,
        column: column.map(|column| text(row, Field::Window, column)),
        length: duration.map(|length| scalar(row, Field::Duration, length)),
        mode: mode.flatten(),
    })
}

fn source_of(notes: &mut Notes<'_>, row: Row, database: Option<&str>) -> Option<String> {
    match (&notes.catalog.source, database) {
        (SourceRule::One { source, database: own }, Some(database)) if database != own => {
            let what = format!("it is in another database than source `{source}`, which has `{own}`");
            let remedy = "name a source for each database: `source: { qmsprd: fab1, mes: fab2 }`";
            notes.fault_of_row(row, what, remedy);
            None
        }
        (SourceRule::One { source, .. }, _) => Some(source.clone()),
        (SourceRule::ByDatabase(by), Some(database)) => {
            let found = by.get(database).cloned();
            if found.is_none() {
                let known: Vec<&str> = by.keys().map(String::as_str).collect();
                let remedy = format!("add it under `source:` of the catalog, which has {}", known.join(", "));
                notes.fault_of_row(row, "there is no source for its database", remedy);
            }
            found
        }
        (SourceRule::ByDatabase(_), None) => {
            notes.fault(row, Field::Database, "nothing stands here, and a value is needed");
            None
        }
        (SourceRule::NoTables, _) => None,
    }
}

fn read_mode(notes: &mut Notes<'_>, row: Row, mode: &str) -> Option<Node> {
    let word = mode.to_ascii_lowercase();
    if ["insert", "update", "merge", "replace"].contains(&word.as_str()) {
        return Some(text(row, Field::Mode, &word));
    }
    let remedy = "one of insert, update, merge, replace; where the column means something else, write \
         `columns: { mode: ~ }` under `tables:` of the catalog, and `load:` in `defaults:`";
    notes.fault_of_row(row, format!("{} is no load mode", shown(mode)), remedy);
    None
}
