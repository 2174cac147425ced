//! What is dead until the sidecar listens, and what another program takes.

use std::net::IpAddr;

use crate::config::Config;
use crate::config::values::Protocol;
use crate::host::HostFacts;
use crate::host::owners::is_let_through;
use crate::plan::{self, Family};
use crate::status::listen::ways;
use crate::status::look::parts::listeners;
use crate::status::model::{Listening, Ports, Who};

/// The ports at which nobody takes what is redirected there.
pub fn unheard(config: &Config, facts: &HostFacts, families: &[Family]) -> Vec<Listening> {
    let mut found = heard(config, facts, families);
    found.retain(|listening| matches!(listening.who, Who::Nobody | Who::Elsewhere(_)));
    found
}

/// A program of another user that takes what is redirected to one of the sidecar's ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// `outbound`, `inbound` or `dns`.
    pub name: &'static str,
    /// Over which protocol.
    pub protocol: Protocol,
    /// Of which family.
    pub family: Family,
    /// The port.
    pub port: u16,
    /// Where.
    pub address: IpAddr,
    /// Whose.
    pub uid: u32,
    /// Which process, where it can be found out.
    pub process: Option<String>,
    /// Whether its own traffic is redirected too: what it passes on would come back to it without end.
    pub redirected: bool,
}

/// Everybody who has one of the sidecar's ports in place of the sidecar, or beside it.
pub fn strangers(config: &Config, facts: &HostFacts, families: &[Family]) -> Vec<Stranger> {
    let stranger = |Listening { name, port, family, who }: Listening| {
        let Who::Other { address, uid, process } = who else { return None };
        let protocol = if name == "dns" { Protocol::Udp } else { Protocol::Tcp };
        let redirected = !is_let_through(config, facts.sidecar_uid, uid, protocol);
        Some(Stranger { name, protocol, family, port, address, uid, process, redirected })
    };
    heard(config, facts, families).into_iter().filter_map(stranger).collect()
}

fn heard(config: &Config, facts: &HostFacts, families: &[Family]) -> Vec<Listening> {
    let redirect = &config.redirect;
    let ports = Ports {
        outbound: redirect.outbound.enabled.then(|| redirect.outbound.port.get()),
        inbound: redirect.inbound.enabled.then(|| redirect.inbound.port.get()),
        dns: redirect.dns.enabled.then(|| redirect.dns.port.get()),
    };
    let ways = ways(families, |family| plan::redirects_dns(config, facts, family));
    listeners(ports, &ways, facts.sidecar_uid)
}
