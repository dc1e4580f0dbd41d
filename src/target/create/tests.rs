use super::*;

const GREENPLUM_5: (u32, bool) = (80_323, true);
const GREENPLUM_6: (u32, bool) = (90_426, true);
const GREENPLUM_7: (u32, bool) = (120_012, true);
const POSTGRES: (u32, bool) = (150_004, false);

fn site((version, greenplum): (u32, bool)) -> Site {
    Site {
        facts: Facts::of(if greenplum { "Greenplum".into() } else { String::new() }, version),
        database: "d".into(),
        user: "loader".into(),
        schemas: HashSet::from(["s".to_owned()]),
        collations: if version >= 90_100 {
            HashSet::from([("pg_catalog".to_owned(), "C".to_owned())])
        } else {
            HashSet::new()
        },
        generates: version >= 120_000,
    }
}

fn column(name: &str, type_name: &str) -> DefinedColumn {
    DefinedColumn { name: name.into(), type_name: type_name.into(), ..DefinedColumn::default() }
}

fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Two columns `a` and `b`, and this key.
fn table(key: &[&str], distribution: Distribution) -> Definition {
    Definition {
        columns: vec![
            DefinedColumn { not_null: true, ..column("a", "integer") },
            DefinedColumn { not_null: true, ..column("b", "text") },
        ],
        primary_key: columns(key),
        distribution,
        ..Definition::default()
    }
}

fn made(from: &Definition, target: (u32, bool)) -> Ddl {
    ddl(&TableName::new("s", "t").unwrap(), from, &site(target)).unwrap()
}

#[test]
fn each_family_gets_what_it_can_do() {
    let from = Definition {
        columns: vec![
            DefinedColumn { not_null: true, ..column("Id", "bigint") },
            DefinedColumn {
                collation: Some(("pg_catalog".into(), "C".into())),
                ..column("code \"x\"", "character varying(8)")
            },
            column("price", "numeric(10,2)[]"),
            DefinedColumn { generated: Some("(\"Id\" * 2)".into()), ..column("twice", "bigint") },
        ],
        primary_key: columns(&["code \"x\"", "Id"]),
        distribution: Distribution::By(columns(&["Id"])),
        partitioned_by: Some("RANGE (at)".into()),
        ..Definition::default()
    };
    let shown = |target| {
        let ddl = made(&from, target);
        [vec![ddl.table], ddl.key.into_iter().collect(), ddl.notes].concat().join("\n")
    };
    insta::assert_snapshot!(shown(POSTGRES), @r#"
    CREATE TABLE "s"."t" ("Id" bigint NOT NULL, "code ""x""" character varying(8) COLLATE "pg_catalog"."C", "price" numeric(10,2)[], "twice" bigint GENERATED ALWAYS AS (("Id" * 2)) STORED)
    ALTER TABLE "s"."t" ADD PRIMARY KEY ("code ""x""", "Id")
    the source partitions it by RANGE (at); created without partitions
    "#);
    insta::assert_snapshot!(shown(GREENPLUM_5), @r#"
    CREATE TABLE "s"."t" ("Id" bigint NOT NULL, "code ""x""" character varying(8), "price" numeric(10,2)[], "twice" bigint) DISTRIBUTED BY ("Id")
    ALTER TABLE "s"."t" ADD PRIMARY KEY ("code ""x""", "Id")
    the source partitions it by RANGE (at); created without partitions
    column "code "x"" has collation pg_catalog.C in the source, which the target does not know; created with the target's own
    column "twice" is computed in the source, which cannot be done alike in the target; created as an ordinary column, whose values come from the source
    "#);
    let six = shown(GREENPLUM_6);
    assert!(six.contains(r#"COLLATE "pg_catalog"."C""#) && !six.contains("GENERATED"), "{six}");
    let seven = shown(GREENPLUM_7);
    assert!(seven.contains(r#"STORED) DISTRIBUTED BY ("Id")"#), "{seven}");
}

#[test]
fn rows_are_spread_as_in_the_source_or_by_the_key_or_at_random() {
    let by = |names: &[&str]| Distribution::By(columns(names));
    let some = |text: &str| Some(text.to_owned());
    for (key, distribution, target, clause, note) in [
        (&["a"][..], Distribution::None, POSTGRES, "", None),
        (&[], by(&["a"]), POSTGRES, "", None),
        (&["b", "a"], by(&["a"]), GREENPLUM_6, r#" DISTRIBUTED BY ("a")"#, None),
        (&[], by(&["b", "a"]), GREENPLUM_5, r#" DISTRIBUTED BY ("b", "a")"#, None),
        (&["b", "a"], Distribution::None, GREENPLUM_7, r#" DISTRIBUTED BY ("b", "a")"#, None),
        (&["b"], by(&["a"]), GREENPLUM_6, r#" DISTRIBUTED BY ("b")"#, some("not within its primary key")),
        (&[], Distribution::None, GREENPLUM_6, " DISTRIBUTED RANDOMLY", some("neither")),
        (&[], Distribution::Randomly, GREENPLUM_6, " DISTRIBUTED RANDOMLY", None),
        (&["a"], Distribution::Replicated, GREENPLUM_6, " DISTRIBUTED REPLICATED", None),
        (&["a"], Distribution::Replicated, GREENPLUM_5, r#" DISTRIBUTED BY ("a")"#, some("replicates")),
        (&[], Distribution::Replicated, GREENPLUM_5, " DISTRIBUTED RANDOMLY", some("replicates")),
    ] {
        let ddl = made(&table(key, distribution.clone()), target);
        let what = format!("{key:?} {distribution:?} {target:?}: {ddl:?}");
        assert!(ddl.table.ends_with(&format!("\"b\" text NOT NULL){clause}")), "{what}");
        assert_eq!(ddl.key.is_some(), !key.is_empty(), "{what}");
        match note {
            Some(note) => assert!(ddl.notes.iter().any(|one| one.contains(&note)), "{what}"),
            None => assert!(ddl.notes.is_empty(), "{what}"),
        }
    }
}

#[test]
fn what_is_no_plain_table_is_said() {
    let notes = |from: Definition| made(&from, POSTGRES).notes.join("; ");
    assert!(notes(Definition { kind: Kind::View, ..table(&[], Distribution::None) }).contains("view"));
    let inherited = Definition { inherited: true, ..table(&["a"], Distribution::None) };
    assert_eq!(made(&inherited, POSTGRES).key, None);
    assert!(notes(inherited).contains("inherit"));
    let mut view = table(&[], Distribution::None);
    view.columns = vec![column("x", "unknown")];
    assert_eq!(made(&view, POSTGRES).table, r#"CREATE TABLE "s"."t" ("x" text)"#);
}

#[test]
fn nothing_that_a_source_says_leads_out_of_the_statement() {
    let mut bad = table(&[], Distribution::None);
    bad.columns[0].type_name = "int); DROP TABLE x; --".into();
    let error = ddl(&TableName::new("s", "t").unwrap(), &bad, &site(POSTGRES)).unwrap_err();
    assert_eq!(error.column, "a");
    let mut bad = table(&[], Distribution::None);
    bad.columns[0].generated = Some("1) STORED); DROP TABLE x; --".into());
    let ddl = made(&bad, POSTGRES);
    assert!(!ddl.table.contains("DROP") && !ddl.notes.is_empty(), "{ddl:?}");
}

#[test]
fn remedies_are_commands_for_whoever_may_give_them() {
    let refused = |sqlstate: &str| TargetError::Refused {
        doing: String::new(),
        sqlstate: sqlstate.into(),
        message: String::new(),
        constraint: None,
        line: None,
    };
    let tried =
        |schema: &str| remedy(&refused("42501"), &TableName::new(schema, "t").unwrap(), &site(POSTGRES));
    assert!(tried("s").contains(r#"`GRANT USAGE, CREATE ON SCHEMA "s" TO "loader"`"#));
    assert!(tried("New").contains(r#"`CREATE SCHEMA "New" AUTHORIZATION "loader"`"#));
    assert!(tried("New").contains(r#"`GRANT CREATE ON DATABASE "d" TO "loader"`"#));
}
