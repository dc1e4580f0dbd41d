//! The password file that libpq's users have: `host:port:database:user:password` lines. The `postgres` crate
//! does not read it. Source: PostgreSQL, "The Password File".

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a password file said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// The password of the first line that matches.
    Found(String),
    /// No line matches, or there is no file.
    NotFound,
    /// Others can read the file, so it is not used, as libpq does not.
    TooOpen(PathBuf),
}

/// Whom a password is for; the host is `localhost` for a Unix socket in the default place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// Looks a password up.
pub(super) fn look_up(path: &Path, wanted: Wanted<'_>) -> io::Result<Lookup> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lookup::NotFound),
        Err(error) => return Err(error),
    };
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Ok(Lookup::NotFound);
    }
    if metadata.mode() & 0o077 != 0 {
        return Ok(Lookup::TooOpen(path.to_owned()));
    }
    for line in BufReader::new(file).lines() {
        let line = line?;
        if line.starts_with('#') {
            continue;
        }
        if let Some(password) = password_of(&line, wanted) {
            return Ok(Lookup::Found(password));
        }
    }
    Ok(Lookup::NotFound)
}

fn password_of(line: &str, wanted: Wanted<'_>) -> Option<String> {
    let fields = split(line);
    let [host, port, database, user, password] = fields.as_slice() else { return None };
    let port_text = wanted.port.to_string();
    let pairs = [(host, wanted.host), (port, &port_text), (database, wanted.database), (user, wanted.user)];
    let all = pairs.iter().all(|(field, value)| field.as_str() == "*" || field == value);
    all.then(|| password.clone())
}

/// Fields between colons; a backslash takes the next character as it is. What follows the fourth colon is the
/// password, further colons included.
fn split(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let last = fields.len() == 5;
        match c {
            ':' if !last => fields.push(String::new()),
            '\\' => push(&mut fields, chars.next().unwrap_or('\\')),
            c => push(&mut fields, c),
        }
    }
    fields
}

fn push(fields: &mut [String], c: char) {
    if let Some(field) = fields.last_mut() {
        field.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const WANTED: Wanted<'_> = Wanted { host: "gp6", port: 5432, database: "qms", user: "loader" };

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn the_first_matching_line_wins() {
        let text = "# gp6:5432:qms:loader:no\nother:*:*:*:no\ngp6:5432:*:loader:a\\:b\\\\c:d\n*:*:*:*:late\n";
        let found = look_up(file(text, 0o600).path(), WANTED).unwrap();
        assert_eq!(found, Lookup::Found("a:b\\c:d".into()));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let file = file("*:*:*:*:secret\n", 0o640);
        assert_eq!(look_up(file.path(), WANTED).unwrap(), Lookup::TooOpen(file.path().into()));
    }

    #[test]
    fn no_file_and_no_line_are_no_error() {
        assert_eq!(look_up(Path::new("/nonexistent/pgpass"), WANTED).unwrap(), Lookup::NotFound);
        assert_eq!(look_up(file("x:1:*:*:no\nshort\n", 0o600).path(), WANTED).unwrap(), Lookup::NotFound);
    }
}
