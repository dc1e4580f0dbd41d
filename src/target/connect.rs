//! Connecting as libpq would: the URL, the `PG*` variables, the password file, TLS up to `verify-full`.
//!
//! Several hosts in one URL are tried in their order, each with its own line of the password file.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode};
use openssl::x509::store::X509StoreBuilder;
use percent_encoding::percent_decode_str;
use postgres::config::{Host, SslMode};
use postgres::{CancelToken, Client, Config, NoTls};
use postgres_openssl::MakeTlsConnector;

use super::error::TargetError;
use super::passfile::{Lookup, Wanted, look_up};

/// Parameters of a URL that the `postgres` crate does not know.
const OURS: [&str; 5] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "passfile"];

/// How long one attempt to connect may take where nothing else is said.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach the target, worked out once.
#[derive(Clone)]
pub struct Address {
    hosts: Vec<Config>,
    tls: Tls,
    /// Made once for all sessions: each would read the machine's certificates anew, half a MiB of them.
    connector: Arc<Mutex<Option<MakeTlsConnector>>>,
    shown: String,
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TlsMode {
    Disable,
    /// TLS where the server has it, nothing verified. libpq's `allow` is treated as this.
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

#[derive(Debug, Clone)]
struct Tls {
    verify: TlsMode,
    root: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Address {
    /// Works out how to reach the target at `url`. `variable` looks up an environment variable.
    ///
    /// # Errors
    /// [`TargetError::Address`] says what of it cannot be used.
    pub fn new(url: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, TargetError> {
        let shown = url.split('?').next().unwrap_or(url).to_owned();
        let bad = |why: String| TargetError::Address { target: shown.clone(), why };
        let (rest, ours) = split_parameters(url);
        let mut config = Config::from_str(&rest).map_err(|error| bad(deepest(&error)))?;
        let value = |key: &str, name: &str| ours.get(key).cloned().or_else(|| variable(name));
        let tls = Tls::new(value("sslmode", "PGSSLMODE").as_deref(), |key, name| {
            value(key, name).map(PathBuf::from)
        })
        .map_err(&bad)?;
        fill_in(&mut config, &variable).map_err(&bad)?;
        config.ssl_mode(match tls.verify {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
        let home = variable("HOME").map(|home| PathBuf::from(home).join(".pgpass"));
        let passfile = value("passfile", "PGPASSFILE").map(PathBuf::from).or(home);
        let hosts = one_by_one(&config, passfile, variable("PGPASSWORD")).map_err(&bad)?;
        Ok(Self { hosts, tls, connector: Arc::default(), shown })
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

    /// What TLS needs, from the second session on as the first one made it.
    fn connector(&self) -> Result<MakeTlsConnector, String> {
        let mut made = self.connector.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connector) = &*made {
            return Ok(connector.clone());
        }
        Ok(made.insert(self.tls.connector()?).clone())
    }

    /// The library bounds the TCP connection alone, not a server that takes it and then says nothing. So the
    /// attempt is made by a thread of its own, which is left behind when it takes too long.
    fn connect_one(&self, config: &Config) -> Result<(Client, Canceller), No> {
        let socket = matches!(config.get_hosts().first(), Some(Host::Unix(_)));
        let connector = if socket || self.tls.verify == TlsMode::Disable {
            None
        } else {
            let no = |error| No { why: format!("TLS: {error}"), transient: false };
            Some(self.connector().map_err(no)?)
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

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hosts, tls, connector: _, shown } = self;
        let mut all = f.debug_struct("Address");
        all.field("hosts", hosts).field("tls", tls).field("shown", shown).finish_non_exhaustive()
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

impl Tls {
    fn new(mode: Option<&str>, file: impl Fn(&str, &str) -> Option<PathBuf>) -> Result<Self, String> {
        let verify = match mode.unwrap_or("prefer") {
            "disable" => TlsMode::Disable,
            "allow" | "prefer" => TlsMode::Prefer,
            "require" => TlsMode::Require,
            "verify-ca" => TlsMode::VerifyCa,
            "verify-full" => TlsMode::VerifyFull,
            other => {
                return Err(format!(
                    "sslmode `{other}` is none of disable, allow, prefer, require, verify-ca, verify-full"
                ));
            }
        };
        let root = file("sslrootcert", "PGSSLROOTCERT");
        // As libpq: `require` with a root certificate means verify-ca.
        let verify = if verify == TlsMode::Require && root.is_some() { TlsMode::VerifyCa } else { verify };
        Ok(Self { verify, root, cert: file("sslcert", "PGSSLCERT"), key: file("sslkey", "PGSSLKEY") })
    }

    fn connector(&self) -> Result<MakeTlsConnector, String> {
        let words = |error: openssl::error::ErrorStack| error.to_string();
        let mut builder = SslConnector::builder(SslMethod::tls()).map_err(words)?;
        if let Some(root) = self.root.as_ref().filter(|root| root.as_os_str() != "system") {
            builder.set_ca_file(root).map_err(|error| format!("{}: {error}", root.display()))?;
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            builder
                .set_certificate_chain_file(cert)
                .map_err(|error| format!("{}: {error}", cert.display()))?;
            builder
                .set_private_key_file(key, SslFiletype::PEM)
                .map_err(|error| format!("{}: {error}", key.display()))?;
        }
        let verified = matches!(self.verify, TlsMode::VerifyCa | TlsMode::VerifyFull);
        if !verified && self.cert.is_none() {
            // Nothing is held against the certificates of this machine, all of which the library has read.
            builder.set_cert_store(X509StoreBuilder::new().map_err(words)?.build());
        }
        builder.set_verify(if verified { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
        let mut connector = MakeTlsConnector::new(builder.build());
        let full = self.verify == TlsMode::VerifyFull;
        connector.set_callback(move |ssl, _| {
            ssl.set_verify_hostname(full);
            Ok(())
        });
        Ok(connector)
    }
}

/// Takes the parameters that are ours out of a URL.
fn split_parameters(url: &str) -> (String, HashMap<String, String>) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), HashMap::new()) };
    let mut ours = HashMap::new();
    let mut theirs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if OURS.contains(&key) {
            ours.insert(key.to_owned(), percent_decode_str(value).decode_utf8_lossy().into_owned());
        } else {
            theirs.push(pair);
        }
    }
    let rest = if theirs.is_empty() { base.to_owned() } else { format!("{base}?{}", theirs.join("&")) };
    (rest, ours)
}

/// What the URL left open, from the environment or libpq's defaults.
fn fill_in(config: &mut Config, variable: &impl Fn(&str) -> Option<String>) -> Result<(), String> {
    if config.get_hosts().is_empty() {
        match variable("PGHOST") {
            Some(hosts) => {
                for host in hosts.split(',') {
                    config.host(host);
                }
            }
            None => {
                config.host_path("/var/run/postgresql");
            }
        }
    }
    if config.get_ports().is_empty() {
        let port = variable("PGPORT").map_or(Ok(5432), |port| port.parse());
        config.port(port.map_err(|_| "PGPORT is not a port".to_owned())?);
    }
    if config.get_user().is_none() {
        let user = variable("PGUSER").or_else(|| variable("USER")).or_else(|| variable("LOGNAME"));
        config.user(&user.ok_or("no user name in the URL, in PGUSER or in USER")?);
    }
    if config.get_dbname().is_none() {
        let user = config.get_user().unwrap_or_default().to_owned();
        config.dbname(&variable("PGDATABASE").unwrap_or(user));
    }
    if config.get_application_name().is_none() {
        config.application_name(&variable("PGAPPNAME").unwrap_or_else(|| "gpferry".into()));
    }
    if config.get_connect_timeout().is_none() {
        let seconds = variable("PGCONNECT_TIMEOUT").and_then(|seconds| seconds.parse().ok());
        config.connect_timeout(seconds.map_or(CONNECT_TIMEOUT, Duration::from_secs));
    }
    // A peer that is gone is noticed in half a minute, not in hours.
    config.keepalives_idle(Duration::from_secs(15));
    config.keepalives_interval(Duration::from_secs(5));
    config.keepalives_retries(3);
    config.tcp_user_timeout(Duration::from_secs(30));
    Ok(())
}

/// One configuration per host, each with its own password.
fn one_by_one(
    config: &Config,
    passfile: Option<PathBuf>,
    password: Option<String>,
) -> Result<Vec<Config>, String> {
    let ports = config.get_ports();
    let mut all = Vec::new();
    for (n, host) in config.get_hosts().iter().enumerate() {
        let port = ports.get(n).or_else(|| ports.last()).copied().unwrap_or(5432);
        let mut one = bare(config);
        let name = match host {
            Host::Tcp(name) => {
                one.host(name);
                name.clone()
            }
            Host::Unix(path) => {
                one.host_path(path);
                "localhost".to_owned()
            }
        };
        one.port(port);
        if let Some(address) = config.get_hostaddrs().get(n) {
            one.hostaddr(*address);
        }
        if let Some(password) = &password {
            one.password(password);
        } else if let Some(passfile) = &passfile {
            let wanted = Wanted {
                host: &name,
                port,
                database: config.get_dbname().unwrap_or_default(),
                user: config.get_user().unwrap_or_default(),
            };
            match look_up(passfile, wanted).map_err(|error| format!("{}: {error}", passfile.display()))? {
                Lookup::Found(password) => {
                    one.password(password);
                }
                Lookup::NotFound => {}
                Lookup::TooOpen(path) => log::warn!(
                    "password file {} is not used: others can read it (chmod 600 {})",
                    path.display(),
                    path.display()
                ),
            }
        }
        all.push(one);
    }
    Ok(all)
}

/// A copy without its hosts and ports.
fn bare(config: &Config) -> Config {
    let mut one = Config::new();
    one.user(config.get_user().unwrap_or_default());
    one.dbname(config.get_dbname().unwrap_or_default());
    one.application_name(config.get_application_name().unwrap_or_default());
    one.ssl_mode(config.get_ssl_mode());
    one.target_session_attrs(config.get_target_session_attrs());
    one.channel_binding(config.get_channel_binding());
    one.keepalives_idle(config.get_keepalives_idle());
    if let Some(interval) = config.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    if let Some(timeout) = config.get_tcp_user_timeout() {
        one.tcp_user_timeout(*timeout);
    }
    if let Some(options) = config.get_options() {
        one.options(options);
    }
    if let Some(timeout) = config.get_connect_timeout() {
        one.connect_timeout(*timeout);
    }
    one
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
