//! What comes with the binary: licences that may be passed on, one source, and no crate twice without a reason.
//!
//! What `cargo deny` checks as well, without a network: everything stands in what Cargo has downloaded already.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Licences that a binary under "MIT OR Apache-2.0" may hold.
const ALLOWED: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that are there in two versions, and why.
const TWICE: &[(&str, &str)] = &[
    ("base64", "postgres has 0.22, serde-saphyr 0.23"),
    ("block-buffer", "mysql has sha2 0.10, postgres 0.11"),
    ("cpufeatures", "mysql has sha2 0.10, postgres 0.11"),
    ("crypto-common", "mysql has sha2 0.10, postgres 0.11"),
    ("digest", "mysql has sha2 0.10, postgres 0.11"),
    ("fallible-iterator", "postgres has 0.2, rusqlite 0.3"),
    ("getrandom", "mysql has 0.3, others 0.4"),
    ("sha2", "mysql has 0.10, postgres 0.11"),
    ("syn", "derive macros move from 2 to 3 one by one; none of it is in the binary"),
];

/// Everything that is built for Linux, tests included.
fn packages() -> Vec<serde_json::Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    document["packages"].as_array().unwrap().clone()
}

fn field<'a>(package: &'a serde_json::Value, name: &str) -> &'a str {
    package[name].as_str().unwrap_or_default()
}

/// Whether an SPDX expression can be met with what is allowed. AND binds closer than OR, and a slash is an old OR.
fn allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = any(&words, &mut at);
    met && at == words.len()
}

fn any(words: &[&str], at: &mut usize) -> bool {
    let mut met = all(words, at);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all(words, at);
    }
    met
}

fn all(words: &[&str], at: &mut usize) -> bool {
    let mut met = one(words, at);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at);
    }
    met
}

fn one(words: &[&str], at: &mut usize) -> bool {
    let Some(&word) = words.get(*at) else { return false };
    *at += 1;
    if word == "(" {
        let met = any(words, at);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return met && closed;
    }
    if words.get(*at) == Some(&"WITH") {
        let whole = format!("{word} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
        return ALLOWED.contains(&whole.as_str());
    }
    ALLOWED.contains(&word)
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "GPL-2.0 AND MIT OR ISC",
    ] {
        assert!(allowed(good), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "MIT WITH x", "(MIT", "MIT ISC"]
    {
        assert!(!allowed(bad), "{bad}");
    }
}

#[test]
fn every_dependency_may_be_passed_on_and_comes_from_the_registry() {
    for package in packages() {
        let name = field(&package, "name");
        let licence = field(&package, "license");
        assert!(allowed(licence), "{name} is under {licence:?}");
        let source = field(&package, "source");
        let ours = name == env!("CARGO_PKG_NAME");
        assert!(
            ours || source == "registry+https://github.com/rust-lang/crates.io-index",
            "{name} comes from {source:?}"
        );
    }
}

#[test]
fn no_crate_is_there_twice_without_a_reason() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        versions.entry(field(&package, "name").into()).or_default().insert(field(&package, "version").into());
    }
    versions.retain(|_, versions| versions.len() > 1);
    let known: BTreeSet<&str> = TWICE.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<&str> = versions.keys().map(String::as_str).collect();
    // A reason that is none any more goes as well.
    assert_eq!(found, known, "{versions:?}");
}
