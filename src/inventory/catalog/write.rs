//! A tree → YAML. The library writes it; what was odd stands in comments beside what it is about.

use std::collections::{HashMap, HashSet};

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_yaml::{Commented, ser_options};

use super::{Finding, JobCatalog};
use crate::inventory::yaml::{Node, Value};

/// Comments by the line of the node that they stand beside.
type Comments = HashMap<usize, String>;

/// A whole document. What is about no node of it stands at its head.
pub(in crate::inventory) fn document(
    root: &Node,
    imported: &[&JobCatalog],
    findings: &[Finding],
) -> Result<String, serde_yaml::ser::Error> {
    let mut lines = HashSet::new();
    hooks(root, &mut lines);
    let mut comments = Comments::new();
    let mut head = Vec::new();
    for finding in findings {
        let line = finding.place().line;
        if lines.contains(&line) {
            let comment = comments.entry(line).or_default();
            comment.push_str(if comment.is_empty() { "" } else { "; " });
            comment.push_str(&finding.what);
        } else {
            head.push(finding.to_string());
        }
    }
    let names: Vec<&str> = imported.iter().map(|catalog| catalog.name.as_str()).collect();
    let mut text = format!("# Written by `gpferry import` from catalog {}.\n", names.join(", "));
    if !head.is_empty() {
        text.push_str("# What was odd there, beside what is said below:\n");
        head.iter().for_each(|line| text.push_str(&format!("#   {}\n", on_one_line(line))));
    }
    text.push('\n');
    let options = ser_options! { prefer_block_scalars: false, compact_list_indent: false };
    text.push_str(&serde_yaml::to_string_with_options(&Out { node: root, comments: &comments }, options)?);
    Ok(text)
}

fn on_one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The lines of the nodes that a comment can stand beside: the source of a job, the name of a table.
fn hooks(node: &Node, lines: &mut HashSet<usize>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| hooks(item, lines)),
        Value::Map(entries) => {
            for (key, node) in entries {
                if is_hook(&key.text, node) {
                    lines.insert(node.at.line);
                }
                hooks(node, lines);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {}
    }
}

fn is_hook(key: &str, node: &Node) -> bool {
    matches!((key, &node.value), ("source" | "table", Value::Text(_)))
}

struct Out<'a> {
    node: &'a Node,
    comments: &'a Comments,
}

impl Serialize for Out<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let comments = self.comments;
        match &self.node.value {
            Value::Null => serializer.serialize_none(),
            Value::Bool(is) => serializer.serialize_bool(*is),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Number(number) => match (number.parse::<u64>(), number.parse::<f64>()) {
                (Ok(whole), _) => serializer.serialize_u64(whole),
                (Err(_), Ok(float)) if float.is_finite() => serializer.serialize_f64(float),
                _ => serializer.serialize_str(number),
            },
            Value::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for node in items {
                    list.serialize_element(&Out { node, comments })?;
                }
                list.end()
            }
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, node) in entries {
                    let comment = comments.get(&node.at.line).filter(|_| is_hook(&key.text, node));
                    match comment {
                        Some(comment) => {
                            let with = Commented(Out { node, comments }, on_one_line(comment));
                            map.serialize_entry(&key.text, &with)?;
                        }
                        None => map.serialize_entry(&key.text, &Out { node, comments })?,
                    }
                }
                map.end()
            }
        }
    }
}
