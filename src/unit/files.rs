//! The names of a unit's files: one of its own id, or one for each part that a segment wrote.

use std::path::{Path, PathBuf};

use super::read_id;

/// What the data's files end with.
pub(super) const ENDING: &str = ".csv.gz";
/// What stands between a unit's id and the number of a part, where a unit has several files.
const PART: &str = "^seg";

/// The name of one of a unit's files, where it has several: `<id>^seg<no>.csv.gz` beside `<id>.csv.gz`, which there is
/// none of then.
pub fn part_path(file: &Path, no: usize) -> PathBuf {
    marked(file, &no.to_string())
}

/// All of a unit's files in one word, where it has several: `<id>^seg*.csv.gz`.
pub fn parts_path(file: &Path) -> PathBuf {
    marked(file, "*")
}

fn marked(file: &Path, which: &str) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(ENDING).unwrap_or(&name);
    file.with_file_name(format!("{stem}{PART}{which}{ENDING}"))
}

/// The file that a unit has where it has one: what [`part_path`] and [`parts_path`] were made of, or else the same.
pub fn whole_path(file: &Path) -> PathBuf {
    let name = file.file_name().and_then(|name| name.to_str());
    let stem = name.and_then(|name| name.strip_suffix(ENDING)).and_then(without_part);
    stem.map_or_else(|| file.to_owned(), |stem| file.with_file_name(format!("{stem}{ENDING}")))
}

/// The id of the unit that a file of this name is, or is a part of; `None` for what gpferry does not call its files.
pub fn id_of_file(name: &str) -> Option<&str> {
    let stem = name.strip_suffix(ENDING).filter(|stem| !stem.starts_with('.'))?;
    let id = without_part(stem).unwrap_or(stem);
    read_id(id).is_some().then_some(id)
}

/// An id, where a part's mark stands behind it.
pub(super) fn without_part(stem: &str) -> Option<&str> {
    let (id, no) = stem.rsplit_once(PART)?;
    (no == "*" || is_number(no)).then_some(id)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
