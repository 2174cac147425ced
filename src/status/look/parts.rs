//! Parts of a report that are the same whatever keeps the rules, and those that iptables' rules tell.

use std::collections::BTreeSet;

use crate::backend::iptables::situation::Situation;
use crate::backend::iptables::tools::Variant;
use crate::backend::iptables::typed::{Purpose, TypedRule};
use crate::config::values::Protocol;
use crate::host;
use crate::plan::{ChainRef, Family, Table, Target};

use super::super::listen::{self, Socket, Way};
use super::super::model::{FamilyReport, Hits, Listening, Ports, Sidecar};

pub fn sidecar(uid: u32) -> Sidecar {
    let spec = uid.to_string().parse().ok();
    let user = spec.and_then(|spec| host::sidecar_user(Some(&spec), false).ok());
    Sidecar { uid, name: user.and_then(|user| user.name) }
}

pub fn families(situation: &Situation) -> Vec<FamilyReport> {
    let counts = situation.own_rule_counts();
    Family::BOTH
        .into_iter()
        .filter_map(|family| {
            let foreign: usize = situation
                .ownership()
                .filter(|((_, of), _)| *of == family)
                .map(|(_, own)| own.intruders.len())
                .sum();
            let rules = counts.get(&family).copied()?.saturating_sub(foreign);
            if rules == 0 {
                return None;
            }
            let all = Variant::BOTH.into_iter().flat_map(|variant| situation.own_rules((variant, family)));
            Some(FamilyReport { family, rules, hits: hits(all) })
        })
        .collect()
}

/// The ports to which these rules redirect, whatever is wanted.
pub fn ports(rules: &[(Family, Vec<TypedRule>)]) -> Ports {
    let of = |purpose| {
        let all = rules.iter().flat_map(|(_, rules)| rules);
        all.filter(|rule| rule.purpose() == Some(purpose)).find_map(TypedRule::redirect_port)
    };
    Ports { outbound: of(Purpose::Outbound), inbound: of(Purpose::Inbound), dns: of(Purpose::Dns) }
}

fn hits(rules: impl Iterator<Item = TypedRule>) -> Hits {
    rules.fold(Hits::default(), |hits, rule| {
        let packets = rule.packets;
        let none = Hits::default();
        hits.plus(match rule.purpose() {
            Some(Purpose::Outbound) => Hits { outbound: packets, ..none },
            Some(Purpose::Inbound) => Hits { inbound: packets, ..none },
            Some(Purpose::Dns) => Hits { dns: packets, ..none },
            Some(Purpose::Excluded) => Hits { excluded: packets, ..none },
            Some(Purpose::Invalid) => Hits { invalid_dropped: packets, ..none },
            None => none,
        })
    })
}

/// What meets a rule of ours that redirects it. A foreign rule may lead to our chains in place of one of ours.
pub fn live(rules: &[(Family, Vec<TypedRule>)], situation: &Situation) -> Vec<Way> {
    let led = |family| situation.jumps().iter().any(|((_, of), _)| *of == family);
    rules.iter().flat_map(|(family, rules)| ways_of(*family, rules, led(*family))).collect()
}

/// The same of one family; `led`: foreign rules lead to our chains.
fn ways_of(family: Family, rules: &[TypedRule], led: bool) -> Vec<Way> {
    let nat = || rules.iter().filter(|rule| rule.table == Table::Nat);
    let mut open: Vec<ChainRef> =
        nat().map(|rule| rule.chain).filter(|chain| led || matches!(chain, ChainRef::Builtin(_))).collect();
    let mut next = 0;
    while let Some(&chain) = open.get(next) {
        next += 1;
        for rule in nat().filter(|rule| rule.chain == chain) {
            if let Target::Jump(to) = rule.rule.target()
                && !open.contains(&ChainRef::Own(*to))
            {
                open.push(ChainRef::Own(*to));
            }
        }
    }
    let name = |rule: &TypedRule| match rule.purpose() {
        Some(Purpose::Outbound) => Some("outbound"),
        Some(Purpose::Inbound) => Some("inbound"),
        Some(Purpose::Dns) => Some("dns"),
        _ => None,
    };
    let met = nat().filter(|rule| open.contains(&rule.chain));
    met.filter_map(name).map(|name| (name, family)).collect()
}

/// Who listens on those of the sidecar's ports to which these ways lead.
pub fn listeners(ports: Ports, ways: &[Way], sidecar: u32) -> Vec<Listening> {
    let wanted = [ports.outbound, ports.inbound, ports.dns];
    let mut sockets = sockets();
    let is_asked_for = |socket: &Socket| wanted.contains(&Some(socket.port)) && socket.uid != sidecar;
    let asked_for = sockets.iter().flatten().filter(|socket| is_asked_for(socket));
    let senders = host::owners::Senders::of(asked_for.map(|socket| (socket.inode, socket.uid)));
    for socket in sockets.iter_mut().flatten().filter(|socket| is_asked_for(socket)) {
        socket.uid = senders.user(socket.inode, socket.uid);
    }
    // They matter only where somebody listens at one of them.
    let is_bound = |socket: &Socket| {
        let address = socket.address;
        Some(socket.port) == ports.inbound && !address.is_unspecified() && !address.is_loopback()
    };
    let own =
        if sockets.iter().flatten().any(is_bound) { host::own_addresses() } else { BTreeSet::default() };
    listen::listening(ports, ways, Some(sidecar), sockets.as_deref(), &own, |inode| senders.process(inode))
}

/// Every listening socket; `None` where neither netlink nor `/proc` tells.
pub(in crate::status) fn sockets() -> Option<Vec<Socket>> {
    let mut all = Vec::new();
    for (protocol, udp) in [(Protocol::Tcp, false), (Protocol::Udp, true)] {
        for family in Family::BOTH {
            all.extend(host::listeners(protocol, family).ok()?.into_iter().map(|listener| Socket {
                udp,
                families: if listener.both_families && listener.address.is_unspecified() {
                    Family::BOTH.to_vec()
                } else if listener.address.is_ipv4() {
                    vec![Family::V4]
                } else {
                    vec![family]
                },
                address: listener.address,
                port: listener.port,
                interface: listener.interface,
                uid: listener.uid,
                inode: listener.inode,
            }));
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::iptables::owned::Ownership;
    use crate::backend::iptables::save::Saved;
    use crate::backend::iptables::typed::own_rules;

    /// What is redirected by these rules.
    fn redirected(rules: &str, led: bool) -> Vec<&'static str> {
        let mut text = String::from("*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n");
        for chain in ["INBOUND", "INBOUND_REDIRECT", "OUTBOUND", "OUTBOUND_REDIRECT"] {
            text.extend([":KUMA_MESH_", chain, " - [0:0]\n"]);
        }
        for rule in rules.lines() {
            let (rule, target) = rule.split_once(" -j ").unwrap();
            let tag = " -m comment --comment kuma/mesh/transparent/proxy -j ";
            text.extend(["-A ", rule, tag, target, "\n"]);
        }
        let saved = Saved::parse(&(text + "COMMIT\n"));
        let rules = own_rules(&saved, &Ownership::of(&saved, &[]));
        ways_of(Family::V4, &rules, led).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn what_no_hook_leads_to_is_not_redirected() {
        let chains = "KUMA_MESH_INBOUND -p tcp -j KUMA_MESH_INBOUND_REDIRECT\n\
                      KUMA_MESH_INBOUND_REDIRECT -p tcp -j REDIRECT --to-ports 15006\n\
                      KUMA_MESH_OUTBOUND -j KUMA_MESH_OUTBOUND_REDIRECT\n\
                      KUMA_MESH_OUTBOUND_REDIRECT -p tcp -j REDIRECT --to-ports 15001\n";
        let inbound = "PREROUTING -p tcp -j KUMA_MESH_INBOUND\n";
        let outbound = "OUTPUT -p tcp -j KUMA_MESH_OUTBOUND\n";
        let dns = "OUTPUT -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053\n";
        let of = |heads: &[&str]| {
            let mut found = redirected(&(heads.concat() + chains), false);
            found.sort_unstable();
            found
        };
        assert_eq!(of(&[inbound, dns, outbound]), ["dns", "inbound", "outbound"]);
        assert_eq!(of(&[inbound, outbound]), ["inbound", "outbound"]);
        assert_eq!(of(&[outbound]), ["outbound"]);
        assert!(of(&[]).is_empty() && redirected("", true).is_empty());
        assert_eq!(redirected(chains, true).len(), 2);
    }
}
