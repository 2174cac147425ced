//! Firewalls that drop what is redirected.

use super::{both, status};
use crate::support::firewall::{self, Family};
use crate::support::lab::{each_backend, each_stack};
use crate::support::mesh::{APP_PORT, Mesh};
use crate::support::{APP, command};

/// What every firewall that drops by default lets in.
const USUAL: &str = "-A INPUT -i lo -j ACCEPT\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
    -A INPUT -p icmp -j ACCEPT\n-A INPUT -p ipv6-icmp -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n";

each_stack! {
    /// The line that opens it does.
    fn a_policy_that_drops(lab, backend, family) {
        let [mesh, _other] = both(lab, family);
        let app = "-A INPUT -p tcp -m multiport --dports 443,8080 -j ACCEPT\n";
        firewall::restore(backend.tools(), family, &format!("*filter\n:INPUT DROP [0:0]\n{USUAL}{app}COMMIT\n"));
        assert_eq!(mesh.visit(lab, APP_PORT), "app");
        let run = lab.install(backend, &["--exclude-inbound-ports", "22"]).succeeds();
        let run = run.says("nothing that arrives over IP").says("'policy drop' in chain INPUT").prints("completed successfully");
        assert!(!run.stdout.contains("You can now run"), "{run}");
        let _ = run.prints("foreign rules keep some of the traffic from it: see the warnings");
        assert!(mesh.visit(lab, APP_PORT).starts_with("nobody"));
        let said = status(lab);
        said.fails(&["nothing that arrives over IP", "15006", "'policy drop'", "--ctorigdstport 443"]);
        said.mend();
        assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
        assert_eq!(status(lab).problems, [""; 0]);
    }

    fn a_chain_of_nftables_that_drops(lab, backend, family) {
        let [mesh, _other] = both(lab, family);
        firewall::nft(
            "table inet theirs {\n\
             chain in { type filter hook input priority 0; policy drop; ct state vmap { established : accept, \
             related : accept, invalid : drop }; iifname \"lo\" accept; meta l4proto { icmp, ipv6-icmp } accept; \
             tcp dport { 22, 8080 } accept; }\n}\n",
        );
        assert_eq!(mesh.visit(lab, APP_PORT), "app");
        let run = lab.install(backend, &[]).succeeds().says("nothing that arrives over IPv4 and IPv6 reaches the sidecar");
        let _ = run.says("nft insert rule inet theirs in tcp dport 15006 accept");
        assert!(mesh.visit(lab, APP_PORT).starts_with("nobody"));
        let said = status(lab);
        said.fails(&["IPv4 and IPv6", "'policy drop' in chain in of inet theirs"]);
        said.mend();
        assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
        status(lab).notes(&["TCP port 9090 (IPv4 and IPv6)", "'policy drop'", "before what accepts port 15006"]);
    }

    /// What was open by one interface is named, where others are open as a whole.
    fn one_interface_of_several(lab, backend, family) {
        let [mesh, _other] = both(lab, family);
        command::must("ip", &["link", "add", "in0", "type", "veth", "peer", "name", "in1"]);
        let six = family == Family::V6;
        let (of, addr) = if six { ("-6", "fd44::1/64") } else { ("-4", "10.44.0.1/24") };
        let at_once: &[&str] = if six { &["nodad"] } else { &[] };
        command::must("ip", &[&[of, "addr", "add", addr, "dev", "in0"], at_once].concat());
        command::must("ip", &["link", "set", "in0", "up"]);
        let rules = "-A INPUT -i in0 -j ACCEPT\n-A INPUT -i eth0 -p tcp -m tcp --dport 8080 -j ACCEPT\n-A INPUT -j REJECT\n";
        firewall::restore(backend.tools(), family, &format!("*filter\n{USUAL}{rules}COMMIT\n"));
        assert_eq!(mesh.visit(lab, APP_PORT), "app");
        lab.install(backend, &["--exclude-inbound-ports", "22"]).succeeds().says("connections to TCP port 8080");
        assert!(mesh.visit(lab, APP_PORT).starts_with("nobody"));
        let said = status(lab);
        said.fails(&["connections to TCP port 8080 (IP", "come to the inbound port 15006"]);
        said.mend();
        assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
        assert_eq!(status(lab).problems, [""; 0]);
    }

    /// What is redirected on the host itself comes over loopback.
    fn loopback_that_is_not_let_in(lab, backend, family) {
        let [mesh, _other] = both(lab, family);
        let rules = USUAL.replace("-A INPUT -i lo -j ACCEPT\n", "-A INPUT -p tcp -m tcp --dport 15006 -j ACCEPT\n");
        lab.install(backend, &["--redirect-dns"]).succeeds();
        assert_eq!(mesh.connect(APP, family.outside(), 443), "outbound");
        firewall::restore(backend.tools(), family, &format!("*filter\n{rules}-A INPUT -j REJECT\nCOMMIT\n"));
        assert!(mesh.connect(APP, family.outside(), 443).starts_with("nobody"));
        let said = status(lab);
        said.fails(&["what applications here send over IP", "over loopback", "-I INPUT -i lo -p tcp --dport 15001 -j ACCEPT"]);
        said.fails(&["DNS questions", "-I INPUT -i lo -p udp --dport 15053 -j ACCEPT"]);
        let run = lab.install(backend, &["--redirect-dns"]).succeeds();
        let _ = run.says("what applications here send over IP").says("DNS questions of applications here");
        for test in ["-p tcp --dport 15001", "-p udp --dport 15053"] {
            let _ = firewall::iptables(backend.tools(), family, &format!("-I INPUT -i lo {test} -j ACCEPT")).succeeds();
        }
        assert_eq!(mesh.connect(APP, family.outside(), 443), "outbound");
        assert_eq!(status(lab).problems, [""; 0]);
        // Where answers are dropped too, and what the sidecar passes on, one line lets all of it in.
        firewall::restore(backend.tools(), family, "*filter\n-F INPUT\n-A INPUT -p tcp --dport 15006 -j ACCEPT\n-A INPUT -j REJECT\nCOMMIT\n");
        let said = status(lab);
        said.fails(&["what applications here send over IP", "-I INPUT -i lo -j ACCEPT"]);
        let run = lab.install(backend, &[]).succeeds();
        assert!(!run.stderr.contains("the address of every client behind the sidecar"), "{run}");
    }

    /// A rule that keeps some clients out keeps out the sidecar, by which all of them come: it opens nothing.
    fn a_list_of_clients_is_told_once(lab, backend, family) {
        let mesh = Mesh::new(lab, family);
        let known = if family == Family::V4 { "10.77.0.0/24" } else { "fd77::/64" };
        let rules = format!("*filter\n-A INPUT -p tcp -m tcp --dport 8080 ! -s {known} -j REJECT\nCOMMIT\n");
        firewall::restore(backend.tools(), family, &rules);
        let run = lab.install(backend, &[]).succeeds();
        let about: Vec<&str> = run.stderr.lines().filter(|line| line.starts_with("warning") && line.contains("8080")).collect();
        assert!(about.len() == 1 && about[0].contains("nobody reaches TCP port 8080 any more"), "{run}");
        assert!(!run.stdout.contains("You can now run"), "{run}");
        assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
        let said = status(lab);
        assert!(said.code == Some(11) && !said.notes.iter().any(|note| note.contains("8080")), "{said:?}");
    }
}

each_backend! {
    /// Whom the firewall lets in, it lets in.
    fn a_network_that_may_come(lab, backend) {
        let mesh = Mesh::new(lab, Family::V4);
        let rules = "-A INPUT -s 10.77.0.0/24 -j ACCEPT\n";
        firewall::restore(backend.tools(), Family::V4, &format!("*filter\n:INPUT DROP [0:0]\n{USUAL}{rules}COMMIT\n"));
        let run = lab.install(backend, &["--exclude-inbound-ports", "22"]).succeeds();
        assert!(!run.stderr.contains("15006"), "{run}");
        assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
        assert_eq!(status(lab).problems, [""; 0]);
    }

    /// Without inbound redirection nothing of it is lost.
    fn outbound_alone(lab, backend) {
        for family in Family::BOTH {
            firewall::restore(backend.tools(), family, &format!("*filter\n:INPUT DROP [0:0]\n{USUAL}COMMIT\n"));
        }
        lab.install(backend, &["--redirect-inbound=false"]).succeeds();
        status(lab).is_silent();
    }
}
