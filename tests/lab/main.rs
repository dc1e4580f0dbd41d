//! Against the real thing: sshd, PostgreSQL, a directory as mount, the built binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod alarms;
mod argv;
mod batches;
mod broken;
mod catalog;
mod collide;
mod commit;
mod compare;
mod compare_property;
mod create;
mod day;
mod ends;
mod estimates;
mod gpfdist;
mod gpload;
mod greenplum;
mod keeping;
mod kept;
mod keys;
mod memory;
mod modes;
mod moves;
mod oracle;
mod parts;
mod peak;
mod planted;
mod preflight;
mod progress;
#[expect(dead_code, reason = "the fault suite uses the rest of it")]
mod proxy;
mod refuses;
mod repair;
mod secrets;
mod segments;
mod slices;
mod ssh;
mod support;
mod target;
mod time_limits;
mod ways;
mod windows;
