//! The rules that firewalls of distributions have by default.

use std::fmt::Write as _;

use super::{both, status};
use crate::support::firewall::{self, Family};
use crate::support::lab::{each_backend, each_stack};
use crate::support::mesh::APP_PORT;

/// As `ufw enable` leaves it, with SSH allowed.
fn ufw(family: Family) -> String {
    let ufw = if family == Family::V4 { "ufw" } else { "ufw6" };
    let mut text = String::from("*filter\n:INPUT DROP [0:0]\n");
    let parts = ["before-logging", "before", "after", "after-logging", "reject", "track"];
    for chain in ["logging-deny", "not-local", "skip-to-policy", "user", "user-limit", "user-limit-accept"] {
        let _ = writeln!(text, ":{ufw}-{chain}-input - [0:0]");
    }
    for part in parts {
        let _ = writeln!(text, ":{ufw}-{part}-input - [0:0]");
    }
    for part in parts {
        let _ = writeln!(text, "-A INPUT -j {ufw}-{part}-input");
    }
    let icmp = if family == Family::V4 { "icmp" } else { "ipv6-icmp" };
    let of = |chain: &str, rule: &str| format!("-A {ufw}-{chain}-input {rule}\n");
    text += &of("before", "-i lo -j ACCEPT");
    text += &of("before", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    text += &of("before", &format!("-m conntrack --ctstate INVALID -j {ufw}-logging-deny-input"));
    text += &of("before", "-m conntrack --ctstate INVALID -j DROP");
    text += &of("before", &format!("-p {icmp} -j ACCEPT"));
    text += &of("before", "-p udp -m udp --sport 67 --dport 68 -j ACCEPT");
    text += &of("before", &format!("-j {ufw}-not-local-input"));
    text += &of("before", &format!("-j {ufw}-user-input"));
    text += &of("not-local", "-m addrtype --dst-type LOCAL -j RETURN");
    text += &of("not-local", "-m addrtype --dst-type MULTICAST -j RETURN");
    text += &of("not-local", &format!("-m limit --limit 3/min --limit-burst 10 -j {ufw}-logging-deny-input"));
    text += &of("not-local", "-j DROP");
    text += &of(
        "logging-deny",
        "-m conntrack --ctstate INVALID -m limit --limit 3/min --limit-burst 10 -j RETURN",
    );
    text +=
        &of("logging-deny", "-m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix \"[UFW BLOCK] \"");
    text += &of("user", "-p tcp -m tcp --dport 22 -j ACCEPT");
    text += &of("after", &format!("-p udp -m udp --dport 137 -j {ufw}-skip-to-policy-input"));
    text +=
        &of("after-logging", "-m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix \"[UFW BLOCK] \"");
    text += &of("skip-to-policy", "-j DROP");
    text + "COMMIT\n"
}

/// As firewalld of today keeps it, with the services of the zone `public`.
const FIREWALLD: &str = "table inet firewalld {\n\
    chain filter_IN_public_allow { tcp dport 22 accept; ip6 daddr fe80::/64 udp dport 546 accept; }\n\
    chain filter_IN_public { jump filter_IN_public_allow; meta l4proto { icmp, ipv6-icmp } accept; }\n\
    chain filter_INPUT_ZONES { iifname \"eth0\" goto filter_IN_public; goto filter_IN_public; }\n\
    chain filter_INPUT { type filter hook input priority filter + 10; policy accept; ct state { established, related } accept; \
    ct status dnat accept; iifname \"lo\" accept; ct state invalid drop; jump filter_INPUT_ZONES; reject with icmpx admin-prohibited; }\n\
    chain filter_PREROUTING { type filter hook prerouting priority filter + 10; policy accept; \
    icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept; meta nfproto ipv6 fib saddr . mark . iif oif missing drop; }\n\
    }\n";

each_stack! {
    fn ufw_lets_nobody_to_the_sidecar_before_it_is_told(lab, backend, family) {
        let [mesh, _other] = both(lab, family);
        let tools = backend.tools();
        firewall::restore(tools, family, &ufw(family));
        let run = lab.install(backend, &["--exclude-inbound-ports", "22"]).succeeds();
        let _ = run.says("nothing that arrives over IP").says("run 'ufw allow 15006/tcp'");
        assert!(mesh.visit(lab, APP_PORT).starts_with("nobody"));
        status(lab).fails(&["ufw allow 15006/tcp"]);
        // What that does.
        let chain = if family == Family::V4 { "ufw-user-input" } else { "ufw6-user-input" };
        let _ = firewall::iptables(tools, family, &format!("-A {chain} -p tcp --dport 15006 -j ACCEPT")).succeeds();
        assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
        // Now everything is open that is redirected, and applications listen.
        let said = status(lab);
        let file = if family == Family::V4 { "/etc/ufw/before.rules" } else { "/etc/ufw/before6.rules" };
        said.notes(&["TCP ports 8080, 9090", "--ctorigdstport 8080", file, "--exclude-inbound-ports 22,8080,9090"]);
    }

    /// It lets in whatever is translated, so all that it closed is open.
    fn firewalld_closes_nothing_any_more(lab, backend, family) {
        let [mesh, _other] = both(lab, family);
        firewall::nft(FIREWALLD);
        assert!(mesh.visit(lab, APP_PORT).starts_with("nobody"));
        let run = lab.install(backend, &["--exclude-inbound-ports", "22"]).succeeds().says("TCP ports 8080, 9090 (IP");
        let _ = run.says("--exclude-inbound-ports 22,8080,9090 leaves them to the firewall");
        assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
        status(lab).notes(&["TCP ports 8080, 9090", "filter_INPUT of inet firewalld"]);
    }
}

each_backend! {
    /// Nobody listens, and the firewall lets in what is translated: there is nothing to say.
    fn firewalld_without_applications(lab, backend) {
        firewall::nft(FIREWALLD);
        let run = lab.install(backend, &["--exclude-inbound-ports", "22"]).succeeds();
        assert!(!run.stderr.contains("15006"), "{run}");
        status(lab).is_silent();
    }

    /// Docker closes nothing at this hook, and a published port is a container's.
    fn docker(lab, backend) {
        firewall::restore(
            backend.tools(),
            Family::V4,
            "*filter\n:FORWARD DROP [0:0]\n:DOCKER - [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n\
             -A FORWARD -o docker0 -j DOCKER\n-A INPUT -p tcp -m tcp --dport 8000 -j DROP\nCOMMIT\n\
             *nat\n:DOCKER - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
             -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8000 -j DNAT --to-destination 172.17.0.2:80\nCOMMIT\n",
        );
        let run = lab.install(backend, &[]).succeeds();
        assert!(!run.stderr.contains("8000"), "{run}");
        status(lab).is_silent();
    }
}
