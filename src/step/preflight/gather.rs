//! Asking every host, every source database and the target, all at once, and none for longer than its limit.
//!
//! A thread per host, which holds one SSH session for everything that is asked there; one for the runner, which is
//! asked by the same script as a process of its own, and answers the others' question "do you see what I wrote?";
//! and one for the target. Whoever hangs costs the limit once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use globset::Glob;

use super::database;
use super::facts::{self, HostFacts, Proof};
use super::visit::{Gathered, Made, Place, SourceVisit, TargetFound, TargetVisit, Visit, Wanted};
use super::{Area, access::Entry};
use crate::inventory::{Call, Compressor, Engine, Inventory, Job, Source, TableSelector, WindowRule};
use crate::names::TableName;
use crate::plan::{self, Selection};
use crate::remote::local::Local;
use crate::remote::ssh::{HostText, Pool};
use crate::remote::{Remote, RemoteError};
use crate::source::probe::Line;
use crate::source::{Probe, SourceError};
use crate::target::{Address, Session, TargetError};

/// How long the mount may take to answer.
const MOUNT_LIMIT: Duration = Duration::from_secs(5);
/// How long everything else about a host may take.
const FACTS_LIMIT: Duration = Duration::from_secs(30);
/// How long one question may take.
const ONE_LIMIT: Duration = Duration::from_secs(15);
/// How long the target may take to let us in.
const TARGET_LIMIT: Duration = Duration::from_secs(20);
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
    fn looks_at(&self, areas: &[Area]) -> bool {
        areas.iter().any(|area| self.areas.contains(area))
    }
}

/// What the runner has to say to the hosts once it has made its own proof, or why there is none.
type Ready = Result<(), String>;

/// "Do you see this?"
struct Look {
    name: String,
    text: String,
    answer: Sender<Result<Entry, String>>,
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
        let others = names.clone();
        let runner = scope.spawn(move || visit_runner(ground, &tell, &looks, &others));
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

/// The sources of selected jobs; without a selection also those that no job uses.
fn selected(ground: Ground<'_>) -> Vec<&Source> {
    let selection = ground.selection;
    let jobs: Vec<&Job> = jobs(ground).collect();
    let everything = selection.jobs.is_empty() && selection.tables.is_empty();
    let wanted = |source: &&Source| {
        let by_job = jobs.iter().any(|job| job.source == source.name) || everything;
        let by_name = selection.sources.is_empty() || selection.sources.contains(&source.name);
        let name = source.host.rsplit('@').next().unwrap_or(&source.host);
        let by_host = ground.hosts.is_empty()
            || [source.host.as_str(), name, &source.name]
                .iter()
                .any(|text| plan::matches(ground.hosts, text));
        by_job && by_name && by_host
    };
    ground.inventory.sources.iter().filter(wanted).collect()
}

fn jobs(ground: Ground<'_>) -> impl Iterator<Item = &Job> {
    ground.inventory.jobs.iter().filter(move |job| plan::selects(ground.selection, job))
}

/// One place for each host and mount path.
fn places(ground: Ground<'_>, sources: &[&Source]) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for source in sources {
        let mount = source.mount.display().to_string();
        let at = places.iter().position(|place| place.host == source.host && place.mount == mount);
        let at = at.unwrap_or_else(|| {
            places.push(Place { host: source.host.clone(), mount, ..nowhere() });
            places.len() - 1
        });
        let place = &mut places[at];
        place.sources.push(source.name.clone());
        place.sessions += source.sessions;
        place.bundled |= source.script.as_ref().is_none_or(|script| script.call == Call::Protocol);
        place.needs_psql |= matches!(source.engine, Engine::Greenplum | Engine::Postgres);
        place.psql = place
            .psql
            .take()
            .or_else(|| source.connection.psql.as_ref().map(|path| path.display().to_string()));
        let named: BTreeSet<&str> = jobs(ground)
            .filter(|job| job.source == source.name)
            .flat_map(|job| &job.tables)
            .filter(|entry| entry.export.compressor != Compressor::Auto)
            .map(|entry| entry.export.compressor.word())
            .collect();
        place.compressors.extend(
            named
                .into_iter()
                .filter_map(|word| ["igzip", "pigz", "gzip"].into_iter().find(|one| *one == word)),
        );
    }
    places
}

fn nowhere() -> Place {
    Place {
        host: String::new(),
        sources: Vec::new(),
        mount: String::new(),
        sessions: 0,
        bundled: false,
        psql: None,
        needs_psql: false,
        compressors: Vec::new(),
    }
}

fn runner_place(ground: Ground<'_>) -> Place {
    Place { host: "runner".into(), mount: ground.inventory.mount.path.display().to_string(), ..nowhere() }
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
fn name(run: &str, no: usize) -> String {
    format!(".gpferry-preflight.{run}.{no}")
}

/// What the runner writes; hosts write their own name after it.
fn text(run: &str, who: &str) -> String {
    format!("gpferry preflight {run} {}", who.replace(char::is_whitespace, " "))
}

fn prepare(probe: &mut Probe<'_>, ground: Ground<'_>, place: &Place, scripts: &[String]) {
    probe.tell(&["mount", &place.mount, &ground.inventory.mount.subdir]);
    if let Some(psql) = &place.psql {
        probe.tell(&["psql", psql]);
    }
    if let Some(owner) = &ground.inventory.mount.owner {
        probe.tell(&["owner", &owner.user, &owner.group]);
    }
    scripts.iter().for_each(|path| probe.tell(&["script", path]));
}

/// The runner: what it sees, the subdirectory, its own proof, and then the hosts' questions.
fn visit_runner(
    ground: Ground<'_>,
    tell: &[Sender<Ready>],
    looks: &Receiver<Look>,
    others: &[String],
) -> (Visit, Result<Made, String>) {
    let place = runner_place(ground);
    let mut here = Local::new("runner");
    let mut made = Ok(Made::NotAsked);
    let say = |ready: &Ready| tell.iter().for_each(|host| drop(host.send(ready.clone())));
    let begun = Probe::start(&mut here, MOUNT_LIMIT).and_then(|mut probe| {
        prepare(&mut probe, ground, &place, &[]);
        let facts = HostFacts::read(&probe.ask(&["facts"], FACTS_LIMIT)?);
        Ok((probe, facts))
    });
    let (mut probe, facts) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            say(&Err(format!("the runner could not look at the mount: {error}")));
            return (Visit { place, found: Err(error), proof: None, unproven: None }, made);
        }
    };
    let mut proof = None;
    if ground.looks_at(&[Area::Mount]) && facts.mount.hangs {
        say(&Err("the mount does not answer on the runner".into()));
    } else if ground.looks_at(&[Area::Mount]) {
        made = make(&mut probe);
        let wrote = match &made {
            Ok(_) => answer(
                probe.ask(&["write", &name(ground.run, 0), &text(ground.run, "runner")], ONE_LIMIT),
                facts::written,
            ),
            Err(why) => Err(why.clone()),
        };
        say(&wrote.as_ref().map(drop).map_err(|why| format!("the runner itself could not write: {why}")));
        proof = Some(Proof { wrote: Some(wrote), ..Proof::default() });
        for look in looks {
            let seen =
                answer(probe.ask(&["look", &look.name], ONE_LIMIT), |lines| facts::seen(lines, &look.text));
            // Whoever asked may have given up.
            drop(look.answer.send(seen));
        }
        // A host that was lost in the middle may have left its file; its own script removes it as well.
        if facts.mount.subdir_writable || made == Ok(Made::ByUs) {
            for name in others {
                drop(probe.ask(&["forget", name], ONE_LIMIT));
            }
        }
    }
    probe.end(ONE_LIMIT);
    (Visit { place, found: Ok(facts), proof, unproven: None }, made)
}

fn make(probe: &mut Probe<'_>) -> Result<Made, String> {
    let lines = probe.ask(&["make"], ONE_LIMIT).map_err(|error| error.to_string())?;
    let field = |line: &Line, at: usize| line.get(at).cloned().unwrap_or_default();
    let made = lines.iter().find(|line| field(line, 0) == "made");
    match made.map(|line| (field(line, 1), field(line, 2))) {
        Some((word, _)) if word == "there" => Ok(Made::There),
        Some((word, _)) if word == "new" => Ok(Made::ByUs),
        Some((_, why)) => Err(why.trim().trim_start_matches("mkdir: ").to_owned()),
        None => Err("the mount does not answer".into()),
    }
}

fn answer<T>(
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
    look: &Sender<Look>,
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
) -> Result<HostFacts, SourceError> {
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
    if !probe.end(ONE_LIMIT) {
        log::warn!("{}: the probe's last word was not heard; it cleans up by itself", place.host);
    }
    Ok(facts)
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
    look: &Sender<Look>,
) -> Result<Proof, String> {
    if facts.mount.hangs || !facts.temporary {
        return Err("the mount could not be looked at there".into());
    }
    if !matches!(facts.mount.root, Some(Ok(_))) {
        return Err("there is no mount there".into());
    }
    ready.recv_timeout(FACTS_LIMIT).unwrap_or_else(|_| Err("the runner did not come to it".into()))?;
    let text_here = text(ground.run, &place.host);
    let mut proof = Proof {
        wrote: Some(answer(probe.ask(&["write", name, &text_here], ONE_LIMIT), facts::written)),
        ..Proof::default()
    };
    if matches!(proof.wrote, Some(Err(_))) {
        return Ok(proof);
    }
    let patient = facts.mounted().is_some_and(super::mountinfo::MountPoint::is_network);
    proof.runner_saw = Some(patiently(patient, || {
        let (answer, heard) = bounded(1);
        let question = Look { name: name.to_owned(), text: text_here.clone(), answer };
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

/// A source before it is asked: what the inventory names without a glob.
fn unasked(ground: Ground<'_>, source: &Source) -> SourceVisit {
    let entries: Vec<_> =
        jobs(ground).filter(|job| job.source == source.name).flat_map(|job| &job.tables).cloned().collect();
    let mut visit = SourceVisit {
        name: source.name.clone(),
        database: source.database.clone(),
        engine: source.engine,
        entries,
        tables: ground.selection.tables.clone(),
        wanted: Vec::new(),
        unmatched: Vec::new(),
        found: None,
    };
    visit.resolve(&[]);
    visit
}

impl SourceVisit {
    /// Are there globs, for which the catalog is needed?
    pub(super) fn has_globs(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.what, TableSelector::Glob { .. }))
    }

    /// Finds the tables that are meant; `catalog` is what globs are matched against.
    pub(super) fn resolve(&mut self, catalog: &[TableName]) {
        self.wanted.clear();
        self.unmatched.clear();
        for entry in &self.entries {
            let tables = plan::resolve(entry, catalog);
            if tables.is_empty() {
                self.unmatched.push(plan::describe(&entry.what));
            }
            for table in tables {
                if !self.tables.is_empty() && !plan::matches(&self.tables, &table.to_string()) {
                    continue;
                }
                let window = match &entry.window {
                    WindowRule::None { .. } => None,
                    WindowRule::By { column, .. } => Some(column.clone()),
                };
                let target = entry.target.clone().unwrap_or_else(|| table.clone());
                let wanted = Wanted { table, target, window };
                if !self.wanted.contains(&wanted) {
                    self.wanted.push(wanted);
                }
            }
        }
    }
}

/// What a thread of the target says: its session, and what the server is.
type Asked = Receiver<Result<(Session, TargetFound), TargetError>>;

/// Asks the target in a thread that may be left behind: a server that accepts and then says nothing would hold us.
fn ask_target(ground: Ground<'_>) -> Asked {
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

fn finish_target(ground: Ground<'_>, asked: &Asked, sources: &[SourceVisit]) -> TargetVisit {
    let shown = ground.target.shown().to_owned();
    let silent = || TargetError::Connect {
        target: shown.clone(),
        why: format!("it took longer than {} s to answer", TARGET_LIMIT.as_secs()),
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
