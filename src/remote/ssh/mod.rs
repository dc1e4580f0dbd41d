//! Hosts that are reached over SSH, through libssh2.
//!
//! What `ssh` itself would do with a host text is asked of `ssh -G`; what gpferry then cannot honour is an
//! error, never silently left out. A host key is compared with what is recorded before anything else is said,
//! and only `gpferry trust` records one. One thread owns a session and its one channel while a command runs.
//!
//! Deliberately ours and not libssh2's: known_hosts (its reader rejects a file for one bad line, and ignores
//! `@revoked` and wildcards), the agent (its helper tries the first identity only), every limit of time (its
//! default is for ever), and noticing a peer that is gone (its keepalive ignores replies).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

mod algorithms;
mod auth;
mod bounded;
mod channel;
pub mod config;
mod connect;
mod host;
mod keys;
mod keywords;
pub mod known_hosts;
mod pool;
mod session;
mod tokens;
pub mod trust;

pub use config::Target;
pub use host::HostText;
pub use pool::{Pool, Pooled};

/// Asks a person for the passphrase of a key file; `None` where there is nobody to ask.
pub type Ask = Arc<dyn Fn(&Path) -> Option<String> + Send + Sync>;

/// How hosts are reached.
#[derive(Clone)]
pub struct Options {
    /// An SSH configuration to use instead of the user's and the system's (`ssh -F`).
    pub config: Option<PathBuf>,
    /// The `ssh` that is asked what a host text means.
    pub ssh: PathBuf,
    /// How long connecting and the key exchange may take, each, where the configuration has no ConnectTimeout.
    pub connect_timeout: Duration,
    /// How long being let in may take, without the time a person needs for a passphrase.
    pub auth_timeout: Duration,
    /// How long opening a channel and starting a command may take.
    pub start_timeout: Duration,
    /// After how long without any sign of life a connection is given up.
    pub dead_after: Duration,
    /// Where passphrases come from.
    pub ask: Ask,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config: None,
            ssh: "ssh".into(),
            connect_timeout: Duration::from_secs(10),
            auth_timeout: Duration::from_secs(20),
            start_timeout: Duration::from_secs(20),
            dead_after: Duration::from_secs(15),
            ask: Arc::new(auth::ask_terminal),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("config", &self.config)
            .field("ssh", &self.ssh)
            .field("connect_timeout", &self.connect_timeout)
            .field("auth_timeout", &self.auth_timeout)
            .field("start_timeout", &self.start_timeout)
            .field("dead_after", &self.dead_after)
            .finish_non_exhaustive()
    }
}
