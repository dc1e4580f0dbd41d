//! The programs of Greenplum that stand beside the database: a gpfdist that serves the mount, and gpload.

use std::ops::RangeInclusive;
use std::path::PathBuf;

/// The gpfdist of a target; only the loader `gpfdist` uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gpfdist {
    /// One that runs already, and serves the mount's subdirectory: `gpfdist://host:port/`, with a `/` at its end.
    Given {
        /// Its URL.
        url: String,
    },
    /// One that gpferry starts for a run, and ends with it.
    Started(ProgramRule),
}

/// How gpferry starts a gpfdist, or runs gpload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramRule {
    /// The host it runs on, as for SSH; absent: this machine.
    pub host: Option<String>,
    /// How segments reach that host: a name or an address. Absent: the name that the host itself has.
    pub address: Option<String>,
    /// The IPv4 address that it listens on; absent: all of that host. Not for gpload.
    pub bind: Option<String>,
    /// The program; absent: in `PATH`, in `$GPHOME/bin`, or where its packages put it.
    pub path: Option<PathBuf>,
    /// Ports that it may take: the first that is free.
    pub ports: RangeInclusive<u16>,
    /// The mount as that host sees it: absolute.
    pub mount: PathBuf,
    /// The longest row that it can serve, in bytes of CSV; 32 KiB to 256 MiB.
    pub max_line: u64,
}

impl Default for ProgramRule {
    /// What is used where nothing is written, of a mount that is still to be filled in.
    fn default() -> Self {
        Self {
            host: None,
            address: None,
            bind: None,
            path: None,
            ports: 8080..=8180,
            mount: PathBuf::new(),
            max_line: 1 << 20,
        }
    }
}

impl Default for Gpfdist {
    fn default() -> Self {
        Self::Started(ProgramRule::default())
    }
}
