//! Rows of a catalog → the tree that YAML is read into. Pure.
//!
//! One job per group, or per group and source where a group has tables of several. What the rows say goes in as
//! text; whether a time is one and a name may be a job's is decided by the reader of the inventory, as for
//! what was written by hand.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::nodes::{as_length, key, map, text};
use super::origin::{Row, shown};
use super::sheet::Notes;
use super::states::{self, State, Times};
use super::tables::{self, Table};
use super::{Fetched, Field, Finding, JobCatalog, Origins, Which};
use crate::inventory::fault::Fault;
use crate::inventory::yaml::{Key, Node, Value};
use crate::names::TableName;

/// What is done about a row that is plainly wrong and could be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::inventory) enum Way {
    /// It is a fault.
    Strict,
    /// It is left out, and told. For who leaves a catalog behind.
    LeaveOut,
}

/// A document with the jobs of its catalogs in it.
pub(in crate::inventory) struct Composed {
    pub(in crate::inventory) root: Node,
    pub(in crate::inventory) origins: Origins,
    pub(in crate::inventory) faults: Vec<Fault>,
    pub(in crate::inventory) findings: Vec<Finding>,
}

/// Puts the jobs of catalogs into a document that is good without them.
pub(in crate::inventory) fn compose(
    mut root: Node,
    catalogs: &[(&JobCatalog, &Fetched)],
    way: Way,
    zone: &TimeZone,
) -> Composed {
    let mut composed = (Origins::default(), Vec::new(), Vec::new());
    let mut jobs = take_jobs(&mut root);
    let mut times = Vec::new();
    for (number, (catalog, fetched)) in catalogs.iter().enumerate() {
        let (origins, faults, findings) = &mut composed;
        let mut notes = Notes { catalog, origins, faults, findings };
        let mut states = states::read(&mut notes, fetched, way, zone);
        let groups = tables::read(&mut notes, fetched, way);
        for (group, tables) in groups {
            let state = states.remove(&group);
            add_jobs(&mut notes, &group, tables, state.as_ref(), &mut jobs);
        }
        times.push((number, states));
    }
    // Last, so that the times of one catalog may be those of jobs of another.
    for (number, states) in times {
        let (origins, faults, findings) = &mut composed;
        let mut notes = Notes { catalog: catalogs[number].0, origins, faults, findings };
        add_times(&mut notes, states, &mut jobs);
    }
    put_jobs(&mut root, jobs);
    let (origins, faults, findings) = composed;
    Composed { root, origins, faults, findings }
}

type Entries = Vec<(Key, Node)>;

/// Takes the jobs out of a document.
fn take_jobs(root: &mut Node) -> Entries {
    let Value::Map(entries) = &mut root.value else { return Entries::new() };
    match entries.iter_mut().find(|(key, _)| &*key.text == "jobs") {
        Some((_, Node { value: Value::Map(jobs), .. })) => std::mem::take(jobs),
        _ => Entries::new(),
    }
}

/// Puts jobs into a document; nothing where there are none.
fn put_jobs(root: &mut Node, jobs: Entries) {
    let at = root.at;
    let Value::Map(entries) = &mut root.value else { return };
    let place = entries.iter().find(|(key, _)| &*key.text == "jobs").map_or(at, |(_, node)| node.at);
    entries.retain(|(key, _)| &*key.text != "jobs");
    if !jobs.is_empty() {
        entries.push((Key { at: place, text: "jobs".into() }, Node { at: place, value: Value::Map(jobs) }));
    }
}

/// Adds the jobs of one group, one per source.
fn add_jobs(
    notes: &mut Notes<'_>,
    group: &str,
    tables: Vec<Table>,
    state: Option<&State>,
    jobs: &mut Entries,
) {
    let times = match state {
        Some(State::Goes(times)) => Some(times),
        Some(State::Off(row)) => {
            let count = tables.len();
            notes.finding(
                *row,
                format!("left out with it: {count} valid table{}", if count == 1 { "" } else { "s" }),
            );
            return;
        }
        None => None,
    };
    let row = match times {
        Some(times) => times.row,
        None => notes.row(Some(Which::Tables), &format!("group {}", shown(group))),
    };
    if times.is_none() && notes.catalog.jobs.is_some() {
        notes.finding(row, "there is no row of `jobs` for it, so the job has no `from`");
    }
    let mut by_source: BTreeMap<String, Vec<Table>> = BTreeMap::new();
    for table in tables {
        by_source.entry(table.source.clone()).or_default().push(table);
    }
    let alone = by_source.len() == 1;
    for (source, tables) in by_source {
        let name = if alone { group.to_owned() } else { format!("{group}.{source}") };
        if jobs.iter().any(|(key, _)| *key.text == *name) {
            let what =
                format!("there is a job {} already, in the inventory or another catalog", shown(&name));
            notes.fault_of_row(row, what, "give one of the two another name");
            continue;
        }
        let node = job(notes, row, &source, tables, times);
        jobs.push((Key { at: row.at(Field::Group), text: name.into() }, node));
    }
}

fn job(notes: &mut Notes<'_>, row: Row, source: &str, tables: Vec<Table>, times: Option<&Times>) -> Node {
    let job_length = times.and_then(|times| times.length.clone());
    let tables = tables.into_iter().map(|table| entry(notes, table, job_length.as_ref())).collect();
    let window = job_length.map(|length| map(row, vec![("length", Some(length))]));
    map(
        row,
        vec![
            ("source", Some(text(row, Field::Group, source))),
            ("from", times.map(|times| times.from.clone())),
            ("until", times.and_then(|times| times.until.clone())),
            ("hours", times.and_then(|times| times.hours.clone())),
            ("window", window),
            ("tables", Some(Node { at: row.place(), value: Value::List(tables) })),
        ],
    )
}

/// One entry of a job's tables.
fn entry(notes: &mut Notes<'_>, table: Table, job_length: Option<&Node>) -> Node {
    let row = table.row;
    let (own, whole) = (as_length(table.length.as_ref()), as_length(job_length));
    let differ = match (own, whole) {
        (Some(own), Some(whole)) if own.as_duration() != whole.as_duration() => {
            notes.finding(
                row,
                format!("its duration {own} is not that of its job, {whole}: taken as its own"),
            );
            true
        }
        (Some(_), Some(_)) => false,
        _ => true,
    };
    let length = table.length.filter(|_| differ);
    let window = (table.column.is_some() || length.is_some())
        .then(|| map(row, vec![("column", table.column), ("length", length)]));
    let load = table.mode.map(|mode| map(row, vec![("mode", Some(mode))]));
    let name = text(row, Field::Table, &as_written(&table.name));
    map(row, vec![("table", Some(name)), ("window", window), ("load", load)])
}

/// A name as an inventory writes it; what would be read as a pattern stands in quotes.
fn as_written(name: &TableName) -> String {
    let part = |part: &str| {
        if part.contains(['.', '"', '*', '?', '[', '{']) {
            format!("\"{}\"", part.replace('"', "\"\""))
        } else {
            part.to_owned()
        }
    };
    format!("{}.{}", part(name.schema()), part(name.table()))
}

/// Gives the times of rows without tables to the jobs of their name.
fn add_times(notes: &mut Notes<'_>, states: BTreeMap<String, State>, jobs: &mut Entries) {
    let mut strangers = Vec::new();
    for (group, state) in states {
        let Some(at) = jobs.iter().position(|(key, _)| *key.text == group) else {
            strangers.push(group);
            continue;
        };
        match state {
            State::Off(_) => drop(jobs.remove(at)),
            State::Goes(times) => give_times(notes, &mut jobs[at].1, times),
        }
    }
    if !strangers.is_empty() {
        let mut names: Vec<String> = strangers.iter().take(10).map(|name| shown(name)).collect();
        if strangers.len() > names.len() {
            names.push("…".into());
        }
        let row = notes.row(Some(Which::Jobs), "`jobs`");
        let what = format!("rows without tables here, {}: {}", strangers.len(), names.join(", "));
        notes.finding(row, what);
    }
}

fn give_times(notes: &mut Notes<'_>, job: &mut Node, times: Times) {
    let row = times.row;
    let Value::Map(entries) = &mut job.value else { return };
    let given = [("from", Some(times.from)), ("until", times.until), ("hours", times.hours)];
    let place = entries.iter().position(|(key, _)| &*key.text == "tables").unwrap_or(entries.len());
    let mut new = Vec::new();
    for (name, node) in given.into_iter().filter_map(|(name, node)| Some((name, node?))) {
        if entries.iter().any(|(key, _)| *key.text == *name) {
            let what = format!("the job has `{name}` already, in the inventory or another catalog");
            notes.fault_of_row(row, what, "remove it there, or leave this row out of the query");
        } else {
            new.push((key(row, name), node));
        }
    }
    if let Some(length) = times.length
        && !entries.iter().any(|(key, _)| &*key.text == "window")
    {
        new.push((key(row, "window"), map(row, vec![("length", Some(length))])));
    }
    entries.splice(place..place, new);
}
