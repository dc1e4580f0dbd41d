//! Hosts over SSH, against a real sshd.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may panic as the tests may; clippy only knows the latter"
)]

mod channels;
mod config;
mod host_keys;
mod login;
mod sshd;
