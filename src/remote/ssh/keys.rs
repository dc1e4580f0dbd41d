//! Keys as bytes: their type, fingerprint and size, and what a private key file is without opening it.
//!
//! Formats: RFC 4253 section 6.6 for public keys, OpenSSH's PROTOCOL.key for private ones.

use std::path::Path;
use std::{fs, io};

use openssl::base64::{decode_block, encode_block};
use openssl::hash::{MessageDigest, hash};

/// A public key in the wire format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublicKey {
    kind: String,
    blob: Vec<u8>,
}

impl PublicKey {
    /// Takes a key in the wire format; `None` where its type cannot be read.
    pub(super) fn from_blob(blob: &[u8]) -> Option<Self> {
        let (kind, _) = string(blob)?;
        let kind = std::str::from_utf8(kind).ok().filter(|kind| !kind.is_empty())?;
        Some(Self { kind: kind.into(), blob: blob.into() })
    }

    /// Takes `<type> <base64>`, whose two types must agree.
    pub(super) fn from_words(kind: &str, base64: &str) -> Option<Self> {
        Self::from_blob(&decode_block(base64).ok()?).filter(|key| key.kind == kind)
    }

    /// The wire format.
    pub(super) fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// `ssh-ed25519`, `ssh-rsa`, …
    pub(super) fn kind(&self) -> &str {
        &self.kind
    }

    /// As it stands in known_hosts and authorized_keys.
    pub(super) fn base64(&self) -> String {
        encode_block(&self.blob)
    }

    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub(super) fn fingerprint(&self) -> String {
        match hash(MessageDigest::sha256(), &self.blob) {
            Ok(digest) => format!("SHA256:{}", encode_block(&digest).trim_end_matches('=')),
            Err(error) => format!("(no fingerprint: {error})"),
        }
    }

    /// The size of an RSA key.
    pub(super) fn rsa_bits(&self) -> Option<usize> {
        let (kind, rest) = string(&self.blob)?;
        let (_exponent, rest) = string(rest)?;
        let (modulus, _) = string(rest)?;
        let leading = modulus.iter().position(|b| *b != 0)?;
        let bits = (modulus.len() - leading) * 8 - modulus[leading].leading_zeros() as usize;
        (kind == b"ssh-rsa").then_some(bits)
    }
}

/// What can be known of a private key file without its passphrase.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyFile {
    /// Is it encrypted?
    pub(super) encrypted: bool,
    /// Its public half, from the file or from the `.pub` beside it.
    pub(super) public: Option<PublicKey>,
    /// Is there a private half in it? A `.pub` may be named to pick a key of the agent.
    pub(super) private: bool,
}

impl KeyFile {
    /// Looks at a key file.
    pub(super) fn look_at(path: &Path) -> io::Result<Self> {
        let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
        if let Some(public) = public_line(&text) {
            return Ok(Self { encrypted: false, public: Some(public), private: false });
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".pub");
        let beside = || public_line(&fs::read_to_string(Path::new(&beside)).ok()?);
        if let Some((encrypted, public)) = openssh_header(&text) {
            return Ok(Self { encrypted, public: public.or_else(beside), private: true });
        }
        let encrypted = text.contains("ENCRYPTED");
        Ok(Self { encrypted, public: beside(), private: text.contains("PRIVATE KEY") })
    }
}

/// `ssh-ed25519 AAAA… comment`
fn public_line(text: &str) -> Option<PublicKey> {
    let mut words = text.lines().next()?.split_whitespace();
    PublicKey::from_words(words.next()?, words.next()?)
}

/// Is an OpenSSH private key encrypted, and what is its public half (which never is)?
fn openssh_header(text: &str) -> Option<(bool, Option<PublicKey>)> {
    let body = text.split_once("-----BEGIN OPENSSH PRIVATE KEY-----")?.1.split_once("-----END")?.0;
    let base64: String = body.split_whitespace().collect();
    let bytes = decode_block(&base64).ok()?;
    let rest = bytes.strip_prefix(b"openssh-key-v1\0")?;
    let (cipher, rest) = string(rest)?;
    let (_kdf, rest) = string(rest)?;
    let (_kdf_options, rest) = string(rest)?;
    let public = rest.get(4..).and_then(string).and_then(|(blob, _)| PublicKey::from_blob(blob));
    Some((cipher != b"none", public))
}

/// A string of the wire format and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}
