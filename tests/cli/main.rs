//! The binary and the source tree, without any server.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod binary;
mod dependencies;
mod floors;
