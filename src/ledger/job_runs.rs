//! When jobs were run, and since when a run is expected.

use std::collections::HashMap;

use jiff::Timestamp;

use super::coverage::at;
use super::{Ledger, LedgerError};

/// What is known of a job's runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobRuns {
    /// Since when one is expected.
    pub expected_since: Option<Timestamp>,
    /// When the last one that came to its end did.
    pub ran_at: Option<Timestamp>,
    /// Is one at work now?
    pub at_work: bool,
}

impl Ledger {
    /// Notes that jobs are run from now on.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn begin_jobs<'a>(
        &self,
        run: &str,
        jobs: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), LedgerError> {
        self.atomically(|ledger| {
            for job in jobs {
                ledger
                    .connection
                    .execute(
                        "INSERT INTO job_run (job, run) VALUES (?1, ?2)
                         ON CONFLICT (job) DO UPDATE SET run = excluded.run",
                        [job, run],
                    )
                    .map_err(|error| ledger.error(error))?;
            }
            Ok(())
        })
    }

    /// Notes that the jobs of a run came to their end.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn end_jobs(&self, run: &str, now: Timestamp) -> Result<(), LedgerError> {
        self.connection
            .execute("UPDATE job_run SET ran_at = ?2 WHERE run = ?1", [run, &at(now)])
            .map(drop)
            .map_err(|error| self.error(error))
    }

    /// Notes since when a run of a job is expected, where nobody did before.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn expect_job(&self, job: &str, since: Timestamp) -> Result<(), LedgerError> {
        self.connection
            .execute(
                "INSERT INTO job_run (job, expected_since) VALUES (?1, ?2) ON CONFLICT (job) DO UPDATE
                 SET expected_since = coalesce(expected_since, excluded.expected_since)",
                [job, &at(since)],
            )
            .map(drop)
            .map_err(|error| self.error(error))
    }

    /// What is known of every job's runs.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn job_runs(&self) -> Result<HashMap<String, JobRuns>, LedgerError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "SELECT j.job, j.expected_since, j.ran_at, r.id
                 FROM job_run j LEFT JOIN run r ON r.id = j.run AND r.ended_at IS NULL",
            )?;
            let parsed = |text: Option<String>| text.and_then(|text| text.parse().ok());
            let rows = statement.query_map([], |row| {
                let run: Option<String> = row.get(3)?;
                let runs = JobRuns {
                    expected_since: parsed(row.get(1)?),
                    ran_at: parsed(row.get(2)?),
                    at_work: run.is_some_and(|run| self.is_alive(&run)),
                };
                Ok((row.get(0)?, runs))
            })?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.error(error))
    }
}
