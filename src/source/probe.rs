//! Asking a host what it is, with a script that is sent along and never installed: `scripts/probe.sh`.
//!
//! It needs a POSIX shell and nothing else, since hosts without bash or psql are what it is to find. The same
//! script serves the runner, as a process here: whatever a dead mount does to it, gpferry goes on.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::conversation::nonce;
use super::error::SourceError;
use super::script::{not_done, piped_command, piped_text};
use crate::remote::{Channel, Remote};

/// The script.
const PROBE: &str = include_str!("../../scripts/probe.sh");
/// What completes "while it ran …".
const WHAT: &str = "the preflight probe";
/// A line longer than this is not the probe's. Bytes.
const LONGEST_LINE: usize = 1 << 20;

/// One line of an answer: a key and what belongs to it.
pub type Line = Vec<String>;

/// A probe at work on a host.
pub struct Probe<'a> {
    channel: Box<dyn Channel + 'a>,
    host: String,
    prefix: String,
    pending: Vec<u8>,
    lines: VecDeque<Line>,
    stderr: Vec<u8>,
    closed: bool,
}

impl<'a> Probe<'a> {
    /// Starts it. The script gives up on the mount after `mount_limit`.
    ///
    /// # Errors
    /// [`SourceError`] where no command could be started.
    pub fn start(remote: &'a mut dyn Remote, mount_limit: Duration) -> Result<Self, SourceError> {
        let host = remote.host().to_owned();
        let channel = remote.exec(&piped_command())?;
        let nonce = nonce();
        let mut probe = Self {
            channel,
            host,
            prefix: format!("{nonce}\t"),
            pending: Vec::new(),
            lines: VecDeque::new(),
            stderr: Vec::new(),
            closed: false,
        };
        probe.channel.send(piped_text(PROBE).as_bytes());
        probe.tell(&["hello", &nonce, &mount_limit.as_secs().max(1).to_string()]);
        Ok(probe)
    }

    /// Says something that is not answered. Fields are data; a TAB or a line break in one becomes a blank.
    pub fn tell(&mut self, fields: &[&str]) {
        let clean: Vec<String> = fields.iter().map(|field| field.replace(['\t', '\n', '\r'], " ")).collect();
        self.channel.send(format!("{}\n", clean.join("\t")).as_bytes());
    }

    /// Asks something and waits for the whole answer.
    ///
    /// # Errors
    /// [`SourceError`]: silent for longer than `limit`, or gone.
    pub fn ask(&mut self, fields: &[&str], limit: Duration) -> Result<Vec<Line>, SourceError> {
        self.tell(fields);
        let begin = Instant::now();
        let mut answer = Vec::new();
        loop {
            while let Some(line) = self.lines.pop_front() {
                if line.first().is_some_and(|key| key == "done") {
                    return Ok(answer);
                }
                answer.push(line);
            }
            if self.closed {
                return Err(self.closed_early());
            }
            let left = limit.saturating_sub(begin.elapsed());
            if left.is_zero() {
                let (host, what) = (self.host.clone(), WHAT.to_owned());
                return Err(SourceError::Silent { host, what, silence: limit });
            }
            self.pump(left)?;
        }
    }

    /// Ends it: it removes what it made. `false` where its last word was not heard.
    pub fn end(mut self, limit: Duration) -> bool {
        self.tell(&["end"]);
        self.channel.close_stdin();
        let begin = Instant::now();
        while !self.closed && begin.elapsed() < limit {
            if self.pump(limit.saturating_sub(begin.elapsed())).is_err() {
                break;
            }
        }
        let heard = self.lines.iter().any(|line| line.first().is_some_and(|key| key == "end"));
        if self.closed {
            self.channel.end(Duration::from_secs(2));
        }
        heard
    }

    fn pump(&mut self, wait: Duration) -> Result<(), SourceError> {
        let heard = self.channel.poll(wait.min(Duration::from_millis(500)))?;
        self.stderr.extend(&heard.stderr);
        self.stderr.truncate(16 * 1024);
        self.closed = heard.closed;
        self.pending.extend(&heard.stdout);
        while let Some(at) = self.pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=at).collect();
            let line = String::from_utf8_lossy(&line);
            if let Some(body) = line.trim_end_matches(['\n', '\r']).strip_prefix(&self.prefix) {
                self.lines.push_back(body.split('\t').map(str::to_owned).collect());
            }
        }
        // A login shell that prints without end is not waited for line by line.
        if self.pending.len() > LONGEST_LINE {
            self.pending.clear();
        }
        Ok(())
    }

    fn closed_early(&mut self) -> SourceError {
        let stderr = String::from_utf8_lossy(&self.stderr).into_owned();
        not_done(&self.host, WHAT, &crate::remote::Status::Unknown, &stderr)
    }
}

impl fmt::Debug for Probe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("host", &self.host).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::local::Local;

    #[test]
    fn the_probe_answers_leaves_nothing_and_takes_data_for_data() {
        let mount = tempfile::tempdir().unwrap();
        let subdir = "it's $(touch pwned) `x`";
        std::fs::create_dir(mount.path().join(subdir)).unwrap();
        let mut here = Local::new("here");
        let mut probe = Probe::start(&mut here, Duration::from_secs(5)).unwrap();
        probe.tell(&["mount", &mount.path().display().to_string(), subdir]);
        let limit = Duration::from_secs(20);
        let facts = probe.ask(&["facts"], limit).unwrap();
        let has = |key: &str| facts.iter().any(|line| line[0] == key);
        assert!(has("user") && has("mountinfo") && has("space") && has("cache"), "{facts:?}");
        let wrote = probe.ask(&["write", ".proof", "a b  c"], limit).unwrap();
        assert_eq!(wrote[0][..2], ["entry", "proof"], "{wrote:?}");
        let again = probe.ask(&["write", ".proof", "other"], limit).unwrap();
        assert!(again[0][1].contains("File exists"), "{again:?}");
        let saw = probe.ask(&["look", ".proof"], limit).unwrap();
        assert_eq!(saw[0][1].trim_end(), "a b  c");
        assert!(probe.end(limit));
        let left: Vec<_> = std::fs::read_dir(mount.path().join(subdir)).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn a_probe_that_is_let_go_of_cleans_up_by_itself() {
        let mount = tempfile::tempdir().unwrap();
        let mut here = Local::new("here");
        let mut probe = Probe::start(&mut here, Duration::from_secs(5)).unwrap();
        probe.tell(&["mount", &mount.path().display().to_string(), "sub"]);
        let limit = Duration::from_secs(20);
        assert_eq!(probe.ask(&["make"], limit).unwrap(), [["made", "new"]]);
        probe.ask(&["write", ".proof", "x"], limit).unwrap();
        drop(probe);
        let left: Vec<_> = std::fs::read_dir(mount.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
