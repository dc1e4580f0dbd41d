//! A host as somebody wrote it: `user@host:port`, `user@[address]:port`, or an alias.

use std::fmt;
use std::str::FromStr;

use crate::remote::RemoteError;

/// A host text that is safe to hand to `ssh -G` as an argument.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostText {
    text: String,
    user: Option<String>,
    name: String,
    port: Option<u16>,
}

/// What could be taken for shell syntax by a `Match exec` or a `%h` of an SSH configuration; OpenSSH 9.6
/// refuses the same in names from a command line.
const SHELL: &[char] =
    &['\'', '"', '`', '$', '\\', ';', '&', '<', '>', '|', '(', ')', '{', '}', '*', '?', '!', '#'];

impl HostText {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The user, where one was written.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The name, address or alias, without brackets.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port, where one was written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl FromStr for HostText {
    type Err = RemoteError;

    fn from_str(text: &str) -> Result<Self, RemoteError> {
        let invalid =
            |reason: String| RemoteError::InvalidHost { host: text.escape_debug().to_string(), reason };
        if let Some(bad) = text.chars().find(|c| c.is_whitespace() || c.is_control() || SHELL.contains(c)) {
            return Err(invalid(format!("it holds {bad:?}")));
        }
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, text),
        };
        let (name, port) = split_port(rest).map_err(|reason| invalid(reason.into()))?;
        for (part, what) in [(user.unwrap_or("u"), "user"), (name, "host")] {
            if part.is_empty() {
                return Err(invalid(format!("the {what} is empty")));
            }
            if part.starts_with('-') {
                return Err(invalid(format!("the {what} begins with `-`")));
            }
        }
        let port = port.map(|port| match port.parse() {
            Ok(0) | Err(_) => Err(invalid(format!("{port:?} is not a port"))),
            Ok(port) => Ok(port),
        });
        Ok(Self { text: text.into(), user: user.map(Into::into), name: name.into(), port: port.transpose()? })
    }
}

/// `host`, `host:port`, `[address]`, `[address]:port`, or a bare IPv6 address, which has several colons.
fn split_port(rest: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(bracketed) = rest.strip_prefix('[') {
        let (name, after) = bracketed.split_once(']').ok_or("a `[` is never closed")?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((name, Some(port))),
            None if after.is_empty() => Ok((name, None)),
            None => Err("only `:port` may follow a `]`"),
        };
    }
    match rest.split_once(':') {
        Some((_, port)) if port.contains(':') => Ok((rest, None)),
        Some((name, port)) => Ok((name, Some(port))),
        None => Ok((rest, None)),
    }
}

impl fmt::Display for HostText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_user_port_and_brackets() {
        for (text, user, name, port) in [
            ("gp4-etl", None, "gp4-etl", None),
            ("gpadmin@gp4-etl:22", Some("gpadmin"), "gp4-etl", Some(22)),
            ("a@b@host", Some("a@b"), "host", None),
            ("[::1]:2222", None, "::1", Some(2222)),
            ("u@[fe80::1%eth0]", Some("u"), "fe80::1%eth0", None),
            ("::1", None, "::1", None),
        ] {
            let host: HostText = text.parse().unwrap();
            assert_eq!((host.user(), host.name(), host.port()), (user, name, port), "{text}");
        }
    }

    #[test]
    fn what_could_be_an_option_or_shell_syntax_is_refused() {
        for text in [
            "",
            "-oProxyCommand=x",
            "u@-x",
            "-u@h",
            "@h",
            "u@",
            "a b",
            "a\nb",
            "a\tb",
            "a$(x)",
            "a;b",
            "h:0",
            "h:65536",
            "h:x",
            "h:",
            "[::1",
            "[::1]22",
        ] {
            let error = text.parse::<HostText>().unwrap_err();
            assert!(matches!(error, RemoteError::InvalidHost { .. }), "{text:?}: {error}");
        }
    }
}
