//! Alarms with real sinks: a table, a program, a webhook over TLS, a file; and what none of them may do to a run.

mod checks;
mod hook;
mod sinks;
mod tables;
mod webhooks;

use std::fs;

use serde_json::Value;

use crate::support::{Case, lab};

/// A table of one row that collides with what is in the target: its unit fails until [`mend`].
pub(crate) fn colliding(name: &str, alarms: &str) -> Case {
    let mut case = Case::new(name);
    case.both("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (7)");
    case.inventory(&["{ table: public.t, window: none }"]);
    with(&case, alarms);
    case
}

/// Puts the sinks (flow YAML) into the inventory.
pub(crate) fn with(case: &Case, sinks: &str) {
    case.edit_inventory("jobs:\n", &format!("alarms: {{ sinks: {{ {sinks} }} }}\njobs:\n"));
}

pub(crate) fn mend(case: &mut Case) {
    case.target.batch_execute("DELETE FROM t").unwrap();
}

/// The target's password.
pub(crate) fn password() -> String {
    let lines = fs::read_to_string(lab().get("LAB_PGPASSFILE")).unwrap();
    lines.lines().next().unwrap().rsplit(':').next().unwrap().to_owned()
}

/// A sink that writes to the file `alarms.jsonl` of this test.
pub(crate) fn file(case: &Case) -> String {
    format!("f: {{ kind: file, path: {} }}", case.path("alarms.jsonl").display())
}

/// What that file holds.
pub(crate) fn lines(case: &Case) -> Vec<Value> {
    let text = fs::read_to_string(case.path("alarms.jsonl")).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// Phase and condition of each.
pub(crate) fn phases(lines: &[Value]) -> Vec<String> {
    let word = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    lines.iter().map(|line| format!("{} {}", word(line, "phase"), word(line, "condition"))).collect()
}
