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

mod comparing;
mod draw;
mod tally;

pub use comparing::Comparing;
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
    /// What is drawn, and who draws it; `None` where nobody wants to see it.
    shown: Option<(Arc<Mutex<Tally>>, Drawing)>,
}

impl Progress {
    /// Follows a run of this plan.
    pub fn new(screen: &Screen, plan: &Plan, halves: Halves, silent: bool) -> Self {
        let began = Instant::now();
        let shown = (!silent && !plan.units.is_empty()).then(|| {
            let tally = Arc::new(Mutex::new(Tally::new(plan)));
            let drawn = Arc::clone(&tally);
            let drawing = Drawing::new(screen, move |size, now| {
                // Whoever panicked while it held this has said so.
                let tally = drawn.lock().unwrap_or_else(PoisonError::into_inner);
                match size {
                    Some(size) => draw::screen(&tally, halves, size, now),
                    None => vec![draw::log(&tally, halves, now)],
                }
            });
            (tally, drawing)
        });
        Self { began, shown }
    }

    /// Takes an event in.
    pub fn hear(&mut self, event: &Event) {
        let Some((tally, _)) = &self.shown else { return };
        let now = self.began.elapsed();
        tally.lock().unwrap_or_else(PoisonError::into_inner).hear(event, now);
    }

    /// Takes the bars away.
    pub fn finish(self) {
        if let Some((_, drawing)) = self.shown {
            drawing.finish();
        }
    }
}

/// A thread that draws by the clock, until it is told that all is done.
#[derive(Debug)]
struct Drawing {
    until: Sender<()>,
    thread: JoinHandle<()>,
}

impl Drawing {
    /// `lines` says what is drawn so long after the beginning: on a terminal of so many columns and rows, or, without
    /// one, in a log.
    fn new(
        screen: &Screen,
        lines: impl Fn(Option<(usize, usize)>, Duration) -> Vec<String> + Send + 'static,
    ) -> Self {
        let (began, screen) = (Instant::now(), screen.clone());
        let (drawing, until) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let is_terminal = io::stderr().is_terminal();
            let mut shown = Lines { screen, bars: Vec::new() };
            let every = if is_terminal { FRAME } else { EVERY };
            while until.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                if is_terminal {
                    shown.show(&lines(Some(size()), began.elapsed()));
                } else {
                    lines(None, began.elapsed()).iter().for_each(|line| log::info!("{line}"));
                }
            }
            shown.show(&[]);
        });
        Self { until: drawing, thread }
    }

    fn finish(self) {
        drop(self.until);
        // A thread that could not draw has said why.
        let _ = self.thread.join();
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
