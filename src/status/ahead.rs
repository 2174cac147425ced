//! What takes traffic before our rules see it.

use crate::backend::iptables::situation::Situation;
use crate::backend::iptables::tools::Variant;

use super::model::Ahead;

/// Everything ahead of ours.
pub fn of_ours(_: &Situation, _: Variant, _: u32, _: bool) -> Vec<Ahead> {
    Vec::new()
}
