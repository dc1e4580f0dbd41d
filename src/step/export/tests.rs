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
    batch_with(units, says, files, &[])
}

/// And with these files for the parts of the first, which two segments write where there are any.
fn batch_with(
    units: usize,
    says: &str,
    files: &[(usize, &[u8])],
    parts: &[&[u8]],
) -> (Outcomes, Option<SourceError>) {
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
            file: file.into(),
            columns: ["id".into()].into(),
            condition: "".into(),
            slice_of: None,
            small: false,
            segments: (!parts.is_empty())
                .then(|| Arc::new(BySegments { primaries: 2, columns: segments::Columns::Like })),
        }
    };
    let orders: Vec<Order<'_>> = units.iter().enumerate().map(order).collect();
    let mount = Mount::open(&inventory.mount).unwrap();
    for (index, bytes) in files {
        let path = mount.path(&orders[*index].file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    for (no, bytes) in parts.iter().enumerate() {
        let path = mount.path(&crate::unit::part_path(&orders[0].file, no));
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
    let files = outcomes.iter().filter_map(|(_, outcome)| Some(outcome.as_ref().ok()?.files().count()));
    assert_eq!(lines, files.sum::<usize>(), "of the manifest");
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

/// What becomes of a unit that two segments write, whose script says this, with these files for its parts.
fn parts(says: &str, files: &[&[u8]]) -> (Outcomes, Option<SourceError>) {
    batch_with(1, says, &[], files)
}

#[test]
fn parts_count_only_where_each_segment_tells_of_one_and_it_is_what_it_told() {
    let file = |tail: u8| [&[0; 22][..], &[1, 2, 3, 4, 5, 6, 7, tail]].concat();
    let (first, second) = (file(8), file(9));
    let of = |segment: u8, tail: u8| format!("NONCE\tpart\t0\t{segment}\t30\t01020304050607{tail:02x}\n");
    let end = "NONCE\tok\t0\t5\t60\t0.1\tgzip\nNONCE\tend\t0\n";
    let says = |lines: &[String]| format!("{}{end}", lines.concat());
    let whole = says(&[of(1, 9), of(0, 8)]);
    let (mut outcomes, error) = parts(&whole, &[&first, &second]);
    assert!(error.is_none(), "{error:?}");
    let exported = outcomes.remove(0).1.unwrap();
    assert_eq!((exported.rows, exported.parts.len(), exported.trailer.bytes), (5, 2, 60));
    let named: Vec<_> = exported.files().map(|(file, _)| file.display().to_string()).collect();
    assert!(named[0].ends_with("^all^seg0.csv.gz") && named[1].ends_with("^all^seg1.csv.gz"), "{named:?}");
    for (lines, why) in [
        (vec![of(0, 8)], "1 parts were published"),
        (vec![], "0 parts"),
        (vec![of(0, 8), of(0, 8)], "2 parts"),
        (vec![of(0, 8), of(2, 9)], "2 parts"),
        (vec![of(0, 8), of(1, 9), of(2, 9)], "3 parts"),
        (vec![of(0, 8), of(1, 8)], "^seg1.csv.gz was changed"),
        (vec![of(0, 8), of(1, 9).replace("\t30\t", "\t31\t")], "^seg1.csv.gz is not the file"),
        (vec![of(0, 8), of(1, 9).replace("\t30\t", "\t19\t")], "2 parts were published, and not a whole one"),
    ] {
        let (outcomes, error) = parts(&says(&lines), &[&first, &second]);
        assert!(error.is_none(), "{error:?}");
        let failed = outcomes[0].1.as_ref().unwrap_err();
        assert!(failed.contains(why), "{lines:?}: {failed}");
    }
    let (outcomes, _) = parts(&whole, &[&first]);
    assert!(outcomes[0].1.as_ref().is_err_and(|error| error.contains("^seg1.csv.gz was published")));
    // Nobody asked for parts.
    let (_, error) = batch(&whole, &[(0, &first)]);
    let expected = ProtocolError::Unasked(0);
    assert!(matches!(&error, Some(SourceError::Protocol { error, .. }) if *error == expected), "{error:?}");
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
