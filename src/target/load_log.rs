//! The load log: one row per unit whose rows are in the target, committed with them.
//!
//! The row is claimed first, with source and unit as primary key, so that a second loader waits until the first
//! has decided; and looked at last, so that an aborted transaction is noticed before its COMMIT. It is never
//! updated: on Greenplum 5 and 6 an UPDATE locks the whole table, and loaders that stand side by side would
//! deadlock on it.

use std::collections::HashMap;

use super::{Session, TargetError};
use crate::unit::UnitKey;

/// What a unit's load log row says besides its key.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Job.
    pub job: &'a str,
    /// The target table.
    pub table: String,
    /// Window bounds, as text.
    pub window: Option<(String, String)>,
    /// File below the mount's subdirectory.
    pub file: String,
    /// Load mode.
    pub mode: &'a str,
    /// Rows that the source's COPY reported.
    pub exported: u64,
    /// CRC-32 and size of the data from the gzip trailer.
    pub digest: String,
    /// The run.
    pub run: &'a str,
}

/// What came of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The row is ours.
    Ours,
    /// Another transaction has committed this unit.
    AlreadyThere,
}

/// Columns of version 1 of the table. Only what Greenplum 5 (PostgreSQL 8.3) can do.
const CREATE: &str = "(source text NOT NULL, unit text NOT NULL, job text NOT NULL, table_name text NOT NULL, \
     window_start timestamp, window_end timestamp, slice integer, file text NOT NULL, mode text NOT NULL, \
     rows_exported bigint NOT NULL, rows_loaded bigint, rows_rejected bigint NOT NULL DEFAULT 0, \
     digest text NOT NULL, run text NOT NULL, loaded_at timestamp with time zone NOT NULL DEFAULT now(), \
     PRIMARY KEY (source, unit))";

impl Session {
    /// Makes the load log and its schema where they are missing.
    ///
    /// # Errors
    /// [`TargetError`], 42501 where the user may not create it.
    pub fn ensure_load_log(&mut self) -> Result<(), TargetError> {
        for _ in 0..5 {
            if self.has_load_log()? {
                return Ok(());
            }
            match self.create_load_log() {
                Ok(()) => return Ok(()),
                // Somebody else is making it at this moment: duplicate schema, table, or catalog row.
                Err(error) if matches!(error.sqlstate(), Some("42P06" | "42P07" | "23505" | "42710")) => {}
                Err(error) => return Err(error),
            }
        }
        Err(TargetError::Lost {
            doing: "create the load log".into(),
            why: "others keep making and dropping it".into(),
        })
    }

    fn has_load_log(&mut self) -> Result<bool, TargetError> {
        let (schema, table) = self.log_parts();
        let found = self
            .client
            .query_opt(
                "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1::text AND c.relname = $2::text",
                &[&schema, &table],
            )
            .map_err(|error| TargetError::of(&error, "look for the load log"))?;
        Ok(found.is_some())
    }

    fn create_load_log(&mut self) -> Result<(), TargetError> {
        let (schema, _) = self.log_parts();
        let of = |error: postgres::Error| TargetError::of(&error, "create the load log");
        let has_schema = self
            .client
            .query_opt("SELECT 1 FROM pg_namespace WHERE nspname = $1::text", &[&schema])
            .map_err(of)?
            .is_some();
        let schema =
            if has_schema { String::new() } else { format!("CREATE SCHEMA {};", crate::sql::ident(&schema)) };
        self.client
            .batch_execute(&format!("BEGIN; {schema} CREATE TABLE {} {CREATE}; COMMIT", self.log))
            .map_err(|error| {
                // The simple protocol leaves the transaction open after an error.
                drop(self.client.batch_execute("ROLLBACK"));
                of(error)
            })
    }

    /// The unquoted schema and table, as the catalog holds them.
    pub(super) fn log_parts(&self) -> (String, String) {
        let schema = self.log.trim_end_matches(".load_log").trim_matches('"').replace("\"\"", "\"");
        (schema, "load_log".to_owned())
    }

    /// Which of these units are in the target, and with how many rows. `units` are of one source.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn already_there(
        &mut self,
        source: &str,
        units: &[&str],
    ) -> Result<HashMap<UnitKey, u64>, TargetError> {
        let sql = format!("SELECT unit, rows_loaded FROM {} WHERE source = $1 AND unit = ANY ($2)", self.log);
        let rows = self
            .client
            .query(sql.as_str(), &[&source, &units])
            .map_err(|error| TargetError::of(&error, "read the load log"))?;
        Ok(rows
            .iter()
            .map(|row| (UnitKey { source: source.to_owned(), id: row.get(0) }, count(row.get(1))))
            .collect())
    }

    /// Claims a unit, inside a transaction. Waits for another loader's transaction that holds it.
    ///
    /// # Errors
    /// [`TargetError`]. After [`Claim::AlreadyThere`] the transaction, or its savepoint, must be rolled back.
    pub fn claim(&mut self, key: &UnitKey, entry: &Entry<'_>) -> Result<Claim, TargetError> {
        let sql = format!(
            "INSERT INTO {} (source, unit, job, table_name, window_start, window_end, file, mode, rows_exported, \
             rows_loaded, digest, run) \
             VALUES ($1, $2, $3, $4, $5::text::timestamp, $6::text::timestamp, $7, $8, $9, $9, $10, $11)",
            self.log
        );
        let statement = self.prepared(&sql)?;
        let (start, end) = entry.window.clone().unzip();
        let exported = i64::try_from(entry.exported).unwrap_or(i64::MAX);
        let inserted = self.client.execute(
            &statement,
            &[
                &key.source,
                &key.id,
                &entry.job,
                &entry.table,
                &start,
                &end,
                &entry.file,
                &entry.mode,
                &exported,
                &entry.digest,
                &entry.run,
            ],
        );
        match inserted {
            Ok(_) => Ok(Claim::Ours),
            Err(error) => match TargetError::of(&error, "claim a unit in the load log") {
                TargetError::Refused { sqlstate, .. } if sqlstate == "23505" => Ok(Claim::AlreadyThere),
                other => Err(other),
            },
        }
    }

    /// Sees that a claimed unit's row is there and says what was loaded: the last statement of its part of the
    /// transaction.
    ///
    /// # Errors
    /// [`TargetError`] where it is not, so that the transaction cannot be trusted.
    pub fn confirm(&mut self, key: &UnitKey, loaded: u64) -> Result<(), TargetError> {
        let sql = format!("SELECT rows_loaded FROM {} WHERE source = $1 AND unit = $2", self.log);
        let statement = self.prepared(&sql)?;
        let rows = self
            .client
            .query(&statement, &[&key.source, &key.id])
            .map_err(|error| TargetError::of(&error, "confirm a load log row"))?;
        match rows.as_slice() {
            [row] if count(row.get(0)) == loaded => Ok(()),
            _ => Err(TargetError::Lost {
                doing: "confirm a load log row".into(),
                why: "the row of this transaction is not there: it was not alive".into(),
            }),
        }
    }

    /// Ids of units in the load log, of the same source and target table, whose windows overlap this one. Which
    /// of them are of the same rows, the ids say ([`crate::unit::series`]).
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn overlapping(
        &mut self,
        key: &UnitKey,
        table: &str,
        window: &(String, String),
    ) -> Result<Vec<String>, TargetError> {
        let sql = format!(
            "SELECT unit FROM {} WHERE source = $1 AND table_name = $2 AND unit <> $3 \
             AND window_start < $5::text::timestamp AND window_end > $4::text::timestamp",
            self.log
        );
        let statement = self.prepared(&sql)?;
        let rows = self
            .client
            .query(&statement, &[&key.source, &table, &key.id, &window.0, &window.1])
            .map_err(|error| TargetError::of(&error, "look for overlapping windows in the load log"))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

fn count(rows: Option<i64>) -> u64 {
    rows.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0)
}
