//! Results as text and JSON. Pure.

mod diff;
mod plan;
mod receipt;

pub use diff::{diff_json, diff_text};
pub use plan::plan_json;
pub use receipt::{Action, Receipt};

/// One JSON document on lines of its own.
fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}
