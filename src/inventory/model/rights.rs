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

impl LoadRule {
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
