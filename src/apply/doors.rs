//! What is dead until the sidecar listens.

use crate::config::Config;
use crate::host::HostFacts;
use crate::plan::{self, Family};
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
