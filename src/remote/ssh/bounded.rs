//! A limit of wall-clock time around work that may hang in other people's code: the resolver, the agent, libssh2.
//!
//! The work runs in a thread of its own and says which stage it is in. A stage that takes too long is an error
//! that names it; the thread is then left behind, and ends when what it waits for lets it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How the work tells where it is.
pub(super) struct Stage(Sender<Step>);

enum Step {
    Begins(&'static str, Duration),
    AsksAPerson,
}

/// Why there is no result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfinished {
    /// A stage took longer than it may.
    TooLong(&'static str, Duration),
    /// The thread could not be started, or panicked.
    Died(&'static str),
}

impl Stage {
    /// The next stage begins, and may take so long.
    pub(super) fn begins(&self, what: &'static str, limit: Duration) {
        // Nobody listens any more once the time was over; the work then ends by itself.
        drop(self.0.send(Step::Begins(what, limit)));
    }

    /// A person is asked something; the time for that is theirs.
    pub(super) fn asks_a_person(&self) {
        drop(self.0.send(Step::AsksAPerson));
    }
}

/// What stages have left over in `bounded`, since they have limits of their own, whose errors say more.
const SLACK: Duration = Duration::from_millis(500);

/// Runs `work` in a thread and waits for it, stage by stage.
pub(super) fn bounded<T: Send + 'static>(
    work: impl FnOnce(&Stage) -> T + Send + 'static,
) -> Result<T, Unfinished> {
    let (steps, heard) = channel();
    let thread = std::thread::Builder::new().name("ssh-connect".into()).spawn(move || {
        let stage = Stage(steps);
        work(&stage)
    });
    let Ok(thread) = thread else { return Err(Unfinished::Died("starting a thread")) };
    let last = listen(&heard)?;
    thread.join().map_err(|_| Unfinished::Died(last))
}

/// Follows the stages until the work lets go of its end of the line.
fn listen(heard: &Receiver<Step>) -> Result<&'static str, Unfinished> {
    let mut current = ("starting", Duration::from_secs(5));
    let mut deadline = Some(Instant::now() + current.1);
    loop {
        let step = match deadline {
            Some(at) => heard.recv_timeout((at + SLACK).saturating_duration_since(Instant::now())),
            None => heard.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match step {
            Ok(Step::Begins(what, limit)) => {
                current = (what, limit);
                deadline = Some(Instant::now() + limit);
            }
            Ok(Step::AsksAPerson) => deadline = None,
            Err(RecvTimeoutError::Disconnected) => return Ok(current.0),
            Err(RecvTimeoutError::Timeout) => return Err(Unfinished::TooLong(current.0, current.1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_hangs_is_left_and_named_by_its_stage() {
        let limit = Duration::from_millis(20);
        let begun = Instant::now();
        let result = bounded(move |stage| {
            stage.begins("hanging", limit);
            std::thread::sleep(Duration::from_secs(30));
        });
        assert_eq!(result, Err(Unfinished::TooLong("hanging", limit)));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    #[test]
    fn the_time_of_a_person_is_not_counted() {
        let result = bounded(|stage| {
            stage.begins("authentication", Duration::from_millis(1));
            stage.asks_a_person();
            std::thread::sleep(SLACK * 2);
            stage.begins("authentication", Duration::from_secs(9));
            7
        });
        assert_eq!(result, Ok(7));
    }
}
