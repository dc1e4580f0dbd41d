//! Building the primary key of a table after its rows: which tables are owed one, and one transaction that builds it and
//! takes the word of it away.

use std::time::Duration;

use thiserror::Error;

use super::create::Ddl;
use super::{CommitError, Session, TargetError, milliseconds};
use crate::names::TableName;
use crate::owed::{COMMENT, OwedKey};
use crate::sql;

/// What building a key may use of memory at least, in kB: with PostgreSQL's default of 64 MB a key over some million rows
/// goes to disk. What the server or the role has set beyond that stays. On Greenplum every segment uses as much.
const MEMORY_KB: u32 = 256 * 1024;
const MEMORY_KB_OF_A_SEGMENT: u32 = 128 * 1024;
/// How long rows that share a key are counted.
const COUNTING: Duration = Duration::from_secs(600);

/// Why a key was not built.
#[derive(Debug, Error)]
pub enum KeyError {
    /// Rows share a key.
    #[error(
        "the primary key of {} cannot be built: {}", owed.shown(), counted(*.found)
    )]
    Collide {
        /// Which key.
        owed: OwedKey,
        /// How many keys stand on more than one row, and by how many rows that is too many; `None` where they could not
        /// be counted.
        found: Option<(u64, u64)>,
    },
    /// The target refused, or is gone.
    #[error(transparent)]
    Target(#[from] TargetError),
}

fn counted(found: Option<(u64, u64)>) -> String {
    match found {
        Some((keys, rows)) => {
            format!("keys that stand on more than one row: {keys}; rows that are too many: {rows}")
        }
        None => "rows share a key, and counting them took too long".into(),
    }
}

impl KeyError {
    /// What to try.
    pub fn remedy(&self) -> String {
        match self {
            Self::Collide { owed, .. } => {
                let columns = idents(&owed.columns);
                format!(
                    "its rows are loaded and stay; look for them by `SELECT {columns}, count(*) FROM {} GROUP BY {columns} \
                     HAVING count(*) > 1` (a row whose window column changed between two windows is in both), delete \
                     what is too much, and run again: the next run builds the key",
                    sql::table(&owed.table)
                )
            }
            Self::Target(error) => format!("{}; the next run builds the key", error.remedy()),
        }
    }
}

fn idents(columns: &[String]) -> String {
    sql::idents(columns.iter().map(String::as_str))
}

impl Session {
    /// What a table owes that was just made.
    pub(super) fn owed_by(&mut self, name: &TableName, ddl: &Ddl) -> Result<Option<OwedKey>, TargetError> {
        let sql = format!("SELECT {}::regclass::oid", sql::literal(&sql::table(name)));
        let row = self.client.query_one(sql.as_str(), &[]);
        let row = row.map_err(|error| TargetError::of(&error, "look for the table that was made"))?;
        Ok(Some(OwedKey { table: name.clone(), columns: ddl.key_columns.clone(), oid: row.get(0) }))
    }

    /// The keys that comments on tables of this database say are owed.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn owed_keys(&mut self) -> Result<Vec<OwedKey>, TargetError> {
        let rows = self
            .client
            .query(
                "SELECT n.nspname::text, c.relname::text, c.oid, d.description \
                 FROM pg_description d JOIN pg_class c ON c.oid = d.objoid JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE d.classoid = 'pg_class'::regclass AND d.objsubid = 0 AND c.relkind = 'r' \
                 AND substr(d.description, 1, length($1::text)) = $1::text ORDER BY 1, 2",
                &[&COMMENT],
            )
            .map_err(|error| TargetError::of(&error, "look for keys that are still to be built"))?;
        let read = |row: &postgres::Row| {
            let table = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)).ok()?;
            OwedKey::read(table, row.get(2), row.get(3))
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    /// Is this very table there, and still without a primary key? For what only the ledger remembers: somebody may have
    /// written another comment on the table.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn still_owes(&mut self, owed: &OwedKey) -> Result<bool, TargetError> {
        let rows = self
            .client
            .query(
                "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.oid = $1 AND n.nspname = $2::text AND c.relname = $3::text AND NOT EXISTS \
                 (SELECT 1 FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p')",
                &[&owed.oid, &owed.table.schema(), &owed.table.table()],
            )
            .map_err(|error| TargetError::of(&error, "look for keys that are still to be built"))?;
        Ok(!rows.is_empty())
    }

    /// Builds a key that is owed, and takes the comment away; where somebody has built it, only that. Waits so long for
    /// the table. Nothing limits how long the building takes: what it depends on is known to nobody here.
    ///
    /// # Errors
    /// [`KeyError`]; nothing has changed then, and the session can be used on unless it is lost.
    pub fn build_key(&mut self, owed: &OwedKey, lock: Duration) -> Result<(), KeyError> {
        self.begin()?;
        let built = self.build_within(owed, lock).and_then(|()| {
            self.commit().map_err(|error| match error {
                // Where the answer is lost, another try finds the key there.
                CommitError::Aborted(error) | CommitError::Unknown(error) => error,
            })
        });
        let Err(error) = built else { return Ok(()) };
        if matches!(error, TargetError::Refused { .. }) {
            self.rollback()?;
        }
        if error.sqlstate() == Some("23505") {
            let found = self.count_collisions(owed).unwrap_or_else(|error| {
                log::warn!("{error}");
                None
            });
            return Err(KeyError::Collide { owed: owed.clone(), found });
        }
        Err(error.into())
    }

    fn build_within(&mut self, owed: &OwedKey, lock: Duration) -> Result<(), TargetError> {
        let (table, doing) = (sql::table(&owed.table), format!("build the primary key of {}", owed.table));
        let limit = milliseconds(lock);
        let mut settings = format!("SET LOCAL statement_timeout = {limit};");
        if self.facts.knows_lock_timeout() {
            settings += &format!("SET LOCAL lock_timeout = {limit};");
        }
        // Locked by a statement of its own, so that the limit of waiting is not one of building.
        self.run(&format!("{settings} LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"), &doing)?;
        self.run("SET LOCAL statement_timeout = 0", &doing)?;
        let memory = if self.facts.distributes() { MEMORY_KB_OF_A_SEGMENT } else { MEMORY_KB };
        self.run(
            &format!(
                "SELECT set_config('maintenance_work_mem', '{memory}kB', true) FROM pg_settings \
                 WHERE name = 'maintenance_work_mem' AND CAST(setting AS bigint) < {memory}"
            ),
            &doing,
        )?;
        let of = |error: postgres::Error| TargetError::of(&error, &doing);
        let has = "SELECT count(*) FROM pg_constraint WHERE conrelid = $1 AND contype = 'p'";
        if self.client.query_one(has, &[&owed.oid]).map_err(of)?.get::<_, i64>(0) == 0 {
            self.run(&format!("ALTER TABLE {table} ADD PRIMARY KEY ({})", idents(&owed.columns)), &doing)?;
        }
        let says =
            "SELECT coalesce(substr(obj_description($1, 'pg_class'), 1, length($2::text)) = $2::text, false)";
        // An operator's own comment stays.
        if self.client.query_one(says, &[&owed.oid, &COMMENT]).map_err(of)?.get(0) {
            self.run(&format!("COMMENT ON TABLE {table} IS NULL"), &doing)?;
        }
        Ok(())
    }

    fn count_collisions(&mut self, owed: &OwedKey) -> Result<Option<(u64, u64)>, TargetError> {
        self.begin()?;
        self.run(&format!("SET LOCAL statement_timeout = {}", milliseconds(COUNTING)), "set a limit")?;
        self.ease_sorting()?;
        let sql = format!(
            "SELECT count(*), coalesce(CAST(sum(n - 1) AS bigint), 0) FROM (SELECT count(*) AS n FROM {} GROUP BY {} \
             HAVING count(*) > 1) d",
            sql::table(&owed.table),
            idents(&owed.columns)
        );
        let counted = self.counts(&sql, "count rows that share a key");
        self.rollback()?;
        match counted {
            Err(error) if error.sqlstate().is_some_and(sql::is_cancelled) => Ok(None),
            counted => counted.map(Some),
        }
    }
}
