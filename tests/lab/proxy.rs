//! A line that can be hurt: a TCP proxy that cuts, resets, holds, slows, and swallows the answer to COMMIT.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Where a line is cut, once, at the first COMMIT that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The server never sees it.
    Before,
    /// The server has committed, the client never hears so.
    After,
}

/// A proxy in front of a local port. It ends with the process.
#[derive(Clone)]
pub(crate) struct Proxy {
    port: u16,
    line: Arc<Line>,
}

#[derive(Default)]
struct Line {
    held: AtomicBool,
    /// Bytes per second each way; 0 for as fast as can be.
    speed: AtomicU64,
    /// How many more bytes pass before everything is reset; negative for no end.
    budget: AtomicI64,
    refusing: AtomicBool,
    at_commit: Mutex<Option<Cut>>,
    /// How often something was done to a connection.
    hits: AtomicU64,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Listens on a free port of `address`, and passes on to `server`, a port of this machine.
    pub(crate) fn new(address: &str, server: u16) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = Arc::new(Line { budget: AtomicI64::new(-1), ..Line::default() });
        let shared = Arc::clone(&line);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let line = Arc::clone(&shared);
                thread::spawn(move || line.serve(client, server));
            }
        });
        Self { port, line }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many connections were hurt so far.
    pub(crate) fn hits(&self) -> u64 {
        self.line.hits.load(Ordering::SeqCst)
    }

    /// As if nothing had ever happened.
    pub(crate) fn heal(&self) {
        self.line.held.store(false, Ordering::SeqCst);
        self.line.speed.store(0, Ordering::SeqCst);
        self.line.budget.store(-1, Ordering::SeqCst);
        self.line.refusing.store(false, Ordering::SeqCst);
        *self.line.at_commit.lock().unwrap() = None;
    }

    /// Nothing passes until [`Proxy::heal`]; nothing is closed either.
    pub(crate) fn hold(&self) {
        self.line.hits.fetch_add(self.line.open(), Ordering::SeqCst);
        self.line.held.store(true, Ordering::SeqCst);
    }

    pub(crate) fn slow(&self, bytes_per_second: u64) {
        self.line.hits.fetch_add(self.line.open(), Ordering::SeqCst);
        self.line.speed.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Every connection ends with a reset, now.
    pub(crate) fn reset(&self) {
        self.line.hits.fetch_add(self.line.open(), Ordering::SeqCst);
        self.line.reset();
    }

    /// Every connection ends with a reset, and new ones do at once.
    pub(crate) fn refuse(&self) {
        self.line.refusing.store(true, Ordering::SeqCst);
        self.reset();
    }

    /// Every connection ends with a reset after so many more bytes, once.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.line.budget.store(i64::try_from(bytes).unwrap(), Ordering::SeqCst);
    }

    /// One connection is cut at the next COMMIT.
    pub(crate) fn cut_at_commit(&self, cut: Cut) {
        *self.line.at_commit.lock().unwrap() = Some(cut);
    }
}

impl Line {
    fn open(&self) -> u64 {
        self.sockets.lock().unwrap().len() as u64 / 2
    }

    fn reset(&self) {
        for socket in self.sockets.lock().unwrap().drain(..) {
            // Without lingering a close is a reset; the pumps' own handles are shut down by it.
            let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn serve(&self, client: TcpStream, server: u16) {
        if self.refusing.load(Ordering::SeqCst) {
            self.hits.fetch_add(1, Ordering::SeqCst);
            let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
            return;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ends = [client.peer_addr(), server.peer_addr()];
        self.sockets.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
        let silent = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| self.pump(&server, &client, &silent, false));
            self.pump(&client, &server, &silent, true);
        });
        self.sockets.lock().unwrap().retain(|socket| {
            !socket.peer_addr().is_ok_and(|peer| ends.iter().flatten().any(|end| *end == peer))
        });
    }

    /// One direction, to its end.
    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream, silent: &AtomicBool, from_client: bool) {
        let mut buffer = [0; 65536];
        'all: while let Ok(n @ 1..) = from.read(&mut buffer) {
            while self.held.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
            if from_client && buffer[..n].windows(7).any(|bytes| bytes == b"COMMIT\0") {
                match self.at_commit.lock().unwrap().take() {
                    None => {}
                    Some(Cut::Before) => {
                        self.hits.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                    Some(Cut::After) => {
                        self.hits.fetch_add(1, Ordering::SeqCst);
                        silent.store(true, Ordering::SeqCst);
                    }
                }
            }
            if !from_client && silent.load(Ordering::SeqCst) {
                // This is the answer to COMMIT: it happened, and nobody hears of it.
                break;
            }
            let mut rest = &buffer[..n];
            while !rest.is_empty() {
                let speed = self.speed.load(Ordering::SeqCst);
                let size = if speed == 0 { rest.len() } else { rest.len().min(speed as usize / 50 + 1) };
                if !self.spend(size) || to.write_all(&rest[..size]).is_err() {
                    break 'all;
                }
                rest = &rest[size..];
                if speed > 0 {
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }

    /// Counts bytes, and resets everything where they were the last.
    fn spend(&self, bytes: usize) -> bool {
        let bytes = i64::try_from(bytes).unwrap();
        let left = self.budget.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            (left >= 0).then(|| if left <= bytes { -1 } else { left - bytes })
        });
        let over = left.is_ok_and(|left| left <= bytes);
        if over {
            self.hits.fetch_add(1, Ordering::SeqCst);
            self.reset();
        }
        !over
    }
}
