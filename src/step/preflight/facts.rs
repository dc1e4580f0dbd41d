//! What was found out about a host, before anything is made of it. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::access::Entry;
use super::mountinfo::{self, MountPoint};
use crate::remote::Identity;
use crate::source::probe::Line;

/// Everything the probe said about a host.
#[derive(Debug, Clone, Default)]
pub struct HostFacts {
    /// Whom commands run as.
    pub identity: Option<Identity>,
    /// Numbers of the user and the group that should own the mount, where this host knows them.
    pub owner: Option<(Option<u32>, Option<u32>)>,
    /// Programs found, and where.
    pub tools: BTreeMap<String, String>,
    /// Version of bash.
    pub bash: Option<String>,
    /// psql: where, and what it says of its version.
    pub psql: Option<(String, String)>,
    /// Whether a temporary directory could be made.
    pub temporary: bool,
    /// The user's cache directory.
    pub cache: Option<Cache>,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: Vec<f64>,
    /// Processors.
    pub cpus: Option<u32>,
    /// Memory that can be had, in KiB.
    pub memory: Option<u64>,
    /// How long one question and its answer took.
    pub round_trip: Duration,
    /// How far its clock is ahead of ours, in seconds.
    pub skew: Option<f64>,
    /// `MaxSessions` and `MaxStartups`, where sshd_config could be read.
    pub sshd: Vec<(String, String)>,
    /// Mount points that /etc/fstab names.
    pub fstab: Vec<String>,
    /// What is mounted.
    pub mounts: Vec<MountPoint>,
    /// The mount.
    pub mount: MountFacts,
    /// Scripts of the inventory.
    pub scripts: Vec<ScriptFacts>,
}

/// Where the bundled script goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cache {
    /// The user's cache directory.
    pub path: String,
    /// The nearest directory that exists: where the trial was made.
    pub at: String,
    /// Could a file be made there?
    pub writable: bool,
    /// Could it be started?
    pub executable: bool,
    /// What the shell said where not.
    pub why: String,
}

/// The mount as a host sees it.
#[derive(Debug, Clone, Default)]
pub struct MountFacts {
    /// Looking at it did not come to an end.
    pub hangs: bool,
    /// Its path, without symbolic links.
    pub real: String,
    /// Its directory, or why there is none.
    pub root: Option<Result<Entry, String>>,
    /// The subdirectory, or why there is none.
    pub subdir: Option<Result<Entry, String>>,
    /// KiB that are free.
    pub free_kib: Option<u64>,
    /// Inodes in all and free; where it counts none, both are 0.
    pub inodes: Option<(u64, u64)>,
    /// May the user write in its directory, as the kernel says?
    pub root_writable: bool,
    /// May the user write in the subdirectory, as the kernel says?
    pub subdir_writable: bool,
}

/// A script that people have already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScriptFacts {
    /// Its path.
    pub path: String,
    /// Is it a file?
    pub there: bool,
    /// May the user read it?
    pub readable: bool,
    /// May the user execute it?
    pub executable: bool,
    /// Its interpreter's place, `missing`, or `-` where it names none.
    pub interpreter: String,
    /// Its first line, where that begins with `#!`.
    pub first_line: String,
}

impl HostFacts {
    /// Reads the probe's answer.
    pub fn read(lines: &[Line]) -> Self {
        let mut facts = Self::default();
        for line in lines {
            facts.take(line);
        }
        facts
    }

    /// The file system that the mount is on.
    pub fn mounted(&self) -> Option<&MountPoint> {
        mountinfo::covering(&self.mounts, &self.mount.real)
    }

    fn take(&mut self, line: &Line) {
        let field = |at: usize| line.get(at).map_or("", String::as_str);
        let yes = |at: usize| field(at) == "yes";
        match field(0) {
            "user" => self.identity = identity(line),
            "owner" => self.owner = Some((field(1).parse().ok(), field(2).parse().ok())),
            "tmp" => self.temporary = !field(1).is_empty(),
            "tool" => drop(self.tools.insert(field(1).into(), field(2).into())),
            "bash" => self.bash = Some(field(1).to_owned()).filter(|version| !version.is_empty()),
            "psql" => self.psql = Some((field(1).into(), field(2).into())),
            "load" => self.load = (1..4).filter_map(|at| field(at).parse().ok()).collect(),
            "cpus" => self.cpus = field(1).parse().ok(),
            // Kernels before 3.14 do not know MemAvailable; it comes after MemFree.
            "memory" => self.memory = field(2).parse().ok(),
            "mountinfo" => self.mounts.extend(mountinfo::parse(field(1))),
            "fstab" => self.fstab.push(field(1).into()),
            "sshd" => self.sshd.push((field(1).to_ascii_lowercase(), field(2).into())),
            "cache" => {
                self.cache = Some(Cache {
                    path: field(1).into(),
                    at: field(2).into(),
                    writable: yes(3),
                    executable: yes(3) && field(4) == "0",
                    why: field(5).into(),
                });
            }
            "script" => self.scripts.push(ScriptFacts {
                path: field(1).into(),
                there: yes(2),
                readable: yes(3),
                executable: yes(4),
                interpreter: field(5).into(),
                first_line: field(6).into(),
            }),
            _ => self.mount.take(line),
        }
    }
}

impl MountFacts {
    fn take(&mut self, line: &Line) {
        let field = |at: usize| line.get(at).map_or("", String::as_str);
        match (field(0), field(1)) {
            ("hangs", "mount_facts") => self.hangs = true,
            ("real", path) => self.real = path.into(),
            ("entry" | "missing", which) => {
                let found = match field(0) {
                    "entry" => Entry::parse(field(2), field(3)).ok_or_else(|| field(3).to_owned()),
                    _ => Err(field(3).trim().trim_start_matches("ls: ").to_owned()),
                };
                match which {
                    "mount" => self.root = Some(found),
                    "subdir" => self.subdir = Some(found),
                    _ => {}
                }
            }
            ("space", _) => self.free_kib = df(field(1)).map(|(_, free)| free),
            ("inodes", _) => self.inodes = df(field(1)),
            ("writable", "mount") => self.root_writable = field(2) == "yes",
            ("writable", "subdir") => self.subdir_writable = field(2) == "yes",
            _ => {}
        }
    }
}

/// `user <name> <uid> <gid> <groups>`
fn identity(line: &Line) -> Option<Identity> {
    let groups = line.get(4)?.split(' ').filter_map(|gid| gid.parse().ok()).collect();
    Some(Identity {
        user: line.get(1)?.clone(),
        uid: line.get(2)?.parse().ok()?,
        gid: line.get(3)?.parse().ok()?,
        groups,
    })
}

/// Total and free out of the last line of `df -P`: `device total used free 26% /mnt`. A device may hold blanks.
fn df(line: &str) -> Option<(u64, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let percent =
        fields.iter().position(|field| field.ends_with('%') || *field == "-").filter(|&at| at >= 4)?;
    Some((fields[percent - 3].parse().ok()?, fields[percent - 1].parse().ok()?))
}

/// What came of a proof: a file that one side wrote and the other looked at.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Proof {
    /// What the host wrote, as the host sees it, or why it could not.
    pub wrote: Option<Result<Entry, String>>,
    /// The subdirectory when that failed, as the host sees it.
    pub refused_by: Option<Entry>,
    /// The same as the runner sees it; an error where it is not there, or not the same.
    pub runner_saw: Option<Result<Entry, String>>,
    /// The runner's, as the host sees it.
    pub host_saw: Option<Result<Entry, String>>,
}

/// Reads the answer to `write`.
pub fn written(lines: &[Line]) -> Result<Entry, String> {
    find(lines).unwrap_or_else(|| Err("the host did not say what came of it".into()))
}

/// The subdirectory, out of the answer to a `write` that failed.
pub fn refused_by(lines: &[Line]) -> Option<Entry> {
    lines.iter().find_map(|line| match line.as_slice() {
        [key, which, path, shown, ..] if key == "entry" && which == "subdir" => Entry::parse(path, shown),
        _ => None,
    })
}

/// Reads the answer to `look`: the file must hold `text`.
pub fn seen(lines: &[Line], text: &str) -> Result<Entry, String> {
    let content = lines.iter().find(|line| line.first().is_some_and(|key| key == "saw"));
    match content.and_then(|line| line.get(1)) {
        Some(found) if found.trim_end() != text => Err("another file of that name is there".into()),
        Some(_) | None => find(lines).unwrap_or_else(|| Err("it is not there".into())),
    }
}

fn find(lines: &[Line]) -> Option<Result<Entry, String>> {
    lines.iter().find_map(|line| {
        let field = |at: usize| line.get(at).map_or("", String::as_str);
        match field(0) {
            "entry" if field(1) == "proof" => Entry::parse(field(2), field(3)).map(Ok),
            "unwritten" | "unseen" => Some(Err(last_words(field(1)))),
            "hangs" => Some(Err("the mount does not answer".into())),
            _ => None,
        }
    })
}

/// `sh: 2: cannot create /m/x: Permission denied` without the shell's own name and line, and in the system's words.
fn last_words(text: &str) -> String {
    let mut text = text.trim().replace("Directory nonexistent", "No such file or directory");
    while let Some((word, rest)) = text.split_once(": ") {
        let is_line = word.trim_start_matches("line ").chars().all(|c| c.is_ascii_digit());
        if !is_line && !["sh", "dash", "bash", "ash", "eval", "cat", "mkdir"].contains(&word) {
            break;
        }
        text = rest.to_owned();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        text.split('|').map(str::to_owned).collect()
    }

    #[test]
    fn the_probe_s_lines_become_facts() {
        let lines: Vec<Line> = [
            "tmp|/tmp/x",
            "user|user1|530|530|530 27",
            "memory|MemFree:|100",
            "memory|MemAvailable:|200",
            "cache|/home/u/.cache|/home/u|yes|126|Permission denied",
            "missing|mount|/m|ls: cannot access '/m': No such file or directory ",
            "space|nas:/my export 1000 900 100 90% /m",
            "inodes|nas:/x 0 0 0 - /m",
            "hangs|mount_facts",
            "nonsense",
            "",
        ]
        .map(line)
        .to_vec();
        let facts = HostFacts::read(&lines);
        assert_eq!(facts.identity.unwrap().groups, [530, 27]);
        assert_eq!((facts.memory, facts.temporary, facts.mount.hangs), (Some(200), true, true));
        let cache = facts.cache.unwrap();
        assert!(cache.writable && !cache.executable);
        assert_eq!((facts.mount.free_kib, facts.mount.inodes), (Some(100), Some((0, 0))));
        assert!(facts.mount.root.unwrap().unwrap_err().starts_with("cannot access"));
    }

    #[test]
    fn what_a_shell_says_is_told_without_its_name() {
        for (said, words) in [
            ("sh: 2: cannot create /m/x: Permission denied ", "cannot create /m/x: Permission denied"),
            ("sh: line 131: /m/x: No space left on device", "/m/x: No space left on device"),
            (
                "sh: 1: eval: cannot create /m/x: Directory nonexistent",
                "cannot create /m/x: No such file or directory",
            ),
            ("cat: /m/x: No such file or directory ", "/m/x: No such file or directory"),
        ] {
            assert_eq!(last_words(said), words);
        }
    }

    #[test]
    fn a_proof_holds_only_what_was_written() {
        let entry = "entry|proof|/m/x|-rw-rw---- 1 540 2180 12 Nov 21 09:00 /m/x";
        assert_eq!(seen(&[line("saw|abc "), line(entry)], "abc").unwrap().uid, 540);
        assert!(seen(&[line("saw|abd"), line(entry)], "abc").is_err());
        assert!(seen(&[line("unseen|cat: x: No such file or directory")], "abc").is_err());
        let refused = [line("unwritten|x: Permission denied"), line(&entry.replace("proof", "subdir"))];
        assert!(written(&refused).is_err() && refused_by(&refused).unwrap().uid == 540);
        assert!(written(&[line("hangs|write_proof")]).unwrap_err().contains("does not answer"));
        assert!(written(&[]).is_err());
    }
}
