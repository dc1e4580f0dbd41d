//! From a name to a TCP connection that notices when its peer is gone.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

use super::config::{Family, Target};
use crate::remote::RemoteError;

/// A connected socket that can be cut off from outside of libssh2, so that no call of it can hang on a peer that
/// says nothing.
#[derive(Clone)]
pub(super) struct Socket(pub(super) Arc<TcpStream>);

impl Socket {
    /// Ends the connection at once. Every later call of libssh2 on it fails instead of waiting.
    pub(super) fn cut(&self) {
        // It may be gone already, which is what is wanted.
        drop(self.0.shutdown(Shutdown::Both));
    }
}

/// Every address of the target. May take as long as the resolver likes.
pub(super) fn resolve(target: &Target) -> Result<Vec<SocketAddr>, RemoteError> {
    let unresolved = |reason: String| RemoteError::NameNotResolved {
        host: target.host.clone(),
        name: target.hostname.clone(),
        reason,
    };
    let found = (target.hostname.as_str(), target.port).to_socket_addrs();
    let addresses: Vec<SocketAddr> = found
        .map_err(|error| unresolved(error.to_string()))?
        .filter(|address| match target.family {
            Family::Any => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        })
        .collect();
    if addresses.is_empty() {
        return Err(unresolved("it has no address of that AddressFamily".into()));
    }
    Ok(addresses)
}

/// Connects to the first address that answers. An address that swallows packets leaves time for the others.
pub(super) fn connect(
    target: &Target,
    addresses: &[SocketAddr],
    limit: Duration,
    dead_after: Duration,
) -> Result<Socket, RemoteError> {
    let deadline = Instant::now() + limit;
    let mut failed = None;
    for (at, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let others = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        let share = (left / others).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(address, share).and_then(|stream| prepare(stream, dead_after)) {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                log::debug!("`{}`: {address}: {error}", target.host);
                failed = Some(failure(target, address, limit, error));
            }
        }
    }
    Err(failed.unwrap_or_else(|| RemoteError::NameNotResolved {
        host: target.host.clone(),
        name: target.hostname.clone(),
        reason: "it has no address".into(),
    }))
}

fn prepare(stream: TcpStream, dead_after: Duration) -> io::Result<Socket> {
    let third = (dead_after / 3).max(Duration::from_secs(1));
    let keepalive = TcpKeepalive::new().with_time(third).with_interval(third).with_retries(2);
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(dead_after))?;
    socket.set_tcp_nodelay(true)?;
    Ok(Socket(Arc::new(stream)))
}

fn failure(target: &Target, address: &SocketAddr, limit: Duration, source: io::Error) -> RemoteError {
    let (host, address) = (target.host.clone(), address.to_string());
    match source.kind() {
        io::ErrorKind::ConnectionRefused => RemoteError::Refused { host, address },
        io::ErrorKind::TimedOut => {
            RemoteError::TimedOut { host, what: format!("connecting to {address}"), limit }
        }
        _ => RemoteError::Unreachable { host, address, source },
    }
}
