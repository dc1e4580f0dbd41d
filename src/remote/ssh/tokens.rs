//! Paths in an SSH configuration: `~`, `${NAME}` and the `%` tokens of ssh_config(5).

use std::path::PathBuf;

use super::host::HostText;
use crate::remote::RemoteError;

/// What the tokens of one host stand for.
pub(super) struct Tokens {
    host: String,
    home: Option<String>,
    original: String,
    hostname: String,
    user: String,
    port: u16,
    key_alias: String,
}

impl Tokens {
    /// `home` is what ssh takes for the user's home, which is that of the passwd entry, not of `$HOME`.
    pub(super) fn new(
        host: &HostText,
        home: Option<&str>,
        hostname: &str,
        user: &str,
        port: u16,
        alias: Option<&str>,
    ) -> Self {
        let home = home.filter(|home| !home.starts_with('~')).map(Into::into);
        Self {
            host: host.to_string(),
            home: home.or_else(|| std::env::home_dir()?.to_str().map(Into::into)),
            original: host.name().into(),
            hostname: hostname.into(),
            user: user.into(),
            port,
            key_alias: alias.unwrap_or(hostname).into(),
        }
    }

    /// Expands a path.
    pub(super) fn path(&self, key: &str, value: &str) -> Result<PathBuf, RemoteError> {
        let error = |reason: String| RemoteError::Config {
            host: self.host.clone(),
            key: key.into(),
            value: value.into(),
            reason,
        };
        let home = || self.home.clone().ok_or_else(|| error("no home directory is known here".into()));
        let mut path = match value.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => home()?,
            Some(_) => return Err(error("it does not know the homes of others; write the full path".into())),
            None => String::new(),
        };
        let mut rest = value.strip_prefix('~').unwrap_or(value);
        while let Some(at) = rest.find(['%', '$']) {
            path.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some((name, after)) = rest.strip_prefix("${").and_then(|name| name.split_once('}')) {
                path.push_str(&std::env::var(name).map_err(|_| error(format!("{name} is not set here")))?);
                rest = after;
            } else if rest.starts_with('$') {
                path.push('$');
                rest = &rest[1..];
            } else {
                let token = rest[1..].chars().next();
                let known =
                    token.and_then(|token| if token == 'd' { home().ok() } else { self.token(token) });
                path.push_str(&known.ok_or_else(|| error("it does not know that % token".into()))?);
                rest = &rest[1 + token.map_or(0, char::len_utf8)..];
            }
        }
        path.push_str(rest);
        Ok(path.into())
    }

    fn token(&self, token: char) -> Option<String> {
        let machine = || rustix::system::uname().nodename().to_str().ok().map(String::from);
        match token {
            '%' => Some("%".into()),
            'h' => Some(self.hostname.clone()),
            'n' => Some(self.original.clone()),
            'k' => Some(self.key_alias.clone()),
            'p' => Some(self.port.to_string()),
            'r' => Some(self.user.clone()),
            'i' => Some(rustix::process::getuid().as_raw().to_string()),
            'u' => std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok(),
            'l' => machine(),
            'L' => machine().map(|name| name.split('.').next().unwrap_or_default().into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_expanded_and_what_is_not_known_is_said() {
        let host: HostText = "gp4".parse().unwrap();
        let tokens = Tokens::new(&host, Some("/home/u"), "gp4.fab", "gpadmin", 2222, None);
        for (value, path) in [
            ("~/.ssh/id", "/home/u/.ssh/id"),
            ("%d/.ssh/%r@%h:%p-%n", "/home/u/.ssh/gpadmin@gp4.fab:2222-gp4"),
            ("/a/100%%/$x", "/a/100%/$x"),
            ("/plain", "/plain"),
        ] {
            assert_eq!(tokens.path("IdentityFile", value).unwrap(), PathBuf::from(path), "{value}");
        }
        for value in ["~other/x", "/x/%Z", "/x/%", "/x/${GPFERRY_IS_NOT_SET}"] {
            let error = tokens.path("IdentityFile", value).unwrap_err();
            assert!(error.to_string().contains("IdentityFile"), "{error}");
        }
    }
}
