//! Scripts that claim what is not so: nothing that the runner has not seen itself counts as exported.

use std::fs;
use std::path::Path;

use jiff::civil::date;

use super::*;
use crate::inventory;
use crate::plan::{Catalog, Facts, Selection, plan};
use crate::remote::scripted::Scripted;

/// Units by their place, and what became of them.
type Outcomes = Vec<(usize, Result<Exported, String>)>;

/// What became of two units, and of their batch, whose script greets and then says this.
fn batch(says: &str, files: &[(usize, &[u8])]) -> (Outcomes, Option<SourceError>) {
    batch_of(2, says, files)
}

/// The same for so many units.
fn batch_of(units: usize, says: &str, files: &[(usize, &[u8])]) -> (Outcomes, Option<SourceError>) {
    let tables: Vec<String> = (0..units).map(|n| format!("{{ table: a.t{n}, window: none }}")).collect();
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "version: 1\nmount: {{ path: {} }}\ntarget: {{ url: \"postgresql://u@h/d\" }}\n\
         sources: {{ s: {{ host: h, engine: postgres, database: db }} }}\n\
         jobs: {{ j: {{ source: s, tables: [ {} ] }} }}\n",
        directory.path().display(),
        tables.join(", ")
    );
    let inventory = inventory::parse(&text, Path::new("i.yml")).unwrap();
    let now = "2022-01-01T00:00:00Z".parse().unwrap();
    let units = plan(&inventory, &Selection::default(), &Catalog::new(), &Facts::default(), now).units;
    let order = |(index, unit)| {
        let file = crate::unit::Unit::relative_path(unit, date(2022, 1, 1));
        Order {
            index,
            unit,
            file,
            columns: ["id".into()].into(),
            condition: "".into(),
            slice_of: None,
            small: false,
        }
    };
    let orders: Vec<Order<'_>> = units.iter().enumerate().map(order).collect();
    let mount = Mount::open(&inventory.mount).unwrap();
    for (index, bytes) in files {
        let path = mount.path(&orders[*index].file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let script = Script::greenplum();
    let manifest = Mutex::new(mount.manifest("r").unwrap());
    let stop = Stop::default();
    let ground = Ground {
        source: &inventory.sources[0],
        script: &script,
        mount: &mount,
        manifest: &manifest,
        run: "r",
        zone: &inventory.timezone,
        stop: &stop,
    };
    let mut remote = Scripted { says: vec![format!("NONCE\thello\t1\tx\n{says}").into_bytes()] };
    let mut outcomes = Vec::new();
    let ended = export(ground, Line::New(&mut remote), 1, &orders, None, |index, outcome| {
        outcomes.push((
            index,
            match outcome {
                Outcome::Exported { exported, .. } => Ok(Arc::unwrap_or_clone(exported)),
                Outcome::Failed(failure) => Err(failure.error),
            },
        ));
    });
    let lines = fs::read_to_string(mount.path(Path::new("manifest/r.jsonl"))).unwrap().lines().count();
    assert_eq!(lines, outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).count(), "of the manifest");
    (outcomes, ended.err())
}

#[test]
fn a_file_that_is_not_there_is_not_exported() {
    let says = "NONCE\tok\t0\t5\t30\t0.1\tgzip\nNONCE\tok\t1\t5\t30\t0.1\tgzip\nNONCE\tend\t0\n";
    let (outcomes, error) = batch(says, &[(1, &[0; 30])]);
    assert!(error.is_none(), "{error:?}");
    let of = |unit: usize| &outcomes.iter().find(|(index, _)| *index == unit).unwrap().1;
    assert!(of(0).as_ref().is_err_and(|error| error.contains("is not there for the runner")), "{:?}", of(0));
    assert_eq!(of(1).as_ref().unwrap().rows, 5);
}

#[test]
fn a_file_of_another_size_than_claimed_is_not_exported() {
    let says =
        "NONCE\tok\t0\t5\t31\t0.1\tgzip\nNONCE\tok\t1\t5\t18446744073709551615\t0.1\tgzip\nNONCE\tend\t0\n";
    let (outcomes, error) = batch(says, &[(0, &[0; 30]), (1, &[0; 30])]);
    assert!(error.is_none(), "{error:?}");
    for (_, outcome) in outcomes {
        assert!(
            outcome.as_ref().is_err_and(|error| error.contains("is not the file that was published")),
            "{outcome:?}"
        );
    }
}

#[test]
fn an_end_that_comes_too_early_names_what_is_missing() {
    let (outcomes, error) = batch("NONCE\tok\t0\t5\t30\t0.1\tgzip\nNONCE\tend\t0\n", &[(0, &[0; 30])]);
    assert_eq!(outcomes.len(), 1);
    let expected = ProtocolError::EndedEarly(1);
    assert!(matches!(&error, Some(SourceError::Protocol { error, .. }) if *error == expected), "{error:?}");
}

#[test]
fn a_batch_is_asked_for_in_pieces_and_its_end_names_those_that_were_not_asked_for() {
    let (outcomes, error) = batch_of(AHEAD + 3, "NONCE\tend\t0\n", &[]);
    assert!(outcomes.is_empty());
    let expected = ProtocolError::EndedEarly(AHEAD + 3);
    assert!(matches!(&error, Some(SourceError::Protocol { error, .. }) if *error == expected), "{error:?}");
}

#[test]
fn rows_in_an_export_are_refused() {
    let (_, error) = batch("NONCE\trow\t0\tx\nNONCE\tend\t0\n", &[]);
    let expected = ProtocolError::Unasked(0);
    assert!(matches!(&error, Some(SourceError::Protocol { error, .. }) if *error == expected), "{error:?}");
}
