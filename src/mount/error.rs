//! What is wrong with the mount, or a file on it, and what to try.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::gzip::Trailer;

/// What is wrong with the mount or a file on it, as the runner sees it.
#[derive(Debug, Error)]
pub enum MountError {
    /// The mount's directory cannot be used.
    #[error("cannot use the mount {} here on the runner: {error}", .path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// The system's own words.
        error: io::Error,
    },
    /// A published file is not there.
    #[error(
        "{} was published by the source host and is not there for the runner (waited {} s)",
        .path.display(), .waited.as_secs()
    )]
    Absent {
        /// The file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A published file has another size, or another trailer.
    #[error(
        "{} is not the file that was published: {} bytes here, {published} bytes published{} (waited {} s)",
        .path.display(), .found.bytes, if .found.bytes < *.published { ", so it is truncated" } else { "" }, .waited.as_secs()
    )]
    NotAsPublished {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: Trailer,
        /// Size that was published, in bytes.
        published: u64,
        /// How long it was waited for.
        waited: Duration,
    },
    /// It has the size that was published, but its gzip trailer is another one.
    #[error("{} was changed after it was published: its gzip trailer is another one", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Not every segment has published a part of the unit, and one alone.
    #[error("{}: {found} parts were published, and not a whole one of each of {wanted} segments", .path.display())]
    Parts {
        /// The parts.
        path: PathBuf,
        /// How many there are.
        found: usize,
        /// How many there have to be.
        wanted: u32,
    },
    /// A symbolic link stands where a file or a directory should.
    #[error("{} is a symbolic link, or is behind one, and none is followed there", .path.display())]
    Link {
        /// The file.
        path: PathBuf,
    },
    /// What is old cannot be removed.
    #[error("cannot remove what is old below {}: {error}", .path.display())]
    Unremovable {
        /// The directory.
        path: PathBuf,
        /// The system's own words.
        error: io::Error,
    },
    /// The file system refused.
    #[error("cannot read {}: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's own words.
        error: io::Error,
    },
}

impl MountError {
    /// Can the same look a little later show something else, with nobody doing anything?
    pub fn may_be_late(&self) -> bool {
        match self {
            Self::Absent { .. } | Self::NotAsPublished { .. } => true,
            Self::Unusable { .. }
            | Self::Changed { .. }
            | Self::Parts { .. }
            | Self::Link { .. }
            | Self::Unremovable { .. }
            | Self::Unreadable { .. } => false,
        }
    }

    /// What to try.
    pub fn remedy(&self) -> String {
        match self {
            Self::Unusable { path, .. } => format!(
                "mount it, or correct `mount.path`; the user that runs gpferry must be able to write below {}",
                path.display()
            ),
            Self::Absent { .. } => "check that the source host and the runner mount the same export \
                 (`findmnt` on both), and that `mount.path` and the source's `mount` name the same directory"
                .into(),
            Self::NotAsPublished { .. } | Self::Changed { .. } | Self::Parts { .. } => {
                "run again: the unit is exported afresh. If it comes back, look for something that writes \
                 or copies below the mount, and for errors of its server"
                    .into()
            }
            Self::Link { .. } => "find out who put it there, and remove it: gpferry makes none".into(),
            Self::Unremovable { .. } => {
                "the user that runs gpferry must be able to write in the directories of the \
                 files: a common group on all hosts and setgid directories (`chmod g+rwxs`)"
                    .into()
            }
            Self::Unreadable { .. } => "make the file readable for the user that runs gpferry: a common \
                 group on all hosts and a setgid directory (`chgrp GROUP DIR && chmod 2770 DIR`)"
                .into(),
        }
    }
}
