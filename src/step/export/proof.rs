//! The proof that a unit was exported: its files, seen from here as the script told of them, and their manifest lines.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;

use super::{BySegments, Ground, Order, Outcome};
use crate::gzip::Trailer;
use crate::mount::{Columns, Exported, MountError};
use crate::step::{Stage, UnitFailure};
use crate::unit;

/// What the script said of a published file.
pub(super) struct Published {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) took: Duration,
    pub(super) compressor: String,
    pub(super) began: Timestamp,
    /// By segment, where segments wrote it.
    pub(super) parts: Vec<(u32, Trailer)>,
}

pub(super) fn outcome(seen: Result<Exported, MountError>, took: Duration) -> Outcome {
    match seen {
        Ok(exported) => Outcome::Exported { exported: Arc::new(exported), took },
        Err(error) => Outcome::Failed(UnitFailure::of_mount(Stage::Export, &error)),
    }
}

/// Sees the file from here, and writes the manifest line.
pub(super) fn prove(
    ground: Ground<'_>,
    order: &Order<'_>,
    published: &Published,
    until: Instant,
) -> Result<Exported, MountError> {
    let parts = match &order.segments {
        Some(by) => seen_parts(ground, order, by, published, until)?,
        None => Box::default(),
    };
    let trailer = if parts.is_empty() {
        ground.mount.open_published(&order.file, published.bytes, until, ground.stop)?.1
    } else {
        Trailer::of_parts(&parts)
    };
    let exported = Exported {
        file: order.file.clone(),
        rows: published.rows,
        trailer,
        columns: Columns::clone(&order.columns),
        left_out: order.unit.rows.left_out(),
        parts,
    };
    let written = Written {
        compressor: &published.compressor,
        settings: "DateStyle=ISO,YMD TimeZone=UTC IntervalStyle=postgres extra_float_digits=3 bytea_output=hex \
                   client_encoding=UTF8",
        script: ground.script.digest(),
        began: published.began,
        took: published.took,
    };
    record(ground, order, &exported, &written)?;
    Ok(exported)
}

/// Sees each part from here: one of every segment, and each as its segment sees it.
fn seen_parts(
    ground: Ground<'_>,
    order: &Order<'_>,
    by: &BySegments,
    published: &Published,
    until: Instant,
) -> Result<Box<[Trailer]>, MountError> {
    let mut parts = published.parts.clone();
    parts.sort_unstable_by_key(|(segment, _)| *segment);
    let one_of_each = parts.iter().map(|(segment, _)| *segment).eq(0..by.primaries);
    let path = || ground.mount.path(&unit::parts_path(&order.file));
    if !one_of_each || !parts.iter().all(|(_, trailer)| trailer.is_whole()) {
        return Err(MountError::Parts { path: path(), found: parts.len(), wanted: by.primaries });
    }
    for (segment, trailer) in &parts {
        let file = unit::part_path(&order.file, *segment as usize);
        let (_, seen) = ground.mount.open_published(&file, trailer.bytes, until, ground.stop)?;
        if seen != *trailer {
            return Err(MountError::Changed { path: ground.mount.path(&file) });
        }
    }
    Ok(parts.into_iter().map(|(_, trailer)| trailer).collect())
}

/// How a file came to be, for its manifest line.
pub(in crate::step) struct Written<'a> {
    pub(in crate::step) compressor: &'a str,
    pub(in crate::step) settings: &'a str,
    pub(in crate::step) script: &'a str,
    pub(in crate::step) began: Timestamp,
    pub(in crate::step) took: Duration,
}

/// Writes the manifest line of each of a unit's files.
pub(in crate::step) fn record(
    ground: Ground<'_>,
    order: &Order<'_>,
    exported: &Exported,
    written: &Written<'_>,
) -> Result<(), MountError> {
    let parts = exported.parts.len();
    let lines: Vec<_> = exported
        .files()
        .enumerate()
        .map(|(no, (file, trailer))| {
            let mut line = json!({
                "version": 1,
                "source": order.unit.key.source,
                "unit": order.unit.key.id,
                "job": order.unit.job,
                "file": file,
                "columns": order.columns,
                "rows": exported.rows,
                "bytes": trailer.bytes,
                "crc32": format!("{:08x}", trailer.crc32),
                "data_bytes_mod_4gib": trailer.isize,
                "compressor": written.compressor,
                "settings": written.settings,
                "script": written.script,
                "began": written.began.to_string(),
                "ended": Timestamp::now().to_string(),
                "seconds": (written.took.as_secs_f64() * 100.0).round() / 100.0,
            });
            if parts > 0 {
                // Nobody counted the rows of one part.
                line["rows"] = serde_json::Value::Null;
                line["part"] = json!({ "no": no, "of": parts, "rows_of_all": exported.rows });
            }
            line
        })
        .collect();
    let mut manifest = ground.manifest.lock().unwrap_or_else(PoisonError::into_inner);
    lines.iter().try_for_each(|line| manifest.append(line))
}
