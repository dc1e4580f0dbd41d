use super::*;
use jiff::civil::date;
use proptest::prelude::*;
use std::path::Path;

fn name(schema: &str, table: &str) -> TableName {
    TableName::new(schema, table).unwrap()
}

fn hours(hours: i8, micros: i32) -> Extent {
    let day = date(2021, 8, 10);
    Extent::Times(Window::new(day.at(0, 0, 0, 0), day.at(hours, 0, 0, micros * 1000)).unwrap())
}

#[test]
fn an_id_reads_as_the_design_says() {
    assert_eq!(
        unit_id(&series_of("qmsprd", &name("sor", "wpp_f"), None), &hours(4, 500_000), None),
        "qmsprd^sor^wpp_f^20210810000000^20210810040000500000"
    );
    let odd = series_of("a b\"c", &name("S", "x^y"), None);
    assert_eq!(unit_id(&odd, &Extent::Whole, None), "a%20b%22c^S^x%5Ey^all");
}

#[test]
fn an_id_gives_back_what_it_was_made_of() {
    let ids = Extent::Ids(Interval::new(-5, 20_210_810_000_000).unwrap());
    let again = Extent::Repeated(date(2021, 8, 10).at(1, 2, 3, 456_000));
    let slice = |start, end| Extent::Slice(Interval::new(start, end).unwrap());
    let slices = [slice(i64::MIN, -7), slice(-7, 7), slice(7, i64::MAX)];
    let others = [hours(4, 0), hours(4, 500_000), ids, Extent::Whole, again, Extent::Nulls];
    for extent in others.into_iter().chain(slices) {
        for variant in [None, Some("v1")] {
            for tag in [None, Some("c1")] {
                let series = series_of("x", &name("a^b", "t"), variant);
                let read = read_id(&unit_id(&series, &extent, tag)).unwrap();
                assert_eq!((read.series, read.extent), (series, extent));
                assert_eq!(read.tag.as_deref(), tag);
            }
        }
    }
    for no_id in ["", "a^b^c", "a^b^c^d", "a^b^c^20210810000000", "a^b^c^i1^20210810000000", "a^b^c^i2^i1"] {
        assert_eq!(read_id(no_id), None, "{no_id}");
    }
}

#[test]
fn a_part_is_told_from_every_id_and_leads_back_to_its_unit() {
    let slice = Extent::Slice(Interval::new(-7, 7).unwrap());
    for table in ["t", "seg0", "x^seg1"] {
        for extent in [hours(4, 0), Extent::Whole, Extent::Nulls, slice] {
            for (variant, tag) in [(None, None), (Some("v12345678"), None), (Some("v1"), Some("c1"))] {
                let id = unit_id(&series_of("d", &name("a", table), variant), &extent, tag);
                let file = PathBuf::from(format!("s/202108/10/t/{id}.csv.gz"));
                let of = |path: &Path| id_of_file(path.file_name()?.to_str()?).map(str::to_owned);
                for path in [file.clone(), part_path(&file, 0), part_path(&file, 117), parts_path(&file)] {
                    assert_eq!(of(&path).as_deref(), Some(&*id));
                    assert_eq!(whole_path(&path), file);
                }
                assert_eq!(read_id(&format!("{id}^seg0")), None, "taken for a unit of its own");
            }
        }
    }
    assert_eq!(part_path(Path::new("x/d^a^t^all.csv.gz"), 3), Path::new("x/d^a^t^all^seg3.csv.gz"));
    for other in [".d^a^t^all.csv.gz.r.1.part", "notes.csv.gz", "d^a^t^all.csv", ".d^a^t^all^seg0.csv.gz"] {
        assert_eq!(id_of_file(other), None, "{other}");
    }
}

#[test]
fn no_name_leads_out_of_its_directory() {
    for (text, encoded) in
        [("..", "%2E."), (".", "%2E"), ("../../x", "%2E.%2F..%2Fx"), ("-rf", "-rf"), ("$(x)", "%24%28x%29")]
    {
        assert_eq!(encode(text), encoded);
    }
}

#[test]
fn long_names_still_fit_a_file_name_and_stay_apart() {
    let long = "表".repeat(21);
    let one = series_of(&long, &name(&long, &format!("{long}a")), Some("v1234567"));
    let two = series_of(&long, &name(&long, &format!("{long}b")), Some("v1234567"));
    assert!(one.len() <= LONGEST_SERIES, "{one} has {} bytes", one.len());
    assert_ne!(one, two);
}

proptest! {
    #[test]
    fn different_tables_have_different_ids(a in "[a^%.~ 表]{1,30}", b in "[a^%.~ 表]{1,30}", c in "[a^%.~ 表]{1,30}", d in "[a^%.~ 表]{1,30}") {
        let same = (&a, &b) == (&c, &d);
        prop_assert_eq!(series_of("x", &name(&a, &b), None) == series_of("x", &name(&c, &d), None), same);
    }
}
