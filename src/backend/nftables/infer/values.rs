//! What the sets of a table hold, as a configuration writes it. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use crate::config::values::{Cidr, Port, PortRange};

use super::super::model::{Table, Test};
use super::super::set::{Interval, Key};

/// How many servers one element can stand for at most.
const SERVERS: u128 = 256;

/// `resolvers_ipv4` and, where that name was taken by other values, `resolvers_ipv4_2`.
pub(super) fn is_list(name: &str, of: &str) -> bool {
    name.strip_prefix(of).is_some_and(|rest| rest.starts_with('_'))
}

/// The single addresses of a set.
pub(super) fn addresses(table: &Table, set: &str) -> Vec<IpAddr> {
    let Some(set) = table.sets.get(set) else { return Vec::new() };
    let all = set
        .intervals
        .iter()
        .flat_map(|interval| interval.first..=interval.last.min(interval.first.saturating_add(SERVERS - 1)));
    all.filter_map(|bits| address(set.key, bits)).collect()
}

fn address(key: Key, bits: u128) -> Option<IpAddr> {
    match key {
        Key::Ipv4 => Some(Ipv4Addr::from_bits(u32::try_from(bits).ok()?).into()),
        Key::Ipv6 => Some(Ipv6Addr::from_bits(bits).into()),
        _ => None,
    }
}

/// As few networks as can be that together are the set.
pub(super) fn networks(table: &Table, set: &str) -> Vec<Cidr> {
    let Some(set) = table.sets.get(set) else { return Vec::new() };
    let of = |interval: &Interval| -> Vec<IpNet> {
        match (address(set.key, interval.first), address(set.key, interval.last)) {
            (Some(IpAddr::V4(first)), Some(IpAddr::V4(last))) => {
                Ipv4Subnets::new(first, last, 0).map(IpNet::from).collect()
            }
            (Some(IpAddr::V6(first)), Some(IpAddr::V6(last))) => {
                Ipv6Subnets::new(first, last, 0).map(IpNet::from).collect()
            }
            _ => Vec::new(),
        }
    };
    set.intervals.iter().flat_map(of).map(Cidr::from).collect()
}

/// The set's ports, or the rule's own.
pub(super) fn ranges(table: &Table, test: &Test<PortRange>) -> Vec<PortRange> {
    match test {
        Test::Is(range) => vec![*range],
        Test::In(set) => {
            let set = table.sets.get(set).filter(|set| set.key == Key::Port);
            let port =
                |number: u128| u16::try_from(number).ok().and_then(|number| Port::try_from(number).ok());
            let range = |interval: &Interval| {
                Some(PortRange { first: port(interval.first.max(1))?, last: port(interval.last)? })
            };
            set.map(|set| set.intervals.iter().filter_map(range).collect()).unwrap_or_default()
        }
        Test::IsNot(_) | Test::NotIn(_) => Vec::new(),
    }
}

pub(super) fn single_ports(ranges: Vec<PortRange>) -> Vec<Port> {
    let all = ranges.into_iter().flat_map(|range| range.first.get()..=range.last.get());
    all.filter_map(|number| Port::try_from(number).ok()).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::super::set::Set;
    use super::*;

    pub fn with_set(name: &str, key: Key, first: u128, last: u128) -> Table {
        Table {
            sets: [(name.to_owned(), Set::new(key, [Interval { first, last }]))].into(),
            chains: Vec::new(),
        }
    }

    #[test]
    fn an_interval_is_as_few_networks_as_can_be() {
        let texts = |key, first, last| -> Vec<String> {
            networks(&with_set("s", key, first, last), "s").iter().map(ToString::to_string).collect()
        };
        let four = |addr: &str| u128::from(addr.parse::<Ipv4Addr>().expect("an address").to_bits());
        assert_eq!(
            texts(Key::Ipv4, four("10.0.0.1"), four("10.0.0.4")),
            ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/32"]
        );
        assert_eq!(texts(Key::Ipv4, 0, u32::MAX.into()), ["0.0.0.0/0"]);
        assert_eq!(texts(Key::Ipv6, 0, u128::MAX), ["::/0"]);
        assert_eq!(texts(Key::Port, 0, 9), [""; 0]);
    }
}
