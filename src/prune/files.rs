//! Files of units whose rows are in the target: the load log says so, for each of them, at this moment.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Ground, Swept, unreadable};
use crate::failure::Failure;
use crate::interval::Interval;
use crate::sweep::{Leaf, Tree};
use crate::target::{Held, Session};
use crate::unit::{Extent, encode, id_of_file, read_id, table_of, whole_path};

/// So many units are asked for at once.
const BATCH: usize = 1_000;

/// By series and tag: windows that one row stands for, its job, and when the last of them was loaded.
type Together = HashMap<(String, Option<String>), Vec<(Interval<i64>, String, Timestamp)>>;

/// Removes the files of units that were loaded before `cut`, source by source.
pub(super) fn sweep(
    ground: Ground<'_>,
    session: &mut Session,
    cut: Timestamp,
    swept: &mut Swept,
) -> Result<(), Failure> {
    for source in &ground.inventory.sources {
        let directory = encode(&source.name);
        let Some(tree) = ground.tree(&[&directory])? else { continue };
        let together = together(session.held_together(&source.name)?);
        let mut one = Source { ground, cut, name: &source.name, directory, tree: &tree, together };
        let mut batch = Vec::new();
        tree.files(&mut |leaf| {
            if unit_of(&leaf.path).is_some() {
                batch.push(leaf);
            }
            if batch.len() >= BATCH {
                one.judge(session, std::mem::take(&mut batch), swept)?;
            }
            Ok::<(), Trouble>(())
        })
        .or_else(|trouble| trouble.told(ground, &one.directory))?;
        one.judge(session, batch, swept).or_else(|trouble| trouble.told(ground, &one.directory))?;
    }
    Ok(())
}

/// What a walk ends by.
enum Trouble {
    Io(std::io::Error),
    Failed(Box<Failure>),
    Stopped,
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl Trouble {
    fn told(self, ground: Ground<'_>, directory: &str) -> Result<(), Failure> {
        match self {
            Self::Io(error) => Err(unreadable(ground, &[directory], error)),
            Self::Failed(failure) => Err(*failure),
            Self::Stopped => Ok(()),
        }
    }
}

/// One source's files.
struct Source<'a> {
    ground: Ground<'a>,
    cut: Timestamp,
    name: &'a str,
    directory: String,
    tree: &'a Tree,
    together: Together,
}

impl Source<'_> {
    fn judge(&mut self, session: &mut Session, leaves: Vec<Leaf>, swept: &mut Swept) -> Result<(), Trouble> {
        let ids: Vec<&str> = leaves.iter().filter_map(|leaf| unit_of(&leaf.path)).collect();
        let held = session.held(self.name, &ids).map_err(|error| Trouble::Failed(Box::new(error.into())))?;
        let held: HashMap<&str, &Held> = held.iter().map(|held| (held.unit.as_str(), held)).collect();
        for leaf in &leaves {
            if self.ground.stop.asked() {
                return Err(Trouble::Stopped);
            }
            let path = Path::new(&self.directory).join(&leaf.path);
            let Some(unit) = unit_of(&leaf.path) else { continue };
            let (job, loaded_at) = match held.get(unit) {
                // Parts go with their unit, and so do those that an attempt of another number of segments left.
                Some(held) if whole_path(Path::new(&held.file)) == whole_path(&path) => {
                    (held.job.as_str(), held.loaded_at)
                }
                Some(_) => continue,
                None => match covered(&self.together, &leaf.path) {
                    Some(found) => found,
                    None => continue,
                },
            };
            if loaded_at >= self.cut || self.ground.busy.iter().any(|busy| busy == job) {
                continue;
            }
            if self.ground.only_look || self.tree.remove(leaf)? {
                swept.add(self.ground, path, leaf.bytes);
            }
        }
        Ok(())
    }
}

/// The unit's id in a file's name; `None` for what gpferry does not call its files.
fn unit_of(path: &Path) -> Option<&str> {
    id_of_file(path.file_name()?.to_str()?)
}

/// A unit whose row was put together with others', where its file is at the place that such a unit has: job, and when
/// the last of them was loaded.
fn covered<'a>(together: &'a Together, path: &Path) -> Option<(&'a str, Timestamp)> {
    let named = read_id(unit_of(path)?)?;
    let table = table_of(&named.series)?;
    let mut parts = path.iter();
    let day: PathBuf = parts.by_ref().take(2).collect();
    if let Extent::Times(window) = &named.extent {
        let start = window.start();
        if day != Path::new(&start.strftime("%Y%m").to_string()).join(start.strftime("%d").to_string()) {
            return None;
        }
    }
    if parts.next()? != encode(table.table()).as_str() || parts.count() != 1 {
        return None;
    }
    let rows = together.get(&(named.series, named.tag))?;
    let row = rows.iter().find(|(interval, _, _)| interval.holds(&named.extent.numbers()))?;
    Some((&row.1, row.2))
}

fn together(held: Vec<Held>) -> Together {
    let mut together = Together::new();
    for one in held {
        let Some(named) = read_id(&one.unit) else { continue };
        let part = (named.extent.numbers(), one.job, one.loaded_at);
        together.entry((named.series, named.tag)).or_default().push(part);
    }
    together
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_as_covered_only_at_its_own_place() {
        let held = Held {
            unit: "d^a^t^20210810000000^20210812000000".into(),
            job: "j".into(),
            file: String::new(),
            loaded_at: Timestamp::UNIX_EPOCH,
        };
        let together = together(vec![held]);
        let covers = |path: &str| covered(&together, Path::new(path)).is_some();
        assert!(covers("202108/11/t/d^a^t^20210811000000^20210812000000.csv.gz"));
        assert!(covers("202108/11/t/d^a^t^20210811000000^20210812000000^seg1.csv.gz"));
        for other in [
            "202108/12/t/d^a^t^20210811000000^20210812000000.csv.gz",
            "202108/11/u/d^a^t^20210811000000^20210812000000.csv.gz",
            "202108/11/t/x/d^a^t^20210811000000^20210812000000.csv.gz",
            "202108/12/t/d^a^t^20210812000000^20210813000000.csv.gz",
            "202108/11/t/d^a^t^20210811000000^20210812000000^v1.csv.gz",
            "202108/11/t/d^a^t^20210811000000^20210812000000^c1.csv.gz",
            "202108/11/t/d^a^t^all.csv.gz",
            "202108/11/t/d^a^t^i1^i2.csv.gz",
        ] {
            assert!(!covers(other), "{other}");
        }
    }

    #[test]
    fn only_names_of_units_are_looked_at() {
        for own in ["x/d^a^t^all.csv.gz", "x/d^a^t^all^seg0.csv.gz", "x/d^a^t^all^seg12.csv.gz"] {
            assert_eq!(unit_of(Path::new(own)), Some("d^a^t^all"), "{own}");
        }
        for other in [".d^a^t^all.csv.gz.r.1.part", "notes.csv.gz", "d^a^t^all.csv", ".d^a^t^all.csv.gz"] {
            assert_eq!(unit_of(Path::new(other)), None, "{other}");
        }
    }
}
