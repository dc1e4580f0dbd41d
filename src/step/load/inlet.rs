//! By what way a unit's file gets into a table: by COPY through the coordinator, or read by the segments themselves.
//!
//! The choice is a pure function of what the server is, who the user is and how large the file is. What it cannot know
//! is whether the segments' hosts see the mount: that is proven once a run, by a sign that each segment reads.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::NotLoaded;
use crate::gzip::Trailer;
use crate::inventory::{Inventory, Loader};
use crate::mount::{Exported, Mount, MountError};
use crate::remote::ssh::Pool;
use crate::step::{Stage, UnitFailure};
use crate::stop::Stop;
use crate::target::{Address, Gpfdist, Gpload, ServedFile, Session, TargetError};

mod choice;

use choice::{COPY, impossible};
pub use choice::{Choice, Impossible, Inlet, LARGE, Sight, Wish, planned, way_of_large, words};

/// How the files of one run get in.
#[derive(Debug)]
pub struct Inlets {
    wish: Wish,
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
            wish: Wish::of(&inventory.target),
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
        stop: &Stop,
        bytes: u64,
    ) -> Result<Inlet, NotLoaded> {
        if self.wish.loader == Loader::Copy || (self.wish.loader == Loader::Auto && bytes < LARGE) {
            return Ok(Inlet::Copy);
        }
        let inlet = match way_of_large(self.wish, session.facts()) {
            Ok(choice) => choice.inlet,
            Err(no) => return Err(failed(&no)),
        };
        let auto = self.wish.loader == Loader::Auto;
        let sight = match inlet {
            Inlet::Segments => self.sight(session, |session| prove(session, mount, &self.root, run))?,
            Inlet::Gpfdist => self.sight(session, |session| {
                // What is demanded is tried again; `auto` has another way.
                prove_gpfdist(session, mount, &self.gpfdist, run, stop).map_err(|no| match no {
                    Unproven::Target(error) if !auto && error.can_retry() => Unproven::Target(error),
                    no => Unproven::Told(no.plain()),
                })
            })?,
            Inlet::Copy | Inlet::Gpload => Ok(()),
        };
        match sight {
            Ok(()) => Ok(inlet),
            Err(_) if auto => Ok(Inlet::Copy),
            Err(no) => Err(failed(&no)),
        }
    }

    /// Do the segments see the mount? Asked once a run; others wait for the answer.
    fn sight(
        &self,
        session: &mut Session,
        prove: impl FnOnce(&mut Session) -> Result<(), Unproven>,
    ) -> Result<Sight, NotLoaded> {
        let mut sight = self.sight.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*sight {
            return Ok(known.clone());
        }
        session.mark("word").map_err(NotLoaded::SessionLost)?;
        let seen = prove(session);
        session.back_to("word").map_err(NotLoaded::SessionLost)?;
        let seen = match seen {
            Err(Unproven::Target(error)) if error.can_retry() => return Err(NotLoaded::SessionLost(error)),
            Err(Unproven::Target(error)) if error.sqlstate().is_some_and(crate::sql::is_cancelled) => {
                return Err(super::fatal_or_failed(error));
            }
            seen => seen.map_err(|no| no.told(&self.root)),
        };
        if let (Err(no), Loader::Auto) = (&seen, self.wish.loader) {
            log::warn!("files are loaded by COPY: {} (try: {})", no.why, no.remedy);
        }
        // What an operator demands may be mended while the run goes on.
        if seen.is_ok() || self.wish.loader == Loader::Auto {
            *sight = Some(seen.clone());
        }
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
        let served = exported.files().map(|(file, trailer)| ServedFile::new(&self.root.join(file), &trailer));
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
    /// For a reason that is told already.
    Told(Impossible),
}

impl Unproven {
    /// In the words of who could not prove it.
    pub fn plain(self) -> Impossible {
        match self {
            Self::Told(no) => no,
            Self::Mount(error) => Impossible { why: error.to_string(), remedy: error.remedy() },
            Self::Target(error) => Impossible { why: error.to_string(), remedy: error.remedy() },
            no @ (Self::Other(_) | Self::Missing(..) | Self::Path) => no.told(Path::new("")),
        }
    }

    /// In words, with what to try.
    pub fn told(self, root: &Path) -> Impossible {
        let shown = root.display();
        let why = match &self {
            Self::Told(no) => return no.clone(),
            Self::Mount(error) => error.to_string(),
            Self::Target(error) => error.to_string(),
            Self::Other(segments) => {
                let segments = segments.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
                format!("under {shown} segments {segments} see another directory than the runner's mount")
            }
            Self::Missing(read, all) => format!("{read} of {all} segments read the mount"),
            Self::Path => "the mount's path cannot be written in a command".into(),
        };
        let remedy = match self {
            Self::Mount(error) => error.remedy(),
            Self::Target(_) | Self::Other(_) | Self::Missing(..) | Self::Path | Self::Told(_) => format!(
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
    let none = Trailer { bytes: 0, crc32: 0, isize: 0 };
    let file = ServedFile::new(&root.join(sign.file()), &none).ok_or(Unproven::Path)?;
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
/// [`Unproven`].
pub fn prove_gpfdist(
    session: &mut Session,
    mount: &Mount,
    gpfdist: &Gpfdist,
    run: &str,
    stop: &Stop,
) -> Result<(), Unproven> {
    let sign = mount.sign(run).map_err(Unproven::Mount)?;
    let urls = gpfdist
        .urls(&[sign.file()], 1, stop)
        .map_err(|error| Unproven::Target(TargetError::Program(error)))?;
    let read = session.gpfdist_serves(&urls[0], run).map_err(Unproven::Target)?;
    if read == [sign.text()] {
        return Ok(());
    }
    Err(Unproven::Told(Impossible {
        why: format!("{} is another file than the one that the runner left on the mount", urls[0]),
        remedy: "let it serve the mount's subdirectory: target.gpfdist.mount, or target.gpfdist.url with the directory"
            .into(),
    }))
}
