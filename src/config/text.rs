//! Small text helpers that every layer shares: quoting for messages, switches, and the nearest known word.

use std::fmt::Write as _;

/// The longest part of a value that a message repeats, in characters.
const LONGEST: usize = 80;

/// A value as messages show it: in single quotes, control characters escaped, cut where it gets long.
pub fn quoted(value: &str) -> String {
    let mut out = String::from("'");
    for (count, c) in value.chars().enumerate() {
        if count == LONGEST {
            out.push('…');
            break;
        }
        if c.is_control() || is_format_control(c) {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.push('\'');
    out
}

/// Characters that are invisible or turn the direction of the text around them: they could make a message lie.
fn is_format_control(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The switches that Go's `strconv.ParseBool` knows, because scripts written for kumactl use them.
pub fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The further words that YAML 1.1 takes for a boolean; files may use them.
pub fn yaml_switch(text: &str) -> Option<bool> {
    switch(text).or(match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    })
}

/// The candidate that a misspelt word most likely meant, if one is close enough to be worth naming.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.chars().take(LONGEST).collect::<String>().to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count().min(word.len()) / 4)
        .map(|(_, candidate)| candidate)
}

/// Edits (one character added, dropped, changed, or two neighbours swapped) that lead from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.chars().collect::<Vec<_>>(), b.chars().collect::<Vec<_>>());
    let mut before = Vec::new();
    let mut last = (0..=b.len()).collect::<Vec<_>>();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (last[j - 1] + change).min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_at(&before, j - 2) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

fn before_at(row: &[usize], at: usize) -> usize {
    row.get(at).copied().unwrap_or(usize::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_shows_what_is_there_and_nothing_else() {
        assert_eq!(quoted("80"), "'80'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("a\u{1b}[31m\n"), "'a\\u{1b}[31m\\n'");
        assert_eq!(quoted("8\u{202e}0"), "'8\\u{202e}0'");
        assert_eq!(quoted(&"x".repeat(100)), format!("'{}…'", "x".repeat(80)));
    }

    #[test]
    fn switches_are_gos_and_files_know_yamls_too() {
        assert_eq!(switch("t"), Some(true));
        assert_eq!(switch("False"), Some(false));
        for word in ["", "yes", "on", "tRUE", "2", " true"] {
            assert_eq!(switch(word), None, "{word}");
        }
        assert_eq!(yaml_switch("on"), Some(true));
        assert_eq!(yaml_switch("No"), Some(false));
        assert_eq!(yaml_switch("maybe"), None);
    }

    #[test]
    fn the_nearest_word_is_named_only_when_it_is_near() {
        let words = ["redirect.inbound.port", "redirect.outbound.port", "verbose"];
        assert_eq!(nearest("redirect.inbound.prot", words), Some("redirect.inbound.port"));
        assert_eq!(nearest("Verbos", words), Some("verbose"));
        assert_eq!(nearest("zzz", words), None);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("port", "port"), 0);
        assert_eq!(distance("port", "prot"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("ca", "abc"), 3);
    }
}
