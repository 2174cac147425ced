//! Port lists as matches: one rule a port while there are few, 15 places a rule when there are many.

use crate::config::values::{Port, PortRange, Protocol};

use super::model::Match;

/// Places in one multiport match (`XT_MULTI_PORTS` in the kernel's `xt_multiport.h`); a range takes two.
pub const MULTIPORT_SLOTS: usize = 15;

/// Splits a list so that each part fits one multiport match; the order is kept.
pub(super) fn multiport(ports: &[PortRange]) -> Vec<Vec<PortRange>> {
    let mut lists: Vec<Vec<PortRange>> = Vec::new();
    let mut free = 0;
    for &range in ports {
        if range.multiport_slots() > free {
            lists.push(Vec::new());
            free = MULTIPORT_SLOTS;
        }
        free -= range.multiport_slots();
        if let Some(list) = lists.last_mut() {
            list.push(range);
        }
    }
    lists
}

/// The matches that together mean "TCP to one of these ports", and for each the port if it is about a single one.
/// Kuma writes a rule for each port; beyond 15 ports the packet path would feel it (25 ns a rule), so they share.
pub(super) fn tcp_to(ports: &[Port]) -> Vec<(Vec<Match>, Option<Port>)> {
    if ports.len() <= MULTIPORT_SLOTS {
        let one = |&port| (vec![Match::Protocol(Protocol::Tcp), Match::DestinationPort(port)], Some(port));
        return ports.iter().map(one).collect();
    }
    multiport(&merged(ports))
        .into_iter()
        .map(|ports| (vec![Match::DestinationPorts { protocol: Protocol::Tcp, ports }], None))
        .collect()
}

/// Sorted, without duplicates, three or more in a row as a range (two take as many places as a range does).
fn merged(ports: &[Port]) -> Vec<PortRange> {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut ranges: Vec<PortRange> = Vec::new();
    for port in sorted {
        match ranges.last_mut() {
            Some(range) if range.last.get() + 1 == port.get() => range.last = port,
            _ => ranges.push(port.into()),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn port() -> impl Strategy<Value = Port> {
        (1..=u16::MAX).prop_map(Port::of)
    }

    proptest! {
        #[test]
        fn no_part_is_too_long_and_none_is_lost(ports in prop::collection::vec((port(), port()), 0..200)) {
            let ranges: Vec<_> =
                ports.iter().map(|&(a, b)| PortRange { first: a.min(b), last: a.max(b) }).collect();
            let parts = multiport(&ranges);
            prop_assert!(parts.iter().all(|p| p.iter().map(|r| r.multiport_slots()).sum::<usize>() <= 15));
            prop_assert_eq!(parts.concat(), ranges);
        }

        #[test]
        fn merging_keeps_exactly_the_same_ports(ports in prop::collection::vec(port(), 16..300)) {
            let covered: std::collections::BTreeSet<u16> =
                merged(&ports).iter().flat_map(|r| r.first.get()..=r.last.get()).collect();
            prop_assert_eq!(covered, ports.iter().map(|p| p.get()).collect());
        }
    }

    #[test]
    fn a_thousand_scattered_ports_take_67_rules() {
        let ports: Vec<_> = (0..1000).map(|n| Port::of(2 * n + 1)).collect();
        assert_eq!(tcp_to(&ports).len(), 67);
    }
}
