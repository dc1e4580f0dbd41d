//! The YAML file that names mount, target, sources and jobs: from what was written to what is meant.

pub mod model;

pub use model::*;
