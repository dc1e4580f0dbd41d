//! Whether everything is ready: one line per host, and a block for whatever is not as it should be.

use std::time::Duration;

use serde_json::{Value, json};

use super::{JSON_VERSION, block, count, table, trimmed, two_decimals};
use crate::step::preflight::access::Entry;
use crate::step::preflight::facts::HostFacts;
use crate::step::preflight::{Check, Preflight, Verdict, Visit};

/// For people.
pub fn text(preflight: &Preflight, took: Duration, width: u16) -> String {
    let mut shown = hosts(preflight);
    let problems =
        |word: &'static str| preflight.checks.iter().filter(move |check| check.verdict.word() == word);
    for check in problems("fail").chain(problems("warn")) {
        shown.push('\n');
        shown.push_str(&problem(check, width));
    }
    shown.push('\n');
    shown.push_str(&summary(preflight, took));
    shown
}

fn problem(check: &Check, width: u16) -> String {
    let word = match check.verdict {
        Verdict::Fail => "FAIL",
        Verdict::Warn => "WARN",
        Verdict::Ok => "OK",
        Verdict::Skipped { .. } => "SKIPPED",
    };
    let mut shown = format!("{word} {}: {}\n", check.id, check.subject);
    shown.push_str(&block("    ", &check.seen, width));
    if let Some(remedy) = &check.remedy {
        shown.push_str(&block("    try: ", remedy, width));
    }
    shown
}

/// Host, verdict, round trip, user and numbers, the directory's numbers, room.
fn hosts(preflight: &Preflight) -> String {
    let mut rows = table(&["HOST", "READY", "TRIP", "USER", "DIRECTORY", "FREE"]);
    for visit in preflight.gathered.visits() {
        let facts = visit.found.as_ref().ok();
        let cell = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let trip = facts
            .filter(|_| !visit.place.is_runner())
            .map(|facts| format!("{} ms", facts.round_trip.as_millis()));
        rows.add_row([
            visit.place.host.clone(),
            worst(preflight, visit).into(),
            cell(trip),
            cell(visit.identity().map(|who| format!("{} {}:{}", who.user, who.uid, who.gid))),
            cell(visit.directory().map(|entry| format!("{}:{} {}", entry.uid, entry.gid, entry.octal()))),
            cell(facts.and_then(|facts| facts.mount.free_kib).map(crate::step::preflight::size)),
        ]);
    }
    trimmed(&rows)
}

/// The worst that was found on a host.
fn worst(preflight: &Preflight, visit: &Visit) -> &'static str {
    let found = |verdict: &Verdict| {
        preflight.checks.iter().any(|check| &check.verdict == verdict && concerns(check, visit))
    };
    if found(&Verdict::Fail) {
        "FAIL"
    } else if found(&Verdict::Warn) {
        "warn"
    } else {
        "ok"
    }
}

/// By its host, or by one of its sources.
fn concerns(check: &Check, visit: &Visit) -> bool {
    let first = check.subject.split(' ').next().unwrap_or("");
    let by_source = check.area() == "source" && visit.place.sources.iter().any(|source| source == first);
    let by_user = check.id == "mount.identity"
        && visit.identity().is_some_and(|who| who.user == check.subject)
        && check.seen.contains(&format!("On {}:", visit.place.host));
    check.subject == visit.place.host || by_source || by_user
}

fn summary(preflight: &Preflight, took: Duration) -> String {
    let number = |verdict: &str| {
        preflight.checks.iter().filter(|check| check.verdict.word() == verdict).count() as u64
    };
    let (failed, warned, skipped) = (number("fail"), number("warn"), number("skipped"));
    let mut line = format!(
        "{} of {}: {} to mend, {}",
        count(preflight.checks.len() as u64, "check"),
        count(preflight.gathered.visits().count() as u64, "host"),
        failed,
        count(warned, "warning"),
    );
    if skipped > 0 {
        line.push_str(&format!(", {skipped} skipped"));
    }
    format!("{line}, in {:.2} s\n", took.as_secs_f64())
}

/// For programs: every fact.
pub fn json(preflight: &Preflight, took: Duration, exit_code: u8) -> Value {
    let checks: Vec<Value> = preflight.checks.iter().map(check).collect();
    let hosts: Vec<Value> = preflight.gathered.visits().map(|visit| host(preflight, visit)).collect();
    json!({
        "version": JSON_VERSION,
        "exit_code": exit_code,
        "seconds": two_decimals(took.as_secs_f64()),
        "hosts": hosts,
        "checks": checks,
    })
}

fn check(check: &Check) -> Value {
    let why = match &check.verdict {
        Verdict::Skipped { why } => Some(why),
        Verdict::Ok | Verdict::Warn | Verdict::Fail => None,
    };
    json!({
        "id": check.id,
        "subject": check.subject,
        "verdict": check.verdict.word(),
        "why": why,
        "seen": check.seen,
        "remedy": check.remedy,
    })
}

fn host(preflight: &Preflight, visit: &Visit) -> Value {
    json!({
        "host": visit.place.host,
        "sources": visit.place.sources,
        "mount": visit.place.mount,
        "ready": worst(preflight, visit) != "FAIL",
        "error": visit.found.as_ref().err().map(ToString::to_string),
        "facts": visit.found.as_ref().ok().map(facts),
        "proof": visit.proof,
    })
}

fn facts(facts: &HostFacts) -> Value {
    let entry = |entry: &Option<Result<Entry, String>>| match entry {
        Some(Ok(entry)) => {
            json!({ "uid": entry.uid, "gid": entry.gid, "mode": entry.octal(), "acl": entry.acl, "path": entry.path })
        }
        Some(Err(why)) => json!({ "error": why }),
        None => Value::Null,
    };
    json!({
        "user": facts.identity.as_ref().map(|who| json!({ "name": who.user, "uid": who.uid, "gid": who.gid, "groups": who.groups })),
        "round_trip_ms": (facts.round_trip.as_secs_f64() * 1e5).round() / 100.0,
        "clock_skew_seconds": facts.skew.map(two_decimals),
        "load": facts.load,
        "cpus": facts.cpus,
        "memory_free_kib": facts.memory,
        "bash": facts.bash,
        "psql": facts.psql.as_ref().map(|(path, version)| json!({ "path": path, "version": version })),
        "tools": facts.tools,
        "cache": facts.cache.as_ref().map(|cache| json!({
            "path": cache.path, "writable": cache.writable, "executable": cache.executable,
        })),
        "sshd": facts.sshd,
        "mount": {
            "hangs": facts.mount.hangs,
            "real_path": facts.mount.real,
            "mounted": facts.mounted(),
            "root": entry(&facts.mount.root),
            "subdir": entry(&facts.mount.subdir),
            "free_kib": facts.mount.free_kib,
            "inodes": facts.mount.inodes.map(|(total, free)| json!({ "total": total, "free": free })),
        },
    })
}
