//! The database that is loaded: connecting, its catalog, COPY, and the load log.
//!
//! The load log is the truth about what is in the target: a unit's rows and its load log row commit together.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use postgres::{Client, Statement};

mod alarms;
mod anew;
mod catalog;
mod clash;
mod connect;
mod copy;
pub mod create;
mod dead;
mod error;
mod external;
mod facts;
mod gpfdist;
mod gpload;
mod load_log;
pub mod modes;
mod overlaps;
mod owed;
mod passfile;
mod program;
mod prune;
mod read;
pub mod ready;
mod shape;
mod staging;
mod together;

pub use alarms::AlarmTable;
pub use catalog::{Column, TargetTable};
pub use clash::{Clash, Kind};
pub use connect::{Address, Canceller};
pub use copy::CopyError;
pub use error::{LACKING, TargetError};
pub use external::{Origin, ServedFile};
pub use facts::{Cluster, Facts, Family};
pub use gpfdist::Gpfdist;
pub use gpload::{Freight, Gpload};
pub use load_log::{Claim, Counts, Entry, LogRow};
pub use owed::KeyError;
pub use program::ProgramError;
pub use prune::{Held, Merge, Merged, OldRows};
pub use shape::{Shape, ShapeColumn, Unique};
pub use staging::Collisions;

/// What every session on either side has set, so that text means the same on both. Source: HAZARDS of COPY in
/// text form, PostgreSQL "Client Connection Defaults".
const PINNED: &str = "SET standard_conforming_strings = on; SET DateStyle = 'ISO, YMD'; SET TimeZone = 'UTC'; \
     SET IntervalStyle = 'postgres'; SET client_encoding = 'UTF8'; SET lc_monetary = 'C'; \
     SET client_min_messages = 'warning'";

/// How long a session waits for a lock outside of loads: on the load log, on a catalog.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// One database session.
pub struct Session {
    client: Client,
    canceller: Canceller,
    prepared: HashMap<String, Statement>,
    log: String,
    facts: Facts,
    /// What the transaction at hand has set.
    limits: Option<Limits>,
}

/// How long the server may take for a statement, and for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `statement_timeout`.
    pub statement: Duration,
    /// `lock_timeout`, where the server knows it (PostgreSQL 9.3, Greenplum 7); else a wait for a lock counts as
    /// time of its statement.
    pub lock: Duration,
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
        let facts = Facts::read(&mut client).map_err(of)?;
        // Greenplum looks at a table that it knows nothing of within the load itself, and reads its own texts of numbers
        // again for that: with fewer digits the greatest of them are none any more, and the load fails.
        let mut settings = format!("SET extra_float_digits = {}", facts.most_float_digits());
        if facts.knows_lock_timeout() {
            settings += &format!("; SET lock_timeout = {}", milliseconds(LOCK_TIMEOUT));
        }
        client.batch_execute(&settings).map_err(of)?;
        let log = format!("{}.load_log", crate::sql::ident(log_schema));
        Ok(Self { client, canceller, prepared: HashMap::new(), log, facts, limits: None })
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
        self.limits = None;
        self.run("BEGIN", "begin a transaction")
    }

    /// Rolls the transaction back.
    ///
    /// # Errors
    /// [`TargetError`]; the session is of no more use then.
    pub fn rollback(&mut self) -> Result<(), TargetError> {
        self.run("ROLLBACK", "roll back")
    }

    /// Marks a place in the transaction, for statements that may take so long.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn savepoint(&mut self, limits: Limits) -> Result<(), TargetError> {
        if self.limits == Some(limits) {
            return self.run("SAVEPOINT unit", "set a savepoint");
        }
        // Before the savepoint: going back to it would take the setting back as well.
        self.run(&format!("{} SAVEPOINT unit", self.set_limits(limits)), "set a savepoint")?;
        self.limits = Some(limits);
        Ok(())
    }

    /// The statements that set limits for the rest of a transaction.
    fn set_limits(&self, limits: Limits) -> String {
        let mut sql = format!("SET LOCAL statement_timeout = {};", milliseconds(limits.statement));
        if self.facts.knows_lock_timeout() {
            sql += &format!("SET LOCAL lock_timeout = {};", milliseconds(limits.lock));
        }
        sql
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

    /// Marks another place within a unit's part of the transaction. The name is a plain word of this crate.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn mark(&mut self, name: &'static str) -> Result<(), TargetError> {
        self.run(&format!("SAVEPOINT {name}"), "set a savepoint")
    }

    /// Keeps what was done since that place.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn forget(&mut self, name: &'static str) -> Result<(), TargetError> {
        self.run(&format!("RELEASE SAVEPOINT {name}"), "release a savepoint")
    }

    /// Takes back what was done since that place.
    ///
    /// # Errors
    /// [`TargetError`]; the session is of no more use then.
    pub fn back_to(&mut self, name: &'static str) -> Result<(), TargetError> {
        self.run(
            &format!("ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}"),
            "roll back to a savepoint",
        )
    }

    /// Checks what would only be checked by COMMIT (deferred constraints), where it can still be told whose fault it is.
    /// Nothing is changed: what was deferred is deferred still.
    ///
    /// # Errors
    /// [`TargetError`] of the first constraint that is violated; the caller rolls back.
    pub fn settle(&mut self) -> Result<(), TargetError> {
        if !self.facts.defers_constraints() {
            return Ok(());
        }
        self.run(
            "SAVEPOINT settled; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK TO SAVEPOINT settled; RELEASE SAVEPOINT settled",
            "take the rows",
        )
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

/// As the server takes it: more than 24.8 days overflow, and 0 would mean no limit.
fn milliseconds(limit: Duration) -> i32 {
    i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1)
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
