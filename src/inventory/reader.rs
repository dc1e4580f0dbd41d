//! The turn from written to meant, as far as it is the same for every key: maps with known keys, what is
//! missing, what is twice, and where each key stood.
//!
//! A reading function returns `None` only after it has put down a fault. So it may go on with anything in
//! place of the value: with a fault there is no inventory.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use super::catalog::Origins;
use super::fault::{Fault, Place};
use super::secrets::{self, Secrets};
use super::suggest;
use super::yaml::{Key, Node, Value};

/// A value, the dotted path that leads to it and where its name stands.
#[derive(Debug, Clone)]
pub(super) struct At<'a> {
    pub(super) node: &'a Node,
    pub(super) named: Place,
    pub(super) path: String,
}

impl<'a> At<'a> {
    /// The whole document.
    pub(super) fn root(node: &'a Node) -> Self {
        Self { node, named: Place::START, path: String::new() }
    }

    fn child(&self, key: &Key, node: &'a Node) -> Self {
        Self { node, named: key.at, path: join(&self.path, &key.text) }
    }

    fn item(&self, number: usize, node: &'a Node) -> Self {
        Self { node, named: node.at, path: format!("{}[{number}]", self.path) }
    }
}

/// The path of a key below another one. A key that is no plain word stands in quotes, and is not shown where
/// it looks like a password.
pub(super) fn join(path: &str, key: &str) -> String {
    let segment = segment(key);
    if path.is_empty() { segment.into_owned() } else { format!("{path}.{segment}") }
}

fn segment(key: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !key.is_empty() && key.chars().all(plain) {
        return Cow::Borrowed(key);
    }
    Cow::Owned(Secrets::default().echo(key).replace('`', "\""))
}

/// The first node that such a path leads to. It is looked for and not kept for every path: that would be most of what
/// reading thousands of tables takes of memory.
fn below<'t>(node: &'t Node, path: &str) -> Option<&'t Node> {
    if path.is_empty() {
        return Some(node);
    }
    match &node.value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => None,
        Value::List(items) => {
            let (number, rest) = path.strip_prefix('[')?.split_once(']')?;
            below(items.get(number.parse::<usize>().ok()?)?, rest)
        }
        Value::Map(entries) => {
            let path = path.strip_prefix('.').unwrap_or(path);
            entries.iter().find_map(|(key, node)| {
                let rest = path.strip_prefix(&*segment(&key.text))?;
                let ends = rest.is_empty() || rest.starts_with(['.', '[']);
                if ends { below(node, rest) } else { None }
            })
        }
    }
}

/// What was found so far.
pub(super) struct Reader<'t> {
    pub(super) secrets: Secrets,
    faults: Vec<Fault>,
    root: &'t Node,
    origins: Origins,
}

impl<'t> Reader<'t> {
    /// Looks through the whole tree for what is wrong wherever it stands: equal keys and secrets.
    pub(super) fn new(root: &'t Node) -> Self {
        Self::with(root, Origins::default())
    }

    /// As [`Reader::new`], for a tree that rows of catalogs are in.
    pub(super) fn with(root: &'t Node, origins: Origins) -> Self {
        let mut reader =
            Self { secrets: Secrets::beside(origins.hidden()), faults: Vec::new(), root, origins };
        reader.survey(&At::root(root), Names::Keys);
        reader
    }

    fn survey(&mut self, at: &At<'_>, names: Names) {
        match &at.node.value {
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
            Value::Text(text) => self.secrets.remember_url(text),
            Value::List(items) => {
                for (number, item) in items.iter().enumerate() {
                    self.survey(&at.item(number, item), Names::Keys);
                }
            }
            Value::Map(entries) => {
                let mut first: HashMap<&str, Place> = HashMap::new();
                for (key, node) in entries {
                    self.survey_entry(at, key, node, names);
                    if let Some(place) = first.insert(&key.text, key.at) {
                        first.insert(&key.text, place);
                        self.add(Fault::new(
                            key.at,
                            join(&at.path, &key.text),
                            format!("this key is written twice, first in line {}", place.line),
                            "keep one of the two",
                        ));
                    }
                }
            }
        }
    }

    fn survey_entry(&mut self, at: &At<'_>, key: &Key, node: &Node, names: Names) {
        let inner = match (names, at.path.as_str(), &*key.text) {
            (Names::Keys, "", "sources" | "jobs" | "catalog") | (Names::Keys, "alarms", "sinks") => {
                Names::Free
            }
            _ => Names::Keys,
        };
        let named_freely = names == Names::Free && matches!(node.value, Value::Map(_));
        if secrets::is_secret_key(&key.text) && !named_freely {
            self.secrets.remember(node);
            let remedy = if at.path == "target" { secrets::TARGET_REMEDY } else { secrets::REMEDY };
            self.add(Fault::new(
                key.at,
                join(&at.path, &key.text),
                "a secret does not belong in an inventory",
                remedy,
            ));
        }
        self.survey(&at.child(key, node), inner);
    }

    /// Puts down a fault as it is.
    pub(super) fn add(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Puts down a fault of a value.
    pub(super) fn fault(&mut self, at: &At<'_>, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Fault::new(at.node.at, at.path.clone(), what, remedy));
    }

    /// The value at `at` is of the wrong type. `wanted`: "a text".
    pub(super) fn wrong_type(&mut self, at: &At<'_>, wanted: &str, remedy: impl Into<String>) {
        let what = match &at.node.value {
            Value::Null => format!("nothing is written here, and {wanted} is needed"),
            Value::Bool(_) => format!("this is a truth value, and {wanted} is needed"),
            Value::Number(_) => format!("this is a number, and {wanted} is needed"),
            Value::Text(_) => format!("this is a text, and {wanted} is needed"),
            Value::List(_) => format!("this is a list, and {wanted} is needed"),
            Value::Map(_) => format!("this is a map, and {wanted} is needed"),
        };
        self.fault(at, what, remedy);
    }

    /// A map whose keys are all in `known`; others are faults.
    pub(super) fn fields<'a>(
        &mut self,
        at: &At<'a>,
        known: &'static [&'static str],
        example: &str,
    ) -> Option<Fields<'a>> {
        let Value::Map(entries) = &at.node.value else {
            self.wrong_type(at, "a map of keys", format!("write it as {example}"));
            return None;
        };
        for (key, _) in entries {
            if !known.contains(&&*key.text) && !secrets::is_secret_key(&key.text) {
                self.unknown_key(at, key, known);
            }
        }
        Some(Fields { at: at.clone(), entries })
    }

    fn unknown_key(&mut self, at: &At<'_>, key: &Key, known: &[&str]) {
        let remedy = match suggest::nearest(&key.text, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if &*key.text == "<<" => {
                "merge keys are not read: write the keys out, or put them under `defaults:`".into()
            }
            None => format!("remove it; known here: {}", known.join(", ")),
        };
        self.add(Fault::new(key.at, join(&at.path, &key.text), "this key is not known", remedy));
    }

    /// The entries of a map whose keys are names that the user chose; the first of equal ones.
    pub(super) fn entries<'a>(&mut self, at: &At<'a>, example: &str) -> Vec<(&'a Key, At<'a>)> {
        let Value::Map(entries) = &at.node.value else {
            self.wrong_type(at, "a map of names", format!("write it as {example}"));
            return Vec::new();
        };
        if entries.is_empty() {
            self.fault(at, "nothing is in it", format!("write it as {example}"));
        }
        let mut seen = BTreeSet::new();
        entries
            .iter()
            .filter(|(key, _)| seen.insert(&*key.text))
            .map(|(key, node)| (key, at.child(key, node)))
            .collect()
    }

    /// The items of a list that is not empty.
    pub(super) fn items<'a>(&mut self, at: &At<'a>, example: &str) -> Vec<At<'a>> {
        let Value::List(items) = &at.node.value else {
            self.wrong_type(at, "a list", format!("write it as {example}"));
            return Vec::new();
        };
        if items.is_empty() {
            self.fault(at, "the list is empty", format!("write it as {example}"));
        }
        items.iter().enumerate().map(|(number, node)| at.item(number, node)).collect()
    }

    /// Where the value of this path stands; the file's start where it is not written.
    pub(super) fn place(&self, path: &str) -> Place {
        below(self.root, path).map_or(Place::START, |node| node.at)
    }

    /// Where that is, for a message: a line of the file, or a row of a catalog.
    pub(super) fn whereabouts(&self, path: &str) -> String {
        let place = self.place(path);
        self.origins
            .described(place)
            .map_or_else(|| format!("{path} in line {}", place.line), |row| format!("the {row}"))
    }

    /// Is this path written?
    pub(super) fn is_written(&self, path: &str) -> bool {
        below(self.root, path).is_some()
    }

    /// How much is wrong so far.
    pub(super) fn faults_so_far(&self) -> usize {
        self.faults.len()
    }

    /// Everything that is wrong.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        let origins = self.origins;
        self.faults.into_iter().map(|fault| origins.told(fault)).collect()
    }
}

/// Who chose the keys of a map.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// gpferry.
    Keys,
    /// The user: sources and jobs.
    Free,
}

/// The keys of one map.
pub(super) struct Fields<'a> {
    pub(super) at: At<'a>,
    entries: &'a [(Key, Node)],
}

impl<'a> Fields<'a> {
    /// The value of a key, the first of equal ones.
    pub(super) fn get(&self, key: &str) -> Option<At<'a>> {
        self.entries.iter().find(|(found, _)| *found.text == *key).map(|(key, node)| self.at.child(key, node))
    }

    /// The value of a key that must be there.
    pub(super) fn need(&self, reader: &mut Reader, key: &str, example: &str) -> Option<At<'a>> {
        let found = self.get(key);
        if found.is_none() {
            reader.add(Fault::new(
                self.at.named,
                join(&self.at.path, key),
                "this key is missing",
                format!("write it as {example}"),
            ));
        }
        found
    }
}
