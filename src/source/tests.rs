//! Scripts that are broken, or mean harm: each is a typed error, and none costs more than a little memory.

use std::time::Duration;

use super::protocol::ProtocolError;
use super::{Conversation, Reply, Request, Script, SourceError};
use crate::remote::scripted::Scripted;

/// Asks for the export of number 0 of a script that greets and then says this, piece by piece.
fn asked(says: Vec<Vec<u8>>) -> (Vec<Reply>, Option<SourceError>) {
    let greeting = b"NONCE\thello\t1\tx\n".to_vec();
    let mut remote = Scripted { says: [vec![greeting], says].concat() };
    let script = Script::greenplum();
    let mut talk =
        Conversation::start(&mut remote, &script, "export", "a test", Duration::from_secs(60)).unwrap();
    talk.ask(&Request::Export { no: 0, path: "/m/x".into(), compressor: "auto", sql: "SELECT 1".into() });
    let mut replies = Vec::new();
    loop {
        match talk.next(Duration::from_millis(1)) {
            Ok(Some(Reply::End { code })) => {
                replies.push(Reply::End { code });
                return (replies, None);
            }
            Ok(Some(reply)) => replies.push(reply),
            Ok(None) => {}
            Err(error) => return (replies, Some(error)),
        }
    }
}

#[track_caller]
fn broke(says: Vec<Vec<u8>>, expected: &ProtocolError) {
    match asked(says).1 {
        Some(SourceError::Protocol { error, .. }) => assert_eq!(error, *expected),
        other => panic!("{other:?} instead of {expected:?}"),
    }
}

fn text(text: &str) -> Vec<Vec<u8>> {
    vec![text.as_bytes().to_vec()]
}

#[test]
fn output_without_end_is_given_up() {
    let line = b"yes yes yes yes yes yes yes yes yes yes yes yes yes yes yes yes\n".repeat(1024);
    broke(vec![line; 300], &ProtocolError::Flood);
    let row = [b"NONCE\trow\t0\t".to_vec(), vec![b'x'; 3 << 20], b"\n".to_vec()].concat();
    broke(vec![row; 100], &ProtocolError::TooManyRows);
}

#[test]
fn a_line_without_an_end_is_given_up() {
    broke(vec![vec![b'x'; 1 << 16]; 100], &ProtocolError::EndlessLine);
    broke(vec![[b"NONCE\tok\t".to_vec(), vec![b'1'; 5 << 20]].concat()], &ProtocolError::EndlessLine);
}

#[test]
fn binary_noise_is_no_reply_and_no_end() {
    let noise: Vec<u8> = (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let (replies, error) = asked(vec![noise]);
    assert!(replies.is_empty(), "{replies:?}");
    assert!(matches!(error, Some(SourceError::Command(_))), "{error:?}");
}

#[test]
fn replies_that_nobody_asked_for_are_given_up() {
    broke(text("NONCE\tok\t7\t1\t1\t0.1\tgzip\n"), &ProtocolError::Unasked(7));
    broke(text("NONCE\terror\t7\t1\t-\tno\n"), &ProtocolError::Unasked(7));
    broke(text("NONCE\trow\t7\tx\n"), &ProtocolError::Unasked(7));
    broke(text("NONCE\tok\t0\t1\t1\t0.1\tgzip\nNONCE\tok\t0\t1\t1\t0.1\tgzip\n"), &ProtocolError::Unasked(0));
    broke(text("NONCE\tok\t0\t1\t1\t0.1\tgzip\nNONCE\terror\t0\t1\t-\tno\n"), &ProtocolError::Unasked(0));
}

#[test]
fn what_cannot_be_read_is_given_up_and_shown_in_part() {
    for body in
        ["ok\t0\t-1\t1\t0.1", "ok\t0\t99999999999999999999\t1\t0.1", "ok\t0\t1\t1\tinf", "end\tx", "what"]
    {
        let error = asked(text(&format!("NONCE\t{body}\n"))).1;
        let unreadable = matches!(
            &error,
            Some(SourceError::Protocol { error: ProtocolError::Unreadable(shown), .. }) if shown == body
        );
        assert!(unreadable, "{body}: {error:?}");
    }
}

#[test]
fn a_script_that_closes_without_an_end_is_a_lost_one_whatever_its_status() {
    let (replies, error) = asked(text("NONCE\tok\t0\t1\t1\t0.1\tgzip\n"));
    assert_eq!(replies.len(), 1);
    assert!(matches!(error, Some(SourceError::Command(_))), "{error:?}");
    // An `end` that is not ours is none.
    assert!(matches!(asked(text("end\t0\nsomebody\tend\t0\n")).1, Some(SourceError::Command(_))));
}

#[test]
fn a_message_that_has_no_end_is_cut() {
    let (replies, _) =
        asked(text(&format!("NONCE\terror\t0\t1\t-\t{}\nNONCE\tend\t0\n", "é".repeat(1 << 20))));
    let Reply::Error { message, .. } = &replies[0] else { panic!("{replies:?}") };
    assert_eq!(message.chars().count(), 4000);
}
