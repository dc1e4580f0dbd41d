//! COPY FROM STDIN in one pass, with the file inflated and checked by another thread.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::{Session, TargetError};
use crate::gzip::{CheckedReader, GzipError};
use crate::sql;

/// Bytes inflated at a time.
pub(super) const CHUNK: usize = 128 * 1024;
/// Chunks that may wait for the server: with [`CHUNK`], what bounds a load's memory.
const WAITING: usize = 8;

/// Why a COPY was given up. Nothing of it stays once the transaction, or its savepoint, is rolled back.
#[derive(Debug)]
pub enum CopyError {
    /// The file is not what was published.
    File(GzipError),
    /// The server refused before it took data. The library's session is unusable after that.
    Start(TargetError),
    /// The server refused the data.
    Data(TargetError),
}

/// Inflated chunks until an empty one.
type Inflated = Receiver<Result<Vec<u8>, GzipError>>;

impl Session {
    /// Copies a file's rows into a table, given as quoted SQL, and returns how many the server took. An empty file is
    /// legal.
    ///
    /// # Errors
    /// [`CopyError`]; the caller rolls back.
    pub fn copy_to(
        &mut self,
        table: &str,
        columns: &[String],
        reader: CheckedReader,
    ) -> Result<u64, CopyError> {
        let statement = statement(table, columns);
        let mut reader = reader;
        let small = reader.expected() < CHUNK;
        let size = if small { reader.expected().max(512) } else { CHUNK };
        let first = next_chunk(&mut reader, size).map_err(CopyError::File)?;
        let mut writer = self
            .client
            .copy_in(statement.as_str())
            .map_err(|error| CopyError::Start(TargetError::of(&error, "start a COPY")))?;
        let mut send =
            |chunk: &[u8]| writer.write_all(chunk).map_err(|error| CopyError::Data(data_error(&error)));
        send(&first)?;
        if small {
            // Most files of a run are this small: no thread for them, but the end is checked all the same.
            while let Some(chunk) = some(next_chunk(&mut reader, size).map_err(CopyError::File)?) {
                send(&chunk)?;
            }
        } else {
            thread::scope(|scope| {
                let (sender, chunks) = sync_channel(WAITING);
                scope.spawn(move || inflate(reader, &sender));
                send_all(&chunks, &mut send)
            })?;
        }
        writer.finish().map_err(|error| CopyError::Data(TargetError::of(&error, "take the rows")))
    }
}

/// COPY of rows as they stand in a file, into a table given as quoted SQL.
pub(super) fn statement(table: &str, columns: &[String]) -> String {
    let columns = if columns.is_empty() {
        String::new()
    } else {
        format!(" ({})", sql::idents(columns.iter().map(String::as_str)))
    };
    format!("COPY {table}{columns} FROM STDIN CSV")
}

/// Dropping `chunks` on an error makes the inflating thread stop at its next send.
fn send_all(
    chunks: &Inflated,
    send: &mut impl FnMut(&[u8]) -> Result<(), CopyError>,
) -> Result<(), CopyError> {
    loop {
        match chunks.recv() {
            Ok(Ok(chunk)) if chunk.is_empty() => return Ok(()),
            Ok(Ok(chunk)) => send(&chunk)?,
            Ok(Err(error)) => return Err(CopyError::File(error)),
            Err(_) => unreachable!("the inflating thread ends with an empty chunk or an error"),
        }
    }
}

fn inflate(mut reader: CheckedReader, sender: &SyncSender<Result<Vec<u8>, GzipError>>) {
    loop {
        let chunk = next_chunk(&mut reader, CHUNK);
        let last = chunk.as_ref().map_or(true, Vec::is_empty);
        if sender.send(chunk).is_err() || last {
            return;
        }
    }
}

/// The next chunk, full but for the last; empty at the end.
fn next_chunk(reader: &mut CheckedReader, size: usize) -> Result<Vec<u8>, GzipError> {
    let mut chunk = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match reader.next(&mut chunk[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    chunk.truncate(filled);
    Ok(chunk)
}

fn some(chunk: Vec<u8>) -> Option<Vec<u8>> {
    if chunk.is_empty() { None } else { Some(chunk) }
}

/// The writer wraps the library's errors in `io::Error`.
pub(super) fn data_error(error: &std::io::Error) -> TargetError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<postgres::Error>()) {
        Some(inner) => TargetError::of(inner, "take the rows"),
        None => TargetError::Lost { doing: "take the rows".into(), why: error.to_string() },
    }
}
