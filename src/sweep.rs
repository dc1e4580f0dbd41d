//! Removing files from a tree that others write to, and nothing that is elsewhere.
//!
//! Every directory is opened from the one above it without following symlinks, and every file is looked at and
//! removed by its name in the open directory: a symlink that is planted anywhere, at any moment, leads nowhere.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

/// How deep a tree is at most: what lies deeper is nothing of ours.
const DEEPEST: usize = 8;

/// A regular file below the tree's root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leaf {
    /// Its path below the root.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was written last, in seconds since 1970.
    pub modified: i64,
}

/// A directory whose files are looked at and removed.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
}

impl Tree {
    /// Opens `root`, which itself is trusted, and goes down by `names`; `None` where that is no directory, or a
    /// symlink.
    ///
    /// # Errors
    /// The system's, for anything else.
    pub fn open(root: &Path, names: &[&str]) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut directory = match rustix::fs::open(root, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            opened => opened?,
        };
        for name in names {
            match below(&directory, OsStr::new(name))? {
                Some(next) => directory = next,
                None => return Ok(None),
            }
        }
        Ok(Some(Self { root: directory }))
    }

    /// Every regular file, directory by directory. A directory that cannot be read is said and passed over.
    ///
    /// # Errors
    /// Where the root cannot be read, or what `each` says.
    pub fn files<E: From<io::Error>>(&self, each: &mut dyn FnMut(Leaf) -> Result<(), E>) -> Result<(), E> {
        walk(self.root.as_fd(), Path::new(""), 0, each)
    }

    /// Removes a regular file, and then the directories above it that are empty. Is it gone by this? Not where it is
    /// another file by now (`bytes`, `modified`), or none.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, leaf: &Leaf) -> io::Result<bool> {
        let mut directories = vec![self.root.try_clone()?];
        let mut names: Vec<&OsStr> = leaf.path.iter().collect();
        let Some(file) = names.pop() else { return Ok(false) };
        for name in &names {
            match below(directories.last().unwrap_or(&self.root), name)? {
                Some(next) => directories.push(next),
                None => return Ok(false),
            }
        }
        let directory = directories.last().unwrap_or(&self.root);
        match look(directory.as_fd(), file)? {
            Some((bytes, modified)) if (bytes, modified) == (leaf.bytes, leaf.modified) => {}
            Some(_) | None => return Ok(false),
        }
        rustix::fs::unlinkat(directory, file, AtFlags::empty())?;
        while let Some(name) = names.pop() {
            directories.pop();
            let parent = directories.last().unwrap_or(&self.root);
            // Not empty, most of the time.
            if rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).is_err() {
                break;
            }
        }
        Ok(true)
    }
}

/// A directory of this name, where it is one: no symlink.
fn below(directory: &OwnedFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    use rustix::io::Errno;
    if name == ".." || name == "." || name.as_bytes().contains(&b'/') {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(next) => Ok(Some(next)),
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::STALE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Size and time of a regular file of this name.
fn look(directory: rustix::fd::BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<(u64, i64)>> {
    use rustix::io::Errno;
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile => {
            Ok(Some((u64::try_from(found.st_size).unwrap_or(0), found.st_mtime)))
        }
        Ok(_) | Err(Errno::NOENT | Errno::STALE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn walk<E: From<io::Error>>(
    directory: rustix::fd::BorrowedFd<'_>,
    path: &Path,
    depth: usize,
    each: &mut dyn FnMut(Leaf) -> Result<(), E>,
) -> Result<(), E> {
    let mut names: Vec<OsString> = Vec::new();
    for entry in Dir::read_from(directory).map_err(io::Error::from)? {
        let entry = entry.map_err(io::Error::from)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    let owned = directory.try_clone_to_owned().map_err(E::from)?;
    for name in names {
        let below_this = path.join(&name);
        if let Some((bytes, modified)) = look(directory, &name).map_err(E::from)? {
            each(Leaf { path: below_this, bytes, modified })?;
        } else if depth < DEEPEST {
            match below(&owned, &name) {
                Ok(Some(next)) => walk(next.as_fd(), &below_this, depth + 1, each)?,
                Ok(None) => {}
                Err(error) => log::warn!("{}: {error}; what is below it stays", below_this.display()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn files(tree: &Tree) -> Vec<Leaf> {
        let mut found = Vec::new();
        let walked: io::Result<()> = tree.files(&mut |leaf| {
            found.push(leaf);
            Ok(())
        });
        walked.unwrap();
        found
    }

    #[test]
    fn files_go_with_the_directories_that_they_leave_empty() {
        let keep = tempfile::tempdir().unwrap();
        fs::create_dir_all(keep.path().join("s/d/t")).unwrap();
        fs::create_dir_all(keep.path().join("s/e")).unwrap();
        fs::write(keep.path().join("s/d/t/a"), "12345").unwrap();
        fs::write(keep.path().join("s/e/b"), "1").unwrap();
        fs::write(keep.path().join("s/e/c"), "1").unwrap();
        let tree = Tree::open(keep.path(), &["s"]).unwrap().unwrap();
        let found = files(&tree);
        assert_eq!(
            found.iter().map(|leaf| leaf.path.to_str().unwrap()).collect::<Vec<_>>(),
            ["d/t/a", "e/b", "e/c"]
        );
        assert_eq!(found[0].bytes, 5);
        assert!(tree.remove(&found[0]).unwrap() && tree.remove(&found[1]).unwrap());
        assert!(!tree.remove(&found[0]).unwrap(), "it is gone");
        assert!(keep.path().join("s").exists() && !keep.path().join("s/d").exists());
        assert!(keep.path().join("s/e/c").exists());
    }

    #[test]
    fn a_symlink_at_a_file_or_a_directory_leads_nowhere() {
        let keep = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("a"), "12345").unwrap();
        fs::create_dir_all(keep.path().join("s/d")).unwrap();
        symlink(outside.path().join("a"), keep.path().join("s/d/a")).unwrap();
        symlink(outside.path(), keep.path().join("s/e")).unwrap();
        symlink(outside.path(), keep.path().join("l")).unwrap();
        assert!(Tree::open(keep.path(), &["l"]).unwrap().is_none());
        let tree = Tree::open(keep.path(), &["s"]).unwrap().unwrap();
        assert_eq!(files(&tree), []);
        // One that is planted after the look.
        let seen = fs::metadata(outside.path().join("a")).unwrap();
        let modified = std::os::unix::fs::MetadataExt::mtime(&seen);
        for path in ["d/a", "e/a", "../s/e/a"] {
            assert!(!tree.remove(&Leaf { path: path.into(), bytes: 5, modified }).unwrap(), "{path}");
        }
        assert!(outside.path().join("a").exists());
    }

    #[test]
    fn a_file_that_was_written_anew_stays() {
        let keep = tempfile::tempdir().unwrap();
        fs::write(keep.path().join("a"), "1").unwrap();
        let tree = Tree::open(keep.path(), &[]).unwrap().unwrap();
        let seen = files(&tree).remove(0);
        fs::write(keep.path().join("a"), "12").unwrap();
        assert!(!tree.remove(&seen).unwrap());
        assert!(keep.path().join("a").exists());
    }
}
