//! An inventory on its way: what the file says, before the catalogs that it names have been asked, and after.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::catalog::{Composed, Fetched, Finding, JobCatalog, Way, compose, write};
use super::fault::{Fault, InventoryError, Place};
use super::model::Inventory;
use super::reader::Reader;
use super::yaml::{self, Node, Value};
use super::{argv, load_keys, overlap, support, text, top};

/// A file that is good as far as it goes.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    root: Node,
    inventory: Inventory,
}

/// What [`Draft::import`] gives.
#[derive(Debug)]
pub struct Import {
    /// A whole inventory that needs the imported catalogs no more.
    pub yaml: String,
    /// What was odd in them, in the order of their rows.
    pub findings: Vec<Finding>,
}

impl Draft {
    /// Reads a file, and asks nobody.
    ///
    /// # Errors
    /// [`InventoryError`] with everything that is wrong; a file that cannot be read is a fault too.
    pub fn open(path: &Path) -> Result<Self, InventoryError> {
        // The text is gone before the tree is read: both are large where thousands of tables are named.
        let root = tree(&text(path)?, path)?;
        Self::of(root, path)
    }

    /// Reads a text; `path` is for messages only.
    ///
    /// # Errors
    /// [`InventoryError`] with everything that is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Self, InventoryError> {
        Self::of(tree(text, path)?, path)
    }

    fn of(root: Node, path: &Path) -> Result<Self, InventoryError> {
        let inventory = meant(Reader::new(&root), &root, path, Vec::new())?;
        Ok(Self { path: path.to_owned(), root, inventory })
    }

    /// What it says without its catalogs.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The same, by value.
    pub fn into_inventory(self) -> Inventory {
        self.inventory
    }

    /// The whole inventory, with what each of its catalogs gave, by name; and what was odd in them.
    ///
    /// # Errors
    /// [`InventoryError`] with everything that is wrong with their rows.
    pub fn complete(
        &self,
        fetched: &BTreeMap<String, Fetched>,
    ) -> Result<(Inventory, Vec<Finding>), InventoryError> {
        let composed = self.compose(self.root.clone(), fetched, Way::Strict);
        let reader = Reader::with(&composed.root, composed.origins);
        let inventory = meant(reader, &composed.root, &self.path, composed.faults)?;
        Ok((inventory, composed.findings))
    }

    /// An inventory with the jobs of these catalogs in it and those catalogs gone. Rows that are plainly wrong
    /// and can be left out are left out, and told.
    ///
    /// # Errors
    /// [`InventoryError`] with everything else that is wrong with their rows, or where nothing would be left.
    pub fn import(&self, fetched: &BTreeMap<String, Fetched>) -> Result<Import, InventoryError> {
        let root = without(&self.root, fetched);
        let composed = self.compose(root, fetched, Way::LeaveOut);
        let reader = Reader::with(&composed.root, composed.origins);
        meant(reader, &composed.root, &self.path, composed.faults)?;
        let names: Vec<&JobCatalog> = self.catalogs(fetched).map(|(catalog, _)| catalog).collect();
        let failed = |what: String| {
            let remedy = "report it: this is a bug of gpferry";
            InventoryError::new(&self.path, vec![Fault::new(Place::FILE, "", what, remedy)])
        };
        let yaml = write::document(&composed.root, &names, &composed.findings)
            .map_err(|error| failed(format!("the inventory cannot be written: {error}")))?;
        // What is handed over is what was checked.
        Self::parse(&yaml, &self.path)
            .map_err(|error| failed(format!("the inventory that was written cannot be read: {error}")))?;
        Ok(Import { yaml, findings: composed.findings })
    }

    fn compose(&self, root: Node, fetched: &BTreeMap<String, Fetched>, way: Way) -> Composed {
        let catalogs: Vec<_> = self.catalogs(fetched).collect();
        compose(root, &catalogs, way, &self.inventory.timezone)
    }

    fn catalogs<'a>(
        &'a self,
        fetched: &'a BTreeMap<String, Fetched>,
    ) -> impl Iterator<Item = (&'a JobCatalog, &'a Fetched)> {
        let catalogs = self.inventory.catalogs.iter();
        catalogs.filter_map(|catalog| Some((catalog, fetched.get(&catalog.name)?)))
    }
}

fn tree(text: &str, path: &Path) -> Result<Node, InventoryError> {
    yaml::read(text).map_err(|fault| InventoryError::new(path, vec![*fault]))
}

/// The meaning of a tree, or everything that is wrong with it.
fn meant(
    mut reader: Reader<'_>,
    root: &Node,
    path: &Path,
    faults: Vec<Fault>,
) -> Result<Inventory, InventoryError> {
    faults.into_iter().for_each(|fault| reader.add(fault));
    let meant = top::read(&mut reader, root, path);
    if let Some((inventory, written)) = &meant {
        overlap::check(&mut reader, inventory, written);
        argv::check(&mut reader, inventory, written);
        load_keys::check(&mut reader, inventory, written);
        support::check(&mut reader, inventory);
    }
    match (meant, reader.into_faults()) {
        (Some((inventory, _)), faults) if faults.is_empty() => Ok(inventory),
        (_, faults) => Err(InventoryError::new(path, faults)),
    }
}

/// A document without these catalogs.
fn without(root: &Node, names: &BTreeMap<String, Fetched>) -> Node {
    let mut root = root.clone();
    let Value::Map(entries) = &mut root.value else { return root };
    for (key, node) in entries.iter_mut() {
        if let (Value::Map(catalogs), "catalog") = (&mut node.value, &*key.text) {
            catalogs.retain(|(key, _)| !names.contains_key(&*key.text));
        }
    }
    entries.retain(|(key, node)| {
        &*key.text != "catalog" || !matches!(&node.value, Value::Map(left) if left.is_empty())
    });
    root
}
