//! A module uses only its own floor and those below: the house stays a house.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules by floor, from the ground up.
const FLOORS: &[&[&str]] = &[
    &["alike", "exit", "names", "sql", "stop", "sweep"],
    &["canon", "file_pattern", "interval", "inventory", "measure", "owed", "unit", "window"],
    &["csv", "gzip", "mount", "plan", "remote"],
    &["catalog", "ledger", "source", "target"],
    &["alarm", "failure", "prune", "step"],
    &["engine", "progress", "report"],
    &["cli", "commands"],
];

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// First path segment after every `crate::`, `use` groups included.
fn used(text: &str) -> Vec<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    code.split("crate::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn no_module_looks_upstairs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for path in files {
        let relative = path.strip_prefix(&root).unwrap();
        let module = relative.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned();
        if module == "main" || module == "lib" {
            continue;
        }
        let own = floor(&module).unwrap_or_else(|| panic!("{module} has no floor: give it one here"));
        for other in used(&fs::read_to_string(&path).unwrap()) {
            match floor(&other) {
                Some(floor) if floor <= own => {}
                Some(_) => wrong.push(format!("{} uses crate::{other}", relative.display())),
                None => wrong.push(format!("{} uses crate::{other}, which has no floor", relative.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_upward_use_is_seen() {
    assert_eq!(
        used("use crate::engine::Event;\n// crate::cli\nlet x = crate::sql::ident(\"a\");"),
        ["engine", "sql"]
    );
    assert!(floor("engine") > floor("sql"));
}
