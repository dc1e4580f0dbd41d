//! What the target's server is and can do: read once per session, and the one place where its version is looked at.

use postgres::{Client, Row};

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
    /// Its segments, where it has some and says so.
    pub cluster: Option<Cluster>,
}

/// The segments behind a coordinator, and what the session's user may have them do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Primaries: so many read and write at once.
    pub segments: usize,
    /// The hosts that they run on, in order of their names.
    pub hosts: Vec<String>,
    /// Does the session plan with ORCA?
    pub optimizer: bool,
    /// May the user do everything? Commands on segments are for nobody else.
    pub superuser: bool,
    /// May the user make tables that gpfdist serves (`CREATEEXTTABLE`)?
    pub reads_gpfdist: bool,
}

impl Cluster {
    /// Asks a session; `None` where it may not see its own cluster.
    fn read(client: &mut Client) -> Result<Option<Self>, postgres::Error> {
        const HOSTS: &str = "SELECT CAST(hostname AS text), count(*) FROM gp_segment_configuration \
             WHERE role = 'p' AND content >= 0 GROUP BY hostname ORDER BY hostname";
        const RIGHTS: &str = "SELECT rolsuper, rolcreaterextgpfd, current_setting('optimizer') = 'on' FROM pg_roles \
             WHERE rolname = current_user";
        let (hosts, rights) = match (client.query(HOSTS, &[]), client.query_opt(RIGHTS, &[])) {
            (Ok(hosts), Ok(Some(rights))) => (hosts, rights),
            (Err(error), _) | (_, Err(error)) if error.as_db_error().is_none() => return Err(error),
            (Ok(_) | Err(_), Ok(_) | Err(_)) => return Ok(None),
        };
        let count = |host: &Row| usize::try_from(host.get::<_, i64>(1)).unwrap_or(0);
        Ok(Some(Self {
            segments: hosts.iter().map(count).sum(),
            hosts: hosts.iter().map(|host| host.get(0)).collect(),
            optimizer: rights.get(2),
            superuser: rights.get(0),
            reads_gpfdist: rights.get::<_, bool>(0) || rights.get::<_, bool>(1),
        }))
    }
}

impl Facts {
    /// Asks a session.
    ///
    /// # Errors
    /// The library's own.
    pub(super) fn read(client: &mut Client) -> Result<Self, postgres::Error> {
        let row = client.query_one("SELECT version(), current_setting('server_version_num')", &[])?;
        let text: String = row.get(0);
        let facts = Self::of(text, row.get::<_, String>(1).parse().unwrap_or(0));
        let cluster = if facts.distributes() { Cluster::read(client)? } else { None };
        Ok(Self { cluster, ..facts })
    }

    /// What a server is that says this of itself; of its segments it says nothing.
    pub fn of(text: String, version: u32) -> Self {
        let segments = text.contains("Greenplum") || text.contains("Cloudberry");
        let family = if segments { Family::Greenplum } else { Family::Postgres };
        Self { family, version, text, cluster: None }
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

    /// Does COPY count rows that a trigger kept out of the table as copied? Greenplum counts what it sent to its segments.
    pub(super) fn copies_uncounted(&self) -> bool {
        self.distributes()
    }

    /// Can a unique constraint take NULLs for equal?
    pub(super) fn equates_nulls(&self) -> bool {
        self.version >= 150_000
    }

    /// Can LOCK TABLE lock a view?
    pub(super) fn locks_views(&self) -> bool {
        self.version >= 110_000
    }

    /// Does it check constraints at the end of a transaction? Greenplum has them for no table that has segments.
    pub(super) fn defers_constraints(&self) -> bool {
        !self.distributes()
    }

    /// Can the wait for a lock be limited? Greenplum 6 is of PostgreSQL 9.4, but its segments' locks know no limit.
    pub(super) fn knows_lock_timeout(&self) -> bool {
        self.version >= if self.distributes() { 120_000 } else { 90_300 }
    }

    /// The most that `extra_float_digits` takes: with it the text of a number is that number again.
    pub(super) fn most_float_digits(&self) -> u8 {
        if self.version >= 90_000 { 3 } else { 2 }
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
