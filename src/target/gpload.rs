//! The site's own gpload, which brings a file into a table of gpferry's, from where the rows go on in the unit's
//! transaction.
//!
//! gpload commits by itself, and neither its exit code nor its words say whether it did: it can commit and end with 2, or
//! drop rows and end with 0. So it never sees the table that is filled. It fills one that stands for this one load, in the
//! schema of the load log; that one is locked once gpload has ended, so that nothing more can come, and its rows are
//! counted. gpload runs one INSERT, so where as many rows are there as were exported, they are those of the file.
//!
//! What is left of a load that died is known by its name, and dropped by the next run that uses gpload: the table is locked
//! by the transaction that reads it, and else by nobody.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::connect::Place;
use super::error::place_in_file;
use super::program::ProgramError;
use super::{Address, Limits, Session, TargetError};
use crate::inventory::{Inventory, ProgramRule};
use crate::remote::Remote;
use crate::remote::local::Local;
use crate::remote::ssh::Pool;
use crate::source::{Conversation, Reply, Request, Script, SourceError};
use crate::sql;
use crate::stop::Stop;

/// What completes "while it ran …".
const WHAT: &str = "gpload";
/// How tables begin that gpload fills.
const BEGIN: &str = "gpload_";
/// How often a load that runs looks whether it should stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long it may take to say which version it is.
const LOOK: Duration = Duration::from_secs(30);
/// How long a load may go on after a stop was asked for.
const GRACE: Duration = Duration::from_secs(5);
/// How long the end of an INSERT is waited for whose gpload has ended.
const SETTLE: Duration = Duration::from_secs(30);

/// gpload, for one run.
#[derive(Debug)]
pub struct Gpload {
    rule: ProgramRule,
    directory: PathBuf,
    address: Address,
    schema: String,
    run: String,
    pool: PoolOf,
    loads: AtomicU32,
    /// Tables that were made and may be there still.
    made: Mutex<Vec<Made>>,
    tidied: Once,
}

/// SSH sessions, which have nothing to show.
struct PoolOf(Pool);

impl std::fmt::Debug for PoolOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

/// A file that is to be loaded.
#[derive(Debug, Clone, Copy)]
pub struct Freight<'a> {
    /// Paths below the mount's subdirectory; never none.
    pub files: &'a [PathBuf],
    /// Columns of the file, in order.
    pub columns: &'a [String],
    /// Rows that were exported.
    pub rows: u64,
    /// How long gpload may take.
    pub timeout: Duration,
}

/// What a load made, and what tells its external table from others.
#[derive(Debug)]
struct Made {
    table: String,
    file: String,
}

/// What gpload said at its end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// Its exit code.
    code: String,
    /// Its lines with errors and warnings.
    words: Vec<String>,
}

/// A table that gpload fills, as the server quotes it.
struct Staging {
    table: String,
    name: String,
}

impl Gpload {
    /// That of the inventory, for a run.
    pub fn new(inventory: &Inventory, address: &Address, run: &str, pool: &Pool) -> Self {
        let target = &inventory.target;
        Self {
            rule: target.gpload.clone(),
            directory: target.gpload.mount.join(&inventory.mount.subdir),
            address: address.clone(),
            schema: target.log_schema.clone(),
            run: run.to_owned(),
            pool: PoolOf(pool.clone()),
            loads: AtomicU32::new(0),
            made: Mutex::default(),
            tidied: Once::new(),
        }
    }

    /// Brings a unit into a table, given as quoted SQL, within the transaction of a session; returns the rows of it that
    /// gpload brought, which are in the table if they are as many as were exported.
    ///
    /// # Errors
    /// [`TargetError`]; the caller rolls back.
    pub fn load(
        &self,
        session: &mut Session,
        table: &str,
        freight: Freight<'_>,
        stop: &Stop,
    ) -> Result<u64, TargetError> {
        let files = freight.files.iter().map(|file| self.file(file)).collect::<Result<Vec<_>, _>>()?;
        let file = files.first().cloned().unwrap_or_default();
        let columns = session.external_columns(table, freight.columns)?;
        let mut side = Session::open(&self.address, &self.schema)?;
        self.tidied.call_once(|| tidy(&mut side, &self.schema));
        let staging = self.staging(&file);
        let types: Vec<String> =
            columns.iter().enumerate().map(|(no, column)| format!("c{no} {}", column.type_name)).collect();
        // Neither way saves a motion of the rows; spread at random, no segment gets more of them than another
        let create = format!("CREATE TABLE {} ({}) DISTRIBUTED RANDOMLY", staging.table, types.join(", "));
        side.touch(&create, "make a table for gpload")?;
        side.touch(&comment(&staging.table, &file, "begun"), "make a table for gpload")?;
        // Held all along, so that no other run takes the table for one that a dead run left
        side.begin()?;
        let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", staging.table);
        side.touch(&lock, "hold a table for gpload").map_err(taken_away)?;
        let said = self.call("load", &self.control(&staging, &files), freight.timeout, stop);
        let (rows, done) = settled(&mut side, &staging, freight.timeout)?;
        if rows != freight.rows {
            side.rollback()?;
            drop_external(&mut side, &self.schema, &file);
            if done && said.as_ref().is_ok_and(|said| said.code == "0") {
                // Then the file is short, or gpload lost some on its way; the number says so to the caller
                log::warn!("gpload says that it succeeded, and {rows} of {} rows are there", freight.rows);
                return Ok(rows);
            }
            return Err(short(&said, rows, freight).into());
        }
        if !done || said.as_ref().map_or(true, |said| said.code != "0") {
            log::warn!(
                "gpload did not end as it should, and all {rows} rows of {file} are there: they are taken"
            );
        }
        let fresh = sql::idents(columns.iter().map(|column| column.name.as_str()));
        let numbered = columns.iter().any(|column| column.numbered);
        let overriding = if numbered { " OVERRIDING SYSTEM VALUE" } else { "" };
        let staged: Vec<String> = (0..columns.len()).map(|no| format!("c{no}")).collect();
        let insert = format!(
            "INSERT INTO {table} ({fresh}){overriding} SELECT {} FROM {}",
            staged.join(", "),
            staging.table
        );
        let rows = session.touch(&insert, "take the rows that gpload brought")?;
        side.rollback()?;
        drop_external(&mut side, &self.schema, &file);
        session.touch(&format!("DROP TABLE {}", staging.table), "drop the table of gpload")?;
        Ok(rows)
    }

    fn staging(&self, file: &str) -> Staging {
        let name = format!("{BEGIN}{}_{}", self.run, self.loads.fetch_add(1, Ordering::SeqCst));
        let table = format!("{}.{}", sql::ident(&self.schema), sql::ident(&name));
        self.made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Made { table: table.clone(), file: file.to_owned() });
        Staging { table, name }
    }

    /// The file as gpload's host sees it. gpload hands it to a shell, and gpfdist takes blanks and wildcards for patterns.
    fn file(&self, file: &Path) -> Result<String, ProgramError> {
        let path = self.directory.join(file);
        let plain = |c: char| !c.is_control() && !" *?[]{}\\\"'`$!".contains(c);
        match path.to_str().filter(|path| path.chars().all(plain)) {
            Some(path) => Ok(path.to_owned()),
            None => Err(ProgramError {
                what: format!("gpload cannot load {}: it hands the name to a shell", path.display()),
                remedy:
                    "name the file or the mount without blanks, quotes and wildcards, or use `loader: copy`"
                        .into(),
                can_retry: false,
                misfit: false,
            }),
        }
    }

    /// The control file: JSON, which YAML includes, so that no name needs quoting of ours. No password is in it.
    fn control(&self, staging: &Staging, files: &[String]) -> String {
        let Place { host, port, user, database } = self.address.place();
        let rule = &self.rule;
        let mut source = json!({ "PORT_RANGE": [rule.ports.start(), rule.ports.end()], "FILE": files });
        if let Some(address) = &rule.address {
            source["LOCAL_HOSTNAME"] = json!([address]);
        }
        let after = comment(&staging.table, files.first().map_or("", String::as_str), "done");
        json!({
            "VERSION": "1.0.0.1", "DATABASE": database, "USER": user, "HOST": host, "PORT": port,
            "GPLOAD": {
                "INPUT": [
                    { "SOURCE": source }, { "FORMAT": "csv" }, { "NEWLINE": "LF" }, { "DELIMITER": "," },
                    { "QUOTE": "\"" }, { "ESCAPE": "\"" }, { "NULL_AS": "" }, { "ENCODING": "UTF8" },
                    { "MAX_LINE_LENGTH": rule.max_line },
                ],
                "EXTERNAL": [{ "SCHEMA": sql::ident(&self.schema) }],
                "OUTPUT": [{ "TABLE": staging.table }, { "MODE": "insert" }],
                "SQL": [{ "AFTER": after }],
            },
        })
        .to_string()
    }

    /// Sees whether gpload can be started where it is to run; nothing is loaded.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub fn look(&self) -> Result<(), ProgramError> {
        match self.call("version", "{}", LOOK, &Stop::default()) {
            Ok(said) if said.code == "0" => Ok(()),
            Ok(said) => Err(ProgramError {
                what: format!(
                    "gpload --version ended with exit code {}: {}",
                    said.code,
                    said.words.join("; ")
                ),
                remedy:
                    "run gpload --version by hand on its host; it needs the Python of its own installation"
                        .into(),
                can_retry: false,
                misfit: false,
            }),
            Err(error) => Err(ProgramError::of(&error)),
        }
    }

    /// Runs gpload once. What became of it, as far as it says so.
    fn call(
        &self,
        task: &'static str,
        control: &str,
        timeout: Duration,
        stop: &Stop,
    ) -> Result<Said, SourceError> {
        let mut remote: Box<dyn Remote> = match &self.rule.host {
            None => Box::new(Local::new("this machine")),
            Some(host) => Box::new(self.pool.0.get(&host.parse()?)?),
        };
        let host = remote.host().to_owned();
        let mut talk = Conversation::start(&mut *remote, &Script::gpload(), "load", WHAT, timeout)?;
        let path = self.rule.path.as_ref().map(|path| ("PROGRAM", path.display().to_string()));
        let settings = [("RUN", self.run.clone()), ("CONTROL", control.to_owned())];
        for (name, value) in settings.into_iter().chain(path) {
            talk.ask(&Request::Set { name, value });
        }
        talk.ask(&Request::Query { no: 0, sql: task.into() });
        let (mut said, mut asked, mut told) = (Said::default(), None, false);
        loop {
            if stop.asked() && !told && asked.get_or_insert_with(Instant::now).elapsed() >= GRACE {
                told = true;
                talk.ask(&Request::Stop);
            }
            match talk.next(LOOK_EVERY)? {
                None | Some(Reply::Beat | Reply::Hello { .. } | Reply::Part { .. }) => {}
                Some(Reply::Row { text, .. }) => said.read(&text),
                Some(Reply::Done { .. }) => talk.ask(&Request::End),
                Some(Reply::Error { message, .. }) => {
                    return Err(SourceError::failed(&host, WHAT.into(), None, &message));
                }
                Some(Reply::End { code: 0 }) => {
                    talk.finish();
                    return Ok(said);
                }
                Some(Reply::End { code }) => return Err(SourceError::GivenUp { host, code }),
            }
        }
    }
}

impl Drop for Gpload {
    /// What transactions that were rolled back did not drop.
    fn drop(&mut self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        if made.is_empty() {
            return;
        }
        let Ok(mut side) = Session::open(&self.address, &self.schema) else { return };
        for Made { table, file } in &made {
            if forget(&mut side, table) {
                drop_external(&mut side, &self.schema, file);
            }
        }
    }
}

impl Said {
    fn read(&mut self, row: &str) {
        match row.split_once('\t') {
            Some(("exit", code)) => code.clone_into(&mut self.code),
            Some(("said", words)) => match (words.strip_prefix("CONTEXT:"), self.words.last_mut()) {
                (Some(context), Some(last)) => {
                    last.extend(place_in_file(context).map(|place| format!(" at {place}")));
                }
                (Some(_), None) => {}
                (None, _) => self.words.push(cleaned(words)),
            },
            _ => {}
        }
    }
}

/// A line of gpload without its time and the values that the server quotes.
fn cleaned(line: &str) -> String {
    let text =
        line.rsplit_once("|ERROR|").or_else(|| line.rsplit_once("|WARN|")).map_or(line, |(_, text)| text);
    let text = text.strip_prefix("ERROR:").unwrap_or(text).trim();
    let text = text.split(" encountered while running").next().unwrap_or(text);
    let text = text.find("  (seg").map_or(text, |at| &text[..at]);
    sql::without_values(text)
}

/// A remark that says whose a table is, and how far gpload came. `done` is gpload's last statement.
fn comment(table: &str, file: &str, word: &str) -> String {
    format!("COMMENT ON TABLE {table} IS {}", sql::literal(&format!("gpferry: {word}: {file}")))
}

/// How many rows gpload left, once nobody can add any, and whether its last statement ran. A gpload that was killed leaves
/// an INSERT that may still commit. The side's transaction keeps writers out until it ends.
fn settled(side: &mut Session, staging: &Staging, timeout: Duration) -> Result<(u64, bool), TargetError> {
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
fn taken_away(error: TargetError) -> TargetError {
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
fn drop_external(side: &mut Session, schema: &str, file: &str) {
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
fn tidy(side: &mut Session, schema: &str) {
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
fn forget(side: &mut Session, table: &str) -> bool {
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

/// Why not all rows are there.
fn short(said: &Result<Said, SourceError>, rows: u64, freight: Freight<'_>) -> ProgramError {
    let error = match said {
        Err(error @ SourceError::GivenUp { code: 124, .. }) => ProgramError {
            what: error.to_string(),
            remedy: "raise `load.timeout` for this table, or make its windows shorter".into(),
            can_retry: false,
            misfit: false,
        },
        Err(error) => ProgramError::of(error),
        Ok(said) => {
            let words: Vec<String> = said.words.iter().map(|word| named(word, freight.columns)).collect();
            let words = words.join("; ");
            let misfit = is_misfit(&words);
            let remedy = match (misfit, super::gpfdist::advice(&words)) {
                (true, _) => {
                    "a value does not fit its column: compare the column's type on both sides".to_owned()
                }
                (false, Some(advice)) => advice.replace("target.gpfdist", "target.gpload"),
                (false, None) => "run gpload by hand on its host; it logs to ~/gpAdminLogs there".to_owned(),
            };
            let too_long = super::gpfdist::is_too_long(&words);
            let told = if words.is_empty() { "it gave no reason".to_owned() } else { words };
            let what = format!("gpload ended with exit code {}: {told}", said.code);
            ProgramError { what, remedy, can_retry: !misfit && !too_long, misfit }
        }
    };
    ProgramError {
        what: format!("{} ({rows} of {} rows came in; none of them is taken)", error.what, freight.rows),
        ..error
    }
}

/// The file's column in the place of that of gpload's table.
fn named(word: &str, columns: &[String]) -> String {
    let of =
        |(head, no): (&'_ str, &'_ str)| Some((head.to_owned(), columns.get(no.parse::<usize>().ok()?)?));
    match word.rsplit_once(", column c").and_then(of) {
        Some((head, column)) => format!("{head}, column {column}"),
        None => word.to_owned(),
    }
}

/// Words of the server for rows that do not fit, which gpload gives without their SQLSTATE.
fn is_misfit(words: &str) -> bool {
    const WORDS: [&str; 9] = [
        "invalid input syntax",
        "invalid byte sequence",
        "missing data for column",
        "extra data after last expected column",
        "value too long for type",
        "out of range",
        "numeric field overflow",
        "violates check constraint",
        "unterminated CSV quoted field",
    ];
    WORDS.iter().any(|one| words.contains(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_gpload_is_told_without_the_values_in_it() {
        let line = "2026-11-21 20:51:18|ERROR|ERROR:  invalid input syntax for integer: \"secret\"  (seg0 slice1 127.0.0.1:16433 pid=31218)";
        assert_eq!(cleaned(line), "invalid input syntax for integer: \"…\"");
        let line = "2026-11-21|WARN|2 bad rows";
        assert_eq!(cleaned(line), "2 bad rows");
    }

    #[test]
    fn the_place_of_a_row_is_told_and_its_text_is_not() {
        let mut said = Said::default();
        said.read("exit\t2");
        said.read(
            "said\t2026-11-21|ERROR|ERROR:  missing data for column \"b\"  (seg0 slice1 1.1.1.1:1 pid=3)",
        );
        said.read("said\tCONTEXT:  External table ext_gpload_a, line 7 of gpfdist://h:1//m/f.gz: \"secret\"");
        assert_eq!((said.code.as_str(), said.words.len()), ("2", 1));
        assert_eq!(said.words[0], "missing data for column \"…\" at line 7");
    }

    #[test]
    fn rows_that_are_missing_have_a_reason_whatever_the_exit_code_says() {
        let said = |code: &str, words: &[&str]| {
            Ok(Said { code: code.into(), words: words.iter().map(|word| (*word).to_owned()).collect() })
        };
        let (files, columns) = (Vec::new(), ["a b".to_owned()]);
        let freight = Freight { files: &files, columns: &columns, rows: 100, timeout: SETTLE };
        let dropped = short(&said("2", &[]), 98, freight);
        assert!(dropped.to_string().contains("exit code 2: it gave no reason (98 of 100 rows"), "{dropped}");
        assert!(dropped.can_retry() && !dropped.is_misfit());
        let misfit =
            short(&said("2", &["invalid input syntax for integer: \"…\" at line 2, column c0"]), 0, freight);
        assert!(misfit.to_string().contains("at line 2, column a b (0 of"), "{misfit}");
        assert!(misfit.is_misfit() && !misfit.can_retry());
        let long =
            short(&said("2", &["gpfdist error - line too long in file /x near (4 bytes)"]), 0, freight);
        assert!(!long.can_retry() && long.remedy().contains("target.gpload.max_line"), "{}", long.remedy());
    }
}
