//! What an installation says of the host's own firewall: which ports it does not close any more, and what of the
//! redirected traffic it drops; and what is dead until the sidecar listens.

use crate::backend::Backend;
use crate::backend::nftables::lower::{NAT_FIRST, NAT_LAST};
use crate::config::Config;
use crate::exit::HINT;
use crate::host::HostFacts;
use crate::plan::{self, Family};
use crate::status::ahead::IPTABLES;
use crate::status::doors::look::{Installed, look};
use crate::status::listen::ways;
use crate::status::look::parts::listeners;
use crate::status::model::{Listening, Ports, Who};

/// The ports at which nobody takes what is redirected there. Those that somebody else has are told of elsewhere.
pub fn unheard(config: &Config, facts: &HostFacts, families: &[Family]) -> Vec<Listening> {
    let redirect = &config.redirect;
    let ports = Ports {
        outbound: redirect.outbound.enabled.then(|| redirect.outbound.port.get()),
        inbound: redirect.inbound.enabled.then(|| redirect.inbound.port.get()),
        dns: redirect.dns.enabled.then(|| redirect.dns.port.get()),
    };
    let ways = ways(families, |family| plan::redirects_dns(config, facts, family));
    let mut found = listeners(ports, &ways, facts.sidecar_uid);
    found.retain(|listening| matches!(listening.who, Who::Nobody | Who::Elsewhere(_)));
    found
}

/// Says it of an installation that is in place. A kernel that does not list its rules keeps nobody from installing.
pub fn warn(config: &Config, facts: &HostFacts, families: &[Family], backend: Backend) {
    let stand = match backend {
        Backend::Iptables(_) => IPTABLES,
        Backend::Nftables if config.redirect.inbound.insert_redirect_instead_of_append => NAT_FIRST,
        Backend::Nftables => NAT_LAST,
    };
    let found = match look(&Installed::of(config, facts, families, stand)) {
        Ok(found) => found,
        Err(error) => {
            tracing::info!(
                "the kernel does not list its rules about what arrives ({error}); some may drop what is redirected"
            );
            return;
        }
    };
    for finding in found.problems.into_iter().chain(found.openings) {
        tracing::warn!("{}", finding.what);
        if let Some(fix) = finding.fix {
            tracing::info!(target: HINT, "{fix}");
        }
    }
}
