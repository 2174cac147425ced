//! Results as text and JSON. Pure.

mod both;
mod config;
mod confirm;
pub mod demo;
mod diff;
mod plan;
mod receipt;
mod status;
mod status_json;
mod unheard;
mod verify;
mod watch;

pub use both::once;
pub use config::{Checked, checked_json, config_json};
pub use confirm::{confirmed_json, confirmed_text};
pub use diff::{Beside, Part, diff_json, diff_text};
pub use plan::plan_json;
pub use receipt::{Action, Receipt, RuleCounts, lines};
pub use status::status_text;
pub use status_json::status_json;
use status_json::{finding, saved};
pub use unheard::{list as unheard_value, sentence as unheard_text};
pub use verify::{verify_json, verify_text, verify_value};
pub use watch::{change_json, change_text, in_short, state_json, state_text};

/// One JSON document on lines of its own.
fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}
