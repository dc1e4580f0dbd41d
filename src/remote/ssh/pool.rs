//! Sessions that are kept for the whole run, and handed out to one thread at a time.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Options;
use super::auth::Passphrases;
use super::bounded::{Unfinished, bounded};
use super::channel::{self, Line, SshChannel};
use super::config::{self, Target};
use super::host::HostText;
use super::session::Connection;
use crate::remote::{Channel, Remote, RemoteError};

/// How many sessions of one host are set up at once. sshd begins to drop unauthenticated connections at 10
/// (`MaxStartups 10:30:100`), and others want in as well.
const HANDSHAKES: usize = 4;

/// How long `ssh -G` may take; a `Match exec` may run anything.
const RESOLVE: Duration = Duration::from_secs(15);

/// Sessions by host. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    passphrases: Passphrases,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    gates: Mutex<HashMap<(String, u16), Arc<Gate>>>,
}

/// One host text and its idle sessions.
struct Host {
    target: Target,
    gate: Arc<Gate>,
    idle: Mutex<Vec<Connection>>,
}

/// How many handshakes with one machine are under way.
#[derive(Default)]
struct Gate {
    inside: Mutex<usize>,
    left: Condvar,
}

impl Pool {
    /// A pool without sessions.
    pub fn new(options: Options) -> Self {
        let passphrases = Passphrases::new(Arc::clone(&options.ask));
        let inner = Inner { options, passphrases, hosts: Mutex::default(), gates: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// An idle session with a host, or a new one. It comes back to the pool when it is dropped.
    ///
    /// # Errors
    /// Why the host could not be reached, or did not let us in. Nothing is remembered of that: whether to try
    /// again is the caller's to decide.
    pub fn get(&self, host: &HostText) -> Result<Pooled, RemoteError> {
        let host = self.host(host)?;
        // The one that was used last; whether its server is still there shows when a channel is opened on it.
        let idle = locked(&host.idle).pop();
        let (connection, stale) = match idle {
            Some(connection) => (connection, true),
            None => (self.inner.connect(&host)?, false),
        };
        Ok(Pooled { pool: self.clone(), host, connection: Some(connection), stale })
    }

    /// What a host text means, asked of `ssh -G` once.
    fn host(&self, text: &HostText) -> Result<Arc<Host>, RemoteError> {
        if let Some(host) = locked(&self.inner.hosts).get(text.as_str()) {
            return Ok(Arc::clone(host));
        }
        let target = resolve_in_time(&self.inner.options, text)?;
        let gate =
            Arc::clone(locked(&self.inner.gates).entry((target.hostname.clone(), target.port)).or_default());
        let host = Arc::new(Host { target, gate, idle: Mutex::default() });
        Ok(Arc::clone(locked(&self.inner.hosts).entry(text.as_str().into()).or_insert(host)))
    }
}

impl Inner {
    fn connect(&self, host: &Host) -> Result<Connection, RemoteError> {
        let _permit = host.gate.enter();
        Connection::open(&host.target, &self.options, self.passphrases.clone())
    }
}

/// [`config::resolve`] under a limit of time.
pub(super) fn resolve_in_time(options: &Options, text: &HostText) -> Result<Target, RemoteError> {
    let (wanted, of) = (options.clone(), text.clone());
    let resolved = bounded(move |stage| {
        stage.begins("`ssh -G`", RESOLVE);
        config::resolve(&wanted, &of)
    });
    match resolved {
        Ok(result) => result,
        Err(Unfinished::TooLong(what, limit)) => {
            Err(RemoteError::TimedOut { host: text.to_string(), what: what.into(), limit })
        }
        Err(Unfinished::Died(what)) => Err(RemoteError::ConfigUnreadable {
            host: text.to_string(),
            reason: format!("the thread died while {what}: a bug worth reporting"),
        }),
    }
}

impl Gate {
    /// Waits until fewer than [`HANDSHAKES`] are inside. Whoever is not alone begins a little later than the
    /// others, so that a server sees no volley.
    fn enter(&self) -> Permit<'_> {
        let mut inside = locked(&self.inside);
        while *inside >= HANDSHAKES {
            inside = self.left.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
        *inside += 1;
        let alone = *inside == 1;
        drop(inside);
        if !alone {
            std::thread::sleep(Duration::from_millis(RandomState::new().build_hasher().finish() % 50));
        }
        Permit(self)
    }
}

struct Permit<'a>(&'a Gate);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *locked(&self.0.inside) -= 1;
        self.0.left.notify_one();
    }
}

/// A session with a host. It goes back to its pool when it is dropped, unless it broke.
pub struct Pooled {
    pool: Pool,
    host: Arc<Host>,
    connection: Option<Connection>,
    /// It lay idle since it was last used, so its peer may have gone away unnoticed.
    stale: bool,
}

impl Pooled {
    /// Opens a channel, on a new session where the old one broke, or turns out to be gone: as long as no command
    /// was sent, that is safe.
    fn open(&mut self) -> Result<ssh2::Channel, RemoteError> {
        let (host, limit) = (&self.host.target.host, self.pool.inner.options.start_timeout);
        let stale = std::mem::replace(&mut self.stale, false);
        if let Some(connection) = self.connection.as_mut().filter(|connection| !connection.broken) {
            match open_again(host, connection, limit) {
                Err(RemoteError::Lost { reason, .. }) if stale => {
                    log::debug!("`{host}`: an idle session was gone ({reason}); opening another");
                }
                result => return result,
            }
        }
        self.connection = None;
        let connection = self.connection.insert(self.pool.inner.connect(&self.host)?);
        channel::open(host, connection, limit)
    }
}

impl Remote for Pooled {
    fn host(&self) -> &str {
        &self.host.target.host
    }

    fn exec<'a>(&'a mut self, command: &str) -> Result<Box<dyn Channel + 'a>, RemoteError> {
        let channel = self.open()?;
        let (host, limit) = (self.host.target.host.as_str(), self.pool.inner.options.start_timeout);
        let Some(connection) = self.connection.as_mut() else {
            unreachable!("a channel was just opened on it");
        };
        Ok(Box::new(SshChannel::start(host, Line::Lent(connection), channel, command, limit)?))
    }
}

impl Pooled {
    /// As [`Remote::exec`], for a command that outlives whoever started it: its end brings the session back to the pool.
    ///
    /// # Errors
    /// As [`Remote::exec`].
    pub fn into_exec(mut self, command: &str) -> Result<Box<dyn Channel>, RemoteError> {
        let channel = self.open()?;
        let (host, limit) = (self.host.target.host.clone(), self.pool.inner.options.start_timeout);
        Ok(Box::new(SshChannel::start(&host, Line::Own(Box::new(self)), channel, command, limit)?))
    }

    /// The connection under a channel that was opened on it.
    pub(super) fn connection(&self) -> &Connection {
        match &self.connection {
            Some(connection) => connection,
            None => unreachable!("a channel was opened on it"),
        }
    }

    /// As [`Pooled::connection`].
    pub(super) fn connection_mut(&mut self) -> &mut Connection {
        match &mut self.connection {
            Some(connection) => connection,
            None => unreachable!("a channel was opened on it"),
        }
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take().filter(|connection| !connection.broken) {
            locked(&self.host.idle).push(connection);
        }
    }
}

/// Opens a channel where an earlier one may not be gone yet: sshd counts a closed channel until its next turn, so
/// with a small `MaxSessions` it may refuse one that comes at its heels.
fn open_again(
    host: &str,
    connection: &mut Connection,
    limit: Duration,
) -> Result<ssh2::Channel, RemoteError> {
    for pause in [10, 40, 160] {
        match channel::open(host, connection, limit) {
            Err(RemoteError::ChannelRefused { .. }) if connection.used => {
                std::thread::sleep(Duration::from_millis(pause));
            }
            result => return result,
        }
    }
    channel::open(host, connection, limit)
}

/// What these locks guard is whole at every moment, so a panic elsewhere does not make it unusable.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn no_more_than_four_are_inside_the_gate() {
        let (gate, inside, most) = (Gate::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    let permit = gate.enter();
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(60));
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), HANDSHAKES);
    }
}
