//! The load log: one row per unit whose rows are in the target, committed with them.
//!
//! The row is claimed first, with source and unit as primary key, so that a second loader waits until the first
//! has decided; and looked at last, so that an aborted transaction is noticed before its COMMIT. It is never
//! updated: on Greenplum 5 and 6 an UPDATE locks the whole table, and loaders that stand side by side would
//! deadlock on it.

use std::collections::HashMap;

use jiff::Timestamp;
use postgres::fallible_iterator::FallibleIterator;

use super::{Session, TargetError};
use crate::measure::Measure;
use crate::unit::{Extent, Rows, Unit, UnitKey, read_id};

/// What a unit's load log row says besides its key.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Job.
    pub job: &'a str,
    /// The target table.
    pub table: String,
    /// By what its rows are told apart.
    pub measure: &'a Measure,
    /// What of them it holds.
    pub extent: Extent,
    /// File below the mount's subdirectory.
    pub file: String,
    /// Load mode.
    pub mode: &'a str,
    /// What became of the file's rows.
    pub counts: Counts,
    /// CRC-32 and size of the data from the gzip trailer.
    pub digest: String,
    /// The run.
    pub run: &'a str,
}

/// What became of a file's rows. Always: exported = loaded + left + rejected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that the source's COPY reported.
    pub exported: u64,
    /// Rows of the file that are in the target by this unit: inserted, or taken over by an update.
    pub loaded: u64,
    /// Rows of the target that an update changed.
    pub updated: u64,
    /// Rows of the file that had nothing to do: no row to update, a condition not met, a later row of the same key, the
    /// same row there already.
    pub left: u64,
    /// Rows of the file that were kept out, and are written down.
    pub rejected: u64,
}

impl Counts {
    /// All rows of a file, as they are.
    pub fn all(rows: u64) -> Self {
        Self { exported: rows, loaded: rows, ..Self::default() }
    }

    /// Is every row of the file accounted for?
    pub fn add_up(&self) -> bool {
        self.exported == self.loaded + self.left + self.rejected
    }
}

/// A row of the load log.
#[derive(Debug, Clone)]
pub struct LogRow {
    /// Its source and id.
    pub key: UnitKey,
    /// The job that moved it.
    pub job: String,
    /// The target table.
    pub table: String,
    /// By what its rows are told apart; `None` where an older gpferry wrote it.
    pub measure: Option<Measure>,
    /// Rows in the target.
    pub rows: u64,
    /// Rows of its file that were kept out.
    pub rejected: u64,
    /// When it was loaded.
    pub loaded_at: Timestamp,
    /// The run that did.
    pub run: String,
}

/// What came of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The row is ours.
    Ours,
    /// Another transaction has committed this unit.
    AlreadyThere,
}

/// Columns of the table. Only what Greenplum 5 (PostgreSQL 8.3) can do.
const CREATE: &str = "(source text NOT NULL, unit text NOT NULL, job text NOT NULL, table_name text NOT NULL, \
     window_start timestamp, window_end timestamp, slice integer, file text NOT NULL, mode text NOT NULL, \
     rows_exported bigint NOT NULL, rows_loaded bigint, rows_rejected bigint NOT NULL DEFAULT 0, \
     digest text NOT NULL, run text NOT NULL, loaded_at timestamp with time zone NOT NULL DEFAULT now(), \
     measure text, first_id bigint, last_id bigint, rows_updated bigint, rows_left bigint, PRIMARY KEY (source, unit))";

/// What finds the units of one table: a load looks for overlaps among them, and a load log grows for years.
const INDEX: &str = "load_log_by_table";

/// What a claim says, in this order.
pub(super) const CLAIMED: &str = "source, unit, job, table_name, window_start, window_end, file, mode, rows_exported, \
     rows_loaded, digest, run, measure, first_id, last_id, rows_rejected, rows_updated, rows_left";

/// Columns that earlier versions of the table did not have.
const ADDED: &[&str] =
    &["measure text", "first_id bigint", "last_id bigint", "rows_updated bigint", "rows_left bigint"];

/// Those of [`ADDED`] that are not among these.
fn missing(columns: &[String]) -> Vec<&'static str> {
    let is_missing =
        |added: &&&str| !columns.iter().any(|column| Some(column.as_str()) == added.split(' ').next());
    ADDED.iter().filter(is_missing).copied().collect()
}

impl Session {
    /// Makes the load log and its schema where they are missing.
    ///
    /// # Errors
    /// [`TargetError`], 42501 where the user may not create it.
    pub fn ensure_load_log(&mut self) -> Result<(), TargetError> {
        for _ in 0..5 {
            let made = match self.load_log_columns()? {
                columns if columns.is_empty() => self.create_load_log(),
                columns => match missing(&columns) {
                    added if added.is_empty() => return Ok(()),
                    added => self.widen_load_log(&added),
                },
            };
            match made {
                Ok(()) => return Ok(()),
                // Somebody else is making it at this moment: duplicate schema, table, column or catalog row.
                Err(error)
                    if matches!(error.sqlstate(), Some("42P06" | "42P07" | "42701" | "23505" | "42710")) => {}
                Err(error) => return Err(error),
            }
        }
        Err(TargetError::Lost {
            doing: "create the load log".into(),
            why: "others keep making and dropping it".into(),
        })
    }

    /// The columns that it has; none where there is no load log.
    pub(super) fn load_log_columns(&mut self) -> Result<Vec<String>, TargetError> {
        let (schema, table) = self.log_parts();
        let found = self
            .client
            .query(
                "SELECT a.attname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
                 WHERE n.nspname = $1::text AND c.relname = $2::text",
                &[&schema, &table],
            )
            .map_err(|error| TargetError::of(&error, "look for the load log"))?;
        Ok(found.iter().map(|row| row.get(0)).collect())
    }

    /// Gives a load log of an earlier version the columns that it lacks.
    fn widen_load_log(&mut self, added: &[&str]) -> Result<(), TargetError> {
        let added: Vec<String> = added.iter().map(|column| format!("ADD COLUMN {column}")).collect();
        let index = if self.has_index()? { String::new() } else { format!("; {}", self.create_index()) };
        let sql = format!("ALTER TABLE {} {}{index}", self.log, added.join(", "));
        // Where only the owner may, the owner needs to know what.
        self.client
            .batch_execute(&sql)
            .map_err(|error| TargetError::of(&error, &format!("widen the load log (`{sql}`)")))
    }

    /// IF NOT EXISTS came with PostgreSQL 9.5.
    fn has_index(&mut self) -> Result<bool, TargetError> {
        let (schema, _) = self.log_parts();
        let found = self.client.query_opt(
            "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1::text AND c.relname = $2::text",
            &[&schema, &INDEX],
        );
        found.map(|row| row.is_some()).map_err(|error| TargetError::of(&error, "look for the load log"))
    }

    fn create_index(&self) -> String {
        format!("CREATE INDEX {INDEX} ON {} (source, table_name)", self.log)
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
            .batch_execute(&format!(
                "BEGIN; {schema} CREATE TABLE {} {CREATE}; {}; COMMIT",
                self.log,
                self.create_index()
            ))
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

    /// Which of these units are in the target, with how many rows and by which measure. `units` are of one source.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn already_there(
        &mut self,
        source: &str,
        units: &[&str],
    ) -> Result<HashMap<UnitKey, LogRow>, TargetError> {
        let sql = format!(
            "SELECT {} FROM {} WHERE source = $1 AND unit = ANY ($2)",
            log_columns("measure"),
            self.log
        );
        let rows = self
            .client
            .query(sql.as_str(), &[&source, &units])
            .map_err(|error| TargetError::of(&error, "read the load log"))?;
        Ok(rows.iter().map(log_row).map(|row| (row.key.clone(), row)).collect())
    }

    /// Reads the load log, whole, row by row, as it was written: for a ledger that never saw it. False where there is
    /// none.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn read_load_log(&mut self, mut each: impl FnMut(LogRow)) -> Result<bool, TargetError> {
        let of = |error: &postgres::Error| TargetError::of(error, "read the load log");
        let columns = self.load_log_columns()?;
        if columns.is_empty() {
            return Ok(false);
        }
        let measure = if columns.iter().any(|column| column == "measure") { "measure" } else { "NULL::text" };
        let sql = format!("SELECT {} FROM {} ORDER BY loaded_at", log_columns(measure), self.log);
        let nothing: [&str; 0] = [];
        let mut rows = self.client.query_raw(sql.as_str(), nothing).map_err(|error| of(&error))?;
        while let Some(row) = rows.next().map_err(|error| of(&error))? {
            each(log_row(&row));
        }
        Ok(true)
    }

    /// Claims a unit, inside a transaction. Waits for another loader's transaction that holds it.
    ///
    /// # Errors
    /// [`TargetError`]. After [`Claim::AlreadyThere`] the transaction, or its savepoint, must be rolled back.
    pub fn claim(&mut self, key: &UnitKey, entry: &Entry<'_>) -> Result<Claim, TargetError> {
        let sql = format!(
            "INSERT INTO {} ({CLAIMED}) VALUES ($1, $2, $3, $4, $5::text::timestamp, $6::text::timestamp, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
             $16, $17, $18)",
            self.log
        );
        let statement = self.prepared(&sql)?;
        let window = entry.extent.window();
        let start = window.map(|window| window.start().to_string());
        let end = window.map(|window| window.end().to_string());
        let (first, last) = ids(&entry.extent).unzip();
        let measure = entry.measure.to_string();
        let number = |rows: u64| i64::try_from(rows).unwrap_or(i64::MAX);
        let Counts { exported, loaded, updated, left, rejected } = entry.counts;
        let [exported, loaded, updated, left, rejected] =
            [exported, loaded, updated, left, rejected].map(number);
        let inserted = self.client.execute(
            &statement,
            &[
                &&*key.source,
                &key.id,
                &entry.job,
                &entry.table,
                &start,
                &end,
                &entry.file,
                &entry.mode,
                &exported,
                &loaded,
                &entry.digest,
                &entry.run,
                &measure,
                &first,
                &last,
                &rejected,
                &updated,
                &left,
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
            .query(&statement, &[&&*key.source, &key.id])
            .map_err(|error| TargetError::of(&error, "confirm a load log row"))?;
        match rows.as_slice() {
            [row] if count(row.get(0)) == loaded => Ok(()),
            _ => Err(TargetError::Lost {
                doing: "confirm a load log row".into(),
                why: "the row of this transaction is not there: it was not alive".into(),
            }),
        }
    }
}

impl Session {
    /// Units in the load log that brought rows of the same target table and time, from whatever source: why keys may
    /// collide. The first of them, and how many more there are.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn others_of(&mut self, unit: &Unit) -> Result<Option<(String, u64)>, TargetError> {
        let window = unit.extent.window();
        let start = window.map(|window| window.start().to_string());
        let end = window.map(|window| window.end().to_string());
        let sql = format!(
            "SELECT source || ':' || unit FROM {} WHERE table_name = $1 AND NOT (source = $2 AND unit = $3) \
             AND (window_start IS NULL OR $4::text IS NULL \
             OR (window_start < $5::text::timestamp AND window_end > $4::text::timestamp)) ORDER BY 1 LIMIT 100",
            self.log
        );
        let table = unit.target.to_string();
        let rows = self
            .client
            .query(sql.as_str(), &[&table, &&*unit.key.source, &unit.key.id, &start, &end])
            .map_err(|error| TargetError::of(&error, "look for other units in the load log"))?;
        let more = rows.len().saturating_sub(1) as u64;
        Ok(rows.first().map(|row| (row.get(0), more)))
    }
}

impl LogRow {
    /// Are its rows told apart as these are, so that an overlap of bounds is one of rows? What was written without a
    /// measure counts as such.
    pub fn is_of(&self, rows: &Rows) -> bool {
        let same_series = read_id(&self.key.id).is_some_and(|named| named.series == rows.series);
        same_series && self.measure.as_ref().is_none_or(|measure| *measure == rows.measure)
    }
}

/// What [`log_row`] reads; `measure` is the column, or what stands for it in a load log that has none.
pub(super) fn log_columns(measure: &str) -> String {
    format!("source, unit, job, table_name, {measure}, rows_loaded, rows_rejected, loaded_at::text, run")
}

pub(super) fn log_row(row: &postgres::Row) -> LogRow {
    LogRow {
        key: UnitKey { source: row.get::<_, &str>(0).into(), id: row.get(1) },
        job: row.get(2),
        table: row.get(3),
        measure: row.get::<_, Option<String>>(4).and_then(|text| text.parse().ok()),
        rows: count(row.get(5)),
        rejected: count(row.get(6)),
        loaded_at: instant(row.get(7)),
        run: row.get(8),
    }
}

/// A time as PostgreSQL writes it in ISO form and UTC: `2021-08-10 04:05:06.7+00`.
pub(super) fn instant(text: &str) -> Timestamp {
    text.parse().unwrap_or(Timestamp::UNIX_EPOCH)
}

pub(super) fn ids(extent: &Extent) -> Option<(i64, i64)> {
    match extent {
        Extent::Ids(ids) | Extent::Slice(ids) => Some((ids.start(), ids.end())),
        Extent::Whole | Extent::Repeated(_) | Extent::Nulls | Extent::Times(_) => None,
    }
}

pub(super) fn count(rows: Option<i64>) -> u64 {
    rows.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0)
}
