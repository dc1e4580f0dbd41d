//! What a host text means: the SSH configuration, as `ssh` itself resolves it.
//!
//! `ssh -G` knows Include, Match and patterns exactly. Its answer is compared with what it says without any
//! configuration: whatever differs must be a keyword that gpferry honours or one that cannot matter to it.
//! Anything else is an error that names it, since a jump host that is left out is a connection to somewhere else.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Options;
use super::algorithms::Algorithms;
use super::host::HostText;
use super::keywords::{HARMLESS, HONOURED, advice, keyword};
use super::known_hosts::LookupName;
use super::tokens::Tokens;
use crate::remote::RemoteError;

/// A host with everything that is needed to reach it.
#[derive(Debug, Clone)]
pub struct Target {
    pub(super) host: String,
    pub(super) hostname: String,
    pub(super) user: String,
    pub(super) port: u16,
    pub(super) lookup: LookupName,
    pub(super) identities: Vec<IdentityFile>,
    pub(super) identities_only: bool,
    pub(super) agent: Option<PathBuf>,
    pub(super) known_hosts: Vec<PathBuf>,
    pub(super) record_in: Option<PathBuf>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) family: Family,
    pub(super) algorithms: Algorithms,
    pub(super) required_rsa_bits: usize,
}

/// A private key (or the `.pub` of one that the agent holds).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IdentityFile {
    pub(super) path: PathBuf,
    /// Written by somebody, so its absence is worth a word.
    pub(super) explicit: bool,
}

/// AddressFamily.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

/// Resolves a host text.
///
/// # Errors
/// What the configuration sets and gpferry cannot honour, or why it cannot be read.
pub fn resolve(options: &Options, host: &HostText) -> Result<Target, RemoteError> {
    let Some(dump) = ask_ssh(options, host, options.config.as_deref())? else {
        return without_ssh(options, host);
    };
    let Some(baseline) = ask_ssh(options, host, Some(Path::new("/dev/null")))? else {
        return without_ssh(options, host);
    };
    refuse(host, &dump, &baseline)?;
    warn(host, &dump);
    target(host, &dump, &baseline)
}

/// The output of `ssh -G`: keywords in lower case, with their values in order.
struct Dump(BTreeMap<String, Vec<String>>);

impl Dump {
    fn parse(text: &str) -> Self {
        let mut dump: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in text.lines().filter_map(|line| line.trim().split_once(' ')) {
            dump.entry(key.to_lowercase()).or_default().push(value.trim().into());
        }
        Self(dump)
    }

    fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.all(key).first().map(String::as_str)
    }

    fn is_on(&self, key: &str) -> bool {
        matches!(self.get(key), Some("yes" | "true"))
    }

    /// A value that differs from the one without configuration.
    fn changed(&self, key: &str, baseline: &Self) -> Option<String> {
        self.get(key).filter(|_| self.all(key) != baseline.all(key)).map(Into::into)
    }
}

/// `None` where no `ssh` is installed.
fn ask_ssh(options: &Options, host: &HostText, config: Option<&Path>) -> Result<Option<Dump>, RemoteError> {
    let mut command = Command::new(&options.ssh);
    command.arg("-G").env("LC_ALL", "C").env_remove("PGPASSWORD").stdin(Stdio::null());
    if let Some(config) = config {
        command.arg("-F").arg(config);
    }
    if let Some(user) = host.user() {
        command.arg("-l").arg(user);
    }
    if let Some(port) = host.port() {
        command.arg("-p").arg(port.to_string());
    }
    let unreadable = |reason: String| RemoteError::ConfigUnreadable { host: host.to_string(), reason };
    match command.arg("--").arg(host.name()).output() {
        Ok(output) if output.status.success() => {
            Ok(Some(Dump::parse(&String::from_utf8_lossy(&output.stdout))))
        }
        Ok(output) => Err(unreadable(String::from_utf8_lossy(&output.stderr).trim().into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

/// Refuses what would be silently left out.
fn refuse(host: &HostText, dump: &Dump, baseline: &Dump) -> Result<(), RemoteError> {
    let error = |key: &str, value: &str, reason: &str| {
        Err(RemoteError::Config {
            host: host.to_string(),
            key: keyword(key).into(),
            value: value.into(),
            reason: reason.into(),
        })
    };
    for (key, values) in &dump.0 {
        let known = HONOURED.contains(&key.as_str()) || HARMLESS.contains(&key.as_str());
        if known || baseline.all(key) == values || values.iter().all(|value| value == "none") {
            continue;
        }
        return error(key, &values.join(" "), advice(key));
    }
    let key = "preferredauthentications";
    if let Some(value) = dump.get(key).filter(|value| !value.split(',').any(|word| word == "publickey")) {
        return error(key, value, "gpferry logs in by public key only");
    }
    let key = "pubkeyauthentication";
    if let Some(value @ ("no" | "false")) = dump.get(key) {
        return error(key, value, "gpferry logs in by public key only");
    }
    Ok(())
}

/// Says what is read, but not obeyed.
fn warn(host: &HostText, dump: &Dump) {
    if let Some(value @ ("no" | "off" | "false" | "accept-new")) = dump.get("stricthostkeychecking") {
        log::warn!(
            "`{host}`: StrictHostKeyChecking is {value}; gpferry always checks host keys all the same"
        );
    }
    if dump.is_on("nohostauthenticationforlocalhost") {
        log::warn!("`{host}`: NoHostAuthenticationForLocalhost is on; gpferry checks host keys all the same");
    }
}

fn target(host: &HostText, dump: &Dump, baseline: &Dump) -> Result<Target, RemoteError> {
    let unreadable = |what: &str| RemoteError::ConfigUnreadable {
        host: host.to_string(),
        reason: format!("`ssh -G` said nothing usable about {what}"),
    };
    let hostname = dump.get("hostname").ok_or_else(|| unreadable("hostname"))?;
    let user = dump.get("user").ok_or_else(|| unreadable("user"))?;
    let port = dump.get("port").and_then(|port| port.parse().ok()).ok_or_else(|| unreadable("port"))?;
    let alias = dump.get("hostkeyalias").filter(|alias| *alias != "none");
    let known_hosts = baseline.get("userknownhostsfile").unwrap_or_default();
    let home = known_hosts.split(' ').next().and_then(|file| file.strip_suffix("/.ssh/known_hosts"));
    let tokens = Tokens::new(host, home, hostname, user, port, alias);
    let files = |key: &str| -> Result<Vec<PathBuf>, RemoteError> {
        let words = dump.all(key).iter().flat_map(|value| value.split_whitespace());
        words.filter(|word| *word != "none").map(|word| tokens.path(key, word)).collect()
    };
    let explicit = dump.all("identityfile") != baseline.all("identityfile");
    let identity = |value: &String| Ok(IdentityFile { path: tokens.path("IdentityFile", value)?, explicit });
    let identities = dump.all("identityfile").iter().filter(|value| *value != "none");
    let user_files = files("userknownhostsfile")?;
    Ok(Target {
        host: host.to_string(),
        hostname: hostname.into(),
        user: user.into(),
        port,
        lookup: LookupName::new(hostname, port, alias),
        identities: identities.map(identity).collect::<Result<_, RemoteError>>()?,
        identities_only: dump.is_on("identitiesonly"),
        agent: agent(dump.get("identityagent"), &tokens)?,
        record_in: user_files.first().cloned(),
        known_hosts: user_files.into_iter().chain(files("globalknownhostsfile")?).collect(),
        connect_timeout: seconds(dump.get("connecttimeout")),
        family: match dump.get("addressfamily") {
            Some("inet") => Family::V4,
            Some("inet6") => Family::V6,
            Some(_) | None => Family::Any,
        },
        algorithms: Algorithms {
            host_keys: dump.get("hostkeyalgorithms").map(Algorithms::host_keys_of).unwrap_or_default(),
            kex: dump.changed("kexalgorithms", baseline),
            ciphers: dump.changed("ciphers", baseline),
            macs: dump.changed("macs", baseline),
            signing: dump
                .changed("pubkeyacceptedalgorithms", baseline)
                .or_else(|| dump.changed("pubkeyacceptedkeytypes", baseline)),
        },
        required_rsa_bits: dump.get("requiredrsasize").and_then(|bits| bits.parse().ok()).unwrap_or(0),
    })
}

/// IdentityAgent: `none`, `SSH_AUTH_SOCK`, `$VARIABLE`, a path; without it, the agent of the environment.
fn agent(value: Option<&str>, tokens: &Tokens) -> Result<Option<PathBuf>, RemoteError> {
    let environment = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    match value {
        None | Some("SSH_AUTH_SOCK") => Ok(environment("SSH_AUTH_SOCK")),
        Some("none") => Ok(None),
        Some(value) => match value.strip_prefix('$').filter(|name| !name.starts_with('{')) {
            Some(name) => Ok(environment(name)),
            None => Ok(Some(tokens.path("IdentityAgent", value)?)),
        },
    }
}

/// ConnectTimeout: seconds, or `none`. 0 means none to ssh as well.
fn seconds(value: Option<&str>) -> Option<Duration> {
    value?.parse().ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// The defaults of ssh, where no `ssh` is installed and no configuration could say otherwise.
fn without_ssh(options: &Options, host: &HostText) -> Result<Target, RemoteError> {
    let home = std::env::home_dir().unwrap_or_default();
    let config = options.config.clone().unwrap_or_else(|| home.join(".ssh/config"));
    if options.config.is_some() || config.exists() {
        return Err(RemoteError::SshMissing { host: host.to_string(), config });
    }
    let local_user = || std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok();
    let user = host.user().map(Into::into).or_else(local_user).ok_or_else(|| RemoteError::InvalidHost {
        host: host.to_string(),
        reason: "it names no user, and USER is not set here".into(),
    })?;
    let port = host.port().unwrap_or(22);
    let identities = ["id_rsa", "id_ecdsa", "id_ed25519"]
        .map(|name| IdentityFile { path: home.join(".ssh").join(name), explicit: false });
    let record_in = home.join(".ssh/known_hosts");
    Ok(Target {
        host: host.to_string(),
        hostname: host.name().into(),
        user,
        port,
        lookup: LookupName::new(host.name(), port, None),
        identities: identities.into(),
        identities_only: false,
        agent: std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from),
        known_hosts: vec![record_in.clone(), "/etc/ssh/ssh_known_hosts".into()],
        record_in: Some(record_in),
        connect_timeout: None,
        family: Family::Any,
        algorithms: Algorithms::default(),
        required_rsa_bits: 0,
    })
}
