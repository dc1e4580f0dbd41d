//! Making a table that the target lacks, after the source's definition of it.
//!
//! What is written is pure ([`ddl`]): the table and its key are two statements, so that a key can also be built
//! after the rows are there. Defaults, identities, indexes and constraints but the primary key are not taken over:
//! the target holds a copy, whose every value comes from the source. Nor are storage options: what the target's
//! administrators set as default for new tables holds.

use std::collections::HashSet;

use super::{Facts, Session, TargetError};
use crate::names::TableName;
use crate::owed::OwedKey;
use crate::source::definition::{DefinedColumn, Definition, Distribution, Kind};
use crate::sql::{self, Condition};

/// How long the target may take to make one table.
const LIMIT: &str = "60s";

/// What the target is and has, as far as new tables are concerned.
#[derive(Debug, Clone)]
pub struct Site {
    /// What the server is.
    pub facts: Facts,
    /// Its database.
    pub database: String,
    /// Whom new tables will belong to.
    pub user: String,
    /// Its schemas.
    pub schemas: HashSet<String>,
    /// Schema and name of its collations, those that fit the database's encoding.
    pub collations: HashSet<(String, String)>,
    /// May columns be computed? Where an expression turned out to be one that the target does not know, no more.
    pub generates: bool,
}

/// The statements that make a table, and what of the source's definition they leave out or change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ddl {
    /// CREATE TABLE.
    pub table: String,
    /// Adds the primary key, where there is one.
    pub key: Option<String>,
    /// The key's columns.
    pub key_columns: Vec<String>,
    /// What an operator should know of it.
    pub notes: Vec<String>,
}

/// A column's type is no type: its catalog cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the source says that column \"{column}\" of {table} has a type that cannot be written: {type_name:?}"
)]
pub struct NoType {
    /// The column.
    pub column: String,
    /// The table.
    pub table: String,
    /// What the source says.
    pub type_name: String,
}

/// What came of making a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// It was made.
    Created {
        /// Its key, where that is still to be built.
        owed: Option<OwedKey>,
    },
    /// Somebody else made it meanwhile.
    AlreadyThere,
}

/// How `name` is made on this site as a copy of what `from` defines.
///
/// # Errors
/// [`NoType`].
pub fn ddl(name: &TableName, from: &Definition, site: &Site) -> Result<Ddl, NoType> {
    let mut notes = Vec::new();
    match from.kind {
        Kind::Table => {}
        Kind::View => notes.push("it is a view in the source; created as a table, without key".into()),
        Kind::Foreign => {
            notes.push("it is a foreign table in the source; created as a table, without key".into());
        }
    }
    if let Some(by) = &from.partitioned_by {
        notes.push(format!("the source partitions it by {by}; created without partitions"));
    }
    // Each of the tables that inherit has its own rows and its own key, if any.
    let key = if from.inherited { &[][..] } else { &from.primary_key[..] };
    if from.inherited {
        let key =
            if from.primary_key.is_empty() { "" } else { ", whose key does not hold for all their rows" };
        notes.push(format!("other tables inherit from it in the source{key}; created as one, without key"));
    }
    let columns: Result<Vec<String>, NoType> =
        from.columns.iter().map(|one| column(name, one, site, &mut notes)).collect();
    let distributed = distributed(from, key, &site.facts, &mut notes);
    let quoted = sql::table(name);
    Ok(Ddl {
        table: format!("CREATE TABLE {quoted} ({}){distributed}", columns?.join(", ")),
        key: (!key.is_empty()).then(|| format!("ALTER TABLE {quoted} ADD PRIMARY KEY ({})", idents(key))),
        key_columns: key.to_vec(),
        notes,
    })
}

fn column(
    table: &TableName,
    column: &DefinedColumn,
    site: &Site,
    notes: &mut Vec<String>,
) -> Result<String, NoType> {
    // A view of an old server may have columns of no type: they hold texts.
    let written = if column.type_name == "unknown" { "text" } else { &column.type_name };
    let type_name = sql::type_name(written).ok_or_else(|| NoType {
        column: column.name.clone(),
        table: table.to_string(),
        type_name: column.type_name.clone(),
    })?;
    let mut text = format!("{} {type_name}", sql::ident(&column.name));
    if let Some((schema, collation)) = &column.collation {
        if site.collations.contains(&(schema.clone(), collation.clone())) {
            text.push_str(&format!(" COLLATE {}.{}", sql::ident(schema), sql::ident(collation)));
        } else {
            notes.push(format!(
                "column \"{}\" has collation {schema}.{collation} in the source, which the target does not know; \
                 created with the target's own",
                column.name
            ));
        }
    }
    if let Some(expression) = &column.generated {
        match Condition::parse(expression) {
            Ok(expression) if site.generates => {
                text.push_str(&format!(" GENERATED ALWAYS AS {expression} STORED"));
            }
            Ok(_) | Err(_) => notes.push(format!(
                "column \"{}\" is computed in the source, which cannot be done alike in the target; created as an \
                 ordinary column, whose values come from the source",
                column.name
            )),
        }
    }
    if column.not_null {
        text.push_str(" NOT NULL");
    }
    Ok(text)
}

/// The clause that spreads a table's rows; nothing for PostgreSQL.
fn distributed(from: &Definition, key: &[String], target: &Facts, notes: &mut Vec<String>) -> String {
    if !target.distributes() {
        return String::new();
    }
    let replicates = target.replicates();
    let within_key = |columns: &[String]| key.is_empty() || columns.iter().all(|one| key.contains(one));
    match &from.distribution {
        Distribution::By(columns) if within_key(columns) => return by(columns),
        Distribution::By(columns) => notes.push(format!(
            "the source distributes it by ({}), which is not within its primary key, as Greenplum wants it; \
             distributed by the primary key",
            columns.join(", ")
        )),
        Distribution::Replicated if replicates => return " DISTRIBUTED REPLICATED".into(),
        Distribution::Replicated => notes.push(
            "the source replicates it to every segment, which this target cannot do; distributed otherwise"
                .into(),
        ),
        Distribution::Randomly if key.is_empty() => return randomly(),
        Distribution::Randomly | Distribution::None => {}
    }
    if key.is_empty() {
        notes.push(
            "there is neither a distribution key nor a primary key in the source; distributed randomly"
                .into(),
        );
        return randomly();
    }
    by(key)
}

fn by(columns: &[String]) -> String {
    format!(" DISTRIBUTED BY ({})", idents(columns))
}

fn randomly() -> String {
    " DISTRIBUTED RANDOMLY".into()
}

fn idents(columns: &[String]) -> String {
    sql::idents(columns.iter().map(String::as_str))
}

impl Session {
    /// What the target is and has, as far as new tables are concerned. From here to [`Session::end_creating`] its
    /// statements are bounded in time: whoever holds a name without committing shall not hold a run up.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn begin_creating(&mut self) -> Result<Site, TargetError> {
        let of = |error: postgres::Error| TargetError::of(&error, "say what new tables may have");
        self.client.batch_execute(&format!("SET statement_timeout = '{LIMIT}'")).map_err(of)?;
        let who = "SELECT current_database()::text, current_user::text";
        let row = self.client.query_one(who, &[]).map_err(of)?;
        let schemas = self.client.query("SELECT nspname::text FROM pg_namespace", &[]).map_err(of)?;
        let collations = if self.facts.has_collations() {
            let known = "SELECT n.nspname::text, c.collname::text FROM pg_collation c \
                 JOIN pg_namespace n ON n.oid = c.collnamespace \
                 WHERE c.collencoding IN (-1, (SELECT encoding FROM pg_database WHERE datname = current_database()))";
            self.client.query(known, &[]).map_err(of)?
        } else {
            Vec::new()
        };
        Ok(Site {
            facts: self.facts.clone(),
            database: row.get(0),
            user: row.get(1),
            schemas: schemas.iter().map(|row| row.get(0)).collect(),
            collations: collations.iter().map(|row| (row.get(0), row.get(1))).collect(),
            generates: self.facts.generates(),
        })
    }

    /// Ends what [`Session::begin_creating`] began.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn end_creating(&mut self) -> Result<(), TargetError> {
        self.run("RESET statement_timeout", "reset a setting")
    }

    /// Makes a table, its schema where that is missing, and its key, or where it `owes` that the word of it: all of it or
    /// nothing. A table that is there is left as it is.
    ///
    /// # Errors
    /// [`TargetError`]; the session can be used on unless it is lost.
    pub fn create(
        &mut self,
        name: &TableName,
        ddl: &Ddl,
        site: &mut Site,
        owes: bool,
    ) -> Result<Made, TargetError> {
        let doing = format!("create {name}");
        for _ in 0..5 {
            let schema = if site.schemas.contains(name.schema()) {
                String::new()
            } else {
                format!("CREATE SCHEMA {}; ", sql::ident(name.schema()))
            };
            let statements = format!("{schema}{}{}", ddl.table, with_key(name, ddl, owes));
            log::debug!("target: {statements}");
            let made = self.client.batch_execute(&format!("BEGIN; {statements}; COMMIT"));
            let Err(error) = made.map_err(|error| TargetError::of(&error, &doing)) else {
                site.schemas.insert(name.schema().to_owned());
                let owed = if owes && ddl.key.is_some() { self.owed_by(name, ddl)? } else { None };
                return Ok(Made::Created { owed });
            };
            // The simple protocol leaves the transaction open after an error.
            drop(self.client.batch_execute("ROLLBACK"));
            // Somebody else makes the schema or the table at this moment: as such, or as a row of the catalog.
            if !matches!(error.sqlstate(), Some("42P06" | "42P07" | "42710" | "23505")) {
                return Err(error);
            }
            if self.tables(&[name])?.contains_key(name) {
                return Ok(Made::AlreadyThere);
            }
            let there = "SELECT 1 FROM pg_namespace WHERE nspname = $1::text";
            let found = self.client.query_opt(there, &[&name.schema()]);
            let found = found.map_err(|error| TargetError::of(&error, "look for a schema"))?;
            if found.is_none() || !site.schemas.insert(name.schema().to_owned()) {
                // Not the schema: something else than a table has this name.
                return Err(error);
            }
        }
        Err(TargetError::Lost { doing, why: "others keep making and dropping it".into() })
    }
}

/// What follows CREATE TABLE: the key, or the word that it is owed. That the server would take it is tried all the same,
/// while the table is empty: an append-optimized one has no keys.
fn with_key(name: &TableName, ddl: &Ddl, owes: bool) -> String {
    match &ddl.key {
        None => String::new(),
        Some(key) if !owes => format!("; {key}"),
        Some(key) => format!(
            "; SAVEPOINT key; {key}; ROLLBACK TO SAVEPOINT key; RELEASE SAVEPOINT key; COMMENT ON TABLE {} IS {}",
            sql::table(name),
            sql::literal(&OwedKey::comment(&ddl.key_columns))
        ),
    }
}

/// What to try where a table could not be made.
pub fn remedy(error: &TargetError, name: &TableName, site: &Site) -> String {
    let (schema, user) = (sql::ident(name.schema()), sql::ident(&site.user));
    match error.sqlstate() {
        Some("42501") if site.schemas.contains(name.schema()) => {
            format!("as an administrator of the target: `GRANT USAGE, CREATE ON SCHEMA {schema} TO {user}`")
        }
        Some("42501") => format!(
            "as an administrator of the target: `CREATE SCHEMA {schema} AUTHORIZATION {user}`, or `GRANT CREATE ON \
             DATABASE {} TO {user}`",
            sql::ident(&site.database)
        ),
        Some("42704" | "3F000") => {
            "create what the target does not know first (CREATE TYPE, DOMAIN or EXTENSION, in the schema that it has \
             in the source), or create the table yourself with types that the target knows"
                .into()
        }
        Some("42P07" | "42710") => {
            "something that is no table has this name in the target: rename or drop it, or give another name with \
             `target:`"
                .into()
        }
        Some(state) if sql::is_cancelled(state) => {
            format!("it took longer than {LIMIT}: does another session hold that name in an open transaction?")
        }
        Some(_) => "create the table yourself in a way that the target takes; `-v` shows what was tried".into(),
        None => error.remedy(),
    }
}

#[cfg(test)]
mod tests;
