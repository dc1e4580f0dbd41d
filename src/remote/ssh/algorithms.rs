//! Which algorithms are offered, and in which order.
//!
//! The order of host key algorithms follows what is recorded for the host: one that is known by its RSA key
//! must be asked for that, or its Ed25519 key looks unknown. OpenSSH does the same (`order_hostkeyalgs`).

use ssh2::{MethodType, Session};

use super::config::Target;
use crate::remote::RemoteError;

/// Algorithms as the SSH configuration has them.
#[derive(Debug, Clone, Default)]
pub(super) struct Algorithms {
    /// HostKeyAlgorithms that libssh2 knows; none means [`HOST_KEYS`].
    pub(super) host_keys: Vec<String>,
    /// KexAlgorithms, where they differ from ssh's own.
    pub(super) kex: Option<String>,
    /// Ciphers, where they differ.
    pub(super) ciphers: Option<String>,
    /// MACs, where they differ.
    pub(super) macs: Option<String>,
    /// PubkeyAcceptedAlgorithms, where they differ.
    pub(super) signing: Option<String>,
}

/// What libssh2 can do, best first, without SHA-1. `ssh-rsa` is offered only where the configuration says so.
const HOST_KEYS: &[&str] = &[
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
];

impl Algorithms {
    /// Those of a HostKeyAlgorithms list that libssh2 does.
    pub(super) fn host_keys_of(list: &str) -> Vec<String> {
        list.split(',')
            .filter(|name| HOST_KEYS.contains(name) || *name == "ssh-rsa")
            .map(Into::into)
            .collect()
    }

    /// The host key algorithms, those of the recorded key types first.
    pub(super) fn host_keys_for(&self, recorded: &[String]) -> Vec<String> {
        let mut names: Vec<String> = if self.host_keys.is_empty() {
            HOST_KEYS.iter().map(ToString::to_string).collect()
        } else {
            self.host_keys.clone()
        };
        names.sort_by_key(|name| !recorded.iter().any(|kind| kind == key_type(name)));
        names
    }
}

/// The type of the keys that an algorithm signs with.
pub(super) fn key_type(algorithm: &str) -> &str {
    match algorithm {
        "rsa-sha2-512" | "rsa-sha2-256" => "ssh-rsa",
        name => name,
    }
}

/// Tells a new session what to offer.
pub(super) fn set(session: &Session, target: &Target, host_keys: &[String]) -> Result<(), RemoteError> {
    let all = &target.algorithms;
    let host_keys = host_keys.join(",");
    let both = |name: &'static str, list: &Option<String>, types: [MethodType; 2]| {
        list.clone().map(|list| types.map(|kind| (name, kind, list.clone())))
    };
    let mut wanted = vec![("HostKeyAlgorithms", MethodType::HostKey, host_keys)];
    wanted.extend(all.kex.clone().map(|list| ("KexAlgorithms", MethodType::Kex, list)));
    wanted.extend(
        both("Ciphers", &all.ciphers, [MethodType::CryptCs, MethodType::CryptSc]).into_iter().flatten(),
    );
    wanted.extend(both("MACs", &all.macs, [MethodType::MacCs, MethodType::MacSc]).into_iter().flatten());
    if let Some(list) = &all.signing {
        // Only RSA has a choice; the list is taken as it is, so what is not RSA must not be in it.
        let rsa: Vec<&str> = list.split(',').filter(|name| key_type(name) == "ssh-rsa").collect();
        if !rsa.is_empty() {
            wanted.push(("PubkeyAcceptedAlgorithms", MethodType::SignAlgo, rsa.join(",")));
        }
    }
    for (key, kind, list) in wanted {
        session.method_pref(kind, &list).map_err(|error| RemoteError::Config {
            host: target.host.clone(),
            key: key.into(),
            value: list,
            reason: format!("libssh2 knows none of them ({})", error.message()),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_asked_for_first() {
        let names = Algorithms::default().host_keys_for(&["ssh-rsa".into()]);
        assert_eq!(names[..3], ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"]);
        assert_eq!(names.len(), HOST_KEYS.len());
    }

    #[test]
    fn sha1_is_offered_only_where_the_configuration_says_so() {
        assert!(!Algorithms::default().host_keys_for(&["ssh-rsa".into()]).contains(&"ssh-rsa".to_owned()));
        assert_eq!(Algorithms::host_keys_of("ssh-ed25519-cert-v01@openssh.com,ssh-rsa"), ["ssh-rsa"]);
    }
}
