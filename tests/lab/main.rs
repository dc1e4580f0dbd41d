//! Against the real thing: sshd, PostgreSQL, a directory as mount, the built binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod argv;
mod commit;
mod create;
mod ends;
mod modes;
mod moves;
mod oracle;
mod preflight;
mod refuses;
mod ssh;
mod support;
mod target;
mod windows;
