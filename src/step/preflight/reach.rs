//! Reaching a host: name, connection, key, login, channel. Pure.

use super::{Check, Visit};
use crate::remote::RemoteError;
use crate::source::SourceError;

/// Round trips above this make thousands of small requests slow. Milliseconds.
const SLOW: u128 = 250;
/// Handshakes that gpferry begins with one host at once (see `remote::ssh::pool`).
const HANDSHAKES: usize = 4;

/// Was the host reached, and how.
pub(super) fn checks(visit: &Visit) -> Vec<Check> {
    let host = &visit.place.host;
    match &visit.found {
        _ if visit.place.is_runner() => Vec::new(),
        Err(SourceError::Remote(error)) => {
            vec![Check::fail(id(error), host, error.to_string(), error.remedy())]
        }
        Err(
            SourceError::Command(_)
            | SourceError::Protocol { .. }
            | SourceError::Silent { .. }
            | SourceError::GivenUp { .. }
            | SourceError::Failed { .. },
        ) => vec![Check::ok("reach.login", host, "logged in")],
        Ok(facts) => {
            let milliseconds = facts.round_trip.as_millis();
            let seen = format!("one question and its answer take {milliseconds} ms");
            let trip = match milliseconds {
                ..=SLOW => Check::ok("reach.roundtrip", host, seen),
                _ => Check::warn(
                    "reach.roundtrip",
                    host,
                    seen,
                    format!("look at the way there: `ping {host}`, `mtr {host}`"),
                ),
            };
            vec![
                Check::ok("reach.login", host, "host key known, logged in, channel opened"),
                trip,
                sessions(visit, &facts.sshd),
            ]
        }
    }
}

/// The check that an error belongs to.
fn id(error: &RemoteError) -> &'static str {
    match error {
        RemoteError::InvalidHost { .. }
        | RemoteError::Config { .. }
        | RemoteError::ConfigUnreadable { .. }
        | RemoteError::SshMissing { .. }
        | RemoteError::Here { .. } => "reach.config",
        RemoteError::NameNotResolved { .. } => "reach.name",
        RemoteError::Refused { .. } | RemoteError::Unreachable { .. } => "reach.tcp",
        RemoteError::TimedOut { what, .. } if what.starts_with("connecting") => "reach.tcp",
        RemoteError::TimedOut { what, .. } if what == "looking up its name" => "reach.name",
        RemoteError::TimedOut { what, .. } if what == "authentication" => "reach.auth",
        RemoteError::TimedOut { what, .. } if what == "starting a command" => "reach.channel",
        RemoteError::TimedOut { .. }
        | RemoteError::Handshake { .. }
        | RemoteError::NoCommonAlgorithm { .. } => "reach.handshake",
        RemoteError::HostKeyUnknown(_) | RemoteError::HostKeyChanged(_) | RemoteError::HostKeyRevoked(_) => {
            "reach.hostkey"
        }
        RemoteError::AuthenticationFailed { .. } | RemoteError::KeyFile { .. } => "reach.auth",
        RemoteError::ChannelRefused { .. } | RemoteError::Lost { .. } => "reach.channel",
    }
}

/// gpferry opens a connection of its own for every export session, with one channel at a time on it. So
/// `MaxSessions`, which counts channels of one connection, never stands in its way as long as it is not 0; what
/// counts is `MaxStartups`, how many may log in at once.
fn sessions(visit: &Visit, sshd: &[(String, String)]) -> Check {
    let (host, wanted) = (&visit.place.host, visit.place.sessions);
    // The first value of a keyword wins. Source: sshd_config(5).
    let value = |key: &str| sshd.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let startups = value("maxstartups").unwrap_or("10:30:100");
    let begin: usize = startups.split(':').next().and_then(|begin| begin.parse().ok()).unwrap_or(10);
    let channels = value("maxsessions").unwrap_or("10");
    let seen = format!(
        "{wanted} sessions wanted, each a connection of its own with one channel; MaxStartups {startups}, MaxSessions {channels}"
    );
    if begin < wanted.min(HANDSHAKES) {
        let remedy = format!(
            "raise MaxStartups in sshd_config there to at least {}, or lower `sessions`",
            wanted.min(HANDSHAKES)
        );
        return Check::warn("reach.sessions", host, seen, remedy);
    }
    Check::ok("reach.sessions", host, seen)
}
