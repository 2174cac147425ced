//! What rules tell apart: packets that stand for all others.

use std::collections::{BTreeSet, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::plan::Family;
use crate::rules::model::{Action, Chain, Field, Hook, Packet, Span, Test, Truth, Value};
use crate::rules::walk;
use crate::verify::flows::Road;

use super::TCP;

/// So many sources are taken from rules; bans may name thousands.
const SOURCES: usize = 16;
/// So many kinds of interfaces are told apart.
const ROADS: usize = 8;

/// Strangers, unless rules name them: documentation addresses, which are nobody's.
const STRANGERS_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(203, 0, 113, 77),
    Ipv4Addr::new(198, 51, 100, 77),
    Ipv4Addr::new(192, 0, 2, 77),
    Ipv4Addr::new(9, 9, 9, 77),
];
const STRANGERS_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x77),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0x77, 0, 0, 0, 0x77),
    Ipv6Addr::new(0x2a00, 0x77, 0, 0, 0, 0, 0, 0x77),
];

/// Whether a test is about the family or the protocol.
fn is_of_the_packet(test: &Test) -> bool {
    matches!(test, Test::Family { .. } | Test::In { field: Field::Protocol, .. })
}

/// What the rules that a packet at the hook can meet ask for.
pub struct Sample<'a> {
    /// How many rules that is.
    pub rules: usize,
    /// Whether anything there drops.
    pub drops: bool,
    /// Whether anything asks for the port before redirection.
    pub asks_original: bool,
    /// Ports that are named, by both ends of each range.
    pub ports: BTreeSet<u16>,
    sources: Vec<Span>,
    places: HashSet<&'a Test>,
}

impl<'a> Sample<'a> {
    /// Takes it from the chains that the hook `input` calls for a family, and those that they lead to.
    pub fn of(chains: &'a [Chain], family: Family) -> Self {
        let mut sample = Self {
            rules: 0,
            drops: false,
            asks_original: false,
            ports: BTreeSet::new(),
            sources: Vec::new(),
            places: HashSet::new(),
        };
        let tcp = Packet::new(family).with(Field::Protocol, Value::Is(TCP));
        for chain in walk::reachable(chains, Hook::Input, family) {
            sample.drops |= chain.called.is_some_and(|called| called.drops);
            sample.rules += chain.rules.len();
            for rule in &chain.rules {
                sample.drops |= rule.action == Action::Drop;
                let other =
                    rule.tests.iter().any(|test| is_of_the_packet(test) && test.holds(&tcp) == Truth::No);
                if !other {
                    rule.tests.iter().for_each(|test| sample.take(test, family));
                }
            }
        }
        let mut seen = HashSet::new();
        sample.sources.retain(|span| seen.insert((*span.start(), *span.end())));
        sample
    }

    fn take(&mut self, test: &'a Test, family: Family) {
        match test {
            Test::In { field: Field::Source, spans, .. } => {
                let of_family = |span: &&Span| (*span.end() <= u32::MAX.into()) == (family == Family::V4);
                self.sources.extend(spans.iter().filter(of_family).cloned());
            }
            Test::In { field: field @ (Field::DestinationPort | Field::OriginalPort), spans, .. } => {
                self.asks_original |= *field == Field::OriginalPort;
                let ends = spans.iter().flat_map(|span| [*span.start(), *span.end()]);
                self.ports.extend(ends.filter_map(|end| u16::try_from(end).ok()).filter(|port| *port != 0));
            }
            Test::In { field: Field::Destination | Field::InIndex, .. }
            | Test::Interface { leaving: false, .. } => {
                self.places.insert(test);
            }
            Test::AnyOf { tests, .. } => tests.iter().for_each(|test| self.take(test, family)),
            _ => {}
        }
    }

    /// One of those roads that no rule tells apart. `packet` arrives by a road.
    pub fn distinct(&self, roads: &[Road], packet: impl Fn(&Road) -> Packet) -> Vec<Road> {
        let mut seen: HashSet<Vec<bool>> = HashSet::new();
        let mut kept = Vec::new();
        for road in roads {
            let packet = packet(road);
            let met = self.places.iter().map(|test| test.holds(&packet) == Truth::Yes).collect();
            if kept.len() < ROADS && seen.insert(met) {
                kept.push(road.clone());
            }
        }
        kept
    }

    /// Whose connections are tried: a stranger's, and of each network that a rule names somebody's. None of `without`.
    pub fn sources(&self, family: Family, without: &[Span]) -> Vec<u128> {
        let strangers: Vec<u128> = match family {
            Family::V4 => STRANGERS_V4.iter().map(|addr| u32::from(*addr).into()).collect(),
            Family::V6 => STRANGERS_V6.iter().map(|addr| u128::from(*addr)).collect(),
        };
        let allowed = |addr: &u128| !without.iter().any(|span| span.contains(addr));
        let named = |addr: u128| self.sources.iter().filter(|span| span.contains(&addr)).count();
        // Who is in the fewest networks stands best for those who are in no other.
        let least = |all: &[u128]| all.iter().copied().filter(allowed).min_by_key(|addr| named(*addr));
        let somebody = |span: &Span| {
            let middle = span.start() + (span.end() - span.start()) / 2;
            least(&[middle, *span.start(), *span.end()])
        };
        let mut found: Vec<u128> = least(&strangers).into_iter().collect();
        for source in self.sources.iter().take(SOURCES).filter_map(somebody) {
            if !found.contains(&source) {
                found.push(source);
            }
        }
        found
    }
}
