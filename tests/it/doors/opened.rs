//! Ports that a firewall closes, and does not close any more.

use std::fmt::Write as _;

use super::{both, status};
use crate::support::firewall::{self, Family};
use crate::support::lab::{each_backend, each_stack};
use crate::support::mesh::{APP_PORT, Mesh};
use crate::support::{Backend, Lab};

/// Somebody whom no rule here knows.
fn known(family: Family) -> &'static str {
    if family == Family::V4 { "198.51.100.0/24" } else { "2001:db8:6::/48" }
}

#[track_caller]
fn is_closed(lab: &Lab, mesh: &Mesh) {
    let met = mesh.visit(lab, APP_PORT);
    assert!(met.starts_with("nobody"), "{met}");
}

each_stack! {
    /// The rule, the warning, and each of the cures.
    fn a_closed_port_is_named_with_what_closes_it_again(lab, backend, family) {
        let [mesh, _other] = both(lab, family);
        let rule = |test: &str| {
            let rule = format!("-i eth0 -p tcp {test} ! -s {} -j REJECT --reject-with tcp-reset", known(family));
            firewall::restore(backend.tools(), family, &format!("*filter\n-F INPUT\n-A INPUT {rule}\nCOMMIT\n"));
        };
        rule("-m tcp --dport 8080");
        is_closed(lab, &mesh);
        let run = lab.install(backend, &[]).succeeds();
        let _ = run.says("TCP port 8080 (IP").says("is no longer seen by").says("--ctorigdstport 8080");
        assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
        status(lab).notes(&["TCP port 8080", "INPUT", "15006", "--exclude-inbound-ports 8080"]);
        // By the port that was meant.
        rule("-m conntrack --ctorigdstport 8080");
        is_closed(lab, &mesh);
        status(lab).is_silent();
        // Left alone.
        rule("-m tcp --dport 8080");
        let run = lab.install(backend, &["--exclude-inbound-ports", "8080"]).succeeds();
        assert!(!run.stderr.contains("closed"), "{run}");
        is_closed(lab, &mesh);
        status(lab).is_silent();
    }

    fn a_port_that_nftables_closes(lab, backend, family) {
        let [mesh, _other] = both(lab, family);
        let chain = |test: &str| {
            let saddr = if family == Family::V4 { "ip saddr" } else { "ip6 saddr" };
            let rule = format!("iifname \"eth0\" {test} {saddr} != {} reject with tcp reset", known(family));
            firewall::nft(&format!(
                "table inet theirs {{ }}\ndelete table inet theirs\ntable inet theirs {{\n\
                 chain in {{ type filter hook input priority 0; meta l4proto tcp {rule}; }}\n}}\n"
            ));
        };
        chain("tcp dport { 8080, 9000-9100 }");
        is_closed(lab, &mesh);
        let run = lab.install(backend, &[]).succeeds();
        let _ = run.says("TCP ports 8080, 9000, 9090, 9100").says("ct original proto-dst 8080");
        assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
        status(lab).notes(&["TCP ports 8080, 9000, 9090, 9100", "chain in of inet theirs"]);
        chain("ct original proto-dst { 8080, 9000-9100 }");
        is_closed(lab, &mesh);
        status(lab).is_silent();
    }

    /// Everything is closed but the ports that are listed, and the sidecar's is one of them.
    fn a_listed_sidecar_opens_what_is_not_listed(lab, backend, family) {
        firewall::restore(
            backend.tools(),
            family,
            "*filter\n-A INPUT -i lo -j ACCEPT\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A INPUT -p icmp -j ACCEPT\n-A INPUT -p ipv6-icmp -j ACCEPT\n\
             -A INPUT -p tcp -m tcp --dport 9090 -j ACCEPT\n-A INPUT -j REJECT\nCOMMIT\n",
        );
        let mesh = Mesh::new(lab, family);
        is_closed(lab, &mesh);
        let program = if family == Family::V4 { "iptables" } else { "ip6tables" };
        let run = lab.install(backend, &[]).succeeds().says("nothing that arrives over IP").says(program);
        let _ = run.says("-I INPUT -p tcp --dport 15006 -j ACCEPT and");
        assert!(mesh.visit(lab, 9090).starts_with("nobody"));
        let open = "-I INPUT -p tcp -m tcp --dport 15006 -j ACCEPT";
        let _ = firewall::iptables(backend.tools(), family, open).succeeds();
        assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
        let run = lab.install(backend, &[]).succeeds().says("TCP port 8080 (IP").says("before what accepts port 15006");
        assert!(!run.stderr.contains("9090 (IP"), "{run}");
    }

    /// A table that sees the port before it is redirected keeps it closed.
    fn what_comes_first_still_sees_the_port(lab, backend, family) {
        let tools = backend.tools();
        let rule = "-A INPUT -i eth0 -p tcp -m tcp --dport 8080 -j REJECT --reject-with tcp-reset";
        firewall::restore(tools, family, &format!("*filter\n{rule}\nCOMMIT\n*raw\n-A PREROUTING -p tcp -m tcp --dport 8080 -j DROP\nCOMMIT\n"));
        let run = lab.install(backend, &[]).succeeds();
        assert!(!run.stderr.contains("8080"), "{run}");
        status(lab).is_silent();
        let _ = firewall::iptables(tools, family, "-t raw -F PREROUTING").succeeds();
        status(lab).notes(&["TCP port 8080"]);
    }
}

each_backend! {
    /// What a rule says is read whether or not anybody listens; what cannot be evaluated is not claimed.
    fn only_what_is_sure_is_said(lab, backend) {
        let rules = "*filter\n-A INPUT -m limit --limit 5/sec -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 25 -j DROP\nCOMMIT\n";
        for family in Family::BOTH {
            firewall::restore(backend.tools(), family, rules);
        }
        let run = lab.install(backend, &[]).succeeds();
        assert!(!run.stderr.contains("25"), "{run}");
        status(lab).is_silent();
    }

    /// Its rules do nothing.
    fn a_dormant_table(lab, backend) {
        firewall::nft(
            "table inet theirs {\nflags dormant;\nchain in { type filter hook input priority 0; policy drop; tcp dport 8080 drop; }\n}\n",
        );
        let run = lab.install(backend, &[]).succeeds();
        assert!(!run.stderr.contains("15006"), "{run}");
        status(lab).is_silent();
    }

    /// Ten thousand closed ports take one sentence, and not more time than a look.
    fn thousands_of_rules(lab, backend) {
        let mut many = String::new();
        for n in 0..10_000 {
            let _ = writeln!(many, "-A INPUT -s 10.{}.{}.0/24 -p tcp -m tcp --dport {} -j DROP", n / 250, n % 250, 20_000 + n);
        }
        firewall::restore(backend.tools(), Family::V4, &format!("*filter\n{many}-A INPUT -p tcp -m tcp --dport 8080 -j DROP\nCOMMIT\n"));
        let _mesh = Mesh::new(lab, Family::V4);
        let run = lab.install(backend, &[]).succeeds().says("TCP port 8080");
        assert!(run.stderr.lines().filter(|line| line.starts_with("warning")).count() < 10, "{run}");
    }
}

#[test]
fn no_rule_no_word() {
    Lab::enter(|lab| {
        for backend in Backend::ALL {
            let run = lab.install(backend, &[]).succeeds();
            assert!(!run.stderr.contains("warning"), "{run}");
            status(lab).is_silent();
            lab.uninstall(backend, &[]).succeeds();
        }
    });
}
