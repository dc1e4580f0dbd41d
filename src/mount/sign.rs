//! A sign on the mount: a file with a text that nobody can guess, by which other hosts prove that they see this
//! directory and not another one of that name. It goes with the value; after a crash the next run removes it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, unlinkat};

use super::{Mount, MountError, below};

/// The sign, for as long as this lives.
#[derive(Debug)]
pub struct Sign {
    directory: OwnedFd,
    name: String,
    text: String,
}

impl Mount {
    /// Puts a sign up, for a run. It is no secret: every user may read it.
    ///
    /// # Errors
    /// [`MountError::Unusable`].
    pub fn sign(&self, run: &str) -> Result<Sign, MountError> {
        let mut bytes = [0; 16];
        let random = openssl::rand::rand_bytes(&mut bytes).map_err(io::Error::other);
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // As unfinished files are named: what is left of a dead run is found by its id.
        let name = format!(".see.{run}.1.{}.part", &text[..8]);
        let path = self.path(Path::new(&name));
        let made = || -> io::Result<OwnedFd> {
            random?;
            self.make(&File::open(&self.root)?, &self.subdir)?;
            let directory = self.subdirectory()?;
            let (flags, mode) = (OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, Mode::from_raw_mode(0o644));
            let mut file = below::file(&directory, Path::new(&name), flags, mode)?;
            rustix::fs::fchmod(&file, mode)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            Ok(directory)
        };
        let directory = made().map_err(|error| MountError::Unusable { path, error })?;
        Ok(Sign { directory, name, text })
    }
}

impl Sign {
    /// Its path below the mount's subdirectory; ends in `.part`.
    pub fn file(&self) -> PathBuf {
        PathBuf::from(&self.name)
    }

    /// What stands in it.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Drop for Sign {
    fn drop(&mut self) {
        // What cannot be removed is swept by a later run.
        let _ = unlinkat(&self.directory, &*self.name, AtFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::inventory;

    #[test]
    fn a_sign_says_what_it_says_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let inventory =
            inventory::Mount { path: directory.path().into(), subdir: "f".into(), ..Default::default() };
        let mount = Mount::open(&inventory).unwrap();
        let (one, two) = (mount.sign("r").unwrap(), mount.sign("r").unwrap());
        assert_ne!(one.text(), two.text());
        assert_eq!(fs::read_to_string(mount.path(&one.file())).unwrap(), one.text());
        let left = mount.sign("r").unwrap();
        let path = mount.path(&left.file());
        std::mem::forget(left);
        drop((one, two));
        let swept = mount.sweep(&["r".to_owned()], &Default::default());
        assert_eq!(swept.removed.len(), 1, "{swept:?}");
        assert!(!path.exists() && fs::read_dir(mount.path(Path::new(""))).unwrap().count() == 0);
    }
}
