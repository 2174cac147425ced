//! Hosts on which one thing is wrong: exactly what depends on it fails.

use std::net::UdpSocket;

use super::native::delete;
use super::verify;
use crate::support::firewall::{self, Family};
use crate::support::lab::{each_backend, each_iptables_variant};
use crate::support::{Backend, command, network};

each_backend! {
    /// The host got another DNS server, and nobody installed again.
    fn resolv_conf_has_changed(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        lab.resolv_conf("nameserver 10.96.0.99\nnameserver fd00:96::10\n");
        let said = verify(lab, &[]);
        said.fails(&["ipv4 dns"]);
        said.because("cause", "no rule knows of the DNS server 10.96.0.99; resolv.conf has changed");
        said.because("next", "tproxy install --kuma-dp-user kuma-dp");
    }

    /// An app's question and the sidecar's from the same port are then one flow.
    fn zones_are_gone(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        match backend {
            Backend::Iptables(variant) => {
                for family in Family::BOTH {
                    firewall::restore(variant, family, "*raw\n-F\nCOMMIT\n");
                }
            }
            Backend::Nftables => firewall::nft(
                "flush chain inet kuma_mesh zones_output\nflush chain inet kuma_mesh zones_prerouting\n",
            ),
        }
        let said = verify(lab, &[]);
        said.fails(&["ipv4 dns-sidecar", "ipv6 dns-sidecar"]);
        said.because("happened", "was redirected to the DNS port");
    }

    /// The sidecar's answers begin flows of their own, which a firewall that lets only answers in would drop.
    fn answers_are_tracked_apart(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        match backend {
            Backend::Iptables(variant) => {
                for family in Family::BOTH {
                    firewall::restore(variant, family, "*raw\n-F PREROUTING\nCOMMIT\n");
                }
            }
            Backend::Nftables => firewall::nft("flush chain inet kuma_mesh zones_prerouting\n"),
        }
        let said = verify(lab, &[]);
        said.fails(&["ipv4 dns-sidecar", "ipv6 dns-sidecar"]);
        said.because("happened", "its answer is no answer to connection tracking");
    }

    fn somebody_is_ahead(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        // What they only let pass goes on to a chain of our own.
        let (takes, failing): (_, &[&str]) = match backend {
            Backend::Iptables(_) => ("ACCEPT", &["ipv4 outbound"]),
            Backend::Nftables => ("REDIRECT --to-ports 9", &["ipv4 exclusion", "ipv4 localhost", "ipv4 outbound"]),
        };
        let rule = format!("*nat\n-I OUTPUT 1 -p tcp -m owner --uid-owner 65534 -j {takes}\nCOMMIT\n");
        firewall::restore(backend.tools(), Family::V4, &rule);
        let said = verify(lab, &[]);
        said.fails(failing);
        said.because("cause", "foreign rules stand before them");
        said.because("next", "tproxy status");
    }

    fn the_passthrough_address_is_gone(lab, backend) {
        lab.install(backend, &[]).succeeds();
        network::ip("addr del ::6/128 dev lo\n");
        let said = verify(lab, &[]);
        said.fails(&["ipv6 passthrough"]);
        said.because("happened", "::6 cannot be bound");
        said.because("cause", "not on the loopback interface");
    }

    fn what_the_sidecar_passes_on_comes_back(lab, backend) {
        lab.install(backend, &[]).succeeds();
        match backend {
            Backend::Iptables(variant) => firewall::restore(variant, Family::V4, "*nat\n-D KUMA_MESH_OUTBOUND 1\nCOMMIT\n"),
            Backend::Nftables => delete("outbound", "ip saddr 127.0.0.6"),
        }
        let said = verify(lab, &[]);
        said.fails(&["ipv4 passthrough"]);
        said.because("happened", "was redirected to the inbound port");
    }

    fn inbound_is_dropped(lab, backend) {
        lab.install(backend, &[]).succeeds();
        firewall::restore(backend.tools(), Family::V6, "*filter\n-A INPUT ! -i lo -p tcp --dport 15006 -j DROP\nCOMMIT\n");
        let said = verify(lab, &[]);
        said.fails(&["ipv6 inbound"]);
        said.because("happened", "was not answered");
        said.because("cause", "the foreign rule '");
        said.because("cause", "' in chain INPUT of ");
        said.because("next", "-I INPUT -p tcp --dport 15006 -j ACCEPT");
        // What is not evaluated is not blamed.
        let rule = "! -i lo -p tcp --dport 15006 -m limit --limit 1000/sec --limit-burst 1000 -j DROP";
        firewall::restore(backend.tools(), Family::V6, &format!("*filter\n-F INPUT\n-A INPUT {rule}\nCOMMIT\n"));
        let said = verify(lab, &[]);
        said.because("cause", "a firewall is in the way");
        said.because("next", if backend == Backend::Nftables { "nft list ruleset" } else { "ip6tables-save -c" });
    }

    fn an_exclusion_is_not_there(lab, backend) {
        lab.install(backend, &["--exclude-outbound-ports", "9000"]).succeeds();
        let failing: &[&str] = match backend {
            Backend::Iptables(variant) => {
                firewall::restore(variant, Family::V4, "*nat\n-D KUMA_MESH_OUTBOUND 1\nCOMMIT\n");
                &["ipv4 exclusion"]
            }
            Backend::Nftables => {
                firewall::nft("delete element inet kuma_mesh excluded_outbound_ports { 9000 }");
                &["ipv4 exclusion", "ipv6 exclusion"]
            }
        };
        let said = verify(lab, &[]);
        said.fails(failing);
        said.because("happened", "was redirected to the outbound port 15001");
    }

    /// The rules are about one user, and the sidecar is another.
    fn the_user_is_another(lab, backend) {
        lab.install(backend, &[]).succeeds();
        let flags = backend.flags();
        let flags = ["--kuma-dp-user", "6789"].into_iter().chain(flags.iter().map(String::as_str));
        let said = verify(lab, &flags.collect::<Vec<_>>());
        said.fails(&["ipv4 self", "ipv4 sidecar", "ipv6 self", "ipv6 sidecar"]);
    }

    /// A strict check of source addresses on every interface does not make a sound host look broken.
    fn strict_source_checks_are_no_fault(lab, backend) {
        lab.install(backend, &["--redirect-dns", "--exclude-inbound-ips", "10.9.0.0/16"]).succeeds();
        command::must("sysctl", &["-qw", "net.ipv4.conf.all.rp_filter=1"]);
        verify(lab, &[]).all_pass();
    }

    /// What follows a flow from before goes where the rules led it then, and proves nothing.
    fn old_flows_prove_nothing(lab, backend) {
        lab.resolv_conf("nameserver 127.0.0.53\nnameserver ::1\n");
        lab.install(backend, &["--redirect-dns"]).succeeds();
        command::must("sysctl", &["-qw", "net.ipv4.ip_local_port_range=40000 40127"]);
        for port in 40_000..=40_127 {
            let udp = UdpSocket::bind(("127.0.0.1", port)).expect("a free port");
            // What nobody listens for is refused, sooner or later.
            let _ = udp.send_to(b"before", "127.0.0.53:53");
        }
        match backend {
            Backend::Iptables(variant) => {
                let rules = firewall::save(variant, Family::V4);
                for rule in rules.lines().filter(|rule| rule.contains("127.0.0.53") && rule.contains("15053")) {
                    let (_, rule) = rule.split_once("-A ").expect("a rule");
                    firewall::restore(variant, Family::V4, &format!("*nat\n-D {rule}\nCOMMIT\n"));
                }
            }
            Backend::Nftables => firewall::nft("delete element inet kuma_mesh resolvers_ipv4 { 127.0.0.53 }"),
        }
        let said = verify(lab, &[]);
        let dns = said.one("ipv4", "dns");
        assert_eq!(dns["status"], "not-tested", "{dns:#}");
        assert!(dns["happened"].as_str().is_some_and(|why| why.contains("earlier questions")), "{dns:#}");
        assert_eq!(said.one("ipv6", "dns")["status"], "pass");
    }
}

// One family alone can lose its rules only where each family has its own. What our own table can lose is in
// `native`, in nft's words.
each_iptables_variant! {
    fn the_jump_is_gone(lab, variant) {
        lab.install(variant, &["--redirect-dns"]).succeeds();
        let rules = firewall::save(variant, Family::V4);
        let (_, jump) = rules
            .lines()
            .filter_map(|line| line.split_once("] -A OUTPUT "))
            .find(|(_, rule)| rule.ends_with("-j KUMA_MESH_OUTBOUND"))
            .expect("a jump");
        firewall::restore(variant, Family::V4, &format!("*nat\n-D OUTPUT {jump}\nCOMMIT\n"));
        let said = verify(lab, &[]);
        said.fails(&["ipv4 outbound", "ipv4 self"]);
        said.because("happened", "went straight to where it was sent");
        said.because("cause", "-t nat -A OUTPUT -p tcp");
        said.because("next", "tproxy install --kuma-dp-user kuma-dp");
    }

    /// Localhost has a rule of its own; what else is reached over loopback has another.
    fn own_addresses_are_redirected(lab, variant) {
        lab.install(variant, &[]).succeeds();
        let rules = firewall::save(variant, Family::V4);
        let (_, rule) = rules
            .lines()
            .filter_map(|line| line.split_once("] -A KUMA_MESH_OUTBOUND "))
            .find(|(_, rule)| rule.contains("-o lo") && rule.contains("! --uid-owner") && rule.contains("RETURN"))
            .expect("a rule");
        firewall::restore(variant, Family::V4, &format!("*nat\n-D KUMA_MESH_OUTBOUND {rule}\nCOMMIT\n"));
        let said = verify(lab, &[]);
        said.fails(&["ipv4 localhost"]);
    }

    fn ipv6_has_no_rules(lab, variant) {
        lab.install(variant, &["--redirect-dns"]).succeeds();
        firewall::restore(variant, Family::V6, "*nat\n-F\n-X\nCOMMIT\n*raw\n-F\nCOMMIT\n");
        let said = verify(lab, &[]);
        said.fails(&["ipv6 dns", "ipv6 inbound", "ipv6 outbound", "ipv6 self"]);
        said.because("cause", "no redirection is installed for IPv6 here");
    }

    fn questions_are_not_redirected(lab, variant) {
        lab.install(variant, &["--redirect-dns"]).succeeds();
        firewall::restore(variant, Family::V4, "*nat\n-D OUTPUT 2\nCOMMIT\n");
        let said = verify(lab, &[]);
        said.fails(&["ipv4 dns"]);
        said.because("cause", "-d 10.96.0.10 -p udp --dport 53 -j REDIRECT");
    }
    /// A range that ends too early is found at its end.
    fn the_last_user_of_a_range_is_forgotten(lab, variant) {
        lab.install(variant, &["--exclude-outbound-ports-for-uids", "tcp:*:7000-7009"]).succeeds();
        let said = verify(lab, &[]);
        said.all_pass();
        let rules = firewall::save(variant, Family::V4);
        let (_, rule) = rules
            .lines()
            .filter_map(|line| line.split_once("] -A "))
            .find(|(_, rule)| rule.contains("--uid-owner 7000-7009"))
            .expect("a rule about them");
        let (chain, _) = rule.split_once(' ').expect("its chain");
        let lesser = rule.replacen("7000-7009", "7000-7008", 1);
        let lesser = lesser.strip_prefix(chain).expect("it begins so");
        firewall::restore(variant, Family::V4, &format!("*nat\n-D {rule}\n-I {chain} 1{lesser}\nCOMMIT\n"));
        let said = verify(lab, &[]);
        said.fails(&["ipv4 exclusion"]);
        said.because("target", "UID 7009 over tcp to port 1-65535");
    }
}
