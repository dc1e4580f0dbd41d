//! The faults: how each is done to a run, and how a run may end that met it.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use crate::draw::Draw;
use crate::greenplum;
use crate::proxy::{Cut, Proxy};
use crate::support::Side;
use crate::world::{FAKE_TIME, World, run, signal};

/// Each kind once: what is in the list is drawn.
macro_rules! kinds {
    ($($kind:ident,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Kind {
            $($kind,)*
        }

        pub(crate) const ALL: &[Kind] = &[$(Kind::$kind,)*];
    };
}

kinds! {
    KillRunner,
    KillRunnerAndRunAtOnce,
    FreezeHostsAndRunAtOnce,
    TwoRunners,
    Interrupt,
    Terminate,
    InterruptTwice,
    InterruptHeldTarget,
    InterruptHeldSsh,
    InterruptFrozenTarget,
    KillSshd,
    KillPsql,
    KillCompressor,
    KillScript,
    KillHost,
    TerminateSourceBackend,
    CrashSource,
    TerminateTargetBackend,
    CrashTarget,
    BounceTarget,
    CrashSegment,
    KillGpfdist,
    FreezePsql,
    FreezeSshd,
    FreezeSourceBackend,
    FreezeTargetBackend,
    FreezeRunner,
    SlowMount,
    ResetSsh,
    CutSsh,
    HoldSsh,
    SlowSsh,
    RefuseSsh,
    ResetTarget,
    CutTarget,
    HoldTarget,
    SlowTarget,
    RefuseTarget,
    LoseCommit,
    LoseAnswerToCommit,
    DropPackets,
    LosePackets,
    MountFull,
    MountReadOnly,
    TruncateFile,
    FlipByte,
    LedgerFull,
    LedgerDeleted,
    ClockBack,
}

use Kind::*;

/// Whether a fault met anything, and what must be undone when the run is over.
pub(crate) struct Hit {
    pub(crate) met: bool,
    pub(crate) what: String,
    /// When the run was asked to stop.
    pub(crate) asked: Option<Instant>,
}

impl Hit {
    fn new(met: bool, what: impl Into<String>) -> Self {
        Self { met, what: what.into(), asked: None }
    }
}

impl Kind {
    pub(crate) fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.extend(letter.to_lowercase());
        }
        name
    }

    /// Why it cannot be done on this machine.
    pub(crate) fn missing(self, world: &World) -> Option<&'static str> {
        match self {
            DropPackets | LosePackets if world.net.is_none() => Some("no network namespaces with nft here"),
            CrashSegment if !greenplum::is_target() => Some("the target has no segments"),
            KillGpfdist if greenplum::forced_loader().is_none_or(|loader| loader != "gpfdist") => {
                Some("nothing is loaded through gpfdist")
            }
            BounceTarget if greenplum::is_target() => Some("nobody here stops a Greenplum that was brought"),
            ClockBack if !PathBuf::from(FAKE_TIME).exists() => {
                Some("Debian's package faketime is not installed")
            }
            _ => None,
        }
    }

    /// The exit codes that are right for a run that met it, besides "done" and "some units failed".
    pub(crate) fn codes(self) -> &'static [i32] {
        match self {
            KillRunner | KillRunnerAndRunAtOnce | FreezeHostsAndRunAtOnce => &[KILLED],
            InterruptTwice => &[130],
            Interrupt | InterruptHeldTarget | InterruptHeldSsh | InterruptFrozenTarget => &[130],
            Terminate => &[143],
            // The file may be damaged behind a runner that was killed.
            TruncateFile | FlipByte => &[KILLED],
            KillSshd | KillScript | KillHost | FreezeSshd | ResetSsh | CutSsh | HoldSsh | SlowSsh
            | RefuseSsh => &[12],
            TerminateTargetBackend
            | CrashTarget
            | BounceTarget
            | CrashSegment
            | FreezeTargetBackend
            | ResetTarget
            | CutTarget
            | HoldTarget
            | SlowTarget
            | RefuseTarget => &[14],
            LosePackets | DropPackets => &[12, 14],
            MountFull | MountReadOnly => &[13],
            LedgerFull | LedgerDeleted => &[15],
            KillPsql
            | KillCompressor
            | TerminateSourceBackend
            | CrashSource
            | KillGpfdist
            | FreezePsql
            | FreezeSourceBackend
            | FreezeRunner
            | SlowMount
            | LoseCommit
            | LoseAnswerToCommit
            | ClockBack
            | TwoRunners => &[],
        }
    }

    /// Is the next run started before anybody looked what the first left?
    pub(crate) fn at_once(self) -> bool {
        matches!(self, KillRunnerAndRunAtOnce | FreezeHostsAndRunAtOnce)
    }

    /// May the next run fail some units, because something of the first still writes?
    pub(crate) fn disturbs_the_next(self) -> bool {
        self == FreezeHostsAndRunAtOnce
    }

    /// May a half-written file stay until the next run, because nobody is left who could remove it?
    pub(crate) fn may_leave_parts(self) -> bool {
        matches!(self, KillHost | MountReadOnly)
    }

    /// May the run after it find a file that was damaged behind the ledger's back, and need another run?
    pub(crate) fn damages(self) -> bool {
        matches!(self, TruncateFile | FlipByte)
    }

    /// Hurts a run that has gone on until its instant. Comes back when what lasts a while is over.
    pub(crate) fn inject(self, world: &mut World, draw: &mut Draw, child: &mut Child, long: bool) -> Hit {
        let pid = i32::try_from(child.id()).unwrap();
        let while_ = duration(draw, long);
        match self {
            KillRunnerAndRunAtOnce => Hit::new(signal("KILL", pid), "kill -9, and the next run at once"),
            FreezeHostsAndRunAtOnce => {
                // Shorter than what anybody has for being gone afterwards.
                let while_ = while_.min(Duration::from_secs(8));
                wait(child, || world.processes().iter().any(|process| process.name == "psql"));
                let frozen = world.processes();
                for process in &frozen {
                    signal("STOP", process.pid);
                }
                let met = signal("KILL", pid) && !frozen.is_empty();
                let what = format!("{} processes stand still for {while_:?} of the next run", frozen.len());
                // They wake up in the middle of the next run, and do not know that they are dead.
                std::thread::spawn(move || {
                    std::thread::sleep(while_);
                    for process in &frozen {
                        signal("CONT", process.pid);
                    }
                });
                Hit::new(met, what)
            }
            TwoRunners => {
                let mut other = world.start(false, "other.sqlite", "other");
                wait(&mut other, || false);
                let code = other.try_wait().unwrap().and_then(|status| status.code());
                Hit::new(true, format!("another runner with another ledger, exit {code:?}"))
            }
            KillRunner => Hit::new(signal("KILL", pid), "kill -9"),
            Interrupt | Terminate => {
                let name = if self == Interrupt { "INT" } else { "TERM" };
                Hit { asked: Some(Instant::now()), ..Hit::new(signal(name, pid), name) }
            }
            InterruptTwice => {
                let met = signal("INT", pid);
                std::thread::sleep(Duration::from_millis(draw.among(1..800)));
                Hit::new(
                    met,
                    format!("INT, then INT ({})", if signal("INT", pid) { "in time" } else { "too late" }),
                )
            }
            InterruptHeldTarget | InterruptHeldSsh => {
                let proxy = if self == InterruptHeldTarget { &world.target } else { &world.ssh[0] };
                proxy.hold();
                std::thread::sleep(Duration::from_millis(300));
                let asked = Some(Instant::now());
                let met = signal("INT", pid);
                wait(child, || false);
                Hit { asked, ..Hit::new(met, "INT while a line was held") }
            }
            InterruptFrozenTarget => {
                let Some(backend) = find_backend(world, draw, child, Side::Target) else {
                    return Hit::new(false, "no backend any more");
                };
                signal("STOP", backend);
                std::thread::sleep(Duration::from_millis(300));
                let asked = Some(Instant::now());
                let met = signal("INT", pid);
                wait(child, || false);
                signal("CONT", backend);
                Hit { asked, ..Hit::new(met, "INT while a backend stood still") }
            }
            KillSshd => kill(world, draw, child, &["sshd"]),
            KillPsql => kill(world, draw, child, &["psql"]),
            KillCompressor => kill(world, draw, child, &["igzip", "pigz", "gzip", "dd"]),
            KillScript => kill(world, draw, child, &["bash", "sh"]),
            KillHost => {
                if !wait(child, || world.processes().iter().any(|process| process.name == "psql")) {
                    return Hit::new(false, "nothing ran");
                }
                let all = world.processes();
                for process in &all {
                    signal("KILL", process.pid);
                }
                Hit::new(true, format!("killed {} processes", all.len()))
            }
            TerminateSourceBackend => backend(world, draw, child, Side::Source, "TERM"),
            TerminateTargetBackend => backend(world, draw, child, Side::Target, "TERM"),
            CrashSource => backend(world, draw, child, Side::Source, "KILL"),
            CrashTarget => backend(world, draw, child, Side::Target, "KILL"),
            BounceTarget => {
                let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/lab.sh");
                run("bash", &[script, "bounce", world.lab.get("LAB_DIR"), "target"]);
                Hit::new(true, "immediate shutdown and restart")
            }
            CrashSegment => {
                let of_run = [format!(" {} ", world.case.database()), " seg".to_owned()];
                let killed = kill_one(draw, child, "postgres:", &of_run, "a backend of a segment");
                // Comes back when all segments answer again.
                world.session(Side::Target);
                killed
            }
            KillGpfdist => {
                let mount = [world.case.mount().display().to_string()];
                kill_one(draw, child, "gpfdist", &mount, "gpfdist")
            }
            FreezePsql => freeze(world, draw, child, &["psql"], while_),
            FreezeSshd => freeze(world, draw, child, &["sshd"], while_),
            FreezeSourceBackend => freeze_backend(world, draw, child, Side::Source, while_),
            FreezeTargetBackend => freeze_backend(world, draw, child, Side::Target, while_),
            FreezeRunner => {
                let met = signal("STOP", pid);
                std::thread::sleep(while_);
                signal("CONT", pid);
                Hit::new(met, format!("the runner stood still for {while_:?}"))
            }
            SlowMount => slow_mount(world, child, while_),
            ResetSsh => reset(&world.ssh[draw.among(0..2) as usize], child),
            ResetTarget => reset(&world.target, child),
            CutSsh => cut(&world.ssh[draw.among(0..2) as usize], draw.among(1..40_000), child),
            CutTarget => cut(&world.target, draw.among(1..6_000_000), child),
            HoldSsh => lasting(&world.ssh[draw.among(0..2) as usize], while_, child, Proxy::hold),
            HoldTarget => lasting(&world.target, while_, child, Proxy::hold),
            SlowSsh => {
                lasting(&world.ssh[draw.among(0..2) as usize], while_, child, |proxy| proxy.slow(2_000))
            }
            SlowTarget => lasting(&world.target, while_, child, |proxy| proxy.slow(200_000)),
            RefuseSsh => lasting(&world.ssh[draw.among(0..2) as usize], while_, child, Proxy::refuse),
            RefuseTarget => lasting(&world.target, while_, child, Proxy::refuse),
            LoseCommit | LoseAnswerToCommit => {
                let before = world.target.hits();
                world.target.cut_at_commit(if self == LoseCommit { Cut::Before } else { Cut::After });
                Hit::new(wait(child, || world.target.hits() > before), "at the next COMMIT")
            }
            DropPackets | LosePackets => {
                let percent = if self == DropPackets { 100 } else { 30 };
                let Some(net) = &world.net else { return Hit::new(false, "") };
                net.lose(percent);
                let until = Instant::now() + while_;
                wait(child, || Instant::now() >= until);
                net.lose(0);
                Hit::new(true, format!("{percent} % of the packets lost for {while_:?}"))
            }
            MountFull => {
                let mount = PathBuf::from(world.lab.get("LAB_MOUNT"));
                let room = draw.among(0..400) << 10;
                Hit::new(shrink(&mount, room), format!("{room} bytes left on the mount"))
            }
            LedgerFull => {
                let room = draw.among(0..48) << 10;
                Hit::new(shrink(&world.ledgers(), room), format!("{room} bytes left for the ledger"))
            }
            MountReadOnly => Hit::new(world.remount_hosts("ro"), "read-only on both hosts"),
            TruncateFile | FlipByte => damage(self, world, draw, child),
            LedgerDeleted => {
                let ledger = world.ledgers().join("ledger.sqlite");
                let gone = ["", "-wal", "-shm"]
                    .map(|more| fs::remove_file(format!("{}{more}", ledger.display())).is_ok());
                Hit::new(gone[0], "deleted while it was open")
            }
            ClockBack => {
                fs::write(world.case.path("clock"), "-2h\n").unwrap();
                Hit::new(true, "two hours back")
            }
        }
    }

    /// Takes back what lasts until the run is over.
    pub(crate) fn undo(self, world: &mut World) {
        world.ssh.iter().chain([&world.target]).for_each(Proxy::heal);
        match self {
            MountFull => run("mount", &["-o", "remount,size=256m", world.lab.get("LAB_MOUNT")]),
            LedgerFull => run("mount", &["-o", "remount,size=16m", &world.ledgers().display().to_string()]),
            MountReadOnly => assert!(world.remount_hosts("rw")),
            _ => {}
        }
    }
}

/// Killed by a signal, as `std` says it.
pub(crate) const KILLED: i32 = -9;

/// How long what lasts lasts: mostly less than what anybody has patience for, in the long form at times more.
fn duration(draw: &mut Draw, long: bool) -> Duration {
    let (short, patience) = (draw.among(200..2500), draw.among(8_000..35_000));
    Duration::from_millis(if long && draw.among(0..8) == 0 { patience } else { short })
}

/// Waits for a fact while the run goes on.
fn wait(child: &mut Child, mut fact: impl FnMut() -> bool) -> bool {
    while child.try_wait().unwrap().is_none() {
        if fact() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    false
}

/// Waits for a process of such a name on a host, and takes one.
fn find(world: &World, draw: &mut Draw, child: &mut Child, names: &[&str]) -> Option<crate::world::Process> {
    let mut found = Vec::new();
    wait(child, || {
        found = world.processes();
        found.retain(|process| names.contains(&process.name.as_str()));
        !found.is_empty()
    });
    draw.one_of(&found).cloned()
}

fn kill(world: &World, draw: &mut Draw, child: &mut Child, names: &[&str]) -> Hit {
    match find(world, draw, child, names) {
        Some(process) => {
            Hit::new(signal("KILL", process.pid), format!("kill -9 {} {}", process.name, process.pid))
        }
        None => Hit::new(false, format!("no {names:?} any more")),
    }
}

fn freeze(world: &World, draw: &mut Draw, child: &mut Child, names: &[&str], while_: Duration) -> Hit {
    let Some(process) = find(world, draw, child, names) else {
        return Hit::new(false, format!("no {names:?} any more"));
    };
    let met = signal("STOP", process.pid);
    std::thread::sleep(while_);
    signal("CONT", process.pid);
    Hit::new(met, format!("{} stood still for {while_:?}", process.name))
}

fn find_backend(world: &mut World, draw: &mut Draw, child: &mut Child, side: Side) -> Option<i32> {
    let mut found = Vec::new();
    wait(child, || {
        found = world.backends(side);
        !found.is_empty()
    });
    draw.one_of(&found).copied()
}

fn backend(world: &mut World, draw: &mut Draw, child: &mut Child, side: Side, how: &str) -> Hit {
    match find_backend(world, draw, child, side) {
        Some(pid) => Hit::new(signal(how, pid), format!("{how} to backend {pid}")),
        None => Hit::new(false, "no backend any more"),
    }
}

/// Kills one of the processes of this machine whose first word ends like this, and whose command line holds all of these.
fn kill_one(draw: &mut Draw, child: &mut Child, first: &str, words: &[String], what: &str) -> Hit {
    let mut found = Vec::new();
    wait(child, || {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let begins = line.split(' ').next().is_some_and(|word| word.ends_with(first));
            if begins && words.iter().all(|word| line.contains(word)) {
                found.extend(entry.file_name().to_str().and_then(|pid| pid.parse::<i32>().ok()));
            }
        }
        !found.is_empty()
    });
    match found.get(draw.among(0..found.len().max(1) as u64) as usize) {
        Some(&pid) => Hit::new(signal("KILL", pid), format!("kill -9 of {what}, {pid}")),
        None => Hit::new(false, format!("no {what} any more")),
    }
}

fn freeze_backend(
    world: &mut World,
    draw: &mut Draw,
    child: &mut Child,
    side: Side,
    while_: Duration,
) -> Hit {
    let Some(pid) = find_backend(world, draw, child, side) else {
        return Hit::new(false, "no backend any more");
    };
    let met = signal("STOP", pid);
    std::thread::sleep(while_);
    signal("CONT", pid);
    Hit::new(met, format!("backend {pid} stood still for {while_:?}"))
}

/// What writes to the mount gets a moment now and then, as behind a slow server.
fn slow_mount(world: &World, child: &mut Child, while_: Duration) -> Hit {
    let (until, mut stops) = (Instant::now() + while_, 0);
    while Instant::now() < until && child.try_wait().unwrap().is_none() {
        let mut writers = world.processes();
        writers.retain(|process| ["dd", "gzip", "perl"].contains(&process.name.as_str()));
        stops += writers.iter().filter(|process| signal("STOP", process.pid)).count();
        std::thread::sleep(Duration::from_millis(90));
        for process in &writers {
            signal("CONT", process.pid);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Hit::new(stops > 0, format!("{stops} writes held up within {while_:?}"))
}

fn reset(proxy: &Proxy, child: &mut Child) -> Hit {
    let before = proxy.hits();
    let met = wait(child, || {
        proxy.reset();
        proxy.hits() > before
    });
    Hit::new(met, "every connection reset")
}

fn cut(proxy: &Proxy, bytes: u64, child: &mut Child) -> Hit {
    let before = proxy.hits();
    proxy.cut_after(bytes);
    Hit::new(wait(child, || proxy.hits() > before), format!("cut after {bytes} more bytes"))
}

fn lasting(proxy: &Proxy, while_: Duration, child: &mut Child, what: impl Fn(&Proxy)) -> Hit {
    let before = proxy.hits();
    what(proxy);
    let until = Instant::now() + while_;
    wait(child, || Instant::now() >= until);
    proxy.heal();
    Hit::new(proxy.hits() > before, format!("for {while_:?}"))
}

/// Leaves so many bytes of room in a tmpfs.
fn shrink(mount: &PathBuf, room: u64) -> bool {
    let facts = rustix::fs::statvfs(mount).unwrap();
    let used = (facts.f_blocks - facts.f_bfree) * facts.f_frsize;
    let size = format!("remount,size={}", used + room.max(4096));
    std::process::Command::new("mount").args(["-o", &size]).arg(mount).status().unwrap().success()
}

/// Hurts a file after it was published; at times its runner is dead by then, and the next one meets it.
fn damage(kind: Kind, world: &World, draw: &mut Draw, child: &mut Child) -> Hit {
    let root = world.case.mount().join("file2GP");
    let mut files = Vec::new();
    wait(child, || {
        files = world.case.files();
        files.retain(|file| file.extension().is_some_and(|ending| ending == "gz") && !hidden(file));
        !files.is_empty()
    });
    if draw.coin() {
        signal("KILL", i32::try_from(child.id()).unwrap());
    }
    let Some(file) = draw.one_of(&files) else { return Hit::new(false, "no file") };
    let path = root.join(file);
    let Ok(open) = fs::OpenOptions::new().read(true).write(true).open(&path) else {
        return Hit::new(false, "gone");
    };
    let size = open.metadata().unwrap().len();
    let at = draw.among(0..size);
    if kind == Kind::TruncateFile {
        open.set_len(at).unwrap();
    } else {
        let mut byte = [0];
        open.read_exact_at(&mut byte, at).unwrap();
        byte[0] ^= 1 << draw.among(0..8);
        open.write_all_at(&byte, at).unwrap();
    }
    Hit::new(true, format!("{} at byte {at} of {size}", file.display()))
}

/// Is it, or is it in, something that is not published?
fn hidden(file: &std::path::Path) -> bool {
    file.iter().any(|part| part.to_string_lossy().starts_with('.'))
}
