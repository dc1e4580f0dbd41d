//! Which row of which catalog a node came from, so that a fault in it names the row and not a line of a file.
//!
//! A node that a row gave has a place beyond the longest file: its line is the row's number, its column that of
//! the field. So whatever reads the tree needs to know nothing of catalogs.

use std::collections::{BTreeMap, HashSet};

use super::{Field, JobCatalog, Which};
use crate::inventory::fault::{Fault, Place};
use crate::inventory::reader::join;
use crate::inventory::secrets::Secrets;
use crate::inventory::yaml::MAX_BYTES;

/// No line of a file has this number.
const FIRST: usize = MAX_BYTES + 2;
const FIELDS: [Field; 12] = [
    Field::Database,
    Field::Schema,
    Field::Table,
    Field::Window,
    Field::Duration,
    Field::Group,
    Field::Valid,
    Field::Mode,
    Field::Start,
    Field::End,
    Field::FinalEnd,
    Field::Hours,
];

/// The rows that nodes came from.
#[derive(Debug, Default)]
pub(in crate::inventory) struct Origins {
    rows: Vec<Origin>,
    hidden: HashSet<String>,
}

#[derive(Debug)]
struct Origin {
    catalog: String,
    /// Where the catalog stands in the file.
    place: Place,
    row: String,
    columns: BTreeMap<Field, String>,
}

/// One row, and with `at` a field of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row(usize);

impl Row {
    /// The row as a whole.
    pub(super) fn place(self) -> Place {
        Place { line: FIRST + self.0, column: 1 }
    }

    /// A field of it.
    pub(super) fn at(self, field: Field) -> Place {
        let number = FIELDS.iter().position(|known| *known == field).unwrap_or_default();
        Place { line: FIRST + self.0, column: number + 2 }
    }
}

impl Origins {
    /// A row that is told by `keys`.
    pub(super) fn add(&mut self, catalog: &JobCatalog, which: Option<Which>, keys: &str) -> Row {
        let query = match which {
            Some(Which::Tables) => catalog.tables.as_ref(),
            Some(Which::Jobs) => catalog.jobs.as_ref(),
            None => None,
        };
        self.rows.push(Origin {
            catalog: catalog.name.clone(),
            place: catalog.place,
            row: keys.to_owned(),
            columns: query.map(|query| query.columns.clone()).unwrap_or_default(),
        });
        Row(self.rows.len() - 1)
    }

    /// How a row is told.
    pub(super) fn row(&self, row: Row) -> &str {
        self.rows.get(row.0).map_or("", |origin| &origin.row)
    }

    /// Remembers a value that no message shows.
    pub(super) fn hide(&mut self, value: &str) {
        self.hidden.insert(value.to_owned());
    }

    /// Those values.
    pub(in crate::inventory) fn hidden(&self) -> HashSet<String> {
        self.hidden.clone()
    }

    /// The row that a place means; `None` for a place in the file.
    pub(in crate::inventory) fn described(&self, place: Place) -> Option<String> {
        let origin = self.rows.get(place.line.checked_sub(FIRST)?)?;
        Some(format!("catalog {}, {}", origin.catalog, origin.row))
    }

    /// A fault of a row, told as one; any other as it is.
    pub(in crate::inventory) fn told(&self, fault: Fault) -> Fault {
        let Some(origin) = fault.place.line.checked_sub(FIRST).and_then(|row| self.rows.get(row)) else {
            return fault;
        };
        let field = fault.place.column.checked_sub(2).and_then(|number| FIELDS.get(number)).copied();
        let column = field.and_then(|field| origin.columns.get(&field));
        let at = column.map(|column| format!(", column {}", shown(column))).unwrap_or_default();
        let remedy = match (field, column) {
            (Some(field), Some(_)) => {
                let none = match Which::needs(field) {
                    true => String::new(),
                    false => format!(", or none (`{}: ~`)", field.word()),
                };
                let wanted = field.wanted();
                format!("{wanted}; correct it in the database, or name another column{none}")
            }
            _ => fault.remedy,
        };
        let key = join("catalog", &origin.catalog);
        Fault::new(origin.place, key, format!("{}{at}: {}", origin.row, fault.what), remedy)
    }
}

/// A text of a catalog for a message: in backquotes, on one line, cut.
pub(super) fn shown(text: &str) -> String {
    Secrets::default().echo(text)
}
