//! gpferry moves tables, window by window, from database clusters that are reached only by SSH into Greenplum.
//!
//! ```text
//! inventory ─► plan ─► batch ─► export ─► load ─► ledger ─► report
//!  (YAML)     (pure)            (SSH,     (target:         (text, JSON)
//!                               script,   one transaction
//!                               mount)    with load log)
//! ```
//!
//! Data moves one way, and nothing downstream is asked to decide again what upstream decided. A module uses
//! only floors below its own; `tests/cli/floors.rs` reads the `use` lines and fails on an upward one.

pub mod alarm;
pub mod alike;
pub mod canon;
pub mod catalog;
pub mod cli;
pub mod commands;
pub mod csv;
pub mod engine;
pub mod exit;
pub mod failure;
pub mod file_pattern;
pub mod gzip;
pub mod interval;
pub mod inventory;
pub mod ledger;
pub mod measure;
pub mod mount;
pub mod names;
pub mod owed;
pub mod plan;
pub mod progress;
pub mod prune;
pub mod remote;
pub mod report;
pub mod source;
pub mod sql;
pub mod step;
pub mod stop;
pub mod sweep;
pub mod target;
pub mod unit;
pub mod window;
