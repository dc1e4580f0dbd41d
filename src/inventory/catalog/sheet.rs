//! The answer of one query, cell by cell: which column means what, and what a row lacks.

use std::collections::BTreeMap;

use super::origin::{Row, shown};
use super::{Answer, CatalogQuery, Field, Finding, JobCatalog, Origins, Which};
use crate::inventory::fault::{Fault, Place};
use crate::inventory::reader::join;

/// What was found so far in one catalog.
pub(super) struct Notes<'a> {
    pub(super) catalog: &'a JobCatalog,
    pub(super) origins: &'a mut Origins,
    pub(super) faults: &'a mut Vec<Fault>,
    pub(super) findings: &'a mut Vec<Finding>,
}

impl Notes<'_> {
    /// A row that is told by these keys.
    pub(super) fn row(&mut self, which: Option<Which>, keys: &str) -> Row {
        self.origins.add(self.catalog, which, keys)
    }

    /// Something is wrong with a field of a row.
    pub(super) fn fault(&mut self, row: Row, field: Field, what: impl Into<String>) {
        let fault = Fault::new(row.at(field), "", what, "correct it in the database");
        self.faults.push(self.origins.told(fault));
    }

    /// Something is wrong with a row, and this is what to try.
    pub(super) fn fault_of_row(&mut self, row: Row, what: impl Into<String>, remedy: impl Into<String>) {
        let fault = Fault::new(row.place(), "", what, remedy);
        self.faults.push(self.origins.told(fault));
    }

    /// Something is odd.
    pub(super) fn finding(&mut self, row: Row, what: impl Into<String>) {
        self.findings.push(Finding {
            catalog: self.catalog.name.clone(),
            row: self.origins.row(row).to_owned(),
            what: what.into(),
            at: row.place(),
        });
    }
}

/// An answer whose columns are known.
pub(super) struct Sheet<'a> {
    columns: BTreeMap<Field, usize>,
    pub(super) rows: &'a [Vec<Option<String>>],
}

impl<'a> Sheet<'a> {
    /// Finds the columns. `None` after a fault.
    pub(super) fn open(notes: &mut Notes<'_>, which: Which, answer: &'a Answer) -> Option<Self> {
        let query = match which {
            Which::Tables => notes.catalog.tables.as_ref(),
            Which::Jobs => notes.catalog.jobs.as_ref(),
        };
        let CatalogQuery { columns: wanted, .. } = query?;
        let mut columns = BTreeMap::new();
        for (&field, name) in wanted {
            match column(&answer.columns, name) {
                Ok(number) => drop(columns.insert(field, number)),
                Err(what) => {
                    let path = ["catalog", &notes.catalog.name, which.word(), "columns", field.word()];
                    let key = path.iter().skip(1).fold(path[0].to_owned(), |path, key| join(&path, key));
                    let returned: Vec<String> =
                        answer.columns.iter().take(20).map(|name| shown(name)).collect();
                    let remedy = format!("the query returns {}; name one of these", returned.join(", "));
                    notes.faults.push(Fault::new(notes.catalog.place, key, what, remedy));
                }
            }
        }
        (columns.len() == wanted.len()).then_some(Self { columns, rows: &answer.rows })
    }

    /// What stands in a cell, without blanks behind it (a CHAR column has them); `None` where nothing does.
    pub(super) fn cell<'r>(&self, row: &'r [Option<String>], field: Field) -> Option<&'r str> {
        let text = row.get(*self.columns.get(&field)?)?.as_deref()?;
        let text = text.trim_end_matches(' ');
        let zero_date =
            matches!(field, Field::Start | Field::End | Field::FinalEnd) && text.starts_with("0000-00-00");
        (!text.is_empty() && !zero_date).then_some(text)
    }

    /// What must stand in a cell. `None` after a fault.
    pub(super) fn need<'r>(
        &self,
        notes: &mut Notes<'_>,
        row: Row,
        cells: &'r [Option<String>],
        field: Field,
    ) -> Option<&'r str> {
        let found = self.cell(cells, field);
        if found.is_none() {
            notes.fault(row, field, "nothing stands here, and a value is needed");
        }
        found
    }

    /// Is the row to be read? Yes where no column says so; `None` after a fault.
    pub(super) fn valid(&self, notes: &mut Notes<'_>, row: Row, cells: &[Option<String>]) -> Option<bool> {
        if !self.columns.contains_key(&Field::Valid) {
            return Some(true);
        }
        let text = self.need(notes, row, cells, Field::Valid)?;
        let valid = match text.to_ascii_lowercase().as_str() {
            "y" | "yes" | "t" | "true" | "1" => Some(true),
            "n" | "no" | "f" | "false" | "0" => Some(false),
            _ => None,
        };
        if valid.is_none() {
            notes.fault(row, Field::Valid, "this is neither yes nor no");
        }
        valid
    }
}

/// The number of the column of this name: as written, or else but for capitals.
fn column(columns: &[String], name: &str) -> Result<usize, String> {
    let number = |same: &dyn Fn(&str) -> bool| -> Vec<usize> {
        columns.iter().enumerate().filter(|(_, column)| same(column)).map(|(number, _)| number).collect()
    };
    let mut found = number(&|column| column == name);
    if found.is_empty() {
        found = number(&|column| column.eq_ignore_ascii_case(name));
    }
    match found.as_slice() {
        [number] => Ok(*number),
        [] => Err(format!("the query returns no column {}", shown(name))),
        _ => Err(format!("the query returns more than one column {}", shown(name))),
    }
}

/// Whoever reads a finding wants to know where the node is.
impl Finding {
    pub(super) fn place(&self) -> Place {
        self.at
    }
}
