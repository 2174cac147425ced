//! The sidecar's ports are in use.

use std::net::UdpSocket;

use super::verify;
use crate::support::firewall::{self, Family};
use crate::support::lab::each_backend;
use crate::support::listener::Listener;
use crate::support::mesh::Mesh;
use crate::support::{APP, Backend, Lab, SIDECAR, Variant, as_user};

each_backend! {
    fn a_running_sidecar_is_left_alone(lab, backend) {
        lab.install(backend, &["--redirect-dns", "--exclude-outbound-ports", "9000"]).succeeds();
        let _four = Mesh::new(lab, Family::V4);
        let _six = Mesh::new(lab, Family::V6);
        let said = verify(lab, &[]);
        said.all_pass();
        assert_eq!(said.method(), "counters");
        for id in ["outbound", "inbound", "self", "dns"] {
            assert_eq!(said.evidence(id), ["conntrack+counters"], "{id}");
        }
        for id in ["sidecar", "localhost", "passthrough", "exclusion"] {
            assert_eq!(said.evidence(id), ["listener"], "{id}");
        }
    }

    /// It is not led to go on to somebody's network.
    fn it_takes_what_guests_send(lab, backend) {
        lab.install(backend, &["--redirect-dns", "--vnet", "br-+:172.17.0.0/16"]).succeeds();
        let _sidecar = [Mesh::new(lab, Family::V4), Mesh::new(lab, Family::V6)];
        let said = verify(lab, &[]);
        said.run.clone().exits(0);
        assert_eq!(said.with_status("not-tested"), ["ipv4 exclusion"]);
        assert_eq!((said.count("outbound"), said.count("dns")), (5, 3));
    }

    /// Connection tracking says that packets come to the sidecar's port. Our counters know that it is not our doing.
    fn somebody_else_does_our_work(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let _sidecar = [Mesh::new(lab, Family::V4), Mesh::new(lab, Family::V6)];
        for (family, here) in [(Family::V4, "127.0.0.0/8"), (Family::V6, "::1/128")] {
            let theirs = format!("-p tcp ! -d {here} -m owner ! --uid-owner 5678 -j REDIRECT --to-ports 15001");
            firewall::restore(backend.tools(), family, &format!("*nat\n-I OUTPUT 1 {theirs}\nCOMMIT\n"));
        }
        let said = verify(lab, &[]);
        for outbound in said.all("ipv4", "outbound") {
            assert_eq!(outbound["status"], "pass");
            let happened = outbound["happened"].as_str().expect("a text");
            assert!(happened.contains("not by a rule of ours: they counted 0 of "), "{happened}");
            assert_eq!(outbound["evidence"], serde_json::json!(["conntrack"]));
        }
    }

    /// What arrives comes to the address of the interface. That is told from a firewall that rejects it.
    fn a_sidecar_on_the_loopback_address_alone(lab, backend) {
        let _sidecar = as_user(SIDECAR, || {
            Family::BOTH.map(|family| {
                [
                    Listener::tcp("outbound", family.any(), 15001),
                    Listener::tcp("inbound", family.localhost(), 15006),
                    Listener::udp("dns", family.host(), 15053),
                ]
            })
        });
        let run = lab.install(backend, &["--redirect-dns"]).succeeds();
        let run = run.prints("incoming TCP (port 15006, listened on at 127.0.0.1 and ::1 alone, where it does not come)");
        let _ = run.prints("DNS questions (port 15053, listened on at 10.77.0.1 and fd77::1 alone");
        let said = verify(lab, &[]);
        said.fails(&["ipv4 dns", "ipv4 inbound", "ipv6 dns", "ipv6 inbound"]);
        let all = said.json.to_string();
        for (port, address) in [(15006, "127.0.0.1"), (15006, "::1"), (15053, "10.77.0.1"), (15053, "fd77::1")] {
            assert!(all.contains(&format!("found nobody: port {port} is listened on at {address} alone")), "{all}");
        }
        said.because("cause", "let the sidecar listen there, or on all addresses");
    }

    fn somebody_else_has_a_port(lab, backend) {
        lab.install(backend, &[]).succeeds();
        let _other = as_user(APP, || {
            [Listener::tcp("other", Family::V4.any(), 15001), Listener::tcp("other", Family::V6.any(), 15001)]
        });
        let said = verify(lab, &[]);
        said.fails(&["ipv4 inbound", "ipv4 outbound", "ipv4 self", "ipv6 inbound", "ipv6 outbound", "ipv6 self"]);
        said.because("happened", &format!("was not sent: UID {APP} has port 15001"));
        said.because("cause", &format!("--kuma-dp-user {APP}"));
        said.because("next", "ss -lnptu 'sport = :15001'");
    }
}

/// It listens on every address, and does not answer from the one that it was asked at.
#[test]
fn a_careless_dns_server_is_told_from_bad_rules() {
    Lab::enter(|lab| {
        lab.install(Variant::Nft, &["--redirect-dns", "--ip-family-mode", "ipv4"]).succeeds();
        let _sidecar =
            as_user(SIDECAR, || [15001, 15006].map(|port| Listener::tcp("sidecar", Family::V4.any(), port)));
        let careless = as_user(SIDECAR, || UdpSocket::bind((Family::V4.any(), 15053)).expect("a socket"));
        let answering = std::thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((size, from)) = careless.recv_from(&mut bytes) {
                if size == 0 {
                    break;
                }
                careless.send_to(&bytes[..size], from).expect("sent");
            }
        });
        let said = verify(lab, &[]);
        said.fails(&["ipv4 dns"]);
        said.because("happened", "its answer got lost");
        said.because("cause", "answers from another address than it was asked at");
        said.because("next", "ss -lnptu 'sport = :15053'");
        let bell = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        bell.send_to(&[], "127.0.0.1:15053").expect("sent");
        answering.join().expect("it stopped");
    });
}

each_backend! {
    fn and_does_not_hide_what_is_wrong(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let _four = Mesh::new(lab, Family::V4);
        let _six = Mesh::new(lab, Family::V6);
        let failing: &[&str] = match backend {
            Backend::Iptables(variant) => {
                firewall::restore(variant, Family::V4, "*nat\n-F KUMA_MESH_INBOUND\nCOMMIT\n");
                firewall::restore(variant, Family::V6, "*raw\n-F\nCOMMIT\n");
                &["ipv4 inbound", "ipv6 dns-sidecar"]
            }
            // Both families share its rules.
            Backend::Nftables => {
                let chains = ["inbound", "zones_output", "zones_prerouting"];
                firewall::nft(&chains.map(|chain| format!("flush chain inet kuma_mesh {chain}\n")).concat());
                &["ipv4 dns-sidecar", "ipv4 inbound", "ipv6 dns-sidecar", "ipv6 inbound"]
            }
        };
        let said = verify(lab, &[]);
        said.fails(failing);
    }
}
