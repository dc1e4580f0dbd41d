//! One table of the target as the ways of loading need it that are more than a COPY: types, keys, distribution.

use postgres::Row;

use super::{Facts, Session, TargetError};
use crate::names::TableName;
use crate::source::definition::Distribution;
use crate::sql;

/// A table of the target, as it is loaded through a staging table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// Its columns, in the table's order.
    pub columns: Vec<ShapeColumn>,
    /// Its unique constraints and indexes over plain columns, for all its rows: the primary key first.
    pub uniques: Vec<Unique>,
    /// How its rows are spread.
    pub distribution: Distribution,
    /// Can it be locked by LOCK TABLE? A foreign table cannot, and a view only by newer servers.
    pub lockable: bool,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeColumn {
    /// Its name.
    pub name: String,
    /// Its type as `format_type` writes it.
    pub type_name: String,
    /// The same without length and precision, and of a domain the type beneath it: a cast to it cuts nothing off.
    pub base_type: String,
    /// Can it hold no NULL?
    pub not_null: bool,
    /// Is it computed by the server?
    pub generated: bool,
    /// Does the server number it, and take other numbers only where it is told to (GENERATED ALWAYS AS IDENTITY)? An
    /// UPDATE cannot change it at all.
    pub numbered: bool,
}

/// A unique constraint or index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique {
    /// The index's name, which is the constraint's.
    pub name: String,
    /// Is it the primary key?
    pub primary: bool,
    /// Its columns, in its order.
    pub columns: Vec<String>,
    /// Does NULL collide with NULL?
    pub nulls_alike: bool,
}

impl Shape {
    /// A column by its name.
    pub fn column(&self, name: &str) -> Option<&ShapeColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Columns of the primary key; empty where it has none.
    pub fn primary_key(&self) -> &[String] {
        self.uniques.iter().find(|unique| unique.primary).map_or(&[], |unique| &unique.columns)
    }
}

impl Session {
    /// Could a COPY into one of these tables say of more rows that they are in it than are? Where triggers may keep rows
    /// out, and the server does not count what is left.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn may_miscount<'t>(
        &mut self,
        tables: impl Iterator<Item = &'t TableName>,
    ) -> Result<bool, TargetError> {
        if !self.facts.copies_uncounted() {
            return Ok(false);
        }
        let names = tables
            .map(|table| format!("({}, {})", sql::literal(table.schema()), sql::literal(table.table())));
        // Before, for each row, on INSERT: bits 2, 1 and 4 of the type.
        let triggers = format!(
            "SELECT count(*) FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid \
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE (g.tgtype & 7) = 7 AND g.tgenabled <> 'D' \
             AND (n.nspname, c.relname) IN ({})",
            names.collect::<Vec<_>>().join(", ")
        );
        Ok(self.count(&triggers, "look for triggers")? > 0)
    }

    /// Looks a table up; without columns where it is not there.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn shape(&mut self, table: &TableName) -> Result<Shape, TargetError> {
        let of = |error: postgres::Error| TargetError::of(&error, "read its catalog");
        let mut shape = Shape { lockable: true, ..Shape::default() };
        let rows = self.client.query(columns(&self.facts, table).as_str(), &[]).map_err(of)?;
        for row in &rows {
            shape.columns.push(ShapeColumn {
                name: row.get(1),
                type_name: row.get(2),
                base_type: row.get(3),
                not_null: row.get(4),
                generated: row.get(5),
                numbered: row.get(9),
            });
        }
        if let Some(first) = rows.first() {
            shape.lockable = !first.get::<_, bool>(6);
            let numbers: Vec<String> = rows.iter().map(|row| row.get::<_, i16>(0).to_string()).collect();
            let named = |number: &str| {
                let at = numbers.iter().position(|known| known == number)?;
                shape.columns.get(at).map(|column| column.name.clone())
            };
            shape.distribution = distribution(first, named);
        }
        for row in self.client.query(uniques(&self.facts, table).as_str(), &[]).map_err(of)? {
            let (name, primary, column): (String, bool, String) = (row.get(0), row.get(1), row.get(2));
            let (columns, nulls_alike) = (vec![column], row.get(3));
            match shape.uniques.last_mut() {
                Some(last) if last.name == name => last.columns.extend(columns),
                Some(_) | None => shape.uniques.push(Unique { name, primary, columns, nulls_alike }),
            }
        }
        Ok(shape)
    }
}

/// A table's distribution key, out of the row `d` of `gp_distribution_policy`: numbers of columns with blanks between.
pub(super) fn distribution_key(facts: &Facts) -> &'static str {
    if facts.has_policy_type() { "CAST(d.distkey AS text)" } else { "array_to_string(d.attrnums, ' ')" }
}

/// Number, name, type, base type, NOT NULL, computed, not lockable, policy, distribution key, numbered: one row per
/// column.
fn columns(facts: &Facts, table: &TableName) -> String {
    let generated = if facts.generates() { "a.attgenerated <> ''" } else { "false" };
    let numbered = if facts.has_identities() { "a.attidentity = 'a'" } else { "false" };
    let unlockable = if facts.locks_views() { "c.relkind = 'f'" } else { "c.relkind IN ('f', 'v')" };
    let (policy, policies) = if !facts.distributes() {
        ("CAST(NULL AS text), CAST(NULL AS text)", "")
    } else if facts.has_policy_type() {
        (
            "CAST(d.policytype AS text), CAST(d.distkey AS text)",
            "LEFT JOIN gp_distribution_policy d ON d.localoid = c.oid",
        )
    } else {
        (
            "CASE WHEN d.localoid IS NOT NULL THEN 'p' END, array_to_string(d.attrnums, ' ')",
            "LEFT JOIN gp_distribution_policy d ON d.localoid = c.oid",
        )
    };
    format!(
        "SELECT a.attnum, CAST(a.attname AS text), format_type(a.atttypid, a.atttypmod), \
         format_type(COALESCE(d2.typbasetype, d1.typbasetype, a.atttypid), -1), \
         a.attnotnull, {generated}, {unlockable}, {policy}, {numbered} \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped {policies} \
         LEFT JOIN pg_type d1 ON d1.oid = a.atttypid AND d1.typtype = 'd' \
         LEFT JOIN pg_type d2 ON d2.oid = d1.typbasetype AND d2.typtype = 'd' \
         WHERE n.nspname = {} AND c.relname = {} AND c.relkind IN ('r', 'p', 'v', 'f') ORDER BY a.attnum",
        sql::literal(table.schema()),
        sql::literal(table.table())
    )
}

/// Name, primary, column, whether NULLs are alike: one row per column of each unique index that holds for all rows and has no expressions.
fn uniques(facts: &Facts, table: &TableName) -> String {
    // Columns that an index merely carries along are no part of its key.
    let carried = if facts.indexes_carry() { "AND ia.attnum <= x.indnkeyatts" } else { "" };
    let nulls_alike = if facts.equates_nulls() { "x.indnullsnotdistinct" } else { "false" };
    format!(
        "SELECT CAST(i.relname AS text), x.indisprimary, CAST(a.attname AS text), {nulls_alike} \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_index x ON x.indrelid = c.oid AND x.indisunique AND x.indexprs IS NULL AND x.indpred IS NULL \
         JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_attribute ia ON ia.attrelid = i.oid {carried} \
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = x.indkey[ia.attnum - 1] \
         WHERE n.nspname = {} AND c.relname = {} ORDER BY NOT x.indisprimary, i.relname, ia.attnum",
        sql::literal(table.schema()),
        sql::literal(table.table())
    )
}

fn distribution(row: &Row, named: impl Fn(&str) -> Option<String>) -> Distribution {
    let (policy, key): (Option<String>, Option<String>) = (row.get(7), row.get(8));
    let key: Vec<String> = key.unwrap_or_default().split_ascii_whitespace().filter_map(named).collect();
    match policy.as_deref() {
        None => Distribution::None,
        Some("r") => Distribution::Replicated,
        Some(_) if key.is_empty() => Distribution::Randomly,
        Some(_) => Distribution::By(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_is_asked_only_what_it_knows() {
        let table = TableName::new("s", "it's").unwrap();
        let six = Facts::of("Greenplum".into(), 90_426);
        let five = Facts::of("Greenplum".into(), 80_323);
        let postgres = Facts::of("PostgreSQL".into(), 150_004);
        assert!(
            columns(&six, &table).contains("d.policytype") && columns(&five, &table).contains("d.attrnums")
        );
        assert!(
            !columns(&postgres, &table).contains("gp_")
                && columns(&postgres, &table).contains("attgenerated")
        );
        assert!(uniques(&postgres, &table).contains("indnkeyatts"));
        assert!(!uniques(&six, &table).contains("indnkeyatts") && uniques(&six, &table).contains("'it''s'"));
    }
}
