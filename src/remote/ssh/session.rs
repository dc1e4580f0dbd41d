//! A session: connected, its host key compared, and logged in.

use std::time::Duration;

use libssh2_sys as raw;
use ssh2::{ErrorCode, Session};

use super::bounded::{Stage, Unfinished, bounded};
use super::config::Target;
use super::connect::{self, Socket};
use super::keys::PublicKey;
use super::known_hosts::{KnownHosts, Verdict};
use super::{Options, algorithms, auth};
use crate::remote::{HostKeyProblem, RemoteError};

/// One logged-in session. Whoever holds it is its only user.
pub(super) struct Connection {
    pub(super) session: Session,
    pub(super) socket: Socket,
    /// Something went wrong on it, or a command was left running: nobody shall use it again.
    pub(super) broken: bool,
    /// A command ran on it to its end.
    pub(super) used: bool,
}

impl Connection {
    /// Connects and logs in, within the limits of `options`.
    pub(super) fn open(
        target: &Target,
        options: &Options,
        ask: auth::Passphrases,
    ) -> Result<Self, RemoteError> {
        let (wanted, limits) = (target.clone(), options.clone());
        in_time(target, move |stage| {
            let (session, socket) = shake_hands(&wanted, &limits, None, stage)?;
            // From here on a return drops the socket's last owner, which libssh2 is.
            let connection = Self { session, socket, broken: false, used: false };
            stage.begins("authentication", limits.auth_timeout);
            auth::log_in(&connection.session, &wanted, &limits, &ask, stage)?;
            connection.session.set_blocking(false);
            Ok(connection)
        })
    }
}

impl Connection {
    /// Nobody shall use it again, and nothing on it shall wait for the other side any more.
    pub(super) fn give_up(&mut self) {
        self.broken = true;
        self.socket.cut();
    }
}

impl Drop for Connection {
    /// Says goodbye where that costs no waiting, then cuts the line: libssh2 would otherwise wait for answers.
    fn drop(&mut self) {
        self.session.set_blocking(false);
        if !self.broken {
            drop(self.session.disconnect(Some(ssh2::DisconnectCode::ByApplication), "done", None));
        }
        self.socket.cut();
    }
}

/// Runs one way to a host under its limits of time.
pub(super) fn in_time<T: Send + 'static>(
    target: &Target,
    work: impl FnOnce(&Stage) -> Result<T, RemoteError> + Send + 'static,
) -> Result<T, RemoteError> {
    match bounded(work) {
        Ok(result) => result,
        Err(Unfinished::TooLong(what, limit)) => {
            Err(RemoteError::TimedOut { host: target.host.clone(), what: what.into(), limit })
        }
        Err(Unfinished::Died(what)) => Err(RemoteError::Handshake {
            host: target.host.clone(),
            reason: format!("the thread that did this died while {what}: a bug worth reporting"),
        }),
    }
}

/// Connects and exchanges keys. Without `only`, the host key is compared with what is recorded; with it, only
/// those host key algorithms are offered and nothing is compared: for asking a host which keys it has.
pub(super) fn shake_hands(
    target: &Target,
    options: &Options,
    only: Option<&[&str]>,
    stage: &Stage,
) -> Result<(Session, Socket), RemoteError> {
    let limit = target.connect_timeout.unwrap_or(options.connect_timeout);
    let known = known_hosts(target)?;
    let host_keys = match only {
        Some(names) => names.iter().map(ToString::to_string).collect(),
        None => target.algorithms.host_keys_for(&known.types(&target.lookup)),
    };
    stage.begins("looking up its name", limit);
    let addresses = connect::resolve(target)?;
    stage.begins("connecting", limit);
    let socket = connect::connect(target, &addresses, limit, options.dead_after)?;
    stage.begins("the key exchange", limit);
    let mut session = Session::new().map_err(|error| failed(target, "the key exchange", limit, &error))?;
    session.set_timeout(milliseconds(limit));
    algorithms::set(&session, target, &host_keys)?;
    session.set_tcp_stream(std::sync::Arc::clone(&socket.0));
    if let Err(error) = session.handshake() {
        socket.cut();
        return Err(failed(target, "the key exchange", limit, &error));
    }
    if only.is_none()
        && let Err(error) = check_host_key(&session, target, &known)
    {
        socket.cut();
        return Err(error);
    }
    Ok((session, socket))
}

/// What is recorded for a target.
pub(super) fn known_hosts(target: &Target) -> Result<KnownHosts, RemoteError> {
    KnownHosts::read(&target.known_hosts).map_err(|(file, source)| RemoteError::Here {
        host: target.host.clone(),
        what: format!("read {}", file.display()),
        source,
    })
}

/// The key that the host has shown in this session.
pub(super) fn host_key(session: &Session, target: &Target) -> Result<PublicKey, RemoteError> {
    let key = session.host_key().and_then(|(blob, _)| PublicKey::from_blob(blob));
    key.ok_or_else(|| RemoteError::Handshake {
        host: target.host.clone(),
        reason: "it showed a host key that cannot be read".into(),
    })
}

fn check_host_key(session: &Session, target: &Target, known: &KnownHosts) -> Result<(), RemoteError> {
    let key = host_key(session, target)?;
    match problem(target, &key, known.verdict(&target.lookup, key.blob())) {
        Some(error) => Err(error),
        None => check_size(target, &key),
    }
}

/// The error that a verdict is, if it is one.
pub(super) fn problem(target: &Target, key: &PublicKey, verdict: Verdict) -> Option<RemoteError> {
    let with = |recorded, other_types| {
        Box::new(HostKeyProblem {
            host: target.host.clone(),
            name: target.lookup.exact.clone(),
            port: target.port,
            key_type: key.kind().into(),
            fingerprint: key.fingerprint(),
            files: target.known_hosts.clone(),
            recorded,
            other_types,
        })
    };
    match verdict {
        Verdict::Known => None,
        Verdict::Unknown { other_types } => Some(RemoteError::HostKeyUnknown(with(None, other_types))),
        Verdict::Changed { file, line } => {
            Some(RemoteError::HostKeyChanged(with(Some((file, line)), vec![])))
        }
        Verdict::Revoked { file, line } => {
            Some(RemoteError::HostKeyRevoked(with(Some((file, line)), vec![])))
        }
    }
}

/// RequiredRSASize, for the host's key.
fn check_size(target: &Target, key: &PublicKey) -> Result<(), RemoteError> {
    match key.rsa_bits() {
        Some(bits) if bits < target.required_rsa_bits => Err(RemoteError::Handshake {
            host: target.host.clone(),
            reason: format!(
                "its RSA key has {bits} bits, and RequiredRSASize is {}",
                target.required_rsa_bits
            ),
        }),
        Some(_) | None => Ok(()),
    }
}

/// What an error of libssh2 before the login means.
pub(super) fn failed(target: &Target, what: &str, limit: Duration, error: &ssh2::Error) -> RemoteError {
    match error.code() {
        ErrorCode::Session(raw::LIBSSH2_ERROR_TIMEOUT | raw::LIBSSH2_ERROR_EAGAIN) => {
            RemoteError::TimedOut { host: target.host.clone(), what: what.into(), limit }
        }
        ErrorCode::Session(raw::LIBSSH2_ERROR_KEX_FAILURE) => {
            RemoteError::NoCommonAlgorithm { host: target.host.clone() }
        }
        ErrorCode::Session(_) | ErrorCode::SFTP(_) => {
            let reason = match is_loss(error) {
                true => format!("it hung up during {what}"),
                false => format!("{} failed: {}", what, error.message()),
            };
            RemoteError::Handshake { host: target.host.clone(), reason }
        }
    }
}

/// Did the connection go away, as opposed to the host saying no?
pub(super) fn is_loss(error: &ssh2::Error) -> bool {
    matches!(
        error.code(),
        ErrorCode::Session(
            raw::LIBSSH2_ERROR_SOCKET_DISCONNECT
                | raw::LIBSSH2_ERROR_SOCKET_SEND
                | raw::LIBSSH2_ERROR_SOCKET_RECV
                | raw::LIBSSH2_ERROR_BAD_SOCKET
        )
    )
}

pub(super) fn is_timeout(error: &ssh2::Error) -> bool {
    error.code() == ErrorCode::Session(raw::LIBSSH2_ERROR_TIMEOUT)
}

/// For libssh2, to which 0 would mean for ever.
pub(super) fn milliseconds(limit: Duration) -> u32 {
    u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).max(1)
}
