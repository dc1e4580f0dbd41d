//! Hosts over SSH, against a real sshd.

mod channels;
mod config;
mod host_keys;
mod login;
mod sshd;
