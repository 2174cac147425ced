//! What the redirection does to those whom this host forwards for, in words. Without `excludeForwarded` whatever they
//! send over TCP ends at the inbound port.

use crate::config::Config;
use crate::config::values::VirtualNetwork;
use crate::host::{self, Guests};
use crate::plan::Family;
use crate::sys::netlink::routing::Link;

/// Interfaces named one by one.
const NAMED: usize = 4;

/// What happens to whose traffic, and what to do about it, once for each interface.
pub fn findings(config: &Config, links: &[Link], families: &[Family]) -> Vec<(String, String)> {
    let inbound = &config.redirect.inbound;
    if !inbound.enabled || inbound.exclude_forwarded {
        return Vec::new();
    }
    let guests = host::guests(links, families).unwrap_or_else(|error| {
        tracing::debug!("whom this host forwards for is not known: {error}");
        Vec::new()
    });
    words(config, &guests)
}

fn words(config: &Config, guests: &[Guests]) -> Vec<(String, String)> {
    let port = config.redirect.inbound.port;
    let mut found = Vec::new();
    let guests: Vec<Guests> = guests.iter().filter_map(|guests| uncovered(config, guests)).collect();
    for Guests { interface, networks } in guests.iter().take(NAMED) {
        let listed: Vec<String> = networks.iter().map(ToString::to_string).collect();
        let of = if listed.is_empty() { String::new() } else { format!(" ({})", listed.join(", ")) };
        let what = format!(
            "TCP that arrives by {interface}{of} for other hosts ends at the inbound port {port} instead of being \
             forwarded"
        );
        let mut cure = "--exclude-forwarded leaves it alone".to_owned();
        if !listed.is_empty() {
            let vnets: Vec<String> = listed.iter().map(|net| format!("--vnet {interface}:{net}")).collect();
            let out = config.redirect.outbound.port;
            cure = format!("{cure}; {} sends it through the sidecar's outbound port {out}", vnets.join(" "));
        }
        found.push((what, cure));
    }
    if guests.len() > NAMED {
        let what = format!("the same happens at {} more interfaces", guests.len() - NAMED);
        found.push((what, "--exclude-forwarded leaves all of it alone".to_owned()));
    }
    found
}

/// Less the networks whose guests are sent through the sidecar, unless there are no others.
fn uncovered(config: &Config, guests: &Guests) -> Option<Guests> {
    let here = |vnet: &&VirtualNetwork| {
        let pattern = vnet.interface.as_str();
        pattern
            .strip_suffix('+')
            .map_or(pattern == guests.interface, |prefix| guests.interface.starts_with(prefix))
    };
    let vnets: Vec<&VirtualNetwork> = config.redirect.vnet.networks.iter().filter(here).collect();
    let of = |six: bool| vnets.iter().any(|vnet| vnet.network.net().addr().is_ipv6() == six);
    let networks: Vec<_> = guests.networks.iter().copied().filter(|net| !of(net.addr().is_ipv6())).collect();
    let covered = networks.is_empty() && !vnets.is_empty();
    (!covered).then(|| Guests { interface: guests.interface.clone(), networks })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guests(interface: &str, networks: &[&str]) -> Guests {
        let networks = networks.iter().map(|net| net.parse().unwrap()).collect();
        Guests { interface: interface.into(), networks }
    }

    #[test]
    fn interface_networks_and_cures_are_named() {
        let both = [guests("docker0", &["172.17.0.0/16", "fd00:17::/64"])];
        let mut config = Config::default();
        let said = words(&config, &both);
        assert_eq!(said.len(), 1);
        assert!(
            said[0]
                .0
                .starts_with("TCP that arrives by docker0 (172.17.0.0/16, fd00:17::/64) for other hosts")
        );
        assert!(said[0].1.contains("--vnet docker0:172.17.0.0/16 --vnet docker0:fd00:17::/64 sends"));
        config.redirect.vnet.networks = vec!["docker+:172.17.0.0/16".parse().unwrap()];
        let said = words(&config, &both);
        assert!(said[0].0.contains("docker0 (fd00:17::/64)") && !said[0].1.contains("172.17"), "{said:?}");
        config.redirect.vnet.networks.push("docker0:fd00:17::/64".parse().unwrap());
        assert_eq!(words(&config, &both), []);
    }

    #[test]
    fn many_are_counted() {
        let many: Vec<Guests> = (0..30).map(|n| guests(&format!("cali{n}"), &["10.244.0.7/32"])).collect();
        let said = words(&Config::default(), &many);
        assert_eq!(said.len(), NAMED + 1);
        assert_eq!(said[NAMED].0, "the same happens at 26 more interfaces");
    }
}
