//! What went wrong on a source host.

use std::time::Duration;

use thiserror::Error;

use super::protocol::ProtocolError;
use crate::remote::{Cause, CommandFailed, RemoteError};
use crate::sql;

/// What went wrong on a source host, for a whole conversation or for one request of it.
#[derive(Debug, Error)]
pub enum SourceError {
    /// No session, or it is gone.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The script could not be started, or ended before it had said that it was done.
    #[error(transparent)]
    Command(#[from] CommandFailed),
    /// The script does not speak the protocol.
    #[error("the script on `{host}` broke the protocol: {error}")]
    Protocol {
        /// The host.
        host: String,
        /// What it said.
        error: ProtocolError,
    },
    /// The script is there and says nothing.
    #[error("`{host}` has said nothing for {} s while it ran {what}", .silence.as_secs())]
    Silent {
        /// The host.
        host: String,
        /// What it ran.
        what: String,
        /// For how long.
        silence: Duration,
    },
    /// The script ended the batch early, by its own word.
    #[error("the script on `{host}` gave up the batch: {}", given_up(*.code))]
    GivenUp {
        /// The host.
        host: String,
        /// Code of its `end`.
        code: u32,
    },
    /// A request failed; the script went on.
    #[error("{what} on `{host}`: {message}")]
    Failed {
        /// The host.
        host: String,
        /// What was asked.
        what: String,
        /// What the script or the database said.
        message: String,
        /// What that means.
        cause: Cause,
    },
}

impl SourceError {
    /// A request that the script answered with an error. Cell values that the database quoted are left out.
    pub fn failed(host: &str, what: String, sqlstate: Option<&str>, message: &str) -> Self {
        let cause = Cause::from_text(message, sqlstate);
        let data = sqlstate.is_some_and(|state| state.starts_with("22"));
        let message = if data { sql::without_values(message) } else { message.to_owned() };
        Self::Failed { host: host.to_owned(), what, message, cause }
    }

    /// Can the same thing succeed a moment later?
    pub fn can_retry(&self) -> bool {
        match self {
            Self::Remote(error) => error.can_retry(),
            Self::Command(error) => error.can_retry(),
            Self::Failed { cause, .. } => cause.can_retry(),
            Self::Silent { .. } => true,
            Self::GivenUp { code, .. } => *code != 2,
            Self::Protocol { .. } => false,
        }
    }

    /// What to try.
    pub fn remedy(&self) -> String {
        match self {
            Self::Remote(error) => error.remedy(),
            Self::Command(error) => error.remedy(),
            Self::Failed { cause, .. } => cause.remedy(),
            Self::Silent { host, .. } => {
                format!(
                    "look at the load and the network of `{host}`; the unit is tried again by the next run"
                )
            }
            Self::GivenUp { code: 124, .. } => {
                "raise `export.timeout` for this table, or make its windows shorter".into()
            }
            Self::GivenUp { .. } => {
                "run again; if it comes back, run with -v and read the script's stderr".into()
            }
            Self::Protocol { .. } => "if it is a script of your own, compare it with scripts/README.md; \
                 else this is a bug worth reporting, with the output of -vv"
                .into(),
        }
    }

    /// Was the host itself not reached?
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Remote(_) => true,
            Self::Command(_)
            | Self::Protocol { .. }
            | Self::Silent { .. }
            | Self::GivenUp { .. }
            | Self::Failed { .. } => false,
        }
    }

    /// Is it the unit's own fault, and no trouble of host, network, mount or server that others share?
    pub fn is_units_own(&self) -> bool {
        match self {
            Self::Failed { cause: Cause::DatabaseError { sqlstate: Some(state) }, .. } => {
                !["08", "53", "57P", "58"].iter().any(|class| state.starts_with(class))
            }
            Self::Failed { cause: Cause::DatabaseError { sqlstate: None } | Cause::Unknown, .. } => true,
            Self::GivenUp { code, .. } => *code == 124,
            Self::Failed { .. }
            | Self::Remote(_)
            | Self::Command(_)
            | Self::Protocol { .. }
            | Self::Silent { .. } => false,
        }
    }

    /// Is this about the host as a whole, so that its other units would fare no better?
    pub fn concerns_host(&self) -> bool {
        match self {
            Self::Remote(_) | Self::Command(_) | Self::Protocol { .. } => true,
            Self::Silent { .. } | Self::GivenUp { .. } | Self::Failed { .. } => false,
        }
    }
}

fn given_up(code: u32) -> String {
    match code {
        2 => "it did not understand a request".into(),
        124 => "its time limit was reached".into(),
        125 => "it no longer heard from gpferry".into(),
        130 => "it was told to stop".into(),
        other => format!("exit code {other}"),
    }
}
