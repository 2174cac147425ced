//! Containers and virtual machines behind an interface of the machine.

use std::net::SocketAddr;

use crate::support::client::{ask, connect_to};
use crate::support::lab::each_stack;
use crate::support::mesh::{APP_PORT, Mesh, name};
use crate::support::network::ip;
use crate::support::{Family, Peer};

/// A guest with two networks on one interface.
fn guest() -> Peer {
    let guest = Peer::new("guest");
    guest.plug("br-lab", "eth0");
    ip("link set br-lab up
        addr add 172.18.0.1/16 dev br-lab
        addr add 172.19.0.1/16 dev br-lab
        addr add fd18::1/64 dev br-lab nodad
        addr add fd19::1/64 dev br-lab nodad
    ");
    guest.ip("link set lo up
        link set eth0 up
        addr add 172.18.0.2/16 dev eth0
        addr add fd18::2/64 dev eth0 nodad
        route add default via 172.18.0.1
        route add ::/0 via fd18::1
    ");
    guest
}

const NETWORKS: [&str; 8] = [
    "--vnet",
    "br-+:172.18.0.0/16",
    "--vnet",
    "br-+:172.19.0.0/16",
    "--vnet",
    "br-+:fd18::/64",
    "--vnet",
    "br-+:fd19::/64",
];

fn meets(guest: &Peer, to: &str, port: u16) -> String {
    let to = SocketAddr::new(to.parse().expect("an address"), port);
    name(guest.run(move || connect_to(to)))
}

each_stack! {
    fn a_guests_connections_go_out_through_the_sidecar(lab, backend, family) {
        let guest = guest();
        lab.install(backend, &NETWORKS).succeeds();
        let mesh = Mesh::new(lab, family);
        let to = SocketAddr::new(family.outside(), 443);
        let answer = guest.run(move || connect_to(to)).expect("an answer");
        assert_eq!((answer.by.as_str(), answer.about), ("outbound", to.to_string()));
        // What stays in its networks is the machine's own traffic, for each of them.
        let (first, second) = match family {
            Family::V4 => ("172.18.0.1", "172.19.0.1"),
            Family::V6 => ("fd18::1", "fd19::1"),
        };
        assert_eq!(meets(&guest, first, APP_PORT), "inbound");
        assert_eq!(meets(&guest, second, APP_PORT), "inbound");
        assert_eq!(mesh.visit(lab, APP_PORT), "inbound", "others come in as ever");
    }

    fn a_guests_questions_are_answered_by_the_sidecar(lab, backend, family) {
        let guest = guest();
        for mode in ["--redirect-dns", "--redirect-all-dns-traffic"] {
            let flags: Vec<&str> = NETWORKS.into_iter().chain([mode]).collect();
            lab.install(backend, &flags).succeeds();
            let mesh = Mesh::new(lab, family);
            assert_eq!(name(guest.run(move || ask(family.resolver()))), "dns", "{mode}");
            assert_eq!(name(guest.run(move || ask(family.other_resolver()))), "dns", "{mode}");
            drop(mesh);
        }
    }

    fn without_dns_a_guests_questions_are_not_touched(lab, backend, family) {
        let guest = guest();
        lab.install(backend, &NETWORKS).succeeds();
        let mesh = Mesh::new(lab, family);
        let forward = match family {
            Family::V4 => "/proc/sys/net/ipv4/ip_forward",
            Family::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
        };
        std::fs::write(forward, "1").expect("the machine forwards");
        lab.peer().ip("route add 172.18.0.0/16 via 10.77.0.1
            route add fd18::/64 via fd77::1
        ");
        assert_eq!(name(guest.run(move || ask(family.resolver()))), "resolver");
        assert_eq!(mesh.dns.served(), 0);
    }
}
