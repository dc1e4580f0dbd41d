//! What the tests of the ways into a Greenplum share.

use std::fs;

use crate::greenplum;
use crate::support::Case;

/// A table of 1,000 awkward rows in the source, which a Greenplum is to get by this loader, unless another is forced.
/// `text` is the name of its column of texts, quoted where it has to be.
pub(crate) fn awkward(name: &str, loader: &str, text: &str) -> Case {
    let mut case = Case::new(name);
    case.both(&format!("CREATE TABLE t (id int PRIMARY KEY, {text} text, n numeric(8,2), at timestamptz)"));
    case.source
        .batch_execute(
            "INSERT INTO t SELECT i, CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE E'line \\n, \"\\\\' || i END, \
             i / 7.0, timestamptz '2021-08-10' + i * interval '1 minute' FROM generate_series(1, 1000) i",
        )
        .unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    if greenplum::forced_loader().is_none() {
        case.load_by(loader);
    }
    case
}

/// Flips a bit in the middle of the only file of a case that was exported; its name.
pub(crate) fn damage(case: &Case) -> String {
    let path = case.only_file();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// External tables of gpferry in the target.
pub(crate) const EXTERNAL: &str =
    "SELECT count(*) FROM pg_class WHERE relname LIKE 'gpferry%' AND relstorage = 'x'";
