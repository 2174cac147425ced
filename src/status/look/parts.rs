//! Parts of a report that are the same whatever keeps the rules, and those that iptables' rules tell.

use crate::backend::iptables::situation::Situation;
use crate::backend::iptables::tools::Variant;
use crate::backend::iptables::typed::{Purpose, TypedRule};
use crate::config::values::Protocol;
use crate::host;
use crate::plan::Family;

use super::super::listen::{self, Socket};
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

/// Who listens on the sidecar's ports.
pub fn listeners(ports: Ports, families: &[Family], sidecar: u32) -> Vec<Listening> {
    let wanted = [ports.outbound, ports.inbound, ports.dns];
    let mut sockets = sockets();
    for socket in sockets.iter_mut().flatten().filter(|socket| wanted.contains(&Some(socket.port))) {
        if socket.uid != sidecar {
            socket.uid = host::owners::sender(socket.uid, socket.inode);
        }
    }
    listen::listening(ports, families, Some(sidecar), sockets.as_deref(), |inode| {
        crate::sys::socket_holder(inode).map(|holder| holder.to_string())
    })
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
                } else {
                    vec![family]
                },
                address: listener.address,
                port: listener.port,
                uid: listener.uid,
                inode: listener.inode,
            }));
        }
    }
    Some(all)
}
