//! The password in the option file that MySQL's own programs read. Source: MySQL, "Using Option Files".

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What an option file said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    Found(String),
    /// No such line, or no such file.
    NotFound,
    /// Others can read the file, so it is not used.
    TooOpen,
}

/// The groups that a client reads.
const GROUPS: [&str; 3] = ["client", "client-server", "client-mariadb"];

/// Nobody's option file is longer.
const MOST_BYTES: u64 = 1 << 20;

/// Looks the password up. `!include` is not followed.
pub(super) fn password(path: &Path) -> io::Result<Lookup> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lookup::NotFound),
        Err(error) => return Err(error),
    };
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Ok(Lookup::NotFound);
    }
    let mut text = String::new();
    file.take(MOST_BYTES).read_to_string(&mut text)?;
    Ok(match password_of(&text) {
        None => Lookup::NotFound,
        Some(_) if metadata.mode() & 0o077 != 0 => Lookup::TooOpen,
        Some(password) => Lookup::Found(password),
    })
}

/// The last one wins, as there.
fn password_of(text: &str) -> Option<String> {
    let mut ours = false;
    let mut found = None;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';', '!']) {
            continue;
        }
        if let Some(group) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            ours = GROUPS.contains(&group.trim());
        } else if let Some((key, value)) = line.split_once('=')
            && ours
            && matches!(key.trim(), "password" | "loose-password")
        {
            found = Some(value_of(value.trim()));
        }
    }
    found
}

/// Without the quotes around it, or without the comment behind it; escapes resolved.
fn value_of(text: &str) -> String {
    let quoted = ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote));
    let text = quoted.unwrap_or_else(|| text.split(" #").next().unwrap_or(text).trim_end());
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some(escaped)) => {
                chars.next();
                match escaped {
                    'b' => value.push('\u{8}'),
                    't' => value.push('\t'),
                    'n' => value.push('\n'),
                    'r' => value.push('\r'),
                    's' => value.push(' '),
                    '\\' | '"' | '\'' => value.push(escaped),
                    other => value.extend(['\\', other]),
                }
            }
            (c, _) => value.push(c),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_client_s_password_is_read_as_its_programs_do() {
        for (text, expected) in [
            ("[client]\npassword = geheim\n", Some("geheim")),
            ("[mysqld]\npassword=no\n[client]\nuser=x\npassword=\"a # b\\s\\\\\"\n", Some("a # b \\")),
            ("[client]\npassword=a#b # why\n", Some("a#b")),
            ("[client-mariadb]\n#password=no\npassword=one\npassword=two\n", Some("two")),
            ("password=no\n[mysql]\npassword=no\n", None),
            ("[client]\npassword\n", None),
        ] {
            assert_eq!(password_of(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_not_used() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "[client]\npassword=x\n").unwrap();
        for (mode, expected) in [(0o600, Lookup::Found("x".into())), (0o640, Lookup::TooOpen)] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(password(file.path()).unwrap(), expected);
        }
        assert_eq!(password(Path::new("/nonexistent/.my.cnf")).unwrap(), Lookup::NotFound);
    }
}
