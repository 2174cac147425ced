//! Whether the sidecar listens where traffic is redirected to. Pure; who listens is asked elsewhere.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::plan::Family;

use super::model::{Listening, Ports, Who};

/// Traffic that a rule redirects: `outbound`, `inbound` or `dns`, of one family.
pub type Way = (&'static str, Family);

/// What an installation redirects of these families; `dns` says of which it redirects questions.
pub fn ways(families: &[Family], dns: impl Fn(Family) -> bool) -> Vec<Way> {
    let of = |&family: &Family| {
        let questions = dns(family).then_some(("dns", family));
        [("outbound", family), ("inbound", family)].into_iter().chain(questions)
    };
    families.iter().flat_map(of).collect()
}

/// A socket that takes what arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Over UDP instead of TCP.
    pub udp: bool,
    /// The families that it takes.
    pub families: Vec<Family>,
    /// Where it is bound.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The number of the one interface by which it takes traffic, 0 for all.
    pub interface: u32,
    /// Whose.
    pub uid: u32,
    /// Which process has it, asked for only when it matters.
    pub inode: u32,
}

/// ` at ADDRESS`, unless that stands for all.
pub fn place(address: &IpAddr) -> String {
    if address.is_unspecified() { String::new() } else { format!(" at {address}") }
}

/// Who listens where each of the ways leads: what nothing redirects there needs nobody. `sockets` is `None` where the
/// kernel does not tell, and `process` finds the process of a socket. `own`: this host's addresses, none where they are unknown.
pub fn listening(
    ports: Ports,
    ways: &[Way],
    sidecar: Option<u32>,
    sockets: Option<&[Socket]>,
    own: &BTreeSet<IpAddr>,
    process: impl Fn(u32) -> Option<String>,
) -> Vec<Listening> {
    let named =
        [("outbound", ports.outbound, false), ("inbound", ports.inbound, false), ("dns", ports.dns, true)];
    let mut all = Vec::new();
    for (name, port, udp) in named {
        let Some(port) = port else { continue };
        for family in Family::BOTH.into_iter().filter(|family| ways.contains(&(name, *family))) {
            let who = sockets.map_or(Who::Unknown, |sockets| {
                let here: Vec<_> = sockets
                    .iter()
                    .filter(|s| s.udp == udp && s.port == port && s.families.contains(&family))
                    .collect();
                who(Door { inbound: name == "inbound", family, own }, &here, sidecar, &process)
            });
            all.push(Listening { name, port, family, who });
        }
    }
    all
}

/// The loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;

/// Where traffic of one kind comes to.
#[derive(Clone, Copy)]
struct Door<'a> {
    inbound: bool,
    family: Family,
    own: &'a BTreeSet<IpAddr>,
}

impl Door<'_> {
    const fn localhost(self) -> IpAddr {
        match self.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        }
    }

    /// The addresses that redirected traffic comes to, as far as these sockets tell them apart; `None`: each other one.
    ///
    /// REDIRECT sends what local processes sent to the loopback address, and what arrived to the address of the interface
    /// that it came by (`nf_nat_redirect_ipv4` in the kernel).
    fn addresses(self, sockets: &[&Socket]) -> BTreeSet<Option<IpAddr>> {
        // What the sidecar sends to this host is redirected to the inbound port on loopback.
        let mut all = BTreeSet::from([Some(self.localhost())]);
        if self.inbound {
            let own = |address: &IpAddr| self.own.is_empty() || self.own.contains(address);
            let bound = sockets.iter().map(|socket| socket.address);
            all.extend(bound.filter(|a| !a.is_unspecified() && !a.is_loopback() && own(a)).map(Some));
            all.insert(None);
        }
        all
    }

    /// Those of the sockets of which the kernel chooses one for what comes to an address (`compute_score` in its
    /// `net/ipv4/udp.c` and `inet_hashtables.c`): bound to this address before bound to all, and then bound to the interface.
    /// Which one of equals takes something depends on when they were bound, on the CPU and on its sender.
    fn takers<'s>(self, sockets: &[&'s Socket], address: Option<IpAddr>) -> Vec<&'s Socket> {
        let is_local = address == Some(self.localhost());
        let rank = |socket: &Socket| {
            let specific = Some(socket.address) == address;
            let by = socket.interface;
            let takes =
                (specific || socket.address.is_unspecified()) && (by == 0 || (by == LOOPBACK) == is_local);
            takes.then_some((specific, by != 0))
        };
        let best = sockets.iter().filter_map(|socket| rank(socket)).max();
        sockets.iter().copied().filter(|socket| best.is_some() && rank(socket) == best).collect()
    }
}

fn who(
    door: Door<'_>,
    sockets: &[&Socket],
    sidecar: Option<u32>,
    process: &impl Fn(u32) -> Option<String>,
) -> Who {
    let mut reached = false;
    for address in door.addresses(sockets) {
        let takers = door.takers(sockets, address);
        let stranger = takers.iter().find(|socket| sidecar.is_some_and(|uid| uid != socket.uid));
        if let Some(&&Socket { address, uid, inode, .. }) = stranger {
            return Who::Other { address, uid, process: process(inode) };
        }
        reached |= !takers.is_empty() && (!door.inbound || address != Some(door.localhost()));
    }
    match sockets.first() {
        _ if reached => Who::Sidecar,
        Some(socket) => Who::Elsewhere(socket.address),
        None => Who::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(udp: bool, address: &str, port: u16, uid: u32) -> Socket {
        let address: IpAddr = address.parse().expect("an address");
        let families = match address {
            IpAddr::V4(_) => vec![Family::V4],
            IpAddr::V6(a) if a.is_unspecified() => Family::BOTH.to_vec(),
            IpAddr::V6(_) => vec![Family::V6],
        };
        Socket { udp, families, address, port, interface: 0, uid, inode: 1 }
    }

    fn own() -> BTreeSet<IpAddr> {
        ["127.0.0.1", "10.0.0.1", "10.0.0.2", "fd00::1"].map(|a| a.parse().expect("an address")).into()
    }

    fn of(sockets: &[Socket]) -> Vec<Who> {
        let ports = Ports { outbound: Some(1), inbound: Some(2), dns: Some(3) };
        let found =
            listening(ports, &ways(&Family::BOTH, |_| true), Some(5678), Some(sockets), &own(), |_| {
                Some("nginx".into())
            });
        found.into_iter().map(|l| l.who).collect()
    }

    #[test]
    fn every_port_and_family_is_told_apart() {
        let sockets = [
            socket(false, "::", 1, 5678),
            socket(false, "127.0.0.1", 2, 5678),
            socket(false, "fd00::1", 2, 0),
            socket(false, "0.0.0.0", 3, 5678),
            socket(true, "::1", 3, 5678),
        ];
        let address = "fd00::1".parse().expect("an address");
        let other = Who::Other { address, uid: 0, process: Some("nginx".into()) };
        let elsewhere = Who::Elsewhere("127.0.0.1".parse().expect("an address"));
        assert_eq!(of(&sockets), [Who::Sidecar, Who::Sidecar, elsewhere, other, Who::Nobody, Who::Sidecar]);
        assert_eq!(of(&[])[0], Who::Nobody);
    }

    #[test]
    fn the_socket_that_the_kernel_chooses_counts() {
        let bound = |socket: Socket, interface| Socket { interface, ..socket };
        // Whose IPv4 questions are, and at which address.
        let dns = |sockets: &[Socket]| match &of(sockets)[4] {
            Who::Other { address, uid, .. } => format!("{uid} {address}"),
            other => format!("{other:?}"),
        };
        let (ours, theirs) = (socket(true, "0.0.0.0", 3, 5678), socket(true, "127.0.0.1", 3, 7));
        assert_eq!(dns(&[ours.clone(), theirs.clone()]), "7 127.0.0.1");
        assert_eq!(dns(&[theirs.clone(), socket(true, "127.0.0.1", 3, 5678)]), "7 127.0.0.1", "equals");
        assert_eq!(dns(&[ours.clone(), socket(true, "0.0.0.0", 3, 7)]), "7 0.0.0.0");
        assert_eq!(dns(&[ours.clone(), socket(true, "::", 3, 7)]), "7 ::");
        assert_eq!(dns(&[socket(true, "0.0.0.0", 3, 7), socket(true, "127.0.0.1", 3, 5678)]), "Sidecar");
        assert_eq!(dns(&[ours.clone(), bound(socket(true, "0.0.0.0", 3, 7), LOOPBACK)]), "7 0.0.0.0");
        assert_eq!(dns(&[bound(ours.clone(), LOOPBACK), socket(true, "0.0.0.0", 3, 7)]), "Sidecar");
        // Nothing comes to these.
        for address in ["127.0.0.2", "10.0.0.1", "::1"] {
            assert_eq!(dns(&[ours.clone(), socket(true, address, 3, 7)]), "Sidecar", "{address}");
        }
        assert_eq!(dns(&[ours, bound(theirs, 2)]), "Sidecar");
        let elsewhere = dns(&[socket(true, "127.0.0.2", 3, 5678)]);
        assert_eq!(elsewhere, "Elsewhere(127.0.0.2)");
    }

    #[test]
    fn every_address_of_the_host_counts() {
        let inbound = |sockets: &[(&str, u32)]| {
            let sockets: Vec<_> = sockets.iter().map(|(at, uid)| socket(false, at, 2, *uid)).collect();
            match &of(&sockets)[2] {
                Who::Other { address, uid, .. } => format!("{uid} {address}"),
                other => format!("{other:?}"),
            }
        };
        let ours = ("10.0.0.1", 5678);
        assert_eq!(inbound(&[ours]), "Sidecar");
        assert_eq!(inbound(&[ours, ("10.0.0.2", 7)]), "7 10.0.0.2");
        // What the sidecar sends to its own host comes to loopback.
        assert_eq!(inbound(&[ours, ("127.0.0.1", 7)]), "7 127.0.0.1");
        assert_eq!(inbound(&[ours, ("127.0.0.2", 7)]), "Sidecar");
        // Every user can listen at an address that is not this host's (`IP_FREEBIND`).
        assert_eq!(inbound(&[ours, ("192.0.2.1", 7)]), "Sidecar");
        assert_eq!(inbound(&[("192.0.2.1", 5678)]), "Elsewhere(192.0.2.1)");
    }

    #[test]
    fn nobody_is_needed_where_nothing_is_redirected_to() {
        let ports = Ports { outbound: Some(1), inbound: None, dns: Some(3) };
        let asked = |ways: &[Way]| -> Vec<Way> {
            let found = listening(ports, ways, None, Some(&[]), &own(), |_| None);
            found.into_iter().map(|l| (l.name, l.family)).collect()
        };
        let four_asks = ways(&Family::BOTH, |family| family == Family::V4);
        assert_eq!(
            asked(&four_asks),
            [("outbound", Family::V4), ("outbound", Family::V6), ("dns", Family::V4)]
        );
        assert_eq!(asked(&[("inbound", Family::V4)]), []);
        assert_eq!(asked(&[]), []);
    }

    #[test]
    fn not_knowing_is_not_nobody() {
        let ports = Ports { outbound: Some(1), ..Ports::default() };
        let found = listening(ports, &[("outbound", Family::V4)], None, None, &own(), |_| None);
        assert_eq!(found[0].who, Who::Unknown);
    }
}
