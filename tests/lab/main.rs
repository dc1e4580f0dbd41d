//! Against the real thing: sshd, PostgreSQL, a directory as mount, the built binary.

mod ends;
mod moves;
mod preflight;
mod refuses;
mod ssh;
mod support;
mod target;
