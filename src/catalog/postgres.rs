//! A catalog in PostgreSQL or Greenplum: connecting as the target does, every value in its text form.

use postgres::{Client, SimpleQueryMessage};

use super::{CatalogError, Limits, Session};
use crate::inventory::{Answer, JobCatalog};
use crate::sql;
use crate::target::{Address, TargetError};

/// Times are text in ISO form, those with a zone in UTC and with their offset.
const PINNED: &str = "SET standard_conforming_strings = on; SET DateStyle = 'ISO, YMD'; SET TimeZone = 'UTC'; \
     SET IntervalStyle = 'postgres'; SET client_encoding = 'UTF8'; SET client_min_messages = 'warning'";

const SET_UP: &str = "set up a session";

pub(super) struct Postgres {
    catalog: String,
    client: Client,
}

pub(super) fn open(
    catalog: &JobCatalog,
    variable: &impl Fn(&str) -> Option<String>,
    limits: Limits,
) -> Result<Postgres, CatalogError> {
    let name = || catalog.name.clone();
    let address = Address::new(&catalog.url, variable).map_err(|error| match error {
        TargetError::Address { why, .. } => CatalogError::Address { catalog: name(), why },
        other => CatalogError::Address { catalog: name(), why: other.to_string() },
    })?;
    let (client, _) = address.connect().map_err(|error| match error {
        TargetError::Connect { why, .. } => CatalogError::Connect { catalog: name(), why },
        other => CatalogError::Connect { catalog: name(), why: other.to_string() },
    })?;
    let mut session = Postgres { catalog: name(), client };
    let limit = format!("{PINNED}; SET statement_timeout = {}", limits.time.as_millis());
    session.client.batch_execute(&limit).map_err(|error| session.failed(&error, SET_UP, limits))?;
    Ok(session)
}

impl Postgres {
    fn failed(&self, error: &postgres::Error, doing: &'static str, limits: Limits) -> CatalogError {
        let catalog = self.catalog.clone();
        match TargetError::of(error, doing) {
            TargetError::Refused { sqlstate, .. } if sql::is_cancelled(&sqlstate) => {
                CatalogError::TooSlow { catalog, doing, limit: limits.time }
            }
            TargetError::Refused { sqlstate, message, .. } => {
                CatalogError::Refused { catalog, doing, why: format!("{message} (SQLSTATE {sqlstate})") }
            }
            TargetError::Lost { why, .. }
            | TargetError::Connect { why, .. }
            | TargetError::Address { why, .. } => CatalogError::Lost { catalog, doing, why },
            TargetError::Program(error) => CatalogError::Lost { catalog, doing, why: error.to_string() },
        }
    }
}

impl Session for Postgres {
    /// The statement is declared as a cursor by the extended protocol, which takes one statement alone, and a
    /// cursor takes only one that reads; what is fetched then comes as text.
    fn answer(&mut self, doing: &'static str, sql: &str, limits: Limits) -> Result<Answer, CatalogError> {
        let fetch = format!("FETCH FORWARD {} FROM gpferry_catalog", limits.rows + 1);
        let messages = self
            .client
            .batch_execute("BEGIN READ ONLY")
            .and_then(|()| {
                let declare = format!("DECLARE gpferry_catalog NO SCROLL CURSOR FOR {sql}");
                self.client.execute(declare.as_str(), &[])
            })
            .and_then(|_| self.client.simple_query(&fetch))
            .and_then(|messages| self.client.batch_execute("ROLLBACK").map(|()| messages))
            .map_err(|error| self.failed(&error, doing, limits))?;
        let mut answer = Answer::default();
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    answer.columns = columns.iter().map(|column| column.name().to_owned()).collect();
                }
                SimpleQueryMessage::Row(row) => answer
                    .rows
                    .push((0..row.len()).map(|number| row.get(number).map(str::to_owned)).collect()),
                _ => {}
            }
        }
        super::enough(&self.catalog, doing, &answer, limits)?;
        Ok(answer)
    }
}
