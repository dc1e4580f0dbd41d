//! What is wrong with an inventory, all of it at once, readable in 80 columns at three in the morning.
//!
//! No text here ever holds a secret: whoever makes a [`Fault`] shows a written value only through
//! [`super::secrets::Secrets::echo`].

use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Where something stands in the file, both counted from 1, columns in characters. Line 0: the file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Place {
    /// The file as a whole.
    pub const FILE: Place = Place { line: 0, column: 0 };
    /// Its first character.
    pub const START: Place = Place { line: 1, column: 1 };
}

/// One thing that is wrong, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where it stands.
    pub place: Place,
    /// Dotted path of the key, `jobs.hms_array.tables[1].window.length`; empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to try.
    pub remedy: String,
    /// The line with a caret under the place, where YAML itself could not be read.
    pub snippet: Option<String>,
}

impl Fault {
    /// A fault at a place.
    pub fn new(
        place: Place,
        key: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { place, key: key.into(), what: what.into(), remedy: remedy.into(), snippet: None }
    }
}

/// An inventory that cannot be used, with everything that is wrong with it, sorted by place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct InventoryError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong. Never empty.
    pub faults: Vec<Fault>,
}

impl InventoryError {
    /// Sorts the faults by place.
    pub(super) fn new(path: &Path, mut faults: Vec<Fault>) -> Self {
        faults.sort_by(|a, b| (a.place, &a.key).cmp(&(b.place, &b.key)));
        Self { path: path.to_owned(), faults }
    }
}

/// One block per fault: `inventory.yml:12:9: jobs.x.from: …`, and what to try on the next line.
impl fmt::Display for InventoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.faults.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            let mut head = self.path.display().to_string();
            if fault.place != Place::FILE {
                head.push_str(&format!(":{}:{}", fault.place.line, fault.place.column));
            }
            head.push_str(": ");
            if !fault.key.is_empty() {
                head.push_str(&fault.key);
                head.push_str(": ");
            }
            write!(f, "{}", wrapped(&head, &fault.what, 4))?;
            if let Some(snippet) = &fault.snippet {
                write!(f, "\n{snippet}")?;
            }
            write!(f, "\n{}", wrapped("    try: ", &fault.remedy, 9))?;
        }
        Ok(())
    }
}

const COLUMNS: usize = 80;

/// `head` and then the words of `text`, later lines indented. A word that is too long for a line stays whole.
fn wrapped(head: &str, text: &str, indent: usize) -> String {
    let mut shown = head.to_owned();
    let mut column = head.chars().count();
    let mut at_start = true;
    for word in words(text) {
        let width = word.chars().count();
        let blank = usize::from(!at_start);
        if column > indent && column + blank + width > COLUMNS {
            shown.truncate(shown.trim_end().len());
            shown.push('\n');
            shown.push_str(&" ".repeat(indent));
            column = indent;
        } else if !at_start {
            shown.push(' ');
            column += 1;
        }
        shown.push_str(&word);
        column += width;
        at_start = false;
    }
    shown
}

/// The words of a text. What stands in backquotes is one word, so that an example is not torn apart.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut open = false;
    for word in text.split_whitespace() {
        match words.last_mut() {
            Some(last) if open && last.chars().count() + word.chars().count() < COLUMNS - 10 => {
                last.push(' ');
                last.push_str(word);
            }
            Some(_) | None => words.push(word.to_owned()),
        }
        open ^= word.matches('`').count() % 2 == 1;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_within_80_columns() {
        let error = InventoryError::new(
            Path::new("inventory.yml"),
            vec![
                Fault::new(
                    Place { line: 12, column: 9 },
                    "jobs.x.from",
                    "word ".repeat(40),
                    "try ".repeat(30),
                ),
                Fault::new(Place::FILE, "", "cannot be read", "look at it"),
            ],
        );
        let shown = error.to_string();
        assert!(shown.lines().all(|line| line.chars().count() <= COLUMNS), "{shown}");
        assert!(shown.starts_with("inventory.yml: cannot be read\n    try: look at it\n"), "{shown}");
    }

    #[test]
    fn an_example_is_not_torn_apart() {
        let shown = wrapped("    try: ", &format!("{}`{{ tables: \"a.*\" }}` for it", "word ".repeat(12)), 9);
        assert!(shown.contains("\n         `{ tables: \"a.*\" }` for it"), "{shown}");
        let never_closed = words(&format!("`{}", "word ".repeat(100)));
        assert!(never_closed.iter().all(|word| word.len() < COLUMNS), "{never_closed:?}");
    }
}
