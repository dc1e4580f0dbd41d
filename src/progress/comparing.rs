//! How far a comparison is: a line for all of it, and one for each table in work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::draw::{BAR, NAMED, TABLES, clock, cut};
use super::{Drawing, Screen};
use crate::engine::compare::{Seen, Watch};

/// Follows a comparison.
#[derive(Debug)]
pub struct Comparing {
    /// Where its workers say what they are at.
    pub watch: Arc<Watch>,
    drawing: Option<Drawing>,
}

impl Comparing {
    /// Follows a comparison of these tables.
    pub fn new(screen: &Screen, tables: Vec<String>, silent: bool) -> Self {
        let watch = Arc::new(Watch::default());
        let drawing = (!silent && !tables.is_empty()).then(|| {
            let watch = Arc::clone(&watch);
            Drawing::new(screen, move |size, _| {
                let (seen, now) = (watch.seen(), Instant::now());
                size.map_or_else(|| vec![line(&seen, &tables)], |size| lines(&seen, &tables, size, now))
            })
        });
        Self { watch, drawing }
    }

    /// Takes the lines away.
    pub fn finish(self) {
        if let Some(drawing) = self.drawing {
            drawing.finish();
        }
    }
}

fn counts(seen: &Seen, tables: &[String]) -> String {
    let mut text = format!("{}/{} tables", seen.done, tables.len());
    for (number, word) in [(seen.differ, "differ"), (seen.unread, "not compared")] {
        if number > 0 {
            text.push_str(&format!(", {number} {word}"));
        }
    }
    text
}

/// For a log.
fn line(seen: &Seen, tables: &[String]) -> String {
    let mut text = format!("compared {}", counts(seen, tables));
    let work = seen.in_work.iter().filter_map(|(table, doing)| Some((tables.get(*table)?, doing)));
    let mut named: Vec<String> =
        work.take(NAMED).map(|(name, doing)| format!("{name} ({})", doing.what)).collect();
    if seen.in_work.len() > NAMED {
        named.push(format!("{} more", seen.in_work.len() - NAMED));
    }
    if !named.is_empty() {
        text.push_str(&format!("; in work: {}", named.join(", ")));
    }
    text
}

/// For a terminal of so many columns and rows.
fn lines(seen: &Seen, tables: &[String], (columns, rows): (usize, usize), now: Instant) -> Vec<String> {
    let width = columns.saturating_sub(1);
    let full = (seen.done * BAR).checked_div(tables.len()).unwrap_or(BAR).min(BAR);
    let bar = format!("[{}{}]", "#".repeat(full), ".".repeat(BAR - full));
    let mut lines = vec![cut(&format!("compare {bar}  {}", counts(seen, tables)), width)];
    let most = TABLES.min(rows.saturating_sub(4));
    for (table, doing) in seen.in_work.iter().take(most) {
        let name = tables.get(*table).map_or("", String::as_str);
        let took = clock(now.saturating_duration_since(doing.began).max(Duration::from_secs(1)));
        lines.push(cut(&format!("  {name}  {}, question {}  {took}", doing.what, doing.questions), width));
    }
    if seen.in_work.len() > most && most > 0 {
        lines.push(cut(&format!("  and {} more tables in work", seen.in_work.len() - most), width));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::compare::Doing;

    #[test]
    fn a_comparison_says_what_it_is_at() {
        let tables: Vec<String> = (0..30).map(|n| format!("a.t{n}")).collect();
        let now = Instant::now();
        let doing = Doing { what: "digest rows".into(), questions: 2, began: now };
        let in_work = (4..16).map(|table| (table, doing.clone())).collect();
        let seen = Seen { done: 10, differ: 1, unread: 0, in_work };
        assert_eq!(
            line(&seen, &tables),
            "compared 10/30 tables, 1 differ; in work: a.t4 (digest rows), a.t5 (digest rows), a.t6 (digest rows), 9 more"
        );
        let drawn = lines(&seen, &tables, (80, 24), now);
        assert_eq!(drawn[0], "compare [########................]  10/30 tables, 1 differ");
        assert_eq!(drawn[1], "  a.t4  digest rows, question 2  1s");
        assert_eq!((drawn.len(), drawn[11].as_str()), (12, "  and 2 more tables in work"));
        assert!(lines(&seen, &tables, (20, 5), now).iter().all(|line| line.chars().count() < 20));
    }
}
