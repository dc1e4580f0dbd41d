//! Asking every host, every source database and the target, all at once, and none for longer than its limit.
//!
//! A thread per host, which holds one SSH session for everything that is asked there; one for the runner, which is
//! asked by the same script as a process of its own, and answers the others' question "do you see what I wrote?";
//! and one for the target. Whoever hangs costs the limit once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use globset::Glob;

use super::choose::{places, selected, unasked};
use super::facts::{self, HostFacts, Proof};
use super::runner::{Question, Ready, runner_place, visit_runner};
use super::target::{ask_target, finish_target};
use super::visit::{Gathered, Made, Place, SourceVisit, Visit};
use super::{Area, database};
use crate::inventory::{Inventory, Source};
use crate::plan::Selection;
use crate::remote::ssh::{HostText, Pool};
use crate::remote::{Remote, RemoteError};
use crate::source::probe::Line;
use crate::source::{Probe, SourceError};
use crate::target::Address;

/// How long the mount may take to answer.
pub(super) const MOUNT_LIMIT: Duration = Duration::from_secs(5);
/// How long everything else about a host may take.
pub(super) const FACTS_LIMIT: Duration = Duration::from_secs(30);
/// How long one question may take.
pub(super) const ONE_LIMIT: Duration = Duration::from_secs(15);
/// What a network file system may not show yet is looked at again after these pauses. Milliseconds.
const AGAIN: [u64; 3] = [100, 400, 1500];

/// What is asked, and by which ways.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "sessions have nothing to show")]
pub struct Ground<'a> {
    /// What was meant.
    pub inventory: &'a Inventory,
    /// Which jobs, sources and tables.
    pub selection: &'a Selection,
    /// Globs over hosts; none means all.
    pub hosts: &'a [Glob],
    /// What is looked at.
    pub areas: &'a [Area],
    /// SSH sessions.
    pub pool: &'a Pool,
    /// How the target is reached.
    pub target: &'a Address,
    /// Part of the names of nonce files, which no other run has.
    pub run: &'a str,
}

impl Ground<'_> {
    pub(super) fn looks_at(&self, areas: &[Area]) -> bool {
        areas.iter().any(|area| self.areas.contains(area))
    }
}

/// Asks everybody.
pub fn gather(ground: Ground<'_>) -> Gathered {
    let sources = selected(ground);
    let places = places(ground, &sources);
    let target = ground.looks_at(&[Area::Target]).then(|| ask_target(ground));
    let names: Vec<String> = (0..places.len()).map(|no| name(ground.run, no + 1)).collect();
    let (visits, mut found, runner, made) = std::thread::scope(|scope| {
        let (look, looks) = unbounded();
        let (tell, ready): (Vec<_>, Vec<_>) = places.iter().map(|_| bounded::<Ready>(1)).unzip();
        let runner = scope.spawn(move || visit_runner(ground, &tell, &looks));
        let hosts: Vec<_> = places
            .iter()
            .zip(ready)
            .zip(&names)
            .map(|((place, ready), name)| {
                let (look, sources) = (look.clone(), &sources);
                scope.spawn(move || visit_host(ground, place.clone(), sources, name, &ready, &look))
            })
            .collect();
        drop(look);
        let mut visits = Vec::new();
        let mut found = BTreeMap::new();
        for (host, place) in hosts.into_iter().zip(&places) {
            let (visit, asked) = host.join().unwrap_or_else(|_| (died(place.clone()), Vec::new()));
            visits.push(visit);
            found.extend(asked.into_iter().map(|visit| (visit.name.clone(), visit)));
        }
        let (runner, made) =
            runner.join().unwrap_or_else(|_| (died(runner_place(ground)), Ok(Made::NotAsked)));
        (visits, found, runner, made)
    });
    let sources: Vec<SourceVisit> = sources.iter().filter_map(|source| found.remove(&source.name)).collect();
    let target = target.map(|asked| finish_target(ground, &asked, &sources));
    Gathered { subdir: ground.inventory.mount.subdir.clone(), runner, made, hosts: visits, sources, target }
}

/// A thread that panicked: a bug, and no reason to say nothing of the other hosts.
fn died(place: Place) -> Visit {
    let host = place.host.clone();
    let error = RemoteError::Handshake {
        host,
        reason: "the thread that asked it died: a bug worth reporting".into(),
    };
    Visit { place, found: Err(error.into()), proof: None, unproven: None }
}

/// The name of a nonce file; 0 is the runner's.
pub(super) fn name(run: &str, no: usize) -> String {
    format!(".gpferry-preflight.{run}.{no}")
}

/// What the runner writes; hosts write their own name after it.
pub(super) fn text(run: &str, who: &str) -> String {
    format!("gpferry preflight {run} {}", who.replace(char::is_whitespace, " "))
}

pub(super) fn prepare(probe: &mut Probe<'_>, ground: Ground<'_>, place: &Place, scripts: &[String]) {
    probe.tell(&["mount", &place.mount, &ground.inventory.mount.subdir]);
    if let Some(psql) = &place.psql {
        probe.tell(&["psql", psql]);
    }
    if let Some(owner) = &ground.inventory.mount.owner {
        probe.tell(&["owner", &owner.user, &owner.group]);
    }
    scripts.iter().for_each(|path| probe.tell(&["script", path]));
}

pub(super) fn answer<T>(
    lines: Result<Vec<Line>, SourceError>,
    read: impl FnOnce(&[Line]) -> Result<T, String>,
) -> Result<T, String> {
    lines.map_err(|error| error.to_string()).and_then(|lines| read(&lines))
}

/// A source host: reaching it, what it is, the proof, and its databases.
fn visit_host(
    ground: Ground<'_>,
    place: Place,
    sources: &[&Source],
    name: &str,
    ready: &Receiver<Ready>,
    look: &Sender<Question>,
) -> (Visit, Vec<SourceVisit>) {
    let here: Vec<&Source> =
        sources.iter().filter(|source| place.sources.contains(&source.name)).copied().collect();
    let mut asked: Vec<SourceVisit> = here.iter().map(|source| unasked(ground, source)).collect();
    let session = place.host.parse::<HostText>().and_then(|host| ground.pool.get(&host));
    let mut session = match session {
        Ok(session) => session,
        Err(error) => return (Visit { place, found: Err(error.into()), proof: None, unproven: None }, asked),
    };
    let scripts: Vec<String> =
        here.iter().filter_map(|source| Some(source.script.as_ref()?.path.display().to_string())).collect();
    let mut proof = None;
    let mut unproven = None;
    let found = look_around(ground, &place, &scripts, &mut session, |probe, facts| {
        match prove(ground, &place, name, probe, facts, ready, look) {
            Ok(made) => proof = Some(made),
            Err(why) => unproven = Some(why),
        }
    });
    if ground.looks_at(&[Area::Mount]) && !matches!(found, Ok((_, true))) {
        // The runner lives as long as anybody may ask it.
        drop(look.send(Question::Forget { name: name.to_owned() }));
    }
    let found = found.map(|(facts, _)| facts);
    // Databases are asked by the bundled script, which needs a shell and a bash there.
    let able =
        found.as_ref().is_ok_and(|facts| facts.bash.is_some() && facts.psql.is_some() && facts.temporary);
    if able && ground.looks_at(&[Area::Source, Area::Target]) {
        for (visit, source) in asked.iter_mut().zip(here) {
            database::ask(visit, source, &mut session);
        }
    }
    (Visit { place, found, proof, unproven }, asked)
}

fn look_around(
    ground: Ground<'_>,
    place: &Place,
    scripts: &[String],
    session: &mut dyn Remote,
    then: impl FnOnce(&mut Probe<'_>, &HostFacts),
) -> Result<(HostFacts, bool), SourceError> {
    let mut probe = Probe::start(session, MOUNT_LIMIT)?;
    prepare(&mut probe, ground, place, scripts);
    let mut facts = HostFacts::read(&probe.ask(&["facts"], FACTS_LIMIT)?);
    let (begin, now) = (Instant::now(), SystemTime::now());
    let clock = probe.ask(&["clock"], ONE_LIMIT)?;
    facts.round_trip = begin.elapsed();
    facts.skew = skew(&clock, now, facts.round_trip);
    if ground.looks_at(&[Area::Mount]) {
        then(&mut probe, &facts);
    }
    match probe.end(ONE_LIMIT) {
        true => Ok((facts, true)),
        false => {
            log::warn!("{}: the probe's last word was not heard; it cleans up by itself", place.host);
            Ok((facts, false))
        }
    }
}

/// How far a clock that was read in the middle of a round trip is ahead of ours.
fn skew(lines: &[Line], asked: SystemTime, round_trip: Duration) -> Option<f64> {
    let line = lines.iter().find(|line| line.first().is_some_and(|key| key == "clock"))?;
    // Where `date` knows no %N, it leaves the letter.
    let theirs: f64 = line.get(1)?.trim_end_matches(['N', '.']).parse().ok()?;
    let ours = asked.duration_since(SystemTime::UNIX_EPOCH).ok()? + round_trip / 2;
    Some(theirs - ours.as_secs_f64())
}

/// Writes here, has the runner look, and looks at what the runner wrote.
fn prove(
    ground: Ground<'_>,
    place: &Place,
    name: &str,
    probe: &mut Probe<'_>,
    facts: &HostFacts,
    ready: &Receiver<Ready>,
    look: &Sender<Question>,
) -> Result<Proof, String> {
    if facts.mount.hangs || !facts.temporary {
        return Err("the mount could not be looked at there".into());
    }
    if !matches!(facts.mount.root, Some(Ok(_))) {
        return Err("there is no mount there".into());
    }
    ready.recv_timeout(FACTS_LIMIT).unwrap_or_else(|_| Err("the runner did not come to it".into()))?;
    let text_here = text(ground.run, &place.host);
    let lines = probe.ask(&["write", name, &text_here], ONE_LIMIT);
    let refused_by = lines.as_ref().ok().and_then(|lines| facts::refused_by(lines));
    let mut proof = Proof { wrote: Some(answer(lines, facts::written)), refused_by, ..Proof::default() };
    if matches!(proof.wrote, Some(Err(_))) {
        return Ok(proof);
    }
    let patient = facts.mounted().is_some_and(super::mountinfo::MountPoint::is_network);
    proof.runner_saw = Some(patiently(patient, || {
        let (answer, heard) = bounded(1);
        let question = Question::Look { name: name.to_owned(), text: text_here.clone(), answer };
        look.send(question).map_err(|_| "the runner is gone".to_owned())?;
        heard.recv_timeout(FACTS_LIMIT).unwrap_or_else(|_| Err("the runner did not answer".into()))
    }));
    let (own, own_text) = (self::name(ground.run, 0), text(ground.run, "runner"));
    proof.host_saw = Some(patiently(patient, || {
        answer(probe.ask(&["look", &own], ONE_LIMIT), |lines| facts::seen(lines, &own_text))
    }));
    Ok(proof)
}

/// A network file system may show something late.
fn patiently<T>(patient: bool, mut look: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let mut seen = look();
    for pause in AGAIN.iter().filter(|_| patient) {
        if seen.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(*pause));
        seen = look();
    }
    seen
}
