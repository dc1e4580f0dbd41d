//! A word that the runner leaves on the mount, for others to prove that they see the same directory.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, unlinkat};

use super::{Mount, MountError, below};

/// How the name of each begins and ends.
const BEGIN: &str = ".word.";
const END: &str = ".txt";
/// Nobody proves anything for so long: what is older was left by a run that died.
const OLD: Duration = Duration::from_secs(3600);

/// The word, and its file, which goes with it.
#[derive(Debug)]
pub struct Word {
    directory: OwnedFd,
    name: String,
    text: String,
}

impl Word {
    /// Path below the mount's subdirectory.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(&self.name)
    }

    /// What it says: hexadecimal digits that nobody can guess.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        if let Err(error) = unlinkat(&self.directory, &self.name, AtFlags::empty()) {
            log::debug!("{} is not removed: {error}", self.name);
        }
    }
}

impl Mount {
    /// Leaves a word of a run in the mount's subdirectory, readable for its group; those that dead runs left are removed.
    ///
    /// # Errors
    /// [`MountError::Unusable`] where there is no subdirectory yet, or the runner cannot write there.
    pub fn leave_word(&self, run: &str) -> Result<Word, MountError> {
        let mut bytes = [0; 8];
        let drawn = openssl::rand::rand_bytes(&mut bytes).map_err(io::Error::other);
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("{BEGIN}{run}.{text}{END}");
        let left = || -> io::Result<Word> {
            drawn?;
            let directory = self.subdirectory()?;
            forget_old(&directory);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let mode = Mode::from_raw_mode(0o640);
            let mut file = below::file(&directory, Path::new(&name), flags, mode)?;
            let word = Word { directory, name, text };
            // The umask may have taken the group's right to read.
            rustix::fs::fchmod(&file, mode)?;
            file.write_all(word.text.as_bytes())?;
            // Another host shall see it, and not only this one's cache.
            file.sync_all()?;
            Ok(word)
        };
        left().map_err(|error| MountError::Unusable { path: self.path(Path::new("")), error })
    }
}

fn forget_old(directory: impl AsFd) {
    let Ok(entries) = rustix::fs::Dir::read_from(&directory) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().to_str() else { continue };
        if !(name.starts_with(BEGIN) && name.ends_with(END)) {
            continue;
        }
        let old = below::file(&directory, Path::new(name), OFlags::RDONLY, Mode::empty())
            .and_then(|file| file.metadata()?.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > OLD));
        if old && let Err(error) = unlinkat(&directory, name, AtFlags::empty()) {
            log::debug!("{name} is not removed: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::MetadataExt;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_word_is_there_for_the_group_as_long_as_it_is_held_and_old_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let written = crate::inventory::Mount {
            path: directory.path().into(),
            subdir: "file2GP".into(),
            ..Default::default()
        };
        let mount = Mount::open(&written).unwrap();
        assert!(matches!(mount.leave_word("run0"), Err(MountError::Unusable { .. })));
        fs::create_dir(directory.path().join("file2GP")).unwrap();
        let word = mount.leave_word("run1").unwrap();
        let path = mount.path(&word.path());
        assert_eq!(fs::read_to_string(&path).unwrap(), word.text());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        let [old, recent, other] =
            [".word.a.1.txt", ".word.b.2.txt", "a.jsonl"].map(|name| path.with_file_name(name));
        for (file, age) in [(&old, 2 * OLD), (&recent, OLD / 2), (&other, 2 * OLD)] {
            fs::write(file, "x").unwrap();
            File::options().write(true).open(file).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }
        let second = mount.leave_word("run2").unwrap();
        assert_ne!(second.text(), word.text());
        assert_eq!([&path, &old, &recent, &other].map(|file| file.exists()), [true, false, true, true]);
        drop(word);
        assert!(!path.exists() && mount.path(&second.path()).exists());
    }
}
