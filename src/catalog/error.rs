//! Why a catalog could not be read. No text here holds a password or a value of a row.

use std::time::Duration;

use thiserror::Error;

use crate::exit::Exit;

/// Why a catalog could not be read.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// The URL, the environment or the option file cannot be used.
    #[error("catalog {catalog}: {why}")]
    Address {
        /// Its name.
        catalog: String,
        /// What is wrong.
        why: String,
    },
    /// No session was to be had.
    #[error("cannot connect to catalog {catalog}: {why}")]
    Connect {
        /// Its name.
        catalog: String,
        /// Place, and the server's or the system's own words.
        why: String,
    },
    /// The server said no.
    #[error("catalog {catalog} refused to {doing}: {why}")]
    Refused {
        /// Its name.
        catalog: String,
        /// What it was asked to do.
        doing: &'static str,
        /// The server's message and its code.
        why: String,
    },
    /// The session is gone.
    #[error("lost catalog {catalog}, which was asked to {doing}: {why}")]
    Lost {
        /// Its name.
        catalog: String,
        /// What it was asked to do.
        doing: &'static str,
        /// The library's own words.
        why: String,
    },
    /// It took too long.
    #[error("catalog {catalog} did not {doing} within {} s", limit.as_secs_f64())]
    TooSlow {
        /// Its name.
        catalog: String,
        /// What it was asked to do.
        doing: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// More rows than anybody has jobs.
    #[error("catalog {catalog} was asked to {doing}, and has more than {most} rows")]
    TooMany {
        /// Its name.
        catalog: String,
        /// What it was asked to do.
        doing: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// A value is no text.
    #[error("catalog {catalog}: column `{column}` holds bytes that are no UTF-8 text")]
    NotText {
        /// Its name.
        catalog: String,
        /// The column.
        column: String,
    },
    /// Somebody asked for a stop while it was read.
    #[error("stopped while catalog {catalog} was read")]
    Stopped {
        /// Its name.
        catalog: String,
        /// How the process ends.
        exit: Exit,
    },
}

impl CatalogError {
    /// What to try.
    pub fn remedy(&self) -> String {
        match self {
            Self::Address { .. } => {
                "correct the catalog's `url` in the inventory, or the variables of libpq or the MySQL client"
            }
            Self::Connect { .. } => {
                "try `psql` or `mysql` with the same host, port, user and database from this machine; passwords \
                 come from PGPASSWORD, PGPASSFILE or ~/.pgpass, for MySQL from MYSQL_PWD or [client] of ~/.my.cnf \
                 (files with mode 0600)"
            }
            Self::Refused { .. } => {
                "try the query by hand with the same user: it is one statement that reads, and the user needs \
                 SELECT on what it names"
            }
            Self::Lost { .. } => "look at the server's log, and try again",
            Self::TooSlow { .. } => "look what keeps the server busy or who locks the table; try the query by hand",
            Self::TooMany { .. } => "narrow the query; name many tables by a pattern in the inventory instead",
            Self::NotText { .. } => "turn it into text in the query, or name another column",
            Self::Stopped { .. } => "run it again",
        }
        .into()
    }
}
