//! Many rules that differ in one value become one rule and a set of the values.
//!
//! Which values are a list, and what the list is called, is known from where the rule is and what it does. Which rules
//! are joined is decided next door.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use ipnet::IpNet;

use crate::config::values::{PortRange, Protocol, UidRange};
use crate::plan::{BuiltinChain, ChainRef, Family, Match, OwnChain, Rule, Table, Target, link_local};

use super::super::model::{End, Statement, Test};
use super::super::set::{Interval, Key, Set};
use super::names::Sets;
use super::{interface, is, same_protocol, sentence};

/// How the names of sets begin.
pub(super) const NAMES: [&str; 4] = ["excluded_", "included_", "resolvers_", "vnet_"];

/// A rule on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Draft {
    pub conditions: Vec<Condition>,
    pub target: Target,
    pub why: &'static str,
    /// The conditions whose values are of a list, in the order in which rules are to be joined by them.
    lists: Vec<usize>,
}

/// A condition on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Condition {
    /// As planned.
    Plain(Match),
    /// The value is one of several.
    List { of: Dimension, values: Vec<Interval>, negated: bool, name: String },
    /// The same, but written into the rule when it is one value or one range.
    Short { of: Dimension, values: Vec<Interval>, name: String },
}

/// What a list is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Dimension {
    Address(End),
    Port(End),
    Owner,
    Interface,
}

/// A condition, lowered.
pub(super) enum Lowered {
    Statement(Statement),
    /// Not of this owner, where the statement says "of this owner".
    NotOwner(Statement),
    Nothing,
}

impl Draft {
    /// Finds the lists in a rule.
    pub fn new(table: Table, chain: ChainRef, rule: &Rule) -> Self {
        let mut draft = Self {
            conditions: rule.matches.iter().cloned().map(Condition::Plain).collect(),
            target: rule.target.clone(),
            why: sentence::of(chain, rule),
            lists: Vec::new(),
        };
        let output = ChainRef::Builtin(BuiltinChain::Output);
        match (table, chain, &rule.target, rule.matches.as_slice()) {
            (
                Table::Nat,
                _,
                Target::Return,
                [Match::DestinationPorts { protocol, ports }, Match::Owner { uids, negated: false }],
            ) if chain == output => {
                let protocol = *protocol;
                draft.conditions = vec![
                    Condition::Plain(Match::Protocol(protocol)),
                    Condition::Short {
                        of: Dimension::Port(End::Destination),
                        values: ports.iter().map(|&range| range.into()).collect(),
                        name: format!("excluded_uids_ports_{protocol}"),
                    },
                    list(Dimension::Owner, [(*uids).into()], format!("excluded_uids_{protocol}")),
                ];
                draft.lists = vec![1, 2];
            }
            (Table::Nat, _, Target::Return, [Match::Destination { net, negated: false }])
                if chain == output =>
            {
                draft.list_addresses(0, End::Destination, net.net(), "excluded_outbound");
            }
            (Table::Nat, ChainRef::Own(OwnChain::Inbound), Target::Return, [Match::Source(net)]) => {
                draft.list_addresses(0, End::Source, net.net(), "excluded_inbound");
            }
            (Table::Nat, ChainRef::Own(own), Target::Return | Target::Jump(_), matches) => {
                if let Some(ports) = tcp_ports(matches) {
                    draft.list_ports(own, &ports);
                }
            }
            (Table::Nat, _, Target::Redirect(_), [Match::Destination { net, negated: false }, ..])
                if chain == output =>
            {
                draft.list_addresses(0, End::Destination, net.net(), "resolvers");
            }
            (Table::Nat, _, Target::Redirect(_), matches) => draft.list_left_out(matches),
            (Table::Raw, _, Target::CtZone(_), [Match::Source(net), _, Match::SourcePort(_)])
                if *net != link_local() =>
            {
                draft.list_addresses(0, End::Source, net.net(), "resolvers");
            }
            (
                Table::Raw,
                _,
                Target::CtZone(_),
                [Match::Destination { net, negated: false }, _, Match::DestinationPort(_)],
            ) if *net != link_local() => {
                draft.list_addresses(0, End::Destination, net.net(), "resolvers");
            }
            (Table::Raw, _, Target::CtZone(_), [Match::InInterface(pattern), ..]) => {
                let values = [Interval::from(&interface(pattern))];
                draft.conditions[0] = list(Dimension::Interface, values, "vnet_interfaces".to_owned());
                draft.lists = vec![0];
            }
            _ => {}
        }
        draft
    }

    fn list_addresses(&mut self, index: usize, end: End, net: IpNet, name: &str) {
        let family = match net {
            IpNet::V4(_) => "ipv4",
            IpNet::V6(_) => "ipv6",
        };
        self.conditions[index] = list(Dimension::Address(end), [net.into()], format!("{name}_{family}"));
        self.lists = vec![index];
    }

    fn list_ports(&mut self, own: OwnChain, ports: &[PortRange]) {
        let direction = if own == OwnChain::Inbound { "inbound" } else { "outbound" };
        let verb = if self.target == Target::Return { "excluded" } else { "included" };
        let values: Vec<Interval> = ports.iter().map(|&range| range.into()).collect();
        let name = format!("{verb}_{direction}_ports");
        self.conditions = vec![
            Condition::Plain(Match::Protocol(Protocol::Tcp)),
            list(Dimension::Port(End::Destination), values, name),
        ];
        self.lists = vec![1];
    }

    /// Several networks that one rule leaves out become one list.
    fn list_left_out(&mut self, matches: &[Match]) {
        let left_out = |m: &Match| match m {
            Match::Destination { net, negated: true } | Match::NotOriginalDestination(net) => Some(net.net()),
            _ => None,
        };
        let nets: Vec<IpNet> = matches.iter().filter_map(left_out).collect();
        let Some(first) = nets.first() else { return };
        let family = if matches!(first, IpNet::V4(_)) { "ipv4" } else { "ipv6" };
        let mut conditions = vec![Condition::List {
            of: Dimension::Address(End::Destination),
            values: nets.iter().map(|&net| net.into()).collect(),
            negated: true,
            name: format!("vnet_networks_{family}"),
        }];
        conditions.extend(matches.iter().filter(|m| left_out(m).is_none()).cloned().map(Condition::Plain));
        self.conditions = conditions;
    }

    /// Whether some packet can meet both; `true` where that is not plain to see.
    pub fn can_meet(&self, other: &Self) -> bool {
        same_protocol(self.protocol(), other.protocol())
            && [End::Source, End::Destination].into_iter().all(|end| {
                self.addresses(end)
                    .iter()
                    .all(|mine| other.addresses(end).iter().all(|theirs| overlap(mine, theirs)))
            })
    }

    fn protocol(&self) -> Option<Protocol> {
        self.conditions.iter().find_map(|condition| match condition {
            Condition::Plain(Match::Protocol(protocol) | Match::DestinationPorts { protocol, .. }) => {
                Some(*protocol)
            }
            _ => None,
        })
    }

    /// For each condition on an address, the values that meet it.
    fn addresses(&self, end: End) -> Vec<Vec<Interval>> {
        let values = |condition: &Condition| match (condition, end) {
            (Condition::Plain(Match::Source(net)), End::Source)
            | (Condition::Plain(Match::Destination { net, negated: false }), End::Destination) => {
                Some(vec![net.net().into()])
            }
            (Condition::List { of: Dimension::Address(of), values, negated: false, .. }, _) if *of == end => {
                Some(values.clone())
            }
            _ => None,
        };
        self.conditions.iter().filter_map(values).collect()
    }

    /// What rules have in common that differ in their list number `nth` alone; `None` without such a list.
    pub fn likeness(&self, nth: usize) -> Option<u64> {
        let at = *self.lists.get(nth)?;
        let (Condition::List { of, name, .. } | Condition::Short { of, name, .. }) =
            self.conditions.get(at)?
        else {
            return None;
        };
        let mut hasher = DefaultHasher::new();
        (&self.lists, &self.target, self.why, of, name).hash(&mut hasher);
        for (index, condition) in self.conditions.iter().enumerate().filter(|(index, _)| *index != at) {
            (index, condition).hash(&mut hasher);
        }
        Some(hasher.finish())
    }

    /// Takes the values of another rule that differs in its list number `nth` alone.
    pub fn join(&mut self, other: &Self, nth: usize) -> bool {
        let Some(&at) = self.lists.get(nth) else { return false };
        let alike = other.lists == self.lists
            && other.target == self.target
            && other.why == self.why
            && other.conditions.len() == self.conditions.len()
            && self
                .conditions
                .iter()
                .zip(&other.conditions)
                .enumerate()
                .all(|(index, (a, b))| index == at || a == b);
        if !alike {
            return false;
        }
        match (&mut self.conditions[at], &other.conditions[at]) {
            (
                Condition::List { values, of, name, .. } | Condition::Short { values, of, name },
                Condition::List { values: more, of: other_of, name: other_name, .. }
                | Condition::Short { values: more, of: other_of, name: other_name },
            ) if of == other_of && name == other_name => {
                values.extend(more);
                true
            }
            _ => false,
        }
    }
}

impl Condition {
    /// As a statement; a list's set is put into `sets`.
    pub fn statement(self, family: Family, sets: &mut Sets) -> Lowered {
        Lowered::Statement(match self {
            Self::Plain(planned) => return plain(planned),
            Self::Short { of: Dimension::Port(end), values, name } => match Set::new(Key::Port, values) {
                set if set.intervals.len() == 1 => match port_range(set.intervals[0]) {
                    Some(range) => Statement::Port(end, Test::Is(range)),
                    None => Statement::Port(end, Test::In(sets.name(name, set))),
                },
                set => Statement::Port(end, Test::In(sets.name(name, set))),
            },
            Self::Short { of, values, name } => {
                return Self::List { of, values, negated: false, name }.statement(family, sets);
            }
            Self::List { of, values, negated, name } => {
                let key = match (of, family) {
                    (Dimension::Address(_), Family::V4) => Key::Ipv4,
                    (Dimension::Address(_), Family::V6) => Key::Ipv6,
                    (Dimension::Port(_), _) => Key::Port,
                    (Dimension::Owner, _) => Key::Uid,
                    (Dimension::Interface, _) => Key::Interface,
                };
                let set = Set::new(key, values);
                if of == Dimension::Interface && !negated && set.holds_everything() {
                    return Lowered::Nothing;
                }
                let name = sets.name(name, set);
                match of {
                    Dimension::Address(end) => Statement::Address(end, among(name, negated)),
                    Dimension::Port(end) => Statement::Port(end, among(name, negated)),
                    Dimension::Owner => Statement::Owner(among(name, negated)),
                    Dimension::Interface => Statement::Interface(End::Source, among(name, negated)),
                }
            }
        })
    }
}

fn list(of: Dimension, values: impl IntoIterator<Item = Interval>, name: String) -> Condition {
    Condition::List { of, values: values.into_iter().collect(), negated: false, name }
}

fn among<T>(name: String, negated: bool) -> Test<T> {
    if negated { Test::NotIn(name) } else { Test::In(name) }
}

/// The ports, if a rule is about TCP ports and nothing else.
fn tcp_ports(matches: &[Match]) -> Option<Vec<PortRange>> {
    match matches {
        [Match::Protocol(Protocol::Tcp), Match::DestinationPort(port)] => Some(vec![(*port).into()]),
        [Match::DestinationPorts { protocol: Protocol::Tcp, ports }] => Some(ports.clone()),
        _ => None,
    }
}

fn port_range(interval: Interval) -> Option<PortRange> {
    let port = |value: u128| u16::try_from(value).ok().and_then(|number| number.try_into().ok());
    Some(PortRange { first: port(interval.first)?, last: port(interval.last)? })
}

fn plain(planned: Match) -> Lowered {
    Lowered::Statement(match planned {
        Match::Protocol(protocol) => Statement::Protocol(protocol),
        Match::Source(net) => Statement::Address(End::Source, Test::Is(net.net().trunc())),
        Match::Destination { net, negated } => {
            Statement::Address(End::Destination, is(net.net().trunc(), negated))
        }
        // Address translation has not happened where this is asked, so the destination is still the first one.
        Match::NotOriginalDestination(net) => {
            Statement::Address(End::Destination, Test::IsNot(net.net().trunc()))
        }
        // Every name begins with nothing, and to the kernel a comparison with nothing is a mistake.
        Match::InInterface(pattern) | Match::OutInterface(pattern) if pattern == "+" => {
            return Lowered::Nothing;
        }
        Match::InInterface(pattern) => Statement::Interface(End::Source, Test::Is(interface(&pattern))),
        Match::OutInterface(pattern) => Statement::Interface(End::Destination, Test::Is(interface(&pattern))),
        Match::SourcePort(port) => Statement::Port(End::Source, Test::Is(port.into())),
        Match::DestinationPort(port) => Statement::Port(End::Destination, Test::Is(port.into())),
        Match::DestinationPorts { ports, .. } => {
            // Every rule with a list of ports is one of a list; see `Draft::new`.
            debug_assert!(false, "ports that are not of a list: {ports:?}");
            return Lowered::Nothing;
        }
        Match::Explicit(_) => return Lowered::Nothing,
        Match::Owner { uids, negated: true } => return Lowered::NotOwner(owner(uids)),
        Match::Owner { uids, negated: false } => owner(uids),
        Match::ForOtherHosts => Statement::ForOtherHosts,
        Match::Invalid => Statement::Invalid,
    })
}

fn owner(uids: UidRange) -> Statement {
    Statement::Owner(Test::Is(uids))
}

fn overlap(one: &[Interval], other: &[Interval]) -> bool {
    one.iter().any(|a| other.iter().any(|b| a.first <= b.last && b.first <= a.last))
}
