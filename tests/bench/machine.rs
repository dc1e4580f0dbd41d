//! On what it was measured.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

/// Processor, memory, kernel, versions.
pub(crate) fn facts(cpu_by: &str) -> Value {
    let field = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    json!({
        "processor": field("/proc/cpuinfo", "model name"),
        "cores": cores,
        "memory": field("/proc/meminfo", "MemTotal"),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "postgresql": said("psql", &["--version"]),
        "pgcopydb": said("pgcopydb", &["--version"]),
        "gpferry": env!("CARGO_PKG_VERSION"),
        "cpu_seconds_by": cpu_by,
    })
}

/// The first line that a program says of itself; nothing where it is not there.
fn said(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}
