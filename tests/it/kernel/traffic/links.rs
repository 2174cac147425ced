//! Link-local destinations: sockets to them are bound to their link, where no answer of the sidecar ever comes, so they
//! are left alone.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::support::client::{Asker, connect_to};
use crate::support::lab::each_backend;
use crate::support::listener::Listener;
use crate::support::mesh::{APP_PORT, Mesh, listening_sidecar, name};
use crate::support::network::ip;
use crate::support::{APP, Family, Lab, SIDECAR, Variant, as_user, firewall};

const HOST: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const NEIGHBOUR: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);

/// An address at the other end of the cable of whom calls this.
fn on_link(addr: Ipv6Addr, port: u16) -> SocketAddr {
    let link = nix::net::if_::if_nametoindex("eth0").expect("the cable");
    SocketAddrV6::new(addr, port, 0, link).into()
}

/// Gives both ends link-local addresses, and the neighbour a DNS server at its own.
fn furnish(lab: &Lab) -> Listener {
    ip(&format!("addr add {HOST}/64 dev eth0 nodad\n"));
    lab.peer().run(|| {
        ip(&format!("addr add {NEIGHBOUR}/64 dev eth0 nodad\n"));
        let questions =
            "*nat\n-A PREROUTING -d fe80::/10 -p udp --dport 53 -j REDIRECT --to-ports 5353\nCOMMIT\n";
        firewall::restore(Variant::Nft, Family::V6, questions);
        Listener::udp("link's resolver", Family::V6.any(), 5353)
    })
}

fn asks(uid: u32) -> String {
    let server = on_link(NEIGHBOUR, 53);
    name(as_user(uid, move || Asker::to(server, None)?.ask("svc.mesh")))
}

fn meets(uid: u32, to: Ipv6Addr, port: u16) -> String {
    let to = on_link(to, port);
    name(as_user(uid, move || connect_to(to)))
}

const ALL: [&str; 2] = ["--redirect-all-dns-traffic", "--drop-invalid-packets"];
const FIRST: [&str; 2] = ["--redirect-all-dns-traffic", "--redirect-outbound-insert-instead-of-append"];

each_backend! {
    fn connections_and_questions_to_a_link_are_left_alone(lab, backend) {
        lab.resolv_conf(&format!("nameserver {NEIGHBOUR}%eth0\nnameserver fd00:96::10\n"));
        let _resolver = furnish(lab);
        // Answers alone come in: so a question has to be known by the zone of its answer.
        let strict = "*filter\n-A INPUT -i eth0 -p ipv6-icmp -j ACCEPT\n\
            -A INPUT -i eth0 -m conntrack --ctstate ESTABLISHED -j ACCEPT\n\
            -A INPUT -i eth0 -p tcp -m tcp --dport 15006 -j ACCEPT\n-A INPUT -i eth0 -j DROP\nCOMMIT\n";
        firewall::restore(backend.tools(), Family::V6, strict);
        let mesh = Mesh::new(lab, Family::V6);
        let _of_ipv4 = listening_sidecar();
        let skip = ["--redirect-all-dns-traffic", "--skip-dns-conntrack-zone-split"];
        for flags in [&[][..], &["--redirect-dns"], &ALL, &FIRST, &skip] {
            lab.install(backend, flags).succeeds();
            for uid in [APP, SIDECAR] {
                assert_eq!(meets(uid, NEIGHBOUR, 443), "world", "{uid} {flags:?}");
                assert_eq!(asks(uid), "link's resolver", "{uid} {flags:?}");
            }
            assert_eq!(mesh.connect(APP, Family::V6.outside(), 443), "outbound", "{flags:?}");
            let dns = if flags.is_empty() { "resolver" } else { "dns" };
            assert_eq!(mesh.ask(APP, Family::V6.resolver()), dns, "{flags:?}");
            assert_eq!(mesh.ask(SIDECAR, Family::V6.resolver()), "resolver", "{flags:?}");
            // An application on this host at an address of its own.
            assert_eq!(meets(SIDECAR, HOST, APP_PORT), "app", "{flags:?}");
            lab.program().arg("status").run().exits(0);
        }
    }

    fn included_ports_are_no_exception(lab, backend) {
        let _resolver = furnish(lab);
        let mesh = Mesh::new(lab, Family::V6);
        let config = "redirect: {outbound: {includePorts: [443]}, dns: {captureAll: true}}\n";
        lab.installing(backend, &["--config", "-"]).stdin(config).run().succeeds();
        assert_eq!(meets(APP, NEIGHBOUR, 443), "world");
        assert_eq!(asks(APP), "link's resolver");
        assert_eq!(mesh.connect(APP, Family::V6.outside(), 443), "outbound");
        let config = "redirect: {outbound: {enabled: false}, dns: {captureAll: true}}\n";
        lab.installing(backend, &["--config", "-"]).stdin(config).run().succeeds();
        assert_eq!(asks(APP), "link's resolver");
    }

    fn what_arrives_from_a_link_is_redirected_as_ever(lab, backend) {
        let _resolver = furnish(lab);
        let _mesh = Mesh::new(lab, Family::V6);
        lab.install(backend, &[]).succeeds();
        assert_eq!(name(lab.peer().run(|| connect_to(on_link(HOST, APP_PORT)))), "inbound");
    }

    fn a_server_on_a_link_is_named_and_alone_it_needs_no_zones(lab, backend) {
        lab.resolv_conf(&format!("nameserver {NEIGHBOUR}%eth0\n"));
        let _resolver = furnish(lab);
        let _mesh = Mesh::new(lab, Family::V6);
        let _of_ipv4 = listening_sidecar();
        let run = lab.install(backend, &["--redirect-dns"]).succeeds();
        let run = run.says(&format!("questions to {NEIGHBOUR}%eth0 are not redirected"));
        assert!(!run.stderr.contains("no IPv6 DNS servers"), "{run}");
        assert_eq!(asks(APP), "link's resolver");
        assert_eq!(asks(SIDECAR), "link's resolver");
        lab.program().arg("status").run().exits(0).prints(&format!("questions to {NEIGHBOUR} are not redirected"));
    }
}
