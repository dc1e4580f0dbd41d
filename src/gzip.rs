//! A published gzip file, read in one pass and believed only when everything about it agrees.
//!
//! flate2's decoder hands out data before it finds the error, stops silently where a whole last member is
//! missing, and calls every fault an `io::Error`. [`CheckedReader`] closes these gaps: the checksum and length
//! of every member are verified, the compressed size must be what was published, and each fault has a name.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::RangeTo;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Compressed bytes read at a time.
const READ_BUFFER: usize = 256 * 1024;

/// What stands in the last eight bytes of a gzip file, of its last member (RFC 1952, section 2.3.1), and how
/// large the file is: enough to tell whether a file is still the one that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    /// Size of the file in bytes.
    pub bytes: u64,
    /// CRC-32 of the last member's data.
    pub crc32: u32,
    /// Size of the last member's data modulo 2³².
    pub isize: u32,
}

impl Trailer {
    /// Reads it from an open file.
    ///
    /// # Errors
    /// Of the file system. A file shorter than the smallest gzip file gives a trailer of zeros.
    pub fn read(file: &mut File) -> io::Result<Self> {
        let bytes = file.seek(SeekFrom::End(0))?;
        let mut tail = [0; 8];
        if bytes >= 18 {
            file.seek(SeekFrom::End(-8))?;
            file.read_exact(&mut tail)?;
        }
        file.seek(SeekFrom::Start(0))?;
        let [a, b, c, d, e, f, g, h] = tail;
        Ok(Self { bytes, crc32: u32::from_le_bytes([a, b, c, d]), isize: u32::from_le_bytes([e, f, g, h]) })
    }
}

impl Trailer {
    /// What stands for several files that are one: their sizes together, and a checksum of their checksums in this order.
    pub fn of_parts(parts: &[Self]) -> Self {
        let mut crc = flate2::Crc::new();
        let (mut bytes, mut isize) = (0u64, 0u32);
        for part in parts {
            crc.update(&part.crc32.to_le_bytes());
            bytes = bytes.saturating_add(part.bytes);
            isize = isize.wrapping_add(part.isize);
        }
        Self { bytes, crc32: crc.sum(), isize }
    }

    /// Is the file large enough to be a gzip file at all?
    pub fn is_whole(&self) -> bool {
        self.bytes >= SMALLEST
    }
}

/// The smallest gzip file: header, an empty block and the trailer.
const SMALLEST: u64 = 20;

/// What is wrong with a gzip file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GzipError {
    /// It ends in the middle of a member.
    #[error("{} is truncated: it ends after {read} bytes, in the middle of its data", .path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Compressed bytes that were there.
        read: u64,
    },
    /// It ends between two members, or has more than was published.
    #[error("{} has {read} bytes where {published} were published: {}", .path.display(),
        if read < published { "its end is missing" } else { "something was added to it" })]
    Size {
        /// The file.
        path: PathBuf,
        /// Compressed bytes that were read.
        read: u64,
        /// Compressed bytes that were published.
        published: u64,
    },
    /// A member's data is not what its checksum or length says.
    #[error("{} is damaged: the checksum of its data does not match (CRC-32 of the gzip member before byte {read})", .path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Where reading had got to.
        read: u64,
    },
    /// Something in it is no gzip at all.
    #[error("{} is damaged: not valid gzip data before byte {read} ({detail})", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where reading had got to.
        read: u64,
        /// The decoder's own words.
        detail: String,
    },
    /// The file system refused.
    #[error("cannot read {}: {detail}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's own words.
        detail: String,
    },
}

/// A file that is opened at its start, and what it was published with.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: File,
    /// Where it stands.
    pub path: PathBuf,
    /// Its size and trailer.
    pub trailer: Trailer,
}

/// Opens the next file of those that are read as one; `None` behind the last.
type Next = Box<dyn FnMut() -> Option<Result<Opened, GzipError>> + Send>;

/// Inflates a published file, or several one after the other, checking everything on the way.
pub struct CheckedReader {
    path: PathBuf,
    published: u64,
    expected: usize,
    decoder: MultiGzDecoder<BufReader<Counted>>,
    /// What follows at the end of this file.
    next: Option<Next>,
    /// Compressed bytes of the files before this one.
    before: u64,
    /// Inflated bytes so far.
    at: u64,
    /// The inflated bytes that are handed out.
    part: RangeTo<u64>,
    /// Inflated bytes that were given back.
    back: Vec<u8>,
    tell: Option<Tell>,
}

/// Hears how many bytes of the file have been read.
type Tell = Box<dyn FnMut(u64) + Send>;

impl fmt::Debug for CheckedReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedReader").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A file that counts what was read from it.
#[derive(Debug)]
struct Counted {
    file: File,
    read: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.read += n as u64;
        Ok(n)
    }
}

impl CheckedReader {
    /// Reads `file`, opened at its start, which was published with this trailer.
    pub fn new(file: File, path: &Path, trailer: &Trailer) -> Self {
        let published = trailer.bytes;
        let expected = usize::try_from(trailer.isize).unwrap_or(usize::MAX);
        Self {
            path: path.to_owned(),
            published,
            expected,
            decoder: decoder(file, published),
            next: None,
            before: 0,
            at: 0,
            part: ..u64::MAX,
            back: Vec::new(),
            tell: None,
        }
    }

    /// Goes on with what `next` opens when this file is at its end and was whole, as if all were one. `expected`: how much
    /// data all of them hold, as [`CheckedReader::expected`].
    #[must_use]
    pub fn followed_by(
        self,
        expected: usize,
        next: impl FnMut() -> Option<Result<Opened, GzipError>> + Send + 'static,
    ) -> Self {
        Self { expected, next: Some(Box::new(next)), ..self }
    }

    /// Hands out these bytes of the data alone. The file is read and checked to its end all the same.
    pub fn only(self, part: RangeTo<u64>) -> Self {
        Self { part, ..self }
    }

    /// Gives bytes back, to be handed out again by what comes next.
    pub fn give_back(&mut self, bytes: &[u8]) {
        self.back.splice(0..0, bytes.iter().copied());
    }

    /// Tells after every piece how many bytes of the file have been read.
    #[must_use]
    pub fn telling(self, tell: impl FnMut(u64) + Send + 'static) -> Self {
        Self { tell: Some(Box::new(tell)), ..self }
    }

    /// Reads all of it, for the sake of the checks alone.
    ///
    /// # Errors
    /// [`GzipError`] names what is wrong.
    pub fn drain(mut self) -> Result<(), GzipError> {
        let mut buffer = vec![0; READ_BUFFER];
        while self.next(&mut buffer)? > 0 {}
        Ok(())
    }

    /// How much data the trailer speaks of, in bytes: exact for one member of less than 4 GiB, else a hint.
    pub fn expected(&self) -> usize {
        self.expected
    }

    /// The next inflated bytes; 0 only at the end of a file that was whole, and the last.
    ///
    /// # Errors
    /// [`GzipError`] names what is wrong.
    pub fn next(&mut self, buffer: &mut [u8]) -> Result<usize, GzipError> {
        if !self.back.is_empty() {
            let n = self.back.len().min(buffer.len());
            buffer[..n].copy_from_slice(&self.back[..n]);
            self.back.drain(..n);
            return Ok(n);
        }
        loop {
            match self.decoder.read(buffer) {
                Ok(0) => {
                    self.at_end()?;
                    match self.next.as_mut().and_then(|next| next()) {
                        Some(opened) => self.go_on(opened?),
                        None => return Ok(0),
                    }
                }
                Ok(n) => {
                    if let Some(tell) = &mut self.tell {
                        tell(self.before + self.decoder.get_ref().get_ref().read);
                    }
                    let left = self.part.end.saturating_sub(self.at);
                    self.at += n as u64;
                    match usize::try_from(left).unwrap_or(usize::MAX).min(n) {
                        0 => {}
                        n => return Ok(n),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.named(&error)),
            }
        }
    }

    fn go_on(&mut self, Opened { file, path, trailer }: Opened) {
        self.before += self.published;
        self.published = trailer.bytes;
        self.path = path;
        self.decoder = decoder(file, trailer.bytes);
    }

    fn at_end(&self) -> Result<(), GzipError> {
        let read = self.decoder.get_ref().get_ref().read;
        if read == self.published {
            return Ok(());
        }
        Err(GzipError::Size { path: self.path.clone(), read, published: self.published })
    }

    /// flate2 tells its faults apart by kind and words alone.
    fn named(&self, error: &io::Error) -> GzipError {
        let path = self.path.clone();
        let read = self.decoder.get_ref().get_ref().read;
        if error.raw_os_error().is_some() {
            return GzipError::Unreadable { path, detail: error.to_string() };
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => GzipError::Truncated { path, read },
            io::ErrorKind::InvalidInput if error.to_string().contains("checksum") => {
                GzipError::Checksum { path, read }
            }
            _ => GzipError::Corrupt { path, read, detail: error.to_string() },
        }
    }
}

/// Inflates a file of so many compressed bytes.
fn decoder(file: File, bytes: u64) -> MultiGzDecoder<BufReader<Counted>> {
    // Thousands of files are smaller than the buffer that serves a large one.
    let buffer = usize::try_from(bytes).unwrap_or(READ_BUFFER).clamp(512, READ_BUFFER);
    MultiGzDecoder::new(BufReader::with_capacity(buffer, Counted { file, read: 0 }))
}

#[cfg(test)]
mod tests;
