//! One command over one channel: bytes both ways without ever blocking, and an ending that was really seen.
//!
//! What cannot be seen: the libssh2 binding says exit status 0 also where the server sent none (the C library has
//! `libssh2_channel_has_exit_status`, which the binding does not offer). A connection that breaks is noticed as an
//! error and so is [`Status::Unknown`]; a server that closes the channel in good order without a status is not.
//! Hence the rule: success needs a trailer on stdout as well.

use std::io::{self, Read, Write};
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use libssh2_sys as raw;
use rustix::event::{PollFd, PollFlags};
use ssh2::{BlockDirections, ErrorCode};

use super::pool::Pooled;
use super::session::{Connection, is_loss, is_timeout, milliseconds};
use crate::remote::local::poll;
use crate::remote::{Channel, Heard, RemoteError, Status};

/// How much of one stream a single poll hands out.
const PIECE: usize = 64 * 1024;

/// A command that runs on a host.
pub(super) struct SshChannel<'a> {
    host: String,
    connection: Line<'a>,
    channel: Option<ssh2::Channel>,
    outbox: Vec<u8>,
    /// What a poll reads into: many say little, and a new one for each would cost more than what they say.
    inbox: Box<[u8]>,
    stdin: Stdin,
}

/// The connection that a command runs on.
pub(super) enum Line<'a> {
    /// Whoever lent it goes on with it.
    Lent(&'a mut Connection),
    /// It goes back to its pool with the command.
    Own(Box<Pooled>),
}

impl Deref for Line<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match self {
            Self::Lent(connection) => connection,
            Self::Own(pooled) => pooled.connection(),
        }
    }
}

impl DerefMut for Line<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        match self {
            Self::Lent(connection) => connection,
            Self::Own(pooled) => pooled.connection_mut(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stdin {
    Open,
    /// To be closed when the outbox is empty.
    Closing,
    Closed,
}

impl<'a> SshChannel<'a> {
    /// Starts a command on a channel that [`open`] gave.
    pub(super) fn start(
        host: &str,
        mut connection: Line<'a>,
        mut channel: ssh2::Channel,
        command: &str,
        limit: Duration,
    ) -> Result<Self, RemoteError> {
        if let Err(error) = channel.exec(command) {
            connection.give_up();
            return Err(not_started(host, limit, &error));
        }
        connection.session.set_blocking(false);
        let host = host.to_owned();
        Ok(Self {
            host,
            connection,
            channel: Some(channel),
            outbox: Vec::new(),
            inbox: vec![0; PIECE].into(),
            stdin: Stdin::Open,
        })
    }

    fn lost(&mut self, reason: &dyn std::fmt::Display) -> RemoteError {
        self.connection.broken = true;
        RemoteError::Lost { host: self.host.clone(), what: "a command".into(), reason: reason.to_string() }
    }

    /// Sends what is queued, as far as the other side takes it, and then the end of stdin.
    fn write(&mut self) -> io::Result<()> {
        let Some(channel) = self.channel.as_mut() else { return Ok(()) };
        while !self.outbox.is_empty() && self.stdin != Stdin::Closed {
            match channel.write(&self.outbox) {
                // The window of the channel is full.
                Ok(0) => return Ok(()),
                Ok(n) => drop(self.outbox.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The command is over, and says by its ending what it thought of that.
                Err(_) if channel.eof() => self.stdin = Stdin::Closed,
                Err(error) => return Err(error),
            }
        }
        if self.stdin == Stdin::Closing {
            match channel.send_eof().map_err(io::Error::from) {
                Ok(()) => self.stdin = Stdin::Closed,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<Heard> {
        let Some(channel) = self.channel.as_mut() else {
            return Ok(Heard { closed: true, ..Heard::default() });
        };
        let stdout = drain(channel, &mut self.inbox)?;
        let stderr = match drain(&mut channel.stderr(), &mut self.inbox) {
            Ok(stderr) => stderr,
            // What came before the error is handed out; the next poll meets it again.
            Err(_) if !stdout.is_empty() => return Ok(Heard { stdout, ..Heard::default() }),
            Err(error) => return Err(error),
        };
        // True only once nothing of either stream is left to be read.
        Ok(Heard { stdout, stderr, closed: channel.eof() })
    }

    /// Waits until the socket is ready for what libssh2 wants next.
    fn wait(&self, wait: Duration) -> io::Result<()> {
        let flags = match self.connection.session.block_directions() {
            BlockDirections::None | BlockDirections::Inbound => PollFlags::IN,
            // A packet is half sent: until it has left, nothing else can be done, reading included.
            BlockDirections::Outbound => PollFlags::OUT,
            BlockDirections::Both => PollFlags::IN | PollFlags::OUT,
        };
        poll(&mut [PollFd::new(&*self.connection.socket.0, flags)], wait)
    }

    /// Repeats a call of libssh2 that does not block until it is done.
    fn until_done(
        &mut self,
        deadline: Instant,
        mut call: impl FnMut(&mut ssh2::Channel) -> Result<(), ssh2::Error>,
    ) -> io::Result<()> {
        loop {
            let Some(channel) = self.channel.as_mut() else { return Ok(()) };
            match call(channel).map_err(io::Error::from) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.wait(left)?;
        }
    }

    /// Waits for the server to close the channel, which it does after the status, then closes ours. Closing first
    /// would leave it to the server whether it still says the status (OpenSSH 9.2 does).
    fn see_the_end(&mut self, within: Duration) -> io::Result<Status> {
        let deadline = Instant::now() + within;
        self.until_done(deadline, ssh2::Channel::wait_close)?;
        self.until_done(deadline, ssh2::Channel::close)?;
        let Some(channel) = self.channel.as_ref() else { return Ok(Status::Unknown) };
        if let Some(signal) = channel.exit_signal()?.exit_signal {
            return Ok(Status::Signalled(signal));
        }
        Ok(match u32::try_from(channel.exit_status()?) {
            Ok(code) => Status::Exited(code),
            Err(_) => Status::Unknown,
        })
    }
}

impl Channel for SshChannel<'_> {
    fn send(&mut self, bytes: &[u8]) {
        self.outbox.extend_from_slice(bytes);
    }

    fn close_stdin(&mut self) {
        if self.stdin == Stdin::Open {
            self.stdin = Stdin::Closing;
        }
    }

    fn poll(&mut self, wait: Duration) -> Result<Heard, RemoteError> {
        let deadline = Instant::now() + wait;
        loop {
            let wrote = self.write();
            let heard = self.read().map_err(|error| self.lost(&error))?;
            // What arrived before the line broke comes first; the error is met again.
            if heard == Heard::default() {
                wrote.map_err(|error| self.lost(&error))?;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if heard != Heard::default() || left.is_zero() {
                return Ok(heard);
            }
            self.wait(left).map_err(|error| self.lost(&error))?;
        }
    }

    fn end(mut self: Box<Self>, within: Duration) -> Status {
        match self.see_the_end(within) {
            Ok(status) => {
                // Closed on both sides: letting go of it needs no answer any more.
                self.channel = None;
                self.connection.used = true;
                status
            }
            Err(error) => {
                log::debug!("`{}`: the end of a command was not seen: {error}", self.host);
                Status::Unknown
            }
        }
    }
}

impl Drop for SshChannel<'_> {
    /// A command that was not seen to end takes the whole connection with it: sshd then closes its stdin, which
    /// is the order to end, and no answer is waited for.
    fn drop(&mut self) {
        if self.channel.is_some() {
            self.connection.give_up();
            self.channel = None;
        }
    }
}

/// Reads what is there of one stream, as much as goes into the buffer.
fn drain(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<Vec<u8>> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if filled == 0 => return Err(error),
            // As above.
            Err(_) => break,
        }
    }
    Ok(buffer[..filled].to_vec())
}

/// Opens a channel. The session then blocks, with `limit` as its timeout, until a command is started.
pub(super) fn open(
    host: &str,
    connection: &mut Connection,
    limit: Duration,
) -> Result<ssh2::Channel, RemoteError> {
    connection.session.set_timeout(milliseconds(limit));
    connection.session.set_blocking(true);
    connection.session.channel_session().map_err(|error| {
        let error = not_started(host, limit, &error);
        // A session that opens no further channel still stands.
        if !matches!(error, RemoteError::ChannelRefused { .. }) {
            connection.give_up();
        }
        error
    })
}

/// Why a command did not start.
fn not_started(host: &str, limit: Duration, error: &ssh2::Error) -> RemoteError {
    let host = host.to_owned();
    if is_timeout(error) {
        return RemoteError::TimedOut { host, what: "starting a command".into(), limit };
    }
    let refused = matches!(
        error.code(),
        ErrorCode::Session(raw::LIBSSH2_ERROR_CHANNEL_FAILURE | raw::LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED)
    );
    match refused && !is_loss(error) {
        true => RemoteError::ChannelRefused { host, reason: error.message().into() },
        false => {
            RemoteError::Lost { host, what: "starting a command".into(), reason: error.message().into() }
        }
    }
}
