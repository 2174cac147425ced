//! The text of a `<rule>`, read as firewalld reads it: by Python's `shlex.split`.

use crate::plan::{OWNER_TAG, OwnChain};

/// The words of the text; `None` where firewalld would refuse it.
pub(crate) fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().push(chars.next()?),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Option<()> {
    loop {
        match chars.next()? {
            '"' => return Some(()),
            '\\' => match chars.next()? {
                c @ ('"' | '\\') => word.push(c),
                c => word.extend(['\\', c]),
            },
            c => word.push(c),
        }
    }
}

/// Every argument of an option that is written in one of these ways.
fn arguments<'a>(words: &'a [String], options: &'a [&str]) -> impl Iterator<Item = &'a str> {
    words.iter().enumerate().filter_map(move |(at, word)| {
        if options.contains(&word.as_str()) {
            return words.get(at + 1).map(String::as_str);
        }
        let (option, value) = word.split_once('=')?;
        (option.starts_with("--") && options.contains(&option)).then_some(value)
    })
}

/// Whether there is a comment at all.
pub(super) fn has_comment(words: &[String]) -> bool {
    arguments(words, &["--comment"]).next().is_some()
}

/// Whether a whole comment is the owner tag, or the tag, a slash and a reason.
pub(crate) fn is_tagged(words: &[String]) -> bool {
    arguments(words, &["--comment"])
        .filter_map(|comment| comment.strip_prefix(OWNER_TAG))
        .any(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether it jumps or goes to a chain of ours.
pub(crate) fn leads_to_us(words: &[String]) -> bool {
    arguments(words, &["-j", "--jump", "-g", "--goto"]).any(|chain| OwnChain::named(chain).is_some())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_as_python_makes_them() {
        // What `python3 -c 'import shlex; print(shlex.split(...))'` says.
        for (text, words) in [
            ("", &[][..]),
            ("  -p\ttcp\n", &["-p", "tcp"]),
            ("--comment \"a b\" 'c d' e\\ f", &["--comment", "a b", "c d", "e f"]),
            ("\"x \"q\"\"", &["x q"]),
            (r#""a\"b\\c\d" 'e\f'"#, &[r#"a"b\c\d"#, r"e\f"]),
            ("'!' -d '' \"\"", &["!", "-d", "", ""]),
            ("a#b #c", &["a#b", "#c"]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        for text in ["'", "\"", "a 'b", "a \"b\\\"", "a\\"] {
            assert_eq!(split(text), None, "{text}");
        }
    }

    #[test]
    fn the_tag_counts_only_as_a_whole_comment() {
        let tagged = |text: &str| is_tagged(&split(text).unwrap());
        assert!(tagged("-m comment --comment kuma/mesh/transparent/proxy -j X"));
        assert!(tagged("-m comment --comment 'kuma/mesh/transparent/proxy/some reason' -j X"));
        assert!(tagged("-m comment --comment=kuma/mesh/transparent/proxy/x -j X"));
        assert!(!tagged("-m comment --comment kuma/mesh/transparent/proxy-not -j X"));
        assert!(!tagged("-m comment --comment 'see kuma/mesh/transparent/proxy/x' -j X"));
        assert!(!tagged("-j LOG --log-prefix kuma/mesh/transparent/proxy/"));
        assert!(!tagged("-m comment --comment"));
    }

    #[test]
    fn jumps_to_our_chains() {
        let leads = |text: &str| leads_to_us(&split(text).unwrap());
        assert!(leads("-p tcp -j KUMA_MESH_OUTBOUND"));
        assert!(leads("--goto=KUMA_MESH_INBOUND"));
        assert!(!leads("-p tcp -j KUMA_MESH_OUTBOUND_X"));
        assert!(!leads("-j LOG --log-prefix KUMA_MESH_OUTBOUND"));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "([-a-z \"'\\\\\\n]|\\PC){0,60}") {
            if let Some(words) = split(&text) {
                is_tagged(&words);
                leads_to_us(&words);
            }
        }
    }
}
