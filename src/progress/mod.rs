//! Events → bars on a terminal, a line every few seconds in a log. Everything here goes to stderr.
//!
//! A thread of its own draws, by the clock: a table that takes an hour sends few events, and its time goes on.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::engine::{Event, Halves};
use crate::plan::Plan;

mod draw;
mod tally;

use tally::Tally;

/// How often a log hears of progress.
const EVERY: Duration = Duration::from_secs(5);
/// How often a terminal does.
const FRAME: Duration = Duration::from_millis(250);

/// stderr, shared by bar and log lines so that neither tears the other.
#[derive(Debug, Clone)]
pub struct Screen {
    bars: MultiProgress,
}

impl Default for Screen {
    fn default() -> Self {
        Self { bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()) }
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bars.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Follows a run.
#[derive(Debug)]
pub struct Progress {
    began: Instant,
    /// `None` where nobody wants to see it.
    drawing: Option<Drawing>,
}

/// Who draws, and what.
#[derive(Debug)]
struct Drawing {
    tally: Arc<Mutex<Tally>>,
    /// Closed when the run ends.
    on: Sender<()>,
    thread: JoinHandle<()>,
}

impl Progress {
    /// Follows a run of this plan.
    pub fn new(screen: &Screen, plan: &Plan, halves: Halves, silent: bool) -> Self {
        let began = Instant::now();
        let drawing = (!silent && !plan.units.is_empty()).then(|| {
            let (on, until) = channel::<()>();
            let told = Arc::new(Mutex::new(Tally::new(plan)));
            let (tally, screen) = (Arc::clone(&told), screen.clone());
            let thread = std::thread::spawn(move || {
                let is_terminal = io::stderr().is_terminal();
                let mut lines = Lines { screen, bars: Vec::new() };
                let every = if is_terminal { FRAME } else { EVERY };
                while until.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                    let now = began.elapsed();
                    // Whoever panicked while it held this has said so.
                    let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                    if is_terminal {
                        let drawn = draw::screen(&tally, halves, size(), now);
                        drop(tally);
                        lines.show(&drawn);
                    } else {
                        let line = draw::log(&tally, halves, now);
                        drop(tally);
                        log::info!("{line}");
                    }
                }
                lines.show(&[]);
            });
            Drawing { tally: told, on, thread }
        });
        Self { began, drawing }
    }

    /// Takes an event in.
    pub fn hear(&mut self, event: &Event) {
        let Some(Drawing { tally, .. }) = &self.drawing else { return };
        let now = self.began.elapsed();
        tally.lock().unwrap_or_else(PoisonError::into_inner).hear(event, now);
    }

    /// Takes the bars away.
    pub fn finish(self) {
        let Some(Drawing { on, thread, .. }) = self.drawing else { return };
        drop(on);
        // A thread that could not draw has said why.
        let _ = thread.join();
    }
}

/// Columns and rows of the terminal; those of an old one where it does not say.
fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or((80, 24), |size| (usize::from(size.ws_col), usize::from(size.ws_row)))
}

/// Lines at the bottom of a terminal: each is a bar of indicatif's that shows nothing but its message.
struct Lines {
    screen: Screen,
    bars: Vec<ProgressBar>,
}

impl Lines {
    fn show(&mut self, lines: &[String]) {
        while self.bars.len() > lines.len() {
            if let Some(bar) = self.bars.pop() {
                bar.finish_and_clear();
                self.screen.bars.remove(&bar);
            }
        }
        while self.bars.len() < lines.len() {
            let bar = self.screen.bars.add(ProgressBar::new_spinner());
            // The template is a constant; if indicatif refused it, its own style would do.
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            self.bars.push(bar);
        }
        for (bar, line) in self.bars.iter().zip(lines) {
            bar.set_message(line.clone());
        }
    }
}
