//! Asking a source's database, through the bundled script sent along: nothing is put on the host.

use std::collections::HashMap;
use std::time::Duration;

use super::visit::{SourceFound, SourceVisit};
use crate::inventory::{Engine, Source};
use crate::remote::{Cause, Remote};
use crate::source::{Conversation, Reply, Request, Script, SourceError, postgres, ready};
use crate::step::export::settings;

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
    let mut talk =
        Conversation::start(remote, &Script::greenplum_piped(), "query", "the catalog query", LIMIT)?;
    for (name, value) in settings(source, "preflight") {
        talk.ask(&Request::Set { name, value });
    }
    let rows = query(&mut talk, source, 0, ready::SERVER.into(), "asking what the database is")?;
    let server = ready::read_server(rows.first().map_or("", String::as_str));
    if visit.has_globs() {
        let rows = query(&mut talk, source, 1, postgres::list_tables(), "listing its tables")?;
        let catalog: Vec<_> = rows.iter().filter_map(|row| postgres::read_table_name(row)).collect();
        visit.resolve(&catalog);
    }
    let mut tables: HashMap<_, ready::ReadyTable> = HashMap::new();
    let wanted: Vec<_> = visit.wanted.iter().map(|wanted| &wanted.table).collect();
    for (no, some) in (2u32..).zip(wanted.chunks(2000)) {
        let sql = ready::ask_tables(server.facts, some);
        for row in query(&mut talk, source, no, sql, "reading its catalog")? {
            if let Some((name, readable, column)) = ready::read_table(&row) {
                let table = tables.entry(name).or_default();
                table.readable = readable;
                table.columns.push(column);
            }
        }
    }
    talk.ask(&Request::End);
    while !matches!(talk.next(Duration::from_secs(1))?, Some(Reply::End { .. })) {}
    talk.finish();
    Ok(SourceFound { server, tables })
}

/// Asks one query and waits for all of its rows.
fn query(
    talk: &mut Conversation<'_>,
    source: &Source,
    no: u32,
    sql: String,
    what: &str,
) -> Result<Vec<String>, SourceError> {
    talk.ask(&Request::Query { no, sql });
    let given_up = |code| SourceError::GivenUp { host: source.host.clone(), code };
    let mut rows = Vec::new();
    loop {
        match talk.next(Duration::from_secs(1))? {
            None | Some(Reply::Beat | Reply::Hello { .. }) => {}
            Some(Reply::Row { text, .. }) => rows.push(text),
            Some(Reply::Done { rows: said, .. }) if said == rows.len() as u64 => return Ok(rows),
            Some(Reply::Done { .. }) => return Err(given_up(2)),
            Some(Reply::Error { message, sqlstate, .. }) => {
                let cause = Cause::from_text(&message, sqlstate.as_deref());
                let what = format!("{what} (database {})", source.database);
                return Err(SourceError::Failed { host: source.host.clone(), what, message, cause });
            }
            Some(Reply::End { code }) => return Err(given_up(code)),
        }
    }
}
