//! Removing what is older than the inventory's `keep` says. Nothing here can make a unit load twice.
//!
//! Files go only where the load log, asked now, holds their unit under just that path; rows of the load log only where
//! another row covers what they did; units of the ledger only where its intervals do. What `only_look` finds is what
//! would go: both walk the same way.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use crate::failure::Failure;
use crate::inventory::{Inventory, Keep};
use crate::ledger::prune::OldHistory;
use crate::ledger::{Ledger, LedgerError};
use crate::stop::Stop;
use crate::sweep::{Leaf, Tree};
use crate::target::{Address, Merged, OldRows, Session};

mod files;

/// A run looks for old things this often at most.
const EVERY: Duration = Duration::from_secs(3600);

/// What pruning stands on.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "nothing of it is worth showing")]
pub struct Ground<'a> {
    /// What was meant.
    pub inventory: &'a Inventory,
    /// How the target is reached.
    pub target: &'a Address,
    /// What is old is older than this.
    pub now: Timestamp,
    /// Jobs that are not ours now: what is theirs stays.
    pub busy: &'a [String],
    /// Ends it early.
    pub stop: &'a Stop,
    /// Nothing is removed.
    pub only_look: bool,
    /// Are the files to be named?
    pub name_files: bool,
}

/// Files that went, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// Their paths below the mount's subdirectory, where they are to be named.
    pub paths: Vec<PathBuf>,
}

/// What went, or would.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Files of units that are loaded.
    pub files: Swept,
    /// Files of rows that were kept out.
    pub rejects: Swept,
    /// Manifests of runs.
    pub manifests: Swept,
    /// Rows of the load log.
    pub log: Merged,
    /// What the ledger held.
    pub history: OldHistory,
    /// What could not be looked at; the rest was.
    pub problems: Vec<Failure>,
}

impl Pruned {
    /// Is there nothing old?
    pub fn is_nothing(&self) -> bool {
        let swept = [&self.files, &self.rejects, &self.manifests];
        swept.iter().all(|one| one.files == 0) && self.log.rows == 0 && self.history == OldHistory::default()
    }
}

impl Swept {
    fn add(&mut self, ground: Ground<'_>, at: PathBuf, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
        if ground.name_files {
            self.paths.push(at);
        }
    }
}

/// Is it time that a run looks for old things?
///
/// # Errors
/// [`LedgerError`].
pub fn is_due(ledger: &Ledger, keep: Keep, now: Timestamp) -> Result<bool, LedgerError> {
    let Some(shortest) = keep.shortest() else { return Ok(false) };
    let pause = EVERY.min(shortest / 10);
    let Some(last) = ledger.pruned_at()? else { return Ok(true) };
    // A clock that was set back makes the last time come later.
    Ok(last > now || now.duration_since(last).unsigned_abs() >= pause)
}

/// Looks for what is old, and removes it unless `only_look`. `ledger` is `None` where there is none.
pub fn prune(ground: Ground<'_>, mut ledger: Option<&mut Ledger>) -> Pruned {
    let keep = ground.inventory.keep;
    let mut pruned = Pruned::default();
    if let Some(cut) = ground.cut(keep.files) {
        let swept = &mut pruned.files;
        let result = ground.session().and_then(|session| match session {
            Some(mut session) => files::sweep(ground, &mut session, cut, swept),
            None => Ok(()),
        });
        pruned.problems.extend(result.err());
    }
    if let Some(cut) = ground.cut(keep.history) {
        let result = shorten_log(ground, cut, &mut pruned.log);
        pruned.problems.extend(result.err());
        if let Some(ledger) = &mut ledger {
            match ledger.prune(cut, ground.busy, ground.only_look) {
                Ok(history) => pruned.history = history,
                Err(error) => pruned.problems.push(error.into()),
            }
        }
        let result = by_age(ground, &["manifest"], &mut pruned.manifests, |leaf| {
            began(leaf).is_some_and(|began| began < cut)
        });
        pruned.problems.extend(result.err());
    }
    if let Some(cut) = ground.cut(keep.rejects) {
        let result =
            by_age(ground, &["rejects"], &mut pruned.rejects, |leaf| leaf.modified < cut.as_second());
        pruned.problems.extend(result.err());
    }
    if let Some(ledger) = ledger.filter(|_| !ground.only_look && pruned.problems.is_empty()) {
        pruned.problems.extend(ledger.note_pruned(ground.now).err().map(Failure::from));
    }
    pruned
}

impl Ground<'_> {
    fn cut(&self, keep: Option<Duration>) -> Option<Timestamp> {
        (!self.stop.asked()).then(|| self.now.checked_sub(keep?).ok())?
    }

    /// A session, where the target has a load log that can be asked.
    fn session(&self) -> Result<Option<Session>, Failure> {
        let mut session = Session::open(self.target, &self.inventory.target.log_schema)?;
        Ok(session.has_measures()?.then_some(session))
    }

    fn tree(&self, names: &[&str]) -> Result<Option<Tree>, Failure> {
        let mount = &self.inventory.mount;
        let names: Vec<&str> = std::iter::once(mount.subdir.as_str()).chain(names.iter().copied()).collect();
        Tree::open(&mount.path, &names).map_err(|error| {
            let path = mount.path.join(names.iter().collect::<PathBuf>());
            crate::mount::MountError::Unreadable { path, error }.into()
        })
    }
}

/// Old windows that touch become one row.
fn shorten_log(ground: Ground<'_>, cut: Timestamp, merged: &mut Merged) -> Result<(), Failure> {
    let (Some(mut reader), Some(mut writer)) = (ground.session()?, ground.session()?) else { return Ok(()) };
    let sources: Vec<String> = ground.inventory.sources.iter().map(|source| source.name.clone()).collect();
    let old = OldRows { cut, sources: &sources, busy: ground.busy };
    reader.touching(&old, &mut |merges| {
        let done = if ground.only_look {
            Merged {
                rows: merges.iter().map(crate::target::Merge::rows).sum(),
                into: merges.len() as u64,
                in_use: false,
            }
        } else if ground.stop.asked() || merged.in_use {
            Merged::default()
        } else {
            writer.put_together(&merges, ground.stop)?
        };
        merged.rows += done.rows;
        merged.into += done.into;
        merged.in_use |= done.in_use;
        Ok(())
    })?;
    Ok(())
}

/// Regular files below a directory of ours that are old by what they are alone.
fn by_age(
    ground: Ground<'_>,
    below: &[&str],
    swept: &mut Swept,
    is_old: impl Fn(&Leaf) -> bool,
) -> Result<(), Failure> {
    let Some(tree) = ground.tree(below)? else { return Ok(()) };
    tree.files(&mut |leaf: Leaf| -> Result<(), io::Error> {
        if is_old(&leaf) && !ground.stop.asked() && (ground.only_look || tree.remove(&leaf)?) {
            swept.add(ground, below.iter().collect::<PathBuf>().join(&leaf.path), leaf.bytes);
        }
        Ok(())
    })
    .map_err(|error| unreadable(ground, below, error))
}

fn unreadable(ground: Ground<'_>, below: &[&str], error: io::Error) -> Failure {
    let mount = &ground.inventory.mount;
    let path = mount.path.join(&mount.subdir).join(below.iter().collect::<PathBuf>());
    crate::mount::MountError::Unremovable { path, error }.into()
}

/// When the run began whose manifest this is: `<YYYYMMDD>T<hhmmss>Z-<digits>.jsonl`, and nothing else.
fn began(leaf: &Leaf) -> Option<Timestamp> {
    let run = leaf.path.to_str()?.strip_suffix(".jsonl")?;
    let (stamp, digits) = run.split_once('-')?;
    let is_ours = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let civil = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", stamp).ok()?;
    is_ours.then(|| civil.to_zoned(jiff::tz::TimeZone::UTC).ok())?.map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_manifest_is_read_as_one() {
        let began = |path: &str| began(&Leaf { path: path.into(), bytes: 0, modified: 0 });
        assert_eq!(began("20261121T085906Z-ab12.jsonl"), "2026-11-21T08:59:06Z".parse().ok());
        for other in
            ["20261121T085906Z-ab12.jsonl.bak", "x/20261121T085906Z-ab12.jsonl", "notes.jsonl", "a-b.jsonl"]
        {
            assert_eq!(began(other), None, "{other}");
        }
    }

    #[test]
    fn a_run_looks_for_old_things_now_and_then() {
        let ledger = Ledger::scratch().unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let week = Keep { files: Some(Duration::from_secs(7 * 86_400)), ..Keep::default() };
        assert!(!is_due(&ledger, Keep::default(), at(10_000)).unwrap(), "everything is kept");
        assert!(is_due(&ledger, week, at(10_000)).unwrap());
        ledger.note_pruned(at(10_000)).unwrap();
        for (second, due) in [(10_001, false), (13_599, false), (13_600, true), (9_999, true)] {
            assert_eq!(is_due(&ledger, week, at(second)).unwrap(), due, "{second}");
        }
        let short = Keep { rejects: Some(Duration::from_secs(20)), ..week };
        assert!(is_due(&ledger, short, at(10_002)).unwrap());
    }
}
