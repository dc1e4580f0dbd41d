//! The tree of nodes: what each value is, where it stands, and what is refused.

use super::super::yaml::{MAX_BYTES, Node, Value, read};
use super::*;

fn value_of(text: &str) -> Value {
    match read(&format!("k: {text}")).unwrap().value {
        Value::Map(mut entries) => entries.remove(0).1.value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn plain_values_follow_yaml_1_2() {
    for text in ["4h", "no", "N", "off", "2021-08-10 00:00:00", "2021-08-10", "00:00-04:00", "12:30", "1_000"]
    {
        assert_eq!(value_of(text), Value::Text(text.into()));
    }
    for text in ["4", "-1", "0.5", "1e3", "0x1F", "0o17", ".inf", "1.10", "007"] {
        assert_eq!(value_of(text), Value::Number(text.into()));
    }
    assert_eq!(value_of("\"4\""), Value::Text("4".into()));
    assert_eq!(value_of("!!str 4"), Value::Text("4".into()));
    assert_eq!(value_of("~"), Value::Null);
    assert_eq!(value_of("True"), Value::Bool(true));
}

#[test]
fn every_key_and_value_knows_its_place() {
    let root = read("\u{feff}a: 1\r\nb:\r\n  c: [x,\r\n    y]\r\n  d:\r\n").unwrap();
    let Value::Map(entries) = root.value else { panic!() };
    assert_eq!(entries[1].0.at, Place { line: 2, column: 1 });
    let Value::Map(inner) = &entries[1].1.value else { panic!() };
    let Value::List(items) = &inner[0].1.value else { panic!() };
    assert_eq!(items[1].at, Place { line: 4, column: 5 });
    assert_eq!(inner[1].1, Node { at: Place { line: 5, column: 3 }, value: Value::Null });
}

#[test]
fn equal_keys_are_all_kept() {
    let Value::Map(entries) = read("a: 1\na: 2\n\"a\": 3\n").unwrap().value else { panic!() };
    assert_eq!(entries.iter().filter(|(key, _)| &*key.text == "a").count(), 3);
}

#[test]
fn aliases_give_the_value_at_their_own_place() {
    let Value::Map(entries) = read("a: &x { b: 1 }\nc: *x\n").unwrap().value else { panic!() };
    assert_eq!(entries[1].1.at, Place { line: 2, column: 4 });
    assert!(matches!(&entries[1].1.value, Value::Map(inner) if &*inner[0].0.text == "b"));
}

#[test]
fn bombs_and_towers_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let below = format!("*a{}, ", n - 1).repeat(10);
        bomb.push_str(&format!("a{n}: &a{n} [{below}]\n"));
    }
    assert!(read(&bomb).unwrap_err().what.contains("multiply"));
    for tower in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000)] {
        assert!(read(&tower).is_err());
    }
    assert!(read("a: &a [*a]").unwrap_err().what.contains("inside of what it names"));
    assert!(read(&"#".repeat(MAX_BYTES + 1)).unwrap_err().what.contains("too long"));
}

#[test]
fn what_is_no_yaml_shows_the_line_and_a_caret() {
    let fault = read("mount:\n  path: /mnt\n subdir: x\n").unwrap_err();
    assert_eq!(fault.place.line, 3);
    assert!(fault.snippet.as_ref().unwrap().contains("3 |  subdir: x\n"), "{fault:?}");
    for text in ["", "# nothing\n", "a: 1\n---\nb: 2\n", "a: !vault x", "[a]: b", "? {a: b}\n: c", "a: *b"] {
        assert!(read(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_line_that_may_hold_a_password_is_not_shown() {
    for text in ["password: hunter2: x\n", "target: { pwd: 'hunter2\n", "x: p://u:hunter2@h: [\n"] {
        let fault = read(text).unwrap_err();
        assert!(!format!("{fault:?}").contains("hunter2"), "{fault:?}");
    }
}
