//! A catalog in MySQL or MariaDB. The only place that knows the client library.

mod place;

use std::io;
use std::path::PathBuf;

use mysql::consts::ColumnType;
use mysql::prelude::Queryable;
use mysql::{Conn, DriverError, Error, OptsBuilder, SslOpts, Value};

use self::place::{Place, Tls};
use super::option_file::{self, Lookup};
use super::{CatalogError, Limits, Session};
use crate::inventory::{Answer, JobCatalog};

/// `DATETIME` has no zone and is taken as it is; `TIMESTAMP` comes in the session's zone, so that is pinned.
const PINNED: [&str; 2] = ["SET NAMES utf8mb4", "SET time_zone = '+00:00'"];

const SET_UP: &str = "set up a session";

/// Statements that took too long. Sources: MariaDB ER_STATEMENT_TIMEOUT, MySQL ER_QUERY_TIMEOUT.
const TIMED_OUT: [u16; 2] = [1969, 3024];

pub(super) struct MySql {
    catalog: String,
    conn: Conn,
}

pub(super) fn open(
    catalog: &JobCatalog,
    variable: &impl Fn(&str) -> Option<String>,
    limits: Limits,
) -> Result<MySql, CatalogError> {
    let bad = |why: String| CatalogError::Address { catalog: catalog.name.clone(), why };
    let user = variable("USER").or_else(|| variable("LOGNAME"));
    let place = Place::parse(&catalog.url, user).map_err(bad)?;
    let password = password(variable).map_err(bad)?;
    let conn = connect(&place, password, limits).map_err(|error| {
        let at = match &place.socket {
            Some(socket) => socket.clone(),
            None => format!("{}:{}", place.host, place.port),
        };
        if timed_out(&error) {
            let catalog = catalog.name.clone();
            return CatalogError::TooSlow { catalog, doing: super::CONNECT, limit: limits.time };
        }
        CatalogError::Connect { catalog: catalog.name.clone(), why: format!("{at}: {}", words(&error)) }
    })?;
    let mut session = MySql { catalog: catalog.name.clone(), conn };
    session.set_up(limits).map_err(|error| session.failed(&error, SET_UP, limits))?;
    Ok(session)
}

/// From MYSQL_PWD, or the option file that the client programs read.
fn password(variable: &impl Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    if let Some(password) = variable("MYSQL_PWD") {
        return Ok(Some(password));
    }
    let Some(path) = variable("HOME").map(|home| PathBuf::from(home).join(".my.cnf")) else {
        return Ok(None);
    };
    match option_file::password(&path).map_err(|error| format!("{}: {error}", path.display()))? {
        Lookup::Found(password) => Ok(Some(password)),
        Lookup::NotFound => Ok(None),
        Lookup::TooOpen => {
            let path = path.display();
            log::warn!("the password in {path} is not used: others can read it (chmod 600 {path})");
            Ok(None)
        }
    }
}

fn connect(place: &Place, password: Option<String>, limits: Limits) -> Result<Conn, Error> {
    let opts = |tls: bool| {
        let ssl = SslOpts::default()
            .with_root_cert_path(place.ca.clone())
            .with_danger_accept_invalid_certs(matches!(place.tls, Tls::Preferred | Tls::Required))
            .with_danger_skip_domain_validation(place.tls != Tls::VerifyIdentity);
        OptsBuilder::new()
            .ip_or_hostname(Some(place.host.clone()))
            .tcp_port(place.port)
            .socket(place.socket.clone())
            .prefer_socket(false)
            .user(Some(place.user.clone()))
            .pass(password.clone())
            .db_name(place.database.clone())
            .tcp_connect_timeout(Some(place.timeout.min(limits.time)))
            .read_timeout(Some(limits.time))
            .write_timeout(Some(limits.time))
            .ssl_opts(tls.then_some(ssl))
    };
    let wanted = place.tls != Tls::Disabled && place.socket.is_none();
    match Conn::new(opts(wanted)) {
        Err(Error::DriverError(DriverError::TlsNotSupported)) if place.tls == Tls::Preferred => {
            Conn::new(opts(false))
        }
        connected => connected,
    }
}

/// Columns with their types, and rows.
type Raw = (Vec<(String, ColumnType)>, Vec<Vec<Value>>);

impl MySql {
    fn set_up(&mut self, limits: Limits) -> Result<(), Error> {
        for statement in PINNED {
            self.conn.query_drop(statement)?;
        }
        let version: Option<String> = self.conn.query_first("SELECT VERSION()")?;
        let limit = match version {
            Some(version) if version.contains("MariaDB") => {
                format!("SET max_statement_time = {}", limits.time.as_secs_f64())
            }
            _ => format!("SET max_execution_time = {}", limits.time.as_millis()),
        };
        self.conn.query_drop(limit)
    }

    fn failed(&self, error: &Error, doing: &'static str, limits: Limits) -> CatalogError {
        let catalog = self.catalog.clone();
        match error {
            Error::MySqlError(refused) if TIMED_OUT.contains(&refused.code) => {
                CatalogError::TooSlow { catalog, doing, limit: limits.time }
            }
            Error::MySqlError(_) => CatalogError::Refused { catalog, doing, why: words(error) },
            _ if timed_out(error) => CatalogError::TooSlow { catalog, doing, limit: limits.time },
            _ => CatalogError::Lost { catalog, doing, why: words(error) },
        }
    }

    /// The text protocol takes several statements at once, and preparing takes one alone: so it is prepared
    /// first, and asked as text then. `None` where it would give no rows: DROP TABLE ends a read-only
    /// transaction instead of being refused in it.
    fn read(&mut self, sql: &str, most: usize) -> Result<Option<Raw>, Error> {
        let prepared = self.conn.prep(sql)?;
        if prepared.columns().is_empty() {
            return Ok(None);
        }
        self.conn.close(prepared)?;
        self.conn.query_drop("START TRANSACTION READ ONLY")?;
        let mut result = self.conn.query_iter(sql)?;
        let columns = result.columns();
        let columns = columns.as_ref().iter();
        let columns = columns.map(|column| (column.name_str().into_owned(), column.column_type())).collect();
        let mut rows = Vec::new();
        for row in result.by_ref().take(most + 1) {
            rows.push(row?.unwrap());
        }
        drop(result);
        self.conn.query_drop("ROLLBACK")?;
        Ok(Some((columns, rows)))
    }
}

impl Session for MySql {
    fn answer(&mut self, doing: &'static str, sql: &str, limits: Limits) -> Result<Answer, CatalogError> {
        let read = self.read(sql, limits.rows).map_err(|error| self.failed(&error, doing, limits))?;
        let Some((columns, rows)) = read else {
            let why = "it is no statement that gives rows".to_owned();
            return Err(CatalogError::Refused { catalog: self.catalog.clone(), doing, why });
        };
        let mut answer = Answer::default();
        for row in rows {
            let cells = columns.iter().zip(row).map(|((name, kind), value)| {
                text(*kind, value).map_err(|()| CatalogError::NotText {
                    catalog: self.catalog.clone(),
                    column: name.clone(),
                })
            });
            answer.rows.push(cells.collect::<Result<_, _>>()?);
        }
        answer.columns = columns.into_iter().map(|(name, _)| name).collect();
        super::enough(&self.catalog, doing, &answer, limits)?;
        Ok(answer)
    }
}

/// A value as text. A `TIMESTAMP` gets the offset of the session's zone, so that it is an instant.
fn text(kind: ColumnType, value: Value) -> Result<Option<String>, ()> {
    let bytes = match value {
        Value::NULL => return Ok(None),
        Value::Bytes(bytes) => bytes,
        // The text protocol gives no others.
        other => return Ok(Some(other.as_sql(true).trim_matches('\'').to_owned())),
    };
    if kind == ColumnType::MYSQL_TYPE_BIT {
        let number = bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        return Ok(Some(number.to_string()));
    }
    let text = String::from_utf8(bytes).map_err(|_| ())?;
    let instant = matches!(kind, ColumnType::MYSQL_TYPE_TIMESTAMP | ColumnType::MYSQL_TYPE_TIMESTAMP2);
    Ok(Some(if instant && !text.starts_with("0000-00-00") { format!("{text}+00:00") } else { text }))
}

fn timed_out(error: &Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    match error {
        Error::DriverError(DriverError::ConnectTimeout) => true,
        Error::DriverError(DriverError::CouldNotConnect(Some((_, _, kind)))) => *kind == TimedOut,
        _ => {
            let io = deepest(error).downcast_ref::<io::Error>();
            io.is_some_and(|error| matches!(error.kind(), TimedOut | WouldBlock))
        }
    }
}

fn deepest(error: &Error) -> &(dyn std::error::Error + 'static) {
    let mut deepest: &(dyn std::error::Error + 'static) = match error {
        // The library does not name these as sources.
        Error::CodecError(inner) => inner,
        Error::IoError(inner) => inner,
        other => other,
    };
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest
}

/// An error without the library's frame around it.
fn words(error: &Error) -> String {
    match error {
        Error::MySqlError(refused) => {
            format!("{} (error {}, SQLSTATE {})", refused.message, refused.code, refused.state)
        }
        Error::DriverError(DriverError::CouldNotConnect(Some((_, why, _)))) => why.clone(),
        other => deepest(other).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_text() {
        let bytes = |text: &str| Value::Bytes(text.as_bytes().to_vec());
        for (kind, value, expected) in [
            (ColumnType::MYSQL_TYPE_TIMESTAMP, bytes("2021-08-10 00:00:00.5"), "2021-08-10 00:00:00.5+00:00"),
            (ColumnType::MYSQL_TYPE_TIMESTAMP, bytes("0000-00-00 00:00:00"), "0000-00-00 00:00:00"),
            (ColumnType::MYSQL_TYPE_DATETIME, bytes("2021-08-10 00:00:00"), "2021-08-10 00:00:00"),
            (ColumnType::MYSQL_TYPE_BIT, Value::Bytes(vec![1]), "1"),
            (ColumnType::MYSQL_TYPE_LONG, bytes("4"), "4"),
        ] {
            assert_eq!(text(kind, value), Ok(Some(expected.to_owned())));
        }
        assert_eq!(text(ColumnType::MYSQL_TYPE_STRING, Value::NULL), Ok(None));
        assert_eq!(text(ColumnType::MYSQL_TYPE_BLOB, Value::Bytes(vec![0xff])), Err(()));
    }
}
