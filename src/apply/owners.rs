//! What an installation says of programs that listen already: sidecars of another user, and DNS servers on this host.

use std::net::IpAddr;

use crate::config::Config;
use crate::config::values::Protocol;
use crate::host::owners::{self, OwnResolver, Stranger};
use crate::host::{self, HostFacts};

use crate::sys::sockstat::Counts;

use super::warnings::Warnings;

/// Says who has the sidecar's ports and is not the sidecar. The result is what stands in place of "you can now run
/// kuma-dp".
pub fn warn_of_strangers(
    config: &Config,
    facts: &HostFacts,
    sockets: Counts,
    warnings: &mut Warnings,
) -> Option<String> {
    const MOST: usize = 8;
    let found = owners::strangers(config, facts, sockets).unwrap_or_default();
    let sidecar = facts.sidecar_uid;
    for Stranger { protocol, port, uid, process } in found.iter().take(MOST) {
        let protocol = match protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        let process = process.as_ref().map_or(String::new(), |process| format!(" ({process})"));
        warnings.warn(
            format!(
                "{protocol} port {port} is held by UID {uid}{process} and not by the sidecar's UID {sidecar}: what UID {uid} \
                 sends is redirected too, so all that it passes on comes back to it without end"
            ),
            Some(format!(
                "if that is the sidecar, run it as UID {sidecar}, or install with --kuma-dp-user {uid}; else stop it"
            )),
        );
    }
    if let Some(more) = found.len().checked_sub(MOST).filter(|more| *more > 0) {
        warnings.warn(format!("the sidecar's ports are held by {more} more users"), None);
    }
    let first = found.first()?;
    Some(format!("Nothing works before the sidecar's ports are UID {sidecar}'s; UID {} has them", first.uid))
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
