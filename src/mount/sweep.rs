//! What dead runs left on the mount: half-written files and staging directories, found by the run in their names.
//!
//! Scripts remove their own when they can. Where a whole host went down, or the mount was read-only by then, nobody
//! was left to do it. Nothing is removed whose name does not hold the id of a run that the caller knows to be dead.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use rustix::fs::{AtFlags, Dir, FileType, unlinkat};

use super::{Mount, below};
use crate::unit::day_path;

/// What came of looking for remains.
#[derive(Debug, Default)]
pub struct Swept {
    /// What was removed, below the mount's subdirectory.
    pub removed: Vec<PathBuf>,
    /// What could not be looked at or removed, and why.
    pub refused: Vec<(PathBuf, io::Error)>,
}

impl Mount {
    /// Removes what these runs left half-written: staging directories right below the subdirectory, and parts in
    /// the directories of these sources and days. No symbolic link is followed.
    pub fn sweep(&self, runs: &[String], days: &BTreeSet<(String, Date)>) -> Swept {
        let mut swept = Swept::default();
        let root = match self.subdirectory() {
            Ok(root) => root,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return swept,
            Err(error) => {
                swept.refused.push((PathBuf::new(), error));
                return swept;
            }
        };
        swept.within(&root, Path::new(""), runs);
        for (source, day) in days {
            let path = day_path(source, *day);
            let Some(day) = swept.note(&path, below::directory(&root, &path)) else { continue };
            let tables = swept.note(&path, names(&day)).unwrap_or_default();
            for (name, kind) in tables {
                let path = path.join(OsStr::from_bytes(&name));
                if kind != FileType::Directory {
                    continue;
                }
                let opened = below::directory(&day, Path::new(OsStr::from_bytes(&name)));
                if let Some(table) = swept.note(&path, opened) {
                    swept.within(&table, &path, runs);
                }
            }
        }
        swept
    }
}

impl Swept {
    /// Removes what is a dead run's in one directory.
    fn within(&mut self, directory: &OwnedFd, path: &Path, runs: &[String]) {
        for (name, kind) in self.note(path, names(directory)).unwrap_or_default() {
            if !runs.iter().any(|run| is_part_of(&name, run)) {
                continue;
            }
            let shown = path.join(OsStr::from_bytes(&name));
            let removed = match kind {
                FileType::Directory => remove_stage(directory, Path::new(OsStr::from_bytes(&name))),
                _ => unlinkat(directory, &*name, AtFlags::empty()).map_err(io::Error::from),
            };
            if self.note(&shown, removed).is_some() {
                self.removed.push(shown);
            }
        }
    }

    /// What is gone by itself is no trouble.
    fn note<T>(&mut self, path: &Path, done: io::Result<T>) -> Option<T> {
        match done {
            Ok(done) => Some(done),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.refused.push((path.to_owned(), error));
                None
            }
        }
    }
}

/// `.….<run>.<attempt>….part`: what scripts write under the `PART` that they were given.
fn is_part_of(name: &[u8], run: &str) -> bool {
    let Some(stem) = name.strip_suffix(b".part").filter(|stem| stem.starts_with(b".")) else { return false };
    let mark = format!(".{run}.");
    let Some(at) = stem.windows(mark.len()).rposition(|some| some == mark.as_bytes()) else { return false };
    let attempt = &stem[at + mark.len()..];
    attempt.first().is_some_and(u8::is_ascii_digit)
        && attempt.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte))
}

/// A staging directory holds directories of plain files, and nothing else.
fn remove_stage(parent: &OwnedFd, name: &Path) -> io::Result<()> {
    let stage = below::directory(parent, name)?;
    for (inner, kind) in names(&stage)? {
        if kind == FileType::Directory {
            let slots = below::directory(&stage, Path::new(OsStr::from_bytes(&inner)))?;
            for (file, _) in names(&slots)? {
                unlinkat(&slots, &*file, AtFlags::empty())?;
            }
            unlinkat(&stage, &*inner, AtFlags::REMOVEDIR)?;
        } else {
            unlinkat(&stage, &*inner, AtFlags::empty())?;
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(io::Error::from)
}

/// The names in a directory, and what they are; links are links.
fn names(directory: impl AsFd) -> io::Result<Vec<(Vec<u8>, FileType)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            // Some file systems do not say.
            FileType::Unknown => FileType::from_raw_mode(
                rustix::fs::statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?.st_mode,
            ),
            known => known,
        };
        found.push((name.to_vec(), kind));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use jiff::civil::date;

    use super::*;
    use crate::inventory;

    const DEAD: &str = "20210810T000000Z-00aa";

    fn world() -> (tempfile::TempDir, Mount, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let written = inventory::Mount {
            path: directory.path().into(),
            subdir: "file2GP".into(),
            ..Default::default()
        };
        let mount = Mount::open(&written).unwrap();
        let table = directory.path().join("file2GP/s/202108/10/t");
        fs::create_dir_all(&table).unwrap();
        (directory, mount, table)
    }

    fn sweep(mount: &Mount) -> Swept {
        mount.sweep(&[DEAD.to_owned()], &BTreeSet::from([("s".to_owned(), date(2021, 8, 10))]))
    }

    #[test]
    fn parts_and_stages_of_dead_runs_go_and_nothing_else_does() {
        let (keep, mount, table) = world();
        let alive = "20210810T000000Z-00bb";
        let stay = [
            table.join("d^s^t^all.csv.gz"),
            table.join(format!(".d^s^t^all.csv.gz.{alive}.1.part")),
            table.join(format!("d^s^t^all.csv.gz.{DEAD}.1.part")),
            table.join(format!(".d^s^t^all.csv.gz.{DEAD}.1.part.mine")),
            table.join(format!(".d^s^t^all.csv.gz.{DEAD}.part")),
        ];
        stay.iter().for_each(|path| fs::write(path, "x").unwrap());
        let part = table.join(format!(".d^s^t^all.csv.gz.{DEAD}.2.part"));
        fs::write(&part, "x").unwrap();
        let stage = keep.path().join(format!("file2GP/.{DEAD}.1.s.99.part"));
        fs::create_dir_all(stage.join("plain")).unwrap();
        fs::create_dir_all(stage.join("gz")).unwrap();
        fs::write(stage.join("plain/a0.csv"), "x").unwrap();
        let swept = sweep(&mount);
        assert!(swept.refused.is_empty(), "{:?}", swept.refused);
        assert_eq!(swept.removed.len(), 2, "{:?}", swept.removed);
        assert!(!part.exists() && !stage.exists());
        assert!(stay.iter().all(|path| path.exists()));
    }

    #[test]
    fn a_planted_link_leads_no_removal_outside() {
        let (keep, mount, table) = world();
        let outside = keep.path().join("outside");
        fs::create_dir_all(outside.join("plain")).unwrap();
        let victims = [outside.join("plain/precious"), outside.join(format!(".x.csv.gz.{DEAD}.1.part"))];
        victims.iter().for_each(|path| fs::write(path, "x").unwrap());
        // A stage, a directory in a stage, a table's directory and a part that are links.
        symlink(&outside, keep.path().join(format!("file2GP/.{DEAD}.1.s.1.part"))).unwrap();
        let stage = keep.path().join(format!("file2GP/.{DEAD}.1.s.2.part"));
        fs::create_dir(&stage).unwrap();
        symlink(outside.join("plain"), stage.join("plain")).unwrap();
        symlink(&outside, table.with_file_name("linked")).unwrap();
        symlink(&victims[0], table.join(format!(".y.csv.gz.{DEAD}.1.part"))).unwrap();
        let swept = sweep(&mount);
        assert!(victims.iter().all(|path| path.exists()), "{swept:?}");
        // The links themselves are remains like others.
        assert!(!stage.exists() && swept.removed.len() == 3, "{swept:?}");
    }

    #[test]
    fn a_day_that_is_a_link_is_refused() {
        let (keep, mount, table) = world();
        let outside = keep.path().join("outside");
        fs::create_dir_all(outside.join("t")).unwrap();
        let victim = outside.join(format!("t/.x.csv.gz.{DEAD}.1.part"));
        fs::write(&victim, "x").unwrap();
        fs::remove_dir_all(table.parent().unwrap()).unwrap();
        symlink(&outside, table.parent().unwrap()).unwrap();
        let swept = sweep(&mount);
        assert!(victim.exists());
        assert_eq!(swept.refused.len(), 1, "{swept:?}");
    }
}
