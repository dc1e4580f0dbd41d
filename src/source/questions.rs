//! Asking a source's database: one question after another, in one conversation and one database session.

use std::time::Duration;

use super::protocol::ProtocolError;
use super::{Conversation, Reply, Request, Script, SourceError};
use crate::inventory::Source;
use crate::remote::Remote;
use crate::stop::Stop;

/// How often a question that waits looks whether it should stop.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What every conversation with a source's script sets: how its host reaches the database, and the mount.
pub fn settings<'a>(source: &'a Source, run: &'a str) -> impl Iterator<Item = (&'static str, String)> + 'a {
    let connection = &source.connection;
    [
        ("PGHOST", connection.host.clone()),
        ("PGPORT", connection.port.map(|port| port.to_string())),
        ("PGUSER", connection.user.clone()),
        ("PGDATABASE", Some(source.database.clone())),
        ("PGAPPNAME", Some(format!("gpferry {run}"))),
        ("PSQL", connection.psql.as_ref().map(|psql| psql.display().to_string())),
        ("MOUNT", Some(source.mount.display().to_string())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}

/// Completes "while it ran …".
const WHAT: &str = "questions to the catalog";

/// What bounds the questions of one conversation.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// Longest time for all of them.
    pub all: Duration,
    /// Longest time for one of them, in the database.
    pub each: Duration,
    /// Ends them early.
    pub stop: &'a Stop,
}

/// A conversation in which a source's database is asked.
#[derive(Debug)]
pub struct Questions<'a> {
    talk: Conversation<'a>,
    host: String,
    database: String,
    stop: Stop,
    asked: u32,
    /// Something else than a refusal came of a question: nobody shall go on with the conversation.
    broken: bool,
}

impl<'a> Questions<'a> {
    /// Begins. `name` tells the sessions of different purposes apart in the database's own lists.
    ///
    /// # Errors
    /// As [`Conversation::start`].
    pub fn begin(
        remote: &'a mut dyn Remote,
        script: &Script,
        source: &Source,
        name: &str,
        bounds: Bounds<'_>,
    ) -> Result<Self, SourceError> {
        let talk = Conversation::start(remote, script, "query", WHAT, bounds.all)?;
        Ok(Self::go_on(talk, source, name, bounds))
    }

    /// Asks in a conversation that others have asked in, or nobody yet.
    pub fn go_on(mut talk: Conversation<'a>, source: &Source, name: &str, bounds: Bounds<'_>) -> Self {
        talk.go_on(WHAT, bounds.all);
        for (name, value) in settings(source, name) {
            talk.ask(&Request::Set { name, value });
        }
        talk.ask(&Request::Set { name: "UNIT_TIMEOUT", value: bounds.each.as_secs().max(1).to_string() });
        let (host, database) = (source.host.clone(), source.database.clone());
        Self { talk, host, database, stop: bounds.stop.clone(), asked: 0, broken: false }
    }

    /// Asks one question and hands each row of its answer on. `what` completes "… (database d) on `host`".
    ///
    /// # Errors
    /// [`SourceError::Failed`] where the database refused; then more may be asked. Any other ends it.
    pub fn ask(&mut self, sql: String, what: &str, row: impl FnMut(&str)) -> Result<(), SourceError> {
        self.ask_one(|no| Request::Query { no, sql }, what, row)
    }

    /// Has this statement make a table of what each segment says, hands its rows on, and takes it back.
    ///
    /// # Errors
    /// As [`Questions::ask`].
    pub fn look(&mut self, sql: String, what: &str, row: impl FnMut(&str)) -> Result<(), SourceError> {
        self.ask_one(|no| Request::Look { no, sql }, what, row)
    }

    /// Asks what plan the server has for a query, which is not run, and hands the line on that says how many rows it
    /// expects; none where the server says nothing of that kind.
    ///
    /// # Errors
    /// As [`Questions::ask`].
    pub fn explain(&mut self, sql: String, what: &str, row: impl FnMut(&str)) -> Result<(), SourceError> {
        self.ask_one(|no| Request::Explain { no, sql }, what, row)
    }

    fn ask_one(
        &mut self,
        request: impl FnOnce(u32) -> Request,
        what: &str,
        row: impl FnMut(&str),
    ) -> Result<(), SourceError> {
        let no = self.asked;
        self.asked += 1;
        self.talk.ask(&request(no));
        let asked = self.answer(what, row);
        self.broken |= !matches!(asked, Ok(()) | Err(SourceError::Failed { .. }));
        asked
    }

    fn answer(&mut self, what: &str, mut row: impl FnMut(&str)) -> Result<(), SourceError> {
        let host = self.host.clone();
        let given_up = |code| SourceError::GivenUp { host: host.clone(), code };
        let mut rows = 0;
        let mut told_to_stop = false;
        loop {
            if self.stop.asked() && !told_to_stop {
                told_to_stop = true;
                self.talk.ask(&Request::Stop);
            }
            match self.talk.next(LOOK_EVERY)? {
                None | Some(Reply::Beat | Reply::Hello { .. }) => {}
                Some(Reply::Row { text, .. }) => {
                    rows += 1;
                    row(&text);
                }
                Some(Reply::Part { no, .. }) => return Err(self.talk.protocol(ProtocolError::Unasked(no))),
                Some(Reply::Done { rows: said, .. }) if said == rows => return Ok(()),
                Some(Reply::Done { no, rows: said, .. }) => {
                    return Err(self.talk.protocol(ProtocolError::Count { no, seen: rows, said }));
                }
                Some(Reply::Error { message, sqlstate, .. }) => {
                    let what = format!("{what} (database {})", self.database);
                    return Err(SourceError::failed(&host, what, sqlstate.as_deref(), &message));
                }
                Some(Reply::End { code: 0 }) => {
                    return Err(self.talk.protocol(ProtocolError::EndedEarly(1)));
                }
                Some(Reply::End { code }) => return Err(given_up(code)),
            }
        }
    }

    /// Waits for a moment in which nothing is asked, and lets the host hear that we are there: it gives up those from
    /// whom it hears nothing.
    ///
    /// # Errors
    /// As [`Conversation::next`], and where the script ended.
    pub fn idle(&mut self, moment: Duration) -> Result<(), SourceError> {
        match self.talk.next(moment)? {
            None | Some(Reply::Beat | Reply::Hello { .. }) => Ok(()),
            Some(
                Reply::Row { no, .. }
                | Reply::Part { no, .. }
                | Reply::Done { no, .. }
                | Reply::Error { no, .. },
            ) => Err(self.talk.protocol(ProtocolError::Unasked(no))),
            Some(Reply::End { code }) => Err(SourceError::GivenUp { host: self.host.clone(), code }),
        }
    }

    /// Changes how long one question may take in the database, from the next one on.
    pub fn limit(&mut self, each: Duration) {
        self.talk.ask(&Request::Set { name: "UNIT_TIMEOUT", value: each.as_secs().max(1).to_string() });
    }

    /// The conversation, for others to go on with; `None` where that is no use.
    pub fn into_talk(self) -> Option<Conversation<'a>> {
        (!self.broken && self.talk.is_quiet()).then_some(self.talk)
    }

    /// Ends in order.
    ///
    /// # Errors
    /// As [`Conversation::next`].
    pub fn end(mut self) -> Result<(), SourceError> {
        self.talk.ask(&Request::End);
        while !matches!(self.talk.next(LOOK_EVERY)?, Some(Reply::End { .. })) {}
        self.talk.finish();
        Ok(())
    }
}
