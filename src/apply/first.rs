//! What an installation that is in place says of foreign rules: who comes first, and whom they meet now.

use crate::backend::Backend;
use crate::backend::iptables::situation::Situation;
use crate::config::Config;
use crate::exit::HINT;
use crate::host::HostFacts;
use crate::plan::Family;
use crate::status::ahead::{self, Ours, Place};
use crate::status::meets;
use crate::status::meets::look::Installed;
use crate::status::model::Finding;
use crate::sys::netlink::ruleset;

/// Says all of it. `before`: rules of iptables as they were before.
pub fn say(config: &Config, facts: &HostFacts, backend: Backend, families: &[Family], before: &Situation) {
    let first = findings(config, facts, backend, families, before);
    for Finding { what, fix } in first.into_iter().chain(meeting(config, facts, backend, families)) {
        tracing::warn!("{what}");
        hint(fix);
    }
    if let Some(Finding { what, fix }) = lost_addresses(config, facts, families) {
        tracing::info!("{what}");
        hint(fix);
    }
}

fn hint(fix: Option<String>) {
    if let Some(fix) = fix {
        tracing::info!(target: HINT, "{fix}");
    }
}

/// So many rules are named one by one.
const SHOWN: usize = 8;

/// What rules about users and addresses do to the sidecar, which they meet in place of others.
fn meeting(config: &Config, facts: &HostFacts, backend: Backend, families: &[Family]) -> Vec<Finding> {
    let installed = Installed::new(config, facts, families, backend);
    let found = meets::look::look(&installed).unwrap_or_else(|error| {
        tracing::info!(
            "the kernel does not list its rules ({error}); some may meet the sidecar in place of others"
        );
        Vec::new()
    });
    let more = found.len().saturating_sub(SHOWN);
    let mut said: Vec<Finding> =
        found.into_iter().take(SHOWN).map(|met| Finding::new(met.what, met.fix)).collect();
    if more > 0 {
        let what = format!("{more} more foreign rules meet the sidecar in place of others");
        said.push(Finding::new(what, "'tproxy status' lists them"));
    }
    said
}

/// For which ports the addresses of clients are lost.
fn lost_addresses(config: &Config, facts: &HostFacts, families: &[Family]) -> Option<Finding> {
    let (what, fix) = meets::clients::lost(config, &meets::look::ports(config, facts.sidecar_uid), families)?;
    Some(Finding::new(what, fix))
}

/// Looks who comes first, now that the rules are there. `before`: rules of iptables as they were before.
fn findings(
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
