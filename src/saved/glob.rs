//! Paths with `*`, `?` and `[…]` in them, as glob(3) of the C library reads them without flags.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// The files that a pattern names, in order, so many at most.
pub fn expand(pattern: &Path, most: usize) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let name = component.as_os_str();
        let text = name.to_string_lossy();
        if !matches!(component, Component::Normal(_)) || !text.contains(['*', '?', '[']) {
            for path in &mut found {
                path.push(name);
            }
            continue;
        }
        let inside = |dir: &PathBuf| {
            let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
            let mut names: Vec<_> =
                names.filter(|name| matches(&text, &name.to_string_lossy())).take(most).collect();
            names.sort_unstable();
            names.into_iter().map(|name| dir.join(name)).collect::<Vec<_>>()
        };
        found = found.iter().flat_map(inside).take(most).collect();
    }
    found
}

/// Whether a name is one of those that a pattern means. A dot at the beginning has to be written.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Behind the last star, and the character that it took last.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, n));
                p += 1;
                continue;
            }
            None if n == name.len() => return true,
            None => None,
            Some(_) => name.get(n).and_then(|c| one(&pattern[p..], *c)),
        };
        match (step, star) {
            (Some(length), _) => (p, n) = (p + length, n + 1),
            // The star takes one more.
            (None, Some((behind, taken))) if taken < name.len() => {
                star = Some((behind, taken + 1));
                (p, n) = (behind, taken + 1);
            }
            _ => return false,
        }
    }
}

/// How many characters of the pattern mean this one; `None`: they mean another.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['\\', escaped, ..] => (*escaped == c).then_some(2),
        ['[', rest @ ..] => {
            let negated = matches!(rest.first(), Some('!' | '^'));
            let set = &rest[usize::from(negated)..];
            // The first may be the bracket itself.
            let Some(end) = set.iter().skip(1).position(|c| *c == ']').map(|at| at + 1) else {
                return (c == '[').then_some(1);
            };
            let mut inside = &set[..end];
            let mut is_in = false;
            while let [first, rest @ ..] = inside {
                inside = match rest {
                    ['-', last, more @ ..] => {
                        is_in |= (*first..=*last).contains(&c);
                        more
                    }
                    more => {
                        is_in |= *first == c;
                        more
                    }
                };
            }
            (is_in != negated).then_some(1 + usize::from(negated) + end + 1)
        }
        [first, ..] => (*first == c).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_glob_means_them() {
        for (pattern, name) in [
            ("*.nft", "a.nft"),
            ("*", "x"),
            ("a?c", "abc"),
            ("[a-c]*", "bx"),
            ("[!a]", "b"),
            ("*a*b", "xaayb"),
            ("[]x]", "]"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.nft", "a.nft~"),
            ("*", ".hidden"),
            ("a?c", "ac"),
            ("[a-c]*", "dx"),
            ("[!a]", "a"),
            ("*a*b", "xb"),
            ("[", "x"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_of_stars_takes_time_in_proportion() {
        assert!(!matches(&"*a".repeat(500), &"a".repeat(499)));
    }

    #[test]
    fn directories_are_looked_through() {
        let dir = std::env::temp_dir().join(format!("tproxy-glob-{}", std::process::id()));
        fs::create_dir_all(dir.join("one")).unwrap();
        for name in ["one/b.nft", "one/a.nft", "one/c.conf"] {
            fs::write(dir.join(name), "").unwrap();
        }
        let found = [
            expand(&dir.join("o*/*.nft"), 10),
            expand(&dir.join("one/*.nft"), 1),
            expand(&dir.join("x/*"), 9),
        ];
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found[0], [dir.join("one/a.nft"), dir.join("one/b.nft")]);
        assert_eq!((found[1].len(), found[2].len()), (1, 0));
    }
}
