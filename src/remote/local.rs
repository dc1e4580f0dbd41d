//! Commands on this machine, with the same promises as over SSH: both streams drained, and nothing left behind.
//!
//! A command runs in a process group of its own. Letting go of it closes its stdin, which the bundled scripts
//! take as the order to end; what is still there after that gets TERM and at last KILL.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::ending::signal_name;
use super::{Channel, Heard, Remote, RemoteError, Status, without_secrets};

/// How much of one stream a single poll hands out.
const PIECE: usize = 64 * 1024;

/// How long a command that is let go of may take to end by itself once its stdin is closed.
const GRACE: Duration = Duration::from_millis(500);

/// How long it may take to end after TERM.
const TERM_GRACE: Duration = Duration::from_secs(5);

/// This machine as a host.
#[derive(Debug, Clone)]
pub struct Local {
    host: String,
}

impl Local {
    /// This machine, under the name that messages shall use.
    pub fn new(host: &str) -> Self {
        Self { host: host.into() }
    }
}

impl Remote for Local {
    fn host(&self) -> &str {
        &self.host
    }

    fn exec<'a>(&'a mut self, command: &str) -> Result<Box<dyn Channel + 'a>, RemoteError> {
        let here =
            |source| RemoteError::Here { host: self.host.clone(), what: "start `sh` here".into(), source };
        let mut child = without_secrets(&mut Command::new("sh"))
            .arg("-c")
            .arg(command)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(here)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let process = Process {
            host: &self.host,
            child,
            stdin,
            stdout,
            stderr,
            outbox: Vec::new(),
            closing: false,
            ended: false,
        };
        process.set_nonblocking().map_err(here)?;
        Ok(Box::new(process))
    }
}

/// One command that runs here.
struct Process<'a> {
    host: &'a str,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    outbox: Vec<u8>,
    closing: bool,
    ended: bool,
}

impl Process<'_> {
    fn set_nonblocking(&self) -> io::Result<()> {
        let fds = [
            self.stdin.as_ref().map(AsFd::as_fd),
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
        ];
        for fd in fds.into_iter().flatten() {
            let flags = rustix::fs::fcntl_getfl(fd)?;
            rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?;
        }
        Ok(())
    }

    /// Writes what is queued, as far as the pipe takes it. A command that closed its stdin is no error: how it
    /// ends says what it thought of that.
    fn write(&mut self) -> io::Result<()> {
        while let Some(stdin) = self.stdin.as_mut() {
            if self.outbox.is_empty() {
                if self.closing {
                    self.stdin = None;
                }
                break;
            }
            match stdin.write(&self.outbox) {
                Ok(n) => drop(self.outbox.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.stdin = None,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<Heard> {
        let stdout = drain(&mut self.stdout)?;
        let stderr = drain(&mut self.stderr)?;
        Ok(Heard { stdout, stderr, closed: self.stdout.is_none() && self.stderr.is_none() })
    }

    fn wait_for_streams(&self, wait: Duration) -> io::Result<()> {
        let stdin = self.stdin.as_ref().filter(|_| !self.outbox.is_empty());
        let mut fds: Vec<PollFd<'_>> = [
            self.stdout.as_ref().map(|fd| (fd.as_fd(), PollFlags::IN)),
            self.stderr.as_ref().map(|fd| (fd.as_fd(), PollFlags::IN)),
            stdin.map(|fd| (fd.as_fd(), PollFlags::OUT)),
        ]
        .into_iter()
        .flatten()
        .map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags))
        .collect();
        poll(&mut fds, wait)
    }

    /// Waits until the command has ended, without taking its status: while it is a zombie, the number of its
    /// group cannot become anybody else's.
    fn wait_for_end(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            match rustix::process::waitid(WaitId::Pid(self.group()), options) {
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Ok(Some(_)) | Err(_) => return true,
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = rustix::process::kill_process_group(self.group(), signal)
            && error != rustix::io::Errno::SRCH
        {
            log::warn!("cannot signal process group {}: {error}", self.child.id());
        }
    }
}

impl Channel for Process<'_> {
    fn send(&mut self, bytes: &[u8]) {
        self.outbox.extend_from_slice(bytes);
    }

    fn close_stdin(&mut self) {
        self.closing = true;
    }

    fn poll(&mut self, wait: Duration) -> Result<Heard, RemoteError> {
        let deadline = Instant::now() + wait;
        let lost = |host: &str, error: io::Error| RemoteError::Lost {
            host: host.into(),
            what: "a local command".into(),
            reason: error.to_string(),
        };
        loop {
            let heard = self.write().and_then(|()| self.read()).map_err(|error| lost(self.host, error))?;
            let left = deadline.saturating_duration_since(Instant::now());
            if heard != Heard::default() || left.is_zero() {
                return Ok(heard);
            }
            self.wait_for_streams(left).map_err(|error| lost(self.host, error))?;
        }
    }

    fn end(mut self: Box<Self>, within: Duration) -> Status {
        if !self.wait_for_end(within) {
            return Status::Unknown;
        }
        self.signal(Signal::KILL);
        self.ended = true;
        let Ok(status) = self.child.wait() else { return Status::Unknown };
        let signal = status.signal().and_then(|signal| u8::try_from(signal).ok());
        match (status.code().and_then(|code| u32::try_from(code).ok()), signal) {
            (Some(code), _) => Status::Exited(code),
            (None, Some(signal)) => Status::Signalled(signal_name(signal).trim_start_matches("SIG").into()),
            (None, None) => Status::Unknown,
        }
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.stdin = None;
        if !self.wait_for_end(GRACE) {
            self.signal(Signal::TERM);
            self.wait_for_end(TERM_GRACE);
        }
        self.signal(Signal::KILL);
        if let Err(error) = self.child.wait() {
            log::warn!("cannot wait for process {}: {error}", self.child.id());
        }
    }
}

/// Reads what is there, and lets go of a stream that is at its end.
fn drain(stream: &mut Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(open) = stream.as_mut() else { return Ok(bytes) };
    let mut buffer = [0; PIECE];
    match open.read(&mut buffer) {
        Ok(0) => *stream = None,
        Ok(n) => bytes.extend_from_slice(&buffer[..n]),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
        Err(e) => return Err(e),
    }
    Ok(bytes)
}

/// `poll(2)`, whose interruption by a signal counts as a turn.
pub(super) fn poll(fds: &mut [PollFd<'_>], wait: Duration) -> io::Result<()> {
    let wait = Timespec::try_from(wait).map_err(|_| io::ErrorKind::InvalidInput)?;
    match rustix::event::poll(fds, Some(&wait)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: &str, stdin: &[u8]) -> (Vec<u8>, Vec<u8>, Status) {
        let mut local = Local::new("here");
        let mut channel = local.exec(command).unwrap();
        channel.send(stdin);
        channel.close_stdin();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            let heard = channel.poll(Duration::from_secs(10)).unwrap();
            out.extend(heard.stdout);
            err.extend(heard.stderr);
            if heard.closed {
                return (out, err, channel.end(Duration::from_secs(10)));
            }
        }
    }

    #[test]
    fn exit_codes_and_signals_arrive_as_they_are() {
        assert_eq!(run("exit 0", b"").2, Status::Exited(0));
        assert_eq!(run("exit 99", b"").2, Status::Exited(99));
        assert_eq!(run("kill -KILL $$", b"").2, Status::Signalled("KILL".into()));
    }

    #[test]
    fn what_goes_in_comes_out_however_much_it_is() {
        let bytes = vec![b'x'; 3_000_000];
        let (out, err, status) = run("tee /dev/stderr", &bytes);
        assert_eq!((out.len(), err.len(), status), (bytes.len(), bytes.len(), Status::Exited(0)));
    }

    #[test]
    fn a_command_that_does_not_read_its_stdin_is_no_error() {
        assert_eq!(run("exit 3", &vec![b'x'; 3_000_000]).2, Status::Exited(3));
    }

    #[test]
    fn nothing_is_left_when_a_command_is_let_go_of() {
        let mut local = Local::new("here");
        let mut channel = local.exec("trap '' TERM; sleep 1000 & echo $! $$; wait; sleep 1000").unwrap();
        let heard = channel.poll(Duration::from_secs(10)).unwrap();
        let pids = String::from_utf8(heard.stdout).unwrap();
        drop(channel);
        for pid in pids.split_whitespace() {
            // A killed process may take a moment to be gone; one that was not killed sleeps for 1000 s.
            let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let gone = || stat().is_empty() || stat().contains(") Z ");
            let until = Instant::now() + Duration::from_secs(10);
            while !gone() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(gone(), "{pid} is still there: {}", stat());
        }
        assert_eq!(pids.split_whitespace().count(), 2, "{pids:?}");
    }

    #[test]
    fn a_command_that_closes_its_streams_and_stays_has_no_status_yet() {
        let mut local = Local::new("here");
        let mut channel = local.exec("exec >&- 2>&-; sleep 0.3; exit 7").unwrap();
        assert!(channel.poll(Duration::from_secs(10)).unwrap().closed);
        assert_eq!(channel.end(Duration::from_secs(10)), Status::Exited(7));
    }
}
