//! Rules of others that meet what applications send from the host's own addresses and interfaces, and nothing that
//! a probe sends from an interface of its own: they are not passed over.

use super::verify;
use crate::support::firewall::{self, Family};
use crate::support::lab::{each_backend, each_stack};
use crate::support::mesh::Mesh;
use crate::support::{APP, SIDECAR, command};

/// A network behind a tunnel, and the rule by which tunnels keep others from their address: nobody may send there but
/// this host itself, and by the tunnel.
fn tunnel() {
    command::must("ip", &["link", "add", "wg0", "type", "veth", "peer", "name", "wg1"]);
    for (family, addr, to) in [("-4", "10.8.0.2/24", "10.99.0.0/16"), ("-6", "fd08::2/64", "fd99::/64")] {
        let at_once: &[&str] = if family == "-4" { &[] } else { &["nodad"] };
        command::must("ip", &[&[family, "addr", "add", addr, "dev", "wg0"], at_once].concat());
        command::must("ip", &["link", "set", "wg0", "up"]);
        command::must("ip", &["link", "set", "wg1", "up"]);
        let via = if family == "-4" { "10.8.0.1" } else { "fd08::1" };
        command::must("ip", &[family, "route", "add", to, "via", via, "dev", "wg0"]);
    }
}

each_stack! {
    /// The sidecar's answers come over loopback, with the source that the application meant.
    fn a_tunnel_whose_address_nobody_else_may_send_to(lab, backend, family) {
        tunnel();
        let addr = if family == Family::V4 { "10.8.0.2/32" } else { "fd08::2/128" };
        firewall::restore(
            backend.tools(),
            family,
            &format!("*raw\n-I PREROUTING 1 ! -i wg0 -d {addr} -m addrtype ! --src-type LOCAL -j DROP\nCOMMIT\n"),
        );
        lab.install(backend, &[]).succeeds();
        let said = verify(lab, &[]);
        let four = family == Family::V4;
        said.fails(if four { &["ipv4 outbound", "ipv4 rules"] } else { &["ipv6 outbound", "ipv6 rules"] });
        let named = addr.split('/').next().unwrap_or_default();
        said.because("target", &format!("app as {named} to "));
    }

    /// What is redirected still carries the interface by which it was to leave when the filter sees it.
    fn a_rule_about_the_interface(lab, backend, family) {
        lab.install(backend, &[]).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.connect(APP, family.outside(), 443), "outbound");
        let rule = format!("-o eth0 -p tcp -m owner ! --uid-owner {SIDECAR} -j REJECT");
        firewall::restore(backend.tools(), family, &format!("*filter\n-A OUTPUT {rule}\nCOMMIT\n"));
        assert!(mesh.connect(APP, family.outside(), 443).starts_with("nobody"));
        let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
        let _other = Mesh::new(lab, other);
        let said = verify(lab, &[]);
        said.fails(&[if family == Family::V4 { "ipv4 rules" } else { "ipv6 rules" }]);
        said.because("happened", "applications' connections as ");
        said.because("happened", "by eth0 are dropped by '");
    }

    /// The same of what arrives: where a firewall is closed, the redirected port is another one than was open.
    fn a_rule_about_what_arrives_by_the_interface(lab, backend, family) {
        lab.install(backend, &[]).succeeds();
        let mesh = Mesh::new(lab, family);
        let rule = "-i eth0 -p tcp -m tcp --dport 15006 -j DROP";
        firewall::restore(backend.tools(), family, &format!("*filter\n-A INPUT {rule}\nCOMMIT\n"));
        assert!(mesh.visit(lab, 8080).starts_with("nobody"));
        let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
        let _other = Mesh::new(lab, other);
        let said = verify(lab, &[]);
        said.fails(&[if family == Family::V4 { "ipv4 rules" } else { "ipv6 rules" }]);
        said.because("happened", "connections that arrive at ");
    }
}

each_backend! {
    /// Of a range of destinations nobody can say whether anybody wants to go there.
    fn a_rule_about_a_range(lab, backend) {
        lab.install(backend, &[]).succeeds();
        let range = "-s 100.64.0.0/10 -j DROP";
        firewall::restore(backend.tools(), Family::V4, &format!("*raw\n-A PREROUTING {range}\nCOMMIT\n"));
        let said = verify(lab, &[]);
        said.run.clone().exits(0);
        assert_eq!(said.with_status("not-tested"), ["ipv4 rules"], "{:#}", said.json);
        let all = said.all("ipv4", "rules");
        assert!(all.iter().any(|check| check["happened"].as_str().is_some_and(|text| text.contains("100.64.0.0"))));
    }

    /// Native rules, with what a firewall of today has in it: names, sets, maps of verdicts.
    fn native_rules(lab, backend) {
        lab.install(backend, &[]).succeeds();
        firewall::nft(
            "table inet theirs {\n\
             chain out { type filter hook output priority 0; oifname vmap { \"lo\" : accept, \"eth0\" : jump closed }; }\n\
             chain closed { meta skuid 5678 accept; tcp dport { 15001, 15002 } drop; }\n\
             chain in { type filter hook input priority 0; policy drop; ct state { established, related } accept; \
             iifname \"lo\" accept; ct status dnat accept; meta l4proto { icmp, ipv6-icmp } accept; iifname \"tpv*\" accept; }\n\
             }",
        );
        let said = verify(lab, &[]);
        said.fails(&["ipv4 rules", "ipv6 rules"]);
        said.because("happened", "dport { 15001, 15002 } drop");
    }

    /// A firewall that lets in what it has to, and is about nothing of ours.
    fn a_firewall_in_order(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        firewall::nft(
            "table inet theirs {\n\
             set bad { type ipv4_addr; flags interval; }\n\
             chain in { type filter hook input priority 0; policy drop; ct state vmap { established : accept, \
             related : accept, invalid : drop }; iifname \"lo\" accept; ct status dnat accept; tcp dport { 22, 15006 } accept; \
             meta l4proto { icmp, ipv6-icmp } accept; }\n\
             chain forward { type filter hook forward priority 0; policy drop; }\n\
             }",
        );
        for family in Family::BOTH {
            firewall::restore(
                backend.tools(),
                family,
                "*filter\n-A INPUT -i lo -j ACCEPT\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
                 -A INPUT -p tcp -m multiport --dports 22,15006 -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 25 -j DROP\nCOMMIT\n",
            );
        }
        verify(lab, &[]).all_pass();
    }

    /// What arrives is redirected to the address of the interface by which it came.
    fn an_interface_without_an_address(lab, backend) {
        command::must("ip", &["link", "add", "bare0", "type", "veth", "peer", "name", "bare1"]);
        command::must("ip", &["link", "set", "bare0", "up"]);
        command::must("ip", &["link", "set", "bare1", "up"]);
        command::must("ip", &["route", "add", "10.44.0.0/24", "dev", "bare0"]);
        lab.install(backend, &[]).succeeds();
        let said = verify(lab, &[]);
        said.fails(&["ipv4 inbound"]);
        said.because("happened", "bare0 has no IPv4 address");
        lab.install(backend, &["--redirect-inbound=false"]).succeeds();
        verify(lab, &[]).all_pass();
    }
}
