//! What an installation that is in place says of foreign rules: who comes first, whom they meet now, and what the host's own
//! firewall does: which ports it does not close any more, and what of the redirected traffic it drops.

use std::io;

use crate::backend::Backend;
use crate::backend::nftables::lower::{NAT_FIRST, NAT_LAST};
use crate::config::Config;
use crate::exit::HINT;
use crate::host::{HostFacts, chains};
use crate::plan::Family;
use crate::present::once;
use crate::rules::model::{Action, Chain, Field, Hook, Rule, Test};
use crate::status::ahead::{self, IPTABLES, Ours, Place};
use crate::status::doors::look::{Installed as Behind, evaluate};
use crate::status::meets;
use crate::status::meets::look::Installed;
use crate::status::model::Finding;
use crate::sys::netlink::ruleset;

use super::scene::Scene;
use super::translated;

/// Says all of it, and whether foreign rules keep redirected traffic from the sidecar. `before`: rules of iptables as they
/// were before.
pub fn say(
    config: &Config,
    facts: &HostFacts,
    backend: Backend,
    families: &[Family],
    before: &Scene,
) -> bool {
    let chains = chains::met();
    let first = findings(config, facts, backend, families, before, chains.as_deref().ok());
    let (meeting, dead) = meeting(config, facts, backend, families, chains);
    for Finding { what, fix } in once(first.said.into_iter().chain(meeting)) {
        tracing::warn!("{what}");
        if let Some(fix) = fix {
            tracing::info!(target: HINT, "{fix}");
        }
    }
    first.first || dead
}

/// So many rules are named one by one.
const SHOWN: usize = 8;

/// What rules about users and addresses do to the sidecar, which they meet in place of others, and what rules at the hook
/// `input` do to what comes to it; and whether traffic is dead for any of them.
fn meeting(
    config: &Config,
    facts: &HostFacts,
    backend: Backend,
    families: &[Family],
    chains: io::Result<Vec<Chain>>,
) -> (Vec<Finding>, bool) {
    let chains = match chains {
        Ok(chains) => chains,
        // A kernel that does not list its rules keeps nobody from installing.
        Err(error) => {
            tracing::info!(
                "the kernel does not list its rules ({error}); some may drop what is redirected, or meet the sidecar in \
                 place of others"
            );
            return (Vec::new(), false);
        }
    };
    let installed = Installed::new(config, facts, families, backend);
    let mut met = meets::look::judge(&installed, &chains);
    let stand = match backend {
        Backend::Iptables(_) => IPTABLES,
        Backend::Nftables if config.redirect.inbound.insert_redirect_instead_of_append => NAT_FIRST,
        Backend::Nftables => NAT_LAST,
    };
    let doors = evaluate(&Behind::of(config, facts, families, stand), &chains, &mut met);
    let dead = !doors.problems.is_empty() || met.iter().any(|met| met.dead);
    let told = met.iter().any(|met| met.clients.is_some());
    let mut said: Vec<Finding> = doors.problems.into_iter().map(|shut| shut.finding).collect();
    let more = met.len().saturating_sub(SHOWN);
    said.extend(met.into_iter().take(SHOWN).map(|met| Finding::new(met.what, met.fix)));
    if more > 0 {
        let what = format!("{more} more foreign rules meet the sidecar in place of others");
        said.push(Finding::new(what, "'tproxy status' lists them"));
    }
    said.extend(doors.openings);
    if !told
        && chains.iter().any(is_about_clients)
        && let Some((what, fix)) =
            meets::clients::lost(config, &meets::look::ports(config, facts.sidecar_uid), families)
    {
        tracing::info!("{what}");
        tracing::info!(target: HINT, "{fix}");
    }
    (said, dead)
}

/// Whether a rule of a chain goes by where connections come from, as bans do; who has none loses nothing by the sidecar's
/// address.
fn is_about_clients(chain: &Chain) -> bool {
    let source = |test: &Test| matches!(test, Test::In { field: Field::Source, .. });
    let closes = |rule: &Rule| rule.action == Action::Drop && rule.tests.iter().any(source);
    let incoming = chain.called.is_none_or(|called| called.hook == Hook::Input);
    incoming && chain.rules.iter().any(closes)
}

/// Looks who comes first, now that the rules are there. `before`: rules of iptables as they were before.
fn findings(
    config: &Config,
    facts: &HostFacts,
    backend: Backend,
    families: &[Family],
    before: &Scene,
    chains: Option<&[Chain]>,
) -> ahead::Found {
    let place = Place { config, backend, families };
    let translates = |chain: &Chain| chain.called.is_some_and(|called| called.translates);
    // Where nobody else translates, nobody can be at the same place.
    let alone = chains.is_some_and(|chains| !chains.iter().any(translates));
    let ruleset = if alone { None } else { ruleset::read(ahead::chains_at(&place)).ok() };
    let legacy = translated::legacy_of_others(&before.iptables, &before.legacy);
    let (ruleset, ours) = (ruleset.unwrap_or_default(), Ours::of(config, facts));
    ahead::install_findings(&place, &ruleset, &before.iptables, &legacy, &ours)
}
