//! Whom this host forwards for: containers and virtual machines behind its bridges, and networks behind other
//! interfaces. Reads only.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use ipnet::IpNet;

use crate::plan::{Family, is_link_local};
use crate::sys::netlink::routing::{self, Link, Route};

/// An interface behind which there are others whose packets this host takes and sends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guests {
    /// Its name.
    pub interface: String,
    /// The networks behind it, as far as routes tell.
    pub networks: Vec<IpNet>,
}

/// What of a family decides whether anything is forwarded.
#[derive(Clone, Copy)]
struct Forwarding<'a> {
    /// From an interface of this name.
    from: &'a dyn Fn(&str) -> bool,
    /// The rules of iptables see also what a bridge passes from port to port.
    within_bridges: bool,
}

/// Those of these families, by interface.
///
/// # Errors
/// The kernel does not tell of its routes.
pub fn guests(links: &[Link], families: &[Family]) -> io::Result<Vec<Guests>> {
    if !links.iter().any(|link| link.up && !link.loopback) {
        return Ok(Vec::new());
    }
    let has_bridge = links.iter().any(|link| link.kind.as_deref() == Some("bridge"));
    let mut routes = Vec::new();
    for family in Family::BOTH {
        routes.push((family, routing::routes(family)?));
    }
    let uplinks: BTreeSet<u32> = routes.iter().flat_map(|(_, routes)| defaults(routes)).collect();
    let mut found: Vec<Guests> = Vec::new();
    for (family, routes) in routes.iter().filter(|(family, _)| families.contains(family)) {
        let (path, bridges) = match family {
            Family::V4 => ("ipv4", "bridge-nf-call-iptables"),
            Family::V6 => ("ipv6", "bridge-nf-call-ip6tables"),
        };
        let from = |name: &str| {
            // What the setting for all says is what counts for IPv6.
            let name = if *family == Family::V6 { "all" } else { name };
            is_on(&format!("/proc/sys/net/{path}/conf/{name}/forwarding"))
        };
        let within_bridges = has_bridge && is_on(&format!("/proc/sys/net/bridge/{bridges}"));
        for guests in judge(links, routes, &uplinks, Forwarding { from: &from, within_bridges }) {
            match found.iter_mut().find(|known| known.interface == guests.interface) {
                Some(known) => known.networks.extend(guests.networks),
                None => found.push(guests),
            }
        }
    }
    Ok(found)
}

fn is_on(path: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|value| !matches!(value.trim(), "" | "0"))
}

fn defaults(routes: &[Route]) -> impl Iterator<Item = u32> {
    routes.iter().filter(|route| route.network.prefix_len() == 0).flat_map(|route| route.links.clone())
}

/// `uplinks` are the interfaces of the default routes.
fn judge(links: &[Link], routes: &[Route], uplinks: &BTreeSet<u32>, forwarding: Forwarding) -> Vec<Guests> {
    let ports = |bridge: &Link| links.iter().filter(|link| link.master == Some(bridge.index)).count();
    let is_bridge = |link: &Link| link.kind.as_deref() == Some("bridge");
    // Docker, libvirt and their like let the host forward for their bridges. What other interfaces it has then need
    // not have anybody behind them.
    let has_bridges = links.iter().any(|link| is_bridge(link) && !uplinks.contains(&link.index));
    let mut found = Vec::new();
    for link in links.iter().filter(|link| link.up && !link.loopback) {
        let here = routes.iter().filter(|route| route.links.contains(&link.index));
        let networks: Vec<IpNet> =
            here.map(|route| route.network).filter(|network| is_of_others(*network)).collect();
        let uplink = uplinks.contains(&link.index);
        let forwards = !networks.is_empty() && (forwarding.from)(&link.name);
        let has_guests = if is_bridge(link) {
            // One port of the uplink's bridge is the way out.
            let guests = ports(link) > usize::from(uplink);
            guests && (forwarding.within_bridges || forwards && !uplink)
        } else {
            let single = |network: &IpNet| network.prefix_len() == network.max_prefix_len();
            // Kubernetes' networks give each pod an interface with a route to it alone.
            let one = link.kind.as_deref() == Some("veth") && networks.iter().all(single);
            let plain = link.master.is_none() && !uplink && !uplinks.is_empty();
            plain && forwards && (one || !has_bridges)
        };
        if has_guests {
            found.push(Guests { interface: link.name.clone(), networks });
        }
    }
    found
}

/// Every interface has link-local addresses and multicast groups.
fn is_of_others(network: IpNet) -> bool {
    let addr = network.addr();
    network.prefix_len() > 0 && !is_link_local(addr) && !addr.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: Option<&str>, master: Option<u32>) -> Link {
        Link {
            index,
            name: name.into(),
            kind: kind.map(str::to_owned),
            master,
            up: true,
            loopback: name == "lo",
        }
    }

    fn route(network: &str, link: u32) -> Route {
        Route { network: network.parse().unwrap(), links: vec![link] }
    }

    /// The interfaces with guests, where the host forwards from everywhere or from nowhere.
    fn found(links: &[Link], routes: &[Route], on: bool, within_bridges: bool) -> Vec<String> {
        let uplinks = defaults(routes).collect();
        let all = judge(links, routes, &uplinks, Forwarding { from: &|_| on, within_bridges });
        all.into_iter().map(|guests| guests.interface).collect()
    }

    const NONE: [String; 0] = [];

    #[test]
    fn an_ordinary_machine_has_none() {
        let links = [link(1, "lo", None, None), link(2, "eth0", None, None), link(3, "eth1", None, None)];
        let routes = [
            route("0.0.0.0/0", 2),
            route("10.0.0.0/24", 2),
            route("10.5.0.0/16", 3),
            route("fe80::/64", 3),
            route("ff00::/8", 3),
        ];
        assert_eq!(found(&links, &routes, false, false), NONE);
        assert_eq!(
            found(&links[..2], &routes[..2], true, true),
            NONE,
            "a container forwards as its host does"
        );
        assert_eq!(found(&links, &routes, true, false), ["eth1"], "a router");
        assert_eq!(found(&links, &routes[1..], true, false), NONE, "it is not known which way is out");
        let mut off = links.clone();
        off[2].up = false;
        assert_eq!(found(&off, &routes, true, false), NONE);
    }

    #[test]
    fn bridges_have_guests_while_they_have_ports() {
        let bridge = |ports: u32| {
            let mut links = vec![
                link(1, "lo", None, None),
                link(2, "eth0", None, None),
                link(3, "docker0", Some("bridge"), None),
                link(4, "eth1", None, None),
                link(5, "tun0", Some("tun"), None),
            ];
            links.extend((0..ports).map(|n| link(10 + n, &format!("veth{n}"), Some("veth"), Some(3))));
            links
        };
        let routes = [
            route("0.0.0.0/0", 2),
            route("172.17.0.0/16", 3),
            route("10.5.0.0/16", 4),
            route("10.8.0.1/32", 5),
        ];
        assert_eq!(found(&bridge(0), &routes, true, false), NONE);
        assert_eq!(
            found(&bridge(1), &routes, true, false),
            ["docker0"],
            "not what Docker has nothing to do with"
        );
        assert_eq!(found(&bridge(1), &routes, false, false), NONE);
        assert_eq!(found(&bridge(2), &routes, false, true), ["docker0"], "from port to port");
    }

    #[test]
    fn the_uplinks_bridge_has_guests_beside_the_way_out() {
        let links = |guests: u32| {
            let mut links = vec![link(2, "eth0", None, Some(3)), link(3, "br0", Some("bridge"), None)];
            links.extend((0..guests).map(|n| link(10 + n, &format!("vnet{n}"), Some("tun"), Some(3))));
            links
        };
        let routes = [route("0.0.0.0/0", 3), route("10.0.0.0/24", 3)];
        assert_eq!(found(&links(0), &routes, true, true), NONE);
        assert_eq!(
            found(&links(1), &routes, true, false),
            NONE,
            "the rules do not see what a bridge passes on"
        );
        assert_eq!(found(&links(1), &routes, true, true), ["br0"]);
    }

    #[test]
    fn pods_have_interfaces_of_their_own() {
        let links = [
            link(2, "eth0", None, None),
            link(3, "docker0", Some("bridge"), None),
            link(4, "cali1", Some("veth"), None),
        ];
        let routes = [route("0.0.0.0/0", 2), route("10.244.0.7/32", 4)];
        assert_eq!(found(&links, &routes, true, false), ["cali1"]);
    }
}
