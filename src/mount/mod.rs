//! The shared directory as the runner sees it: where files stand, whether one is whole, and the manifest.
//!
//! Files are written by the source hosts and published there by a rename. What the runner sees of that may be
//! late: NFS caches attributes, and absence, for up to a minute. So a file that is absent or has the wrong size
//! is looked at again, opened afresh each time, on file systems that cross a network.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, StatFs};
use serde::{Deserialize, Serialize};

use crate::gzip::{CheckedReader, GzipError, Opened, Trailer};
use crate::inventory;
use crate::stop::Stop;
use crate::unit::{part_path, parts_path};

mod below;
mod error;
mod sign;
mod sweep;

pub use error::MountError;
pub use sign::Sign;
pub use sweep::Swept;

/// How long a network file system may show something old. NFS caches attributes for up to 60 s (`acregmax`).
const NETWORK_PATIENCE: Duration = Duration::from_secs(90);

/// The mount, looked at once.
#[derive(Debug, Clone)]
pub struct Mount {
    root: PathBuf,
    subdir: String,
    patience: Duration,
}

/// Names of columns, in order. Tables that are alike share them.
pub type Columns = Arc<[String]>;

/// A published unit: the proof that it was exported, and all that its load has to be held against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Path of its file below the mount's subdirectory. Where it has parts, their names are made of this one, and no
    /// file has it. Shared with the order: there are thousands.
    pub file: Arc<Path>,
    /// Rows that the source reported, in all files together.
    pub rows: u64,
    /// Size and gzip trailer, as the runner saw them right after publication; of parts, [`Trailer::of_parts`].
    pub trailer: Trailer,
    /// Columns of the file, in order.
    pub columns: Columns,
    /// What was left out, since other measures had loaded it ([`crate::unit::Rows::left_out`]).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub left_out: String,
    /// The same of each of its files, where segments wrote one each; empty where it is the one file.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub parts: Box<[Trailer]>,
}

impl Exported {
    /// Its files below the mount's subdirectory, in the order in which they are read.
    pub fn files(&self) -> impl Iterator<Item = (PathBuf, Trailer)> {
        let one = self.parts.is_empty().then(|| (self.file.to_path_buf(), self.trailer));
        let parts = self.parts.iter().enumerate();
        one.into_iter().chain(parts.map(|(no, trailer)| (part_path(&self.file, no), *trailer)))
    }

    /// How its file is called, or all of them in one word.
    pub fn named(&self) -> PathBuf {
        if self.parts.is_empty() { self.file.to_path_buf() } else { parts_path(&self.file) }
    }

    /// How much CSV it holds at least, in bytes: what a trailer says is modulo 4 GiB.
    pub fn data_bytes(&self) -> f64 {
        self.files().map(|(_, trailer)| f64::from(trailer.isize).max(trailer.bytes as f64)).sum()
    }
}

impl Mount {
    /// Looks at the mount.
    ///
    /// # Errors
    /// [`MountError::Unusable`] where it is no directory.
    pub fn open(mount: &inventory::Mount) -> Result<Self, MountError> {
        let unusable = |error| MountError::Unusable { path: mount.path.clone(), error };
        if !fs::metadata(&mount.path).map_err(unusable)?.is_dir() {
            return Err(unusable(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        let facts = rustix::fs::statfs(&mount.path).map_err(|error| unusable(error.into()))?;
        let patience = if is_local(&facts) { Duration::ZERO } else { NETWORK_PATIENCE };
        Ok(Self { root: mount.path.clone(), subdir: mount.subdir.clone(), patience })
    }

    /// Where a path below the subdirectory stands on the runner.
    pub fn path(&self, relative: &Path) -> PathBuf {
        self.root.join(&self.subdir).join(relative)
    }

    /// Where the same file stands on a source host that sees the mount at `root`.
    pub fn path_on(&self, root: &Path, relative: &Path) -> PathBuf {
        root.join(&self.subdir).join(relative)
    }

    /// Until when a file that is published now may look absent or short from here.
    pub fn patience(&self) -> Instant {
        Instant::now() + self.patience
    }

    /// Opens a published file of `bytes` bytes, and reads its trailer. One that is absent or has another size is
    /// looked at again `until` then, or until a stop.
    ///
    /// # Errors
    /// [`MountError`] says what is there instead.
    pub fn open_published(
        &self,
        relative: &Path,
        bytes: u64,
        until: Instant,
        stop: &Stop,
    ) -> Result<(File, Trailer), MountError> {
        let begin = Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            let error = match self.open_once(relative, bytes, begin) {
                Ok(opened) => return Ok(opened),
                Err(error) => error,
            };
            if Instant::now() >= until || !error.may_be_late() || stop.asked() {
                return Err(error);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Opens an exported file, proven to be the one that was published with this trailer.
    ///
    /// # Errors
    /// As [`Mount::open_published`], and [`MountError::Changed`] where its trailer is another one.
    pub fn open_exported(&self, file: &Path, published: &Trailer, stop: &Stop) -> Result<File, MountError> {
        let (opened, trailer) = self.open_published(file, published.bytes, self.patience(), stop)?;
        if trailer == *published {
            return Ok(opened);
        }
        Err(MountError::Changed { path: self.path(file) })
    }

    /// Reads a unit's files one after the other as one, each proven to be the one that was published. All are looked at
    /// before the first is read: nothing goes into the target of a unit that lacks one.
    ///
    /// # Errors
    /// As [`Mount::open_exported`], of the first that is not there as it was published.
    pub fn read_exported(&self, exported: &Exported, stop: &Stop) -> Result<CheckedReader, MountError> {
        if exported.parts.is_empty() {
            let file = self.open_exported(&exported.file, &exported.trailer, stop)?;
            return Ok(CheckedReader::new(file, &self.path(&exported.file), &exported.trailer));
        }
        for (file, trailer) in exported.files().skip(1) {
            self.open_exported(&file, &trailer, stop)?;
        }
        let (file, base, trailer) =
            (part_path(&exported.file, 0), Arc::clone(&exported.file), exported.parts[0]);
        let first = self.open_exported(&file, &trailer, stop)?;
        // One after the other: a cluster may have more segments than a process may have files.
        let (mount, stop) = (self.clone(), stop.clone());
        let mut rest = exported.parts.clone().into_iter().enumerate().skip(1);
        let next = move || {
            let (no, trailer) = rest.next()?;
            let (file, path) = (part_path(&base, no), mount.path(&part_path(&base, no)));
            let opened = mount.open_exported(&file, &trailer, &stop);
            Some(match opened {
                Ok(file) => Ok(Opened { file, path, trailer }),
                Err(error) => Err(GzipError::Unreadable { path, detail: error.to_string() }),
            })
        };
        let expected = usize::try_from(exported.trailer.isize).unwrap_or(usize::MAX);
        Ok(CheckedReader::new(first, &self.path(&file), &trailer).followed_by(expected, next))
    }

    /// Starts the manifest of a run: one line per published file.
    ///
    /// # Errors
    /// [`MountError::Unusable`] where the runner cannot write below the mount.
    pub fn manifest(&self, run: &str) -> Result<Manifest, MountError> {
        let relative = Path::new("manifest").join(format!("{run}.jsonl"));
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL;
        let made = || {
            let root = File::open(&self.root)?;
            self.make(&root, &self.subdir)?;
            let below = self.subdirectory()?;
            self.make(&below, "manifest")?;
            let file = below::file(&below, &relative, flags, Mode::from_raw_mode(0o660))?;
            // The umask may have let others in, or the group out.
            rustix::fs::fchmod(&file, Mode::from_raw_mode(0o660))?;
            Ok(Manifest { file, path: self.path(&relative) })
        };
        made().map_err(|error| MountError::Unusable { path: self.path(Path::new("manifest")), error })
    }

    /// The subdirectory itself: where an administrator put a link there, it is meant.
    fn subdirectory(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(self.root.join(&self.subdir), flags, Mode::empty())?)
    }

    /// Makes a directory for the group of the mount. Where root makes it, it belongs to whom the mount belongs:
    /// else the hosts' users could not write there.
    fn make(&self, parent: impl AsFd, name: &str) -> io::Result<()> {
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o770)) {
            Err(rustix::io::Errno::EXIST) => return Ok(()),
            made => made?,
        }
        let directory = File::from(below::directory(&parent, Path::new(name))?);
        let mount = fs::metadata(&self.root)?;
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::fchown(&directory, Some(mount.uid()), Some(mount.gid()))?;
        }
        // The umask may have taken the group's right to write; a setgid bit came from the parent.
        let setgid = directory.metadata()?.mode() & 0o2000;
        Ok(rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o770 | setgid))?)
    }

    fn open_once(&self, relative: &Path, bytes: u64, begin: Instant) -> Result<(File, Trailer), MountError> {
        let path = self.path(relative);
        let waited = || begin.elapsed();
        let opened =
            self.subdirectory().and_then(|below| below::file(below, relative, OFlags::RDONLY, Mode::empty()));
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(MountError::Absent { path, waited: waited() });
            }
            Err(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => {
                return Err(MountError::Absent { path, waited: waited() });
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(MountError::Link { path });
            }
            Err(error) => return Err(MountError::Unreadable { path, error }),
        };
        let found = match Trailer::read(&mut file) {
            Ok(found) => found,
            Err(error) => return Err(MountError::Unreadable { path, error }),
        };
        if found.bytes != bytes {
            return Err(MountError::NotAsPublished { path, found, published: bytes, waited: waited() });
        }
        Ok((file, found))
    }
}

/// File systems whose content the kernel itself owns; everything else may be late. Source: statfs(2).
fn is_local(facts: &StatFs) -> bool {
    const EXT: i64 = 0xEF53;
    const XFS: i64 = 0x5846_5342;
    const BTRFS: i64 = 0x9123_683E;
    const TMPFS: i64 = 0x0102_1994;
    const OVERLAY: i64 = 0x794C_7630;
    const F2FS: i64 = 0xF2F5_2010;
    const ZFS: i64 = 0x2FC1_2FC1;
    [EXT, XFS, BTRFS, TMPFS, OVERLAY, F2FS, ZFS].contains(&facts.f_type)
}

pub mod rejects;

/// `file2GP/manifest/<run>.jsonl`, open for appending.
#[derive(Debug)]
pub struct Manifest {
    file: File,
    path: PathBuf,
}

impl Manifest {
    /// Appends one line.
    ///
    /// # Errors
    /// [`MountError::Unusable`] where it cannot be written.
    pub fn append(&mut self, line: &serde_json::Value) -> Result<(), MountError> {
        let error = |error| MountError::Unusable { path: self.path.clone(), error };
        // In one write: formatted into the file itself, each token of it would be one.
        self.file.write_all(format!("{line}\n").as_bytes()).map_err(error)
    }
}

#[cfg(test)]
mod tests;
