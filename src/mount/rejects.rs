//! `file2GP/rejects/<source>/<unit id>.csv.gz`: rows that were kept out of the target, and why.
//!
//! One line for each: the line of the file where it stood (empty where that is not known), the reason, and the row
//! itself as it stood there. It is written under another name, flushed to disk and renamed before the unit is
//! committed, so that no row is missing here that is missing in the target.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Mount, MountError};
use crate::unit::{UnitKey, encode};

/// Where a unit's rejects stand, below the mount's subdirectory.
pub fn path(key: &UnitKey) -> PathBuf {
    ["rejects".to_owned(), encode(&key.source), format!("{}.csv.gz", key.id)].iter().collect()
}

/// A file of rejects that is being written. Dropped before it was published, it leaves nothing.
#[derive(Debug)]
pub struct RejectFile {
    encoder: GzEncoder<BufWriter<File>>,
    part: PathBuf,
    path: PathBuf,
    published: bool,
}

impl Mount {
    /// Begins a unit's file of rejects.
    ///
    /// # Errors
    /// [`MountError::Unusable`].
    pub fn rejects(&self, key: &UnitKey, run: &str) -> Result<RejectFile, MountError> {
        let path = self.path(&path(key));
        let unusable = |error| MountError::Unusable { path: path.clone(), error };
        let all = self.path(Path::new("rejects"));
        let directory = all.join(encode(&key.source));
        let part = directory.join(format!(".{}.csv.gz.{run}.part", key.id));
        let open = || {
            self.make(&self.path(Path::new("")))?;
            self.make(&all)?;
            self.make(&directory)?;
            match fs::remove_file(&part) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            OpenOptions::new().write(true).create_new(true).mode(0o640).open(&part)
        };
        let file = open().map_err(unusable)?;
        let encoder = GzEncoder::new(BufWriter::new(file), Compression::fast());
        Ok(RejectFile { encoder, part, path, published: false })
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
        fs::rename(&self.part, &self.path)?;
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }

    fn unusable(&self, error: io::Error) -> MountError {
        MountError::Unusable { path: self.path.clone(), error }
    }
}

impl Drop for RejectFile {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be removed is a `.part`, which nobody takes for a file.
            let _ = fs::remove_file(&self.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory;
    use std::io::Read;

    #[test]
    fn rows_are_kept_as_they_stood_with_line_and_reason() {
        let directory = tempfile::tempdir().unwrap();
        let inventory = inventory::Mount { path: directory.path().into(), subdir: "f".into(), owner: None };
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
