//! `gpferry trust HOST`: which keys a host has, and recording them once a person has agreed.
//!
//! Asking is a handshake for each type of key, without logging in. Recording never replaces anything: a key that
//! contradicts what is recorded is an error, and the old line is for a person to remove.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::Options;
use super::config::Target;
use super::host::HostText;
use super::keys::PublicKey;
use super::known_hosts::Verdict;
use super::pool::resolve_in_time;
use super::session::{host_key, in_time, known_hosts, problem, shake_hands};
use crate::remote::RemoteError;

/// The keys of one host.
#[derive(Debug)]
pub struct Offer {
    target: Target,
    /// One of each type that the host has.
    pub keys: Vec<OfferedKey>,
}

/// A key that a host showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedKey {
    /// `ssh-ed25519`, `ecdsa-sha2-nistp256`, `ssh-rsa`, …
    pub kind: String,
    /// As it stands in known_hosts.
    pub base64: String,
    /// `SHA256:…`, as `ssh-keygen -l` prints it on the host.
    pub fingerprint: String,
    /// What is recorded about it.
    pub verdict: Verdict,
}

/// What a person is to compare with what the host itself says, type by type.
const TYPES: &[&[&str]] = &[
    &["ssh-ed25519"],
    &["ecdsa-sha2-nistp256"],
    &["ecdsa-sha2-nistp384"],
    &["ecdsa-sha2-nistp521"],
    &["rsa-sha2-512", "rsa-sha2-256"],
];

/// Asks a host for its keys.
///
/// # Errors
/// Why it could not be asked. A host that has none of the types is [`RemoteError::NoCommonAlgorithm`].
pub fn offered_keys(options: &Options, host: &HostText) -> Result<Offer, RemoteError> {
    let target = resolve_in_time(options, host)?;
    let known = known_hosts(&target)?;
    let mut keys = Vec::new();
    for types in TYPES {
        if let Some(key) = offered(options, &target, types)? {
            keys.push(OfferedKey {
                kind: key.kind().into(),
                base64: key.base64(),
                fingerprint: key.fingerprint(),
                verdict: known.verdict(&target.lookup, key.blob()),
            });
        }
    }
    if keys.is_empty() {
        return Err(RemoteError::NoCommonAlgorithm { host: target.host });
    }
    Ok(Offer { target, keys })
}

/// The key of one type, if the host has one.
fn offered(
    options: &Options,
    target: &Target,
    types: &'static [&'static str],
) -> Result<Option<PublicKey>, RemoteError> {
    let (wanted, limits) = (target.clone(), options.clone());
    in_time(target, move |stage| match shake_hands(&wanted, &limits, Some(types), stage) {
        Ok((session, socket)) => {
            let key = host_key(&session, &wanted);
            socket.cut();
            key.map(Some)
        }
        Err(RemoteError::NoCommonAlgorithm { .. }) => Ok(None),
        Err(error) => Err(error),
    })
}

impl Offer {
    /// The host as it was written.
    pub fn host(&self) -> &str {
        &self.target.host
    }

    /// The name under which keys are recorded: `name`, or `[name]:port`.
    pub fn name(&self) -> &str {
        &self.target.lookup.exact
    }

    /// The file that [`Offer::record`] appends to: the first UserKnownHostsFile.
    pub fn file(&self) -> Option<&Path> {
        self.target.record_in.as_deref()
    }

    /// Sees that no key is revoked and none contradicts a recorded one.
    ///
    /// # Errors
    /// The first that is or does, with the line that says so.
    pub fn check(&self) -> Result<(), RemoteError> {
        for offered in &self.keys {
            match &offered.verdict {
                Verdict::Known | Verdict::Unknown { .. } => {}
                verdict @ (Verdict::Changed { .. } | Verdict::Revoked { .. }) => {
                    let key = PublicKey::from_words(&offered.kind, &offered.base64);
                    if let Some(error) = key.and_then(|key| problem(&self.target, &key, verdict.clone())) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Appends the keys that are not known yet, and `wanted`, to a known_hosts file, and says which those were.
    ///
    /// # Errors
    /// As [`Offer::check`]; then nothing is written. Otherwise why the file could not be written.
    pub fn record(&self, wanted: impl Fn(&OfferedKey) -> bool) -> Result<Vec<&OfferedKey>, RemoteError> {
        self.check()?;
        let unknown = |key: &&OfferedKey| matches!(key.verdict, Verdict::Unknown { .. });
        let new: Vec<&OfferedKey> = self.keys.iter().filter(unknown).filter(|key| wanted(key)).collect();
        let lines: String =
            new.iter().map(|key| format!("{} {} {}\n", self.name(), key.kind, key.base64)).collect();
        let here = |file: &Path, source| RemoteError::Here {
            host: self.target.host.clone(),
            what: format!("write {}", file.display()),
            source,
        };
        let Some(file) = self.file() else {
            return Err(here(Path::new("known_hosts"), io::Error::other("UserKnownHostsFile names no file")));
        };
        if !lines.is_empty() {
            append(file, &lines).map_err(|source| here(file, source))?;
        }
        Ok(new)
    }
}

/// Appends whole lines in one write, after a last line that lacks its end.
fn append(file: &Path, lines: &str) -> io::Result<()> {
    if let Some(directory) = file.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut open = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(file)?;
    let mut text = String::new();
    if open.seek(SeekFrom::End(0))? > 0 {
        let mut last = [0];
        open.seek(SeekFrom::End(-1))?;
        open.read_exact(&mut last)?;
        if last != *b"\n" {
            text.push('\n');
        }
    }
    text.push_str(lines);
    open.write_all(text.as_bytes())?;
    open.sync_all()
}
