//! The SQL of the ways of loading that are more than a COPY. Pure.
//!
//! It runs on everything from Greenplum 5 (PostgreSQL 8.3) on: no ON CONFLICT, no MERGE, no WITH, no window
//! functions. The file's rows stand in a temporary table that is spread like the target and gone at the commit.
//! Joins on keys compare by equality alone, so that they can be hashed, and find NULL equal to NULL all the same.
//! In an operator's own condition the file's rows are `from_table` and the target's `into_table`, as for gpload.

use thiserror::Error;

use super::Facts;
use super::shape::{Shape, ShapeColumn};
use crate::inventory::{Duplicates, LoadMode, LoadRule};
use crate::names::TableName;
use crate::sql;

mod statements;

pub(super) use statements::{equal, listed};

/// The rows as they go into the target.
pub(super) const STAGE: &str = "gpferry_stage";
/// The rows as they stand in the file, where a `mapping` makes others of them.
pub(super) const FILE: &str = "gpferry_file";
/// The rows that win, of those with one key.
const PICKED: &str = "gpferry_picked";
/// Rows of the target as they will be, where they have to move to another segment.
const CHANGED: &str = "gpferry_changed";

/// Why a table cannot be loaded in the way that the inventory says.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ModeError {
    /// It is gone.
    #[error("the table {0} is not in the target database")]
    NotThere(String),
    /// Nothing says which rows are the same.
    #[error("mode `{mode}` needs to know which rows are the same, and {table} has no primary key")]
    NoKey {
        /// The mode.
        mode: &'static str,
        /// The table.
        table: String,
    },
    /// A column that the inventory names is not among those that are loaded.
    #[error(
        "`{key}` names the column \"{column}\", which is not among the columns that are loaded into {table}"
    )]
    NotLoaded {
        /// Key of the inventory.
        key: &'static str,
        /// The column.
        column: String,
        /// The table.
        table: String,
    },
    /// A key column that is to be changed as well.
    #[error("`update_columns` names \"{0}\", by which the rows are found")]
    KeyUpdated(String),
    /// A target column that nothing fills.
    #[error(
        "nothing fills the column \"{column}\" of {table}: the file has none of that name, nor has `mapping`"
    )]
    Unfilled {
        /// The column.
        column: String,
        /// The table.
        table: String,
    },
    /// A type that cannot be written.
    #[error("the column \"{0}\" has a type that cannot be written")]
    NoType(String),
}

impl ModeError {
    /// What to try.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotThere(_) => "create the table in the target, or correct its name in the inventory",
            Self::NoKey { .. } => "write `match: [ … ]` beside the mode, or give the table a primary key",
            Self::NotLoaded { .. } | Self::KeyUpdated(_) => {
                "correct the names in the inventory: they are written as the catalog holds them, capitals included"
            }
            Self::Unfilled { .. } => "add the column to `mapping`, or drop it in the target",
            Self::NoType(_) => "give the column an ordinary type in the target",
        }
    }
}

/// How one file goes into one table: everything that its statements are made of.
#[derive(Debug)]
pub struct Way<'a> {
    facts: &'a Facts,
    table: &'a TableName,
    shape: &'a Shape,
    rule: &'a LoadRule,
    /// Columns of the file, in its order.
    file: &'a [String],
    /// Columns of the target that are filled, each by the column of its name or by an expression.
    filled: Vec<(&'a ShapeColumn, Option<String>)>,
    /// By what rows are found; empty in modes that find none.
    key: Vec<&'a ShapeColumn>,
    /// What an update changes.
    updated: Vec<&'a ShapeColumn>,
}

impl<'a> Way<'a> {
    /// Works out how a file with these columns goes into a table.
    ///
    /// # Errors
    /// [`ModeError`].
    pub fn new(
        facts: &'a Facts,
        table: &'a TableName,
        shape: &'a Shape,
        rule: &'a LoadRule,
        file: &'a [String],
    ) -> Result<Self, ModeError> {
        if shape.columns.is_empty() {
            return Err(ModeError::NotThere(table.to_string()));
        }
        let mut way = Self {
            facts,
            table,
            shape,
            rule,
            file,
            filled: Vec::new(),
            key: Vec::new(),
            updated: Vec::new(),
        };
        way.fill()?;
        if matches!(rule.mode, LoadMode::Update | LoadMode::Merge) {
            way.find_key()?;
        }
        Ok(way)
    }

    fn fill(&mut self) -> Result<(), ModeError> {
        for (name, _) in &self.rule.mapping {
            if self.shape.column(name).is_none_or(|column| column.generated) {
                return Err(self.not_loaded("mapping", name));
            }
        }
        for column in self.shape.columns.iter().filter(|column| !column.generated) {
            let written = self.rule.mapping.iter().find(|(name, _)| *name == column.name);
            let expression = match written {
                None if self.file.contains(&column.name) => None,
                None => {
                    let (column, table) = (column.name.clone(), self.table.to_string());
                    return Err(ModeError::Unfilled { column, table });
                }
                Some((_, expression)) => {
                    let base = sql::type_name(&column.base_type)
                        .ok_or_else(|| ModeError::NoType(column.name.clone()))?;
                    Some(format!("CAST({expression} AS {base})"))
                }
            };
            self.filled.push((column, expression));
        }
        Ok(())
    }

    fn find_key(&mut self) -> Result<(), ModeError> {
        let (mode, table) = (self.rule.mode.word(), self.table.to_string());
        let names = if self.rule.match_columns.is_empty() {
            self.shape.primary_key()
        } else {
            &self.rule.match_columns
        };
        if names.is_empty() {
            return Err(ModeError::NoKey { mode, table });
        }
        let key: Result<Vec<_>, _> = names.iter().map(|name| self.loaded("match", name)).collect();
        self.key = key?;
        if self.rule.update_columns.is_empty() {
            let key = &self.key;
            let rest = self.filled.iter().map(|(column, _)| *column);
            self.updated = rest.filter(|column| key.iter().all(|key| key.name != column.name)).collect();
        } else {
            let named: Result<Vec<_>, _> =
                self.rule.update_columns.iter().map(|name| self.loaded("update_columns", name)).collect();
            self.updated = named?;
            if let Some(twice) = self.updated.iter().find(|column| self.is_key(&column.name)) {
                return Err(ModeError::KeyUpdated(twice.name.clone()));
            }
        }
        if let Duplicates::LastBy(column) = &self.rule.duplicates {
            self.loaded("duplicates", column)?;
        }
        Ok(())
    }

    fn is_key(&self, name: &str) -> bool {
        self.key.iter().any(|column| column.name == name)
    }

    /// Does a key find one row of the target at most?
    pub fn finds_one(&self) -> bool {
        let uniques = self.shape.uniques.iter();
        uniques
            .map(|unique| &unique.columns)
            .any(|columns| columns.iter().all(|name| self.is_unique_key(name)))
    }

    /// NULL finds NULL, of which a unique constraint allows many.
    fn is_unique_key(&self, name: &str) -> bool {
        self.key.iter().any(|column| column.name == name && column.not_null)
    }

    fn loaded(&self, key: &'static str, name: &str) -> Result<&'a ShapeColumn, ModeError> {
        let found = self.filled.iter().find(|(column, _)| column.name == name).map(|(column, _)| *column);
        found.ok_or_else(|| self.not_loaded(key, name))
    }

    fn not_loaded(&self, key: &'static str, column: &str) -> ModeError {
        ModeError::NotLoaded { key, column: column.to_owned(), table: self.table.to_string() }
    }

    /// Columns of the target that the file fills, in the table's order.
    pub(super) fn columns_filled(&self) -> impl Iterator<Item = &'a ShapeColumn> {
        self.filled.iter().map(|(column, _)| *column)
    }

    /// Columns of the file, in its order.
    pub fn file(&self) -> &'a [String] {
        self.file
    }
}

#[cfg(test)]
mod tests;
