//! What a plan's rules do to a packet, as iptables does it: in each table the chain of the hook, which everybody
//! shares, from its head to its tail.

use tproxy::config::values::Port;
use tproxy::plan::{
    BuiltinChain, ChainRef, FamilyPlan, Match, PlacedRule, Placement, Plan, Rule, Table, Target,
};

use super::packet::{Fate, Packet, Translation};

/// What the plan does.
pub struct Outcome {
    pub fate: Fate,
    /// A rule at the head of the shared chain let the packet go, past everybody's rules behind it.
    pub past_everybody: bool,
}

pub fn outcome(plan: &Plan, packet: &Packet) -> Outcome {
    let family = plan.families.iter().find(|family| family.family == packet.family());
    let mut walk = Walk { family, packet, fate: Fate::default() };
    let mut past_everybody = false;
    for table in [Table::Raw, Table::Mangle] {
        let rules = walk.rules(table, ChainRef::Builtin(packet.hook));
        for placement in [Placement::Head, Placement::Tail] {
            if let End::Dropped = walk.chain(rules, table, Some(placement)) {
                walk.fate.dropped = true;
                return Outcome { fate: walk.fate, past_everybody };
            }
        }
    }
    if !packet.invalid {
        let rules = walk.rules(Table::Nat, ChainRef::Builtin(packet.hook));
        walk.fate.translation = match walk.chain(rules, Table::Nat, Some(Placement::Head)) {
            End::Redirected(port) => Translation::Redirected(port),
            End::Theirs => Translation::Theirs,
            End::Returned => {
                past_everybody = true;
                Translation::None
            }
            _ if packet.theirs => Translation::Theirs,
            _ => match walk.chain(rules, Table::Nat, Some(Placement::Tail)) {
                End::Redirected(port) => Translation::Redirected(port),
                _ => Translation::None,
            },
        };
    }
    Outcome { fate: walk.fate, past_everybody }
}

/// How a chain ended.
enum End {
    /// Behind its last rule.
    Passed,
    Returned,
    Redirected(Port),
    Theirs,
    Dropped,
}

struct Walk<'a> {
    family: Option<&'a FamilyPlan>,
    packet: &'a Packet,
    fate: Fate,
}

impl<'a> Walk<'a> {
    fn rules(&self, table: Table, chain: ChainRef) -> &'a [PlacedRule] {
        let table = self.family.and_then(|family| family.tables.iter().find(|plan| plan.table == table));
        let found = table.and_then(|table| table.chains.iter().find(|(of, _)| *of == chain));
        found.map(|(_, rules)| rules.as_slice()).unwrap_or_default()
    }

    /// The rules of a chain, or only those at its head or its tail.
    fn chain(&mut self, rules: &'a [PlacedRule], table: Table, only: Option<Placement>) -> End {
        let rules = rules.iter().filter(|placed| only.is_none_or(|only| placed.placement == only));
        for PlacedRule { rule, .. } in rules {
            if !meets(rule, self.packet) {
                continue;
            }
            match &rule.target {
                Target::Return => return End::Returned,
                Target::Jump(own) => {
                    let rules = self.rules(table, ChainRef::Own(*own));
                    match self.chain(rules, table, None) {
                        End::Passed | End::Returned => {}
                        end => return end,
                    }
                }
                Target::DockerOutput if self.packet.is_for_docker() => return End::Theirs,
                Target::DockerOutput => {}
                Target::Redirect(port) => return End::Redirected(*port),
                // A packet that has a zone keeps it, and goes on (`xt_ct_target`).
                Target::CtZone(zone) => {
                    self.fate.zone.get_or_insert(*zone);
                }
                Target::Drop => return End::Dropped,
                Target::Log { prefix, level } => self.fate.logged.push(((*prefix).to_owned(), *level)),
            }
        }
        End::Passed
    }
}

fn meets(rule: &Rule, packet: &Packet) -> bool {
    let arriving = packet.hook == BuiltinChain::Prerouting;
    rule.matches.iter().all(|condition| match condition {
        Match::Protocol(protocol) | Match::Explicit(protocol) => packet.protocol == Some(*protocol),
        Match::Source(net) => net.net().contains(&packet.source.ip()),
        Match::Destination { net, negated } => net.net().contains(&packet.destination.ip()) != *negated,
        Match::ForOtherHosts => !packet.here,
        Match::InInterface(pattern) => arriving && named(pattern, &packet.interface),
        Match::OutInterface(pattern) => !arriving && named(pattern, &packet.interface),
        Match::SourcePort(port) => packet.source.port() == port.get(),
        Match::DestinationPort(port) => packet.destination.port() == port.get(),
        Match::DestinationPorts { protocol, ports } => {
            packet.protocol == Some(*protocol)
                && ports
                    .iter()
                    .any(|range| (range.first.get()..=range.last.get()).contains(&packet.destination.port()))
        }
        Match::NotOriginalDestination(net) => !net.net().contains(&packet.destination.ip()),
        // `owner_mt`: without a socket nothing but a negated match holds.
        Match::Owner { uids, negated } => {
            packet.owner.is_some_and(|uid| (uids.first..=uids.last).contains(&uid)) != *negated
        }
        Match::Invalid => packet.invalid,
    })
}

fn named(pattern: &str, interface: &str) -> bool {
    match pattern.strip_suffix('+') {
        Some(beginning) => interface.starts_with(beginning),
        None => interface == pattern,
    }
}
