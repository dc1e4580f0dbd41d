//! Verdicts out of facts, without a host: what the lab cannot set up, and what must not be judged wrongly.

use super::access::Entry;
use super::facts::{HostFacts, Proof};
use super::visit::Made;
use super::*;
use crate::remote::Identity;
use crate::source::probe::Line;

const DIRECTORY: &str = "entry|subdir|/m/file2GP|drwxrwsr-x 2 540 2180 4096 Nov 21 09:00 /m/file2GP";

fn facts(lines: &[&str]) -> HostFacts {
    let all = [
        "tmp|/tmp/x",
        "real|/m",
        "entry|mount|/m|drwxr-xr-x 2 0 0 4096 Nov 21 09:00 /m",
        DIRECTORY,
        "writable|subdir|yes",
        "mountinfo|1 1 0:1 / / rw - ext4 /dev/a rw",
    ];
    let lines: Vec<Line> =
        all.iter().chain(lines).map(|line| line.split('|').map(str::to_owned).collect()).collect();
    HostFacts::read(&lines)
}

fn visit(host: &str, user: &str, uid: u32, more: &[&str]) -> Visit {
    let mut facts = facts(more);
    facts.identity = Some(Identity { user: user.into(), uid, gid: uid, groups: vec![uid] });
    let sources = if host == "runner" { vec![] } else { vec![host.to_owned()] };
    let place = Place {
        host: host.into(),
        sources,
        mount: "/m".into(),
        sessions: 4,
        psql: None,
        needs_psql: true,
        compressors: vec![],
    };
    Visit { place, found: Ok(facts), proof: None, unproven: Some("not asked".into()) }
}

fn all(hosts: Vec<Visit>) -> Gathered {
    Gathered {
        subdir: "file2GP".into(),
        runner: visit("runner", "root", 0, &[]),
        made: Ok(Made::There),
        hosts,
        sources: vec![],
        target: None,
    }
}

fn file(uid: u32) -> Option<Result<Entry, String>> {
    let line = format!("-rw-rw---- 1 {uid} 2180 12 Nov 21 09:00 /m/file2GP/x");
    Entry::parse("/m/file2GP/x", &line).map(Ok)
}

fn proven(uid: u32, there: u32, here: u32) -> Visit {
    let proof = Proof { wrote: file(there), refused_by: None, runner_saw: file(here), host_saw: file(0) };
    Visit { proof: Some(proof), unproven: None, ..visit("h", "user1", uid, &[]) }
}

fn verdict(gathered: Gathered, id: &str) -> Option<Verdict> {
    let judged = Preflight::judge(gathered, &Area::ALL);
    judged
        .checks
        .into_iter()
        .find(|check| check.id == id && !["runner", "root"].contains(&check.subject.as_str()))
        .map(|check| check.verdict)
}

#[test]
fn the_owner_s_number_must_be_the_same_for_the_process_the_host_and_the_runner() {
    assert_eq!(verdict(all(vec![proven(540, 540, 540)]), "mount.nonce"), Some(Verdict::Ok));
    // Mapped by the server or by NFSv4: nobody is 65534.
    assert_eq!(verdict(all(vec![proven(540, 540, 65534)]), "mount.mapping"), Some(Verdict::Warn));
    assert_eq!(verdict(all(vec![proven(540, 65534, 65534)]), "mount.mapping"), Some(Verdict::Warn));
    // Root that may write, as nobody.
    assert_eq!(verdict(all(vec![proven(0, 65534, 65534)]), "mount.squash"), Some(Verdict::Warn));
    assert_eq!(verdict(all(vec![proven(0, 0, 0)]), "mount.nonce"), Some(Verdict::Ok));
}

#[test]
fn two_numbers_without_trouble_are_fine_and_with_trouble_are_not() {
    let works = |uid| Visit {
        proof: Some(Proof { wrote: file(uid), ..Proof::default() }),
        ..visit("h", "user1", uid, &[])
    };
    let denied = Visit {
        proof: Some(Proof { wrote: Some(Err("x: Permission denied".into())), ..Proof::default() }),
        ..visit("g", "user1", 530, &[])
    };
    assert_eq!(verdict(all(vec![works(540), works(530)]), "mount.identity"), Some(Verdict::Ok));
    assert_eq!(verdict(all(vec![works(540), denied]), "mount.identity"), Some(Verdict::Fail));
    // By numbers and mode alone, where there is no proof.
    let judged =
        Preflight::judge(all(vec![visit("a", "user1", 530, &[]), visit("b", "user1", 540, &[])]), &Area::ALL);
    let identity = judged.checks.iter().find(|check| check.subject == "user1");
    let seen = identity.map(|check| (check.verdict.clone(), check.seen.clone()));
    assert!(
        matches!(&seen, Some((Verdict::Fail, seen)) if seen.contains("uid 530 gid 530 on a, uid 540 gid 540 on b")),
        "{seen:?}"
    );
}

#[test]
fn options_room_and_inodes_are_judged_where_the_mount_is() {
    let nfs = "mountinfo|2 1 0:2 / /m rw - nfs4 nas:/x rw,soft";
    let host = |more: &[&str]| all(vec![visit("h", "user1", 540, more)]);
    assert_eq!(verdict(host(&[nfs]), "mount.options"), Some(Verdict::Warn));
    assert_eq!(verdict(host(&[]), "mount.options"), Some(Verdict::Ok));
    for (id, line, expected) in [
        ("mount.space", "space|d 10 10 0 100% /m", Verdict::Fail),
        ("mount.space", "space|d 10 10 1024 99% /m", Verdict::Warn),
        ("mount.space", "space|d 10 10 1048576 9% /m", Verdict::Ok),
        ("mount.inodes", "inodes|d 10 10 0 100% /m", Verdict::Fail),
        ("mount.inodes", "inodes|d 1000 10 5 100% /m", Verdict::Warn),
    ] {
        assert_eq!(verdict(host(&[line]), id), Some(expected), "{id} {line}");
    }
    // btrfs counts no inodes.
    assert_eq!(verdict(host(&["inodes|d 0 0 0 - /m"]), "mount.inodes"), None);
    assert_eq!(verdict(host(&["hangs|mount_facts"]), "mount.hangs"), Some(Verdict::Fail));
}

#[test]
fn hosts_are_judged_by_what_they_have() {
    let host = |more: &[&str]| all(vec![visit("h", "user1", 540, more)]);
    for (id, line, expected) in [
        ("host.bash", "bash|5.2.15(1)-release", Verdict::Ok),
        ("host.bash", "bash|3.2.25(1)-release", Verdict::Fail),
        ("host.bash", "bash|", Verdict::Fail),
        ("host.psql", "psql|/opt/psql|psql (PostgreSQL) 8.3.23", Verdict::Ok),
        ("host.psql", "psql|/opt/psql|error while loading shared libraries: libpq.so.5", Verdict::Fail),
        ("host.compressor", "tool|gzip|/bin/gzip", Verdict::Ok),
        ("host.compressor", "tool|perl|/bin/perl", Verdict::Fail),
        ("host.cache", "cache|/h/.cache|/h|no|0|No space left on device", Verdict::Fail),
        ("host.tmp", "tmp|", Verdict::Fail),
        ("reach.sessions", "sshd|MaxStartups|2:30:60", Verdict::Warn),
        ("reach.sessions", "sshd|MaxSessions|1", Verdict::Ok),
    ] {
        assert_eq!(verdict(host(&[line]), id), Some(expected), "{id} {line}");
    }
    for (skew, expected) in
        [(0.5, Verdict::Ok), (-1.9, Verdict::Ok), (2.5, Verdict::Warn), (-3600.0, Verdict::Warn)]
    {
        let mut one = visit("h", "user1", 540, &[]);
        if let Ok(facts) = &mut one.found {
            facts.skew = Some(skew);
        }
        assert_eq!(verdict(all(vec![one]), "host.clock"), Some(expected), "{skew}");
    }
}
