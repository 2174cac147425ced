//! Programs of the host hear nothing of it: neither those on ports that are left alone, nor DNS servers.

use std::net::UdpSocket;

use super::verify;
use crate::support::capture::Capture;
use crate::support::firewall::{self, Family};
use crate::support::lab::each_backend;
use crate::support::listener::Listener;
use crate::support::mesh::Mesh;
use crate::support::{APP, as_user};

const PORT: u16 = 8443;

fn programs() -> [Listener; 2] {
    as_user(APP, || Family::BOTH.map(|family| Listener::tcp("app", family.any(), PORT)))
}

fn heard(programs: &[Listener]) -> usize {
    programs.iter().map(Listener::served).sum()
}

each_backend! {
    /// With tproxy in the sidecar's place, and beside a sidecar that passes on what it gets.
    fn a_program_on_an_excluded_port(lab, backend) {
        let app = programs();
        lab.install(backend, &["--exclude-inbound-ports", "8443"]).succeeds();
        for with_sidecar in [false, true] {
            let sidecar = with_sidecar.then(|| Family::BOTH.map(|family| Mesh::new(lab, family)));
            let said = verify(lab, &[]);
            said.all_pass();
            let seen = "a program that is not the sidecar is there, and an answer of it comes back";
            assert!(said.all("ipv4", "exclusion").iter().any(|check| check["happened"] == seen), "{:#}", said.json);
            assert_eq!(heard(&app), 0, "with a sidecar: {with_sidecar}");
            drop(sidecar);
        }
        // It tells a port that is not left alone from one that is.
        lab.install(backend, &[]).succeeds();
        for with_sidecar in [false, true] {
            let sidecar = with_sidecar.then(|| Family::BOTH.map(|family| Mesh::new(lab, family)));
            let said = verify(lab, &["--kuma-dp-user", "kuma-dp", "--exclude-inbound-ports", "8443"]);
            said.fails(&["ipv4 exclusion", "ipv6 exclusion"]);
            said.because("happened", "was redirected to the inbound port 15006");
            assert_eq!(heard(&app), 0, "with a sidecar: {with_sidecar}");
            drop(sidecar);
        }
        // And a firewall that keeps everybody away.
        lab.install(backend, &["--exclude-inbound-ports", "8443"]).succeeds();
        for family in Family::BOTH {
            let drop = "*filter\n-A INPUT -p tcp --dport 8443 -j DROP\nCOMMIT\n";
            firewall::restore(backend.tools(), family, drop);
        }
        let said = verify(lab, &[]);
        said.fails(&["ipv4 exclusion", "ipv6 exclusion"]);
        assert_eq!(heard(&app), 0);
    }

    fn a_program_on_an_included_port(lab, backend) {
        let app = programs();
        let file = lab.dir().join("included.yaml");
        let text = "redirect: { inbound: { includePorts: [8443], excludePortsForIPs: [10.9.0.0/16] } }";
        std::fs::write(&file, text).expect("a file in the private /run");
        lab.install(backend, &["--config", &file.to_string_lossy()]).succeeds();
        let capture = Capture::begin(lab);
        for with_sidecar in [false, true] {
            let sidecar = with_sidecar.then(|| Family::BOTH.map(|family| Mesh::new(lab, family)));
            let said = verify(lab, &[]);
            said.run.clone().exits(0);
            assert!(said.all("ipv4", "inbound").iter().all(|check| check["status"] == "pass"), "{:#}", said.json);
            // Its answer to that address would leave.
            assert_eq!(said.with_status("not-tested"), ["ipv4 exclusion"], "{:#}", said.json);
            assert_eq!(heard(&app), 0, "with a sidecar: {with_sidecar}");
            drop(sidecar);
        }
        capture.assert_nothing();
    }

    /// One that passes on whatever it gets, and never answers: its own questions are excluded.
    fn a_dns_server_that_passes_everything_on(lab, backend) {
        std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0").expect("a setting of the own namespace");
        lab.resolv_conf("nameserver 127.0.0.1\nnameserver ::1\n");
        let servers = as_user(APP, || ["127.0.0.1:53", "[::1]:53"].map(|at| UdpSocket::bind(at).expect("a socket")));
        let cure = format!("udp:53:{APP}");
        let silent = |when: &str| {
            for server in &servers {
                server.set_nonblocking(true).expect("a socket");
                let got = server.recv_from(&mut [0; 512]).map_err(|error| error.kind());
                assert_eq!(got.unwrap_err(), std::io::ErrorKind::WouldBlock, "{when}");
            }
        };
        for flag in ["--redirect-dns", "--redirect-all-dns-traffic"] {
            lab.install(backend, &[flag, "--exclude-outbound-ports-for-uids", &cure]).succeeds();
            for with_sidecar in [false, true] {
                let sidecar = with_sidecar.then(|| Family::BOTH.map(|family| Mesh::new(lab, family)));
                let said = verify(lab, &[]);
                said.all_pass();
                silent(&format!("{flag}, with a sidecar: {with_sidecar}"));
                drop(sidecar);
            }
        }
        // What a firewall keeps from it is not taken for something that it got.
        let closed = "*filter\n-A INPUT -p udp --dport 53 -j DROP\nCOMMIT\n";
        firewall::restore(backend.tools(), Family::V4, closed);
        let said = verify(lab, &[]);
        assert!(said.with_status("fail").contains(&"ipv4 dns-sidecar".to_owned()), "{:#}", said.json);
        firewall::restore(backend.tools(), Family::V4, &closed.replace("-A", "-D"));
        // Nor an answer that is kept from the sidecar.
        let lost = "*filter\n-A INPUT -p udp --sport 53 -j DROP\nCOMMIT\n";
        firewall::restore(backend.tools(), Family::V4, lost);
        let said = verify(lab, &[]);
        assert!(said.with_status("fail").contains(&"ipv4 dns-sidecar".to_owned()), "{:#}", said.json);
        said.because("happened", "its answer got lost");
        silent("behind a firewall");
    }
}
