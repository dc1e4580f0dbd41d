//! `catalog:`, jobs and tables that stand in a database instead of in this file, or beside it.
//!
//! Here is what was written: where the database is, which queries are asked, and which column means what. The
//! rows come from [`crate`]'s floors above; [`rows`] turns them into the same tree that YAML is read into, so
//! that one reader checks both. Values of rows are never shown, but for those that name a row.

mod nodes;
mod origin;
mod presets;
mod rows;
mod sheet;
mod states;
mod tables;
mod times;
pub(super) mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use super::fault::{Fault, Place};
use super::reader::{At, Fields, Reader, join};
use super::scalars::{any_text, text};
use super::sources::check_name;
use super::top::check_url;
use super::yaml::Value;
use presets::Preset;

pub(super) use origin::Origins;
pub(super) use rows::{Composed, Way, compose};

/// A database that holds jobs and tables.
#[derive(Debug, Clone)]
pub struct JobCatalog {
    /// Its name in the inventory.
    pub name: String,
    /// `postgresql://…` or `mysql://…`, never with a password in it.
    pub url: String,
    /// What gives one row per table.
    pub tables: Option<CatalogQuery>,
    /// What gives one row per job, with its times.
    pub jobs: Option<CatalogQuery>,
    source: SourceRule,
    place: Place,
}

/// A query and what its columns mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogQuery {
    /// One statement that reads.
    pub sql: String,
    columns: BTreeMap<Field, String>,
}

/// What a query gave: every value as text, absent ones as `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// As many values in each row as there are columns.
    pub rows: Vec<Vec<Option<String>>>,
}

/// What a catalog gave, for the queries that it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// One row per table.
    pub tables: Option<Answer>,
    /// One row per job.
    pub jobs: Option<Answer>,
}

/// Something in a catalog that is odd, and how it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The catalog's name.
    pub catalog: String,
    /// Which row, by its key columns.
    pub row: String,
    /// What is odd.
    pub what: String,
    /// Which node of the tree it is about.
    at: Place,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "catalog {}: {}: {}", self.catalog, self.row, self.what)
    }
}

/// Which source a row's table is in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SourceRule {
    /// Always this one; the database of a row, where there is one, must be its database.
    One { source: String, database: String },
    /// By the row's database.
    ByDatabase(BTreeMap<String, String>),
    /// There are no tables in it.
    NoTables,
}

/// What a column means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Field {
    Database,
    Schema,
    Table,
    Window,
    Duration,
    Group,
    Valid,
    Mode,
    Start,
    End,
    FinalEnd,
    Hours,
}

impl Field {
    /// The word of the inventory.
    fn word(self) -> &'static str {
        match self {
            Field::Database => "database",
            Field::Schema => "schema",
            Field::Table => "table",
            Field::Window => "window",
            Field::Duration => "duration",
            Field::Group => "group",
            Field::Valid => "valid",
            Field::Mode => "mode",
            Field::Start => "start",
            Field::End => "end",
            Field::FinalEnd => "final_end",
            Field::Hours => "hours",
        }
    }

    /// What its values look like.
    fn wanted(self) -> &'static str {
        match self {
            Field::Database => "the name of a database that `source:` of this catalog knows",
            Field::Schema => "the schema's name as the source's catalog holds it",
            Field::Table => "the table's name as the source's catalog holds it",
            Field::Window => "the name of the window column",
            Field::Duration => "a number of hours, such as 4 or 0.5, or a length such as 90s, 15m, 4h, 1d",
            Field::Group => "the job's name: letters, digits, `_`, `-` and `.`, at most 100 of them",
            Field::Valid => "Y, YES, T, TRUE or 1, and N, NO, F, FALSE or 0 for what is left out",
            Field::Mode => "one of insert, update, merge, replace",
            Field::Start | Field::End | Field::FinalEnd => "a timestamp such as 2021-08-10 00:00:00",
            Field::Hours => "a range of the day such as 00:00-04:00",
        }
    }
}

/// One of the two queries, as the inventory knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Tables,
    Jobs,
}

impl Which {
    fn word(self) -> &'static str {
        match self {
            Which::Tables => "tables",
            Which::Jobs => "jobs",
        }
    }

    fn fields(self) -> &'static [Field] {
        match self {
            Which::Tables => &[
                Field::Database,
                Field::Schema,
                Field::Table,
                Field::Window,
                Field::Duration,
                Field::Group,
                Field::Valid,
                Field::Mode,
            ],
            Which::Jobs => &[
                Field::Group,
                Field::Start,
                Field::End,
                Field::FinalEnd,
                Field::Duration,
                Field::Hours,
                Field::Valid,
            ],
        }
    }

    fn words(self) -> &'static [&'static str] {
        match self {
            Which::Tables => &["database", "schema", "table", "window", "duration", "group", "valid", "mode"],
            Which::Jobs => &["group", "start", "end", "final_end", "duration", "hours", "valid"],
        }
    }

    /// Those without which a row means nothing.
    fn needed(self) -> &'static [Field] {
        match self {
            Which::Tables => &[Field::Schema, Field::Table, Field::Group],
            Which::Jobs => &[Field::Group, Field::Start],
        }
    }

    /// Is this one of those?
    fn needs(field: Field) -> bool {
        [Which::Tables, Which::Jobs].iter().any(|which| which.needed().contains(&field))
    }

    fn example(self) -> &'static str {
        match self {
            Which::Tables => "tables: { query: \"SELECT …\", columns: { schema: s, table: t, group: g } }",
            Which::Jobs => "jobs: { query: \"SELECT …\", columns: { group: g, start: s } }",
        }
    }
}

const KEYS: &[&str] = &["url", "like", "source", "tables", "jobs"];
const EXAMPLE: &str = "old: { url: \"postgresql://etl@gp6:5432/qmsprd\", like: transfertable, source: fab1 }";

/// All catalogs, in the order written.
pub(super) fn read(reader: &mut Reader, at: &At<'_>, sources: &[super::Source]) -> Vec<JobCatalog> {
    let mut catalogs = Vec::new();
    for (key, at) in reader.entries(at, &format!("catalog: {{ {EXAMPLE} }}")) {
        check_name(reader, &key.text, &at, "catalog");
        let Some(fields) = reader.fields(&at, KEYS, EXAMPLE) else { continue };
        catalogs.push(read_one(reader, &key.text, &at, &fields, sources));
    }
    catalogs
}

fn read_one(
    reader: &mut Reader,
    name: &str,
    at: &At<'_>,
    fields: &Fields<'_>,
    sources: &[super::Source],
) -> JobCatalog {
    const URL: &str = "url: \"postgresql://etl@gp6:5432/qmsprd\" or url: \"mysql://etl@db:3306/etl\"";
    let mut url = String::new();
    if let Some(at) = fields.need(reader, "url", URL)
        && let Some(written) = text(reader, &at, URL)
    {
        if let Err((what, remedy)) = check_url(written, &["postgresql", "postgres", "mysql", "mariadb"]) {
            reader.fault(&at, what, remedy);
        }
        written.clone_into(&mut url);
    }
    let preset = fields.get("like").and_then(|at| presets::read(reader, &at));
    let tables = read_query(reader, fields, Which::Tables, preset);
    let jobs = read_query(reader, fields, Which::Jobs, preset);
    if tables.is_none() && jobs.is_none() && fields.get("like").is_none() {
        let keys = "this catalog has neither `like` nor queries";
        reader.add(Fault::new(at.named, at.path.clone(), keys, format!("write it as {EXAMPLE}")));
    }
    let source = match &tables {
        Some(query) => read_source(reader, fields, query, sources),
        None => {
            if let Some(at) = fields.get("source") {
                let what = "this catalog names no tables, so its jobs have their source in `jobs:`";
                reader.fault(&at, what, "remove it, or write `tables:` too");
            }
            SourceRule::NoTables
        }
    };
    JobCatalog { name: name.to_owned(), url, tables, jobs, source, place: at.named }
}

/// A query of its own, or the ready-made one with what is written laid over it.
fn read_query(
    reader: &mut Reader,
    fields: &Fields<'_>,
    which: Which,
    preset: Option<&Preset>,
) -> Option<CatalogQuery> {
    let made = preset.and_then(|preset| preset.query(which));
    let Some(at) = fields.get(which.word()) else { return made };
    let fields = reader.fields(&at, &["query", "columns"], which.example())?;
    let (made_sql, mut columns) = made.map_or((None, BTreeMap::new()), |made| (Some(made.sql), made.columns));
    let sql = match (fields.get("query"), made_sql) {
        (Some(at), _) => any_text(reader, &at, "query: \"SELECT …\"").unwrap_or_default().to_owned(),
        (None, Some(sql)) => sql,
        (None, None) => {
            fields.need(reader, "query", "query: \"SELECT …\"");
            String::new()
        }
    };
    let mut faulty = false;
    if let Some(at) = fields.get("columns") {
        faulty = !read_columns(reader, &at, which, &mut columns);
    }
    for field in which.needed().iter().filter(|field| !faulty && !columns.contains_key(field)) {
        reader.add(Fault::new(
            fields.get("columns").map_or(fields.at.named, |at| at.named),
            join(&join(&fields.at.path, "columns"), field.word()),
            format!("no column of the query is named for `{}`", field.word()),
            format!("write it as {}", which.example()),
        ));
    }
    Some(CatalogQuery { sql, columns })
}

/// Lays the written columns over those of a ready-made mapping; `~` takes one away. False after a fault.
fn read_columns(
    reader: &mut Reader,
    at: &At<'_>,
    which: Which,
    columns: &mut BTreeMap<Field, String>,
) -> bool {
    let Some(fields) = reader.fields(at, which.words(), which.example()) else { return false };
    let mut good = true;
    for &field in which.fields() {
        let Some(at) = fields.get(field.word()) else { continue };
        if at.node.value == Value::Null {
            columns.remove(&field);
            continue;
        }
        match text(reader, &at, &format!("{}: \"column_name\"", field.word())) {
            Some(column) => drop(columns.insert(field, column.to_owned())),
            None => good = false,
        }
    }
    good
}

fn read_source(
    reader: &mut Reader,
    fields: &Fields<'_>,
    query: &CatalogQuery,
    sources: &[super::Source],
) -> SourceRule {
    const WRITE: &str = "source: fab1, or by the rows' database: source: { qmsprd: fab1, mes: fab2 }";
    let Some(at) = fields.need(reader, "source", WRITE) else { return SourceRule::NoTables };
    if !matches!(at.node.value, Value::Map(_)) {
        let Some(name) = text(reader, &at, WRITE) else { return SourceRule::NoTables };
        let found = known_source(reader, &at, name, sources);
        let database = found.map(|source| source.database.clone()).unwrap_or_default();
        return SourceRule::One { source: name.to_owned(), database };
    }
    if !query.columns.contains_key(&Field::Database) {
        reader.fault(
            &at,
            "the source is chosen by the rows' database, and no column is named for `database`",
            "write `columns: { database: db_name }` under `tables:`, or one source for all rows",
        );
    }
    let mut by = BTreeMap::new();
    for (key, at) in reader.entries(&at, WRITE) {
        if let Some(name) = text(reader, &at, "qmsprd: \"fab1\"") {
            known_source(reader, &at, name, sources);
            by.insert(key.text.to_string(), name.to_owned());
        }
    }
    SourceRule::ByDatabase(by)
}

fn known_source<'a>(
    reader: &mut Reader,
    at: &At<'_>,
    name: &str,
    sources: &'a [super::Source],
) -> Option<&'a super::Source> {
    let found = sources.iter().find(|source| source.name == name);
    // Without any source that was read the faults of the sources themselves are enough.
    if found.is_none() && !sources.is_empty() {
        let known: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
        let shown = reader.secrets.echo(name);
        reader.fault(
            at,
            format!("there is no source {shown}"),
            super::suggest::remedy_for_source(name, &known),
        );
    }
    found
}
