//! The SQL that sorts staged rows by how their keys collide with a unique constraint. Pure.
//!
//! Rows with a NULL in their key collide with nothing, unless the constraint says so. What collides is kept by key in a
//! table of its own, so that counting, writing out and leaving out agree with each other.

use super::modes::{STAGE, Way, equal, listed};
use super::shape::{ShapeColumn, Unique};
use crate::sql;

/// Keys that collide, and how.
pub(super) const CLASH: &str = "gpferry_clash";
/// Keys of staged rows that the target has not yet.
const FRESH: &str = "gpferry_fresh";
/// Rows of the target that go to the staged ones.
const PULLED: &str = "gpferry_pulled";

/// How a row's key collides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Its key stands more than once in the file.
    Twice,
    /// The same row is in the target.
    Identical,
    /// Another row with its key is in the target.
    Different,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Twice, Kind::Identical, Kind::Different];

    /// The word in SQL.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Twice => "twice",
            Kind::Identical => "identical",
            Kind::Different => "different",
        }
    }

    /// As the reason of a reject.
    pub fn reason(self) -> &'static str {
        match self {
            Kind::Twice => "its key stands more than once in the file",
            Kind::Identical => "the same row is in the target",
            Kind::Different => "another row with its key is in the target",
        }
    }
}

/// Types whose equality is looser than sameness: 1.0 and 1.00, 0 and -0, a month and 30 days. Their text tells.
fn is_looser(base_type: &str) -> bool {
    matches!(base_type, "numeric" | "real" | "double precision" | "interval")
}

/// Types whose equality means that values are the same. Others (json, points, what extensions bring) have none, or one
/// of another meaning, and are compared by their text.
fn has_equality(base_type: &str) -> bool {
    matches!(
        base_type,
        "smallint"
            | "integer"
            | "bigint"
            | "numeric"
            | "real"
            | "double precision"
            | "money"
            | "text"
            | "character varying"
            | "bpchar"
            | "boolean"
            | "bytea"
            | "date"
            | "timestamp without time zone"
            | "timestamp with time zone"
            | "time without time zone"
            | "time with time zone"
            | "interval"
            | "uuid"
            | "inet"
            | "cidr"
            | "macaddr"
            | "jsonb"
    )
}

/// The SQL over one unique constraint.
#[derive(Debug)]
pub struct Clash<'a> {
    way: &'a Way<'a>,
    key: Vec<&'a ShapeColumn>,
    /// Does NULL collide with NULL?
    nulls_alike: bool,
}

impl<'a> Clash<'a> {
    /// Over this constraint; `None` where a column of it is not loaded, so that no staged row has its key.
    pub fn new(way: &'a Way<'a>, unique: &'a Unique) -> Option<Self> {
        let column = |name: &String| way.columns_filled().find(|column| column.name == *name);
        let key: Option<Vec<_>> = unique.columns.iter().map(column).collect();
        Some(Self { way, key: key?, nulls_alike: unique.nulls_alike })
    }

    /// Names of the columns that are compared by their text, for want of an equality.
    pub fn by_text(&self) -> Vec<String> {
        let others = self.way.columns_filled();
        let others = others.filter(|column| !self.is_key(column) && !has_equality(&column.base_type));
        others.map(|column| column.name.clone()).collect()
    }

    fn is_key(&self, column: &ShapeColumn) -> bool {
        self.key.iter().any(|key| key.name == column.name)
    }

    fn on(&self, left: &str, right: &str) -> String {
        if self.nulls_alike {
            return equal(&self.key, left, right);
        }
        let same = |column: &&ShapeColumn| {
            let name = sql::ident(&column.name);
            format!("{left}.{name} = {right}.{name}")
        };
        self.key.iter().map(same).collect::<Vec<_>>().join(" AND ")
    }

    fn identical(&self) -> String {
        let is_exact =
            |column: &ShapeColumn| has_equality(&column.base_type) && !is_looser(&column.base_type);
        // Keys may collide that are not the same, as those of a type that takes capitals for small letters.
        let others = self.way.columns_filled().filter(|column| !self.is_key(column) || !is_exact(column));
        let same: Vec<String> = others
            .map(|column| {
                let name = sql::ident(&column.name);
                if is_exact(column) {
                    format!("s.{name} IS NOT DISTINCT FROM t.{name}")
                } else {
                    format!("CAST(s.{name} AS text) IS NOT DISTINCT FROM CAST(t.{name} AS text)")
                }
            })
            .collect();
        if same.is_empty() { "true".into() } else { same.join(" AND ") }
    }

    /// Finds the keys that collide, each with the number of the file's rows that have it.
    pub fn find(&self) -> Vec<String> {
        let key = || self.key.iter().copied();
        let keys = self.key.iter().filter(|_| !self.nulls_alike);
        let not_null: String =
            keys.map(|column| format!(" AND {} IS NOT NULL", sql::ident(&column.name))).collect();
        vec![
            format!(
                "CREATE TEMP TABLE {CLASH} ON COMMIT DROP AS SELECT {}, CAST('{}' AS text) AS gpferry_kind, \
                 count(*) AS gpferry_rows FROM {STAGE} WHERE true{not_null} GROUP BY {} HAVING count(*) > 1{}",
                listed(key(), ""),
                Kind::Twice.word(),
                listed(key(), ""),
                self.spread()
            ),
            format!(
                "INSERT INTO {CLASH} SELECT {}, CASE WHEN {} THEN '{}' ELSE '{}' END, 1 FROM {STAGE} s \
                 JOIN {} t ON {} LEFT JOIN {CLASH} c ON {} WHERE c.gpferry_kind IS NULL",
                listed(key(), "s."),
                self.identical(),
                Kind::Identical.word(),
                Kind::Different.word(),
                self.way.into(),
                self.on("s", "t"),
                self.on("s", "c"),
            ),
            // What is taken for large is sorted, with all the staged rows that it is joined to.
            format!("ANALYZE {CLASH}"),
        ]
    }

    fn spread(&self) -> String {
        self.way.spread(|name| self.key.iter().any(|column| column.name == name))
    }

    /// Remembers which keys of the staged rows are not in the target yet.
    pub fn remember(&self) -> [String; 2] {
        let key = || self.key.iter().copied();
        [
            format!(
                "CREATE TEMP TABLE {FRESH} ON COMMIT DROP AS SELECT DISTINCT {} FROM {STAGE} s \
                 LEFT JOIN (SELECT {}, true AS gpferry_there FROM {}) t ON {} WHERE t.gpferry_there IS NULL{}",
                listed(key(), "s."),
                listed(key(), ""),
                self.way.into(),
                self.on("s", "t"),
                self.spread()
            ),
            // Else they are taken for few, and each is looked up by itself.
            format!("ANALYZE {FRESH}"),
        ]
    }

    /// Moves rows of the target that came since then to the staged rows that have their keys: finds them, puts them there,
    /// takes them away here.
    pub fn pull_back(&self) -> [String; 3] {
        let (into, columns) = (self.way.into(), self.way.columns(""));
        [
            format!(
                "CREATE TEMP TABLE {PULLED} ON COMMIT DROP AS SELECT {} FROM {into} t JOIN {FRESH} f ON {}{}",
                self.way.columns("t."),
                self.on("f", "t"),
                self.spread()
            ),
            format!("INSERT INTO {STAGE} ({columns}) SELECT {columns} FROM {PULLED}"),
            format!("DELETE FROM {into} AS t USING {PULLED} AS p WHERE {}", self.on("t", "p")),
        ]
    }

    /// Rows of the file of a kind.
    pub fn count(&self, kind: Kind) -> String {
        format!(
            "SELECT CAST(COALESCE(sum(c.gpferry_rows), 0) AS bigint) FROM {CLASH} c WHERE true{}",
            of(kind)
        )
    }

    /// Those of all kinds that meet a condition over the staged rows.
    pub fn count_at(&self, condition: &str) -> String {
        format!(
            "SELECT count(*) FROM (SELECT s.* FROM {STAGE} s JOIN {CLASH} c ON {}) s WHERE {condition}",
            self.on("s", "c")
        )
    }

    /// The first keys of a kind, as text.
    pub fn first(&self, kind: Kind, limit: usize) -> String {
        let texts: Vec<String> =
            self.key.iter().map(|column| format!("CAST(c.{} AS text)", sql::ident(&column.name))).collect();
        format!(
            "SELECT {} FROM {CLASH} c WHERE c.gpferry_kind = '{}' ORDER BY {} LIMIT {limit}",
            texts.join(", "),
            kind.word(),
            listed(self.key.iter().copied(), "c.")
        )
    }

    /// Names of the key's columns.
    pub fn key_names(&self) -> Vec<String> {
        self.key.iter().map(|column| column.name.clone()).collect()
    }

    /// Writes the rows of a kind out, as they go in.
    pub fn write_out(&self, kind: Kind) -> String {
        format!(
            "COPY (SELECT {} FROM {STAGE} s JOIN {CLASH} c ON {}{}) TO STDOUT CSV",
            self.way.columns("s."),
            self.on("s", "c"),
            of(kind)
        )
    }

    /// Takes all that collide out of the staged rows, and forgets the keys.
    pub fn leave_out(&self) -> Vec<String> {
        vec![
            format!("DELETE FROM {STAGE} AS s USING {CLASH} AS c WHERE {}", self.on("s", "c")),
            self.forget().to_owned(),
        ]
    }

    /// Forgets the keys.
    pub fn forget(&self) -> &'static str {
        "DROP TABLE gpferry_clash"
    }
}

fn of(kind: Kind) -> String {
    format!(" AND c.gpferry_kind = '{}'", kind.word())
}
