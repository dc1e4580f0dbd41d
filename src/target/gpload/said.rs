//! What gpload says, told without values; and why rows are missing.

use super::Freight;
use crate::source::SourceError;
use crate::sql;
use crate::target::error::place_in_file;
use crate::target::gpfdist::{advice, is_too_long};
use crate::target::program::ProgramError;

/// What gpload said at its end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// Its exit code.
    pub(super) code: String,
    /// Its lines with errors and warnings.
    pub(super) words: Vec<String>,
}

impl Said {
    pub(super) fn read(&mut self, row: &str) {
        match row.split_once('\t') {
            Some(("exit", code)) => code.clone_into(&mut self.code),
            Some(("said", words)) => match (words.strip_prefix("CONTEXT:"), self.words.last_mut()) {
                (Some(context), Some(last)) => {
                    last.extend(place_in_file(context).map(|place| format!(" at {place}")));
                }
                (Some(_), None) => {}
                (None, _) => self.words.push(cleaned(words)),
            },
            _ => {}
        }
    }
}

/// A line of gpload without its time and the values that the server quotes.
fn cleaned(line: &str) -> String {
    let text =
        line.rsplit_once("|ERROR|").or_else(|| line.rsplit_once("|WARN|")).map_or(line, |(_, text)| text);
    let text = text.strip_prefix("ERROR:").unwrap_or(text).trim();
    let text = text.split(" encountered while running").next().unwrap_or(text);
    let text = text.find("  (seg").map_or(text, |at| &text[..at]);
    sql::without_values(text)
}

/// Why not all rows are there.
pub(super) fn short(said: &Result<Said, SourceError>, rows: u64, freight: Freight<'_>) -> ProgramError {
    let error = match said {
        Err(error @ SourceError::GivenUp { code: 124, .. }) => ProgramError {
            what: error.to_string(),
            remedy: "raise `load.timeout` for this table, or make its windows shorter".into(),
            can_retry: false,
            misfit: false,
        },
        Err(error) => ProgramError::of(error),
        Ok(said) => {
            let words: Vec<String> = said.words.iter().map(|word| named(word, freight.columns)).collect();
            let words = words.join("; ");
            let misfit = is_misfit(&words);
            let remedy = match (misfit, advice(&words)) {
                (true, _) => {
                    "a value does not fit its column: compare the column's type on both sides".to_owned()
                }
                (false, Some(advice)) => advice.replace("target.gpfdist", "target.gpload"),
                (false, None) => "run gpload by hand on its host; it logs to ~/gpAdminLogs there".to_owned(),
            };
            let too_long = is_too_long(&words);
            let told = if words.is_empty() { "it gave no reason".to_owned() } else { words };
            let what = format!("gpload ended with exit code {}: {told}", said.code);
            ProgramError { what, remedy, can_retry: !misfit && !too_long, misfit }
        }
    };
    ProgramError {
        what: format!("{} ({rows} of {} rows came in; none of them is taken)", error.what, freight.rows),
        ..error
    }
}

/// The file's column in the place of that of gpload's table.
fn named(word: &str, columns: &[String]) -> String {
    let of =
        |(head, no): (&'_ str, &'_ str)| Some((head.to_owned(), columns.get(no.parse::<usize>().ok()?)?));
    match word.rsplit_once(", column c").and_then(of) {
        Some((head, column)) => format!("{head}, column {column}"),
        None => word.to_owned(),
    }
}

/// Words of the server for rows that do not fit, which gpload gives without their SQLSTATE.
fn is_misfit(words: &str) -> bool {
    const WORDS: [&str; 9] = [
        "invalid input syntax",
        "invalid byte sequence",
        "missing data for column",
        "extra data after last expected column",
        "value too long for type",
        "out of range",
        "numeric field overflow",
        "violates check constraint",
        "unterminated CSV quoted field",
    ];
    WORDS.iter().any(|one| words.contains(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_gpload_is_told_without_the_values_in_it() {
        let line = "2026-11-21 20:51:18|ERROR|ERROR:  invalid input syntax for integer: \"secret\"  (seg0 slice1 127.0.0.1:16433 pid=31218)";
        assert_eq!(cleaned(line), "invalid input syntax for integer: \"…\"");
        let line = "2026-11-21|WARN|2 bad rows";
        assert_eq!(cleaned(line), "2 bad rows");
    }

    #[test]
    fn the_place_of_a_row_is_told_and_its_text_is_not() {
        let mut said = Said::default();
        said.read("exit\t2");
        said.read(
            "said\t2026-11-21|ERROR|ERROR:  missing data for column \"b\"  (seg0 slice1 1.1.1.1:1 pid=3)",
        );
        said.read("said\tCONTEXT:  External table ext_gpload_a, line 7 of gpfdist://h:1//m/f.gz: \"secret\"");
        assert_eq!((said.code.as_str(), said.words.len()), ("2", 1));
        assert_eq!(said.words[0], "missing data for column \"…\" at line 7");
    }

    #[test]
    fn rows_that_are_missing_have_a_reason_whatever_the_exit_code_says() {
        let said = |code: &str, words: &[&str]| {
            Ok(Said { code: code.into(), words: words.iter().map(|word| (*word).to_owned()).collect() })
        };
        let (files, columns) = (Vec::new(), ["a b".to_owned()]);
        let freight =
            Freight { files: &files, columns: &columns, rows: 100, timeout: std::time::Duration::ZERO };
        let dropped = short(&said("2", &[]), 98, freight);
        assert!(dropped.to_string().contains("exit code 2: it gave no reason (98 of 100 rows"), "{dropped}");
        assert!(dropped.can_retry() && !dropped.is_misfit());
        let misfit =
            short(&said("2", &["invalid input syntax for integer: \"…\" at line 2, column c0"]), 0, freight);
        assert!(misfit.to_string().contains("at line 2, column a b (0 of"), "{misfit}");
        assert!(misfit.is_misfit() && !misfit.can_retry());
        let long =
            short(&said("2", &["gpfdist error - line too long in file /x near (4 bytes)"]), 0, freight);
        assert!(!long.can_retry() && long.remedy().contains("target.gpload.max_line"), "{}", long.remedy());
    }
}
