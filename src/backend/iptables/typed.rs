//! The rules of ours as data again, each with the packets that it met. Pure.

use crate::config::values::Protocol;
use crate::plan::{BuiltinChain, ChainRef, Match, OwnChain, Table, Target};

use super::decode::Canonical;
use super::owned::Ownership;
use super::save::Saved;

/// A rule of ours that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedRule {
    /// The table.
    pub table: Table,
    /// The chain; ours are only ever in these.
    pub chain: ChainRef,
    /// What it says.
    pub rule: Canonical,
    /// How many packets it met, where that was asked for.
    pub packets: Option<u64>,
}

/// The rules of ours that can be read, table by table and chain by chain in the kernel's order.
pub fn own_rules(saved: &Saved, own: &Ownership) -> Vec<TypedRule> {
    own_rules_with(saved, own, |_| true)
}

/// Those of them whose words are of interest; what is not need not be understood.
pub fn own_rules_with(saved: &Saved, own: &Ownership, wanted: impl Fn(&str) -> bool) -> Vec<TypedRule> {
    let mut rules = Vec::new();
    for shared in &own.shared {
        let chain = [BuiltinChain::Prerouting, BuiltinChain::Output]
            .map(ChainRef::Builtin)
            .into_iter()
            .find(|chain| chain.name() == shared.chain);
        if !wanted(&shared.rule.args) {
            continue;
        }
        if let (Some(chain), Some(rule)) = (chain, Canonical::read(&shared.rule)) {
            rules.push(TypedRule { table: shared.table, chain, rule, packets: shared.rule.packets });
        }
    }
    for &name in &own.chains {
        let chain = saved.table(Table::Nat.name()).and_then(|nat| nat.chain(name.name()));
        let rules_of_it = chain.map(|chain| chain.rules.as_slice()).unwrap_or_default();
        for saved in rules_of_it.iter().filter(|rule| wanted(&rule.args)) {
            let foreign = own.intruders.iter().any(|(of, rule)| *of == name && rule == saved);
            if let Some(rule) = Canonical::read(saved).filter(|_| !foreign) {
                let chain = ChainRef::Own(name);
                rules.push(TypedRule { table: Table::Nat, chain, rule, packets: saved.packets });
            }
        }
    }
    rules
}

/// What a rule is there for, as far as it is worth counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Redirects to the sidecar's outbound port.
    Outbound,
    /// Redirects to its inbound port.
    Inbound,
    /// Redirects a DNS question.
    Dns,
    /// Leaves alone what the configuration excludes.
    Excluded,
    /// Drops what connection tracking calls INVALID.
    Invalid,
}

impl TypedRule {
    /// What it is there for.
    pub fn purpose(&self) -> Option<Purpose> {
        let has = |wanted: fn(&Match) -> bool| self.rule.matches().iter().any(wanted);
        let udp = has(|m| matches!(m, Match::Protocol(Protocol::Udp)));
        // An excluded network of every address is no condition.
        let all = self.rule.matches().is_empty();
        let to_ports = has(|m| matches!(m, Match::DestinationPort(_) | Match::DestinationPorts { .. }));
        match (self.table, self.chain, self.rule.target()) {
            (Table::Nat, ChainRef::Own(OwnChain::InboundRedirect), Target::Redirect(_)) => {
                Some(Purpose::Inbound)
            }
            // Until 2.12 kumactl redirected DNS over TCP there.
            (Table::Nat, ChainRef::Own(OwnChain::Outbound), Target::Redirect(_)) => Some(Purpose::Dns),
            (Table::Nat, ChainRef::Builtin(_), Target::Redirect(_)) if udp => Some(Purpose::Dns),
            (
                Table::Nat,
                ChainRef::Own(OwnChain::OutboundRedirect) | ChainRef::Builtin(BuiltinChain::Prerouting),
                Target::Redirect(_),
            ) => Some(Purpose::Outbound),
            (Table::Nat, ChainRef::Builtin(BuiltinChain::Output), Target::Return) => {
                let list = has(|m| matches!(m, Match::DestinationPorts { .. }));
                let net = has(|m| matches!(m, Match::Destination { negated: false, .. }));
                (list || net && !udp || all).then_some(Purpose::Excluded)
            }
            (Table::Nat, ChainRef::Own(OwnChain::Outbound), Target::Return) => {
                to_ports.then_some(Purpose::Excluded)
            }
            (Table::Nat, ChainRef::Own(OwnChain::Inbound), Target::Return) => {
                let from = has(|m| matches!(m, Match::Source(_) | Match::ForOtherHosts));
                (to_ports || from || all).then_some(Purpose::Excluded)
            }
            (Table::Mangle, _, Target::Drop) => Some(Purpose::Invalid),
            _ => None,
        }
    }

    /// The port that it redirects to.
    pub fn redirect_port(&self) -> Option<u16> {
        match self.rule.target() {
            Target::Redirect(port) => Some(port.get()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Purpose::{Dns, Excluded, Invalid, Outbound};
    use super::*;

    #[test]
    fn every_rule_has_its_purpose_and_packets() {
        let saved = Saved::parse(
            "*mangle\n:PREROUTING ACCEPT [0:0]\n\
             [9:1] -A PREROUTING -m conntrack --ctstate INVALID -m comment --comment kuma/mesh/transparent/proxy -j DROP\n\
             COMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:KUMA_MESH_INBOUND - [0:0]\n\
             :KUMA_MESH_OUTBOUND - [0:0]\n:KUMA_MESH_OUTBOUND_REDIRECT - [0:0]\n\
             [1:1] -A OUTPUT -p udp -m udp --dport 53 -m comment --comment kuma/mesh/transparent/proxy -j REDIRECT --to-ports 15053\n\
             [2:1] -A OUTPUT -d 10.0.0.0/8 -m comment --comment kuma/mesh/transparent/proxy -j RETURN\n\
             [7:1] -A OUTPUT -p udp -m udp --dport 53 -m owner --uid-owner 5678 -m comment --comment kuma/mesh/transparent/proxy -j RETURN\n\
             [3:1] -A KUMA_MESH_INBOUND -p tcp -m tcp --dport 22 -m comment --comment kuma/mesh/transparent/proxy -j RETURN\n\
             [5:1] -A KUMA_MESH_INBOUND -p tcp -j RETURN\n\
             [4:1] -A KUMA_MESH_OUTBOUND_REDIRECT -p tcp -m comment --comment kuma/mesh/transparent/proxy -j REDIRECT --to-ports 15001\n\
             COMMIT\n",
        );
        let own = Ownership::of(&saved, &[]);
        let found: Vec<_> =
            own_rules(&saved, &own).iter().map(|rule| (rule.purpose(), rule.packets.unwrap_or(0))).collect();
        assert_eq!(
            found,
            [
                (Some(Invalid), 9),
                (Some(Dns), 1),
                (Some(Excluded), 2),
                (None, 7),
                (Some(Excluded), 3),
                (Some(Outbound), 4)
            ]
        );
    }
}
