//! One user, several numbers: the mount knows numbers only, and the same name may have another on each host. Pure.

use std::collections::BTreeMap;

use super::access::{Access, Entry};
use super::mount::{is_refused, share};
use super::{Check, Gathered, Verdict, Visit};
use crate::remote::Cause;

/// Compares every user's numbers over all hosts, and who should own the mount.
pub(super) fn checks(all: &Gathered) -> Vec<Check> {
    let mut users: BTreeMap<&str, Vec<&Visit>> = BTreeMap::new();
    for visit in all.visits() {
        if let Some(who) = visit.identity() {
            users.entry(&who.user).or_default().push(visit);
        }
    }
    let mut checks: Vec<Check> = users.iter().map(|(user, visits)| one_user(user, visits)).collect();
    checks.extend(all.visits().filter_map(wanted_owner));
    checks
}

/// Hosts whose trouble with writing is said by one of `checks` already.
pub(super) fn explained<'a>(all: &'a Gathered, checks: &[Check]) -> Vec<&'a str> {
    let said = |visit: &&Visit| {
        visit.identity().is_some_and(|who| {
            checks.iter().any(|check| {
                check.id == "mount.identity" && check.verdict == Verdict::Fail && check.subject == who.user
            })
        })
    };
    all.visits()
        .filter(said)
        .filter(|visit| is_refused(visit))
        .map(|visit| visit.place.host.as_str())
        .collect()
}

fn one_user(user: &str, visits: &[&Visit]) -> Check {
    let id = "mount.identity";
    let number = |visit: &Visit| visit.identity().map(|who| who.uid);
    let first = visits.first().and_then(|visit| number(visit));
    if visits.iter().all(|visit| number(visit) == first) {
        return Check::ok(id, user, listed(user, visits));
    }
    let refused: Vec<&&Visit> = visits.iter().filter(|visit| is_refused(visit)).collect();
    if refused.is_empty() {
        let how: Vec<String> = visits.iter().filter_map(|visit| works(visit)).collect();
        return Check::ok(
            id,
            user,
            format!("{}. It works all the same: {}", listed(user, visits), how.join("; ")),
        );
    }
    let mut seen = listed(user, visits);
    for visit in &refused {
        let cause = Cause::PermissionDenied {
            process: visit.identity().cloned(),
            owner: visit.directory().map(Entry::ownership),
        };
        seen.push_str(&format!(". On {}: permission denied: {}", visit.place.host, cause.remedy()));
    }
    Check::fail(id, user, seen, remedy(user, visits, &refused))
}

/// `user1 is uid 530 gid 530 on gp-a, uid 540 gid 2180 on gp-b`
fn listed(user: &str, visits: &[&Visit]) -> String {
    let on = |visit: &&Visit| {
        let who = visit.identity()?;
        Some(format!("uid {} gid {} on {}", who.uid, who.gid, visit.place.host))
    };
    let mut all: Vec<String> = visits.iter().filter_map(on).collect();
    all.dedup();
    format!("{user} is {}", all.join(", "))
}

/// Why a host can write in spite of its numbers.
fn works(visit: &Visit) -> Option<String> {
    let (who, entry) = (visit.identity()?, visit.directory()?);
    let how = match entry.access(who) {
        Access::Owner => format!("uid {} owns {}", who.uid, entry.path),
        Access::Group if entry.is_setgid() => {
            format!("group {} of {} may write, and passes on (setgid)", entry.gid, entry.path)
        }
        Access::Group => format!("group {} of {} may write", entry.gid, entry.path),
        Access::Others => format!("everybody may write in {}", entry.path),
        Access::Root => "root may do anything".into(),
        Access::Acl => format!("an ACL of {} lets it in", entry.path),
        // The kernel let it write, whatever mode and numbers say.
        Access::Denied => "the file system lets it in".into(),
    };
    Some(format!("on {} {how}", visit.place.host))
}

/// The number that owns the directory is the one to keep, where that is this user's anywhere.
fn remedy(user: &str, visits: &[&Visit], refused: &[&&Visit]) -> String {
    let Some(entry) = refused.iter().find_map(|visit| visit.directory()) else {
        return format!("give {user} the same UID on all hosts");
    };
    let owned = visits.iter().any(|visit| visit.identity().is_some_and(|who| who.uid == entry.uid));
    let mut commands = Vec::new();
    if owned {
        for visit in refused {
            commands.push(format!("on {} as root: `usermod -u {} {user}`", visit.place.host, entry.uid));
        }
        commands.push(format!("or let a group of all hosts in: {}", share(entry)));
    } else {
        commands.push(format!("let a group of all hosts in: {}", share(entry)));
    }
    commands.join("; ")
}

/// `mount.owner` of the inventory, by number.
fn wanted_owner(visit: &Visit) -> Option<Check> {
    let (id, host) = ("mount.owner", &visit.place.host);
    let (user, group) = visit.found.as_ref().ok()?.owner?;
    let entry = visit.directory()?;
    let (Some(uid), Some(gid)) = (user, group) else {
        let seen = "this host does not know the user or the group of `mount.owner`";
        return Some(Check::warn(
            id,
            host,
            seen,
            format!(
                "make them there with the numbers {}:{} (`groupadd -g`, `useradd -u`)",
                entry.uid, entry.gid
            ),
        ));
    };
    if (uid, gid) == (entry.uid, entry.gid) {
        return Some(Check::ok(
            id,
            host,
            format!("{} belongs to {uid}:{gid}, as `mount.owner` says", entry.path),
        ));
    }
    let seen = format!(
        "`mount.owner` is {uid}:{gid} on {host}, and {} belongs to {}:{}",
        entry.path, entry.uid, entry.gid
    );
    Some(Check::warn(
        id,
        host,
        seen,
        format!(
            "`chown {uid}:{gid} {}` (that directory alone), once the numbers agree on all hosts",
            entry.path
        ),
    ))
}
