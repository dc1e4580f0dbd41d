//! What a script that is called by arguments cannot be asked for: whoever wrote it never heard of it.
//!
//! A condition that the script does not know, or a table without a window, would be left out in silence or end in SQL
//! that nobody meant. So each is refused where it is written.

use std::collections::{BTreeSet, HashMap};

use super::fault::Fault;
use super::model::{Cut, Inventory, NullWindow, WindowBy, WindowRule};
use super::reader::{Reader, join};
use super::top::Written;
use crate::measure::Scale;

const ANOTHER_SOURCE: &str = "name the same host as another source without `script`, and move it from there";

const TIMES_ONLY: &str = "takes times, and a column of timestamps or dates";

/// Puts down a fault for each.
pub(super) fn check(reader: &mut Reader, inventory: &Inventory, written: &Written) {
    files(reader, inventory);
    let mut windows = BTreeSet::new();
    for (job, (job_path, paths)) in inventory.jobs.iter().zip(&written.jobs) {
        if inventory.source(&job.source).and_then(|source| source.argv()).is_none() {
            continue;
        }
        for (entry, path) in job.tables.iter().zip(paths) {
            if entry.filter.is_some() {
                let path = format!("{path}.where");
                let what = "a script that is called by arguments gets no condition";
                reader.add(Fault::new(reader.place(&path), path, what, ANOTHER_SOURCE));
            }
            let (key, what) = match &entry.window {
                WindowRule::None { .. } => ("window", "needs the start and end of a window"),
                WindowRule::By(WindowBy { cut: Cut::Ids { .. }, .. }) => ("window.type", TIMES_ONLY),
                WindowRule::By(WindowBy { cut: Cut::Time { scale, .. }, .. }) if *scale != Scale::Time => {
                    ("window.type", TIMES_ONLY)
                }
                WindowRule::By(WindowBy { null_window: NullWindow::Include, .. }) => {
                    ("window.null_window", "cannot be asked for rows without a time")
                }
                WindowRule::By(_) => continue,
            };
            let layers = [path, job_path, "defaults"].map(|layer| format!("{layer}.{key}"));
            let written = layers.iter().find(|path| reader.is_written(path));
            windows.insert((written.unwrap_or(path).clone(), what));
        }
    }
    for (path, what) in windows {
        let what = format!("a script that is called by arguments {what}");
        reader.add(Fault::new(reader.place(&path), path, what, ANOTHER_SOURCE));
    }
}

/// Two sources whose scripts would write one file for two units.
fn files(reader: &mut Reader, inventory: &Inventory) {
    let mut first: HashMap<String, &str> = HashMap::new();
    for source in &inventory.sources {
        let Some(script) = source.argv() else { continue };
        let shape = script.file.shape(&source.name, &source.database);
        let Some(earlier) = first.get(&shape) else {
            first.insert(shape, &source.name);
            continue;
        };
        let path = format!("{}.script", join("sources", &source.name));
        let file = format!("{path}.file");
        let path = if reader.is_written(&file) { file } else { path };
        let what = format!(
            "units of this source can have the same file as units of source {}",
            reader.secrets.echo(earlier)
        );
        let remedy = "let the scripts write to different directories, and say so with {source} or a word of your own in `file`";
        reader.add(Fault::new(reader.place(&path), path, what, remedy));
    }
}
