//! Whether the sidecar listens where traffic is redirected to. Pure; who listens is asked elsewhere.

use std::net::IpAddr;

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
    /// Whose.
    pub uid: u32,
    /// Which process has it, asked for only when it matters.
    pub inode: u32,
}

/// Who listens where each of the ways leads: what nothing redirects there needs nobody. `sockets` is `None` where the
/// kernel does not tell, and `process` finds the process of a socket.
pub fn listening(
    ports: Ports,
    ways: &[Way],
    sidecar: Option<u32>,
    sockets: Option<&[Socket]>,
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
                who(name, &here, sidecar, &process)
            });
            all.push(Listening { name, port, family, who });
        }
    }
    all
}

fn who(
    name: &str,
    sockets: &[&Socket],
    sidecar: Option<u32>,
    process: &impl Fn(u32) -> Option<String>,
) -> Who {
    // REDIRECT sends what local processes sent to the loopback address, and what arrived to the address of the
    // interface that it came by (`nf_nat_redirect_ipv4` in the kernel).
    let takes = |socket: &&&Socket| {
        let address = socket.address;
        address.is_unspecified() || (name == "inbound") != address.is_loopback()
    };
    let taking: Vec<_> = sockets.iter().filter(takes).collect();
    if taking.iter().any(|socket| sidecar.is_none_or(|uid| uid == socket.uid)) {
        return Who::Sidecar;
    }
    match (taking.first(), sockets.first()) {
        (Some(socket), _) => Who::Other { uid: socket.uid, process: process(socket.inode) },
        (None, Some(socket)) => Who::Elsewhere(socket.address),
        (None, None) => Who::Nobody,
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
        Socket { udp, families, address, port, uid, inode: 1 }
    }

    fn of(sockets: &[Socket]) -> Vec<Who> {
        let ports = Ports { outbound: Some(1), inbound: Some(2), dns: Some(3) };
        let found = listening(ports, &ways(&Family::BOTH, |_| true), Some(5678), Some(sockets), |_| {
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
        let other = Who::Other { uid: 0, process: Some("nginx".into()) };
        let elsewhere = Who::Elsewhere("127.0.0.1".parse().expect("an address"));
        assert_eq!(of(&sockets), [Who::Sidecar, Who::Sidecar, elsewhere, other, Who::Nobody, Who::Sidecar]);
        assert_eq!(of(&[])[0], Who::Nobody);
    }

    #[test]
    fn nobody_is_needed_where_nothing_is_redirected_to() {
        let ports = Ports { outbound: Some(1), inbound: None, dns: Some(3) };
        let asked = |ways: &[Way]| -> Vec<Way> {
            let found = listening(ports, ways, None, Some(&[]), |_| None);
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
        let found = listening(ports, &[("outbound", Family::V4)], None, None, |_| None);
        assert_eq!(found[0].who, Who::Unknown);
    }
}
