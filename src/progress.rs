//! Events → a bar on a terminal, a line every few seconds in a log. Everything here goes to stderr.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::engine::{Event, What};

/// How often a log hears of progress.
const EVERY: Duration = Duration::from_secs(5);

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
    bar: Option<ProgressBar>,
    total: usize,
    exported: usize,
    loaded: usize,
    failed: usize,
    rows: u64,
    bytes: u64,
    last: Instant,
    silent: bool,
}

impl Progress {
    /// Follows a run of `total` units.
    pub fn new(screen: &Screen, total: usize, silent: bool) -> Self {
        let bar = (!silent && total > 0 && io::stderr().is_terminal()).then(|| {
            let bar = screen.bars.add(ProgressBar::new(total as u64));
            let template = "{elapsed_precise} [{bar:20}] {pos}/{len} units, {msg}";
            // The template is a constant; if indicatif refused it, its own style would do.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let last = Instant::now();
        Self { bar, total, exported: 0, loaded: 0, failed: 0, rows: 0, bytes: 0, last, silent }
    }

    /// Takes an event in.
    pub fn hear(&mut self, event: &Event) {
        match &event.what {
            What::Exporting { .. }
            | What::Loading
            | What::Retrying(_)
            | What::Left
            | What::Closed
            | What::Keying
            | What::Keyed(_) => {}
            What::Exported { exported, .. } | What::Resumed(exported) => {
                self.exported += 1;
                self.bytes += exported.trailer.bytes;
            }
            What::Loaded(loaded) => {
                self.loaded += 1;
                self.rows += loaded.rows;
            }
            What::Failed(_) => self.failed += 1,
        }
        match &self.bar {
            Some(bar) => {
                bar.set_position((self.loaded + self.failed) as u64);
                bar.set_message(format!(
                    "{} rows, {} exported, {} failed",
                    self.rows,
                    HumanBytes(self.bytes),
                    self.failed
                ));
            }
            None if !self.silent && self.last.elapsed() >= EVERY => {
                self.last = Instant::now();
                log::info!(
                    "{} of {} units exported ({}), {} loaded ({} rows), {} failed",
                    self.exported,
                    self.total,
                    HumanBytes(self.bytes),
                    self.loaded,
                    self.rows,
                    self.failed
                );
            }
            None => {}
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
