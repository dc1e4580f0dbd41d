//! Conversations with source hosts that go from hand to hand, and the sessions under them.
//!
//! To begin one takes a channel, a shell, a psql and a backend: 0.1 to 0.2 s, and as much CPU. So who has asked a catalog
//! leaves the conversation here, where who asks the next question, and then who exports, takes it up. While catalogs are still
//! being asked, those that exporters will want are begun already.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::{locked, prepare};
use crate::inventory::Source;
use crate::remote::ssh::Pool;
use crate::source::postgres::SourceFacts;
use crate::source::{Bounds, Conversation, Questions, Script, SourceError};
use crate::stop::Stop;

/// How long one that was begun ahead may take to say that its database answers.
const READY: Duration = Duration::from_secs(60);
/// How often who waits for one looks again.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Sessions with hosts, and the conversations that were left open. Those are ended when this is dropped.
#[expect(missing_debug_implementations, reason = "sessions have nothing to show")]
pub struct Talks {
    pool: Pool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    sources: Mutex<HashMap<String, Kept>>,
    changed: Condvar,
}

/// What is kept of one source.
#[derive(Default)]
struct Kept {
    talks: Vec<Conversation<'static>>,
    /// Conversations that are being begun.
    coming: usize,
    /// What its database is, once it was asked.
    facts: Option<SourceFacts>,
    /// Nobody takes any more.
    over: bool,
}

impl Deref for Talks {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.pool
    }
}

impl Talks {
    /// Without conversations, over these sessions.
    pub fn new(pool: Pool) -> Self {
        Self { pool, shared: Arc::default() }
    }

    /// One that was left, or is being begun; `None` where there is none.
    pub(super) fn take(&self, source: &Source) -> Option<Conversation<'static>> {
        let mut stale = Vec::new();
        let taken = self.take_fresh(source, &mut stale);
        leave(stale);
        taken
    }

    fn take_fresh(
        &self,
        source: &Source,
        stale: &mut Vec<Conversation<'static>>,
    ) -> Option<Conversation<'static>> {
        let mut sources = locked(&self.shared.sources);
        loop {
            let kept = sources.get_mut(&source.name)?;
            while let Some(talk) = kept.talks.pop() {
                if talk.is_fresh() {
                    return Some(talk);
                }
                stale.push(talk);
            }
            if kept.coming == 0 {
                return None;
            }
            let waited = self.shared.changed.wait_timeout(sources, LOOK_EVERY);
            sources = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// One that was left, or a new one. The script must be on the host.
    pub(super) fn take_or_begin(
        &self,
        source: &Source,
        script: &Script,
    ) -> Result<Conversation<'static>, SourceError> {
        match self.take(source) {
            Some(talk) => Ok(talk),
            None => begin(&self.pool, source, script),
        }
    }

    /// Leaves one for others. A source whose exports are made by another script has no use for it.
    pub(super) fn keep(&self, source: &Source, talk: Conversation<'static>) {
        if source.script.is_some() {
            return talk.leave();
        }
        self.shared.keep(&source.name, talk);
    }

    /// What a source's database is, where that was asked already.
    pub(super) fn facts(&self, source: &Source) -> Option<SourceFacts> {
        locked(&self.shared.sources).get(&source.name).and_then(|kept| kept.facts)
    }

    /// Remembers it.
    pub(super) fn note_facts(&self, source: &Source, facts: SourceFacts) {
        locked(&self.shared.sources).entry(source.name.clone()).or_default().facts = Some(facts);
    }

    /// Begins so many more, each up to where its database answers, and does not wait for them. One that cannot be begun is
    /// none: who then begins one itself hears why.
    pub(super) fn begin_ahead(&self, source: &Source, many: usize, run: &str, stop: &Stop) {
        if source.script.is_some() {
            return;
        }
        locked(&self.shared.sources).entry(source.name.clone()).or_default().coming += many;
        for _ in 0..many {
            let (pool, shared, stop) = (self.pool.clone(), Arc::clone(&self.shared), stop.clone());
            let (source, run) = (source.clone(), run.to_owned());
            std::thread::spawn(move || {
                let talk = ready(&pool, &source, &run, &stop)
                    .map_err(|error| log::debug!("{}: not begun ahead: {error}", source.name));
                shared.came(&source.name, talk.ok().flatten());
            });
        }
    }

    /// Ends all that is left.
    pub(super) fn leave_all(&self) {
        let mut left = Vec::new();
        for kept in locked(&self.shared.sources).values_mut() {
            left.append(&mut kept.talks);
        }
        leave(left);
    }
}

impl Drop for Talks {
    fn drop(&mut self) {
        locked(&self.shared.sources).values_mut().for_each(|kept| kept.over = true);
        self.leave_all();
    }
}

impl Shared {
    fn keep(&self, source: &str, talk: Conversation<'static>) {
        let mut sources = locked(&self.sources);
        let kept = sources.entry(source.to_owned()).or_default();
        if kept.over {
            drop(sources);
            return talk.leave();
        }
        kept.talks.push(talk);
        self.changed.notify_all();
    }

    /// One of those that were being begun is there, or will not be.
    fn came(&self, source: &str, talk: Option<Conversation<'static>>) {
        if let Some(talk) = talk {
            self.keep(source, talk);
        }
        if let Some(kept) = locked(&self.sources).get_mut(source) {
            kept.coming = kept.coming.saturating_sub(1);
        }
        self.changed.notify_all();
    }
}

/// Each waits for its script: all at once.
fn leave(talks: Vec<Conversation<'static>>) {
    std::thread::scope(|scope| {
        for talk in talks {
            scope.spawn(|| talk.leave());
        }
    });
}

/// Begins one. The script sets it no end, since nobody knows yet what it is for: who takes it up does, and hears from it
/// every few seconds or gives it up; and so does the script.
fn begin(pool: &Pool, source: &Source, script: &Script) -> Result<Conversation<'static>, SourceError> {
    let remote = pool.get(&prepare::host(source)?)?;
    Conversation::start_on(remote, script, "export", "a conversation", Duration::ZERO)
}

/// One whose database has answered.
fn ready(
    pool: &Pool,
    source: &Source,
    run: &str,
    stop: &Stop,
) -> Result<Option<Conversation<'static>>, SourceError> {
    let talk = begin(pool, source, &Script::greenplum())?;
    let mut questions = Questions::go_on(talk, source, run, Bounds { all: READY, each: READY, stop });
    questions.ask("SELECT 1".into(), "beginning a session", |_| {})?;
    Ok(questions.into_talk())
}
