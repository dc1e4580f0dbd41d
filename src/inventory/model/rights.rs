//! What the loading user must be allowed, by the way a table is loaded. Pure.

use super::{LoadMode, LoadRule, OnPkViolation};

/// What a way of loading needs beside USAGE on the table's schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// Privileges on the table, in SQL's words.
    pub table: Vec<&'static str>,
    /// TEMPORARY on the database: rows are staged.
    pub temporary: bool,
}

/// What an update finds its rows by, and what it changes of them: as written, so that an empty list means the primary
/// key, or all columns but those.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    by: Vec<String>,
    columns: Vec<String>,
}

impl Changes {
    /// Is this column changed, of a table with this primary key?
    pub fn includes(&self, column: &str, primary_key: &[String]) -> bool {
        let is_in = |names: &[String]| names.iter().any(|name| name == column);
        let by = if self.by.is_empty() { primary_key } else { &self.by };
        if self.columns.is_empty() { !is_in(by) } else { is_in(&self.columns) }
    }
}

impl LoadRule {
    /// What its units change of rows that are there; `None` where they change none.
    pub fn changes(&self) -> Option<Changes> {
        let merges = self.on_pk_violation == OnPkViolation::Merge;
        (merges || matches!(self.mode, LoadMode::Update | LoadMode::Merge))
            .then(|| Changes { by: self.match_columns.clone(), columns: self.update_columns.clone() })
    }

    /// What its units need. Telling which keys collide, after a unit has failed, is not among it.
    pub fn rights(&self) -> Rights {
        let keyless = matches!(self.mode, LoadMode::Update | LoadMode::Merge);
        let policy = if keyless { OnPkViolation::Rollback } else { self.on_pk_violation };
        let temporary = keyless || !self.mapping.is_empty() || policy != OnPkViolation::Rollback;
        let needs = |right: &str| match right {
            "INSERT" => self.mode != LoadMode::Update,
            // Of rows that are compared, or found by a condition.
            "SELECT" => temporary || (self.mode == LoadMode::Replace && !self.truncate),
            "UPDATE" => keyless || policy == OnPkViolation::Merge,
            "DELETE" => self.mode == LoadMode::Replace && !self.truncate,
            _ => self.mode == LoadMode::Replace && self.truncate,
        };
        let table = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"];
        Rights { table: table.into_iter().filter(|right| needs(right)).collect(), temporary }
    }
}

impl Rights {
    /// In words: `SELECT, INSERT on the table, USAGE on its schema, TEMPORARY on the database`.
    pub fn words(&self) -> String {
        let temporary = if self.temporary { ", TEMPORARY on the database" } else { "" };
        format!("{} on the table, USAGE on its schema{temporary}", self.table.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_needs_what_it_does() {
        let words = |mode, on_pk_violation, truncate| {
            let rule = LoadRule { mode, on_pk_violation, truncate, ..LoadRule::default() };
            let Rights { table, temporary } = rule.rights();
            format!("{}{}", table.join(" "), if temporary { " +" } else { "" })
        };
        let rollback = OnPkViolation::Rollback;
        assert_eq!(words(LoadMode::Insert, rollback, false), "INSERT");
        assert_eq!(words(LoadMode::Insert, OnPkViolation::Quarantine, false), "SELECT INSERT +");
        assert_eq!(words(LoadMode::Insert, OnPkViolation::Merge, false), "SELECT INSERT UPDATE +");
        assert_eq!(words(LoadMode::Update, rollback, false), "SELECT UPDATE +");
        assert_eq!(words(LoadMode::Merge, rollback, false), "SELECT INSERT UPDATE +");
        assert_eq!(words(LoadMode::Replace, rollback, false), "SELECT INSERT DELETE");
        assert_eq!(words(LoadMode::Replace, rollback, true), "INSERT TRUNCATE");
    }
}
