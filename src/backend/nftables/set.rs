//! Sets: the lists of a configuration, as intervals of numbers. Pure.

use ipnet::IpNet;

use crate::config::values::{PortRange, UidRange};

use super::model::Interface;

/// Bytes of an interface name in the kernel, the final zero included (`IFNAMSIZ`).
const NAME_BYTES: usize = 16;

/// A set of intervals.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Set {
    /// Of what.
    pub key: Key,
    /// Sorted; they neither overlap nor touch.
    pub intervals: Vec<Interval>,
}

/// What a set's elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// `ipv4_addr`
    Ipv4,
    /// `ipv6_addr`
    Ipv6,
    /// `inet_service`
    Port,
    /// `uid`
    Uid,
    /// `ifname`
    Interface,
}

impl Key {
    /// Length in bytes.
    pub const fn width(self) -> usize {
        match self {
            Self::Ipv4 | Self::Uid => 4,
            Self::Ipv6 | Self::Interface => NAME_BYTES,
            Self::Port => 2,
        }
    }

    /// The largest value.
    pub const fn max(self) -> u128 {
        u128::MAX >> (128 - 8 * self.width())
    }
}

/// From a first to a last value, both included: an element's bytes read as one big-endian number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    /// The lowest.
    pub first: u128,
    /// The highest.
    pub last: u128,
}

impl Set {
    /// A set of these, those that overlap or touch merged.
    pub fn new(key: Key, intervals: impl IntoIterator<Item = Interval>) -> Self {
        Self { key, intervals: merged(intervals) }
    }

    /// Whether every value is in it, so that looking one up tells nothing.
    pub fn holds_everything(&self) -> bool {
        self.intervals == [Interval { first: 0, last: self.key.max() }]
    }
}

/// The same values in as few intervals as can be, sorted.
pub fn merged(intervals: impl IntoIterator<Item = Interval>) -> Vec<Interval> {
    let mut sorted: Vec<Interval> = intervals.into_iter().collect();
    sorted.sort_unstable();
    let mut merged: Vec<Interval> = Vec::with_capacity(sorted.len());
    for next in sorted {
        match merged.last_mut() {
            Some(last) if next.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(next.last);
            }
            _ => merged.push(next),
        }
    }
    merged
}

impl From<IpNet> for Interval {
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => {
                Self { first: net.network().to_bits().into(), last: net.broadcast().to_bits().into() }
            }
            IpNet::V6(net) => Self { first: net.network().to_bits(), last: net.broadcast().to_bits() },
        }
    }
}

impl From<PortRange> for Interval {
    fn from(ports: PortRange) -> Self {
        Self { first: ports.first.get().into(), last: ports.last.get().into() }
    }
}

impl From<UidRange> for Interval {
    fn from(uids: UidRange) -> Self {
        Self { first: uids.first.into(), last: uids.last.into() }
    }
}

impl From<&Interface> for Interval {
    /// A name ends with zeros, so a prefix covers every name from itself, followed by zeros, to itself, followed by
    /// the highest bytes.
    fn from(interface: &Interface) -> Self {
        let filled = |with: u8| {
            let mut bytes = [with; NAME_BYTES];
            for (byte, name) in bytes.iter_mut().zip(interface.name.bytes()) {
                *byte = name;
            }
            u128::from_be_bytes(bytes)
        };
        let first = filled(0);
        Self { first, last: if interface.prefix { filled(u8::MAX) } else { first } }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn merging_keeps_exactly_the_same_values(
            spans in prop::collection::vec((0_u128..300, 0_u128..20), 0..40),
        ) {
            let intervals = spans.iter().map(|&(first, more)| Interval { first, last: first + more });
            let set = Set::new(Key::Port, intervals.clone());
            for value in 0..330_u128 {
                let within = |interval: &Interval| (interval.first..=interval.last).contains(&value);
                prop_assert_eq!(set.intervals.iter().any(within), intervals.clone().any(|i| within(&i)));
            }
            prop_assert!(set.intervals.windows(2).all(|pair| pair[0].last + 1 < pair[1].first));
        }
    }

    #[test]
    fn an_interface_prefix_covers_the_names_that_begin_so() {
        let interval = |name: &str, prefix| Interval::from(&Interface { name: name.into(), prefix });
        let docker = interval("docker", true);
        for (name, inside) in [("docker", true), ("docker0", true), ("docke", false), ("dockes", false)] {
            let first = interval(name, false).first;
            assert_eq!((docker.first..=docker.last).contains(&first), inside, "{name}");
        }
    }
}
