//! The statements of a way: staging, picking, updating, inserting, taking away. Pure.

use super::{CHANGED, FILE, PICKED, STAGE, Way};
use crate::source::definition::Distribution;
use crate::sql;
use crate::target::shape::ShapeColumn;

impl Way<'_> {
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

    /// Makes the table that the file is copied to, empty; and that of the rows which are made of it.
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
        let mut statements = vec![format!(
            "CREATE TEMP TABLE {FILE} ON COMMIT DROP AS SELECT {columns} FROM {} t WHERE false{spread}",
            self.into()
        )];
        statements.extend(self.empty_copy(STAGE));
        statements
    }

    /// After the file was copied, or some rows of it: the statements that make the rows of them which go into the
    /// target, and forget them.
    pub fn fill_stage(&self) -> Vec<String> {
        let mut statements = Vec::new();
        if self.maps() {
            let values = self.filled.iter().map(|(column, by)| {
                by.clone().unwrap_or_else(|| format!("from_table.{}", sql::ident(&column.name)))
            });
            statements.push(format!(
                "INSERT INTO {STAGE} ({}) SELECT {} FROM {FILE} from_table",
                self.columns(""),
                values.collect::<Vec<_>>().join(", ")
            ));
            statements.push(format!("TRUNCATE {FILE}"));
        }
        statements
    }

    /// Once all rows are staged: tells the planner how many they are, where it does not see that by itself.
    pub fn size_stage(&self) -> Option<String> {
        (!self.facts.sizes_unanalyzed()).then(|| format!("ANALYZE {STAGE}"))
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
    pub(in crate::target) fn spread(&self, has: impl Fn(&str) -> bool) -> String {
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
    pub(in crate::target) fn columns(&self, before: &str) -> String {
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
    pub(in crate::target) fn first_duplicates(&self, limit: usize) -> String {
        // A column that is not qualified would be the text here, and 10 before 9.
        let group = listed(self.key.iter().copied(), "s.");
        let texts: Vec<String> =
            self.key.iter().map(|column| format!("CAST(s.{} AS text)", sql::ident(&column.name))).collect();
        format!(
            "SELECT {} FROM {STAGE} s GROUP BY {group} HAVING count(*) > 1 ORDER BY {group} LIMIT {limit}",
            texts.join(", ")
        )
    }

    /// Names of the key columns.
    pub(in crate::target) fn key_names(&self) -> Vec<String> {
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

    /// Would an update move rows to other segments, or change what the server numbers? Then they are deleted and
    /// inserted, in one transaction.
    fn moves_rows(&self) -> bool {
        if self.updated.iter().any(|column| column.numbered) {
            return true;
        }
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
            format!("INSERT INTO {into} ({columns}){} SELECT {columns} FROM {CHANGED}", self.overriding()),
        ]
    }

    /// Inserts the rows that match none of the target's.
    pub fn insert_rest(&self) -> String {
        let key = listed(self.key.iter().copied(), "");
        format!(
            "INSERT INTO {} ({}){} SELECT {} FROM {STAGE} from_table \
             LEFT JOIN (SELECT {key}, true AS gpferry_there FROM {}) into_table ON {} \
             WHERE into_table.gpferry_there IS NULL",
            self.into(),
            self.columns(""),
            self.overriding(),
            self.columns("from_table."),
            self.into(),
            equal(&self.key, "from_table", "into_table")
        )
    }

    /// Inserts all staged rows.
    pub fn insert_all(&self) -> String {
        let columns = self.columns("");
        format!("INSERT INTO {} ({columns}){} SELECT {columns} FROM {STAGE}", self.into(), self.overriding())
    }

    /// What an INSERT has to say to give a column the number that stands in the file, as a COPY does.
    fn overriding(&self) -> &'static str {
        if self.shape.columns.iter().any(|column| column.numbered) { " OVERRIDING SYSTEM VALUE" } else { "" }
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
pub(in crate::target) fn listed<'a>(columns: impl Iterator<Item = &'a ShapeColumn>, before: &str) -> String {
    columns.map(|column| format!("{before}{}", sql::ident(&column.name))).collect::<Vec<_>>().join(", ")
}

/// Do the two sides have one key? NULL is like NULL. Every comparison is one of two values by equality, so the join
/// can be hashed (or merged), which `IS NOT DISTINCT FROM` and an OR cannot.
pub(in crate::target) fn equal(key: &[&ShapeColumn], left: &str, right: &str) -> String {
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
