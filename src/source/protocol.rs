//! The line protocol with a script on a source host, version 1: what is written and what is read. Pure.
//!
//! `scripts/README.md` describes it for people who write their own script. Every reply starts with the run's
//! nonce, so that what a `.bashrc` or a banner prints is not taken for one; other lines are counted and left.

use std::time::Duration;

use thiserror::Error;

use super::segments::{Statements, read_trailer};
use crate::gzip::Trailer;

/// The version of the protocol that both sides must speak.
pub const VERSION: u32 = 1;

/// Longest line that a script may send, in bytes: a broken script must not eat the runner's memory.
const LONGEST_LINE: usize = 4 << 20;

/// Most that may come before a reply that is none: banners are short.
const MOST_FOREIGN: u64 = 16 << 20;

/// Most that the rows of one conversation may hold, in bytes: far above the catalog of 100,000 tables.
const MOST_ROWS: u64 = 256 << 20;

/// What a message may hold, in characters. It goes to ledger and report.
const LONGEST_MESSAGE: usize = 4000;

/// What a script is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A setting for what follows.
    Set {
        /// One of the names of `scripts/README.md`.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// Export the rows of a query into a file.
    Export {
        /// Number of the unit within this conversation.
        no: u32,
        /// Final path of the file, as the host sees it.
        path: String,
        /// Which compressor.
        compressor: &'static str,
        /// A query, on one line.
        sql: String,
    },
    /// Have each segment export its part of a unit's rows. Only `greenplum.sh` is asked this, and the next.
    Segments {
        /// Number of the unit within this conversation.
        no: u32,
        /// Final path of the file that the parts' names are made of, as the host sees it.
        path: String,
        /// How many segments there are.
        parts: u32,
        /// What is run in one transaction, which is taken back.
        statements: Box<Statements>,
    },
    /// Make a table of segments' answers, send its rows back, and take it back.
    Look {
        /// Number of the question within this conversation.
        no: u32,
        /// The statement that makes it.
        sql: String,
    },
    /// Say what plan the server has for a query, without running it. Only `greenplum.sh` is asked this.
    Explain {
        /// Number of the question within this conversation.
        no: u32,
        /// The query, on one line; it begins with `SELECT`.
        sql: String,
    },
    /// Send the rows of a query back.
    Query {
        /// Number of the query within this conversation.
        no: u32,
        /// A query, on one line.
        sql: String,
    },
    /// Call a script that people already have. Only `argv.sh` knows this one.
    Call {
        /// Number of the unit within this conversation.
        no: u32,
        /// Path where the unit's file will stand, as the host sees it.
        file: String,
        /// The script's path and its arguments.
        words: Vec<String>,
    },
    /// Still there.
    Beat,
    /// Stop now and clean up.
    Stop,
    /// Nothing more will be asked.
    End,
}

/// What a script answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// The script speaks our version.
    Hello {
        /// The script's own version.
        script: String,
    },
    /// Still there.
    Beat,
    /// A file is published, or a query's rows have all been sent.
    Done {
        /// Number of the request.
        no: u32,
        /// Rows that COPY reported.
        rows: u64,
        /// Size of the file in bytes.
        bytes: u64,
        /// How long it took.
        took: Duration,
        /// Which compressor was used.
        compressor: String,
    },
    /// A row of a query, in COPY's text form.
    Row {
        /// Number of the request.
        no: u32,
        /// The row, undecoded.
        text: String,
    },
    /// A part of a unit, as its segment sees it; they count once the unit's [`Reply::Done`] follows.
    Part {
        /// Number of the request.
        no: u32,
        /// Which segment.
        segment: u32,
        /// Size and gzip trailer.
        trailer: Trailer,
    },
    /// A request failed; the others go on.
    Error {
        /// Number of the request.
        no: u32,
        /// Exit code of what failed.
        code: u32,
        /// The database's, where it gave one.
        sqlstate: Option<String>,
        /// What it said.
        message: String,
    },
    /// The batch is complete.
    End {
        /// 0 where the batch was worked through, whatever became of its units.
        code: u32,
    },
}

/// A script that does not speak the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// A reply that cannot be read.
    #[error("a reply that is not of the protocol: {0:?}")]
    Unreadable(String),
    /// A line without an end.
    #[error("a line of more than {LONGEST_LINE} bytes")]
    EndlessLine,
    /// Another version.
    #[error("it speaks version {0} of the protocol, gpferry speaks {VERSION}")]
    Version(String),
    /// A reply that nothing asked for.
    #[error("a reply for number {0}, which was not asked for or was answered before")]
    Unasked(u32),
    /// Output without end that is no reply.
    #[error("more than {MOST_FOREIGN} bytes on stdout that are no reply")]
    Flood,
    /// Rows without end.
    #[error("more than {MOST_ROWS} bytes of rows")]
    TooManyRows,
    /// It says that all is done, and something is not.
    #[error("it ended with {0} requests unanswered")]
    EndedEarly(usize),
    /// It counts otherwise than we do.
    #[error("it sent {seen} rows for number {no} and says that there were {said}")]
    Count {
        /// Number of the request.
        no: u32,
        /// Rows that were sent.
        seen: u64,
        /// Rows that it speaks of.
        said: u64,
    },
}

impl Request {
    /// The line, with its end.
    ///
    /// Fields hold no TAB and no line break: names and conditions with control characters are refused where
    /// they are read. What slips through is cut here rather than taken for another request.
    pub fn line(&self) -> String {
        let fields = match self {
            Self::Set { name, value } => vec!["set", name, value],
            Self::Export { no, path, compressor, sql } => {
                return line(&["export", &no.to_string(), path, compressor, sql]);
            }
            Self::Segments { no, path, parts, statements } => {
                let (no, parts) = (no.to_string(), parts.to_string());
                let Statements { create, look, insert } = &**statements;
                return line(&["segments", &no, path, &parts, create, look, insert]);
            }
            Self::Look { no, sql } => return line(&["look", &no.to_string(), sql]),
            Self::Explain { no, sql } => return line(&["explain", &no.to_string(), sql]),
            Self::Query { no, sql } => return line(&["query", &no.to_string(), sql]),
            Self::Call { no, file, words } => {
                let no = no.to_string();
                let fields = ["call", &no, file].into_iter().chain(words.iter().map(String::as_str));
                return line(&fields.collect::<Vec<_>>());
            }
            Self::Beat => vec!["beat"],
            Self::Stop => vec!["stop"],
            Self::End => vec!["end"],
        };
        line(&fields)
    }
}

/// The first line of a conversation.
pub fn hello(nonce: &str, heartbeat: Duration, deadline: Duration) -> String {
    line(&[
        "hello",
        &VERSION.to_string(),
        nonce,
        &heartbeat.as_secs().to_string(),
        // Nine digits are what a script reads.
        &deadline.as_secs().min(999_999_999).to_string(),
    ])
}

fn line(fields: &[&str]) -> String {
    let clean = |field: &&str| field.replace(['\t', '\n', '\r'], " ");
    format!("{}\n", fields.iter().map(clean).collect::<Vec<_>>().join("\t"))
}

/// Cuts a script's stdout into replies.
#[derive(Debug)]
pub struct ReplyReader {
    prefix: String,
    pending: Vec<u8>,
    foreign: u64,
    foreign_bytes: u64,
    row_bytes: u64,
}

impl ReplyReader {
    /// Reads replies that start with `nonce`.
    pub fn new(nonce: &str) -> Self {
        Self { prefix: format!("{nonce}\t"), pending: Vec::new(), foreign: 0, foreign_bytes: 0, row_bytes: 0 }
    }

    /// What was read so far does not count against how much may come.
    pub fn begin_again(&mut self) {
        self.row_bytes = 0;
    }

    /// Lines that were not replies so far.
    pub fn foreign_lines(&self) -> u64 {
        self.foreign
    }

    /// Takes bytes in and appends the replies that they complete.
    ///
    /// # Errors
    /// [`ProtocolError`]; the conversation is over then.
    pub fn feed(&mut self, bytes: &[u8], replies: &mut impl Extend<Reply>) -> Result<(), ProtocolError> {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|&byte| byte == b'\n') {
            let (head, tail) = rest.split_at(at);
            rest = &tail[1..];
            if self.pending.is_empty() {
                replies.extend(self.read(head)?);
            } else {
                let mut whole = std::mem::take(&mut self.pending);
                whole.extend_from_slice(head);
                replies.extend(self.read(&whole)?);
            }
        }
        self.pending.extend_from_slice(rest);
        if self.pending.len() > LONGEST_LINE {
            return Err(ProtocolError::EndlessLine);
        }
        Ok(())
    }

    fn read(&mut self, line: &[u8]) -> Result<Option<Reply>, ProtocolError> {
        let Some(body) = line.strip_prefix(self.prefix.as_bytes()) else {
            self.foreign += u64::from(!line.is_empty());
            self.foreign_bytes += line.len() as u64 + 1;
            return if self.foreign_bytes > MOST_FOREIGN { Err(ProtocolError::Flood) } else { Ok(None) };
        };
        let body = String::from_utf8_lossy(body);
        match parse(body.trim_end_matches('\r'))? {
            Some(Reply::Row { no, text }) => {
                self.row_bytes += text.len() as u64 + 1;
                let few = self.row_bytes <= MOST_ROWS;
                if few { Ok(Some(Reply::Row { no, text })) } else { Err(ProtocolError::TooManyRows) }
            }
            Some(reply) => Ok(Some(reply)),
            None => Err(ProtocolError::Unreadable(body.chars().take(200).collect())),
        }
    }
}

/// One reply without its nonce; `None` where it cannot be read.
fn parse(body: &str) -> Result<Option<Reply>, ProtocolError> {
    let (word, rest) = body.split_once('\t').unwrap_or((body, ""));
    let fields: Vec<&str> = rest.split('\t').collect();
    Ok(match (word, fields.as_slice()) {
        ("hello", ["1", script, ..]) => Some(Reply::Hello { script: script.chars().take(40).collect() }),
        ("hello", [version, ..]) => {
            return Err(ProtocolError::Version(version.chars().take(40).collect()));
        }
        ("beat", _) => Some(Reply::Beat),
        ("ok", [no, rows, bytes, seconds, more @ ..]) => done(no, rows, bytes, seconds, more),
        ("part", [no, segment, bytes, tail]) => part(no, segment, bytes, tail),
        ("row", [no, ..]) => no
            .parse()
            .ok()
            .map(|no| Reply::Row { no, text: rest.split_once('\t').map_or("", |(_, text)| text).to_owned() }),
        ("error", [no, code, sqlstate, message @ ..]) => error(no, code, sqlstate, message),
        ("end", [code]) => code.parse().ok().map(|code| Reply::End { code }),
        (_, _) => None,
    })
}

fn done(no: &str, rows: &str, bytes: &str, seconds: &str, more: &[&str]) -> Option<Reply> {
    let seconds: f64 = seconds.parse().ok()?;
    Some(Reply::Done {
        no: no.parse().ok()?,
        rows: rows.parse().ok()?,
        bytes: bytes.parse().ok()?,
        took: Duration::try_from_secs_f64(seconds).ok()?,
        compressor: more.first().copied().unwrap_or("gzip").chars().take(40).collect(),
    })
}

fn part(no: &str, segment: &str, bytes: &str, tail: &str) -> Option<Reply> {
    let trailer = read_trailer(bytes.parse().ok()?, tail)?;
    Some(Reply::Part { no: no.parse().ok()?, segment: segment.parse().ok()?, trailer })
}

fn error(no: &str, code: &str, sqlstate: &str, message: &[&str]) -> Option<Reply> {
    Some(Reply::Error {
        no: no.parse().ok()?,
        code: code.parse().ok()?,
        sqlstate: (sqlstate != "-").then(|| sqlstate.to_owned()),
        message: message.join(" ").chars().take(LONGEST_MESSAGE).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Vec<Reply>, ProtocolError> {
        let mut replies = Vec::new();
        ReplyReader::new("n0").feed(bytes, &mut replies).map(|()| replies)
    }

    #[test]
    fn what_a_login_shell_prints_is_not_taken_for_a_reply() {
        let mut reader = ReplyReader::new("n0");
        let mut replies = Vec::new();
        reader.feed(b"Welcome!\nend\t0\nn1\tend\t0\nn0\tbe", &mut replies).unwrap();
        assert_eq!((replies.len(), reader.foreign_lines()), (0, 3));
        reader.feed(b"at\nn0\tend\t0\n", &mut replies).unwrap();
        assert_eq!(replies, [Reply::Beat, Reply::End { code: 0 }]);
    }

    #[test]
    fn replies_are_read_field_by_field() {
        let text =
            b"n0\tok\t7\t3\t120\t0.25\tigzip\nn0\terror\t8\t1\t42P01\tno such\ttable\nn0\trow\t9\ta\tb\n\
              n0\tpart\t7\t1\t30\ta1f52e9b03000000\n";
        let took = Duration::from_millis(250);
        let replies = [
            Reply::Done { no: 7, rows: 3, bytes: 120, took, compressor: "igzip".into() },
            Reply::Error { no: 8, code: 1, sqlstate: Some("42P01".into()), message: "no such table".into() },
            Reply::Row { no: 9, text: "a\tb".into() },
            Reply::Part { no: 7, segment: 1, trailer: Trailer { bytes: 30, crc32: 0x9b2e_f5a1, isize: 3 } },
        ];
        assert_eq!(read(text).unwrap(), replies);
    }

    #[test]
    fn what_is_not_of_the_protocol_is_an_error() {
        for text in [
            "n0\tok\t7\t-3\t1\t1\n",
            "n0\tgreetings\n",
            "n0\tend\n",
            "n0\tpart\t7\t1\t30\ta1\n",
            "n0\tok\t1\t1\t1\tNaN\n",
        ] {
            assert!(matches!(read(text.as_bytes()), Err(ProtocolError::Unreadable(_))), "{text}");
        }
        assert_eq!(read(b"n0\thello\t2\tx\n"), Err(ProtocolError::Version("2".into())));
        assert_eq!(read(&vec![b'x'; LONGEST_LINE + 1]), Err(ProtocolError::EndlessLine));
    }

    #[test]
    fn no_value_can_make_a_second_request() {
        let request = Request::Set { name: "PGUSER", value: "x\nstop\ty".into() };
        assert_eq!(request.line(), "set\tPGUSER\tx stop y\n");
    }

    proptest! {
        #[test]
        fn bytes_may_come_in_any_pieces(cut in 0usize..60, noise in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut text = noise.iter().copied().filter(|byte| *byte != b'\n').collect::<Vec<_>>();
            text.extend_from_slice(b"\nn0\tok\t7\t3\t120\t0.25\tigzip\nn0\tend\t0\n");
            let (head, tail) = text.split_at(cut.min(text.len()));
            let mut reader = ReplyReader::new("n0");
            let mut replies = Vec::new();
            // Noise that happens to start with our nonce is a fault of its own.
            prop_assume!(!text.starts_with(b"n0\t") || noise.is_empty());
            reader.feed(head, &mut replies).unwrap();
            reader.feed(tail, &mut replies).unwrap();
            prop_assert_eq!(replies.len(), 2);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let _ = read(&[b"n0\t", &bytes[..], b"\n"].concat());
        }
    }
}
