//! The side that is exported: a script on the source host, its protocol, and the SQL per engine.

pub mod argv;
pub mod axis;
mod conversation;
pub mod definition;
mod error;
pub mod explain;
pub mod keys;
pub mod nulls;
pub mod postgres;
pub mod probe;
pub mod protocol;
mod questions;
pub mod ready;
pub mod rows;
mod script;
pub mod segments;
pub mod statistics;
#[cfg(test)]
mod tests;

pub use conversation::{Conversation, Line};
pub use error::SourceError;
pub use probe::Probe;
pub use protocol::{Reply, Request};
pub use questions::{Bounds, Questions, settings};
pub use script::Script;
