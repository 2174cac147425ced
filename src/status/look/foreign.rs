//! What rules of others do beside ours.

use crate::backend::Backend;
use crate::backend::iptables::situation::Situation;
use crate::plan::Family;
use crate::sys::netlink::ruleset::Ruleset;

use super::super::ahead::{self, Ours, Place};
use super::super::meets::look::Installed;
use super::super::meets::{self, Met};
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

/// What rules about users and addresses do to the sidecar.
pub(super) fn meeting(installed: &Installed<'_>, notes: &mut Vec<Finding>) -> Vec<Met> {
    meets::look::look(installed).unwrap_or_else(|error| {
        let what = format!(
            "the kernel does not list its rules ({error}); some may meet the sidecar in place of others"
        );
        notes.push(Finding::note(what));
        Vec::new()
    })
}
