//! The binary and the source tree, without any server.

mod binary;
mod floors;
