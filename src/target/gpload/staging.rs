//! The tables that gpload fills: whose they are, when they are settled, and what is left of them.

use std::time::Duration;

use super::Staging;
use crate::sql;
use crate::target::program::ProgramError;
use crate::target::{Limits, Session, TargetError};

/// How long the end of an INSERT is waited for whose gpload has ended.
const SETTLE: Duration = Duration::from_secs(30);

/// A remark that says whose a table is, and how far gpload came. `done` is gpload's last statement.
pub(super) fn comment(table: &str, file: &str, word: &str) -> String {
    format!("COMMENT ON TABLE {table} IS {}", sql::literal(&format!("gpferry: {word}: {file}")))
}

/// How many rows gpload left, once nobody can add any, and whether its last statement ran. A gpload that was killed leaves
/// an INSERT that may still commit. The side's transaction keeps writers out until it ends.
pub(super) fn settled(
    side: &mut Session,
    staging: &Staging,
    timeout: Duration,
) -> Result<(u64, bool), TargetError> {
    let doing = "count what gpload brought";
    let lock = format!("LOCK TABLE {} IN SHARE MODE", staging.table);
    let limits = Limits { statement: SETTLE, lock: SETTLE };
    side.savepoint(limits)?;
    match side.touch(&lock, doing) {
        Err(error) if error.sqlstate().is_some_and(|state| sql::is_cancelled(state) || state == "55P03") => {
            log::warn!("{} is written still, though gpload has ended: its session is ended", staging.name);
            side.rollback_to_savepoint()?;
            side.touch(&terminate(&staging.table), doing)?;
            side.touch(&lock, doing)?;
        }
        locked => drop(locked?),
    }
    side.savepoint(Limits { statement: timeout, ..limits })?;
    let sql = format!(
        "SELECT count(*) FROM pg_class WHERE oid = CAST({} AS regclass) AND obj_description(oid, 'pg_class') LIKE '%: done: %'",
        sql::literal(&staging.table)
    );
    let done = side.count(&sql, doing)? == 1;
    Ok((side.count(&format!("SELECT count(*) FROM {}", staging.table), doing)?, done))
}

/// A table that was not held yet may be taken for one of a dead run by another: that can be tried again.
pub(super) fn taken_away(error: TargetError) -> TargetError {
    match error.sqlstate() {
        Some("42P01") => TargetError::Program(ProgramError {
            what: format!("another run took the table of gpload away: {error}"),
            remedy: "run again".into(),
            can_retry: true,
            misfit: false,
        }),
        _ => error,
    }
}

/// Ends whoever holds a lock on a table, which nobody but its gpload knows. Locks on segments are listed as well, with
/// numbers of processes of other hosts: only the coordinator's own count.
fn terminate(table: &str) -> String {
    format!(
        "SELECT pg_terminate_backend(pid) FROM (SELECT DISTINCT pid FROM pg_locks WHERE relation = CAST({} AS regclass) \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND gp_segment_id = -1 \
         AND pid <> pg_backend_pid() AND pid IN (SELECT pid FROM pg_stat_activity)) l",
        sql::literal(table)
    )
}

/// Drops the external table that a gpload left which could not do so itself. Only of this file, and only in a schema that
/// is gpferry's own.
pub(super) fn drop_external(side: &mut Session, schema: &str, file: &str) {
    let sql = format!(
        "SELECT CAST(c.relname AS text) FROM pg_exttable e JOIN pg_class c ON c.oid = e.reloid \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = {} AND c.relname LIKE 'ext\\_gpload%' \
         AND strpos(array_to_string(e.urilocation, ' '), {}) > 0",
        sql::literal(schema),
        sql::literal(file)
    );
    let names = match side.client.query(sql.as_str(), &[]) {
        Ok(names) => names,
        Err(error) => {
            return log::debug!("external tables of gpload: {}", TargetError::of(&error, "look for them"));
        }
    };
    for name in names.iter().map(|row| row.get::<_, String>(0)) {
        let table = format!("{}.{}", sql::ident(schema), sql::ident(&name));
        if let Err(error) =
            side.touch(&format!("DROP EXTERNAL TABLE IF EXISTS {table}"), "drop what gpload left")
        {
            log::warn!("{table}, which gpload left, stays: {error}");
        }
    }
}

/// Drops what loads left that died: tables that no transaction reads.
pub(super) fn tidy(side: &mut Session, schema: &str) {
    let sql = format!(
        "SELECT CAST(c.relname AS text), obj_description(c.oid, 'pg_class') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = {} AND c.relkind = 'r' AND c.relname LIKE 'gpload\\_%' AND pg_has_role(c.relowner, 'USAGE')",
        sql::literal(schema)
    );
    let Ok(left) = side.client.query(sql.as_str(), &[]) else { return };
    for row in &left {
        let remark: Option<String> = row.get(1);
        let Some(file) = remark.as_deref().and_then(|remark| remark.strip_prefix("gpferry: ")) else {
            continue;
        };
        let table = format!("{}.{}", sql::ident(schema), sql::ident(row.get(0)));
        if forget(side, &table) {
            log::info!("dropped {table}, which a load by gpload left that died");
            if let Some((_, file)) = file.split_once(": ") {
                drop_external(side, schema, file);
            }
        }
    }
}

/// Drops a table of gpload, where it is there and nobody uses it.
pub(super) fn forget(side: &mut Session, table: &str) -> bool {
    if side.begin().is_err() {
        return false;
    }
    let doing = "drop a table of gpload";
    let done = side
        .touch(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT"), doing)
        .and_then(|_| side.touch(&format!("DROP TABLE {table}"), doing));
    match done {
        Ok(_) => side.commit().is_ok(),
        Err(error) => {
            log::debug!("{table}: {error}");
            if let Err(error) = side.rollback() {
                log::debug!("{table}: {error}");
            }
            false
        }
    }
}
