//! What a URL and the environment say of the target: one configuration for each host, with its password.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use postgres::Config;
use postgres::config::Host;

use super::CONNECT_TIMEOUT;
use crate::target::passfile::{Lookup, Wanted, look_up};

/// Parameters of a URL that the `postgres` crate does not know.
const OURS: [&str; 5] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "passfile"];

/// Takes the parameters that are ours out of a URL.
pub(super) fn split_parameters(url: &str) -> (String, HashMap<String, String>) {
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
pub(super) fn fill_in(config: &mut Config, variable: &impl Fn(&str) -> Option<String>) -> Result<(), String> {
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
pub(super) fn one_by_one(
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
