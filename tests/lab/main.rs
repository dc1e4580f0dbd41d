//! Against the real thing: sshd, PostgreSQL, a directory as mount, the built binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod argv;
mod batches;
mod catalog;
mod commit;
mod create;
mod ends;
mod keeping;
mod memory;
mod modes;
mod moves;
mod oracle;
mod planted;
mod preflight;
#[expect(dead_code, reason = "the fault suite uses the rest of it")]
mod proxy;
mod refuses;
mod secrets;
mod ssh;
mod support;
mod target;
mod time_limits;
mod windows;
