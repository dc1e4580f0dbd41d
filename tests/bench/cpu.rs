//! CPU seconds of everything together: the runner, psql, compressors, sshd with its scripts, both servers.
//!
//! A control group counts exactly, short-lived processes included; where none can be made, /proc is added up, which
//! misses what was taken over by init.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What counts CPU time.
pub(crate) enum Meter {
    /// A group of cgroup v1's cpuacct: nanoseconds.
    One(PathBuf),
    /// A group of cgroup v2: microseconds in cpu.stat.
    Two(PathBuf),
    /// The sum over /proc of this process, the lab's servers, and all below them.
    Proc,
}

/// The meter, made by the first call: from then on it counts this process and all that it starts.
pub(crate) fn meter() -> &'static Meter {
    static METER: OnceLock<Meter> = OnceLock::new();
    METER.get_or_init(|| {
        let name = format!("gpferry-bench-{}", std::process::id());
        let group = |root: &str| {
            let group = Path::new(root).join(&name);
            fs::create_dir(&group).ok()?;
            let joined = fs::write(group.join("cgroup.procs"), std::process::id().to_string());
            if joined.is_err() {
                drop(fs::remove_dir(&group));
            }
            joined.ok().map(|()| group)
        };
        if let Some(group) = group("/sys/fs/cgroup/cpuacct") {
            return Meter::One(group);
        }
        for root in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
            if Path::new(root).join("cgroup.controllers").exists()
                && let Some(group) = group(root)
            {
                return Meter::Two(group);
            }
        }
        Meter::Proc
    })
}

impl Meter {
    /// In words.
    pub(crate) fn how(&self) -> &'static str {
        match self {
            Meter::One(_) => "a control group (cpuacct)",
            Meter::Two(_) => "a control group (cpu.stat)",
            Meter::Proc => "the sum over /proc (no control group could be made)",
        }
    }

    /// Seconds so far, without those of the bench itself.
    pub(crate) fn seconds(&self) -> f64 {
        let all = match self {
            Meter::One(group) => number(&fs::read_to_string(group.join("cpuacct.usage")).unwrap()) / 1e9,
            Meter::Two(group) => {
                let text = fs::read_to_string(group.join("cpu.stat")).unwrap();
                let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
                number(usage) / 1e6
            }
            Meter::Proc => over_proc(),
        };
        all - own()
    }

    /// Who is in the group now; nothing where there is none.
    pub(crate) fn members(&self) -> Option<HashSet<u32>> {
        let (Meter::One(group) | Meter::Two(group)) = self else { return None };
        let pids = fs::read_to_string(group.join("cgroup.procs")).ok()?;
        Some(pids.lines().filter_map(|pid| pid.parse().ok()).collect())
    }

    /// Takes the group away; who is still in it (the lab's last breath) goes where we came from.
    pub(crate) fn close(&self) {
        let (Meter::One(group) | Meter::Two(group)) = self else { return };
        let parent = group.parent().unwrap();
        for _ in 0..40 {
            for pid in fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
                drop(fs::write(parent.join("cgroup.procs"), pid));
            }
            if fs::remove_dir(group).is_ok() {
                return;
            }
            // Somebody was born or died meanwhile.
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

fn number(text: &str) -> f64 {
    text.trim().parse().unwrap()
}

/// A process' time, and that of its children that have ended, in clock ticks; its parent; its name.
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) name: String,
    pub(crate) own: u64,
    pub(crate) ended_children: u64,
}

/// All processes. Source: proc(5).
pub(crate) fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?)).collect()
}

pub(crate) fn read(pid: u32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = text.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|text| text.parse::<u64>().ok());
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        name,
        own: ticks(11)? + ticks(12)?,
        ended_children: ticks(13)? + ticks(14)?,
    })
}

/// Clock ticks of /proc are hundredths on Linux.
pub(crate) const TICKS: f64 = 100.0;

fn own() -> f64 {
    // Nanoseconds that this process has run, all threads: schedstat of each.
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let ran = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    let ticks = || read(std::process::id()).map_or(0.0, |one| one.own as f64 / TICKS);
    let summed: f64 = tasks.filter_map(ran).sum::<f64>() / 1e9;
    // Threads that have ended are only in the process' ticks.
    summed.max(ticks())
}

fn over_proc() -> f64 {
    let all = processes();
    let lab = crate::support::lab();
    let pids = fs::read_to_string(Path::new(lab.get("LAB_DIR")).join("pids")).unwrap();
    let mut ours: Vec<u32> = pids.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect();
    ours.push(std::process::id());
    loop {
        let more: Vec<u32> = all
            .iter()
            .filter(|one| ours.contains(&one.parent) && !ours.contains(&one.pid))
            .map(|one| one.pid)
            .collect();
        if more.is_empty() {
            break;
        }
        ours.extend(more);
    }
    let sum: u64 =
        all.iter().filter(|one| ours.contains(&one.pid)).map(|one| one.own + one.ended_children).sum();
    sum as f64 / TICKS
}
