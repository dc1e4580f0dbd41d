//! Asking the target.

use std::collections::BTreeSet;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::gather::Ground;
use super::visit::{SourceVisit, TargetFound, TargetVisit};
use crate::names::TableName;
use crate::target::{Session, TargetError};

/// How long the target may take to let us in.
const TARGET_LIMIT: Duration = Duration::from_secs(20);

/// What a thread of the target says: its session, and what the server is.
pub(super) type Asked = Receiver<Result<(Session, TargetFound), TargetError>>;

/// Asks the target in a thread that may be left behind: a server that accepts and then says nothing would hold us.
pub(super) fn ask_target(ground: Ground<'_>) -> Asked {
    let (address, schema) = (ground.target.clone(), ground.inventory.target.log_schema.clone());
    let (tell, heard) = bounded(1);
    std::thread::spawn(move || {
        let found = Session::open(&address, &schema).and_then(|mut session| {
            let readiness = session.readiness()?;
            let found =
                TargetFound { text: session.facts().text.clone(), readiness, tables: Default::default() };
            Ok((session, found))
        });
        // Nobody listens any more where it took too long.
        drop(tell.send(found));
    });
    heard
}

pub(super) fn finish_target(ground: Ground<'_>, asked: &Asked, sources: &[SourceVisit]) -> TargetVisit {
    let shown = ground.target.shown().to_owned();
    let silent = || TargetError::Connect {
        target: shown.clone(),
        why: format!("it took longer than {} s to answer", TARGET_LIMIT.as_secs()),
        transient: true,
    };
    let found = asked.recv_timeout(TARGET_LIMIT).unwrap_or_else(|_| Err(silent())).and_then(
        |(mut session, mut found)| {
            let tables: BTreeSet<&TableName> =
                sources.iter().flat_map(|source| &source.wanted).map(|wanted| &wanted.target).collect();
            for some in tables.into_iter().collect::<Vec<_>>().chunks(2000) {
                found.tables.extend(session.ready_tables(some)?);
            }
            Ok(found)
        },
    );
    TargetVisit { shown, log_schema: ground.inventory.target.log_schema.clone(), found }
}
