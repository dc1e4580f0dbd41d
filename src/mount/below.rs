//! Files below the mount's subdirectory, reached one directory at a time and never through a symbolic link.
//!
//! Several hosts and users write there. Whoever may plant a link could otherwise lead a write, a read or a
//! removal of the runner to any place that the runner may touch.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat};

/// Opens a directory; each of its components below `root` must be a directory itself.
///
/// # Errors
/// Of the system; [`io::ErrorKind::NotADirectory`] where a link stands in the way.
pub(super) fn directory(root: impl AsFd, relative: &Path) -> io::Result<OwnedFd> {
    let mut directory = root.as_fd().try_clone_to_owned()?;
    for component in relative.components() {
        let Component::Normal(name) = component else { return Err(io::ErrorKind::InvalidInput.into()) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        directory = openat(&directory, name, flags, Mode::empty()).map_err(|error| {
            let link = is_link(&directory, Path::new(name));
            if link { io::ErrorKind::NotADirectory.into() } else { io::Error::from(error) }
        })?;
    }
    Ok(directory)
}

/// Opens a file with these flags, to which "no link" is added, and with `mode` where it makes it.
///
/// # Errors
/// As [`directory`].
pub(super) fn file(root: impl AsFd, relative: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
    let (Some(parent), Some(name)) = (relative.parent(), relative.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = directory(root, parent)?;
    openat(&directory, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode).map(File::from).map_err(
        |error| {
            let link = is_link(&directory, Path::new(name));
            if link { io::ErrorKind::NotADirectory.into() } else { io::Error::from(error) }
        },
    )
}

fn is_link(directory: impl AsFd, name: &Path) -> bool {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|facts| FileType::from_raw_mode(facts.st_mode) == FileType::Symlink)
}
