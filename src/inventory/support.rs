//! What an inventory may say and this version does not do yet.
//!
//! A key that is read and then ignored would be a lie, so each is refused by name. A version that learns one
//! deletes its lines here, and nothing else.

use super::fault::Fault;
use super::model::{Engine, Inventory};
use super::reader::Reader;

const NOT_YET: &str = "is not supported by this version yet";

/// Puts down a fault for each, once where it is written, however many tables it reaches.
pub(super) fn check(reader: &mut Reader, inventory: &Inventory) {
    let mut found = Vec::new();
    sources(inventory, &mut found);
    let mut reported = std::collections::BTreeSet::new();
    for unsupported in found {
        let path = unsupported.path(reader);
        if reported.insert(path.clone()) {
            let what = format!("{} {NOT_YET}", unsupported.what);
            reader.add(Fault::new(reader.place(&path), path, what, unsupported.remedy));
        }
    }
}

fn sources(inventory: &Inventory, found: &mut Vec<Unsupported>) {
    for source in &inventory.sources {
        let path = super::reader::join("sources", &source.name);
        match source.engine {
            Engine::Greenplum | Engine::Postgres => {}
            Engine::Mysql | Engine::Tdengine => found.push(Unsupported::at(
                &[&path],
                "engine",
                "this engine",
                "engines of this version: greenplum, postgres; leave this source and its jobs out",
            )),
        }
    }
}

/// Something that is not done yet.
struct Unsupported {
    /// Where it may be written: the first of these that is.
    paths: Vec<String>,
    what: &'static str,
    remedy: &'static str,
}

impl Unsupported {
    fn at(layers: &[&str], key: &str, what: &'static str, remedy: &'static str) -> Self {
        Self { paths: layers.iter().map(|layer| format!("{layer}.{key}")).collect(), what, remedy }
    }

    fn path(&self, reader: &Reader) -> String {
        let written = self.paths.iter().find(|path| reader.is_written(path));
        written.or(self.paths.first()).cloned().unwrap_or_default()
    }
}
