//! `tables:` of a job, one entry after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use globset::Glob;

use super::compare;
use super::fault::Fault;
use super::model::{CompareRule, LoadRule, Pattern, TableEntry, TableSelector, WindowRule};
use super::reader::{At, Fields, Reader};
use super::rules::Rules;
use super::scalars::{any_text, length, text};
use super::yaml::Value;
use crate::alike::Last;
use crate::names::TableName;
use crate::sql::Condition;
use crate::window::Length;

const KEYS: &[&str] = &[
    "table",
    "tables",
    "except",
    "target",
    "window",
    "where",
    "load",
    "export",
    "every",
    "late_after",
    "compare",
];
const GLOB: &str = "tables: \"tiny.d*\"";
const EXAMPLE: &str = "`- sor.wpp_f`, `- { table: sor.wpp_f, window: none }` or `- { tables: \"tiny.d*\" }`";

/// Which `match:` lists are written, and which of them a table uses.
#[derive(Default)]
pub(super) struct Matches {
    written: BTreeSet<String>,
    used: BTreeSet<String>,
}

impl Matches {
    /// A layer was read.
    pub(super) fn written(&mut self, layer: &Rules) {
        self.written.extend(layer.match_path().map(str::to_owned));
    }

    /// A table has these rules.
    fn used_by(&mut self, rules: &Rules) {
        if rules.uses_match() {
            self.used.extend(rules.match_path().map(str::to_owned));
        }
    }

    /// Puts down a fault for each list that no table uses.
    pub(super) fn check(&self, reader: &mut Reader) {
        for path in self.written.difference(&self.used) {
            let fault = Fault::new(
                reader.place(path),
                path.clone(),
                "`match` is written, and no mode here uses it",
                "remove it, or write `mode: merge` or `mode: update` beside it",
            );
            reader.add(fault);
        }
    }
}

/// All entries, and the path of each. An entry whose table is unknown is left out.
pub(super) fn read(
    reader: &mut Reader,
    at: &At<'_>,
    rules: &Rules,
    matches: &mut Matches,
) -> (Vec<Arc<TableEntry>>, Vec<String>) {
    let mut windowless: BTreeMap<&'static str, Vec<At<'_>>> = BTreeMap::new();
    let items = reader.items(at, "tables: [ sor.wpp_adefect_glass_f ]");
    // There may be thousands.
    let (mut entries, mut paths) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
    let mut alike = Alike::default();
    for at in items {
        let read = match &at.node.value {
            Value::Map(_) => read_map(reader, &at, rules, matches),
            _ => {
                matches.used_by(rules);
                read_name(reader, &at, EXAMPLE).map(|name| Entry {
                    what: TableSelector::One(name),
                    target: None,
                    filter: None,
                    every: None,
                    compare: CompareRule::default(),
                    rules: rules.clone(),
                })
            }
        };
        let Some(entry) = read else { continue };
        let window = entry.rules.window.rule(entry.every).unwrap_or_else(|why| {
            windowless.entry(why).or_default().push(at.clone());
            WindowRule::None { every: None }
        });
        entries.push(Arc::new(entry.meant(window, &mut alike)));
        paths.push(at.path);
    }
    report_windowless(reader, windowless);
    (entries, paths)
}

/// One fault per entry, or one for all of them where they are many.
fn report_windowless(reader: &mut Reader, windowless: BTreeMap<&'static str, Vec<At<'_>>>) {
    const REMEDY: &str =
        "write `window: { column: evt_timestamp, length: 4h }`, or `window: none` to move the table whole";
    for (why, entries) in windowless.into_iter().filter(|(why, _)| !why.is_empty()) {
        match entries.as_slice() {
            [first, rest @ ..] if rest.len() >= 3 => {
                let what = format!("{why}; the same goes for {} more tables of this job", rest.len());
                reader.fault(
                    first,
                    what,
                    format!("{REMEDY}; once for all: at the job, or under `defaults:`"),
                );
            }
            few => few.iter().for_each(|at| reader.fault(at, why, REMEDY)),
        }
    }
}

/// An entry before its window is known.
struct Entry {
    what: TableSelector,
    target: Option<TableName>,
    filter: Option<Condition>,
    every: Option<Length>,
    compare: CompareRule,
    rules: Rules,
}

impl Entry {
    fn meant(self, window: WindowRule, alike: &mut Alike) -> TableEntry {
        TableEntry {
            what: self.what,
            target: self.target,
            window,
            filter: self.filter,
            load: alike.load.share(self.rules.load_rule()),
            export: self.rules.export_rule(),
            late_after: self.rules.expected.late_after,
            compare: alike.compare.share(self.compare),
        }
    }
}

/// What one table after the other has alike.
#[derive(Default)]
struct Alike {
    load: Last<LoadRule>,
    compare: Last<CompareRule>,
}

fn read_map(reader: &mut Reader, at: &At<'_>, rules: &Rules, matches: &mut Matches) -> Option<Entry> {
    let fields = reader.fields(at, KEYS, EXAMPLE)?;
    let what = read_selector(reader, &fields);
    let own = Rules::read(reader, &fields);
    matches.written(&own);
    let rules = own.over(rules);
    matches.used_by(&rules);
    let target = fields.get("target").and_then(|at| {
        if fields.get("tables").is_some() {
            reader.fault(
                &at,
                "many tables cannot go to one name in the target",
                "remove it, or make one entry of each table: `{ table: …, target: … }`",
            );
        }
        read_name(reader, &at, "target: eda.wpp_f")
    });
    let filter = fields.get("where").and_then(|at| read_condition(reader, &at));
    let every = fields.get("every").and_then(|at| read_every(reader, &at, &rules));
    let compare = fields.get("compare").map(|at| compare::read(reader, &at)).unwrap_or_default();
    Some(Entry { what: what?, target, filter, every, compare, rules })
}

fn read_selector(reader: &mut Reader, fields: &Fields<'_>) -> Option<TableSelector> {
    match (fields.get("table"), fields.get("tables")) {
        (Some(at), None) => {
            if let Some(except) = fields.get("except") {
                let remedy = "remove it, or write `tables:` with a pattern";
                reader.fault(&except, "`except` is for patterns, and one table is named here", remedy);
            }
            read_name(reader, &at, "table: sor.wpp_f").map(TableSelector::One)
        }
        (None, Some(at)) => {
            let except = fields.get("except").map(|at| read_except(reader, &at)).unwrap_or_default();
            Some(TableSelector::Glob { pattern: read_glob(reader, &at, GLOB)?, except })
        }
        (Some(_), Some(at)) => {
            reader.fault(&at, "`table` and `tables` stand in one entry", "make two entries of it");
            None
        }
        (None, None) => {
            reader.fault(&fields.at, "the entry names no table", format!("write it as {EXAMPLE}"));
            None
        }
    }
}

/// `schema.table`.
fn read_name(reader: &mut Reader, at: &At<'_>, example: &str) -> Option<TableName> {
    let name = text(reader, at, example)?;
    let unquoted = name.split('"').step_by(2).any(|part| part.contains(['*', '?', '[', '{']));
    if unquoted {
        let shown = reader.secrets.echo(name);
        let pattern = reader.secrets.echo(&format!("{{ tables: \"{}\" }}", name.replace('"', "")));
        reader.fault(
            at,
            format!("{shown} is a pattern, and one table is named here"),
            format!("write {pattern}; a name that really holds such a character stands in double quotes"),
        );
        return None;
    }
    TableName::parse(name)
        .map_err(|error| {
            let what = reader.secrets.told(name, error.to_string());
            reader.fault(at, what, format!("write it as {example}"));
        })
        .ok()
}

/// One pattern, or a list of them.
fn read_except(reader: &mut Reader, at: &At<'_>) -> Vec<Pattern> {
    const EXCEPT: &str = "except: [ \"tiny.d_tmp*\" ]";
    match &at.node.value {
        Value::List(_) => reader
            .items(at, EXCEPT)
            .into_iter()
            .filter_map(|item| read_glob(reader, &item, "\"tiny.d_tmp*\""))
            .collect(),
        _ => read_glob(reader, at, EXCEPT).into_iter().collect(),
    }
}

/// A glob over schemas and one over tables, with a dot between them.
fn read_glob(reader: &mut Reader, at: &At<'_>, example: &str) -> Option<Pattern> {
    if matches!(at.node.value, Value::List(_)) {
        reader.wrong_type(at, "one pattern", format!("make one entry of each, as in {example}"));
        return None;
    }
    let pattern = text(reader, at, example)?;
    let parts = split_glob(pattern);
    let is_good = |part: &str| !part.is_empty() && Glob::new(part).is_ok();
    let Some((schema, table)) = parts.filter(|(schema, table)| is_good(schema) && is_good(table)) else {
        let shown = reader.secrets.echo(pattern);
        reader.fault(
            at,
            format!("{shown} is not a pattern of the form schema.table"),
            format!("write it as {example}: * is any text, ? one character (also a dot in a name), [ab] one of these, {{a,b}} either; no quotes in it"),
        );
        return None;
    };
    Some(Pattern { schema: schema.to_owned(), table: table.to_owned() })
}

/// The two sides of the only dot outside of brackets; `None` with quotes in it, or another number of dots.
fn split_glob(pattern: &str) -> Option<(&str, &str)> {
    let mut depth = 0usize;
    let mut dots = Vec::new();
    for (index, c) in pattern.char_indices() {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            '.' if depth == 0 => dots.push(index),
            '"' => return None,
            _ => {}
        }
    }
    match dots.as_slice() {
        [dot] => Some((&pattern[..*dot], &pattern[dot + 1..])),
        _ => None,
    }
}

fn read_condition(reader: &mut Reader, at: &At<'_>) -> Option<Condition> {
    let condition = any_text(reader, at, "where: \"valid_flag = 'Y'\"")?;
    Condition::parse(condition)
        .map_err(|error| {
            let remedy = "one condition over the table's columns, as in where: \"valid_flag = 'Y'\"";
            reader.fault(at, error.to_string(), remedy);
        })
        .ok()
}

/// `every`, and what it needs beside it.
fn read_every(reader: &mut Reader, at: &At<'_>, rules: &Rules) -> Option<Length> {
    let every = length(reader, at, "every: 1d");
    if matches!(rules.window.rule(None), Ok(WindowRule::By(_))) {
        reader.fault(
            at,
            "`every` is for tables that are moved whole, and this one has a window",
            "remove it (windows come due by themselves), or write `window: none` beside it",
        );
    }
    if !rules.may_repeat() {
        reader.fault(
            at,
            "a table that is moved again and again needs mode `replace` or `merge`: its rows are there already",
            "write `load: { mode: replace }` or `load: { mode: merge }` beside it, or remove `every`",
        );
    }
    every
}
