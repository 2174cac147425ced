//! Other people's text on our terminal. Pure.

/// Foreign text with its control characters written as escapes, so that it cannot play with a terminal.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}
