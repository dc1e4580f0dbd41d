//! A host of the tests: its script says what it is told to, whatever it is asked.

use std::time::Duration;

use super::{Channel, Heard, Remote, RemoteError, Status};

/// What the script says, piece by piece. `NONCE` within the first 4 KiB of a piece stands for the nonce.
pub(crate) struct Scripted {
    pub(crate) says: Vec<Vec<u8>>,
}

struct ScriptedChannel<'a> {
    says: std::slice::Iter<'a, Vec<u8>>,
    nonce: Vec<u8>,
}

impl Remote for Scripted {
    fn host(&self) -> &str {
        "scripted"
    }

    fn exec<'a>(&'a mut self, _command: &str) -> Result<Box<dyn Channel + 'a>, RemoteError> {
        Ok(Box::new(ScriptedChannel { says: self.says.iter(), nonce: Vec::new() }))
    }
}

impl Channel for ScriptedChannel<'_> {
    fn send(&mut self, bytes: &[u8]) {
        if let Some(rest) = bytes.strip_prefix(b"hello\t1\t") {
            self.nonce = rest.split(|byte| *byte == b'\t').next().unwrap().to_vec();
        }
    }

    fn close_stdin(&mut self) {}

    fn poll(&mut self, _wait: Duration) -> Result<Heard, RemoteError> {
        let Some(piece) = self.says.next() else { return Ok(Heard { closed: true, ..Heard::default() }) };
        let mut stdout = Vec::new();
        let (head, tail) = piece.split_at(piece.len().min(4096));
        for (n, part) in split(head, b"NONCE").into_iter().enumerate() {
            if n > 0 {
                stdout.extend_from_slice(&self.nonce);
            }
            stdout.extend_from_slice(part);
        }
        stdout.extend_from_slice(tail);
        Ok(Heard { stdout, ..Heard::default() })
    }

    fn end(self: Box<Self>, _within: Duration) -> Status {
        Status::Exited(0)
    }
}

fn split<'a>(text: &'a [u8], by: &[u8]) -> Vec<&'a [u8]> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.windows(by.len()).position(|some| some == by) {
        parts.push(&rest[..at]);
        rest = &rest[at + by.len()..];
    }
    parts.push(rest);
    parts
}
