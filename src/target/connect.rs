//! Connecting as libpq would: the URL, the `PG*` variables, the password file, TLS up to `verify-full`.
//!
//! Several hosts in one URL are tried in their order, each with its own line of the password file.

mod settings;
mod tls;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use postgres::config::{Host, SslMode};
use postgres::{CancelToken, Client, Config, NoTls};
use postgres_openssl::MakeTlsConnector;

use super::error::TargetError;
use tls::{Tls, TlsMode};

/// How long one attempt to connect may take where nothing else is said.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach the target, worked out once.
#[derive(Debug, Clone)]
pub struct Address {
    hosts: Vec<Config>,
    tls: Tls,
    shown: String,
}

impl Address {
    /// Works out how to reach the target at `url`. `variable` looks up an environment variable.
    ///
    /// # Errors
    /// [`TargetError::Address`] says what of it cannot be used.
    pub fn new(url: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, TargetError> {
        let shown = url.split('?').next().unwrap_or(url).to_owned();
        let bad = |why: String| TargetError::Address { target: shown.clone(), why };
        let (rest, ours) = settings::split_parameters(url);
        let mut config = Config::from_str(&rest).map_err(|error| bad(deepest(&error)))?;
        let value = |key: &str, name: &str| ours.get(key).cloned().or_else(|| variable(name));
        let tls = Tls::new(value("sslmode", "PGSSLMODE").as_deref(), |key, name| {
            value(key, name).map(PathBuf::from)
        })
        .map_err(&bad)?;
        settings::fill_in(&mut config, &variable).map_err(&bad)?;
        config.ssl_mode(match tls.verify {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
        let home = variable("HOME").map(|home| PathBuf::from(home).join(".pgpass"));
        let passfile = value("passfile", "PGPASSFILE").map(PathBuf::from).or(home);
        let hosts = settings::one_by_one(&config, passfile, variable("PGPASSWORD")).map_err(&bad)?;
        Ok(Self { hosts, tls, shown })
    }

    /// The URL without its parameters, for messages.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Where the first of its hosts is, for another program.
    pub(super) fn place(&self) -> Place {
        let config = self.hosts.first();
        let host = match config.and_then(|config| config.get_hosts().first()) {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".into(),
        };
        let port = config.and_then(|config| config.get_ports().first()).copied().unwrap_or(5432);
        let text = |of: fn(&Config) -> Option<&str>| config.and_then(of).unwrap_or_default().to_owned();
        Place { host, port, user: text(Config::get_user), database: text(Config::get_dbname) }
    }

    /// Opens a session on the first host that takes one; and what is needed to cancel its statements.
    ///
    /// # Errors
    /// [`TargetError::Connect`] with every host's own words.
    pub fn connect(&self) -> Result<(Client, Canceller), TargetError> {
        let (mut refused, mut transient) = (Vec::new(), false);
        for config in &self.hosts {
            match self.connect_one(config) {
                Ok(connected) => return Ok(connected),
                Err(no) => {
                    transient |= no.transient;
                    refused.push(format!("{}: {}", place(config), no.why));
                }
            }
        }
        Err(TargetError::Connect { target: self.shown.clone(), why: refused.join("; "), transient })
    }

    /// The library bounds the TCP connection alone, not a server that takes it and then says nothing. So the
    /// attempt is made by a thread of its own, which is left behind when it takes too long.
    fn connect_one(&self, config: &Config) -> Result<(Client, Canceller), No> {
        let socket = matches!(config.get_hosts().first(), Some(Host::Unix(_)));
        let connector = if socket || self.tls.verify == TlsMode::Disable {
            None
        } else {
            let no = |error| No { why: format!("TLS: {error}"), transient: false };
            Some(self.tls.connector().map_err(no)?)
        };
        let limit = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        let (mut config, with) = (config.clone(), connector.clone());
        // The library would log their words, and a trigger's may be a row: RAISE WARNING '%', NEW.
        config.notice_callback(|notice| {
            log::debug!(
                "the server said something ({}, SQLSTATE {})",
                notice.severity(),
                notice.code().code()
            );
        });
        let (tell, hear) = channel();
        thread::spawn(move || {
            let connected = match with {
                Some(connector) => config.connect(connector),
                None => config.ssl_mode(SslMode::Disable).connect(NoTls),
            };
            // Nobody listens any more where it took too long.
            let _ = tell.send(connected.map_err(|error| No::of(&error)));
        });
        let client = match hear.recv_timeout(limit + Duration::from_secs(1)) {
            Ok(connected) => connected?,
            Err(_) => {
                let why = format!("no answer within {} s (connect_timeout)", limit.as_secs());
                return Err(No { why, transient: true });
            }
        };
        let canceller = Canceller { token: client.cancel_token(), connector };
        Ok((client, canceller))
    }
}

/// What another program needs to find the target; never a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) database: String,
}

/// Why a host took no session.
struct No {
    why: String,
    transient: bool,
}

impl No {
    /// Who is turned away for his password, his name or his database is so the next time, too (classes 28 and 3D);
    /// a server that has no room or is starting is not.
    fn of(error: &postgres::Error) -> Self {
        let state = error.code().map(|state| state.code().to_owned());
        let final_word = state.is_some_and(|state| state.starts_with("28") || state.starts_with("3D"));
        Self { why: deepest(error), transient: !final_word }
    }
}

/// Cancels what a session is doing, from another thread.
#[derive(Clone)]
pub struct Canceller {
    token: CancelToken,
    connector: Option<MakeTlsConnector>,
}

impl Canceller {
    /// Asks the server to cancel the session's current statement, if it has one.
    pub fn cancel(&self) {
        let cancelled = match &self.connector {
            Some(connector) => self.token.cancel_query(connector.clone()),
            None => self.token.cancel_query(NoTls),
        };
        if let Err(error) = cancelled {
            log::debug!("a statement could not be cancelled: {}", deepest(&error));
        }
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}

/// `host:port`, or the socket's directory, for messages.
fn place(config: &Config) -> String {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    match config.get_hosts().first() {
        Some(Host::Tcp(name)) => format!("{name}:{port}"),
        Some(Host::Unix(path)) => format!("{}/.s.PGSQL.{port}", path.display()),
        None => "nowhere".into(),
    }
}

/// The innermost words of an error: `postgres` itself says "db error" or "error connecting to server".
pub(super) fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn address(url: &str, variables: &[(&str, &str)]) -> Result<Address, TargetError> {
        let variables: HashMap<_, _> =
            variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Address::new(url, |name| variables.get(name).cloned())
    }

    #[test]
    fn several_hosts_become_one_configuration_each() {
        let address = address("postgresql://u@a:1,b:2/d?connect_timeout=3&sslmode=disable", &[]).unwrap();
        let places: Vec<_> = address.hosts.iter().map(place).collect();
        assert_eq!(places, ["a:1", "b:2"]);
        assert_eq!(address.hosts[1].get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(address.tls.verify, TlsMode::Disable);
    }

    #[test]
    fn the_environment_fills_in_what_the_url_leaves_open() {
        let variables = [
            ("PGPASSWORD", "pw"),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", "/ca"),
            ("PGAPPNAME", "app"),
        ];
        let address = address("postgresql://u@a/d", &variables).unwrap();
        assert_eq!(address.hosts[0].get_password(), Some(&b"pw"[..]));
        assert_eq!(address.hosts[0].get_application_name(), Some("app"));
        assert_eq!((address.tls.verify, address.tls.root), (TlsMode::VerifyFull, Some("/ca".into())));
    }

    #[test]
    fn a_socket_directory_is_a_host() {
        let address = address("postgresql://u@%2Ftmp%2Fx:7/d", &[]).unwrap();
        assert_eq!(place(&address.hosts[0]), "/tmp/x/.s.PGSQL.7");
    }

    #[test]
    fn require_with_a_root_certificate_verifies_it() {
        let address = address("postgresql://u@a/d?sslmode=require&sslrootcert=/ca", &[]).unwrap();
        assert_eq!(address.tls.verify, TlsMode::VerifyCa);
    }

    #[test]
    fn what_is_no_address_says_so() {
        for url in
            ["postgresql://u@a:x/d", "postgresql://u@a/d?sslmode=maybe", "postgresql://u@a/d?nonsense=1"]
        {
            assert!(matches!(address(url, &[]), Err(TargetError::Address { .. })), "{url}");
        }
    }
}
