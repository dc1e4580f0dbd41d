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
use crate::source::definition::Distribution;
use crate::sql;

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

    fn loaded(&self, key: &'static str, name: &str) -> Result<&'a ShapeColumn, ModeError> {
        let found = self.filled.iter().find(|(column, _)| column.name == name).map(|(column, _)| *column);
        found.ok_or_else(|| self.not_loaded(key, name))
    }

    fn not_loaded(&self, key: &'static str, column: &str) -> ModeError {
        ModeError::NotLoaded { key, column: column.to_owned(), table: self.table.to_string() }
    }

    /// The shape of the table.
    pub(super) fn shape(&self) -> &'a Shape {
        self.shape
    }

    /// Columns of the file, in its order.
    pub fn file(&self) -> &'a [String] {
        self.file
    }

    /// The target, quoted.
    pub fn into(&self) -> String {
        sql::table(self.table)
    }

    /// Do expressions make the rows?
    fn maps(&self) -> bool {
        !self.rule.mapping.is_empty()
    }

    /// Where the file is copied to.
    pub fn copied_to(&self) -> &'static str {
        if self.maps() { FILE } else { STAGE }
    }

    /// Makes the table that the file is copied to, empty.
    pub fn make_stage(&self) -> Vec<String> {
        if !self.maps() {
            return self.empty_copy(STAGE);
        }
        // What an expression reads is text, as it stands in the file: what it is to become, the expression says.
        let columns = self.file.iter().map(|name| {
            let own = self.filled.iter().any(|(column, by)| column.name == *name && by.is_none());
            let quoted = sql::ident(name);
            if own { format!("t.{quoted}") } else { format!("CAST(NULL AS text) AS {quoted}") }
        });
        let columns = columns.collect::<Vec<_>>().join(", ");
        let spread =
            self.spread(|name| self.filled.iter().any(|(column, by)| column.name == name && by.is_none()));
        vec![format!(
            "CREATE TEMP TABLE {FILE} ON COMMIT DROP AS SELECT {columns} FROM {} t WHERE false{spread}",
            self.into()
        )]
    }

    /// After the file was copied: the statements that make the rows of it which go into the target.
    pub fn fill_stage(&self) -> Vec<String> {
        let mut statements = Vec::new();
        if self.maps() {
            statements = self.empty_copy(STAGE);
            let values = self.filled.iter().map(|(column, by)| {
                by.clone().unwrap_or_else(|| format!("from_table.{}", sql::ident(&column.name)))
            });
            statements.push(format!(
                "INSERT INTO {STAGE} ({}) SELECT {} FROM {FILE} from_table",
                self.columns(""),
                values.collect::<Vec<_>>().join(", ")
            ));
        }
        if !self.facts.sizes_unanalyzed() {
            statements.push(format!("ANALYZE {STAGE}"));
        }
        statements
    }

    /// A table with the columns that are filled: their types and collations, and NOT NULL where the target has it, so
    /// that a row that does not fit is found while it is copied.
    fn empty_copy(&self, name: &str) -> Vec<String> {
        let spread = self.spread(|name| self.filled.iter().any(|(column, _)| column.name == name));
        let mut statements = vec![format!(
            "CREATE TEMP TABLE {name} ON COMMIT DROP AS SELECT {} FROM {} t WHERE false{spread}",
            self.columns("t."),
            self.into()
        )];
        let not_null = self.filled.iter().filter(|(column, _)| column.not_null);
        let not_null: Vec<String> = not_null
            .map(|(column, _)| format!("ALTER COLUMN {} SET NOT NULL", sql::ident(&column.name)))
            .collect();
        if !not_null.is_empty() {
            statements.push(format!("ALTER TABLE {name} {}", not_null.join(", ")));
        }
        statements
    }

    /// Spread like the target, as far as the table has its distribution key. Never at random by accident: that would
    /// move every row between segments for each join.
    pub(super) fn spread(&self, has: impl Fn(&str) -> bool) -> String {
        if !self.facts.distributes() {
            return String::new();
        }
        let by = |columns: &mut dyn Iterator<Item = &str>| {
            let columns: Vec<&str> = columns.collect();
            format!(" DISTRIBUTED BY ({})", sql::idents(columns))
        };
        match &self.shape.distribution {
            Distribution::By(key) if key.iter().all(|name| has(name)) => {
                by(&mut key.iter().map(String::as_str))
            }
            Distribution::By(_) | Distribution::Randomly | Distribution::Replicated | Distribution::None => {
                let known: &mut dyn Iterator<Item = &str> = if self.key.is_empty() {
                    &mut self.shape.primary_key().iter().map(String::as_str)
                } else {
                    &mut self.key.iter().map(|column| column.name.as_str())
                };
                let key: Vec<&str> = known.collect();
                if key.is_empty() || !key.iter().all(|name| has(name)) {
                    return " DISTRIBUTED RANDOMLY".into();
                }
                by(&mut key.into_iter())
            }
        }
    }

    /// The filled columns, quoted, each after `before`.
    pub(super) fn columns(&self, before: &str) -> String {
        listed(self.filled.iter().map(|(column, _)| *column), before)
    }

    /// Keeps other writers out until the end of the transaction; readers are let in.
    pub fn lock(&self) -> Option<String> {
        self.shape.lockable.then(|| format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", self.into()))
    }

    /// How many keys stand more than once in the file, and in how many rows.
    pub fn count_duplicates(&self) -> String {
        let key = listed(self.key.iter().copied(), "");
        format!(
            "SELECT count(*), CAST(COALESCE(sum(d.n), 0) AS bigint) FROM (SELECT count(*) AS n FROM {STAGE} \
             GROUP BY {key} HAVING count(*) > 1) d"
        )
    }

    /// The first keys that stand more than once in the file, as text.
    pub(super) fn first_duplicates(&self, limit: usize) -> String {
        let group = listed(self.key.iter().copied(), "");
        let texts: Vec<String> =
            self.key.iter().map(|column| format!("CAST({} AS text)", sql::ident(&column.name))).collect();
        format!(
            "SELECT {} FROM {STAGE} GROUP BY {group} HAVING count(*) > 1 ORDER BY {group} LIMIT {limit}",
            texts.join(", ")
        )
    }

    /// Names of the key columns.
    pub(super) fn key_names(&self) -> Vec<String> {
        self.key.iter().map(|column| column.name.clone()).collect()
    }

    /// Picks the row that wins of those with one key.
    pub fn pick_last(&self, by: &str) -> String {
        let key = listed(self.key.iter().copied(), "");
        let spread = self.spread(|name| self.filled.iter().any(|(column, _)| column.name == name));
        format!(
            "CREATE TEMP TABLE {PICKED} ON COMMIT DROP AS SELECT DISTINCT ON ({key}) {} FROM {STAGE} \
             ORDER BY {key}, {} DESC NULLS LAST{spread}",
            self.columns(""),
            sql::ident(by)
        )
    }

    /// How many rows of the file are as late as the one that was picked for their key, itself included: as many as were
    /// picked, unless two of one key are as late as each other.
    pub fn count_latest(&self, by: &str) -> Option<String> {
        let by = self.filled.iter().find(|(column, _)| column.name == by).map(|(column, _)| *column)?;
        let on: Vec<&ShapeColumn> = self.key.iter().copied().chain([by]).collect();
        Some(format!("SELECT count(*) FROM {STAGE} s JOIN {PICKED} p ON {}", equal(&on, "s", "p")))
    }

    /// Puts the picked rows in the place of all.
    pub fn keep_picked(&self) -> Vec<String> {
        vec![format!("DROP TABLE {STAGE}"), format!("ALTER TABLE {PICKED} RENAME TO {STAGE}")]
    }

    /// Rows that are staged.
    pub fn count_staged(&self) -> String {
        format!("SELECT count(*) FROM {STAGE}")
    }

    /// How many of the file's rows find a row of the target that may be updated.
    pub fn count_matched(&self) -> String {
        // A join, since EXISTS is a loop over rows for old servers. The staged keys are unique by now.
        format!(
            "SELECT count(*) FROM (SELECT DISTINCT {} FROM {STAGE} from_table JOIN {} into_table ON {}{}) m",
            listed(self.key.iter().copied(), "from_table."),
            self.into(),
            equal(&self.key, "from_table", "into_table"),
            self.condition()
        )
    }

    /// Would an update move rows to other segments? Then they are deleted and inserted, in one transaction.
    fn moves_rows(&self) -> bool {
        let Distribution::By(key) = &self.shape.distribution else { return false };
        self.facts.distributes() && self.updated.iter().any(|column| key.contains(&column.name))
    }

    fn condition(&self) -> String {
        self.rule.update_condition.as_ref().map(|condition| format!(" AND {condition}")).unwrap_or_default()
    }

    /// Updates the rows that match: the last statement says how many rows of the target it changed.
    pub fn update(&self) -> Vec<String> {
        if self.updated.is_empty() {
            return Vec::new();
        }
        let on = equal(&self.key, "from_table", "into_table");
        let condition = self.condition();
        if !self.moves_rows() {
            let set: Vec<String> = self
                .updated
                .iter()
                .map(|column| sql::ident(&column.name))
                .map(|column| format!("{column} = from_table.{column}"))
                .collect();
            return vec![format!(
                "UPDATE {} AS into_table SET {} FROM {STAGE} AS from_table WHERE {on}{condition}",
                self.into(),
                set.join(", ")
            )];
        }
        let all: Vec<&ShapeColumn> = self.shape.columns.iter().filter(|column| !column.generated).collect();
        let values = all.iter().map(|column| {
            let new = self.updated.iter().any(|updated| updated.name == column.name);
            format!("{}.{}", if new { "from_table" } else { "into_table" }, sql::ident(&column.name))
        });
        let values = values.collect::<Vec<_>>().join(", ");
        let spread = self.spread(|_| true);
        let (into, columns) = (self.into(), listed(all.iter().copied(), ""));
        vec![
            format!(
                "CREATE TEMP TABLE {CHANGED} ON COMMIT DROP AS SELECT {values} FROM {into} into_table \
                 JOIN {STAGE} from_table ON {on}{condition}{spread}"
            ),
            format!("DELETE FROM {into} AS into_table USING {STAGE} AS from_table WHERE {on}{condition}"),
            format!("INSERT INTO {into} ({columns}) SELECT {columns} FROM {CHANGED}"),
        ]
    }

    /// Inserts the rows that match none of the target's.
    pub fn insert_rest(&self) -> String {
        let key = listed(self.key.iter().copied(), "");
        format!(
            "INSERT INTO {} ({}) SELECT {} FROM {STAGE} from_table \
             LEFT JOIN (SELECT {key}, true AS gpferry_there FROM {}) into_table ON {} \
             WHERE into_table.gpferry_there IS NULL",
            self.into(),
            self.columns(""),
            self.columns("from_table."),
            self.into(),
            equal(&self.key, "from_table", "into_table")
        )
    }

    /// Inserts all staged rows.
    pub fn insert_all(&self) -> String {
        let columns = self.columns("");
        format!("INSERT INTO {} ({columns}) SELECT {columns} FROM {STAGE}", self.into())
    }

    /// Takes away what is replaced: the rows that meet these conditions, all of them where there are none.
    pub fn clear(&self, conditions: &[String]) -> String {
        if conditions.is_empty() && self.rule.truncate {
            return format!("TRUNCATE TABLE {}", self.into());
        }
        format!("DELETE FROM {}{}", self.into(), filter(conditions))
    }

    /// How many rows meet these conditions: after a replacement, as many as went in.
    pub fn count_within(&self, conditions: &[String]) -> String {
        format!("SELECT count(*) FROM {}{}", self.into(), filter(conditions))
    }
}

fn filter(conditions: &[String]) -> String {
    if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) }
}

/// Names, quoted, each after `before`, with commas between them.
pub(super) fn listed<'a>(columns: impl Iterator<Item = &'a ShapeColumn>, before: &str) -> String {
    columns.map(|column| format!("{before}{}", sql::ident(&column.name))).collect::<Vec<_>>().join(", ")
}

/// Do the two sides have one key? NULL is like NULL. Every comparison is one of two values by equality, so the join
/// can be hashed (or merged), which `IS NOT DISTINCT FROM` and an OR cannot.
pub(super) fn equal(key: &[&ShapeColumn], left: &str, right: &str) -> String {
    let parts: Vec<String> = key
        .iter()
        .map(|column| {
            let (name, stand_in) = (sql::ident(&column.name), stand_in(&column.base_type));
            match stand_in {
                _ if column.not_null => format!("{left}.{name} = {right}.{name}"),
                Some(value) => format!(
                    "COALESCE({left}.{name}, {value}) = COALESCE({right}.{name}, {value}) \
                     AND ({left}.{name} IS NULL) = ({right}.{name} IS NULL)"
                ),
                // Arrays are equal where both elements are NULL.
                None => format!("ARRAY[{left}.{name}] = ARRAY[{right}.{name}]"),
            }
        })
        .collect();
    parts.join(" AND ")
}

/// Any value of a type, to stand for NULL beside a comparison of which side is NULL.
fn stand_in(base_type: &str) -> Option<&'static str> {
    Some(match base_type {
        "smallint" | "integer" | "bigint" | "numeric" | "real" | "double precision" => "0",
        "text" | "character varying" | "bpchar" => "''",
        "boolean" => "false",
        "date" => "CAST('2000-01-01' AS date)",
        "timestamp without time zone" => "CAST('2000-01-01' AS timestamp)",
        "timestamp with time zone" => "CAST('2000-01-01' AS timestamptz)",
        "uuid" => "CAST('00000000-0000-0000-0000-000000000000' AS uuid)",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
