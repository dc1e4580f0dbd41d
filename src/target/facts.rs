//! What the target's server is and can do: read once per session, and the one place where its version is looked at.

use postgres::Client;

/// Whose child a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// PostgreSQL itself.
    Postgres,
    /// Greenplum or Cloudberry: rows are spread over segments.
    Greenplum,
}

/// What the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whose child it is.
    pub family: Family,
    /// `server_version_num`, of the PostgreSQL underneath: 150004 for 15.4, 90426 for Greenplum 6, 80323 for 5.
    pub version: u32,
    /// `version()`, whole.
    pub text: String,
}

impl Facts {
    /// Asks a session.
    ///
    /// # Errors
    /// The library's own.
    pub(super) fn read(client: &mut Client) -> Result<Self, postgres::Error> {
        let row = client.query_one("SELECT version(), current_setting('server_version_num')", &[])?;
        let text: String = row.get(0);
        Ok(Self::of(text, row.get::<_, String>(1).parse().unwrap_or(0)))
    }

    /// What a server is that says this of itself.
    pub fn of(text: String, version: u32) -> Self {
        let segments = text.contains("Greenplum") || text.contains("Cloudberry");
        let family = if segments { Family::Greenplum } else { Family::Postgres };
        Self { family, version, text }
    }

    /// Are rows spread over segments, so that tables have a distribution key?
    pub fn distributes(&self) -> bool {
        self.family == Family::Greenplum
    }

    /// Can every segment hold all rows of a table? Greenplum 6 and later.
    pub fn replicates(&self) -> bool {
        self.distributes() && self.version >= 90_000
    }

    /// Does `gp_distribution_policy` have `policytype` and `distkey`? Greenplum 5 has `attrnums` alone.
    pub(super) fn has_policy_type(&self) -> bool {
        self.replicates()
    }

    /// Can columns be computed by the server?
    pub fn generates(&self) -> bool {
        self.version >= 120_000
    }

    /// Can columns be identities?
    pub(super) fn has_identities(&self) -> bool {
        self.version >= 100_000
    }

    /// Can an index carry columns along that are no part of its key?
    pub(super) fn indexes_carry(&self) -> bool {
        self.version >= 110_000
    }

    /// Can the wait for a lock be limited? Greenplum 6 is of PostgreSQL 9.4, but its segments' locks know no limit.
    pub(super) fn knows_lock_timeout(&self) -> bool {
        self.version >= if self.distributes() { 120_000 } else { 90_300 }
    }

    /// Does the server compile queries that look costly? For a handful of joins that takes longer than it saves.
    pub(super) fn compiles(&self) -> bool {
        self.version >= 110_000
    }

    /// Can VACUUM pass over a table that is locked, and leave its size alone? Greenplum's segments are no part of this.
    pub(super) fn vacuums_at_once(&self) -> bool {
        !self.distributes() && self.version >= 120_000
    }

    /// Are there collations per column?
    pub(super) fn has_collations(&self) -> bool {
        self.version >= 90_100
    }

    /// Can the right to TRUNCATE be granted?
    pub(super) fn grants_truncate(&self) -> bool {
        self.version >= 80_400
    }

    /// Does `unnest` take more than one array?
    pub(super) fn unnests_many(&self) -> bool {
        self.version >= 90_400
    }

    /// Does the planner know how large a temporary table is that was never analyzed? Greenplum's takes it for tiny.
    pub(super) fn sizes_unanalyzed(&self) -> bool {
        !self.distributes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_apart_by_what_the_server_says() {
        let six = Facts::of("PostgreSQL 9.4.26 (Greenplum Database 6.24.3 build dev)".into(), 90_426);
        assert!(six.distributes() && six.replicates() && six.unnests_many() && !six.generates());
        let five = Facts::of("PostgreSQL 8.3.23 (Greenplum Database 5.28.0)".into(), 80_323);
        assert!(five.distributes() && !five.replicates() && !five.unnests_many() && !five.has_collations());
        let cloudberry = Facts::of("PostgreSQL 14.4 (Cloudberry Database 1.5.0)".into(), 140_004);
        assert!(cloudberry.distributes() && cloudberry.generates());
        let postgres = Facts::of("PostgreSQL 15.4 (Debian)".into(), 150_004);
        assert!(!postgres.distributes() && !postgres.replicates() && postgres.generates());
    }
}
