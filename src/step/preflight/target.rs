//! Asking the target.

use std::collections::BTreeSet;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::gather::Ground;
use super::visit::{Loading, SourceVisit, TargetFound, TargetVisit};
use crate::mount::Mount;
use crate::names::TableName;
use crate::step::load::Inlets;
use crate::step::load::inlet::{
    Choice, Impossible, Inlet, Unproven, Wish, prove, prove_gpfdist, way_of_large,
};
use crate::stop::Stop;
use crate::target::{Gpfdist, Gpload, ProgramError, Session, TargetError};

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
            let (facts, loading) = (session.facts().clone(), Loading::NotAsked);
            let found = TargetFound { facts, loading, readiness, tables: Default::default() };
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
            found.loading = loading(ground, &mut session)?;
            Ok(found)
        },
    );
    let target = &ground.inventory.target;
    TargetVisit { shown, log_schema: target.log_schema.clone(), loader: target.loader, found }
}

/// By what way files would get in. Where segments are to read them, each reads a word on the mount now; the external table
/// for that is rolled back.
fn loading(ground: Ground<'_>, session: &mut Session) -> Result<Loading, TargetError> {
    let inventory = ground.inventory;
    let choice = match way_of_large(Wish::of(&inventory.target), session.facts()) {
        Ok(choice) if choice.inlet == Inlet::Segments => choice,
        Ok(choice) if choice.inlet == Inlet::Gpload => {
            let looked = Gpload::new(inventory, ground.target, ground.run, ground.pool).look();
            let no = |error: ProgramError| {
                Loading::Blind(Impossible { why: error.to_string(), remedy: error.remedy().to_owned() })
            };
            return Ok(looked.map_or_else(no, |()| Loading::Chosen(choice)));
        }
        Ok(choice) if choice.inlet == Inlet::Gpfdist => return through_gpfdist(ground, session, choice),
        Ok(choice) => return Ok(Loading::Chosen(choice)),
        Err(no) => return Ok(Loading::Impossible(no)),
    };
    let root = Inlets::root_of(inventory);
    if !inventory.mount.path.join(&inventory.mount.subdir).is_dir() {
        return Ok(Loading::NotYet(inventory.mount.subdir.clone()));
    }
    session.begin()?;
    let seen = match Mount::open(&inventory.mount) {
        Ok(mount) => prove(session, &mount, &root, ground.run),
        Err(error) => Err(Unproven::Mount(error)),
    };
    session.rollback()?;
    Ok(match seen {
        Ok(()) => Loading::Chosen(choice),
        Err(no) => Loading::Blind(no.told(&root)),
    })
}

/// Whether gpfdist can be had, and the segments reach it: one is started, and ended again.
fn through_gpfdist(
    ground: Ground<'_>,
    session: &mut Session,
    choice: Choice,
) -> Result<Loading, TargetError> {
    let mount = match Mount::open(&ground.inventory.mount) {
        Ok(mount) => mount,
        Err(error) => {
            return Ok(Loading::Blind(Impossible { why: error.to_string(), remedy: error.remedy() }));
        }
    };
    let gpfdist = Gpfdist::new(ground.inventory, ground.run, ground.pool);
    session.begin()?;
    let seen = prove_gpfdist(session, &mount, &gpfdist, ground.run, &Stop::default());
    session.rollback()?;
    Ok(match seen {
        Ok(()) => Loading::Chosen(choice),
        Err(no) => Loading::Blind(no.plain()),
    })
}
