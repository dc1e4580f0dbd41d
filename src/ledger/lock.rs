//! One process works on a job at a time.
//!
//! The lock is the kernel's (`flock`) on a file beside the ledger, so it goes when its holder dies, however it
//! dies, and nobody has to clean up. The file's content only names the holder, for the message.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

use super::LedgerError;

/// A job that this process holds, until the value is dropped.
#[derive(Debug)]
pub struct JobLock {
    _file: File,
}

impl JobLock {
    /// Takes the lock of `job` beside the ledger at `ledger`.
    ///
    /// # Errors
    /// [`LedgerError::JobHeld`] names the holder; [`LedgerError::Io`] where the lock file cannot be made.
    pub fn take(ledger: &Path, job: &str, now: Timestamp) -> Result<Self, LedgerError> {
        let path = lock_path(ledger, job);
        let io = |error| LedgerError::Io { path: path.clone(), error };
        let mut file = match hold(&path).map_err(io)? {
            Held::Ours(file) => file,
            Held::Anothers(mut file) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(io)?;
                let holder =
                    if holder.is_empty() { "another process".into() } else { holder.trim().to_owned() };
                return Err(LedgerError::JobHeld { job: job.to_owned(), holder });
            }
        };
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        writeln!(file, "pid {} on {host} since {now:.0}", std::process::id()).map_err(io)?;
        Ok(Self { _file: file })
    }
}

/// A lock file, open.
pub(super) enum Held {
    /// Locked, by this.
    Ours(File),
    /// Locked by somebody else.
    Anothers(File),
}

/// Locks a file (0600, made with its directories where they are missing) without waiting.
pub(super) fn hold(path: &Path) -> io::Result<Held> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Held::Ours(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Held::Anothers(file)),
        Err(error) => Err(error.into()),
    }
}

impl JobLock {
    /// Takes the locks of these jobs, and of all others that ever were locked beside this ledger.
    ///
    /// # Errors
    /// As [`JobLock::take`], for the first that another process holds.
    pub fn take_all(
        ledger: &Path,
        jobs: impl Iterator<Item = String>,
        now: Timestamp,
    ) -> Result<Vec<Self>, LedgerError> {
        let mut names: BTreeSet<String> = jobs.collect();
        let entries = fs::read_dir(directory(ledger)).into_iter().flatten().flatten();
        let names_there = entries.filter_map(|entry| entry.file_name().into_string().ok());
        // No job's name begins with a dot; what does is the runs' own.
        names.extend(names_there.filter(|name| !name.starts_with('.')));
        names.iter().map(|job| Self::take(ledger, job, now)).collect()
    }
}

/// Held while sinks are told, so that none is told the same by two processes at once.
#[derive(Debug)]
pub struct AlarmLock {
    _file: File,
}

impl AlarmLock {
    /// Takes it, or waits for so long; `None` where another process holds it all that time.
    ///
    /// # Errors
    /// [`LedgerError::Io`] where the lock file cannot be made.
    pub fn take(ledger: &Path, patience: Duration) -> Result<Option<Self>, LedgerError> {
        const LOOK_EVERY: Duration = Duration::from_millis(50);
        // No job's name begins with a dot.
        let path = directory(ledger).join(".alarms");
        let end = Instant::now() + patience;
        loop {
            match hold(&path).map_err(|error| LedgerError::Io { path: path.clone(), error })? {
                Held::Ours(file) => return Ok(Some(Self { _file: file })),
                Held::Anothers(_) if Instant::now() >= end => return Ok(None),
                Held::Anothers(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
    }
}

fn directory(ledger: &Path) -> PathBuf {
    let mut directory = ledger.as_os_str().to_owned();
    directory.push(".locks");
    PathBuf::from(directory)
}

/// `<ledger>.locks/<job>`; a job's name is safe in a path, the inventory's reader has seen to it.
fn lock_path(ledger: &Path, job: &str) -> PathBuf {
    directory(ledger).join(job)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_job_names_its_holder_and_is_free_when_the_holder_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = directory.path().join("ledger.sqlite");
        let now = Timestamp::UNIX_EPOCH;
        let held = JobLock::take(&ledger, "a", now).unwrap();
        JobLock::take(&ledger, "b", now).unwrap();
        let error = JobLock::take(&ledger, "a", now).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        assert!(error.contains("since 1970-01-01T00:00:00Z"), "{error}");
        drop(held);
        JobLock::take(&ledger, "a", now).unwrap();
    }
}
