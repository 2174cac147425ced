//! What rules of others do beside ours.

use crate::backend::Backend;
use crate::backend::iptables::situation::Situation;
use crate::plan::Family;
use crate::sys::netlink::ruleset::Ruleset;

use super::super::ahead::{self, Ours, Place};
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
