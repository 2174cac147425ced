//! Text for people: lines that are not too long, and foreign text that cannot play with a terminal. Pure.

/// The longest line that people are given, in characters. A command that is to be copied can be longer.
pub const WIDTH: usize = 100;

/// Breaks a text at spaces so that no line has more columns, where words allow it. Commands in quotes stay whole, and those
/// that are to be run (`run '…'`) stand on a line of their own, without the quotes, unless they are short.
pub fn wrapped(text: &str, columns: usize) -> Vec<String> {
    /// A command of so many words can stand in a line.
    const SHORT: usize = 3;
    if is_command(text) {
        return each(text).map(str::to_owned).collect();
    }
    let mut lines = vec![String::new()];
    for piece in pieces(text) {
        let Some(line) = lines.last_mut() else { break };
        let command = piece
            .strip_prefix('\'')
            .and_then(|rest| rest.rsplit_once('\''))
            .filter(|(all, _)| is_command(all));
        match command {
            Some((command, _)) if line.ends_with("run") && command.split(' ').count() > SHORT => {
                line.push(':');
                lines.extend(each(command).map(|line| format!("  {line}")));
                lines.push(String::new());
            }
            _ if line.is_empty() => line.push_str(piece),
            _ if line.chars().count() + 1 + piece.chars().count() <= columns => {
                line.push(' ');
                line.push_str(piece);
            }
            _ => lines.push(piece.to_owned()),
        }
    }
    if lines.len() > 1 && lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// A text in lines that begin with this indent, but for the first one, which has a label of that many columns before it.
pub fn hanging(text: &str, indent: usize) -> String {
    wrapped(text, WIDTH.saturating_sub(indent)).join(&format!("\n{}", " ".repeat(indent)))
}

/// One command after another.
fn each(commands: &str) -> impl Iterator<Item = &str> {
    commands.split(" && ")
}

/// Words, and commands in quotes with what sticks to them.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text.trim_start();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let quoted = rest.strip_prefix('\'').filter(|inside| is_command(inside));
        let closed = quoted.and_then(|inside| inside.find('\'')).map_or(0, |at| at + 2);
        let end = rest.get(closed..)?.find(char::is_whitespace).map_or(rest.len(), |at| closed + at);
        let (piece, more) = rest.split_at(end);
        rest = more.trim_start();
        Some(piece)
    })
}

/// Whether a text begins as a command does, and not as a sentence.
pub fn is_command(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let (Some(first), Some(second)) = (words.next(), words.next()) else { return false };
    let program = first.split('-').next().unwrap_or_default();
    let known = ["conntrack", "ip6tables", "iptables", "nft", "ss", "sysctl", "tproxy", "ufw"];
    // Rules of nft begin so too.
    let of_ip = ["-4", "-6", "addr", "address", "link", "route", "rule"];
    match program {
        "firewall" => first == "firewall-cmd",
        "ip" => of_ip.contains(&second),
        program => known.contains(&program),
    }
}

/// Foreign text with its control characters written as escapes, and so all that shows nothing itself and changes how the
/// rest is shown: it cannot play with a terminal, nor look like another text.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_unseen(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Format characters (Unicode's category Cf, the soft hyphen and the signs for directions among them), separators of lines
/// and paragraphs (Zl, Zp), and other letters that are shown as nothing (`Default_Ignorable_Code_Point`). Variation
/// selectors U+FE00 to U+FE0F are ordinary in text and change a single sign only.
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
        | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::{escape, hanging, wrapped};

    #[test]
    fn lines_end_where_words_do() {
        assert_eq!(wrapped("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a word-that-is-too-long b", 6), ["a", "word-that-is-too-long", "b"]);
        assert_eq!(wrapped("", 6), [""]);
        let long = "word ".repeat(60);
        let text = hanging(&long, 9);
        assert!(text.lines().skip(1).all(|line| line.starts_with("         word")), "{text}");
        assert!(text.lines().all(|line| line.len() <= 100 - 9 || line.starts_with(' ')), "{text}");
    }

    #[test]
    fn commands_can_be_copied() {
        let line = "nft insert rule inet theirs in tcp dport 15006 ct original proto-dst 8080 accept";
        let text = format!("run '{line}', and keep it with the rest of the firewall");
        assert_eq!(
            wrapped(&text, 40),
            ["run:", &format!("  {line}"), "and keep it with the rest of the", "firewall"]
        );
        assert_eq!(wrapped(&format!("run '{line}'"), 40), ["run:", &format!("  {line}")]);
        assert_eq!(wrapped(line, 20), [line], "one that is all there is");
        assert_eq!(
            wrapped("run 'ip addr del ::6 dev lo && ip route show table 7'", 90),
            ["run:", "  ip addr del ::6 dev lo", "  ip route show table 7"]
        );
        // A short one, one that is not to be run at once, and a rule.
        assert_eq!(wrapped("then run 'tproxy install' again", 20), ["then run", "'tproxy install'", "again"]);
        assert_eq!(
            wrapped("see 'nft list table ip nat' first", 12),
            ["see", "'nft list table ip nat'", "first"]
        );
        assert_eq!(wrapped("drop it by '-p tcp -j DROP'", 16), ["drop it by '-p", "tcp -j DROP'"]);
        assert_eq!(wrapped("it is 'ip saddr 10.0.0.0/8 drop'", 16), ["it is 'ip saddr", "10.0.0.0/8 drop'"]);
        assert_eq!(wrapped("run 'ip", 20), ["run 'ip"], "a quote that is not closed");
    }

    #[test]
    fn what_is_not_seen_is_written_out() {
        assert_eq!(escape("a\u{1b}[31m\n"), "a\\u{1b}[31m\\n");
        for c in "\u{ad}\u{61c}\u{200b}\u{200d}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2060}\u{2066}\u{2069}\u{206f}\u{feff}\
                  \u{fff9}\u{fffb}\u{1d173}\u{e0000}\u{e0001}\u{e0041}\u{e007f}"
            .chars()
        {
            assert_eq!(escape(&format!("a{c}b")), format!("a\\u{{{:x}}}b", u32::from(c)));
        }
    }

    #[test]
    fn what_is_seen_stays() {
        for text in [
            "/usr/bin/envoy -c 'x' \\ \"",
            "größer 日本語 עברית العربية é🙂",
            "\u{2010}\u{2027}\u{2030}\u{205f}",
        ] {
            assert_eq!(escape(text), text);
        }
    }
}
