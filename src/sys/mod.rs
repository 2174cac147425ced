//! The only doors to the kernel: child processes, netlink, namespaces, file locks, signals.
//!
//! `unsafe` lives here and nowhere else, each block with its reason.

pub mod lock;
pub mod netlink;
pub mod netns;
pub mod run;
pub mod signal;

mod holder;
mod poll;

/// Foreign text with its control characters written as escapes, so that it cannot play with a terminal.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}
