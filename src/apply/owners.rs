//! What an installation says of programs that listen already: sidecars of another user, and DNS servers on this host.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::config::Config;
use crate::config::values::Protocol;
use crate::host::owners::{self, OwnResolver};
use crate::host::{self, HostFacts};
use crate::plan::Family;
use crate::status::listen::place;

use super::doors::{self, Stranger};
use super::warnings::Warnings;

/// Says who has the sidecar's ports and is not the sidecar. The result is what stands in place of "you can now run
/// kuma-dp".
pub fn warn_of_strangers(
    config: &Config,
    facts: &HostFacts,
    families: &[Family],
    warnings: &mut Warnings,
) -> Option<String> {
    let mut found = doors::strangers(config, facts, families);
    found.retain(|of| of.redirected);
    let sidecar = facts.sidecar_uid;
    let first = found.first()?.uid;
    // Of both families, a socket of IPv6 may be the one.
    let mut known = BTreeSet::new();
    found.retain(|of| known.insert((of.name, of.uid)));
    for Stranger { protocol, port, address, uid, process, .. } in found {
        let protocol = match protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        let at = place(&address);
        let process = process.map_or(String::new(), |process| format!(" ({process})"));
        warnings.warn(
            format!(
                "{protocol} port {port}{at} is held by UID {uid}{process}, which is not the sidecar's UID {sidecar}: what UID {uid} \
                 sends is redirected too, so all that it passes on comes back to it without end"
            ),
            Some(format!(
                "if that is the sidecar, run it as UID {sidecar}, or install with --kuma-dp-user {uid}; else stop it"
            )),
        );
    }
    Some(format!(
        "Redirected traffic, at least in part, goes to UID {first} and not to the sidecar's UID {sidecar}"
    ))
}

/// Says which DNS servers on this host would be asked what they ask, without end, and whether there are any.
pub fn warn_of_own_resolvers(
    config: &Config,
    facts: &HostFacts,
    own: &[IpAddr],
    warnings: &mut Warnings,
) -> bool {
    let found = own_resolvers(config, facts, own);
    let any = !found.is_empty();
    for resolver in found {
        let to = if resolver.others.is_empty() {
            "whatever server it asks".to_owned()
        } else {
            resolver.others.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" and ")
        };
        warnings.warn(
            format!(
                "this host's programs ask the DNS server {}, which is on this host ({}), and its own questions are \
                 redirected as well ({to}): the sidecar asks it what it asks the sidecar, without end",
                resolver.server,
                resolver.name()
            ),
            Some(format!("to leave its own questions alone, install with {}", resolver.cure())),
        );
    }
    any
}

/// DNS servers on this host whose own questions are redirected, as far as that can be found out. `own` are its addresses.
pub fn own_resolvers(config: &Config, facts: &HostFacts, own: &[IpAddr]) -> Vec<OwnResolver> {
    let dns = &config.redirect.dns;
    if !dns.enabled {
        return Vec::new();
    }
    let mut servers: Vec<IpAddr> = facts.resolvers.iter().map(|resolver| resolver.addr).collect();
    if dns.capture_all {
        let known = host::resolvers(&dns.resolv_config_path).map(|(known, _)| known).unwrap_or_default();
        servers = known.into_iter().map(|resolver| resolver.addr).collect();
    }
    owners::own_resolvers(config, facts, &servers, own).unwrap_or_default()
}
