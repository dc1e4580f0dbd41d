//! One measurement, and what is made of several.

use std::time::Instant;

use serde_json::{Value, json};

use crate::cpu::meter;

/// What one go took.
#[derive(Clone, Copy, Default)]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    /// Of all processes, the servers' included.
    pub(crate) cpu: f64,
    /// The most resident memory that gpferry had; 0 for others.
    pub(crate) peak_kib: u64,
}

/// Measures what `work` does; it says how much memory it took.
pub(crate) fn measured(work: impl FnOnce() -> u64) -> Measured {
    let (cpu, begin) = (meter().seconds(), Instant::now());
    let peak_kib = work();
    let seconds = begin.elapsed().as_secs_f64();
    Measured { seconds, cpu: meter().seconds() - cpu, peak_kib }
}

impl Measured {
    /// The same for so many times as much.
    pub(crate) fn times(self, factor: f64) -> Self {
        Self { seconds: self.seconds * factor, cpu: self.cpu * factor, ..self }
    }
}

/// Ways that were measured in alternation, the first of which the others are held against.
pub(crate) struct Ways {
    names: Vec<&'static str>,
    goes: Vec<Vec<Measured>>,
}

impl Ways {
    pub(crate) fn new(names: &[&'static str]) -> Self {
        Self { names: names.to_vec(), goes: vec![Vec::new(); names.len()] }
    }

    /// Takes a round in: one go of each way, in their order.
    pub(crate) fn round(&mut self, round: &[Measured]) {
        let shown: Vec<String> = self
            .names
            .iter()
            .zip(round)
            .map(|(name, one)| format!("{name} {:.2} s ({:.2} s CPU)", one.seconds, one.cpu))
            .collect();
        println!("  round {}: {}", self.goes[0].len() + 1, shown.join(", "));
        self.goes.iter_mut().zip(round).for_each(|(goes, one)| goes.push(*one));
    }

    /// Prints medians and ratios, and gives them back: by name, `seconds`, `cpu_seconds`, `peak_kib`, `all` (every go),
    /// and the ratio to the first.
    pub(crate) fn finish(&self) -> Value {
        let mut told = json!({});
        let first = (median(&self.goes[0], |one| one.seconds), median(&self.goes[0], |one| one.cpu));
        for (name, goes) in self.names.iter().zip(&self.goes) {
            let (seconds, cpu) = (median(goes, |one| one.seconds), median(goes, |one| one.cpu));
            let peak_kib = goes.iter().map(|one| one.peak_kib).max().unwrap_or(0);
            let memory = if peak_kib == 0 { String::new() } else { format!("  {:.1} MiB", mib(peak_kib)) };
            println!(
                "  {name:<40} {seconds:>8.2} s {:>6.3}   {cpu:>8.2} s CPU {:>6.3}{memory}",
                seconds / first.0,
                cpu / first.1
            );
            told[*name] = json!({
                "seconds": seconds, "ratio": seconds / first.0, "cpu_seconds": cpu, "cpu_ratio": cpu / first.1,
                "peak_kib": peak_kib, "all_seconds": goes.iter().map(|one| one.seconds).collect::<Vec<_>>(),
                "all_cpu_seconds": goes.iter().map(|one| one.cpu).collect::<Vec<_>>(),
            });
        }
        told
    }
}

pub(crate) fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// The median of a figure; of an even number, the mean of the two in the middle.
pub(crate) fn median(goes: &[Measured], figure: impl Fn(&Measured) -> f64) -> f64 {
    let mut all: Vec<f64> = goes.iter().map(figure).collect();
    all.sort_by(f64::total_cmp);
    f64::midpoint(all[(all.len() - 1) / 2], all[all.len() / 2])
}
