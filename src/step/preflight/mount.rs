//! The mount as each host sees it, and the proof that all see the same. Pure.

use super::access::{Access, Entry};
use super::facts::{HostFacts, MountFacts, Proof};
use super::mountinfo::MountPoint;
use super::visit::Made;
use super::{Check, Gathered, Verdict, Visit};
use crate::remote::Cause;

/// Less than this is soon full: the largest file that a window becomes by default. KiB.
const LITTLE: u64 = 256 * 1024;
/// Fewer inodes than this are soon used up.
const FEW: u64 = 1000;

/// Everything about the mount on one host.
pub(super) fn checks(visit: &Visit, all: &Gathered) -> Vec<Check> {
    let Ok(facts) = &visit.found else { return Vec::new() };
    if !facts.temporary {
        return vec![Check::skipped(
            "mount.exists",
            &visit.place.host,
            "there is no temporary directory to look at it from",
        )];
    }
    if facts.mount.hangs {
        return vec![hangs(visit, facts)];
    }
    let exists = exists(visit, &facts.mount);
    if exists.verdict == Verdict::Fail {
        return vec![exists];
    }
    let mut checks = vec![exists, point(visit, facts)];
    checks.extend(facts.mounted().map(|on| options(visit, on)));
    checks.extend(room(visit, &facts.mount));
    let last = if visit.place.is_runner() { subdir(visit, facts, all) } else { proof(visit, facts, all) };
    // What is full or read-only cannot be written either: that is one thing to mend, not two.
    let known = checks.iter().any(|check| check.id == last.id && check.verdict == Verdict::Fail);
    if !known {
        checks.push(last);
    }
    checks
}

fn hangs(visit: &Visit, facts: &HostFacts) -> Check {
    let (path, host) = (&visit.place.mount, &visit.place.host);
    let on = super::mountinfo::covering(&facts.mounts, path);
    let what = on.map_or_else(String::new, |on| format!(" ({})", shown(on)));
    let at = on.map_or(path.as_str(), |on| on.at.as_str());
    let seen = format!("{path}{what} does not answer: whoever touches it hangs");
    let remedy = format!("look for its server, then on {host}: `umount -f -l {at} && mount {at}`");
    Check::fail("mount.hangs", host, seen, remedy)
}

fn exists(visit: &Visit, mount: &MountFacts) -> Check {
    let (id, host, path) = ("mount.exists", &visit.place.host, &visit.place.mount);
    match &mount.root {
        Some(Ok(entry)) if entry.is_directory() || entry.mode.starts_with('l') => {
            Check::ok(id, host, format!("{path} is there: {}", owner(entry)))
        }
        Some(Ok(_)) => Check::fail(id, host, format!("{path} is not a directory"), correct(visit)),
        Some(Err(why)) => Check::fail(id, host, why.clone(), correct(visit)),
        None => Check::fail(id, host, format!("{path} could not be looked at"), correct(visit)),
    }
}

fn correct(visit: &Visit) -> String {
    let key = if visit.place.is_runner() { "`mount.path`" } else { "`mount` of the source" };
    format!("on {}: `mount {}`; or correct {key} in the inventory", visit.place.host, visit.place.mount)
}

/// A mount point, or the directory beneath one?
fn point(visit: &Visit, facts: &HostFacts) -> Check {
    let (id, host, path) = ("mount.point", &visit.place.host, &facts.mount.real);
    let covers = |at: &&String| at.len() > 1 && (path == *at || path.starts_with(&format!("{at}/")));
    let expected = facts.fstab.iter().filter(covers).max_by_key(|at| at.len());
    let on = facts.mounted();
    if let Some(expected) = expected
        && !facts.mounts.iter().any(|mount| &mount.at == expected)
    {
        let seen = format!(
            "/etc/fstab names {expected}, and nothing is mounted there: {path} is the empty directory beneath it"
        );
        return Check::fail(id, host, seen, format!("on {host}: `mount {expected}`"));
    }
    match on {
        Some(on) => Check::ok(id, host, shown(on)),
        None => Check::skipped(id, host, "/proc/self/mountinfo could not be read"),
    }
}

fn options(visit: &Visit, on: &MountPoint) -> Check {
    let (host, at) = (&visit.place.host, &on.at);
    if on.has("ro") {
        let remedy = format!(
            "on {host}: `mount -o remount,rw {at}`; if it turned read-only by itself, `dmesg` says why"
        );
        return Check::fail("mount.readonly", host, format!("{at} is mounted read-only"), remedy);
    }
    if on.has("soft") && on.is_network() {
        let seen = format!("{at} is mounted `soft`: a slow server becomes an error in the middle of a file");
        return Check::warn(
            "mount.options",
            host,
            seen,
            format!("mount {at} with `hard` in /etc/fstab on {host}"),
        );
    }
    Check::ok("mount.options", host, on.options.join(","))
}

fn room(visit: &Visit, mount: &MountFacts) -> Vec<Check> {
    let (host, path) = (&visit.place.host, &visit.place.mount);
    let mut checks = Vec::new();
    if let Some(kib) = mount.free_kib {
        let seen = format!("{} free", size(kib));
        let remedy = format!("free space there: `df -h {path}; du -xsh {path}/*`");
        checks.push(match kib {
            0 => Check::fail("mount.space", host, format!("{path} is full"), remedy),
            1..LITTLE => Check::warn("mount.space", host, seen, remedy),
            LITTLE.. => Check::ok("mount.space", host, seen),
        });
    }
    // A file system without a fixed number of inodes says 0 of 0.
    if let Some((total, free)) = mount.inodes.filter(|(total, _)| *total > 0) {
        let seen = format!("{free} of {total} inodes free");
        let remedy = format!("remove files there: `df -i {path}`, and look for directories with very many");
        checks.push(match free {
            0 => Check::fail("mount.inodes", host, format!("{path} has no inode left"), remedy),
            1..FEW => Check::warn("mount.inodes", host, seen, remedy),
            FEW.. => Check::ok("mount.inodes", host, seen),
        });
    }
    checks
}

/// The subdirectory as the runner makes or finds it.
fn subdir(visit: &Visit, facts: &HostFacts, all: &Gathered) -> Check {
    let (id, host) = ("mount.subdir", &visit.place.host);
    let path = format!("{}/{}", visit.place.mount, all.subdir);
    match &all.made {
        Ok(Made::There) if facts.mount.subdir_writable => {
            let entry = facts.mount.subdir.as_ref().and_then(|entry| entry.as_ref().ok());
            Check::ok(id, host, format!("{path} is there: {}", entry.map_or_else(String::new, owner)))
        }
        Ok(Made::There) => denied(visit, id, &format!("{path} cannot be written")),
        Ok(Made::ByUs) => Check::ok(id, host, format!("{path} is not there yet and can be made")),
        Ok(Made::NotAsked) => Check::skipped(id, host, "not asked"),
        Err(why) if is_denied(why) => {
            denied(visit, id, &format!("{path} is not there and cannot be made: {why}"))
        }
        Err(why) => {
            let remedy = format!("on {host}: `mkdir {path}`, as the user that runs gpferry");
            Check::fail(id, host, format!("{path} is not there and cannot be made: {why}"), remedy)
        }
    }
}

/// What came of the two files that prove it.
fn proof(visit: &Visit, facts: &HostFacts, all: &Gathered) -> Check {
    let (id, host) = ("mount.nonce", &visit.place.host);
    let Some(proof) = &visit.proof else {
        let why = visit.unproven.clone().unwrap_or_else(|| "it was not asked for".into());
        return Check::skipped(id, host, why);
    };
    match (&proof.wrote, &proof.runner_saw, &proof.host_saw) {
        (Some(Err(why)), ..) if is_denied(why) => not_written(visit, why),
        (Some(Err(why)), ..) => unwritten(visit, facts, all, why),
        (Some(Ok(_)), Some(Err(why)), _) if is_denied(why) => unread(visit, why),
        (Some(Ok(_)), Some(Err(why)), _) => {
            elsewhere(visit, all, &format!("what {host} wrote is not what the runner reads: {why}"))
        }
        // The file is there, which is what is to be proven; a host reads nothing that the runner wrote.
        (Some(Ok(_)), Some(Ok(_)), Some(Err(why))) if !is_denied(why) => {
            elsewhere(visit, all, &format!("what the runner wrote is not what {host} reads: {why}"))
        }
        (Some(Ok(own)), Some(Ok(here)), _) => numbers(visit, own, here, proof),
        (Some(Ok(_)), None, _) | (None, ..) => Check::skipped(id, host, "the proof was cut short"),
    }
}

/// The owner's number, as both sides see it: root squash and mapped identities show here.
fn numbers(visit: &Visit, own: &Entry, here: &Entry, _proof: &Proof) -> Check {
    let host = &visit.place.host;
    let Some(who) = visit.identity() else {
        return Check::skipped("mount.nonce", host, "the host did not say who it is");
    };
    if own.uid == who.uid && here.uid == own.uid {
        let seen = format!("written there as uid {}, read by the runner, and the other way round", own.uid);
        return Check::ok("mount.nonce", host, seen);
    }
    let seen = format!(
        "{} is uid {} on {host}; the file it wrote belongs to uid {} there and to uid {} on the runner",
        who.user, who.uid, own.uid, here.uid
    );
    if who.uid == 0 {
        return Check::warn(
            "mount.squash",
            host,
            format!("root is squashed: {seen}"),
            format!(
                "connect as the user that owns the mount (`host: USER@{}` in the inventory)",
                visit.place.host.rsplit('@').next().unwrap_or(host)
            ),
        );
    }
    let remedy = format!(
        "compare `/etc/exports` (all_squash, anonuid) and the NFSv4 domain (`/etc/idmapd.conf`) of {host} and the runner"
    );
    Check::warn("mount.mapping", host, format!("numbers are mapped on the way: {seen}"), remedy)
}

/// Denied, by the numbers of one host alone; [`super::identity`] says it where names and numbers cross hosts.
fn not_written(visit: &Visit, why: &str) -> Check {
    let squashed = visit.identity().is_some_and(|who| who.uid == 0);
    denied(visit, if squashed { "mount.squash" } else { "mount.write" }, why)
}

fn denied(visit: &Visit, id: &'static str, why: &str) -> Check {
    let host = &visit.place.host;
    let cause = Cause::PermissionDenied {
        process: visit.identity().cloned(),
        owner: visit.directory().map(Entry::ownership),
    };
    let remedy = match (visit.identity(), visit.directory()) {
        (Some(who), _) if who.uid == 0 => {
            let name = host.rsplit('@').next().unwrap_or(host);
            format!("connect as the user that owns it (`host: USER@{name}` in the inventory)")
        }
        (_, Some(entry)) => share(entry),
        (_, None) => cause.remedy(),
    };
    Check::fail(id, host, format!("{why}: {}", cause.remedy()), remedy)
}

/// How a directory is shared by a group.
pub(super) fn share(entry: &Entry) -> String {
    format!(
        "`chgrp {0} {1} && chmod 2775 {1}`, with the users of all hosts in group {0} (`usermod -aG {0} USER` there)",
        entry.gid, entry.path
    )
}

fn unwritten(visit: &Visit, facts: &HostFacts, all: &Gathered, why: &str) -> Check {
    let (host, path) = (&visit.place.host, &visit.place.mount);
    match Cause::from_text(why, None) {
        Cause::NoSuchFile => {
            let missing = format!("{path}/{}, which the runner has, is not there", all.subdir);
            elsewhere(visit, all, &missing)
        }
        Cause::ReadOnly => {
            let at = facts.mounted().map_or(path, |on| &on.at);
            Check::fail("mount.readonly", host, why, format!("on {host}: `mount -o remount,rw {at}`"))
        }
        Cause::NoSpace | Cause::Quota => Check::fail(
            "mount.space",
            host,
            why,
            format!("free space there: `df -h {path}; df -i {path}; quota`"),
        ),
        cause @ (Cause::PermissionDenied { .. }
        | Cause::StaleHandle
        | Cause::NoClient
        | Cause::NoSuchDatabase
        | Cause::DatabaseRefused
        | Cause::DatabaseAuthentication
        | Cause::DatabaseError { .. }
        | Cause::DatabaseLost
        | Cause::Unknown) => Check::fail("mount.write", host, why, cause.remedy()),
    }
}

/// The host writes what the runner may not read.
fn unread(visit: &Visit, why: &str) -> Check {
    let entry = visit.directory().map(share).unwrap_or_default();
    let seen = format!("the runner may not read what {} writes: {why}", visit.place.host);
    Check::fail("mount.read", &visit.place.host, seen, entry)
}

/// Not one directory but two.
fn elsewhere(visit: &Visit, all: &Gathered, what: &str) -> Check {
    let (host, path) = (&visit.place.host, &visit.place.mount);
    let on = |visit: &Visit| {
        let facts = visit.found.as_ref().ok();
        facts.and_then(HostFacts::mounted).map_or_else(|| "nothing is known to be mounted".into(), shown)
    };
    let seen = format!(
        "{what}. {path} on {host}: {}. {} on the runner: {}",
        on(visit),
        all.runner.place.mount,
        on(&all.runner)
    );
    let remedy = format!(
        "mount the same export on both; compare `findmnt -T {path}` on {host} with `findmnt -T {}` on the runner",
        all.runner.place.mount
    );
    Check::fail("mount.nonce", host, seen, remedy)
}

/// Do these words say that permission was denied?
pub(super) fn is_denied(why: &str) -> bool {
    match Cause::from_text(why, None) {
        Cause::PermissionDenied { .. } => true,
        Cause::NoSuchFile
        | Cause::NoSpace
        | Cause::Quota
        | Cause::StaleHandle
        | Cause::ReadOnly
        | Cause::NoClient
        | Cause::NoSuchDatabase
        | Cause::DatabaseRefused
        | Cause::DatabaseAuthentication
        | Cause::DatabaseError { .. }
        | Cause::DatabaseLost
        | Cause::Unknown => false,
    }
}

/// May this host write there, as far as anybody knows: by the proof, or else by the kernel's own word.
pub(super) fn is_refused(visit: &Visit) -> bool {
    match visit.proof.as_ref().and_then(|proof| proof.wrote.as_ref()) {
        Some(Ok(_)) => false,
        Some(Err(why)) => is_denied(why),
        None => match (visit.identity(), visit.directory()) {
            (Some(who), Some(entry)) => entry.access(who) == Access::Denied,
            (Some(_) | None, _) => false,
        },
    }
}

fn owner(entry: &Entry) -> String {
    let acl = if entry.acl { ", with an ACL" } else { "" };
    format!("owner {}:{}, mode {}{acl}", entry.uid, entry.gid, entry.octal())
}

fn shown(on: &MountPoint) -> String {
    let root = if on.root == "/" { String::new() } else { format!(" (its {})", on.root) };
    format!("{} {}{root} on {}", on.kind, on.source, on.at)
}

/// KiB for people.
pub fn size(kib: u64) -> String {
    match kib {
        ..1024 => format!("{kib} KiB"),
        1024..1_048_576 => format!("{} MiB", kib / 1024),
        1_048_576.. => format!("{} GiB", kib / 1_048_576),
    }
}
