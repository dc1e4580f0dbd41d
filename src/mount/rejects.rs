//! `file2GP/rejects/<source>/<unit id>.csv.gz`: rows that were kept out of the target, and why.
//!
//! One line for each: the line of the file where it stood (empty where that is not known), the reason, and the row
//! itself as it stood there. It is written under another name, flushed to disk and renamed before the unit is
//! committed, so that no row is missing here that is missing in the target.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{AtFlags, Mode, OFlags, renameat, unlinkat};
use rustix::io::Errno;

use super::{Mount, MountError, below};
use crate::unit::{UnitKey, encode};

/// Where a unit's rejects stand, below the mount's subdirectory.
pub fn path(key: &UnitKey) -> PathBuf {
    ["rejects".to_owned(), encode(&key.source), format!("{}.csv.gz", key.id)].iter().collect()
}

/// A file of rejects that is being written. Dropped before it was published, it leaves nothing.
#[derive(Debug)]
pub struct RejectFile {
    encoder: GzEncoder<BufWriter<File>>,
    directory: OwnedFd,
    part: String,
    name: String,
    path: PathBuf,
    published: bool,
}

impl Mount {
    /// Begins a unit's file of rejects. No symbolic link is followed.
    ///
    /// # Errors
    /// [`MountError::Unusable`].
    pub fn rejects(&self, key: &UnitKey, run: &str) -> Result<RejectFile, MountError> {
        let path = self.path(&path(key));
        let name = format!("{}.csv.gz", key.id);
        let part = format!(".{name}.{run}.part");
        let source = encode(&key.source);
        let open = || {
            self.make(&File::open(&self.root)?, &self.subdir)?;
            let root = self.subdirectory()?;
            self.make(&root, "rejects")?;
            let all = below::directory(&root, Path::new("rejects"))?;
            self.make(&all, &source)?;
            let directory = below::directory(&all, Path::new(&source))?;
            match unlinkat(&directory, &*part, AtFlags::empty()) {
                Err(error) if error != Errno::NOENT => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
            let (flags, mode) = (OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, Mode::from_raw_mode(0o640));
            let file = below::file(&directory, Path::new(&part), flags, mode)?;
            // The umask may have let the group out.
            rustix::fs::fchmod(&file, mode)?;
            Ok((directory, file))
        };
        let (directory, file) = open().map_err(|error| MountError::Unusable { path: path.clone(), error })?;
        let encoder = GzEncoder::new(BufWriter::new(file), Compression::fast());
        Ok(RejectFile { encoder, directory, part, name, path, published: false })
    }
}

impl Mount {
    /// Takes away what an earlier try of a unit wrote down, now that none of its rows is kept out. Where there is none, or
    /// where it cannot be taken away, nothing happens.
    pub fn forget_rejects(&self, key: &UnitKey) {
        let Ok(root) = self.subdirectory() else { return };
        let path = path(key);
        let directory = path.parent().map(|directory| below::directory(&root, directory));
        if let (Some(Ok(directory)), Some(name)) = (directory, path.file_name()) {
            let _ = unlinkat(&directory, name, AtFlags::empty());
        }
    }
}

impl RejectFile {
    /// Writes a row down. `row` is as it stood in the file, with or without its line end.
    ///
    /// # Errors
    /// [`MountError::Unusable`].
    pub fn add(&mut self, line: Option<u64>, reason: &str, row: &[u8]) -> Result<(), MountError> {
        let row = row.strip_suffix(b"\n").unwrap_or(row);
        let row = row.strip_suffix(b"\r").unwrap_or(row);
        let line = line.map(|line| line.to_string()).unwrap_or_default();
        let head = format!("{line},\"{}\",", reason.replace('"', "\"\""));
        let written =
            [head.as_bytes(), row, b"\n"].into_iter().try_for_each(|part| self.encoder.write_all(part));
        written.map_err(|error| self.unusable(error))
    }

    /// Puts the file where it belongs, in the place of one that an earlier try left.
    ///
    /// # Errors
    /// [`MountError::Unusable`].
    pub fn publish(mut self) -> Result<(), MountError> {
        self.try_publish().map_err(|error| self.unusable(error))?;
        self.published = true;
        Ok(())
    }

    fn try_publish(&mut self) -> io::Result<()> {
        self.encoder.try_finish()?;
        let file = self.encoder.get_mut();
        file.flush()?;
        file.get_ref().sync_all()?;
        renameat(&self.directory, &*self.part, &self.directory, &*self.name)?;
        Ok(rustix::fs::fsync(&self.directory)?)
    }

    fn unusable(&self, error: io::Error) -> MountError {
        MountError::Unusable { path: self.path.clone(), error }
    }
}

impl Drop for RejectFile {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be removed is a `.part`, which nobody takes for a file.
            let _ = unlinkat(&self.directory, &*self.part, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory;
    use std::fs;
    use std::io::Read;

    #[test]
    fn rows_are_kept_as_they_stood_with_line_and_reason() {
        let directory = tempfile::tempdir().unwrap();
        let inventory =
            inventory::Mount { path: directory.path().into(), subdir: "f".into(), ..Default::default() };
        let mount = Mount::open(&inventory).unwrap();
        let key = UnitKey { source: "s".into(), id: "d^a^t^all".into() };
        let mut file = mount.rejects(&key, "r").unwrap();
        file.add(Some(7), "22P02: \"…\"", b"1,\"x\r\ny\"\r\n").unwrap();
        drop(file);
        assert_eq!(fs::read_dir(directory.path().join("f/rejects/s")).unwrap().count(), 0);
        let mut file = mount.rejects(&key, "r").unwrap();
        file.add(Some(7), "22P02: \"…\"", b"1,\"x\r\ny\"\r\n").unwrap();
        file.add(None, "twice", b"2,z").unwrap();
        file.publish().unwrap();
        let published = File::open(mount.path(&path(&key))).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(published).read_to_string(&mut text).unwrap();
        assert_eq!(text, "7,\"22P02: \"\"…\"\"\",1,\"x\r\ny\"\n,\"twice\",2,z\n");
    }
}
