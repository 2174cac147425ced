//! Other people's text on our terminal. Pure.

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
    use super::escape;

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
