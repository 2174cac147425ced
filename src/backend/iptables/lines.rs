//! The lines of what a save program printed. A comment or a prefix can have line breaks in it: `nft`, the `iptables`
//! command and the kernel take any byte, and save programs print them as they are, within quotes. Pure.

/// What save programs print in quotes whatever is in it (`xtables_save_string` in libxtables).
const QUOTED: [&str; 3] = [" --comment \"", " --log-prefix \"", " --nflog-prefix \""];

/// The longest such text as it is read: 256 bytes, each of them no UTF-8 and so replaced by three. Beyond it a quote
/// was none of these.
const MOST: usize = 3 * 256;

/// Each rule, declaration and table on a line of its own, with the line breaks that are in quotes.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = end_of_line(rest);
        let line = &rest[..end];
        rest = rest[end..].strip_prefix('\n').unwrap_or_default();
        Some(line)
    })
}

/// Where the line ends that begins here.
fn end_of_line(text: &str) -> usize {
    let break_after = |at: usize| text[at..].find('\n').map_or(text.len(), |found| at + found);
    let mut end = break_after(0);
    // Only rules have quotes.
    if !text.starts_with("-A ") && !text.starts_with('[') {
        return end;
    }
    let mut from = 0;
    while let Some(open) = opened(&text[from..end]).map(|at| from + at) {
        match closed(&text[open..]).map(|length| open + length) {
            Some(close) => {
                from = close;
                if close > end {
                    end = break_after(close);
                }
            }
            None => break,
        }
    }
    end
}

/// Behind the first quote of a text that may have anything in it.
fn opened(line: &str) -> Option<usize> {
    QUOTED.iter().filter_map(|word| Some(line.find(word)? + word.len())).min()
}

/// Behind the quote that ends a text.
fn closed(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().take_while(|(at, _)| *at <= MOST) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => {
                let next = text[at + 1..].chars().next();
                return matches!(next, None | Some(' ' | '\n' | '\r')).then_some(at + 1);
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_with_line_breaks_in_its_comment_is_one_line() {
        let rule = "-A OUTPUT -m comment --comment \"kuma/mesh/transparent/proxy/a\nCOMMIT\n*nat\n-A X -j \\\" b\" -j RETURN";
        let text = format!("*nat\n:OUTPUT ACCEPT [0:0]\n{rule}\n[1:2] {rule}\n-A OUTPUT -j X\nCOMMIT\n");
        let all: Vec<_> = lines(&text).collect();
        assert_eq!(
            all,
            ["*nat", ":OUTPUT ACCEPT [0:0]", rule, &format!("[1:2] {rule}"), "-A OUTPUT -j X", "COMMIT"]
        );
    }

    #[test]
    fn a_quote_that_nobody_closes_takes_no_line_along() {
        for odd in ["-A X --name a\"b -j Y", "-A X --comment \"open -j Y", "# it's \"odd"] {
            let text = format!("{odd}\n-A X -m comment --comment \"kuma\" -j Z\nCOMMIT\n");
            assert_eq!(lines(&text).next(), Some(odd), "{odd}");
        }
    }

    #[test]
    fn nothing_is_lost() {
        for text in [
            "",
            "\n",
            "a\n\nb",
            "-A X --comment \"\n\n\"\n",
            "-A X --comment \"x\" --log-prefix \"y\nz\" -j A\nB",
        ] {
            let joined: Vec<_> = lines(text).collect();
            assert_eq!(joined.join("\n").trim_end_matches('\n'), text.trim_end_matches('\n'));
        }
    }
}
