//! Secrets do not belong in an inventory, and none of them is ever shown.
//!
//! A secret is found by the key it stands under or by the form of a URL. Every written value that a message
//! repeats goes through [`Secrets::echo`], which shows nothing that looks like one or repeats one.

use std::collections::HashSet;

use percent_encoding::percent_decode_str;

use super::yaml::{Node, Value};

/// What to use instead of a password of the target.
pub(super) const TARGET_REMEDY: &str = "remove it; for the target set PGPASSWORD, or name a file in PGPASSFILE, \
     or keep it in ~/.pgpass (mode 0600)";
/// What to use instead of a password, wherever it stands.
pub(super) const REMEDY: &str = "remove it; for the target set PGPASSWORD, or name a file in PGPASSFILE, or keep \
     it in ~/.pgpass (mode 0600); for a source keep it in ~/.pgpass on the source host; for SSH use a key or \
     the agent";

/// Is this a key that a password stands under?
pub(super) fn is_secret_key(key: &str) -> bool {
    let key: String =
        key.to_lowercase().chars().filter(|c| !matches!(c, '_' | '-') && !c.is_whitespace()).collect();
    matches!(key.as_str(), "pass" | "pgpass" | "secret")
        || key.contains("passphrase")
        || key.contains("password")
        || key.contains("passwd")
        || key.ends_with("pwd")
}

/// The password of the first URL in a text, where there is one: after `://`, between the first `:` and the
/// last `@`, also where it holds a `/` that should have been encoded.
pub(super) fn url_password(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let user = match authority.rsplit_once('@') {
        Some((user, _)) => user,
        None => rest.split('?').next()?.rsplit_once('@')?.0,
    };
    user.split_once(':').map(|(_, password)| password)
}

/// The password among the parameters of a URL, where there is one.
pub(super) fn query_password(text: &str) -> Option<&str> {
    let (_, query) = text.split_once('?')?;
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        is_secret_key(&percent_decode_str(key).decode_utf8_lossy()).then_some(value)
    })
}

/// Could this text hold a password by its form: in a URL, as `user:password@…`, as `password=…`?
fn looks_secret(text: &str) -> bool {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    let user_and_password = bare.split_once('@').is_some_and(|(before, _)| before.contains(':'));
    let named = text.split(['=', ':']).rev().skip(1).any(|before| {
        let word =
            before.rsplit(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).find(|w| !w.is_empty());
        word.is_some_and(is_secret_key)
    });
    user_and_password || named || url_password(text).is_some() || query_password(text).is_some()
}

/// May lines of this file be shown, where YAML could not be read and so nobody knows what is a key? Not once
/// a line up to this one could hold a password.
pub(super) fn may_show_lines_until(text: &str, line: usize) -> bool {
    !text.lines().take(line).any(|line| {
        let code = match line.split_once('#') {
            Some((code, _)) if !code.contains(['"', '\'']) && (code.is_empty() || code.ends_with(' ')) => {
                code
            }
            _ => line,
        };
        looks_secret(code)
    })
}

/// The secrets of one inventory, known only so that they are not shown.
#[derive(Default)]
pub(super) struct Secrets {
    known: Vec<String>,
    /// Values of catalogs: not secret, and nobody's business in a message.
    unshown: HashSet<String>,
}

impl Secrets {
    /// None yet, and these values that no message shows either.
    pub(super) fn beside(unshown: HashSet<String>) -> Self {
        Self { known: Vec::new(), unshown }
    }

    /// Remembers every scalar below this node.
    pub(super) fn remember(&mut self, node: &Node) {
        match &node.value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(text) | Value::Text(text) => self.remember_text(text),
            Value::List(items) => items.iter().for_each(|item| self.remember(item)),
            Value::Map(entries) => {
                for (key, value) in entries {
                    self.remember_text(&key.text);
                    self.remember(value);
                }
            }
        }
    }

    /// Remembers the passwords of a URL.
    pub(super) fn remember_url(&mut self, text: &str) {
        for password in [url_password(text), query_password(text)].into_iter().flatten() {
            self.remember_text(password);
            self.remember_text(&percent_decode_str(password).decode_utf8_lossy());
        }
    }

    fn remember_text(&mut self, text: &str) {
        let text = text.trim();
        if !text.is_empty() {
            self.known.push(text.to_owned());
        }
    }

    /// Must this text not be shown?
    pub(super) fn hides(&self, text: &str) -> bool {
        looks_secret(text)
            || self.unshown.contains(text)
            || self.known.iter().any(|secret| text.contains(secret.as_str()))
    }

    /// A written value for a message: in backquotes, on one line, cut at 60 characters; or a word that says
    /// that it is not shown.
    pub(super) fn echo(&self, text: &str) -> String {
        if self.unshown.contains(text) {
            return "this value".into();
        }
        if self.hides(text) {
            return "what stands here (not shown: it looks like a password)".into();
        }
        let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
        if text.chars().count() > 60 {
            shown.push('…');
        }
        format!("`{}`", shown.replace("\\\"", "\"").replace("\\'", "'"))
    }

    /// A message of another module that repeats `text`, or words without it.
    pub(super) fn told(&self, text: &str, message: String) -> String {
        if self.hides(text) || text.chars().count() > 120 || text.chars().any(char::is_control) {
            format!("{} cannot be used here", self.echo(text))
        } else {
            message
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_known_by_their_key() {
        for key in ["password", "PGPASSWORD", "passwd", "pwd", "db_password", "ssh-passphrase", "Pass Word"] {
            assert!(is_secret_key(key), "{key}");
        }
        for key in ["passfile", "bypass_f", "pass_rate", "pwd_changes", "secretary", "host"] {
            assert!(!is_secret_key(key), "{key}");
        }
    }

    #[test]
    fn passwords_are_found_in_urls() {
        assert_eq!(url_password("postgresql://u:p@h:5432/d"), Some("p"));
        assert_eq!(url_password("postgresql://u:p/w@h:5432/d"), Some("p/w"));
        assert_eq!(url_password("postgresql://u:p@w@h/d"), Some("p@w"));
        assert_eq!(url_password("postgresql://u@h:5432/d?user=a@b"), None);
        assert_eq!(url_password("postgresql://h:5432/d"), None);
        assert_eq!(query_password("postgresql://h/d?sslmode=require&p%61ssword=x"), Some("x"));
        assert_eq!(query_password("postgresql://h/d?passfile=/x"), None);
    }

    #[test]
    fn what_looks_like_a_password_is_not_shown() {
        let mut secrets = Secrets::default();
        secrets.remember_text("hunter2");
        for text in ["xhunter2y", "u:p@h", "password=x", "host=a Password = x", "pwd:x", "p://u:p@h"] {
            assert!(!secrets.echo(text).contains(text), "{text}");
        }
        for text in ["4h", "sor.wpp_f", "user@host:22", "2021-08-10 00:00:00", "postgresql://u@h:1/d"] {
            assert_eq!(secrets.echo(text), format!("`{text}`"));
        }
    }
}
