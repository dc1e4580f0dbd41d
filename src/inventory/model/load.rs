//! How a unit's rows go in, and what becomes of those that do not fit or collide.

use std::fmt;
use std::time::Duration;

use crate::sql::{Condition, Statement};

/// How a unit's rows go in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadRule {
    /// Longest time that the load of one unit may take on the server.
    pub timeout: Duration,
    /// Longest time that a load waits for a lock.
    pub lock_timeout: Duration,
    /// What happens to rows that are there.
    pub mode: LoadMode,
    /// Key columns of update and merge; empty: the primary key.
    pub match_columns: Vec<String>,
    /// What a primary-key violation leads to, after the rollback.
    pub on_pk_violation: OnPkViolation,
    /// Columns that update and merge change; empty: all but the key.
    pub update_columns: Vec<String>,
    /// Only rows that meet this are updated: over `from_table` (the file) and `into_table` (the target).
    pub update_condition: Option<Condition>,
    /// Target columns that are computed: each from an expression over the file's columns.
    pub mapping: Vec<(String, Condition)>,
    /// Statements before the rows, in the same transaction.
    pub before: Vec<Statement>,
    /// Statements after the rows, in the same transaction.
    pub after: Vec<Statement>,
    /// A whole table is emptied by TRUNCATE, not by DELETE. Only with [`LoadMode::Replace`].
    pub truncate: bool,
    /// What becomes of rows with equal keys in one file, in update and merge.
    pub duplicates: Duplicates,
    /// How many rows may be kept out.
    pub reject_limit: RejectLimit,
    /// Are rows that were kept out a failure of the run?
    pub rejects: Rejects,
}

impl LoadRule {
    /// Are the file's rows copied into the table as they are, with nothing else done?
    pub fn is_plain(&self) -> bool {
        self.mode == LoadMode::Insert
            && self.mapping.is_empty()
            && self.before.is_empty()
            && self.after.is_empty()
    }
}

impl Default for LoadRule {
    fn default() -> Self {
        Self {
            mode: LoadMode::Insert,
            match_columns: Vec::new(),
            on_pk_violation: OnPkViolation::Rollback,
            update_columns: Vec::new(),
            update_condition: None,
            mapping: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
            truncate: false,
            duplicates: Duplicates::Refuse,
            reject_limit: RejectLimit::NONE,
            rejects: Rejects::Fail,
            timeout: Duration::from_secs(30 * 60),
            lock_timeout: Duration::from_secs(5 * 60),
        }
    }
}

/// What becomes of rows with equal keys in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Duplicates {
    /// The unit fails.
    Refuse,
    /// The one with the greatest value of this column wins; NULL is the least.
    LastBy(String),
}

/// How many rows may be kept out of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectLimit {
    /// So many.
    Rows(u64),
    /// So many hundredths of a percent of the unit's rows, rounded down.
    BasisPoints(u32),
}

impl RejectLimit {
    /// Not one.
    pub const NONE: RejectLimit = RejectLimit::Rows(0);

    /// How many of `rows` rows.
    pub fn of(self, rows: u64) -> u64 {
        match self {
            RejectLimit::Rows(limit) => limit,
            RejectLimit::BasisPoints(points) => {
                // A quotient of products below 2^128, not above `rows` for what is at most 100 %.
                u64::try_from(u128::from(rows) * u128::from(points) / 10_000).unwrap_or(rows)
            }
        }
    }
}

/// `10 rows`, `0.5 %`.
impl fmt::Display for RejectLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RejectLimit::Rows(1) => f.write_str("1 row"),
            RejectLimit::Rows(rows) => write!(f, "{rows} rows"),
            RejectLimit::BasisPoints(points) => write!(f, "{} %", f64::from(*points) / 100.0),
        }
    }
}

/// Are rows that were kept out a failure of the run?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejects {
    /// The run ends with exit code 3.
    Fail,
    /// They are only said.
    Allow,
}

/// gpload's modes, and `replace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadMode {
    /// Appends.
    Insert,
    /// Updates the rows that match.
    Update,
    /// Updates those, inserts the rest.
    Merge,
    /// Deletes the window, then inserts.
    Replace,
}

impl LoadMode {
    /// The word of the inventory and the load log.
    pub fn word(self) -> &'static str {
        match self {
            LoadMode::Insert => "insert",
            LoadMode::Update => "update",
            LoadMode::Merge => "merge",
            LoadMode::Replace => "replace",
        }
    }

    /// Does it keep other writers of the table out until it is committed? Two such loads of one table would wait for
    /// each other; on Greenplum 6 the server itself locks the whole table for an UPDATE or DELETE.
    pub fn locks_table(self) -> bool {
        match self {
            LoadMode::Insert => false,
            LoadMode::Update | LoadMode::Merge | LoadMode::Replace => true,
        }
    }
}

/// What follows a primary-key violation, after the whole unit was rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPkViolation {
    /// Nothing: the unit failed.
    Rollback,
    /// The rest is loaded when every collision is an identical row.
    SkipIdentical,
    /// What does not collide is loaded, the rest goes to `rejects/`.
    Quarantine,
    /// Loaded again in merge mode.
    Merge,
}
