//! A campaign: the same batch, hurt at a random instant, and then again unhurt, as often as is asked for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

use crate::draw::Draw;
use crate::kinds::{ALL, KILLED, Kind};
use crate::support::Ran;
use crate::verdict::{Rows, left_behind, rows};
use crate::world::{World, signal};

/// A run that has not ended by then hangs.
const HANGS: Duration = Duration::from_secs(150);
/// From Ctrl+C to the end.
const STOPS: Duration = Duration::from_secs(10);

/// The ledger of a campaign, and where its runs are heard.
const LEDGER: &str = "ledger.sqlite";
const HEARD: &str = "run";

/// What came of the runs of one kind.
#[derive(Default)]
struct Tally {
    runs: u32,
    met: u32,
    rows: i64,
    lost: i64,
    twice: i64,
}

#[test]
fn nothing_is_lost_twice_or_left_behind_whatever_dies_and_whenever() {
    let runs: u64 = variable("GPFERRY_FAULTS_RUNS").unwrap_or(25);
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed: u64 =
        variable("GPFERRY_FAULTS_SEED").unwrap_or(u64::from(clock.subsec_nanos()) ^ clock.as_secs());
    let only = std::env::var("GPFERRY_FAULTS_ONLY").ok();
    println!("GPFERRY_FAULTS_SEED={seed} GPFERRY_FAULTS_RUNS={runs}");
    let mut world = World::new();
    let usual = usual(&mut world);
    println!("a run that nothing happens to takes {usual:.2?}");
    let mut kinds: Vec<Kind> = ALL.to_vec();
    kinds.retain(|kind| match kind.missing(&world) {
        Some(why) => {
            println!("not done: {}: {why}", kind.name());
            false
        }
        None => true,
    });
    Draw::new(seed, u64::MAX).shuffle(&mut kinds);
    let mut tallies: BTreeMap<Kind, Tally> = BTreeMap::new();
    let mut failures = Vec::new();
    for run in 0..runs {
        let kind = kinds[run as usize % kinds.len()];
        if only.as_ref().is_some_and(|only| *only != kind.name() && *only != run.to_string()) {
            continue;
        }
        let began = Instant::now();
        let one = One { world: &mut world, kind, draw: Draw::new(seed, run), long: runs > 25 };
        let (tally, said, wrong) = one.judge(usual);
        println!("run {run:>3} {:<24} {said}, {:.1} s in all", kind.name(), began.elapsed().as_secs_f64());
        let sum = tallies.entry(kind).or_default();
        sum.runs += 1;
        sum.met += tally.met;
        sum.rows += tally.rows;
        sum.lost += tally.lost;
        sum.twice += tally.twice;
        if !wrong.is_empty() {
            let text = format!("run {run}, {} ({said}):\n  {}", kind.name(), wrong.join("\n  "));
            println!("WRONG {text}");
            failures.push(text);
        }
    }
    println!("{}", summary(seed, &tallies));
    let replay = format!("GPFERRY_FAULTS_SEED={seed} GPFERRY_FAULTS_RUNS={runs} replays it");
    assert!(failures.is_empty(), "{} runs went wrong; {replay}\n{}", failures.len(), failures.join("\n"));
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// How long an undisturbed run takes; the second of two, since the first also puts the script on the hosts.
fn usual(world: &mut World) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..2 {
        world.reset();
        let began = Instant::now();
        let mut child = world.start(false, LEDGER, HEARD);
        let (ran, _) = end(world, &mut child);
        took = began.elapsed();
        let ran = ran.expect(0);
        let (rows, wrong) = rows(world);
        assert!(wrong.is_empty() && rows.missing == 0, "{wrong:?} {rows:?}\n{}{}", ran.stdout, ran.stderr);
        assert_eq!(rows.there, world.rows);
    }
    took
}

/// One run of a campaign, and what follows it.
struct One<'a> {
    world: &'a mut World,
    kind: Kind,
    draw: Draw,
    long: bool,
}

impl One<'_> {
    fn judge(mut self, usual: Duration) -> (Tally, String, Vec<String>) {
        self.world.reset();
        let mut wrong = Vec::new();
        let instant = usual.mul_f64(1.1 * self.draw.fraction());
        let fake_time = self.kind == Kind::ClockBack;
        std::fs::write(self.world.case.path("clock"), "+0\n").unwrap();
        let mut child = self.world.start(fake_time, LEDGER, HEARD);
        std::thread::sleep(instant);
        let ended_before = child.try_wait().unwrap().is_some();
        let hit = self.kind.inject(self.world, &mut self.draw, &mut child, self.long);
        let (first, ended) = end(self.world, &mut child);
        self.kind.undo(self.world);
        if let Some(asked) = hit.asked.filter(|_| !ended_before)
            && ended.duration_since(asked) > STOPS
        {
            wrong.push(format!("it took {:.1?} to stop", ended.duration_since(asked)));
        }
        self.code(&first, instant, &mut wrong);
        let between = if self.kind.at_once() { Rows::default() } else { self.look(&mut wrong) };
        self.words(&first, between, &mut wrong);
        let last = self.again(fake_time, &mut wrong);
        let met = u32::from(hit.met && !ended_before);
        let tally = Tally {
            runs: 1,
            met,
            rows: last.there,
            lost: last.missing,
            twice: last.surplus + between.surplus,
        };
        let said = format!(
            "after {instant:.2?}: {}{}{}; exit {}, {} of {} rows there",
            hit.what,
            hit.asked
                .map(|asked| format!(" (gone in {:.1?})", ended.duration_since(asked)))
                .unwrap_or_default(),
            if met == 1 { "" } else { " (met nothing)" },
            first.code,
            between.there,
            self.world.rows
        );
        if !wrong.is_empty() {
            wrong.push(format!("the first run said:\n{}{}", first.stdout, first.stderr));
        }
        (tally, said, wrong)
    }

    /// What the first run left, and did.
    fn look(&mut self, wrong: &mut Vec<String>) -> Rows {
        let left = left_behind(self.world, !self.kind.may_leave_parts());
        wrong.extend(left.into_iter().map(|what| format!("left behind: {what}")));
        let (between, log) = rows(self.world);
        wrong.extend(log.into_iter().map(|what| format!("after the fault: {what}")));
        between
    }

    fn code(&self, first: &Ran, instant: Duration, wrong: &mut Vec<String>) {
        let early = instant < Duration::from_millis(150) && [-2, -15].contains(&first.code);
        if ![0, 3].contains(&first.code) && !self.kind.codes().contains(&first.code) && !early {
            wrong.push(format!("exit code {}", first.code));
        }
    }

    /// What is not done is said, and that the same command does it.
    fn words(&self, first: &Ran, between: Rows, wrong: &mut Vec<String>) {
        let stopped = [3, 130, 143].contains(&first.code) && self.kind != Kind::InterruptTwice;
        let said = format!("{}{}", first.stdout, first.stderr);
        if stopped && between.missing > 0 && !said.contains("the same command resumes") {
            wrong.push("the end does not say that the same command resumes what is left".into());
        }
        if first.code == 0 && between.missing > 0 {
            wrong.push(format!("exit code 0 with {} rows missing", between.missing));
        }
        if [12, 13, 14, 15].contains(&first.code)
            && !first.stderr.contains("try:")
            && !first.stdout.contains("try:")
        {
            wrong.push("an error without a word of what to try".into());
        }
    }

    /// The same command, unhurt: everything is there once, and nothing is left.
    fn again(&mut self, fake_time: bool, wrong: &mut Vec<String>) -> Rows {
        let mut child = self.world.start(fake_time, LEDGER, HEARD);
        let (mut second, _) = end(self.world, &mut child);
        let damaged = self.kind.damages() && names_damage(&second);
        if second.code == 3 && (damaged || self.kind.disturbs_the_next()) {
            let mut child = self.world.start(fake_time, LEDGER, HEARD);
            second = end(self.world, &mut child).0;
        }
        let (last, log) = rows(self.world);
        wrong.extend(log);
        if second.code != 0 || last.missing > 0 {
            wrong.push(format!(
                "the run after it ended with {} and {} rows are missing:\n{}{}",
                second.code, last.missing, second.stdout, second.stderr
            ));
        }
        wrong.extend(
            left_behind(self.world, true).into_iter().map(|what| format!("left behind by the last: {what}")),
        );
        last
    }
}

fn names_damage(ran: &Ran) -> bool {
    let words = ["truncated", "is damaged", "was changed after", "is not the file that was published"];
    let text = ran.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    words.iter().any(|word| text.contains(word))
}

/// Waits for a run's end; what it said, and when it ended. One that hangs is killed, and has exit code -9.
fn end(world: &World, child: &mut Child) -> (Ran, Instant) {
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > HANGS {
            signal("KILL", i32::try_from(child.id()).unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let hung = began.elapsed() > HANGS;
    let read =
        |name: &str| String::from_utf8_lossy(&std::fs::read(world.case.path(name)).unwrap()).into_owned();
    let code =
        status.code().unwrap_or_else(|| if hung { KILLED * 100 } else { -status.signal().unwrap_or(0) });
    (Ran { code, stdout: read("run.out"), stderr: read("run.err") }, Instant::now())
}

/// As Markdown, for `docs/faults.md`.
fn summary(seed: u64, tallies: &BTreeMap<Kind, Tally>) -> String {
    let mut text = format!(
        "\nSeed {seed}:\n\n| fault | runs | met | rows | lost | twice |\n|---|--:|--:|--:|--:|--:|\n"
    );
    let mut all = Tally::default();
    for (kind, tally) in tallies {
        let Tally { runs, met, rows, lost, twice } = tally;
        let _ = writeln!(text, "| {} | {runs} | {met} | {rows} | {lost} | {twice} |", kind.name());
        all.runs += runs;
        all.met += met;
        all.rows += rows;
        all.lost += lost;
        all.twice += twice;
    }
    let Tally { runs, met, rows, lost, twice } = all;
    let _ = writeln!(text, "| **all** | {runs} | {met} | {rows} | {lost} | {twice} |");
    text
}
