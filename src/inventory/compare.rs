//! `compare:` of a table.

use super::load_keys::columns;
use super::model::CompareRule;
use super::reader::{At, Reader};
use super::scalars::{any_text, text};
use crate::sql::Condition;

const KEYS: &[&str] = &["group", "key", "except", "where"];
const EXAMPLE: &str = "compare: { group: ope_id }";

/// All keys of `compare`.
pub(super) fn read(reader: &mut Reader, at: &At<'_>) -> CompareRule {
    let Some(fields) = reader.fields(at, KEYS, EXAMPLE) else { return CompareRule::default() };
    CompareRule {
        group: fields.get("group").and_then(|at| text(reader, &at, EXAMPLE).map(str::to_owned)),
        key: fields.get("key").map(|at| columns(reader, &at, "key: [glass_id, ope_id]")).unwrap_or_default(),
        except: fields
            .get("except")
            .map(|at| columns(reader, &at, "except: [loaded_at]"))
            .unwrap_or_default(),
        filter: fields.get("where").and_then(|at| {
            let written = any_text(reader, &at, "where: \"site = 'fab1'\"")?;
            Condition::parse(written)
                .map_err(|error| {
                    let remedy =
                        "one condition over the columns of the target, as in where: \"site = 'fab1'\"";
                    reader.fault(&at, error.to_string(), remedy);
                })
                .ok()
        }),
    }
}
