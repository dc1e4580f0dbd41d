//! A session on each side, asked at the same time.

use std::time::Duration;

use super::watch::Watch;
use crate::inventory::Source;
use crate::remote::Remote;
use crate::source::keys::ease_digests;
use crate::source::{Bounds, Questions, Script, SourceError};
use crate::step::compare::{Both, Side, Unread};
use crate::target::{Session, TargetError};

/// How long is waited for the target before the source hears from us again.
const MOMENT: Duration = Duration::from_millis(20);

/// A session on each side.
pub(super) struct Pair<'a> {
    source: Questions<'a>,
    target: Session,
    version: u32,
    /// How long a question may take in the source; a session that was told another limit may be a new one.
    limit: Option<Duration>,
    /// A question failed: what is left of it on either side is not waited for.
    broken: bool,
    /// Who looks on, and which table it is.
    pub(super) watched: Option<(&'a Watch, usize)>,
}

impl<'a> Pair<'a> {
    /// Begins a conversation with the source, beside a session of the target.
    pub(super) fn begin(
        remote: &'a mut dyn Remote,
        source: &Source,
        target: Session,
        version: u32,
        bounds: Bounds<'_>,
    ) -> Result<Self, Unread> {
        let began = Questions::begin(remote, &Script::greenplum(), source, "compare", bounds);
        let source = began.map_err(|error| of_source(&error))?;
        Ok(Self { source, target, version, limit: None, broken: false, watched: None })
    }

    /// How long one question may take on each side, from now on.
    pub(super) fn limit(&mut self, source: Duration, target: Duration) -> Result<(), Unread> {
        if self.limit != Some(source) {
            self.source.limit(source);
            match self.source.ask(ease_digests(self.version, false), "setting its session up", |_| {}) {
                // It goes without, only slower.
                Ok(()) | Err(SourceError::Failed { .. }) => self.limit = Some(source),
                Err(error) => return Err(of_source(&error)),
            }
        }
        self.target.ease_digests(target).map_err(|error| of_target(&error))
    }

    /// Is it of no more use?
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Ends the conversation in order.
    pub(super) fn end(self) -> Result<(), SourceError> {
        self.source.end()
    }
}

impl Both for Pair<'_> {
    fn ask(
        &mut self,
        questions: [String; 2],
        doing: &str,
        rows: [&mut (dyn FnMut(&str) + Send); 2],
    ) -> Result<(), Unread> {
        if let Some((watch, table)) = self.watched {
            watch.asks(table, doing);
        }
        let [of_one, of_other] = questions;
        let [one, other] = rows;
        let (source, target) = (&mut self.source, &mut self.target);
        log::debug!("source: {of_one}");
        let canceller = target.canceller();
        let asked = std::thread::scope(|scope| {
            let there = scope.spawn(move || target.read_rows(&of_other, doing, other));
            let mut here = source.ask(of_one, &format!("asked to {doing}"), one);
            while here.is_ok() && !there.is_finished() {
                here = source.idle(MOMENT);
            }
            if here.is_err() {
                // What the target would answer is of no more use.
                canceller.cancel();
            }
            let there = there.join().unwrap_or_else(|_| {
                Err(TargetError::Lost { doing: doing.into(), why: "its thread ended early".into() })
            });
            here.map_err(|error| of_source(&error))?;
            there.map_err(|error| of_target(&error))
        });
        self.broken |= asked.is_err();
        asked
    }
}

/// A question that the source did not answer.
pub(super) fn of_source(error: &SourceError) -> Unread {
    let lost = !matches!(error, SourceError::Failed { .. }) && error.can_retry();
    let unreachable = error.is_unreachable();
    Unread { lost, unreachable, ..Unread::new(Side::Source, error.to_string(), error.remedy()) }
}

/// A question that the target did not answer.
pub(super) fn of_target(error: &TargetError) -> Unread {
    let (lost, unreachable) = (error.can_retry(), error.is_unreachable());
    Unread { lost, unreachable, ..Unread::new(Side::Target, error.to_string(), error.remedy()) }
}
