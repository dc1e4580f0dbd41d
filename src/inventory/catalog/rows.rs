//! Rows of a catalog → the tree that YAML is read into. Pure.
//!
//! One job per group, or per group and source where a group has tables of several. What the rows say goes in as
//! text; whether a time is one and a name may be a job's is decided by the reader of the inventory, as for
//! what was written by hand.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::origin::{Row, shown};
use super::sheet::{Notes, Sheet};
use super::times::{divides, half_open, length, moment, written};
use super::{Fetched, Field, Finding, JobCatalog, Origins, SourceRule, Which};
use crate::inventory::fault::Fault;
use crate::inventory::yaml::{Key, Node, Value};
use crate::names::TableName;
use crate::window::Length;

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
        let mut states = read_states(&mut notes, fetched, way, zone);
        let groups = read_groups(&mut notes, fetched, way);
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
    match entries.iter_mut().find(|(key, _)| key.text == "jobs") {
        Some((_, Node { value: Value::Map(jobs), .. })) => std::mem::take(jobs),
        _ => Entries::new(),
    }
}

/// Puts jobs into a document; nothing where there are none.
fn put_jobs(root: &mut Node, jobs: Entries) {
    let at = root.at;
    let Value::Map(entries) = &mut root.value else { return };
    let place = entries.iter().find(|(key, _)| key.text == "jobs").map_or(at, |(_, node)| node.at);
    entries.retain(|(key, _)| key.text != "jobs");
    if !jobs.is_empty() {
        entries.push((Key { at: place, text: "jobs".into() }, Node { at: place, value: Value::Map(jobs) }));
    }
}

/// A job's times, as a row has them.
enum State {
    Goes(Times),
    /// Not valid, or at its end.
    Off(Row),
}

struct Times {
    row: Row,
    from: Node,
    until: Option<Node>,
    hours: Option<Node>,
    length: Option<Node>,
}

fn scalar(row: Row, field: Field, value: Value) -> Node {
    Node { at: row.at(field), value }
}

fn text(row: Row, field: Field, text: &str) -> Node {
    scalar(row, field, Value::Text(text.to_owned()))
}

fn key(row: Row, name: &str) -> Key {
    Key { at: row.place(), text: name.to_owned() }
}

fn map(row: Row, entries: Vec<(&str, Option<Node>)>) -> Node {
    let entries = entries.into_iter().filter_map(|(name, node)| Some((key(row, name), node?))).collect();
    Node { at: row.place(), value: Value::Map(entries) }
}

fn as_length(node: Option<&Node>) -> Option<Length> {
    match node.map(|node| &node.value) {
        Some(Value::Text(text)) => text.parse().ok(),
        _ => None,
    }
}

/// The rows of `jobs`, by group.
fn read_states(
    notes: &mut Notes<'_>,
    fetched: &Fetched,
    way: Way,
    zone: &TimeZone,
) -> BTreeMap<String, State> {
    let mut states = BTreeMap::new();
    let sheet = fetched.jobs.as_ref().and_then(|answer| Sheet::open(notes, Which::Jobs, answer));
    let Some(sheet) = sheet else { return states };
    for (number, cells) in sheet.rows.iter().enumerate() {
        let group = sheet.cell(cells, Field::Group);
        let keys = group.map_or_else(
            || format!("row {} of `jobs`", number + 1),
            |group| format!("`jobs` row of group {}", shown(group)),
        );
        let row = notes.row(Some(Which::Jobs), &keys);
        let valid = sheet.valid(notes, row, cells);
        let group = sheet.need(notes, row, cells, Field::Group);
        let state = match valid {
            Some(true) => read_times(notes, &sheet, row, cells, way, zone),
            Some(false) => {
                notes.finding(row, "its valid flag says no: the job is left out");
                Some(State::Off(row))
            }
            None => None,
        };
        let (Some(group), Some(state)) = (group, state) else { continue };
        if states.contains_key(group) {
            let what = "this group has more than one row";
            match way {
                Way::Strict => notes.fault_of_row(row, what, "keep one of them, or choose one in the query"),
                Way::LeaveOut => notes.finding(row, format!("{what}: the first is taken")),
            }
            continue;
        }
        states.insert(group.to_owned(), state);
    }
    states
}

fn read_times(
    notes: &mut Notes<'_>,
    sheet: &Sheet<'_>,
    row: Row,
    cells: &[Option<String>],
    way: Way,
    zone: &TimeZone,
) -> Option<State> {
    for field in [Field::Start, Field::FinalEnd, Field::Hours, Field::Duration] {
        if let Some(value) = sheet.cell(cells, field) {
            notes.origins.hide(value);
        }
    }
    let start = sheet.need(notes, row, cells, Field::Start)?;
    let final_end = sheet.cell(cells, Field::FinalEnd).filter(|end| *end != "infinity");
    let bound = final_end.and_then(half_open);
    if let Some(bound) = &bound {
        notes.origins.hide(bound);
        notes.finding(row, format!(
            "its final end is the last second of a closed interval: taken as {bound}, which does not belong to it"
        ));
    }
    let until = bound.as_deref().or(final_end);
    let duration = sheet.cell(cells, Field::Duration).map(length);
    if let Some(Value::Text(text)) = &duration {
        notes.origins.hide(text);
    }
    let times = Times {
        row,
        from: text(row, Field::Start, start),
        until: until.map(|until| text(row, Field::FinalEnd, until)),
        hours: sheet.cell(cells, Field::Hours).map(|hours| text(row, Field::Hours, hours)),
        length: duration.map(|length| scalar(row, Field::Duration, length)),
    };
    let start = moment(start, zone);
    check_window(notes, row, start, sheet.cell(cells, Field::End), as_length(times.length.as_ref()), zone);
    match (start, until.and_then(|until| moment(until, zone))) {
        (Some(start), Some(until)) if start == until => {
            notes.finding(row, "it is at its final end: the job is left out");
            Some(State::Off(row))
        }
        (Some(start), Some(until)) if start > until && way == Way::LeaveOut => {
            notes.finding(
                row,
                format!(
                    "its final end {} is before its start {}: the job is left out",
                    written(until),
                    written(start)
                ),
            );
            Some(State::Off(row))
        }
        _ => Some(State::Goes(times)),
    }
}

/// What is odd about the window that was current when the row was written.
fn check_window(
    notes: &mut Notes<'_>,
    row: Row,
    start: Option<DateTime>,
    end: Option<&str>,
    length: Option<Length>,
    zone: &TimeZone,
) {
    let Some(start) = start else { return };
    if half_open(&written(start)).is_some() {
        notes.finding(
            row,
            format!(
                "it starts in the last second of a minute, {}, as after a closed interval: taken as it is",
                written(start)
            ),
        );
    }
    let Some(end) = end else { return };
    let bound = half_open(end);
    if let Some(bound) = &bound {
        notes.finding(
            row,
            format!("its window ends in the last second of a closed interval; half-open it ends at {bound}"),
        );
    }
    let end = moment(bound.as_deref().unwrap_or(end), zone);
    if let (Some(end), Some(length)) = (end, length)
        && start < end
        && !divides(length, start, end)
    {
        notes.finding(
            row,
            format!(
                "its duration {length} does not divide its window, {} to {}",
                written(start),
                written(end)
            ),
        );
    }
}

/// A row of `tables`.
struct Table {
    row: Row,
    source: String,
    name: TableName,
    column: Option<Node>,
    length: Option<Node>,
    mode: Option<Node>,
}

/// The rows of `tables` that are to be moved, by group.
fn read_groups(notes: &mut Notes<'_>, fetched: &Fetched, way: Way) -> BTreeMap<String, Vec<Table>> {
    let mut groups: BTreeMap<String, Vec<Table>> = BTreeMap::new();
    let sheet = fetched.tables.as_ref().and_then(|answer| Sheet::open(notes, Which::Tables, answer));
    let Some(sheet) = sheet else { return groups };
    let mut seen = BTreeSet::new();
    for (number, cells) in sheet.rows.iter().enumerate() {
        let row = notes.row(Some(Which::Tables), &told(&sheet, cells, number));
        match sheet.valid(notes, row, cells) {
            Some(true) => {}
            Some(false) => {
                notes.finding(row, "its valid flag says no: the table is left out");
                continue;
            }
            None => continue,
        }
        let group = sheet.need(notes, row, cells, Field::Group);
        let Some(table) = read_table(notes, &sheet, row, cells) else { continue };
        let Some(group) = group else { continue };
        if !seen.insert((table.source.clone(), table.name.clone())) && way == Way::LeaveOut {
            notes.finding(row, "the table is listed twice: the first row is taken");
            continue;
        }
        groups.entry(group.to_owned()).or_default().push(table);
    }
    for tables in groups.values_mut() {
        tables.sort_by(|a, b| (&a.source, &a.name).cmp(&(&b.source, &b.name)));
    }
    groups
}

/// How a row is told: by its key columns.
fn told(sheet: &Sheet<'_>, cells: &[Option<String>], number: usize) -> String {
    let keys: Vec<&str> = [Field::Database, Field::Schema, Field::Table]
        .into_iter()
        .filter_map(|field| sheet.cell(cells, field))
        .collect();
    let group = sheet.cell(cells, Field::Group).map(|group| format!(" of group {}", shown(group)));
    let row = match keys.as_slice() {
        [] => format!("row {} of `tables`", number + 1),
        keys => format!("`tables` row {}", shown(&keys.join("."))),
    };
    format!("{row}{}", group.unwrap_or_default())
}

fn read_table(notes: &mut Notes<'_>, sheet: &Sheet<'_>, row: Row, cells: &[Option<String>]) -> Option<Table> {
    let schema = sheet.need(notes, row, cells, Field::Schema);
    let table = sheet.need(notes, row, cells, Field::Table);
    let source = source_of(notes, row, sheet.cell(cells, Field::Database));
    let mode = sheet.cell(cells, Field::Mode).map(|mode| read_mode(notes, row, mode));
    let (column, duration) = (sheet.cell(cells, Field::Window), sheet.cell(cells, Field::Duration));
    for value in [column, duration].into_iter().flatten() {
        notes.origins.hide(value);
    }
    let duration = duration.map(length);
    if let Some(Value::Text(text)) = &duration {
        notes.origins.hide(text);
    }
    let name = TableName::new(schema?, table?)
        .map_err(|_| notes.fault(row, Field::Table, "a control character stands in the name"))
        .ok()?;
    Some(Table {
        row,
        source: source?,
        name,
        column: column.map(|column| text(row, Field::Window, column)),
        length: duration.map(|length| scalar(row, Field::Duration, length)),
        mode: mode.flatten(),
    })
}

fn source_of(notes: &mut Notes<'_>, row: Row, database: Option<&str>) -> Option<String> {
    match (&notes.catalog.source, database) {
        (SourceRule::One { source, database: own }, Some(database)) if database != own => {
            let what = format!("it is in another database than source `{source}`, which has `{own}`");
            let remedy = "name a source for each database: `source: { qmsprd: fab1, mes: fab2 }`";
            notes.fault_of_row(row, what, remedy);
            None
        }
        (SourceRule::One { source, .. }, _) => Some(source.clone()),
        (SourceRule::ByDatabase(by), Some(database)) => {
            let found = by.get(database).cloned();
            if found.is_none() {
                let known: Vec<&str> = by.keys().map(String::as_str).collect();
                let remedy = format!("add it under `source:` of the catalog, which has {}", known.join(", "));
                notes.fault_of_row(row, "there is no source for its database", remedy);
            }
            found
        }
        (SourceRule::ByDatabase(_), None) => {
            notes.fault(row, Field::Database, "nothing stands here, and a value is needed");
            None
        }
        (SourceRule::NoTables, _) => None,
    }
}

fn read_mode(notes: &mut Notes<'_>, row: Row, mode: &str) -> Option<Node> {
    let word = mode.to_ascii_lowercase();
    if ["insert", "update", "merge", "replace"].contains(&word.as_str()) {
        return Some(text(row, Field::Mode, &word));
    }
    let remedy = "one of insert, update, merge, replace; where the column means something else, write \
         `columns: { mode: ~ }` under `tables:` of the catalog, and `load:` in `defaults:`";
    notes.fault_of_row(row, format!("{} is no load mode", shown(mode)), remedy);
    None
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
        if jobs.iter().any(|(key, _)| key.text == name) {
            let what =
                format!("there is a job {} already, in the inventory or another catalog", shown(&name));
            notes.fault_of_row(row, what, "give one of the two another name");
            continue;
        }
        let node = job(notes, row, &source, tables, times);
        jobs.push((Key { at: row.at(Field::Group), text: name }, node));
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
        let Some(at) = jobs.iter().position(|(key, _)| key.text == group) else {
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
    let place = entries.iter().position(|(key, _)| key.text == "tables").unwrap_or(entries.len());
    let mut new = Vec::new();
    for (name, node) in given.into_iter().filter_map(|(name, node)| Some((name, node?))) {
        if entries.iter().any(|(key, _)| key.text == name) {
            let what = format!("the job has `{name}` already, in the inventory or another catalog");
            notes.fault_of_row(row, what, "remove it there, or leave this row out of the query");
        } else {
            new.push((key(row, name), node));
        }
    }
    if let Some(length) = times.length
        && !entries.iter().any(|(key, _)| key.text == "window")
    {
        new.push((key(row, "window"), map(row, vec![("length", Some(length))])));
    }
    entries.splice(place..place, new);
}
