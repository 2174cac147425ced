//! What a run has changed so far: what has to be taken back, and what is named where that cannot be looked at any more.

use std::fmt::Write as _;

use crate::backend::iptables::situation::{Changes, Place};
use crate::backend::iptables::transition::DiffLine;

/// What a run may have changed. What is not in it was not touched.
#[derive(Debug, Default)]
pub struct Journal {
    /// What was committed, or may have been, in the tables that everybody shares.
    shared: Vec<(Place, DiffLine)>,
    native: bool,
    /// The interface whose address `::6` was added or removed.
    address: Option<String>,
    firewalld: bool,
}

impl Journal {
    /// This was committed at a place, or may have been.
    pub fn committed(&mut self, place: Place, changes: &mut Changes) {
        let lines = changes.remove(&place).into_iter().flatten().flat_map(|change| change.diff);
        self.shared.extend(lines.map(|line| (place, line)));
    }

    /// Our own table was changed, or may have been.
    pub fn changed_table(&mut self) {
        self.native = true;
    }

    /// The address `::6` of this interface is about to change.
    pub fn touches_address(&mut self, interface: &str) {
        self.address = Some(interface.to_owned());
    }

    /// firewalld's file is about to change.
    pub fn touches_firewalld(&mut self) {
        self.firewalld = true;
    }

    /// Whether rules may have changed.
    pub fn has_rules(&self) -> bool {
        self.native || !self.shared.is_empty()
    }

    /// The interface whose address may have changed.
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// Whether firewalld's file may have changed.
    pub fn has_firewalld(&self) -> bool {
        self.firewalld
    }

    /// What has to be done by hand to take the rules back.
    pub fn rules(&self) -> String {
        let mut lines = String::new();
        for ((_, family), line) in &self.shared {
            // Writing to a String cannot fail.
            let _ = write!(lines, "\n  {family} {}", line.reversed());
        }
        if self.native {
            lines.push_str("\n  the table inet kuma_mesh");
        }
        lines
    }
}
