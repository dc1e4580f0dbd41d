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
use super::external::insert;
use super::program::ProgramError;
use super::{Address, Session, TargetError};
use crate::inventory::{Inventory, ProgramRule};
use crate::remote::Remote;
use crate::remote::local::Local;
use crate::remote::ssh::Pool;
use crate::source::{Conversation, Reply, Request, Script, SourceError};
use crate::sql;
use crate::stop::Stop;

mod said;
mod staging;

use said::{Said, short};
use staging::{comment, drop_external, forget, settled, taken_away, tidy};

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
        let staged: Vec<String> = (0..columns.len()).map(|no| format!("c{no}")).collect();
        let insert = insert(table, &columns, &staged.join(", "), &staging.table);
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
