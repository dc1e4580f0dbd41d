use super::*;

fn dialect(version: u32) -> Dialect {
    Dialect { family: Family::Postgres, version, encoding: "UTF8".into(), segments: false }
}

fn sides() -> Sides {
    Sides { source: dialect(80_323), target: dialect(150_004) }
}

#[test]
fn what_has_no_common_text_is_not_comparable_and_says_why() {
    for (source, target, why) in [
        ("json", "jsonb", "jsonb writes the text anew"),
        ("text", "bytea", "text in the source and bytea in the target have no common text"),
        ("timestamp without time zone", "integer", "have no common text"),
        ("double precision[]", "double precision[]", "before and after PostgreSQL 12"),
        ("point", "point", "before and after PostgreSQL 12"),
        ("integer[]", "bigint[]", "have no common text"),
        ("public.mood", "public.humour", "have no common text"),
        ("double precision", "text", "have no common text"),
    ] {
        let refused = column("c", source, target, &sides()).unwrap_err();
        assert!(refused.contains(why), "{source}, {target}: {refused}");
    }
}

#[test]
fn a_stated_precision_is_stated() {
    for (source, target, note) in [
        ("real", "double precision", "6 significant digits"),
        ("numeric(12,4)", "double precision", "15 significant digits"),
        ("character(5)", "text", "without the blanks"),
        ("json", "json", "by its text"),
        ("public.mood", "public.mood", "public.mood by its text"),
        ("mood", "public.mood", "mood by its text"),
        ("mood[]", "public.mood[]", "mood[] by its text"),
        ("integer", "text", "text on one side"),
    ] {
        let column = column("c", source, target, &sides()).unwrap();
        assert!(
            column.note.as_deref().is_some_and(|said| said.contains(note)),
            "{source}: {:?}",
            column.note
        );
    }
    for (source, target) in
        [("integer", "bigint"), ("numeric(5,2)", "numeric"), ("real", "real"), ("date", "date")]
    {
        assert_eq!(column("c", source, target, &sides()).unwrap().note, None, "{source}");
    }
}

#[test]
fn names_are_quoted_and_old_servers_are_asked_only_what_they_know() {
    let columns = ["text", "double precision", "numeric", "timestamp with time zone", "bytea", "boolean"]
        .map(|name| column("a\"b", name, name, &sides()).unwrap());
    let row = Row::new(columns.to_vec(), &sides());
    for side in [Digest::Source, Digest::Target] {
        let sql = row.digest(side);
        assert!(sql.contains("\"a\"\"b\"") && !sql.contains("concat(") && !sql.contains('\n'), "{sql}");
    }
}

#[test]
fn texts_of_another_encoding_are_digested_in_one() {
    let mut sides = sides();
    sides.source.encoding = "GB18030".into();
    let row = Row::new(vec![column("c", "text", "text", &sides).unwrap()], &sides);
    assert!(
        row.digest(Digest::Source).contains("convert_to(")
            && row.digest(Digest::Target).contains("convert_to(")
    );
}

#[test]
fn only_a_server_that_reckons_side_by_side_has_a_fence() {
    assert_eq!((dialect(90_624).fence(), Dialect { segments: true, ..dialect(120_012) }.fence()), ("", ""));
    // A number as it is: one that is made by a cast of another would keep the question in one process.
    assert_eq!(dialect(110_000).fence(), " OFFSET CAST('0' AS bigint)");
}
