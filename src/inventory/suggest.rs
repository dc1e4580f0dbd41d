//! "Did you mean": the nearest of the words that are known.

/// Keys that other tools use, and ours.
const SYNONYMS: [(&str, &str); 16] = [
    ("start", "from"),
    ("begin", "from"),
    ("since", "from"),
    ("end", "until"),
    ("to", "until"),
    ("tz", "timezone"),
    ("zone", "timezone"),
    ("db", "database"),
    ("dbname", "database"),
    ("filter", "where"),
    ("condition", "where"),
    ("dsn", "url"),
    ("uri", "url"),
    ("directory", "path"),
    ("keys", "match"),
    ("username", "user"),
];

/// The known word that was most likely meant.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == lower).map(|(_, ours)| *ours);
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .filter_map(|candidate| {
            let distance =
                if synonym == Some(candidate) { 0 } else { distance(&lower, &candidate.to_lowercase()) };
            (distance <= allowed).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What to try where a source is named that is not there.
pub(super) fn remedy_for_source(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("add it under `sources:`, or use one that is there: {}", known.join(", ")),
    }
}

/// Insertions, deletions, replacements and swaps of neighbours between two words. Words of more than 64
/// characters are far from everything.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(65).collect(), b.chars().take(65).collect());
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let known = ["source", "from", "until", "tables", "window", "loader", "url"];
        for (word, meant) in [
            ("sourec", Some("source")),
            ("From", Some("from")),
            ("untill", Some("until")),
            ("table", Some("tables")),
            ("start", Some("from")),
            ("uri", Some("url")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
    }

    #[test]
    fn distances_count_edits() {
        for (a, b, edits) in
            [("", "", 0), ("abc", "abc", 0), ("abc", "acb", 1), ("abc", "", 3), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }
}
