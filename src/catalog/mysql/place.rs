//! Where a MySQL server is, as a URL says it, and how it is spoken to.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;

/// Longest time to connect where the URL says nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) user: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: Option<String>,
    pub(super) socket: Option<String>,
    pub(super) tls: Tls,
    pub(super) ca: Option<PathBuf>,
    pub(super) timeout: Duration,
}

/// The client programs' `--ssl-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tls {
    Disabled,
    /// Where the server has it, nothing verified.
    Preferred,
    Required,
    VerifyCa,
    VerifyIdentity,
}

impl Place {
    pub(super) fn parse(url: &str, user: Option<String>) -> Result<Self, String> {
        let decoded = |text: &str| {
            percent_decode_str(text)
                .decode_utf8()
                .map(|text| text.into_owned())
                .map_err(|_| "the URL holds bytes that are not UTF-8".to_owned())
        };
        let (_, rest) = url.split_once("://").ok_or("the URL has no scheme")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (named, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(decoded(user)?), host),
            None => (None, authority),
        };
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| "what follows the host's colon is not a port")?)
            }
            _ => (host, 3306),
        };
        if host.contains(',') {
            return Err("a MySQL catalog has one host".into());
        }
        let host = decoded(host.trim_start_matches('[').trim_end_matches(']'))?;
        let mut place = Self {
            user: named
                .filter(|user| !user.is_empty())
                .or(user)
                .ok_or("no user name in the URL or in USER")?,
            host: if host.is_empty() { "127.0.0.1".into() } else { host },
            port,
            database: Some(decoded(database)?).filter(|database| !database.is_empty()),
            socket: None,
            tls: Tls::Preferred,
            ca: None,
            timeout: CONNECT_TIMEOUT,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            place.set(key, decoded(value)?)?;
        }
        if place.ca.is_some() && matches!(place.tls, Tls::Preferred | Tls::Required) {
            // As libpq: naming a certificate means that it is to be verified.
            place.tls = Tls::VerifyCa;
        }
        Ok(place)
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), String> {
        match key {
            "socket" => self.socket = Some(value),
            "ssl-ca" => self.ca = Some(value.into()),
            "connect_timeout" => {
                let seconds = value.parse().map_err(|_| "connect_timeout is not a number of seconds")?;
                self.timeout = Duration::from_secs(seconds);
            }
            "ssl-mode" => {
                self.tls = match value.to_ascii_lowercase().as_str() {
                    "disabled" => Tls::Disabled,
                    "preferred" => Tls::Preferred,
                    "required" => Tls::Required,
                    "verify_ca" => Tls::VerifyCa,
                    "verify_identity" => Tls::VerifyIdentity,
                    _ => {
                        return Err("ssl-mode is none of disabled, preferred, required, verify_ca, \
                             verify_identity"
                            .into());
                    }
                }
            }
            other => {
                return Err(format!(
                    "parameter `{other}` of the URL is none of socket, ssl-mode, ssl-ca, connect_timeout"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Place, String> {
        Place::parse(url, Some("me".into()))
    }

    #[test]
    fn urls_are_taken_apart() {
        let place = parse("mysql://e%40tl@db:3307/etl%2Fx?ssl-mode=DISABLED&connect_timeout=3").unwrap();
        assert_eq!((place.user.as_str(), place.host.as_str(), place.port), ("e@tl", "db", 3307));
        assert_eq!((place.database.as_deref(), place.tls), (Some("etl/x"), Tls::Disabled));
        assert_eq!(place.timeout, Duration::from_secs(3));
        let place = parse("mariadb://[::1]?socket=/run/my.sock").unwrap();
        assert_eq!((place.user.as_str(), place.host.as_str(), place.port), ("me", "::1", 3306));
        assert_eq!((place.socket.as_deref(), place.database), (Some("/run/my.sock"), None));
        let place = parse("mysql://u@h/d?ssl-ca=/ca.pem").unwrap();
        assert_eq!(place.tls, Tls::VerifyCa);
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        for (url, why) in [
            ("mysql://u@h:port/d", "not a port"),
            ("mysql://u@a,b/d", "one host"),
            ("mysql://u@h/d?ssl-mode=maybe", "verify_identity"),
            ("mysql://u@h/d?charset=latin1", "`charset`"),
            ("mysql://u@h/d?connect_timeout=soon", "seconds"),
        ] {
            assert!(parse(url).unwrap_err().contains(why), "{url}");
        }
        assert!(Place::parse("mysql://h/d", None).unwrap_err().contains("no user name"));
    }
}
