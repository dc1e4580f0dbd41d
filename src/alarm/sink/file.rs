//! Lines of JSON at the end of a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::SinkError;
use crate::alarm::document::line;
use crate::ledger::alarms::Message;

/// Appends a line a message. Each is one write at the end, so lines of several writers do not mix.
pub(super) fn tell(path: &Path, messages: &[Message]) -> Result<(), SinkError> {
    append(path, messages).map_err(|error| {
        let what = format!("{} cannot be appended to: {error}", path.display());
        SinkError::new(what, "make its directory, with room and the right to write, for the user of gpferry")
    })
}

fn append(path: &Path, messages: &[Message]) -> io::Result<()> {
    // Without waiting for whoever should read it, where it is a pipe.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut file =
        OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(nonblocking).open(path)?;
    let mut cut = ends_within_a_line(path)?;
    for message in messages {
        let line = if std::mem::take(&mut cut) { format!("\n{}", line(message)) } else { line(message) };
        let written = file.write(line.as_bytes())?;
        if written < line.len() {
            // The rest would be refused with its reason; and the next one begins a new line.
            let rest = file.write(&line.as_bytes()[written..]);
            return Err(rest.err().unwrap_or_else(|| io::Error::other("a line went in by halves")));
        }
    }
    file.sync_data().or_else(|error| match error.raw_os_error() {
        // A pipe or a terminal has no disk.
        Some(code) if code == rustix::io::Errno::INVAL.raw_os_error() => Ok(()),
        _ => Err(error),
    })
}

/// Did a full disk cut the last line short?
fn ends_within_a_line(path: &Path) -> io::Result<bool> {
    let metadata = path.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(false);
    }
    // What may be written and not read is taken to be whole.
    let Ok(mut file) = File::open(path) else { return Ok(false) };
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}
