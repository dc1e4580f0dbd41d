//! The target, and its tables beside those of the sources. Pure.

use std::collections::HashSet;

use super::types::{Fit, fit};
use super::visit::{Loading, TargetFound};
use super::{Check, SourceVisit, TargetVisit, Wanted};
use crate::inventory::Loader;
use crate::source::ready::{ReadyColumn as SourceColumn, ReadyTable as SourceTable};
use crate::sql;
use crate::step::load::inlet;
use crate::target::ready::{LogAccess, RIGHTS, ReadyColumn as TargetColumn, ReadyTable as TargetTable};

/// The target and its tables.
pub(super) fn target(visit: &TargetVisit, sources: &[SourceVisit]) -> Vec<Check> {
    let found = match &visit.found {
        Ok(found) => found,
        Err(error) => {
            return vec![Check::fail("target.database", &visit.shown, error.to_string(), error.remedy())];
        }
    };
    let server = found.facts.text.split(" on ").next().unwrap_or(&found.facts.text);
    let mut checks = vec![
        Check::ok("target.database", &visit.shown, format!("{}: {server}", found.readiness.database)),
        log(visit, found),
    ];
    checks.extend(loading(visit, found));
    checks.extend(sources.iter().map(|source| encoding(visit, found, source)));
    let mut seen = HashSet::new();
    for source in sources {
        for wanted in &source.wanted {
            let there = source
                .found
                .as_ref()
                .and_then(|asked| asked.as_ref().ok())
                .and_then(|one| one.tables.get(&wanted.table));
            if seen.insert((&wanted.target, &wanted.table, &source.name)) {
                checks.extend(target_table(found, wanted, there));
            }
        }
    }
    checks
}

/// By what way files get in.
fn loading(visit: &TargetVisit, found: &TargetFound) -> Option<Check> {
    let (id, subject) = ("target.loader", &visit.shown);
    Some(match &found.loading {
        Loading::NotAsked => return None,
        Loading::NotYet(subdir) => {
            Check::skipped(id, subject, format!("{subdir} is not there yet, so nobody can prove to see it"))
        }
        Loading::Chosen(choice) => Check::ok(id, subject, inlet::words(visit.loader, choice)),
        Loading::Blind(no) if visit.loader == Loader::Auto => {
            Check::warn(id, subject, format!("{}; all files go through COPY", no.why), &no.remedy)
        }
        Loading::Blind(no) | Loading::Impossible(no) => Check::fail(id, subject, &no.why, &no.remedy),
    })
}

fn log(visit: &TargetVisit, found: &TargetFound) -> Check {
    let (id, subject) = ("target.log", format!("{}.load_log", visit.log_schema));
    let (schema, user) = (sql::ident(&visit.log_schema), sql::ident(&found.readiness.user));
    match found.readiness.log {
        LogAccess::Writable => Check::ok(id, subject, "there, and can be written"),
        LogAccess::Creatable => Check::ok(id, subject, "not there yet, and can be made"),
        LogAccess::NotWritable => {
            let remedy = format!(
                "`GRANT USAGE ON SCHEMA {schema} TO {user}; GRANT SELECT, INSERT, UPDATE ON {schema}.load_log TO {user}`"
            );
            Check::fail(id, subject, "the load log is there and the loading user may not write it", remedy)
        }
        LogAccess::SchemaClosed => {
            let remedy = format!("`GRANT USAGE, CREATE ON SCHEMA {schema} TO {user}`");
            Check::fail(id, subject, "the load log cannot be made in its schema", remedy)
        }
        LogAccess::DatabaseClosed => {
            let remedy =
                format!("as an administrator of the target: `CREATE SCHEMA {schema} AUTHORIZATION {user}`");
            Check::fail(
                id,
                subject,
                "the schema of the load log is not there and the loading user may not make it",
                remedy,
            )
        }
    }
}

fn encoding(visit: &TargetVisit, found: &TargetFound, source: &SourceVisit) -> Check {
    let (id, to) = ("target.encoding", &found.readiness.encoding);
    let Some(Ok(asked)) = &source.found else {
        return Check::skipped(id, &source.name, "the source's encoding is not known");
    };
    let from = &asked.server.encoding;
    let seen = format!("{from} in {}, {to} in the target", source.name);
    if to == "UTF8" && from != "SQL_ASCII" || from == to {
        return Check::ok(id, &source.name, seen);
    }
    let remedy = format!(
        "texts that {to} does not have, or that are not valid, fail: a target made with `ENCODING 'UTF8'` holds all of them ({})",
        visit.shown
    );
    Check::warn(id, &source.name, seen, remedy)
}

fn target_table(found: &TargetFound, wanted: &Wanted, source: Option<&SourceTable>) -> Vec<Check> {
    let subject = wanted.target.to_string();
    let Some(table) = found.tables.get(&wanted.target) else {
        let seen = format!("the table {subject} is not in the target database {}", found.readiness.database);
        let remedy = "create it there (`gpferry run --tables-only` does), or give its name with `target:` in the inventory";
        return vec![Check::fail("target.table", subject, seen, remedy)];
    };
    let mut checks = vec![Check::ok("target.table", &subject, format!("{} columns", table.columns.len()))];
    let name = sql::table(&wanted.target);
    checks.extend(rights(found, wanted, table));
    checks.push(match table.primary_key.as_slice() {
        [] => Check::warn(
            "target.key",
            &subject,
            "it has no primary key, so nothing stops duplicates that come by another way than gpferry",
            format!("`ALTER TABLE {name} ADD PRIMARY KEY (…)` with the columns that make a row unique"),
        ),
        key => Check::ok("target.key", &subject, key.join(", ")),
    });
    if let Some(source) = source {
        checks.extend(columns(wanted, source, table));
    }
    checks
}

/// Whether the loading user may do what the way of loading needs.
fn rights(found: &TargetFound, wanted: &Wanted, table: &TargetTable) -> Vec<Check> {
    let (subject, user) = (wanted.target.to_string(), sql::ident(&found.readiness.user));
    let needs = |right: &&str| {
        wanted.rights.table.contains(right) || (["INSERT", "DELETE"].contains(right) && moves(wanted, table))
    };
    let lacks = |right: &&str| !table.may.contains(right);
    let lacking: Vec<&str> = RIGHTS.into_iter().filter(needs).filter(lacks).collect();
    let mut checks = Vec::new();
    if !lacking.is_empty() {
        let seen = format!("the loading user lacks {} on it", lacking.join(", "));
        let table = sql::table(&wanted.target);
        let remedy = format!("`GRANT {} ON {table} TO {user}` (and USAGE on its schema)", lacking.join(", "));
        checks.push(Check::fail("target.rights", &subject, seen, remedy));
    }
    if wanted.rights.temporary && !found.readiness.temporary {
        let database = sql::ident(&found.readiness.database);
        let seen = "rows are staged on the way into it, and the loading user may not make temporary tables";
        let remedy = format!("`GRANT TEMPORARY ON DATABASE {database} TO {user}`");
        checks.push(Check::fail("target.rights", &subject, seen, remedy));
    }
    if !checks.is_empty() || wanted.rights.temporary {
        return checks;
    }
    let (reads, stages) = (table.may.contains(&"SELECT"), found.readiness.temporary);
    if !reads || !stages {
        let name = sql::table(&wanted.target);
        let mut grants = Vec::new();
        if !reads {
            grants.push(format!("`GRANT SELECT ON {name} TO {user}`"));
        }
        if !stages {
            let database = sql::ident(&found.readiness.database);
            grants.push(format!("`GRANT TEMPORARY ON DATABASE {database} TO {user}`"));
        }
        checks.push(Check::warn(
            "target.rights",
            &subject,
            "should keys collide, gpferry cannot tell which: for that the loading user has to read the table and make \
             temporary tables",
            grants.join(" and "),
        ));
    }
    checks
}

/// Does an update take rows away and put them back, since it changes where they are, or what the server numbers?
fn moves(wanted: &Wanted, table: &TargetTable) -> bool {
    let moved = table.columns.iter().filter(|column| column.moves);
    let mut names = moved.map(|column| column.name.as_str());
    wanted
        .changes
        .as_ref()
        .is_some_and(|changes| names.any(|name| changes.includes(name, &table.primary_key)))
}

fn columns(wanted: &Wanted, source: &SourceTable, target: &TargetTable) -> Vec<Check> {
    let (subject, name) = (wanted.target.to_string(), sql::table(&wanted.target));
    let mut checks = Vec::new();
    let maps = !wanted.computed.is_empty();
    for column in source.columns.iter().filter(|column| !column.generated) {
        if wanted.computed.contains(&column.name) {
            continue;
        }
        match target.columns.iter().find(|there| there.name == column.name) {
            None if maps => {}
            None => {
                let remedy = format!(
                    "`ALTER TABLE {name} ADD COLUMN {} {}`",
                    sql::ident(&column.name),
                    column.type_name
                );
                let seen = format!("column \"{}\" of the source is not in the target", column.name);
                checks.push(Check::fail("target.columns", &subject, seen, remedy));
            }
            Some(there) => checks.extend(column_pair(wanted, column, there)),
        }
    }
    for extra in &target.columns {
        if !extra.generated
            && !wanted.computed.contains(&extra.name)
            && !source.columns.iter().any(|column| column.name == extra.name)
        {
            checks.push(extra_column(&subject, &name, extra));
        }
    }
    if checks.is_empty() {
        checks.push(Check::ok(
            "target.columns",
            &subject,
            "every column is there and holds what the source's can",
        ));
    }
    checks
}

fn extra_column(subject: &str, name: &str, extra: &TargetColumn) -> Check {
    let column = sql::ident(&extra.name);
    if extra.not_null && !extra.has_default {
        let seen = format!(
            "column \"{}\" is NOT NULL, has no default, and is not in the source: it would get no value",
            extra.name
        );
        return Check::fail(
            "target.notnull",
            subject,
            seen,
            format!("`ALTER TABLE {name} DROP COLUMN {column}`, or add it to the source"),
        );
    }
    let seen = format!("column \"{}\" is only in the target", extra.name);
    Check::fail(
        "target.columns",
        subject,
        seen,
        format!("`ALTER TABLE {name} DROP COLUMN {column}`, or add it to the source"),
    )
}

fn column_pair(wanted: &Wanted, from: &SourceColumn, to: &TargetColumn) -> Vec<Check> {
    let (subject, name) = (wanted.target.to_string(), sql::table(&wanted.target));
    let column = sql::ident(&to.name);
    let mut checks = Vec::new();
    if to.generated {
        let seen = format!("column \"{}\" is generated by the target, so it cannot be loaded", to.name);
        return vec![Check::fail(
            "target.columns",
            subject,
            seen,
            format!("`ALTER TABLE {name} ALTER COLUMN {column} DROP EXPRESSION`"),
        )];
    }
    match fit(&from.type_name, &to.type_name) {
        Fit::Fits => {}
        Fit::Narrower(why) => {
            let seen = format!(
                "column \"{}\" is {} in the source and {} in the target: {why}",
                to.name, from.type_name, to.type_name
            );
            let remedy = format!("`ALTER TABLE {name} ALTER COLUMN {column} TYPE {}`", from.type_name);
            checks.push(Check::fail("target.type", &subject, seen, remedy));
        }
        Fit::Different => {
            let seen = format!(
                "column \"{}\" is {} in the source and {} in the target: values are converted by their text, or refused",
                to.name, from.type_name, to.type_name
            );
            let remedy = format!(
                "if that is not meant: `ALTER TABLE {name} ALTER COLUMN {column} TYPE {}`",
                from.type_name
            );
            checks.push(Check::warn("target.type", &subject, seen, remedy));
        }
    }
    let is_window = wanted.window.as_ref().is_some_and(|by| by.column == to.name);
    let includes_nulls = wanted.window.as_ref().is_some_and(|by| by.includes_nulls);
    if to.not_null && !from.not_null && (!is_window || includes_nulls) {
        let seen = format!("column \"{}\" is NOT NULL in the target and may be NULL in the source", to.name);
        let remedy = format!(
            "`ALTER TABLE {name} ALTER COLUMN {column} DROP NOT NULL`, or see that the source has none"
        );
        checks.push(Check::warn("target.notnull", &subject, seen, remedy));
    }
    if is_window && !to.not_null && !includes_nulls {
        let seen = format!("the window column \"{}\" may be NULL in the target", to.name);
        checks.push(Check::warn(
            "target.window",
            &subject,
            seen,
            format!("`ALTER TABLE {name} ALTER COLUMN {column} SET NOT NULL`"),
        ));
    }
    checks
}
