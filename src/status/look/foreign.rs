//! What rules of others do beside ours.

use crate::backend::Backend;
use crate::backend::iptables::situation::Situation;
use crate::host;
use crate::plan::Family;
use crate::rules::model::Chain;
use crate::sys::netlink::ruleset::Ruleset;

use super::super::ahead::{self, Ours, Place};
use super::super::model::Finding;
use super::Look;

impl Look {
    /// Others at the place of ours that come later today.
    pub(super) fn say_who_may_come_first(
        &mut self,
        backend: Backend,
        families: &[Family],
        ruleset: &Ruleset,
        situation: &Situation,
        ours: &Ours,
    ) {
        let place = Place { config: &self.config, backend, families };
        self.notes.extend(ahead::status_notes(&place, ruleset, situation, ours));
    }
}

/// All foreign chains, to be evaluated.
pub(super) fn chains(notes: &mut Vec<Finding>) -> Vec<Chain> {
    host::chains::all().unwrap_or_else(|error| {
        notes.push(Finding::note(format!(
            "the kernel does not list its rules ({error}); some may drop what is redirected, or meet the sidecar in place of \
             others"
        )));
        Vec::new()
    })
}
