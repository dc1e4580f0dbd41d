//! Taking away what a COPY left that was refused late: its rows are dead, but each still has its entry in the key's
//! index, and the COPY that follows finds that entry, looks its row up and kills it, row by row. That costs more than
//! half of a COPY (PostgreSQL 15, a million rows); VACUUM takes all of them away for a tenth.

use super::{Session, TargetError};
use crate::names::TableName;
use crate::sql;

/// So few rows are not worth it.
const ROWS_WORTH_IT: u64 = 20_000;
/// Rows that were refused for each page of the table and its indexes, at least: VACUUM reads most pages, and where the
/// table is much larger than what was refused, that costs more than it brings.
const ROWS_PER_PAGE: u64 = 16;

impl Session {
    /// Takes the dead rows of a refused COPY away, where that is worth it and this user may: the table's owner, on
    /// PostgreSQL 12 and later, outside a transaction. Waits for nobody. Says whether it was tried.
    ///
    /// # Errors
    /// [`TargetError`]; whether the session is still of use, its next statement shows.
    pub fn take_dead_rows_away(&mut self, table: &TableName, refused: u64) -> Result<bool, TargetError> {
        if refused < ROWS_WORTH_IT || !self.facts.vacuums_at_once() {
            return Ok(false);
        }
        let doing = "take dead rows away";
        let pages = self.count(&pages_of_own(table), doing)?;
        if pages == 0 || pages.saturating_mul(ROWS_PER_PAGE) > refused {
            return Ok(false);
        }
        // To give empty pages at its end back would lock the table, and the next COPY takes them anyway.
        let vacuum = format!("VACUUM (SKIP_LOCKED, INDEX_CLEANUP, TRUNCATE false) {}", sql::table(table));
        self.run(&vacuum, doing)?;
        Ok(true)
    }
}

/// How many pages a table has with its indexes; 0 where it is not an ordinary table of this user.
fn pages_of_own(table: &TableName) -> String {
    format!(
        "SELECT CAST(COALESCE(sum(pg_total_relation_size(c.oid) / CAST(current_setting('block_size') AS bigint)), 0) \
         AS bigint) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = {} AND c.relname = {} AND c.relkind = 'r' AND pg_has_role(c.relowner, 'USAGE')",
        sql::literal(table.schema()),
        sql::literal(table.table())
    )
}
