//! The database that is loaded: connecting, its catalog, COPY, and the load log.
//!
//! The load log is the truth about what is in the target: a unit's rows and its load log row commit together.

use std::collections::HashMap;
use std::fmt;

use postgres::{Client, Statement};

mod catalog;
mod collisions;
mod connect;
mod copy;
pub mod create;
mod error;
mod load_log;
mod overlaps;
mod passfile;
pub mod ready;

pub use catalog::{Column, TargetTable};
pub use collisions::Collisions;
pub use connect::{Address, Canceller};
pub use copy::CopyError;
pub use error::TargetError;
pub use load_log::{Claim, Entry, LogRow};

/// What every session on either side has set, so that text means the same on both. Source: HAZARDS of COPY in
/// text form, PostgreSQL "Client Connection Defaults".
const PINNED: &str = "SET standard_conforming_strings = on; SET DateStyle = 'ISO, YMD'; SET TimeZone = 'UTC'; \
     SET IntervalStyle = 'postgres'; SET client_encoding = 'UTF8'; SET lc_monetary = 'C'; \
     SET client_min_messages = 'warning'";

/// One database session.
pub struct Session {
    client: Client,
    canceller: Canceller,
    prepared: HashMap<String, Statement>,
    log: String,
    facts: Facts,
}

/// What the server is, read once per session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `server_version_num`: 150004 for 15.4, 90426 for Greenplum 6.
    pub version: u32,
    /// Is it Greenplum, or Cloudberry?
    pub greenplum: bool,
    /// `version()`, whole.
    pub text: String,
}

impl Session {
    /// Opens a session, reads what the server is and pins its settings. The load log is in `log_schema`.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn open(address: &Address, log_schema: &str) -> Result<Self, TargetError> {
        let (mut client, canceller) = address.connect()?;
        let of = |error: postgres::Error| TargetError::of(&error, "set up a session");
        client.batch_execute(PINNED).map_err(of)?;
        let row =
            client.query_one("SELECT version(), current_setting('server_version_num')", &[]).map_err(of)?;
        let text: String = row.get(0);
        let version = row.get::<_, String>(1).parse().unwrap_or(0);
        let greenplum = text.contains("Greenplum") || text.contains("Cloudberry");
        let log = format!("{}.load_log", crate::sql::ident(log_schema));
        Ok(Self {
            client,
            canceller,
            prepared: HashMap::new(),
            log,
            facts: Facts { version, greenplum, text },
        })
    }

    /// What the server is.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What another thread needs to cancel this session's statements.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn begin(&mut self) -> Result<(), TargetError> {
        self.run("BEGIN", "begin a transaction")
    }

    /// Rolls the transaction back.
    ///
    /// # Errors
    /// [`TargetError`]; the session is of no more use then.
    pub fn rollback(&mut self) -> Result<(), TargetError> {
        self.run("ROLLBACK", "roll back")
    }

    /// Marks a place in the transaction.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn savepoint(&mut self) -> Result<(), TargetError> {
        self.run("SAVEPOINT unit", "set a savepoint")
    }

    /// Keeps what was done since the savepoint.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn release(&mut self) -> Result<(), TargetError> {
        self.run("RELEASE SAVEPOINT unit", "release a savepoint")
    }

    /// Takes back what was done since the savepoint.
    ///
    /// # Errors
    /// [`TargetError`]; the session is of no more use then.
    pub fn rollback_to_savepoint(&mut self) -> Result<(), TargetError> {
        self.run("ROLLBACK TO SAVEPOINT unit; RELEASE SAVEPOINT unit", "roll back to a savepoint")
    }

    /// Commits, after proving the transaction alive: COMMIT of an aborted one is answered like any other.
    ///
    /// # Errors
    /// [`CommitError::Aborted`] where nothing was committed, [`CommitError::Unknown`] where nobody can say.
    pub fn commit(&mut self) -> Result<(), CommitError> {
        self.client
            .simple_query("SELECT 1")
            .map_err(|error| CommitError::Aborted(TargetError::of(&error, "commit")))?;
        self.client
            .batch_execute("COMMIT")
            .map_err(|error| CommitError::Unknown(TargetError::of(&error, "commit")))
    }

    /// A statement of the load log, prepared once per session.
    fn prepared(&mut self, sql: &str) -> Result<Statement, TargetError> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement =
            self.client.prepare(sql).map_err(|error| TargetError::of(&error, "prepare a statement"))?;
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    fn run(&mut self, sql: &str, doing: &str) -> Result<(), TargetError> {
        self.client.batch_execute(sql).map_err(|error| TargetError::of(&error, doing))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// Why a COMMIT is not known to have worked.
#[derive(Debug)]
pub enum CommitError {
    /// The transaction was dead before: nothing of it is in the target.
    Aborted(TargetError),
    /// The answer to COMMIT was lost: only the load log knows.
    Unknown(TargetError),
}
