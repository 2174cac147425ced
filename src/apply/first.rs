//! What an installation says of others at the place of its rules.

use crate::backend::Backend;
use crate::backend::iptables::situation::Situation;
use crate::config::Config;
use crate::host::HostFacts;
use crate::plan::Family;
use crate::status::ahead::{self, Ours, Place};
use crate::status::model::Finding;
use crate::sys::netlink::ruleset;

/// Looks who comes first, now that the rules are there. `before`: rules of iptables as they were before.
pub fn findings(
    config: &Config,
    facts: &HostFacts,
    backend: Backend,
    families: &[Family],
    before: &Situation,
) -> Vec<Finding> {
    let place = Place { config, backend, families };
    let ruleset = ruleset::read(ahead::chains_at(&place)).unwrap_or_default();
    ahead::install_findings(&place, &ruleset, before, &Ours::of(config, facts))
}
