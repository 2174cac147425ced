//! DNS questions: who gets them, and that the answers come from whom was asked.
//!
//! The clients' sockets are connected, so an answer from any other address is none.

use std::net::SocketAddr;

use crate::support::client::Asker;
use crate::support::lab::each_stack;
use crate::support::mesh::Mesh;
use crate::support::{APP, Backend, SIDECAR, as_user, firewall};

each_stack! {
    fn questions_to_the_listed_servers_are_the_sidecars(lab, backend, family) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.ask(APP, family.resolver()), "dns");
        assert_eq!(mesh.ask(APP, family.other_resolver()), "other resolver");
        assert_eq!(mesh.ask(SIDECAR, family.resolver()), "resolver");
    }

    fn every_question_is_the_sidecars(lab, backend, family) {
        lab.install(backend, &["--redirect-all-dns-traffic"]).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.ask(APP, family.resolver()), "dns");
        assert_eq!(mesh.ask(APP, family.other_resolver()), "dns");
        assert_eq!(mesh.ask(SIDECAR, family.other_resolver()), "other resolver");
        assert_eq!(mesh.dns.served(), 2);
    }

    /// Without zones the kernel takes the sidecar's question for the next one of the application's conversation, and
    /// hands it back to the sidecar.
    fn equal_ports_do_not_mix_up_application_and_sidecar(lab, backend, family) {
        for mode in ["--redirect-dns", "--redirect-all-dns-traffic"] {
            lab.install(backend, &[mode]).succeeds();
            let mesh = Mesh::new(lab, family);
            let server = SocketAddr::new(family.resolver(), 53);
            let port = if mode == "--redirect-dns" { 40001 } else { 40002 };
            let ask = move || Asker::to(server, Some(port))?.ask("svc.mesh");
            assert_eq!(as_user(APP, ask).expect("an answer").by, "dns", "{mode}");
            assert_eq!(as_user(SIDECAR, ask).expect("an answer").by, "resolver", "{mode}");
            assert_eq!(as_user(APP, ask).expect("an answer").by, "dns", "{mode}");
            drop(mesh);
        }
    }

    fn without_the_zone_split_questions_are_redirected_all_the_same(lab, backend, family) {
        lab.install(backend, &["--redirect-dns", "--skip-dns-conntrack-zone-split"]).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.ask(APP, family.resolver()), "dns");
        assert_eq!(mesh.ask(SIDECAR, family.resolver()), "resolver");
    }

    /// As a DNS cache on the same machine wants it, whoever came first.
    fn what_somebody_left_untracked_stays_so(lab, backend, family) {
        let server = family.resolver();
        let theirs = |verb: &str| {
            let raw = format!(
                "*raw\n{verb} OUTPUT -d {server} -p udp --dport 53 -j CT --notrack\n\
                 {verb} PREROUTING -s {server} -p udp --sport 53 -j CT --notrack\nCOMMIT\n"
            );
            firewall::restore(backend.tools(), family, &raw);
        };
        let all = &["--redirect-all-dns-traffic"][..];
        let first = &["--redirect-all-dns-traffic", "--redirect-outbound-insert-instead-of-append"];
        for (flags, before) in [(all, true), (all, false), (first, true), (first, false)] {
            if before {
                theirs("-I");
            }
            lab.install(backend, flags).succeeds();
            if !before {
                theirs("-I");
            }
            let mesh = Mesh::new(lab, family);
            assert_eq!(mesh.ask(APP, server), "resolver", "{flags:?} {before}");
            assert_eq!(mesh.ask(APP, family.other_resolver()), "dns", "{flags:?} {before}");
            assert_eq!(mesh.ask(SIDECAR, family.other_resolver()), "other resolver");
            drop(mesh);
            let _ = lab.program().arg("status").run().exits(11).prints("DNS questions");
            theirs("-D");
            if backend == Backend::Nftables {
                for priority in [-310, -300] {
                    firewall::nft(&format!(
                        "table inet mine {{\n chain c {{\n type filter hook output priority {priority}\n {} daddr \
                         {server} udp dport 53 notrack\n }}\n}}\n",
                        family.nft()
                    ));
                    let mesh = Mesh::new(lab, family);
                    assert_eq!(mesh.ask(APP, server), "resolver", "{flags:?} {priority}");
                    firewall::nft("delete table inet mine\n");
                    assert_eq!(mesh.ask(APP, server), "dns", "{flags:?} {priority}");
                }
            }
            lab.uninstall(backend, &[]).succeeds();
        }
    }

    fn dns_over_tcp_stays_outside_the_mesh(lab, backend, family) {
        let mesh = Mesh::new(lab, family);
        for flags in [
            &["--redirect-dns"][..],
            &["--redirect-dns", "--redirect-outbound-insert-instead-of-append"],
            &["--redirect-all-dns-traffic"],
            &["--redirect-all-dns-traffic", "--redirect-outbound-insert-instead-of-append"],
        ] {
            lab.install(backend, flags).succeeds();
            assert_eq!(mesh.connect(APP, family.resolver(), 53), "world", "{flags:?}");
            assert_eq!(mesh.connect(SIDECAR, family.resolver(), 53), "world", "{flags:?}");
            assert_eq!(mesh.connect(APP, family.resolver(), 54), "outbound", "{flags:?}");
        }
    }

    fn another_port_can_be_the_dns_port(lab, backend, family) {
        lab.install(backend, &["--redirect-dns", "--redirect-dns-port", "15054"]).succeeds();
        let mesh = Mesh::new(lab, family);
        let _other = as_user(SIDECAR, move || {
            crate::support::listener::Listener::udp("other dns", family.any(), 15054)
        });
        assert_eq!(mesh.ask(APP, family.resolver()), "other dns");
    }

    /// A family without a server in resolv.conf has nothing to redirect, and says so.
    fn a_family_without_a_server_is_left_alone(lab, backend, family) {
        let others = match family {
            crate::support::Family::V4 => crate::support::Family::V6,
            crate::support::Family::V6 => crate::support::Family::V4,
        };
        lab.resolv_conf(&format!("nameserver {}\n", others.resolver()));
        lab.install(backend, &["--redirect-dns"]).succeeds().says("DNS");
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.ask(APP, family.resolver()), "resolver");
        assert_eq!(mesh.connect(APP, family.outside(), 443), "outbound");
    }
}
