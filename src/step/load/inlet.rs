//! By what way a unit's file gets into a table: by COPY through the coordinator, or read by the segments themselves.
//!
//! The choice is a pure function of what the server is, who the user is and how large the file is. What it cannot know
//! is whether the segments' hosts see the mount: that is proven once a run, by a sign that each segment reads.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::NotLoaded;
use crate::inventory::{Inventory, Loader};
use crate::mount::{Exported, Mount, MountError};
use crate::remote::ssh::Pool;
use crate::step::{Stage, UnitFailure};
use crate::stop::Stop;
use crate::target::{Address, Cluster, Facts, Gpfdist, Gpload, ServedFile, Session, TargetError};

/// From so many segments on they read large files faster than one stream through the coordinator brings them: measured
/// with two cores, COPY takes two thirds of the time of two segments.
const MANY: usize = 4;
/// Files from this size on are worth an external table of their own. Compressed bytes.
pub const LARGE: u64 = 16 << 20;

/// A way into a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inlet {
    /// COPY FROM STDIN, in one stream through the coordinator.
    Copy,
    /// An external table whose rows the segments read out of the mount.
    Segments,
    /// An external table whose rows the segments read from gpfdist, which serves the mount.
    Gpfdist,
    /// gpload, into a table of gpferry's own, and on from there.
    Gpload,
}

impl fmt::Display for Inlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Copy => "copy",
            Self::Segments => "segments",
            Self::Gpfdist => "gpfdist",
            Self::Gpload => "gpload",
        })
    }
}

/// A way and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The way.
    pub inlet: Inlet,
    /// Why this one, in words that go on after "since".
    pub why: String,
}

/// Why a way that the inventory demands cannot be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impossible {
    /// What is missing.
    pub why: String,
    /// What to try.
    pub remedy: String,
}

/// Whether segments see the mount.
pub type Sight = Result<(), Impossible>;

/// The way of large files, as far as it follows from the server alone: `Segments` only if they see the mount.
///
/// # Errors
/// [`Impossible`] where the inventory demands what the server, or the user's rights, cannot do.
pub fn way_of_large(loader: Loader, facts: &Facts) -> Result<Choice, Impossible> {
    let copy = |why: &str| Ok(Choice { inlet: Inlet::Copy, why: why.into() });
    let forced = matches!(loader, Loader::Segments | Loader::Gpfdist | Loader::Gpload);
    let Some(cluster) = facts.cluster.as_ref().filter(|cluster| cluster.segments > 0) else {
        let why = "the target has no segments";
        return if forced { Err(impossible(loader, why, COPY)) } else { copy(why) };
    };
    match loader {
        Loader::Segments if !cluster.superuser => Err(impossible(loader, NO_SUPERUSER, SUPERUSER)),
        Loader::Gpfdist | Loader::Gpload if !cluster.reads_gpfdist => {
            Err(impossible(loader, NO_RIGHT, RIGHT))
        }
        Loader::Gpload => Ok(Choice { inlet: Inlet::Gpload, why: "the inventory says so".into() }),
        Loader::Gpfdist => Ok(Choice { inlet: Inlet::Gpfdist, why: "the inventory says so".into() }),
        Loader::Segments => Ok(Choice { inlet: Inlet::Segments, why: "the inventory says so".into() }),
        Loader::Auto if !cluster.superuser => copy(NO_SUPERUSER),
        Loader::Auto if cluster.segments < MANY => {
            copy(&format!("{} are too few to outdo it", segments(cluster)))
        }
        Loader::Auto => {
            Ok(Choice { inlet: Inlet::Segments, why: format!("there are {}", segments(cluster)) })
        }
        Loader::Copy => copy("the inventory says so"),
    }
}

const COPY: &str = "write `loader: auto` or `loader: copy` at the target";
const NO_SUPERUSER: &str = "only a superuser may have segments run commands";
const SUPERUSER: &str =
    "load as a superuser (gpadmin), or write `loader: auto` or `loader: copy` at the target";

const NO_RIGHT: &str = "the loading user may not make external tables";
const RIGHT: &str = "let a superuser say: ALTER ROLE <the loading user> CREATEEXTTABLE; or write `loader: auto` or \
     `loader: copy` at the target";

fn impossible(loader: Loader, why: &str, remedy: &str) -> Impossible {
    let loader = match loader {
        Loader::Gpfdist => "gpfdist",
        Loader::Gpload => "gpload",
        Loader::Auto | Loader::Copy | Loader::Segments => "segments",
    };
    Impossible { why: format!("`loader: {loader}` is not possible: {why}"), remedy: remedy.into() }
}

/// `8 segments on 2 hosts`.
fn segments(cluster: &Cluster) -> String {
    let hosts = cluster.hosts.len();
    format!("{} segments on {hosts} host{}", cluster.segments, if hosts == 1 { "" } else { "s" })
}

/// A choice, in one line.
pub fn words(loader: Loader, choice: &Choice) -> String {
    let why = &choice.why;
    match choice.inlet {
        Inlet::Copy => format!("by COPY through the coordinator, since {why}"),
        Inlet::Gpfdist => format!("the segments read every file from gpfdist, since {why}"),
        Inlet::Gpload => format!("gpload loads every file into a table of its own, since {why}"),
        Inlet::Segments if loader == Loader::Segments => {
            format!("the segments read every file themselves, since {why}")
        }
        Inlet::Segments => format!(
            "the segments read files of {} MiB and more themselves, since {why}; the others by COPY",
            LARGE >> 20
        ),
    }
}

/// What `plan` says, which has nobody read anything.
pub fn planned(loader: Loader, facts: &Facts) -> String {
    match way_of_large(loader, facts) {
        Err(no) => format!("{} (try: {})", no.why, no.remedy),
        Ok(choice) if choice.inlet == Inlet::Segments => {
            let words = words(loader, &choice);
            format!("{words}; gpferry preflight proves that they see the mount")
        }
        Ok(choice) => words(loader, &choice),
    }
}

/// How the files of one run get in.
#[derive(Debug)]
pub struct Inlets {
    loader: Loader,
    gpfdist: Gpfdist,
    gpload: Gpload,
    /// The mount's subdirectory, as the segments' hosts see it.
    root: PathBuf,
    /// What the proof came to, once somebody needed it.
    sight: Mutex<Option<Sight>>,
}

impl Inlets {
    /// Of an inventory, for a run.
    pub fn new(inventory: &Inventory, target: &Address, run: &str, pool: &Pool) -> Self {
        Self {
            loader: inventory.target.loader,
            gpfdist: Gpfdist::new(inventory, run, pool),
            gpload: Gpload::new(inventory, target, run, pool),
            root: Self::root_of(inventory),
            sight: Mutex::default(),
        }
    }

    /// The mount's subdirectory, as the segments' hosts see it.
    pub fn root_of(inventory: &Inventory) -> PathBuf {
        let mount = inventory.target.mount.as_ref().unwrap_or(&inventory.mount.path);
        mount.join(&inventory.mount.subdir)
    }

    /// The way of a file of so many compressed bytes, inside a unit's transaction.
    ///
    /// # Errors
    /// [`NotLoaded`] where the inventory demands a way that cannot be gone.
    pub(super) fn choose(
        &self,
        session: &mut Session,
        mount: &Mount,
        run: &str,
        bytes: u64,
    ) -> Result<Inlet, NotLoaded> {
        if self.loader == Loader::Copy || (self.loader == Loader::Auto && bytes < LARGE) {
            return Ok(Inlet::Copy);
        }
        match way_of_large(self.loader, session.facts()) {
            Ok(Choice { inlet: inlet @ (Inlet::Copy | Inlet::Gpfdist | Inlet::Gpload), .. }) => Ok(inlet),
            Ok(Choice { inlet: Inlet::Segments, .. }) => match self.sight(session, mount, run)? {
                Ok(()) => Ok(Inlet::Segments),
                Err(_) if self.loader == Loader::Auto => Ok(Inlet::Copy),
                Err(no) => Err(failed(&no)),
            },
            Err(no) => Err(failed(&no)),
        }
    }

    /// Do the segments see the mount? Asked once a run; others wait for the answer.
    fn sight(&self, session: &mut Session, mount: &Mount, run: &str) -> Result<Sight, NotLoaded> {
        let mut sight = self.sight.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*sight {
            return Ok(known.clone());
        }
        session.mark("word").map_err(NotLoaded::SessionLost)?;
        let seen = prove(session, mount, &self.root, run);
        session.back_to("word").map_err(NotLoaded::SessionLost)?;
        let seen = match seen {
            Err(Unproven::Target(error)) if error.can_retry() => return Err(NotLoaded::SessionLost(error)),
            Err(Unproven::Target(error)) if error.sqlstate().is_some_and(crate::sql::is_cancelled) => {
                return Err(super::fatal_or_failed(error));
            }
            seen => seen.map_err(|no| no.told(&self.root)),
        };
        if let (Err(no), Loader::Auto) = (&seen, self.loader) {
            log::warn!("files are loaded by COPY: {} (try: {})", no.why, no.remedy);
        }
        *sight = Some(seen.clone());
        Ok(seen)
    }

    /// gpload, for this run.
    pub(super) fn gpload(&self) -> &Gpload {
        &self.gpload
    }

    /// Where segments read a unit's files from gpfdist: under no more URLs than there are segments.
    pub(super) fn urls(
        &self,
        session: &Session,
        exported: &Exported,
        stop: &Stop,
    ) -> Result<Vec<String>, NotLoaded> {
        let segments = session.facts().cluster.as_ref().map_or(1, |cluster| cluster.segments);
        let files: Vec<PathBuf> = exported.files().map(|(file, _)| file).collect();
        self.gpfdist
            .urls(&files, segments, stop)
            .map_err(|error| super::fatal_or_failed(TargetError::Program(error)))
    }

    /// A unit's files, as the segments see them.
    pub(super) fn served(&self, exported: &Exported) -> Result<Vec<ServedFile>, NotLoaded> {
        let served =
            exported.files().map(|(file, trailer)| ServedFile::new(&self.root.join(file), trailer.bytes));
        let no = "the mount's path cannot be written in a command";
        served.collect::<Option<_>>().ok_or_else(|| failed(&impossible(Loader::Segments, no, COPY)))
    }
}

fn failed(no: &Impossible) -> NotLoaded {
    let failure = UnitFailure::new(Stage::Load, &no.why, no.remedy.as_str());
    super::failed(UnitFailure { own: false, file_is_good: true, ..failure })
}

/// Why it is not proven that segments see the mount.
#[derive(Debug)]
pub enum Unproven {
    /// The sign cannot be put up.
    Mount(MountError),
    /// A segment could not read it, or the coordinator refused.
    Target(TargetError),
    /// These segments read something else.
    Other(Vec<i32>),
    /// So many of so many answered.
    Missing(usize, usize),
    /// The path cannot stand in a command.
    Path,
}

impl Unproven {
    /// In words, with what to try.
    pub fn told(self, root: &Path) -> Impossible {
        let shown = root.display();
        let why = match &self {
            Self::Mount(error) => error.to_string(),
            Self::Target(error) => error.to_string(),
            Self::Other(segments) => {
                let segments = segments.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
                format!("under {shown} segments {segments} see another directory than the runner's mount")
            }
            Self::Missing(read, all) => format!("{read} of {all} segments read the mount"),
            Self::Path => "the mount's path cannot be written in a command".into(),
        };
        let remedy = match &self {
            Self::Mount(error) => error.remedy(),
            Self::Target(_) | Self::Other(_) | Self::Missing(..) | Self::Path => format!(
                "mount it on every segment host under {shown}, readable for the user that runs the segments, or write \
                 where it is there as `mount` at the target; or write `loader: copy`"
            ),
        };
        Impossible { why: format!("the segments do not see the mount: {why}"), remedy }
    }
}

/// Puts a sign up on the mount and has every segment read it. Whatever the session did of it, the caller rolls back.
///
/// # Errors
/// [`Unproven`].
pub fn prove(session: &mut Session, mount: &Mount, root: &Path, run: &str) -> Result<(), Unproven> {
    let sign = mount.sign(run).map_err(Unproven::Mount)?;
    let bytes = sign.text().len() as u64;
    let file = ServedFile::new(&root.join(sign.file()), bytes).ok_or(Unproven::Path)?;
    let read = session.segments_read(&file, run).map_err(Unproven::Target)?;
    let all = session.facts().cluster.as_ref().map_or(0, |cluster| cluster.segments);
    let others: Vec<i32> =
        read.iter().filter(|(_, said)| said != sign.text()).map(|(segment, _)| *segment).collect();
    if !others.is_empty() {
        Err(Unproven::Other(others))
    } else if read.len() != all {
        Err(Unproven::Missing(read.len(), all))
    } else {
        Ok(())
    }
}

/// Puts a sign up on the mount and has the segments read it from gpfdist. Whatever the session did of it, the caller
/// rolls back.
///
/// # Errors
/// [`Impossible`] in the words of who could not do it.
pub fn prove_gpfdist(
    session: &mut Session,
    mount: &Mount,
    gpfdist: &Gpfdist,
    run: &str,
) -> Result<(), Impossible> {
    let of = |error: &TargetError| Impossible { why: error.to_string(), remedy: error.remedy() };
    let sign =
        mount.sign(run).map_err(|error| Impossible { why: error.to_string(), remedy: error.remedy() })?;
    let urls = gpfdist
        .urls(&[sign.file()], 1, &Stop::default())
        .map_err(|error| of(&TargetError::Program(error)))?;
    let read = session.gpfdist_serves(&urls[0], run).map_err(|error| of(&error))?;
    if read == [sign.text()] {
        return Ok(());
    }
    Err(Impossible {
        why: format!("{} is another file than the one that the runner left on the mount", urls[0]),
        remedy: "let it serve the mount's subdirectory: target.gpfdist.mount, or target.gpfdist.url with the directory"
            .into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(cluster: Option<Cluster>) -> Facts {
        let text = if cluster.is_some() { "Greenplum" } else { "PostgreSQL" };
        Facts { cluster, ..Facts::of(text.into(), 90_426) }
    }

    fn cluster(segments: usize, superuser: bool) -> Option<Cluster> {
        let hosts = vec!["sdw1".into(), "sdw2".into()];
        Some(Cluster { segments, hosts, superuser, ..Cluster::default() })
    }

    #[test]
    fn the_way_follows_from_server_rights_and_number_of_segments() {
        let way = |loader, cluster| way_of_large(loader, &facts(cluster)).map(|choice| choice.inlet);
        assert_eq!(way(Loader::Auto, None), Ok(Inlet::Copy));
        assert_eq!(way(Loader::Auto, cluster(3, true)), Ok(Inlet::Copy));
        assert_eq!(way(Loader::Auto, cluster(4, true)), Ok(Inlet::Segments));
        assert_eq!(way(Loader::Auto, cluster(96, false)), Ok(Inlet::Copy));
        assert_eq!(way(Loader::Copy, cluster(96, true)), Ok(Inlet::Copy));
        assert_eq!(way(Loader::Segments, cluster(1, true)), Ok(Inlet::Segments));
        assert!(way(Loader::Segments, None).unwrap_err().why.contains("has no segments"));
        assert!(way(Loader::Segments, cluster(8, false)).unwrap_err().remedy.contains("superuser"));
    }

    #[test]
    fn a_plan_says_the_way_and_why() {
        let told = [
            planned(Loader::Auto, &facts(None)),
            planned(Loader::Auto, &facts(cluster(2, true))),
            planned(Loader::Auto, &facts(cluster(16, true))),
            planned(Loader::Auto, &facts(cluster(16, false))),
            planned(Loader::Segments, &facts(cluster(2, true))),
            planned(Loader::Segments, &facts(None)),
        ];
        insta::assert_snapshot!(told.join("\n"), @r"
            by COPY through the coordinator, since the target has no segments
            by COPY through the coordinator, since 2 segments on 2 hosts are too few to outdo it
            the segments read files of 16 MiB and more themselves, since there are 16 segments on 2 hosts; the others by COPY; gpferry preflight proves that they see the mount
            by COPY through the coordinator, since only a superuser may have segments run commands
            the segments read every file themselves, since the inventory says so; gpferry preflight proves that they see the mount
            `loader: segments` is not possible: the target has no segments (try: write `loader: auto` or `loader: copy` at the target)
            ");
    }
}
