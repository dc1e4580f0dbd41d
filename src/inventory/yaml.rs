//! YAML text → a tree that knows where every key and value stood. The only place that knows the YAML crate.
//!
//! It reads the parser's events instead of going through serde: serde would hand over `1.10` as a float, keep
//! one of two equal keys, and stop at the first fault. What is written stays as written; plain values follow
//! the core schema of YAML 1.2, so `no`, `off`, `4h` and `2021-08-10` are texts. Nesting, size and what
//! aliases multiply are bounded.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_yaml::granit_parser::{Event, Options, Parser, ScalarStyle, Span, Tag};

use super::fault::{Fault, Place};
use super::secrets;

/// Longest inventory that is read.
pub(super) const MAX_BYTES: usize = 16 << 20;
const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 2_000_000;
const MAX_ALIASED: usize = 100_000;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) value: Value,
}

/// What is written there.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the order written, equal keys included.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub(super) at: Place,
    /// Shared by all keys of this text.
    pub(super) text: Arc<str>,
}

impl Node {
    fn height(&self) -> usize {
        match &self.value {
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => 1,
            Value::List(items) => 1 + items.iter().map(Node::height).max().unwrap_or(0),
            Value::Map(entries) => 1 + entries.iter().map(|(_, node)| node.height()).max().unwrap_or(0),
        }
    }

    fn count(&self) -> usize {
        match &self.value {
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => 1,
            Value::List(items) => 1 + items.iter().map(Node::count).sum::<usize>(),
            Value::Map(entries) => 1 + entries.iter().map(|(_, node)| node.count()).sum::<usize>(),
        }
    }
}

/// Reads one document.
pub(super) fn read(text: &str) -> Result<Node, Box<Fault>> {
    if text.len() > MAX_BYTES {
        return Err(Box::new(Fault::new(
            Place::FILE,
            "",
            format!("{} MiB is too long for an inventory", text.len() >> 20),
            "name the inventory, not a data file; name many tables by a glob: `{ tables: \"schema.*\" }`",
        )));
    }
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.disallow_directives = true;
    options.emit_unresolved_aliases = true;
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let mut tree = Tree::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| {
            let place = Place { line: error.marker().line(), column: error.marker().col() + 1 };
            unreadable(text, place, format!("this is not YAML: {}", error.info()), SYNTAX_REMEDY)
        })?;
        tree.take(event, &span).map_err(|(place, what, remedy)| unreadable(text, place, what, remedy))?;
    }
    tree.root.ok_or_else(|| {
        Box::new(Fault::new(
            Place::START,
            "",
            "the inventory is empty",
            "start from inventory/first.yml, which comes with gpferry",
        ))
    })
}

const SYNTAX_REMEDY: &str = "look at this line and the one above it: the indentation (blanks only, no TABs), \
     brackets and quotes that are not closed, a text with a colon or # in it that needs quotes";

type Refusal = (Place, String, &'static str);

/// A fault of the file's form, with the line shown unless it may hold a secret.
fn unreadable(text: &str, place: Place, what: String, remedy: &'static str) -> Box<Fault> {
    let mut fault = Fault::new(place, "", what, remedy);
    if !secrets::may_show_lines_until(text, place.line) {
        fault.what.push_str(" (the line is not shown: there is a password in the file)");
    } else if let Some(line) = text.lines().nth(place.line.saturating_sub(1)) {
        fault.snippet = Some(snippet(line, place));
    }
    Box::new(fault)
}

/// The line, cropped around the place, and a caret.
fn snippet(line: &str, place: Place) -> String {
    const SHOWN: usize = 66;
    let skipped = place.column.saturating_sub(SHOWN * 2 / 3);
    let skipped = if line.chars().count() <= SHOWN { 0 } else { skipped };
    let shown: String =
        line.chars().skip(skipped).take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let caret = " ".repeat(place.column.saturating_sub(skipped + 1));
    let number = place.line.to_string();
    format!("    {number} | {}\n    {} | {caret}^", shown.trim_end(), " ".repeat(number.len()))
}

/// A tree that grows.
#[derive(Default)]
struct Tree {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, (Node, usize)>,
    keys: HashSet<Arc<str>>,
    nodes: usize,
    aliased: usize,
}

/// A list or map that is not closed yet.
struct Open {
    node: Node,
    anchor: usize,
    /// The key whose value comes next; always `None` in a list.
    key: Option<Key>,
}

impl Tree {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), Refusal> {
        let at = Place { line: span.start.line(), column: span.start.col() + 1 };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let kind = ScalarKind::of(style, tag.as_deref()).ok_or_else(|| tag_refused(at))?;
                // An empty value has no place of its own: its key's says more.
                let at = match self.open.last().and_then(|open| open.key.as_ref()) {
                    Some(key) if span.is_empty() => key.at,
                    Some(_) | None => at,
                };
                self.scalar(at, &text, kind, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(Node { at, value: Value::List(Vec::new()) }, anchor, tag.as_deref())
            }
            Event::MappingStart(_, anchor, tag) => {
                self.open(Node { at, value: Value::Map(Vec::new()) }, anchor, tag.as_deref())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.close(open.node, open.anchor),
                None => Ok(()),
            },
            Event::Alias(id) => self.alias(at, id),
            Event::UnresolvedAlias(_) => Err((
                at,
                "this alias (`*name`) has no anchor (`&name`) above it".into(),
                "write the value out; a text that starts with * needs quotes, as in `{ tables: \"*.f_*\" }`",
            )),
            Event::DocumentStart(..) if self.root.is_some() => Err((
                at,
                "a second document starts here".into(),
                "one inventory is one document: remove the `---`, or make it a file of its own",
            )),
            _ => Ok(()),
        }
    }

    fn scalar(&mut self, at: Place, text: &str, kind: ScalarKind, anchor: usize) -> Result<(), Refusal> {
        self.counted(1, at)?;
        if let Some(Open { node: Node { value: Value::Map(_), .. }, key: key @ None, .. }) =
            self.open.last_mut()
        {
            let text = self.keys.get(text).cloned().unwrap_or_else(|| {
                let text = Arc::<str>::from(text);
                self.keys.insert(Arc::clone(&text));
                text
            });
            *key = Some(Key { at, text });
            return Ok(());
        }
        self.close(Node { at, value: kind.value(text) }, anchor)
    }

    fn open(&mut self, node: Node, anchor: usize, tag: Option<&Tag>) -> Result<(), Refusal> {
        self.counted(1, node.at)?;
        if tag.is_some_and(|tag| !matches!(tag.core_suffix(), Some("map" | "seq"))) {
            return Err(tag_refused(node.at));
        }
        if let Some(Open { node: Node { value: Value::Map(_), .. }, key: None, .. }) = self.open.last() {
            return Err((
                node.at,
                "a list or a map stands where a key should".into(),
                "a key is a plain word; a text that starts with { or [ needs quotes",
            ));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(node.at));
        }
        self.open.push(Open { node, anchor, key: None });
        Ok(())
    }

    /// A node is complete: it becomes part of the one around it.
    fn close(&mut self, mut node: Node, anchor: usize) -> Result<(), Refusal> {
        // Nothing is added to it any more, and room for more would be most of a tree of thousands of small maps.
        match &mut node.value {
            Value::List(items) => items.shrink_to_fit(),
            Value::Map(entries) => entries.shrink_to_fit(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {}
        }
        if anchor != 0 {
            let count = node.count();
            self.counted(count, node.at)?;
            self.anchors.insert(anchor, (node.clone(), count));
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open { node: Node { value: Value::List(items), .. }, .. }) => items.push(node),
            Some(Open { node: Node { value: Value::Map(entries), .. }, key, .. }) => {
                if let Some(key) = key.take() {
                    entries.push((key, node));
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn alias(&mut self, at: Place, id: usize) -> Result<(), Refusal> {
        if let Some(Open { node: Node { value: Value::Map(_), .. }, key: None, .. }) = self.open.last() {
            return Err((at, "an alias stands where a key should".into(), "write the key out"));
        }
        let Some((node, count)) = self.anchors.get(&id) else {
            return Err((at, "this alias stands inside of what it names".into(), "write the value out"));
        };
        self.aliased += count;
        if self.aliased > MAX_ALIASED {
            return Err((
                at,
                "the aliases multiply to too much".into(),
                "write the values out, or use `defaults:`",
            ));
        }
        if self.open.len() + node.height() > MAX_DEPTH {
            return Err(too_deep(at));
        }
        let node = Node { at, value: node.value.clone() };
        self.close(node, 0)
    }

    fn counted(&mut self, nodes: usize, at: Place) -> Result<(), Refusal> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err((
                at,
                format!("more than {MAX_NODES} values are too many for an inventory"),
                "name many tables by a glob: `{ tables: \"schema.*\" }`",
            ));
        }
        Ok(())
    }
}

fn too_deep(at: Place) -> Refusal {
    (at, format!("this is nested more than {MAX_DEPTH} deep"), "an inventory needs no more than 8")
}

fn tag_refused(at: Place) -> Refusal {
    (
        at,
        "tags (`!…`) mean nothing in an inventory".into(),
        "remove the tag; a text that starts with ! needs quotes",
    )
}

/// How a scalar is written, tag included.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ScalarKind {
    Plain,
    Text,
}

impl ScalarKind {
    /// `None` where a tag stands that means nothing here.
    fn of(style: ScalarStyle, tag: Option<&Tag>) -> Option<Self> {
        match tag.map(Tag::core_suffix) {
            None if style == ScalarStyle::Plain => Some(Self::Plain),
            None | Some(Some("str")) => Some(Self::Text),
            Some(Some("int" | "float" | "bool" | "null")) => Some(Self::Plain),
            Some(_) => None,
        }
    }

    fn value(self, text: &str) -> Value {
        match (self, text) {
            (Self::Text, _) => Value::Text(text.into()),
            (Self::Plain, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
            (Self::Plain, "true" | "True" | "TRUE" | "false" | "False" | "FALSE") => {
                Value::Bool(text.eq_ignore_ascii_case("true"))
            }
            (Self::Plain, text) if is_number(text) => Value::Number(text.into()),
            (Self::Plain, text) => Value::Text(text.into()),
        }
    }
}

/// Source: YAML 1.2.2, 10.3.2 "Tag Resolution".
fn is_number(text: &str) -> bool {
    if let Some(digits) = text.strip_prefix("0x") {
        return !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit());
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return !digits.is_empty() && digits.chars().all(|c| matches!(c, '0'..='7'));
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    let something = !whole.is_empty() || !part.is_empty();
    something && !exponent.is_empty() && digits(whole) && digits(part) && digits(exponent)
}
