//! Primary keys that tables of a target are still to get, as the target last said: so that `status` and a run that has
//! nothing else to do know of them without asking.

use rusqlite::params;

use super::{Ledger, LedgerError};
use crate::names::TableName;
use crate::owed::OwedKey;

impl Ledger {
    /// The keys that are owed in this target, by name.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn owed_keys(&self, target_url: &str) -> Result<Vec<OwedKey>, LedgerError> {
        let read = || -> rusqlite::Result<Vec<OwedKey>> {
            let mut statement = self.connection.prepare(
                "SELECT schema_name, table_name, columns, oid FROM owed_key WHERE target_url = ?
                 ORDER BY schema_name, table_name",
            )?;
            let mut rows = statement.query([target_url])?;
            let mut owed = Vec::new();
            while let Some(row) = rows.next()? {
                let table = TableName::new(row.get::<_, String>(0)?, row.get::<_, String>(1)?);
                let columns = serde_json::from_str(&row.get::<_, String>(2)?);
                let (Ok(table), Ok(columns)) = (table, columns) else { continue };
                owed.push(OwedKey { table, columns, oid: row.get(3)? });
            }
            Ok(owed)
        };
        read().map_err(|error| self.error(error))
    }

    /// Takes down what is owed in this target now, instead of what was.
    ///
    /// # Errors
    /// [`LedgerError::Sqlite`].
    pub fn owe(&mut self, target_url: &str, owed: &[OwedKey]) -> Result<(), LedgerError> {
        let mut known = self.owed_keys(target_url)?;
        let mut now = owed.to_vec();
        known.sort();
        now.sort();
        if known == now {
            return Ok(());
        }
        let mut write = || {
            let transaction = self.connection.transaction()?;
            transaction.execute("DELETE FROM owed_key WHERE target_url = ?", [target_url])?;
            for one in owed {
                transaction.execute(
                    "INSERT OR REPLACE INTO owed_key (target_url, schema_name, table_name, columns, oid)
                     VALUES (?, ?, ?, ?, ?)",
                    params![
                        target_url,
                        one.table.schema(),
                        one.table.table(),
                        serde_json::to_string(&one.columns).unwrap_or_default(),
                        one.oid
                    ],
                )?;
            }
            transaction.commit()
        };
        write().map_err(|error| self.error(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_is_kept_per_target_and_replaced_as_a_whole() {
        let mut ledger = Ledger::scratch().unwrap();
        let key = |table: &str, oid| OwedKey {
            table: TableName::new("s", table).unwrap(),
            columns: vec!["b".into(), "a".into()],
            oid,
        };
        ledger.owe("one", &[key("t", 1), key("a", 2)]).unwrap();
        ledger.owe("two", &[key("t", 3)]).unwrap();
        assert_eq!(ledger.owed_keys("one").unwrap(), [key("a", 2), key("t", 1)]);
        ledger.owe("one", &[key("t", 1)]).unwrap();
        assert_eq!(ledger.owed_keys("one").unwrap(), [key("t", 1)]);
        ledger.owe("one", &[]).unwrap();
        assert!(ledger.owed_keys("one").unwrap().is_empty());
        assert_eq!(ledger.facts("two").unwrap().owed, [key("t", 3)]);
    }
}
