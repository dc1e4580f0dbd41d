use super::*;
use crate::inventory::OnPkViolation;
use crate::source::definition::Distribution;
use crate::sql::Condition;
use crate::target::{Clash, Kind, Unique};

fn column(name: &str, type_name: &str, base_type: &str, not_null: bool) -> ShapeColumn {
    ShapeColumn {
        name: name.into(),
        type_name: type_name.into(),
        base_type: base_type.into(),
        not_null,
        generated: false,
        numbered: false,
    }
}

fn shape(distribution: Distribution) -> Shape {
    Shape {
        columns: vec![
            column("Glass Id", "integer", "integer", true),
            column("ope", "character varying(9)", "character varying", false),
            column("select", "json", "json", false),
            column("at", "timestamp(3) without time zone", "timestamp without time zone", false),
        ],
        uniques: vec![Unique {
            name: "t_pkey".into(),
            primary: true,
            columns: vec!["Glass Id".into()],
            nulls_alike: false,
        }],
        distribution,
        lockable: true,
    }
}

fn servers() -> Vec<(&'static str, Facts, Distribution)> {
    let by = || Distribution::By(vec!["Glass Id".into()]);
    vec![
        ("Greenplum 5", Facts::of("Greenplum".into(), 80_323), by()),
        ("Greenplum 6", Facts::of("Greenplum".into(), 90_426), by()),
        (
            "Greenplum 6, by another column",
            Facts::of("Greenplum".into(), 90_426),
            Distribution::By(vec!["at".into()]),
        ),
        ("Greenplum 6, at random", Facts::of("Greenplum".into(), 90_426), Distribution::Randomly),
        ("Greenplum 7", Facts::of("Greenplum".into(), 120_012), Distribution::Replicated),
        ("Cloudberry", Facts::of("Cloudberry".into(), 140_004), by()),
        ("PostgreSQL", Facts::of("PostgreSQL".into(), 150_004), Distribution::None),
    ]
}

/// Everything that is sent for one file, in its order.
fn all(facts: &Facts, shape: &Shape, rule: &LoadRule) -> Vec<String> {
    let table = TableName::new("eda", "wpp\"f").unwrap();
    let mut file: Vec<String> = shape.columns.iter().map(|column| column.name.clone()).collect();
    file.push("extra".into());
    let way = Way::new(facts, &table, shape, rule, &file).unwrap();
    let mut sent: Vec<String> = way.lock().into_iter().collect();
    if rule.mode == LoadMode::Replace {
        let within = ["\"at\" >= x".to_owned(), "\"at\" < y".to_owned()];
        sent.extend([way.clear(&within), way.count_within(&within), way.clear(&[])]);
    }
    sent.extend(way.make_stage());
    sent.extend(way.fill_stage());
    sent.extend(way.size_stage());
    if matches!(rule.mode, LoadMode::Update | LoadMode::Merge) {
        sent.push(way.count_duplicates());
        if let Duplicates::LastBy(by) = &rule.duplicates {
            sent.push(way.pick_last(by));
            sent.extend(way.count_latest(by));
            sent.extend(way.keep_picked());
        }
        sent.push(way.count_matched());
        sent.extend(way.update());
        sent.push(way.insert_rest());
        return sent;
    }
    for unique in &shape.uniques {
        let clash = Clash::new(&way, unique).unwrap();
        sent.extend(clash.find());
        sent.extend([
            clash.count(Kind::Different),
            clash.count_at("\"at\" = x"),
            clash.write_out(Kind::Twice),
        ]);
        sent.extend([clash.first(Kind::Identical, 3)]);
        sent.extend(clash.leave_out());
    }
    sent.push(way.insert_all());
    sent
}

fn rules() -> Vec<(&'static str, LoadRule)> {
    let condition = |text| Condition::parse(text).unwrap();
    let merge = LoadRule { mode: LoadMode::Merge, ..LoadRule::default() };
    vec![
        ("insert, sorted", LoadRule { on_pk_violation: OnPkViolation::Quarantine, ..LoadRule::default() }),
        (
            "insert, mapped",
            LoadRule { mapping: vec![("ope".into(), condition("extra || 'x'"))], ..LoadRule::default() },
        ),
        ("replace", LoadRule { mode: LoadMode::Replace, truncate: true, ..LoadRule::default() }),
        (
            "update",
            LoadRule { mode: LoadMode::Update, update_columns: vec!["ope".into()], ..LoadRule::default() },
        ),
        (
            "merge",
            LoadRule {
                match_columns: vec!["Glass Id".into(), "ope".into()],
                update_condition: Some(condition("from_table.at > into_table.at")),
                duplicates: Duplicates::LastBy("at".into()),
                ..merge
            },
        ),
    ]
}

#[test]
fn the_sql_of_every_server() {
    let mut shown = String::new();
    for (server, facts, distribution) in servers() {
        let shape = shape(distribution);
        for (rule, written) in rules() {
            shown
                .push_str(&format!("-- {server}: {rule}\n{}\n\n", all(&facts, &shape, &written).join(";\n")));
        }
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn nothing_is_newer_than_the_server() {
    /// What came when. Source: the release notes of PostgreSQL.
    const SINCE: &[(u32, &[&str])] = &[
        (
            80_400,
            &[
                "with ",
                "over (",
                "recursive",
                "array_agg",
                "unnest",
                "window ",
                "restart identity",
                "limit all",
            ],
        ),
        (90_000, &["do $$", "string_agg", "exclude using"]),
        (90_100, &["if not exists", "unlogged", "collate", "instead of", "foreign table"]),
        (90_300, &["lateral", "materialized", "format("]),
        (90_400, &["filter (", "within group", "with ordinality", "with no data", "concurrently"]),
        (90_500, &["on conflict", "grouping sets", "skip locked", "row level", "if exists"]),
        (100_000, &["identity", "partition of", "nulls not distinct"]),
        (150_000, &["merge into", "merge "]),
    ];
    for (server, facts, distribution) in servers() {
        let shape = shape(distribution);
        for (name, rule) in rules() {
            for sql in all(&facts, &shape, &rule) {
                let lower = sql.to_lowercase();
                for (since, words) in SINCE.iter().filter(|(since, _)| *since > facts.version) {
                    let newer = words.iter().find(|word| lower.contains(**word));
                    assert_eq!(newer, None, "{server}, {name}: newer than {since}: {sql}");
                }
            }
        }
    }
}

#[test]
fn no_table_is_spread_at_random_by_accident() {
    for (server, facts, distribution) in servers() {
        let shape = shape(distribution.clone());
        for (name, rule) in rules() {
            for sql in all(&facts, &shape, &rule).iter().filter(|sql| sql.contains("CREATE TEMP TABLE")) {
                assert!(sql.contains("ON COMMIT DROP"), "{sql}");
                assert_eq!(sql.contains("DISTRIBUTED BY"), facts.distributes(), "{server}, {name}: {sql}");
            }
        }
    }
}

#[test]
fn a_changed_distribution_key_moves_rows_by_delete_and_insert() {
    let facts = Facts::of("Greenplum".into(), 90_426);
    let shape = shape(Distribution::By(vec!["at".into()]));
    let rule = LoadRule { mode: LoadMode::Merge, ..LoadRule::default() };
    let sent = all(&facts, &shape, &rule).join(";\n");
    assert!(sent.contains("DELETE FROM \"eda\".\"wpp\"\"f\" AS into_table USING"), "{sent}");
    assert!(!sent.contains("UPDATE "), "{sent}");
    let keeps_key = LoadRule { update_columns: vec!["ope".into()], ..rule };
    assert!(all(&facts, &shape, &keeps_key).join(";\n").contains("UPDATE \"eda\""));
}

#[test]
fn what_cannot_be_done_is_named() {
    let facts = Facts::of("PostgreSQL".into(), 150_004);
    let table = TableName::new("a", "t").unwrap();
    let file: Vec<String> = ["Glass Id", "ope", "select", "at"].map(String::from).into();
    let plain = shape(Distribution::None);
    let way = |shape: &Shape, rule: &LoadRule, file: &[String]| {
        Way::new(&facts, &table, shape, rule, file).map(drop)
    };
    let merge = LoadRule { mode: LoadMode::Merge, ..LoadRule::default() };
    let keyless = Shape { uniques: Vec::new(), ..plain.clone() };
    assert_eq!(way(&keyless, &merge, &file), Err(ModeError::NoKey { mode: "merge", table: "a.t".into() }));
    let matches = |name: &str| LoadRule { match_columns: vec![name.into()], ..merge.clone() };
    let error = way(&plain, &matches("glass id"), &file).unwrap_err();
    assert!(error.to_string().contains("`match` names the column \"glass id\""), "{error}");
    assert_eq!(way(&keyless, &matches("ope"), &file), Ok(()));
    let both = LoadRule { update_columns: vec!["ope".into()], ..matches("ope") };
    assert_eq!(way(&plain, &both, &file), Err(ModeError::KeyUpdated("ope".into())));
    let unfilled = way(&plain, &LoadRule::default(), &file[..3]).unwrap_err();
    assert!(unfilled.to_string().contains("nothing fills the column \"at\""), "{unfilled}");
    assert_eq!(way(&Shape::default(), &merge, &file), Err(ModeError::NotThere("a.t".into())));
}
