//! What a source host has: bash, psql, a compressor, a cache directory, the time. Pure.

use super::facts::{HostFacts, ScriptFacts};
use super::{Check, Place, Visit};
use crate::source::SourceError;

/// Clocks further apart than this are worth a word. Seconds.
const SKEW: f64 = 2.0;

/// Everything about a host but the mount.
pub(super) fn checks(visit: &Visit) -> Vec<Check> {
    let place = &visit.place;
    match &visit.found {
        Err(SourceError::Remote(error)) if !place.is_runner() => {
            let _ = error;
            Vec::new()
        }
        Err(error) => vec![Check::fail("host.shell", &place.host, error.to_string(), error.remedy())],
        Ok(facts) => {
            let mut checks = vec![temporary(place, facts), load(place, facts)];
            if !place.is_runner() {
                checks.extend([clock(place, facts), compressor(place, facts)]);
                // Also where a script of the user's own exports: the catalog is asked by the bundled one.
                checks.extend([bash(place, facts), cache(place, facts), executable(place, facts)]);
                if place.needs_psql {
                    checks.push(psql(place, facts));
                }
                checks.extend(facts.scripts.iter().map(|one| script(place, one)));
            }
            checks
        }
    }
}

fn temporary(place: &Place, facts: &HostFacts) -> Check {
    match facts.temporary {
        true => Check::ok("host.tmp", &place.host, "a temporary directory can be made"),
        false => Check::fail(
            "host.tmp",
            &place.host,
            "no temporary directory can be made, so nothing can be exported and the mount was not looked at",
            "look at /tmp there: `df -h /tmp; df -i /tmp; ls -ld /tmp` (it should be drwxrwxrwt)",
        ),
    }
}

/// Facts, not judged: what is much for one host is nothing for another.
fn load(place: &Place, facts: &HostFacts) -> Check {
    let load: Vec<String> = facts.load.iter().map(|load| format!("{load:.2}")).collect();
    let cpus = facts.cpus.map_or_else(|| "?".into(), |cpus| cpus.to_string());
    let memory = facts.memory.map_or_else(|| "?".into(), |kib| (kib / 1024).to_string());
    Check::ok(
        "host.load",
        &place.host,
        format!("load {} on {cpus} processors, {memory} MiB of memory free", load.join(" ")),
    )
}

fn clock(place: &Place, facts: &HostFacts) -> Check {
    let Some(skew) = facts.skew else {
        return Check::skipped("host.clock", &place.host, "the host did not say its time");
    };
    let seen = format!(
        "its clock is {:.1} s {} this runner's",
        skew.abs(),
        if skew < 0.0 { "behind" } else { "ahead of" }
    );
    // Half of the way is what nobody can know.
    if skew.abs() < SKEW.max(facts.round_trip.as_secs_f64() / 2.0) {
        return Check::ok("host.clock", &place.host, seen);
    }
    let remedy = "set the clocks by NTP: `chronyc tracking` or `timedatectl` on both; `lag` must be longer than the difference";
    Check::warn("host.clock", &place.host, seen, remedy)
}

fn bash(place: &Place, facts: &HostFacts) -> Check {
    let id = "host.bash";
    let Some(version) = &facts.bash else {
        let seen = "there is no bash on the PATH of a non-interactive login";
        return Check::fail(
            id,
            &place.host,
            seen,
            "install bash there (`yum install bash`, `apt install bash`)",
        );
    };
    let mut numbers = version.split(['.', '(']).filter_map(|number| number.parse::<u32>().ok());
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if (major, minor) < (4, 1) {
        return Check::fail(id, &place.host, format!("bash {version}"), "install bash 4.1 or later there");
    }
    Check::ok(id, &place.host, format!("bash {version}"))
}

fn psql(place: &Place, facts: &HostFacts) -> Check {
    let id = "host.psql";
    match &facts.psql {
        Some((path, version)) if version.starts_with("psql") => {
            Check::ok(id, &place.host, format!("{version}, {path}"))
        }
        Some((path, said)) => {
            let remedy = format!(
                "run `{path} --version` there: 127 or a missing library means LD_LIBRARY_PATH is not set for non-interactive logins"
            );
            Check::fail(id, &place.host, format!("{path} does not run: {said}"), remedy)
        }
        None => {
            let seen = match &place.psql {
                Some(path) => format!("{path} is not there, or not executable"),
                None => "there is no psql on the PATH of a non-interactive login".into(),
            };
            let remedy = "give its path in the inventory (`connection: { psql: /usr/local/greenplum-db/bin/psql }`; find it \
                          with `bash -lc 'command -v psql'` there), or install it";
            Check::fail(id, &place.host, seen, remedy)
        }
    }
}

fn compressor(place: &Place, facts: &HostFacts) -> Check {
    let id = "host.compressor";
    let found: Vec<&str> =
        ["igzip", "pigz", "gzip"].into_iter().filter(|tool| facts.tools.contains_key(*tool)).collect();
    if let Some(missing) = place.compressors.iter().find(|wanted| !found.contains(wanted)) {
        let remedy = format!("install {missing} there, or write `compressor: auto` in the inventory");
        return Check::fail(
            id,
            &place.host,
            format!("{missing} is not there, and the inventory asks for it"),
            remedy,
        );
    }
    match found.first() {
        Some(_) => Check::ok(id, &place.host, found.join(", ")),
        None => {
            Check::fail(id, &place.host, "neither igzip nor pigz nor gzip is there", "install gzip there")
        }
    }
}

fn cache(place: &Place, facts: &HostFacts) -> Check {
    let id = "host.cache";
    match &facts.cache {
        None => Check::skipped(id, &place.host, "the host did not say"),
        Some(cache) if cache.writable => Check::ok(id, &place.host, format!("{} can be written", cache.path)),
        Some(cache) => {
            let user = facts.identity.as_ref().map_or("USER", |identity| identity.user.as_str());
            let seen = format!("the bundled script cannot be put into {}: {}", cache.path, cache.why);
            let remedy =
                format!("`df -h {0}; ls -ld {0}` there; it must belong to {user} and have room", cache.at);
            Check::fail(id, &place.host, seen, remedy)
        }
    }
}

/// The bundled script is read by bash, so a file system that forbids execution does not stop it; what people
/// start from there themselves does not run.
fn executable(place: &Place, facts: &HostFacts) -> Check {
    let id = "host.noexec";
    match &facts.cache {
        Some(cache) if cache.writable && !cache.executable => {
            let on = super::mountinfo::covering(&facts.mounts, &cache.at);
            let noexec = on.filter(|mount| mount.has("noexec"));
            let seen = match noexec {
                Some(mount) => format!("{} is on {}, which is mounted noexec", cache.path, mount.at),
                None => format!("nothing can be executed in {}: {}", cache.path, cache.why),
            };
            let remedy = match noexec {
                Some(mount) => format!(
                    "gpferry starts its script through bash, which works all the same; to allow it: `mount -o remount,exec {}`",
                    mount.at
                ),
                None => "gpferry starts its script through bash, which works all the same".into(),
            };
            Check::warn(id, &place.host, seen, remedy)
        }
        Some(cache) if cache.writable => {
            Check::ok(id, &place.host, format!("programs run in {}", cache.path))
        }
        Some(_) | None => Check::skipped(id, &place.host, "nothing could be put there"),
    }
}

/// A script that people have: what 126 and 127 would mean, before they come.
fn script(place: &Place, script: &ScriptFacts) -> Check {
    let (id, path) = ("script.path", &script.path);
    if !script.there {
        let seen = format!("{path} is not there: its runs would end with 127 (not found)");
        return Check::fail(
            id,
            &place.host,
            seen,
            format!("correct `script.path` in the inventory, or put it there: `ls -l {path}`"),
        );
    }
    if !script.readable {
        let seen = format!("{path} cannot be read: its runs would end with 126 (not executable)");
        return Check::fail(id, &place.host, seen, format!("`chmod a+r {path}` there"));
    }
    if script.interpreter == "missing" {
        let seen = format!(
            "{path} begins with `{}`, and that is not there: its runs would end with 126 or 127",
            script.first_line
        );
        return Check::fail(
            id,
            &place.host,
            seen,
            "install that interpreter, or correct the script's first line (a carriage return at its end does this, too: `dos2unix`)",
        );
    }
    // `sh SCRIPT` and `bash SCRIPT` need no execute permission.
    Check::ok(
        id,
        &place.host,
        format!("{path} is there and can be read{}", if script.executable { " and executed" } else { "" }),
    )
}
