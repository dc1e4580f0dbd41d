//! One run of a script on one host, from `hello` to `end`.
//!
//! Only the script's own `end`, with this run's nonce, means that a batch is complete. A channel that closes
//! without it is a lost connection whatever exit status the library reports, and what was not answered is for
//! the caller to ask again.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::error::SourceError;
use super::protocol::{ProtocolError, Reply, ReplyReader, Request, hello};
use super::script::{Script, not_done};
use crate::remote::ssh::Pooled;
use crate::remote::{Channel, Remote, Status};

/// The script gives up when it has not heard from us for this long.
const HEARTBEAT: Duration = Duration::from_secs(12);
/// How often we let it hear from us.
const BEAT_EVERY: Duration = Duration::from_secs(3);
/// We give up when we have not heard from it for this long; it answers every beat.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a script may take to clean up after its deadline before we stop waiting.
const GRACE: Duration = Duration::from_secs(15);
/// How much of a script's stderr is kept for an error, in bytes.
const STDERR_KEPT: usize = 16 * 1024;

/// How long one that nobody speaks in may still be taken up: well before the script gives up who is silent.
const FRESH: Duration = Duration::from_secs(5);
/// How long the end of one that has nothing left to do is waited for.
const LEAVE: Duration = Duration::from_secs(2);

/// Where a conversation takes place.
pub enum Line<'a> {
    /// It begins on this host.
    New(&'a mut dyn Remote),
    /// It goes on: another part of the run has asked in it and was answered.
    Kept(Box<Conversation<'a>>),
}

/// A script at work.
pub struct Conversation<'a> {
    channel: Box<dyn Channel + 'a>,
    host: String,
    what: String,
    reader: ReplyReader,
    replies: VecDeque<Reply>,
    /// Requests that have not been answered.
    open: HashSet<u32>,
    stderr: Vec<u8>,
    last_heard: Instant,
    last_listened: Instant,
    last_beat: Instant,
    deadline: Instant,
    ended: Option<u32>,
    closed: bool,
}

impl<'a> Conversation<'a> {
    /// Starts the script with a verb of the protocol and waits for its greeting. `what` completes "while it
    /// ran …"; the conversation takes at most `limit`. [`Script::ensure`] comes first.
    ///
    /// # Errors
    /// [`SourceError`]: no session, no bash, another protocol.
    pub fn start(
        remote: &'a mut dyn Remote,
        script: &Script,
        verb: &'static str,
        what: &str,
        limit: Duration,
    ) -> Result<Self, SourceError> {
        let host = remote.host().to_owned();
        let channel = remote.exec(&script.start_command(verb))?;
        Self::greet(channel, host, script, what, limit)
    }

    /// As [`Conversation::start`], for one that may go from hand to hand: it has its session with the host for itself.
    ///
    /// # Errors
    /// As [`Conversation::start`].
    pub fn start_on(
        remote: Pooled,
        script: &Script,
        verb: &'static str,
        what: &str,
        limit: Duration,
    ) -> Result<Conversation<'static>, SourceError> {
        let host = remote.host().to_owned();
        let channel = remote.into_exec(&script.start_command(verb))?;
        Conversation::greet(channel, host, script, what, limit)
    }

    /// Starts on a host, or goes on with what was kept, for another purpose.
    ///
    /// # Errors
    /// As [`Conversation::start`].
    pub fn on(
        line: Line<'a>,
        script: &Script,
        verb: &'static str,
        what: &str,
        limit: Duration,
    ) -> Result<Self, SourceError> {
        match line {
            Line::New(remote) => Self::start(remote, script, verb, what, limit),
            Line::Kept(talk) => {
                let mut talk = *talk;
                talk.go_on(what, limit);
                Ok(talk)
            }
        }
    }

    fn greet(
        mut channel: Box<dyn Channel + 'a>,
        host: String,
        script: &Script,
        what: &str,
        limit: Duration,
    ) -> Result<Self, SourceError> {
        let nonce = nonce();
        if let Some(text) = script.preamble() {
            channel.send(text.as_bytes());
        }
        channel.send(hello(&nonce, HEARTBEAT, limit).as_bytes());
        let now = Instant::now();
        let mut conversation = Self {
            channel,
            host,
            what: what.to_owned(),
            reader: ReplyReader::new(&nonce),
            replies: VecDeque::new(),
            open: HashSet::new(),
            stderr: Vec::new(),
            last_heard: now,
            last_listened: now,
            last_beat: now,
            deadline: now + limit + GRACE,
            ended: None,
            closed: false,
        };
        loop {
            match conversation.next(Duration::from_secs(1))? {
                Some(Reply::Hello { script }) => {
                    log::debug!("{}: script {script} answers", conversation.host);
                    return Ok(conversation);
                }
                Some(Reply::Beat) | None => {}
                Some(
                    Reply::Done { no, .. }
                    | Reply::Row { no, .. }
                    | Reply::Part { no, .. }
                    | Reply::Error { no, .. },
                ) => {
                    return Err(conversation.protocol(ProtocolError::Unasked(no)));
                }
                Some(Reply::End { code }) => {
                    return Err(SourceError::GivenUp { host: conversation.host.clone(), code });
                }
            }
        }
    }

    /// Serves another purpose from now on, within a limit of its own. The script still has the first one.
    pub fn go_on(&mut self, what: &str, limit: Duration) {
        what.clone_into(&mut self.what);
        self.deadline = Instant::now() + limit + GRACE;
        self.reader.begin_again();
    }

    /// Can it be kept for others: is everything answered, and did neither side end it?
    pub fn is_quiet(&self) -> bool {
        self.open.is_empty() && self.replies.is_empty() && self.ended.is_none() && !self.closed
    }

    /// Was it left so short a while ago that the script still listens?
    pub fn is_fresh(&self) -> bool {
        self.is_quiet() && self.last_heard.max(self.last_beat).elapsed() < FRESH
    }

    /// Ends one that has nothing left to do, in order where the script still listens.
    pub fn leave(mut self) {
        self.ask(&Request::End);
        let until = Instant::now() + LEAVE;
        while self.ended.is_none() && Instant::now() < until {
            if let Err(error) = self.next(Duration::from_millis(100)) {
                log::debug!("{}: a conversation that was kept did not end in order: {error}", self.host);
                return;
            }
        }
        self.finish();
    }

    /// Asks something.
    pub fn ask(&mut self, request: &Request) {
        match request {
            Request::Export { no, .. }
            | Request::Segments { no, .. }
            | Request::Look { no, .. }
            | Request::Explain { no, .. }
            | Request::Query { no, .. }
            | Request::Call { no, .. } => {
                self.open.insert(*no);
            }
            Request::Set { .. } | Request::Beat | Request::Stop | Request::End => {}
        }
        self.channel.send(request.line().as_bytes());
    }

    /// Numbers of the requests that have not been answered.
    pub fn unanswered(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.open.iter().copied()
    }

    /// The next reply, or `None` when none came within `wait`.
    ///
    /// # Errors
    /// [`SourceError`] when the conversation is over without the script's `end`, or broke the protocol.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Reply>, SourceError> {
        let until = Instant::now() + wait;
        loop {
            if let Some(reply) = self.replies.pop_front() {
                return self.checked(reply).map(Some);
            }
            if self.closed && self.ended.is_none() {
                return Err(self.closed_early());
            }
            let now = Instant::now();
            if now >= until {
                return Ok(None);
            }
            if now.duration_since(self.last_listened) > BEAT_EVERY * 2 {
                // We were busy elsewhere: that is our silence, not the host's.
                self.last_heard = now;
            }
            self.keep_alive(now)?;
            self.pump((until - now).min(BEAT_EVERY))?;
        }
    }

    /// Closes the conversation after the script's `end`, and sees that it ended as it said. Gives the last of what
    /// came on stderr.
    pub fn finish(mut self) -> String {
        self.channel.close_stdin();
        let until = Instant::now() + Duration::from_secs(2);
        while !self.closed && Instant::now() < until {
            if self.pump(Duration::from_millis(200)).is_err() {
                return self.stderr();
            }
        }
        if self.reader.foreign_lines() > 0 {
            log::debug!("{}: {} lines on stdout were not ours", self.host, self.reader.foreign_lines());
        }
        let stderr = self.stderr();
        let status = self.channel.end(Duration::from_secs(1));
        if let (Some(code), Status::Exited(status)) = (self.ended, &status)
            && code != *status
        {
            log::warn!("{}: the script said that it ends with {code} and ended with {status}", self.host);
        }
        stderr
    }

    /// What the script wrote to stderr, the last of it.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The error of a script that does not say what was waited for.
    pub fn silent(&self) -> SourceError {
        SourceError::Silent {
            host: self.host.clone(),
            what: self.what.clone(),
            silence: self.last_heard.elapsed(),
        }
    }

    fn keep_alive(&mut self, now: Instant) -> Result<(), SourceError> {
        if now >= self.deadline || now.duration_since(self.last_heard) > SILENCE {
            return Err(self.silent());
        }
        if now.duration_since(self.last_beat) >= BEAT_EVERY {
            self.last_beat = now;
            self.channel.send(Request::Beat.line().as_bytes());
        }
        Ok(())
    }

    fn pump(&mut self, wait: Duration) -> Result<(), SourceError> {
        let heard = self.channel.poll(wait)?;
        self.last_listened = Instant::now();
        if !heard.stdout.is_empty() || !heard.stderr.is_empty() {
            self.last_heard = Instant::now();
        }
        self.stderr.extend(&heard.stderr);
        let excess = self.stderr.len().saturating_sub(STDERR_KEPT);
        self.stderr.drain(..excess);
        self.closed = heard.closed;
        self.reader
            .feed(&heard.stdout, &mut self.replies)
            .map_err(|error| SourceError::Protocol { host: self.host.clone(), error })
    }

    /// Sees that a reply was asked for, once.
    fn checked(&mut self, reply: Reply) -> Result<Reply, SourceError> {
        let asked = match &reply {
            Reply::Done { no, .. } | Reply::Error { no, .. } => self.open.remove(no).then_some(()).ok_or(*no),
            Reply::Row { no, .. } | Reply::Part { no, .. } => self.open.contains(no).then_some(()).ok_or(*no),
            Reply::End { code } => {
                self.ended = Some(*code);
                Ok(())
            }
            Reply::Hello { .. } | Reply::Beat => Ok(()),
        };
        match asked {
            Ok(()) => Ok(reply),
            Err(no) => Err(self.protocol(ProtocolError::Unasked(no))),
        }
    }

    /// The error of a script that broke the protocol.
    pub fn protocol(&self, error: ProtocolError) -> SourceError {
        SourceError::Protocol { host: self.host.clone(), error }
    }

    /// The streams closed before `end`: the exit status may say why.
    fn closed_early(&mut self) -> SourceError {
        let gone = Box::new(Gone);
        let channel = std::mem::replace(&mut self.channel, gone);
        let status = channel.end(Duration::from_secs(5));
        not_done(&self.host, &self.what, &status, &self.stderr())
    }
}

impl fmt::Debug for Conversation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation")
            .field("host", &self.host)
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}

/// Stands where a channel was that has been asked for its end.
struct Gone;

impl Channel for Gone {
    fn send(&mut self, _bytes: &[u8]) {}

    fn close_stdin(&mut self) {}

    fn poll(&mut self, _wait: Duration) -> Result<crate::remote::Heard, crate::remote::RemoteError> {
        Ok(crate::remote::Heard { closed: true, ..Default::default() })
    }

    fn end(self: Box<Self>, _within: Duration) -> Status {
        Status::Unknown
    }
}

/// Unguessable by what a login shell prints, and by an earlier run.
pub(super) fn nonce() -> String {
    let mut bytes = [0; 12];
    openssl::rand::rand_bytes(&mut bytes).expect("the system has random numbers");
    bytes.iter().fold("gpf".to_owned(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
