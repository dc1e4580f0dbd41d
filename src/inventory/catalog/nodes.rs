//! Nodes of the tree that rows become.

use super::Field;
use super::origin::Row;
use crate::inventory::yaml::{Key, Node, Value};
use crate::window::Length;

pub(super) fn scalar(row: Row, field: Field, value: Value) -> Node {
    Node { at: row.at(field), value }
}

pub(super) fn text(row: Row, field: Field, text: &str) -> Node {
    scalar(row, field, Value::Text(text.to_owned()))
}

pub(super) fn key(row: Row, name: &str) -> Key {
    Key { at: row.place(), text: name.into() }
}

pub(super) fn map(row: Row, entries: Vec<(&str, Option<Node>)>) -> Node {
    let entries = entries.into_iter().filter_map(|(name, node)| Some((key(row, name), node?))).collect();
    Node { at: row.place(), value: Value::Map(entries) }
}

pub(super) fn as_length(node: Option<&Node>) -> Option<Length> {
    match node.map(|node| &node.value) {
        Some(Value::Text(text)) => text.parse().ok(),
        _ => None,
    }
}
