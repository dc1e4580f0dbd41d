//! The ground commands run on: a host, one command on it, its three streams, and how it ended.
//!
//! Two implementations matter: [`ssh`] (ssh2) and [`local`] (a process here). A value of either is used by one
//! thread at a time; it may move between threads while no command runs on it.

use std::time::Duration;

pub mod cause;
pub mod ending;
pub mod error;
pub mod explain;
pub mod local;
#[cfg(test)]
pub(crate) mod scripted;
pub mod ssh;

pub use cause::{Cause, Identity, Ownership};
pub use ending::{CommandFailed, Ending};
pub use error::{HostKeyProblem, KeyProblem, RemoteError};
pub use explain::{Explanation, explain};

/// Variables that hold passwords of gpferry's own: no process that it starts inherits them.
const SECRET_VARIABLES: &[&str] = &["PGPASSWORD", "MYSQL_PWD"];

/// Takes the passwords out of what a process to come inherits.
pub(crate) fn without_secrets(command: &mut std::process::Command) -> &mut std::process::Command {
    SECRET_VARIABLES.iter().fold(command, |command, name| command.env_remove(name))
}

/// A host that commands can be run on.
pub trait Remote: Send {
    /// The host as the inventory writes it, for messages.
    fn host(&self) -> &str;

    /// Starts a command. `command` is a constant of gpferry's own, never text that a user supplied: it goes
    /// through the login shell of that host. What varies travels over stdin.
    ///
    /// # Errors
    /// [`RemoteError`] where the channel could not be opened or the session is gone.
    fn exec<'a>(&'a mut self, command: &str) -> Result<Box<dyn Channel + 'a>, RemoteError>;
}

/// One running command.
pub trait Channel: Send {
    /// Queues bytes for its stdin; they leave during [`Channel::poll`].
    fn send(&mut self, bytes: &[u8]);

    /// Closes its stdin once everything queued has left.
    fn close_stdin(&mut self);

    /// Moves bytes both ways. Returns as soon as something was heard or the streams have closed, and after
    /// `wait` at the latest. Both stdout and stderr are always drained.
    ///
    /// # Errors
    /// [`RemoteError`] where the connection is gone.
    fn poll(&mut self, wait: Duration) -> Result<Heard, RemoteError>;

    /// How the command ended, once both streams are closed. Waits at most `within`. An ending that nobody saw
    /// is [`Status::Unknown`], never exit code 0.
    fn end(self: Box<Self>, within: Duration) -> Status;
}

/// What one [`Channel::poll`] brought.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Bytes of stdout.
    pub stdout: Vec<u8>,
    /// Bytes of stderr.
    pub stderr: Vec<u8>,
    /// Both streams are at their end; nothing more will come.
    pub closed: bool,
}

/// What the other side said about the end of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// An exit code. Over SSH a 0 may also mean that none came (libssh2 cannot tell): whoever needs certainty
    /// asks for a trailer on stdout.
    Exited(u32),
    /// The server named a signal (`KILL`, without SIG).
    Signalled(String),
    /// No status came: nobody knows whether the command finished.
    Unknown,
}
