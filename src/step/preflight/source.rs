//! Source databases and their tables. Pure.

use super::visit::SourceFound;
use super::{Check, SourceVisit, Wanted, WantedWindow};
use crate::inventory::Engine;
use crate::source::SourceError;
use crate::source::nulls::{EACH, Nulls};
use crate::source::ready::ReadyTable as SourceTable;
use crate::source::rows::unfit_for_windows;
use crate::sql;

/// A source's database and its tables.
pub(super) fn checks(visit: &SourceVisit) -> Vec<Check> {
    let (id, name) = ("source.database", &visit.name);
    match visit.engine {
        Engine::Greenplum | Engine::Postgres => {}
        Engine::Mysql | Engine::Tdengine => {
            return vec![Check::skipped(id, name, "preflight does not speak with this engine yet")];
        }
    }
    match &visit.found {
        None => Vec::new(),
        // Said under `reach` or `host` already.
        Some(Err(error @ (SourceError::Remote(_) | SourceError::Command(_)))) => {
            vec![Check::skipped(id, name, error.to_string())]
        }
        Some(Err(error @ SourceError::Failed { cause, .. })) => {
            vec![Check::fail(id, name, error.to_string(), cause.remedy())]
        }
        Some(Err(
            error @ (SourceError::Protocol { .. } | SourceError::Silent { .. } | SourceError::GivenUp { .. }),
        )) => {
            vec![Check::fail(id, name, error.to_string(), error.remedy())]
        }
        Some(Ok(found)) => {
            let server = found.server.text.split(" on ").next().unwrap_or(&found.server.text);
            let mut checks =
                vec![Check::ok(id, name, format!("{}: {server}, {}", visit.database, found.server.encoding))];
            for glob in &visit.unmatched {
                let remedy = "correct the pattern in the inventory, or the source's `database`";
                checks.push(Check::warn(
                    "source.table",
                    format!("{name} {glob}"),
                    "no table of the source matches",
                    remedy,
                ));
            }
            checks.extend(visit.wanted.iter().flat_map(|wanted| source_table(visit, found, wanted)));
            checks
        }
    }
}

fn source_table(visit: &SourceVisit, found: &SourceFound, wanted: &Wanted) -> Vec<Check> {
    let subject = format!("{} {}", visit.name, wanted.table);
    let Some(table) = found.tables.get(&wanted.table) else {
        let seen = format!("the table {} is not in the source database {}", wanted.table, visit.database);
        let remedy = "correct the name in the inventory (as the catalog writes it, capitals included), or the source's `database`";
        return vec![Check::fail("source.table", subject, seen, remedy)];
    };
    let mut checks = vec![Check::ok("source.table", &subject, format!("{} columns", table.columns.len()))];
    if !table.readable {
        let remedy = format!(
            "`GRANT SELECT ON {} TO` the exporting user (and USAGE on the schema)",
            sql::table(&wanted.table)
        );
        checks.push(Check::fail("source.readable", &subject, "the exporting user may not read it", remedy));
    }
    if let Some(column) = &wanted.window {
        let counted = found.nulls.get(&(wanted.table.clone(), column.column.clone())).copied();
        checks.extend(window(&subject, wanted, table, column, counted));
    }
    checks
}

fn window(
    subject: &str,
    wanted: &Wanted,
    table: &SourceTable,
    by: &WantedWindow,
    counted: Option<Nulls>,
) -> Vec<Check> {
    let (id, name) = ("source.window", &by.column);
    let Some(column) = table.columns.iter().find(|column| column.name == *name) else {
        let times: Vec<&str> =
            table.columns.iter().filter(|one| is_time(&one.type_name)).map(|one| one.name.as_str()).collect();
        let seen = format!("the window column \"{name}\" is not in the source table");
        let remedy = match times.as_slice() {
            [] => "it has no column of time at all: write `window: none` for it".into(),
            times => {
                format!("write `window: {{ column: … }}` for it; columns of time are: {}", times.join(", "))
            }
        };
        return vec![Check::fail(id, subject, seen, remedy)];
    };
    if let Some(needed) = unfit_for_windows(by.scale, &column.type_name) {
        let seen = format!("the window column \"{name}\" has type {}", column.type_name);
        return vec![Check::fail(id, subject, seen, needed)];
    }
    let mut checks = vec![if column.not_null {
        Check::ok(id, subject, format!("{name}, {}", column.type_name))
    } else {
        without_value(subject, wanted, by, &column.type_name, counted)
    }];
    checks.push(if column.found_fast {
        Check::ok("source.index", subject, format!("an index or a partitioning begins with {name}"))
    } else {
        let seen =
            format!("no index and no partitioning begins with {name}: every window reads the whole table");
        let remedy = format!(
            "`CREATE INDEX ON {} ({})` in the source, if the table is large",
            sql::table(&wanted.table),
            sql::ident(name)
        );
        Check::warn("source.index", subject, seen, remedy)
    });
    checks
}

/// Rows whose window column is NULL are in no window.
fn without_value(
    subject: &str,
    wanted: &Wanted,
    by: &WantedWindow,
    type_name: &str,
    counted: Option<Nulls>,
) -> Check {
    let (id, name) = ("source.window", &by.column);
    let (table, column) = (sql::table(&wanted.table), sql::ident(name));
    match counted {
        Some(Nulls::Rows(0)) => {
            Check::ok(id, subject, format!("{name}, {type_name}; it may be NULL, and no row has none now"))
        }
        Some(Nulls::Rows(rows)) if by.includes_nulls => {
            let seen = format!("{name}, {type_name}; {rows} rows without a value are moved as one unit");
            Check::ok(id, subject, seen)
        }
        Some(Nulls::Rows(rows)) => {
            let rows = if rows == 1 { "1 row is".into() } else { format!("{rows} rows are") };
            let seen = format!("{rows} NULL in the window column \"{name}\", so in no window: never moved");
            let remedy = format!(
                "`SELECT * FROM {table} WHERE {column} IS NULL LIMIT 10` shows some; `null_window: include` moves them as \
                 one unit, once"
            );
            Check::warn(id, subject, seen, remedy)
        }
        Some(Nulls::TooLong | Nulls::Refused) | None => {
            let why = match counted {
                Some(Nulls::TooLong) => format!("could not be counted in {} s", EACH.as_secs()),
                Some(Nulls::Rows(_) | Nulls::Refused) | None => "could not be counted".into(),
            };
            let seen = format!(
                "the window column \"{name}\" may be NULL, and such rows are in no window; they {why}"
            );
            let remedy = format!(
                "`SELECT count(*) FROM {table} WHERE {column} IS NULL`; where there are none: `ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL`"
            );
            Check::warn(id, subject, seen, remedy)
        }
    }
}

fn is_time(type_name: &str) -> bool {
    type_name == "date" || type_name.starts_with("timestamp")
}
