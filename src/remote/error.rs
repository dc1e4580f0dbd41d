//! What can go wrong before and around a command: reaching a host, trusting it, being let in, opening a channel.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// Why a host could not be asked, or gave no answer.
#[derive(Debug, Error)]
pub enum RemoteError {
    /// A text that cannot be a host.
    #[error("`{host}` is not a host: {reason}")]
    InvalidHost {
        /// The host as it was written.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something in the SSH configuration that gpferry does not do.
    #[error(
        "the SSH configuration of `{host}` sets {key} to `{value}`, which gpferry cannot honour: {reason}"
    )]
    Config {
        /// The host as the inventory writes it.
        host: String,
        /// The keyword, as ssh_config(5) spells it, or a name for where it came from.
        key: String,
        /// Its value.
        value: String,
        /// Why, and what to do.
        reason: String,
    },
    /// `ssh` could not read the SSH configuration.
    #[error("ssh cannot read its configuration for `{host}`: {reason}")]
    ConfigUnreadable {
        /// The host as the inventory writes it.
        host: String,
        /// What `ssh -G` said.
        reason: String,
    },
    /// There is a configuration, and no `ssh` to read it.
    #[error("`{host}` may depend on {}, and no `ssh` is installed here to read that", config.display())]
    SshMissing {
        /// The host as the inventory writes it.
        host: String,
        /// The configuration file.
        config: PathBuf,
    },
    /// The name has no address.
    #[error("cannot find an address of `{name}` for `{host}`: {reason}")]
    NameNotResolved {
        /// The host as the inventory writes it.
        host: String,
        /// The name that was looked up.
        name: String,
        /// What the resolver said.
        reason: String,
    },
    /// Nothing listens there.
    #[error("`{host}` refused the connection to {address}")]
    Refused {
        /// The host as the inventory writes it.
        host: String,
        /// The address and port.
        address: String,
    },
    /// The network does not lead there.
    #[error("cannot reach `{host}` at {address}")]
    Unreachable {
        /// The host as the inventory writes it.
        host: String,
        /// The address and port.
        address: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It took too long.
    #[error("`{host}`: {what} took longer than {} s", limit.as_secs_f64())]
    TimedOut {
        /// The host as the inventory writes it.
        host: String,
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// What answered does not speak SSH with us.
    #[error("no SSH session with `{host}`: {reason}")]
    Handshake {
        /// The host as the inventory writes it.
        host: String,
        /// What libssh2 said.
        reason: String,
    },
    /// Its sshd and libssh2 have no algorithm in common.
    #[error("`{host}` and libssh2 have no key exchange, cipher, MAC or host key algorithm in common")]
    NoCommonAlgorithm {
        /// The host as the inventory writes it.
        host: String,
    },
    /// No key of this type is recorded for this host.
    #[error("the key of `{}` is not known: {} {}{}", .0.host, .0.key_type, .0.fingerprint, .0.other_types())]
    HostKeyUnknown(Box<HostKeyProblem>),
    /// Another key of this type is recorded for this host.
    #[error("the key of `{}` has CHANGED: it is now {} {}, but {} says otherwise", .0.host, .0.key_type, .0.fingerprint, .0.place())]
    HostKeyChanged(Box<HostKeyProblem>),
    /// The key is marked `@revoked`.
    #[error("the key of `{}`, {} {}, is revoked in {}", .0.host, .0.key_type, .0.fingerprint, .0.place())]
    HostKeyRevoked(Box<HostKeyProblem>),
    /// The host let nobody in.
    #[error("`{host}` did not let {user} in (it accepts {methods}); tried {}", listed(tried))]
    AuthenticationFailed {
        /// The host as the inventory writes it.
        host: String,
        /// The user on that host.
        user: String,
        /// The methods that the host offered.
        methods: String,
        /// Every key that was tried or passed over, with why.
        tried: Vec<String>,
    },
    /// A key file could not be used.
    #[error("the key file {} for `{host}` {problem}", path.display())]
    KeyFile {
        /// The host as the inventory writes it.
        host: String,
        /// The private key.
        path: PathBuf,
        /// What is wrong with it.
        problem: KeyProblem,
    },
    /// The session stands, but the host opened no channel on it.
    #[error("`{host}` opened no channel: {reason}")]
    ChannelRefused {
        /// The host as the inventory writes it.
        host: String,
        /// What the server or libssh2 said.
        reason: String,
    },
    /// The connection went away: nobody knows whether the command finished.
    #[error("lost `{host}` during {what}: {reason}")]
    Lost {
        /// The host as the inventory writes it.
        host: String,
        /// What was under way.
        what: String,
        /// What libssh2 or the kernel said.
        reason: String,
    },
    /// Something on this machine failed.
    #[error("`{host}`: cannot {what}")]
    Here {
        /// The host as the inventory writes it.
        host: String,
        /// What failed here, on which file.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A host key that does not match what is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKeyProblem {
    /// The host as the inventory writes it.
    pub host: String,
    /// Its name in a known_hosts file: `name`, or `[name]:port`.
    pub name: String,
    /// The port.
    pub port: u16,
    /// The type of the key that was offered.
    pub key_type: String,
    /// Its fingerprint, `SHA256:…`.
    pub fingerprint: String,
    /// The files that were read.
    pub files: Vec<PathBuf>,
    /// The line that contradicts.
    pub recorded: Option<(PathBuf, usize)>,
    /// Types of which a key is recorded, where none is of the offered type.
    pub other_types: Vec<String>,
}

impl HostKeyProblem {
    fn place(&self) -> String {
        match &self.recorded {
            Some((file, line)) => format!("{}:{line}", file.display()),
            None => "no file".into(),
        }
    }

    fn other_types(&self) -> String {
        match self.other_types.as_slice() {
            [] => String::new(),
            types => format!(" (recorded are keys of type {})", types.join(", ")),
        }
    }
}

/// What is wrong with a key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyProblem {
    /// It is encrypted, and there is nobody to ask.
    #[error("needs a passphrase, and there is no terminal to ask for it")]
    PassphraseNeeded,
    /// It is encrypted with another passphrase.
    #[error("was not opened by the passphrase that was given")]
    WrongPassphrase,
    /// It is not a key, or of a kind that libssh2 does not read.
    #[error("is not a private key that libssh2 can read")]
    Unsupported,
}

impl RemoteError {
    /// The host, as the inventory writes it.
    pub fn host(&self) -> &str {
        match self {
            Self::InvalidHost { host, .. }
            | Self::Config { host, .. }
            | Self::ConfigUnreadable { host, .. }
            | Self::SshMissing { host, .. }
            | Self::NameNotResolved { host, .. }
            | Self::Refused { host, .. }
            | Self::Unreachable { host, .. }
            | Self::TimedOut { host, .. }
            | Self::Handshake { host, .. }
            | Self::NoCommonAlgorithm { host }
            | Self::AuthenticationFailed { host, .. }
            | Self::KeyFile { host, .. }
            | Self::ChannelRefused { host, .. }
            | Self::Lost { host, .. }
            | Self::Here { host, .. } => host,
            Self::HostKeyUnknown(problem) | Self::HostKeyChanged(problem) | Self::HostKeyRevoked(problem) => {
                &problem.host
            }
        }
    }

    /// Can the same attempt succeed a little later, with nobody doing anything?
    pub fn can_retry(&self) -> bool {
        match self {
            Self::NameNotResolved { .. }
            | Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Handshake { .. }
            | Self::ChannelRefused { .. }
            | Self::Lost { .. } => true,
            // Newer servers punish failed logins, so a refused one is final.
            Self::InvalidHost { .. }
            | Self::Config { .. }
            | Self::ConfigUnreadable { .. }
            | Self::SshMissing { .. }
            | Self::NoCommonAlgorithm { .. }
            | Self::HostKeyUnknown(_)
            | Self::HostKeyChanged(_)
            | Self::HostKeyRevoked(_)
            | Self::AuthenticationFailed { .. }
            | Self::KeyFile { .. }
            | Self::Here { .. } => false,
        }
    }

    /// What to try.
    pub fn remedy(&self) -> String {
        match self {
            Self::InvalidHost { .. } => {
                "write `user@host`, `user@host:port`, `user@[address]:port`, or an alias of ~/.ssh/config".into()
            }
            Self::Config { key, .. } => {
                format!("take {key} away for this host in the SSH configuration, or give gpferry a file of its own")
            }
            Self::ConfigUnreadable { host, .. } => format!("run `ssh -G {host}` and mend what it complains about"),
            Self::SshMissing { .. } => {
                "install the SSH client (Debian: openssh-client), or write user@host:port and remove the file".into()
            }
            Self::NameNotResolved { name, .. } => format!("check the spelling, and `getent hosts {name}` here"),
            Self::Refused { .. } => "check that sshd runs there, and the port".into(),
            Self::Unreachable { .. } => "check the route and the firewalls between here and there".into(),
            Self::TimedOut { .. } => {
                "check that the host is up and no firewall swallows packets; ConnectTimeout in the SSH configuration \
                 gives it more time"
                    .into()
            }
            Self::Handshake { .. } => {
                "check that it is sshd that listens on that port; its log says why it hung up (MaxStartups)".into()
            }
            Self::NoCommonAlgorithm { .. } => {
                "compare `ssh -v` to it with HostKeyAlgorithms, KexAlgorithms and Ciphers of the SSH configuration; a \
                 very old host may need `HostKeyAlgorithms +ssh-rsa`"
                    .into()
            }
            Self::HostKeyUnknown(problem) => {
                format!("run `gpferry trust {}`, and compare the fingerprint with the host's own", problem.host)
            }
            Self::HostKeyChanged(problem) => format!(
                "ask whoever runs the host whether it was installed anew; only then remove {} \
                 (`ssh-keygen -R '{}'`) and run `gpferry trust {}`",
                problem.place(),
                problem.name,
                problem.host
            ),
            Self::HostKeyRevoked(problem) => {
                format!("the host must get a new key; until then do not connect to `{}`", problem.host)
            }
            Self::AuthenticationFailed { user, .. } => format!(
                "put a public key of this runner into ~{user}/.ssh/authorized_keys there (`ssh-copy-id`), load the \
                 key into the agent, or name it by IdentityFile; the log of sshd says why it refused"
            ),
            Self::KeyFile { path, problem, .. } => match problem {
                KeyProblem::PassphraseNeeded => {
                    format!("load it into an agent (`ssh-add {}`), or run from a terminal", path.display())
                }
                KeyProblem::WrongPassphrase => format!("check it with `ssh-keygen -y -f {}`", path.display()),
                KeyProblem::Unsupported => {
                    format!("check it with `ssh-keygen -l -f {}`, or load it into an agent", path.display())
                }
            },
            Self::ChannelRefused { .. } => {
                "raise MaxSessions in sshd_config there, or lower `sessions` of the source; try again".into()
            }
            Self::Lost { .. } => "run again: what was finished is recognised".into(),
            Self::Here { .. } => "mend that here, and run again".into(),
        }
    }
}

fn listed(tried: &[String]) -> String {
    if tried.is_empty() { "no key, since there was none".into() } else { tried.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_host_key_leads_to_trust_and_a_changed_one_to_a_question() {
        let problem = HostKeyProblem {
            host: "gp4".into(),
            name: "[gp4]:2222".into(),
            port: 2222,
            key_type: "ssh-ed25519".into(),
            fingerprint: "SHA256:x".into(),
            files: vec!["/k".into()],
            recorded: Some(("/k".into(), 3)),
            other_types: vec!["ssh-rsa".into()],
        };
        let unknown = RemoteError::HostKeyUnknown(Box::new(problem.clone()));
        assert!(unknown.remedy().contains("gpferry trust gp4"), "{}", unknown.remedy());
        assert!(unknown.to_string().contains("SHA256:x (recorded are keys of type ssh-rsa)"), "{unknown}");
        let changed = RemoteError::HostKeyChanged(Box::new(problem));
        assert!(changed.to_string().contains("/k:3"), "{changed}");
        assert!(changed.remedy().contains("ssh-keygen -R '[gp4]:2222'"), "{}", changed.remedy());
    }

    #[test]
    fn an_error_is_small_enough_to_return() {
        let size = size_of::<RemoteError>();
        assert!(size <= 128, "{size}");
    }
}
