//! Asking a source's database, through the bundled script sent along: nothing is put on the host.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::visit::{SourceFound, SourceVisit};
use crate::inventory::{Engine, Source};
use crate::remote::Remote;
use crate::source::{Bounds, Questions, Script, SourceError, nulls, postgres, ready};
use crate::stop::Stop;

/// How long a catalog may take to answer.
const LIMIT: Duration = Duration::from_secs(60);

/// Asks a source what it is and what it holds of the wanted tables.
pub(super) fn ask(visit: &mut SourceVisit, source: &Source, remote: &mut dyn Remote) {
    visit.found = match source.engine {
        Engine::Greenplum | Engine::Postgres => Some(ask_postgres(visit, source, remote)),
        Engine::Mysql | Engine::Tdengine => None,
    };
}

fn ask_postgres(
    visit: &mut SourceVisit,
    source: &Source,
    remote: &mut dyn Remote,
) -> Result<SourceFound, SourceError> {
    let stop = Stop::default();
    let bounds = Bounds { all: LIMIT, each: LIMIT / 2, stop: &stop };
    let mut questions = Questions::begin(remote, &Script::greenplum_piped(), source, "preflight", bounds)?;
    let mut server = ready::read_server("");
    questions
        .ask(ready::SERVER.into(), "asking what the database is", |row| server = ready::read_server(row))?;
    if visit.has_globs() {
        let mut catalog = Vec::new();
        questions.ask(postgres::list_tables(), "listing its tables", |row| {
            catalog.extend(postgres::read_table_name(row));
        })?;
        visit.resolve(&catalog);
    }
    let mut tables: HashMap<_, ready::ReadyTable> = HashMap::new();
    let wanted: Vec<_> = visit.wanted.iter().map(|wanted| &wanted.table).collect();
    for some in wanted.chunks(2000) {
        questions.ask(ready::ask_tables(server.facts, some), "reading its catalog", |row| {
            if let Some((name, readable, column)) = ready::read_table(row) {
                let table = tables.entry(name).or_default();
                table.readable = readable;
                table.columns.push(column);
            }
        })?;
    }
    let windows = visit.wanted.iter().filter_map(|wanted| {
        let (column, table) = (&wanted.window.as_ref()?.column, tables.get(&wanted.table)?);
        let can_be_null = table.columns.iter().any(|one| one.name == *column && !one.not_null);
        (table.readable && can_be_null).then_some((&wanted.table, column.as_str()))
    });
    let windows: BTreeSet<_> = windows.collect();
    let counted = nulls::count(&mut questions, windows.into_iter())?;
    let nulls = counted.into_iter().map(|(table, column, nulls)| ((table, column), nulls)).collect();
    questions.end()?;
    Ok(SourceFound { server, tables, nulls })
}
