//! What a run holds for each table and unit: a field more is megabytes where there are thousands.

use std::mem::size_of;

use super::book::Fate;
use super::{Event, Shipment};
use crate::inventory::TableEntry;
use crate::mount::Exported;
use crate::step::export::Order;
use crate::unit::{Rows, Unit};

#[test]
fn what_there_are_thousands_of_is_small() {
    let sizes: [(&str, usize, usize); 8] = [
        ("an entry of the inventory", size_of::<TableEntry>(), 296),
        ("a unit of the plan", size_of::<Unit>(), 144),
        ("what units of a table share", size_of::<Rows>(), 104),
        ("an order", size_of::<Order<'_>>(), 96),
        ("a published file", size_of::<Exported>(), 96),
        ("a file on its way to a loader", size_of::<Shipment>(), 32),
        ("what became of a unit", size_of::<Fate>(), 128),
        ("an event", size_of::<Event>(), 184),
    ];
    let large: Vec<_> = sizes.iter().filter(|(_, bytes, most)| bytes > most).collect();
    assert!(
        large.is_empty(),
        "box what is rare, share what is equal, or say here why it has to be more: {large:?}"
    );
}
