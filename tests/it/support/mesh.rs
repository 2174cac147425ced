//! A sidecar, an application, and the world outside, for one family.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use nix::sys::socket::SockType;

use super::client::{self, Answer};
use super::firewall::{self, Family, Variant};
use super::lab::Lab;
use super::listener::{Listener, bound_beside_copies};
use super::users::{APP, SIDECAR, as_user};

/// Where an application of the machine listens.
pub const APP_PORT: u16 = 8080;
/// And another.
pub const APP_PORT_2: u16 = 9090;

/// A sidecar that listens on its three ports, for each family where they are free, and does nothing.
pub fn listening_sidecar() -> Vec<OwnedFd> {
    const PORTS: [(u16, SockType); 3] =
        [(15001, SockType::Stream), (15006, SockType::Stream), (15053, SockType::Datagram)];
    as_user(SIDECAR, || {
        let of = |family: Family| {
            PORTS.into_iter().filter_map(move |(port, kind)| bound_beside_copies(family.any(), port, kind))
        };
        Family::BOTH.into_iter().flat_map(of).collect()
    })
}

/// Everybody who answers.
pub struct Mesh {
    family: Family,
    /// The sidecar's TCP listeners; by them one sees whether something was redirected.
    pub outbound: Listener,
    pub inbound: Listener,
    pub dns: Listener,
    /// The world: every TCP connection to anywhere behind the neighbour ends here.
    pub world: Listener,
    _others: Vec<Listener>,
}

impl Mesh {
    /// The sidecar listens on its three ports, the application on two, and the neighbour answers for everybody else.
    pub fn new(lab: &Lab, family: Family) -> Self {
        let [outbound, inbound, dns] = as_user(SIDECAR, move || {
            [
                Listener::tcp("outbound", family.any(), 15001),
                Listener::tcp("inbound", family.any(), 15006),
                Listener::udp("dns", family.any(), 15053),
            ]
        });
        let mut others: Vec<Listener> = as_user(APP, move || {
            [APP_PORT, APP_PORT_2].map(|port| Listener::tcp("app", family.any(), port)).into()
        });
        let world = lab.peer().run(move || {
            // Whatever port somebody meant, one listener sees it.
            let catch_all = "*nat\n-A PREROUTING -p tcp -j REDIRECT --to-ports 80\nCOMMIT\n";
            firewall::restore(Variant::Nft, family, catch_all);
            Listener::tcp("world", family.any(), 80)
        });
        others.extend(lab.peer().run(move || {
            [
                Listener::udp("resolver", family.resolver(), 53),
                Listener::udp("other resolver", family.other_resolver(), 53),
            ]
        }));
        Self { family, outbound, inbound, dns, world, _others: others }
    }

    /// Who answers a user's connection to this address and port.
    pub fn connect(&self, uid: u32, to: IpAddr, port: u16) -> String {
        let to = SocketAddr::new(to, port);
        assert_eq!(to.is_ipv4(), self.family == Family::V4);
        name(as_user(uid, move || client::connect_to(to)))
    }

    /// The whole answer: an application's connection.
    pub fn meet(&self, to: IpAddr, port: u16) -> Answer {
        let to = SocketAddr::new(to, port);
        assert_eq!(to.is_ipv4(), self.family == Family::V4);
        as_user(APP, move || client::connect_to(to)).expect("an answer")
    }

    /// Who answers a user's question to this DNS server.
    pub fn ask(&self, uid: u32, server: IpAddr) -> String {
        assert_eq!(server.is_ipv4(), self.family == Family::V4);
        name(as_user(uid, move || client::ask(server)))
    }

    /// Who answers the neighbour's connection to the machine.
    pub fn visit(&self, lab: &Lab, port: u16) -> String {
        let to = SocketAddr::new(self.family.host(), port);
        name(lab.peer().run(move || client::connect_to(to)))
    }
}

/// Who it was, or what went wrong.
pub fn name(answer: std::io::Result<Answer>) -> String {
    answer.map_or_else(|error| format!("nobody: {error}"), |answer| answer.by)
}
