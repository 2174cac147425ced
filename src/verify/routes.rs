//! Which source addresses and interfaces this host's routes use, for probes that look like what applications send.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_indextoname, if_nametoindex};

use super::flows::Road;
use crate::plan::Family;
use crate::sys::netlink::route;

/// Routes that are looked at, of one family: a router may have a million.
const ROUTES: usize = 256;

/// Addresses that stand for everything that a default route leads to: of the documentation ranges, which are nobody's.
const ANYWHERE_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(203, 0, 113, 1)];
const ANYWHERE_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)];

/// Every source address together with an interface that the host's routes use for one of these users. Asked before
/// there is a temporary interface, whose routes would be among them. What the kernel does not tell is left out.
pub fn departures(family: Family, users: &[u32], loopback: &str) -> BTreeSet<Road> {
    let networks = route::networks(family).unwrap_or_default();
    let mut wanted = anywhere(family);
    wanted.extend(networks.into_iter().take(ROUTES).filter_map(representative));
    let mut names = BTreeMap::new();
    let mut found = BTreeSet::new();
    for to in wanted {
        for &uid in users {
            let Ok(Some(way)) = route::way(to, None, uid) else { continue };
            let Some(address) = way.source.filter(|_| !way.is_local) else { continue };
            let name = names.entry(way.interface).or_insert_with(|| name(way.interface));
            if let Some(interface) = name.clone() {
                found.insert(Road { address, interface, index: way.interface });
            }
        }
    }
    found.retain(|road| {
        !is_scoped(road.address) && road.interface != loopback && !is_temporary(&road.interface)
    });
    found
}

/// Addresses to which a host's default route leads, if it has one.
pub fn anywhere(family: Family) -> Vec<IpAddr> {
    match family {
        Family::V4 => ANYWHERE_V4.into_iter().map(IpAddr::from).collect(),
        Family::V6 => ANYWHERE_V6.into_iter().map(IpAddr::from).collect(),
    }
}

/// Whether it is an interface of another proof, perhaps of one that was killed, which the kernel is about to remove.
fn is_temporary(interface: &str) -> bool {
    let number = interface.strip_prefix(super::ground::TEMPORARY);
    number.is_some_and(|number| number.len() == 8 && number.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The road of a user's packets to an address that is not on this host.
pub fn road(to: IpAddr, uid: u32) -> Option<Road> {
    let way = route::way(to, None, uid).ok()??;
    let address = way.source.filter(|source| !way.is_local && !is_scoped(*source))?;
    Some(Road { address, interface: name(way.interface)?, index: way.interface })
}

/// At which addresses of which interfaces this host can be asked by others.
pub fn arrivals() -> BTreeSet<Road> {
    let mut found = BTreeSet::new();
    for interface in getifaddrs().into_iter().flatten() {
        let flags = interface.flags;
        if is_temporary(&interface.interface_name) {
            continue;
        }
        if flags.contains(InterfaceFlags::IFF_LOOPBACK) || !flags.contains(InterfaceFlags::IFF_UP) {
            continue;
        }
        let Some(storage) = interface.address else { continue };
        let four = storage.as_sockaddr_in().map(|four| IpAddr::from(four.ip()));
        let address = four.or_else(|| storage.as_sockaddr_in6().map(|six| six.ip().into()));
        let name = interface.interface_name;
        if let (Some(address), Ok(index)) = (address, if_nametoindex(name.as_str())) {
            found.insert(Road { address, interface: name, index });
        }
    }
    found
}

/// Interfaces by which packets of a family leave, and so come, that have no address of it. Of IPv6 a link-local one is
/// one, though not of every use.
pub fn without_address(family: Family, departures: &[Road], arrivals: &BTreeSet<Road>) -> BTreeSet<String> {
    let own = |road: &&Road| family.holds(road.address.into());
    let with: BTreeSet<u32> = arrivals.iter().filter(own).map(|road| road.index).collect();
    let without = departures.iter().filter(own).filter(|road| !with.contains(&road.index));
    without.map(|road| road.interface.clone()).collect()
}

fn name(interface: u32) -> Option<String> {
    if_indextoname(interface).ok().and_then(|name| name.into_string().ok())
}

/// Somebody in a network; nobody in those in which addresses mean something on one link only.
fn representative(net: IpNet) -> Option<IpAddr> {
    let addr = net.hosts().nth(1).or_else(|| net.hosts().next())?;
    let usable = net.prefix_len() > 0 && !addr.is_multicast() && !addr.is_loopback() && !is_scoped(addr);
    usable.then_some(addr)
}

/// Whether an address is of use on one link only, or on none.
pub fn is_scoped(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(four) => four.is_loopback(),
        IpAddr::V6(six) => six.is_unicast_link_local() || six.is_loopback(),
    }
}
