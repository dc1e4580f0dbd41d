//! One table on two sides: which columns are held against each other, by what its rows are found, and the SQL of the
//! questions. Pure.

use super::{Side, Unread};
use crate::canon::{self, Column, Digest, Row, Sides};
use crate::names::TableName;
use crate::plan::Compared;
use crate::source::axis::Axis;
use crate::source::postgres::SourceTable;
use crate::source::rows;
use crate::sql;
use crate::unit::Extent;
use jiff::tz::TimeZone;

/// What both catalogs say of a table.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The source's table; `None` where it is not there.
    pub source: Option<&'a SourceTable>,
    /// Its primary key.
    pub source_key: &'a [String],
    /// The target's table, as a source's would be described.
    pub target: Option<&'a SourceTable>,
    /// Its primary key.
    pub target_key: &'a [String],
    /// The two servers.
    pub sides: &'a Sides,
}

/// A column that is not compared, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// Its name.
    pub column: String,
    /// Why.
    pub why: String,
    /// Did the inventory say so? Then it is no gap.
    pub meant: bool,
}

/// One table on two sides.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    compared: &'a Compared,
    source: &'a SourceTable,
    target: &'a SourceTable,
    zone: &'a TimeZone,
    pub(super) row: Row,
    /// By what a row is found again; all that is compared, where nothing else is known.
    pub(super) key: Vec<Column>,
    /// Is the key one that was named?
    pub(super) keyed: bool,
    group: Option<Column>,
    pub(super) skipped: Vec<Skipped>,
    /// The window column as numbers; `None` where the windows are all or nothing.
    pub(super) axis: Option<(Axis, Axis)>,
    /// What keeps the planner of each side from guessing the number of buckets.
    fences: [&'static str; 2],
}

impl<'a> Subject<'a> {
    /// # Errors
    /// [`Unread`]: a table that is not there, or none of whose columns can be compared.
    pub(super) fn new(compared: &'a Compared, known: Known<'a>, zone: &'a TimeZone) -> Result<Self, Unread> {
        let missing = |side: Side, table: &TableName| {
            let remedy = "create the table there, or correct its name in the inventory (`table:`, `target:`)";
            Unread::new(side, format!("the table {table} is not in the {} database", side.word()), remedy)
        };
        let source = known.source.ok_or_else(|| missing(Side::Source, &compared.table))?;
        let target = known.target.ok_or_else(|| missing(Side::Target, &compared.target))?;
        let (columns, skipped) = columns(compared, source, target, known.sides);
        if columns.is_empty() {
            let error =
                format!("no column of {} can be compared with one of {}", compared.table, compared.target);
            return Err(Unread::new(
                Side::Source,
                error,
                "look at the columns that are listed as not comparable",
            ));
        }
        let axis = axes(compared, source, target)?;
        let load = &compared.entry.load;
        let named =
            [&compared.entry.compare.key[..], &load.match_columns, known.target_key, known.source_key];
        let named = named.into_iter().find(|names| !names.is_empty());
        let found = |names: &[String]| -> Option<Vec<Column>> {
            names.iter().map(|name| columns.iter().find(|column| column.name == *name).cloned()).collect()
        };
        let key = named.and_then(found);
        let group = compared.entry.compare.group.as_ref();
        let group = match group {
            None => None,
            Some(name) => {
                Some(columns.iter().find(|column| column.name == *name).cloned().ok_or_else(|| {
                    let error = format!(
                        "`compare.group` names \"{name}\", which is not compared in {}",
                        compared.table
                    );
                    Unread::new(
                        Side::Source,
                        error,
                        "name a column that both sides have and that is comparable",
                    )
                })?)
            }
        };
        let (keyed, row) = (key.is_some(), Row::new(columns, known.sides));
        let fences = [known.sides.source.fence(), known.sides.target.fence()];
        let key = key.unwrap_or_else(|| row.columns.clone());
        Ok(Self { compared, source, target, zone, row, key, keyed, group, skipped, axis, fences })
    }

    /// Does the inventory tell differences by a column?
    pub(super) fn groups(&self) -> bool {
        self.group.is_some()
    }

    /// An upper bound for the bytes of the source's table.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.source.bytes
    }

    /// Where a number of the windows' measure lies on their axis.
    pub(super) fn place(&self, number: i64) -> Option<i64> {
        self.axis.as_ref().and_then(|(axis, _)| axis.place(number, self.zone))
    }

    fn axis(&self, side: Side) -> Option<&Axis> {
        self.axis.as_ref().map(|(source, target)| match side {
            Side::Source => source,
            Side::Target => target,
        })
    }

    /// What tells a window's rows from others.
    ///
    /// # Errors
    /// [`Unread`]: a window column that cannot serve on that side.
    pub(super) fn conditions(&self, side: Side, extent: Extent) -> Result<Vec<String>, Unread> {
        let unit = self.compared.unit(extent);
        let (table, name) = match side {
            Side::Source => (self.source, &self.compared.table),
            Side::Target => (self.target, &self.compared.target),
        };
        let mut conditions = rows::conditions(&unit, table, name, self.zone)
            .map_err(|error| Unread::new(side, error.to_string(), error.remedy()))?;
        if side == Side::Target {
            conditions.extend(self.compared.entry.compare.filter.as_ref().map(ToString::to_string));
        }
        Ok(conditions)
    }

    /// The number of a row's cell.
    pub(super) fn cell(&self, side: Side, origin: i64, step: i64) -> String {
        self.axis(side).map_or_else(|| "CAST(0 AS bigint)".into(), |axis| axis.cell(origin, step))
    }

    /// Rows from one number of the axis up to another, and perhaps some beside them, as a condition that an index serves.
    pub(super) fn around(&self, side: Side, (first, end): (i64, i64)) -> Option<String> {
        self.axis(side).map(|axis| axis.around(first, end))
    }

    /// md5 of a row's key, in hex.
    pub(super) fn key_hash(&self, side: Side) -> String {
        self.row.md5_of(side.digest(), self.key.iter())
    }

    /// A number below `parts` that spreads rows by their key, cheaply where a column of it is a number or a time.
    pub(super) fn spread(&self, side: Side, parts: i64) -> String {
        let cheap = if self.keyed { self.cheap_spread(parts) } else { None };
        cheap.unwrap_or_else(|| {
            let number =
                format!("CAST(CAST('x' || substr({}, 1, 7) AS bit(28)) AS integer)", self.key_hash(side));
            format!("CAST({number} % {parts} AS bigint)")
        })
    }

    fn cheap_spread(&self, parts: i64) -> Option<String> {
        let type_of = |table: &SourceTable, name: &str| {
            table.columns.iter().find(|column| column.name == name).map(|column| column.type_name.clone())
        };
        let terms = self.key.iter().filter_map(|column| {
            let (one, other) = (type_of(self.source, &column.name)?, type_of(self.target, &column.name)?);
            let name = sql::ident(&column.name);
            let whole = |name: &str| matches!(name, "smallint" | "integer" | "bigint");
            if whole(&one) && whole(&other) {
                return Some(format!("coalesce(CAST({name} AS bigint) % {parts}, 0)"));
            }
            // Bound to be the same on both sides, which a time in a zone and one without are not.
            (one == other && one.starts_with("timestamp")).then(|| {
                format!(
                    "CASE WHEN isfinite({name}) THEN CAST(date_part('epoch', {name}) * 1000 AS bigint) % {parts} ELSE 0 END"
                )
            })
        });
        let terms: Vec<String> = terms.collect();
        (!terms.is_empty()).then(|| format!("({}) % {parts}", terms.join(" + ")))
    }

    /// Asks for rows by buckets: how many, and with `digest` the sum of their digests.
    pub(super) fn by_bucket(&self, side: Side, bucket: &str, conditions: &[String], digest: bool) -> String {
        let (mut inner, mut outer, mut by) = (format!("{bucket} AS b"), String::from("b, count(*)"), "b");
        if digest {
            inner.push_str(&format!(", {} AS d", self.row.digest(side.digest())));
            outer.push_str(", sum(d)");
            if let Some(group) = &self.group {
                inner.push_str(&format!(", {} AS g", side.text(group)));
                outer.push_str(", g, md5(g)");
                by = "b, g";
            }
        }
        format!(
            "SELECT {outer} FROM (SELECT {inner} FROM {}{}{}) r GROUP BY {by}",
            self.table(side),
            filter(conditions),
            self.fences[side as usize]
        )
    }

    /// Asks for a bucket, the number of rows, and the sum of their digests.
    pub(super) fn sum(&self, side: Side, conditions: &[String]) -> String {
        format!(
            "SELECT 0, count(*), coalesce(sum({}), 0) FROM {}{}",
            self.row.digest(side.digest()),
            self.table(side),
            filter(conditions)
        )
    }

    /// The rows of one group, by the md5 of its text.
    pub(super) fn in_group(&self, side: Side, md5: Option<&str>) -> Option<String> {
        let text = side.text(self.group.as_ref()?);
        Some(match md5 {
            Some(md5) => format!("md5({text}) = {}", sql::literal(md5)),
            None => format!("{text} IS NULL"),
        })
    }

    /// Asks for the md5 of each row's key, its digest, whether its key holds NULL, how many rows are alike in that, and
    /// with `keys` the key's columns.
    pub(super) fn row_digests(&self, side: Side, conditions: &[String], keys: bool) -> String {
        let nulls: Vec<String> =
            self.key.iter().map(|column| format!("{} IS NULL", sql::ident(&column.name))).collect();
        let nulls = if self.keyed { nulls.join(" OR ") } else { "false".into() };
        let (mut columns, mut names) = (String::new(), String::new());
        for (n, column) in self.key.iter().enumerate().filter(|_| keys) {
            columns.push_str(&format!(", {} AS c{n}", side.text(column)));
            names.push_str(&format!(", c{n}"));
        }
        format!(
            "SELECT k, d, n, count(*){names} FROM (SELECT {} AS k, {} AS d, CASE WHEN {nulls} THEN 1 ELSE 0 END AS n{columns} \
             FROM {}{}) r GROUP BY k, d, n{names}",
            self.key_hash(side),
            self.row.digest(side.digest()),
            self.table(side),
            filter(conditions)
        )
    }

    /// Asks for the values of rows by the md5 of their key: the key's columns, and with `values` all of them.
    pub(super) fn rows_of(&self, side: Side, conditions: &[String], keys: &[String], values: bool) -> String {
        let columns =
            if values { self.key.iter().chain(&self.row.columns) } else { self.key.iter().chain(&[]) };
        let texts: Vec<String> = columns.map(|column| side.text(column)).collect();
        let hash = self.key_hash(side);
        let wanted: Vec<String> = keys.iter().map(|key| sql::literal(key)).collect();
        let mut conditions = conditions.to_vec();
        conditions.push(format!("{hash} IN ({})", wanted.join(", ")));
        format!("SELECT {hash}, {} FROM {}{}", texts.join(", "), self.table(side), filter(&conditions))
    }

    fn table(&self, side: Side) -> String {
        match side {
            Side::Source => sql::table(&self.compared.table),
            Side::Target => sql::table(&self.compared.target),
        }
    }
}

impl Side {
    fn digest(self) -> Digest {
        match self {
            Side::Source => Digest::Source,
            Side::Target => Digest::Target,
        }
    }

    fn text(self, column: &Column) -> String {
        match self {
            Side::Source => column.source.text(),
            Side::Target => column.target.text(),
        }
    }
}

fn filter(conditions: &[String]) -> String {
    if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) }
}

/// The window column of both sides as numbers.
fn axes(
    compared: &Compared,
    source: &SourceTable,
    target: &SourceTable,
) -> Result<Option<(Axis, Axis)>, Unread> {
    let measure = &compared.rows.measure;
    let both = (Axis::of(measure, source), Axis::of(measure, target));
    match both {
        (Some(one), Some(other)) if one.is_like(&other) => Ok(Some((one, other))),
        (Some(_), Some(_)) => {
            let column = measure.column().unwrap_or_default();
            let error = format!(
                "not comparable: the window column \"{column}\" of {} is a time in a zone on one side and none on the other",
                compared.table
            );
            Err(Unread::new(Side::Target, error, "give the column the same type on both sides"))
        }
        // The conditions of the window say which column is wrong, and why.
        (None, _) | (_, None) => Ok(None),
    }
}

/// The columns that are compared, and those that are not.
fn columns(
    compared: &Compared,
    source: &SourceTable,
    target: &SourceTable,
    sides: &Sides,
) -> (Vec<Column>, Vec<Skipped>) {
    let (load, rule) = (&compared.entry.load, &compared.entry.compare);
    let (mut columns, mut skipped) = (Vec::new(), Vec::new());
    let mut skip = |column: &str, why: &str, meant: bool| {
        skipped.push(Skipped { column: column.to_owned(), why: why.to_owned(), meant });
    };
    for column in source.columns.iter() {
        let name = &column.name;
        let there = target.columns.iter().find(|there| there.name == *name);
        let is_updated = load.update_columns.is_empty()
            || load.update_columns.contains(name)
            || load.match_columns.contains(name);
        if rule.except.contains(name) {
            skip(name, "left out by `compare.except`", true);
        } else if name.chars().any(char::is_control) {
            skip(name, "its name holds a control character", false);
        } else if load.mapping.iter().any(|(mapped, _)| mapped == name) {
            skip(name, "the target's is made by `mapping`", false);
        } else if !is_updated {
            skip(name, "not among `update_columns`", true);
        } else {
            match there {
                None if column.generated => {}
                None if !load.mapping.is_empty() => skip(name, "only `mapping` reads it", true),
                None => skip(name, "only in the source", false),
                Some(there) => match canon::column(name, &column.type_name, &there.type_name, sides) {
                    Ok(column) => columns.push(column),
                    Err(why) => skip(name, &why, false),
                },
            }
        }
    }
    let in_source = |name: &str| source.columns.iter().any(|column| column.name == name);
    for column in target.columns.iter().filter(|column| !column.generated && !in_source(&column.name)) {
        let name = &column.name;
        let mapped = load.mapping.iter().any(|(mapped, _)| mapped == name);
        match (rule.except.contains(name), mapped) {
            (true, _) => skip(name, "left out by `compare.except`", true),
            (false, true) => skip(name, "made by `mapping`", false),
            (false, false) => skip(name, "only in the target", false),
        }
    }
    (columns, skipped)
}
