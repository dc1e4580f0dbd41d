//! How a table is compared.

use crate::sql::Condition;

/// How a table is compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompareRule {
    /// Differences are told by the values of this column first.
    pub group: Option<String>,
    /// Columns by which a row is found again; empty: `match` of the load, else the primary key.
    pub key: Vec<String>,
    /// Columns that are not compared.
    pub except: Vec<String>,
    /// Only rows of the target that meet this are this entry's: for tables that others fill as well.
    pub filter: Option<Condition>,
}
