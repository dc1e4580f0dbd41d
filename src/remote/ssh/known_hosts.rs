//! Reading known_hosts files: is this the key that this host shall have?
//!
//! The format is that of sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT". A line that cannot be read is skipped with a
//! warning; it does not cost the rest of the file. `@cert-authority` is ignored and said, since libssh2 checks
//! no host certificates.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openssl::base64::decode_block;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;

use super::keys::PublicKey;

/// What known_hosts files say, in their order.
#[derive(Debug, Default)]
pub struct KnownHosts {
    entries: Vec<Entry>,
}

/// A line that says something about some hosts.
#[derive(Debug)]
struct Entry {
    file: Arc<Path>,
    line: usize,
    marker: Marker,
    hosts: Hosts,
    key: PublicKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    Revoked,
    CertAuthority,
}

#[derive(Debug)]
enum Hosts {
    /// `|1|salt|hash`
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
    /// Patterns; true where a `!` stood before.
    Patterns(Vec<(bool, String)>),
}

/// What is recorded about one key of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This very key.
    Known,
    /// Nothing about a key of this type.
    Unknown {
        /// The types of which keys are recorded.
        other_types: Vec<String>,
    },
    /// Another key of this type.
    Changed {
        /// Where it stands.
        file: PathBuf,
        /// In which line, from 1.
        line: usize,
    },
    /// This key shall never be accepted.
    Revoked {
        /// Where that stands.
        file: PathBuf,
        /// In which line, from 1.
        line: usize,
    },
}

/// Under which names a host is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupName {
    /// `name`, `[name]:port`, or a HostKeyAlias.
    pub exact: String,
    /// The name without its port, under which a key is accepted too, as ssh does.
    pub without_port: Option<String>,
}

impl LookupName {
    /// The name of a host at a port. An alias (HostKeyAlias) stands for itself.
    pub fn new(name: &str, port: u16, alias: Option<&str>) -> Self {
        match alias {
            Some(alias) => Self { exact: alias.to_lowercase(), without_port: None },
            None if port == 22 => Self { exact: name.to_lowercase(), without_port: None },
            None => Self {
                exact: format!("[{}]:{port}", name.to_lowercase()),
                without_port: Some(name.to_lowercase()),
            },
        }
    }
}

impl KnownHosts {
    /// Reads files; one that is not there is empty.
    ///
    /// # Errors
    /// The file that could not be read, and why.
    pub fn read(files: &[PathBuf]) -> Result<Self, (PathBuf, io::Error)> {
        let mut known = Self::default();
        for file in files {
            match fs::read(file) {
                Ok(bytes) => known.add(file, &String::from_utf8_lossy(&bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err((file.clone(), error)),
            }
        }
        Ok(known)
    }

    fn add(&mut self, file: &Path, text: &str) {
        let file: Arc<Path> = file.into();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match parse(line) {
                Some((marker, hosts, key)) => {
                    self.entries.push(Entry { file: Arc::clone(&file), line: at + 1, marker, hosts, key });
                }
                None => log::warn!("{}:{}: not a line of known_hosts; skipped", file.display(), at + 1),
            }
        }
    }

    /// The types of the keys that are recorded for a host, in the order of the files.
    pub fn types(&self, name: &LookupName) -> Vec<String> {
        let mut types: Vec<String> = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.marker == Marker::None && entry.is_for(name)) {
            if !types.iter().any(|kind| kind == entry.key.kind()) {
                types.push(entry.key.kind().into());
            }
        }
        types
    }

    /// What is recorded about a key, given in the wire format.
    pub fn verdict(&self, name: &LookupName, key: &[u8]) -> Verdict {
        let Some(key) = PublicKey::from_blob(key) else {
            return Verdict::Unknown { other_types: self.types(name) };
        };
        let all = || self.entries.iter().filter(|entry| entry.is_for(name));
        let place = |entry: &Entry| (entry.file.to_path_buf(), entry.line);
        if let Some(entry) = all().find(|entry| entry.marker == Marker::Revoked && entry.key == key) {
            let (file, line) = place(entry);
            return Verdict::Revoked { file, line };
        }
        if all().any(|entry| entry.marker == Marker::None && entry.key == key) {
            return Verdict::Known;
        }
        let same_type = |entry: &&Entry| {
            entry.marker == Marker::None && entry.hosts.matches(&name.exact) && entry.key.kind() == key.kind()
        };
        if let Some(entry) = all().find(same_type) {
            let (file, line) = place(entry);
            return Verdict::Changed { file, line };
        }
        for entry in all().filter(|entry| entry.marker == Marker::CertAuthority) {
            log::warn!(
                "{}:{}: @cert-authority is ignored, since libssh2 checks no host certificates",
                entry.file.display(),
                entry.line
            );
        }
        Verdict::Unknown { other_types: self.types(name) }
    }
}

impl Entry {
    fn is_for(&self, name: &LookupName) -> bool {
        self.hosts.matches(&name.exact)
            || name.without_port.as_deref().is_some_and(|name| self.hosts.matches(name))
    }
}

impl Hosts {
    fn parse(field: &str) -> Option<Self> {
        if let Some(hashed) = field.strip_prefix("|1|") {
            let (salt, hash) = hashed.split_once('|')?;
            return Some(Self::Hashed { salt: decode_block(salt).ok()?, hash: decode_block(hash).ok()? });
        }
        let pattern = |text: &str| match text.strip_prefix('!') {
            Some(text) => (true, text.to_lowercase()),
            None => (false, text.to_lowercase()),
        };
        (!field.starts_with('|')).then(|| Self::Patterns(field.split(',').map(pattern).collect()))
    }

    /// Does a name in lower case belong to these hosts? One `!` pattern that matches is enough for no.
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Hashed { salt, hash } => hmac_sha1(salt, name).is_some_and(|is| is == *hash),
            Self::Patterns(patterns) => {
                let mut found = false;
                for (negated, pattern) in patterns {
                    if glob(pattern.as_bytes(), name.as_bytes()) {
                        if *negated {
                            return false;
                        }
                        found = true;
                    }
                }
                found
            }
        }
    }
}

/// `[@marker] hosts type base64 [comment]`
fn parse(line: &str) -> Option<(Marker, Hosts, PublicKey)> {
    let mut words = line.split_whitespace();
    let mut hosts = words.next()?;
    let marker = match hosts {
        "@revoked" => Marker::Revoked,
        "@cert-authority" => Marker::CertAuthority,
        word if word.starts_with('@') => return None,
        _ => Marker::None,
    };
    if marker != Marker::None {
        hosts = words.next()?;
    }
    Some((marker, Hosts::parse(hosts)?, PublicKey::from_words(words.next()?, words.next()?)?))
}

/// `*` stands for any text, `?` for one character; everything else, brackets included, for itself.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

fn hmac_sha1(salt: &[u8], name: &str) -> Option<Vec<u8>> {
    let key = PKey::hmac(salt).ok()?;
    let mut signer = Signer::new(MessageDigest::sha1(), &key).ok()?;
    signer.sign_oneshot_to_vec(name.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use openssl::base64::encode_block;
    use proptest::prelude::*;

    use super::*;

    /// A key that is well-formed as far as we look.
    fn key(kind: &str, body: &[u8]) -> Vec<u8> {
        let mut blob = u32::try_from(kind.len()).unwrap().to_be_bytes().to_vec();
        blob.extend(kind.bytes());
        blob.extend(body);
        blob
    }

    fn line(hosts: &str, key: &[u8]) -> String {
        let kind = PublicKey::from_blob(key).unwrap().kind().to_owned();
        format!("{hosts} {kind} {} a comment\n", encode_block(key))
    }

    fn known(text: &str) -> KnownHosts {
        let mut known = KnownHosts::default();
        known.add(Path::new("/k"), text);
        known
    }

    fn verdict(text: &str, host: &str, port: u16, key: &[u8]) -> Verdict {
        known(text).verdict(&LookupName::new(host, port, None), key)
    }

    const UNKNOWN: Verdict = Verdict::Unknown { other_types: Vec::new() };

    #[test]
    fn lists_wildcards_and_negations_are_read_as_ssh_reads_them() {
        let a = key("ssh-ed25519", b"a");
        let text = line("gp4,gp5,10.0.*,!10.0.0.9,db?.fab", &a);
        for (host, verdict_of) in [
            ("gp4", Verdict::Known),
            ("GP5", Verdict::Known),
            ("10.0.0.8", Verdict::Known),
            ("10.0.0.9", UNKNOWN),
            ("db1.fab", Verdict::Known),
            ("db12.fab", UNKNOWN),
            ("gp6", UNKNOWN),
        ] {
            assert_eq!(verdict(&text, host, 22, &a), verdict_of, "{host}");
        }
    }

    #[test]
    fn another_key_of_the_same_type_is_changed_and_of_another_type_unknown() {
        let (a, b, rsa) = (key("ssh-ed25519", b"a"), key("ssh-ed25519", b"b"), key("ssh-rsa", b"a"));
        let text = format!("# comment\n\n{}", line("gp4", &a));
        assert_eq!(verdict(&text, "gp4", 22, &b), Verdict::Changed { file: "/k".into(), line: 3 });
        assert_eq!(
            verdict(&text, "gp4", 22, &rsa),
            Verdict::Unknown { other_types: vec!["ssh-ed25519".into()] }
        );
        assert_eq!(verdict(&(text + &line("gp4", &b)), "gp4", 22, &b), Verdict::Known);
    }

    #[test]
    fn a_revoked_key_stays_revoked_even_where_it_is_recorded() {
        let a = key("ssh-ed25519", b"a");
        let text = format!("{}@revoked {}", line("gp4", &a), line("*", &a));
        assert_eq!(verdict(&text, "gp4", 22, &a), Verdict::Revoked { file: "/k".into(), line: 2 });
        assert_eq!(verdict(&text, "gp4", 2222, &a), Verdict::Revoked { file: "/k".into(), line: 2 });
    }

    #[test]
    fn a_certificate_authority_is_no_host_key() {
        let a = key("ssh-ed25519", b"a");
        assert_eq!(verdict(&format!("@cert-authority {}", line("*", &a)), "gp4", 22, &a), UNKNOWN);
    }

    #[test]
    fn a_port_that_is_not_22_belongs_to_the_name() {
        let (a, b) = (key("ssh-ed25519", b"a"), key("ssh-ed25519", b"b"));
        let text = line("[gp4]:2222", &a);
        assert_eq!(verdict(&text, "gp4", 2222, &a), Verdict::Known);
        assert_eq!(verdict(&text, "gp4", 22, &a), UNKNOWN);
        // As with ssh: the key under the bare name is accepted at any port, but says nothing against another.
        assert_eq!(verdict(&line("gp4", &a), "gp4", 2222, &a), Verdict::Known);
        assert!(matches!(verdict(&line("gp4", &a), "gp4", 2222, &b), Verdict::Unknown { .. }));
    }

    #[test]
    fn one_bad_line_does_not_cost_the_rest_of_the_file() {
        let a = key("ssh-ed25519", b"a");
        let bad =
            "gp4 ssh-ed25519\n|1|x gp4\n@what gp4 x y\ngp4 ssh-rsa AAAAC3NzaC1lZDI1NTE5\n1024 35 12345\n";
        assert_eq!(verdict(&format!("{bad}{}", line("gp4", &a)), "gp4", 22, &a), Verdict::Known);
    }

    #[test]
    fn hashed_names_that_ssh_keygen_made_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("known_hosts");
        let host_key = directory.path().join("key");
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&host_key);
        assert!(keygen.status().unwrap().success());
        let public = fs::read_to_string(host_key.with_extension("pub")).unwrap();
        fs::write(&file, format!("gp4 {public}[gp5]:2222 {public}")).unwrap();
        let hashed = Command::new("ssh-keygen").arg("-H").arg("-f").arg(&file).output().unwrap();
        assert!(hashed.status.success());
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("gp4") && text.starts_with("|1|"), "{text}");
        let words: Vec<&str> = public.split_whitespace().collect();
        let blob = decode_block(words[1]).unwrap();
        let known = KnownHosts::read(&[directory.path().join("absent"), file]).unwrap();
        assert_eq!(known.verdict(&LookupName::new("gp4", 22, None), &blob), Verdict::Known);
        assert_eq!(known.verdict(&LookupName::new("gp5", 2222, None), &blob), Verdict::Known);
        assert_eq!(known.verdict(&LookupName::new("gp5", 22, None), &blob), UNKNOWN);
        assert_eq!(known.types(&LookupName::new("gp5", 2222, None)), ["ssh-ed25519"]);
    }

    proptest! {
        #[test]
        fn globs_match_as_a_plain_recursion_does(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            fn plain(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern.split_first(), text.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) => {
                        plain(rest, text) || (!text.is_empty() && plain(pattern, &text[1..]))
                    }
                    (Some((p, rest)), Some((t, tail))) => (*p == b'?' || p == t) && plain(rest, tail),
                    (None, Some(_)) | (Some(_), None) => false,
                }
            }
            prop_assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), plain(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,200}", hosts in "[ -~]{0,40}") {
            let a = key("ssh-ed25519", b"a");
            let text = format!("{text}\n{hosts} {}", line("", &a));
            let _ = verdict(&text, "gp4", 22, &a);
        }
    }
}
