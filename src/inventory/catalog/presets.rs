//! Ready-made mappings for the tables that gpferry replaces.
//!
//! All columns are asked for and few are read, so that a table that lacks one that is not read will do. The
//! misspelt `schema_nmae` is how those tables have it.

use super::{CatalogQuery, Field, Which};
use crate::inventory::reader::{At, Reader};
use crate::inventory::scalars::word;

/// One of them.
#[derive(Debug)]
pub(super) struct Preset {
    tables: Option<(&'static str, &'static [(Field, &'static str)])>,
    jobs: Option<(&'static str, &'static [(Field, &'static str)])>,
}

const TRANSFERTABLE: Preset = Preset {
    tables: Some((
        "SELECT * FROM eda.transfertable",
        &[
            (Field::Database, "db_name"),
            (Field::Schema, "schema_nmae"),
            (Field::Table, "table_name"),
            (Field::Mode, "opera_type"),
            (Field::Valid, "valid_flg"),
            (Field::Duration, "duration"),
            (Field::Group, "job_group"),
            (Field::Window, "condition_query_column"),
        ],
    )),
    jobs: Some((
        "SELECT * FROM eda.transferstatetable",
        &[
            (Field::Group, "job_group"),
            (Field::Start, "start_timestamp"),
            (Field::End, "end_timestamp"),
            (Field::Duration, "duration"),
            (Field::FinalEnd, "final_end_timestamp"),
        ],
    )),
};

const ETL_CONF_D: Preset = Preset {
    tables: None,
    jobs: Some((
        "SELECT * FROM etl_conf_d",
        &[
            (Field::Group, "JOB_NAME"),
            (Field::Start, "RUN_START_TIMESTAMP"),
            (Field::FinalEnd, "RUN_END_TIMESTAMP"),
            (Field::Valid, "VALID_FLG"),
        ],
    )),
};

/// The mapping that `like:` names.
pub(super) fn read(reader: &mut Reader, at: &At<'_>) -> Option<&'static Preset> {
    const KNOWN: [(&str, &Preset); 2] = [("transfertable", &TRANSFERTABLE), ("etl_conf_d", &ETL_CONF_D)];
    word(reader, at, &KNOWN)
}

impl Preset {
    pub(super) fn query(&self, which: Which) -> Option<CatalogQuery> {
        let (sql, columns) = match which {
            Which::Tables => self.tables?,
            Which::Jobs => self.jobs?,
        };
        let columns = columns.iter().map(|(field, column)| (*field, (*column).to_owned())).collect();
        Some(CatalogQuery { sql: sql.to_owned(), columns })
    }
}
