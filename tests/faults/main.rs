//! The proof by faults: the same batch again and again, each time hurt in another way at another instant, and after
//! each time nothing lost, nothing twice, nothing left behind.
//!
//! `GPFERRY_FAULTS_RUNS` says how often (25), `GPFERRY_FAULTS_SEED` which faults when; what was drawn is printed,
//! and the seed replays it. `GPFERRY_FAULTS_ONLY` narrows it to one kind by its name, or to one run by its number.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "the summary is what the long form is for")]

mod campaign;
mod draw;
#[path = "../lab/greenplum.rs"]
#[expect(dead_code, reason = "the lab's tests use the rest of it")]
mod greenplum;
mod kinds;
#[path = "../lab/proxy.rs"]
mod proxy;
#[path = "../lab/support.rs"]
#[expect(dead_code, reason = "the lab's tests use the rest of it")]
mod support;
mod verdict;
mod world;
