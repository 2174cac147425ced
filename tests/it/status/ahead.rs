//! Who takes traffic before our rules see it.

use serde_json::Value;

use crate::support::lab::{each_backend, each_iptables_variant};
use crate::support::mesh::Mesh;
use crate::support::{APP, Backend, Family, firewall};

use super::{install, report, status};

pub const DOCKER: &str = "*nat
:DOCKER - [0:0]
:DOCKER_OUTPUT - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
-A DOCKER_OUTPUT -d 127.0.0.11/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination 127.0.0.11:41459
-A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:46737
COMMIT
";

pub const KUBE: &str = "*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-A - [0:0]
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A KUBE-SERVICES -d 203.0.113.9/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-A
-A KUBE-SVC-A -p tcp -j DNAT --to-destination 10.77.0.2:80
COMMIT
";

fn whose(report: &Value) -> Vec<&str> {
    report["ahead"].as_array().expect("a list").iter().map(|a| a["whose"].as_str().expect("a name")).collect()
}

each_backend! {
    fn what_arrives_for_the_host_is_ours(lab, backend) {
        install(lab, backend);
        let first = "-t nat -I PREROUTING 1 -p tcp --dport 8080 -m addrtype --dst-type LOCAL -j REDIRECT --to-ports 1";
        let _ = firewall::iptables(backend.tools(), Family::V4, first).succeeds();
        let found = report(lab, 11, &[]);
        assert_eq!(found["ahead"][0]["traffic"], "inbound", "{found:#}");
        assert_eq!(found["ahead"].as_array().expect("a list").len(), 1, "{found:#}");
    }

    fn native_chains_count_by_priority_and_rules(lab, backend) {
        install(lab, backend);
        // Beside ours, at -95, or before the chains of iptables, at -100.
        let between = if backend == Backend::Nftables { 11 } else { 0 };
        let table = |priority: i32, rule: &str| {
            firewall::nft(&format!(
                "table inet mine\ndelete table inet mine\ntable inet mine {{\n chain out {{\n \
                 type nat hook output priority {priority}\n {rule}\n }}\n}}\n"
            ));
        };
        table(-101, "tcp dport 9999 counter redirect to :1");
        let found = report(lab, 11, &[]);
        assert_eq!(found["ahead"].as_array().expect("a list").len(), 2, "{found:#}");
        assert_eq!(found["ahead"][0]["place"], "nftables table inet mine");
        table(-101, "");
        report(lab, 0, &[]);
        table(-99, "tcp dport 9999 redirect to :1");
        report(lab, between, &[]);
        table(-94, "tcp dport 9999 redirect to :1");
        report(lab, 0, &[]);
        table(-101, "fib daddr type local tcp dport 9999 redirect to :1");
        report(lab, 0, &[]);
        table(-101, "udp dport 9999 redirect to :1");
        report(lab, 0, &[]);
    }

    fn a_native_chain_in_the_table_of_iptables(lab, backend) {
        install(lab, backend);
        firewall::nft(
            "table ip nat {\n chain mine {\n type nat hook output priority -150\n tcp dport 9999 redirect to :1\n }\n}\n",
        );
        let found = report(lab, 11, &[]);
        assert_eq!(found["ahead"][0]["place"], "nftables table ip nat", "{found:#}");
    }

    fn an_installation_warns_of_what_surely_comes_first(lab, backend) {
        firewall::nft(
            "table inet mine {\n chain out {\n type nat hook output priority -120\n tcp dport 9999 redirect to :1\n }\n}\n",
        );
        firewall::restore(backend.tools(), Family::V6, "*raw\n-A PREROUTING -p tcp --dport 9998 -j CT --notrack\nCOMMIT\n");
        let run = lab.install(backend, &["--redirect-dns"]).succeeds();
        let said: Vec<&str> = run.stderr.lines().filter(|line| line.contains(" before the redirection: ")).collect();
        assert_eq!(said.len(), 2, "{run}");
        for words in ["IPv4 and IPv6 outgoing TCP", "IPv6 incoming TCP"] {
            let words = format!("warning: a foreign rule takes some {words} before the redirection: '");
            assert!(said.iter().any(|line| line.starts_with(&words)), "{words}: {run}");
        }
        assert!(!run.stdout.contains("You can now run"), "{run}");
        let _ = run.clone().prints("foreign rules keep some of the traffic from it: see the warnings");
        // The same as is said by status.
        let found = report(lab, 11, &[]);
        for ahead in found["ahead"].as_array().expect("a list") {
            let words = format!("'{}' in {}", ahead["rule"].as_str().unwrap(), ahead["place"].as_str().unwrap());
            assert!(run.stderr.contains(&words), "{words}: {run}");
        }
        assert_eq!(found["ahead"].as_array().expect("a list").len(), 3, "{found:#}");
        let text = status(lab, &[]).exits(11).prints("a foreign rule takes some IPv4 and IPv6 outgoing TCP");
        assert_eq!(text.stdout.matches("a foreign rule takes").count(), 2, "{text}");
    }

    fn what_is_not_tracked_cannot_be_redirected(lab, backend) {
        install(lab, backend);
        let rule = "*raw\n-A OUTPUT -p tcp -m tcp --dport 9999 -j CT --notrack\nCOMMIT\n";
        firewall::restore(backend.tools(), Family::V4, rule);
        let found = report(lab, 11, &[]);
        let place = match backend {
            Backend::Iptables(variant) => format!("raw OUTPUT ({})", variant.name()),
            Backend::Nftables => "nftables table ip raw".to_owned(),
        };
        assert_eq!(found["ahead"][0]["place"], place, "{found:#}");
    }
}

each_backend! {
    fn docker_that_keeps_to_itself_does_not_count(lab, backend) {
        firewall::restore(backend.tools(), Family::V4, DOCKER);
        install(lab, backend);
        let found = report(lab, 0, &[]);
        assert_eq!(whose(&found), [""; 0], "{found:#}");
    }

    fn kube_proxy_takes_services(lab, backend) {
        firewall::restore(backend.tools(), Family::V4, KUBE);
        install(lab, backend);
        let mesh = Mesh::new(lab, Family::V4);
        // That it is really so:
        assert_eq!(mesh.connect(APP, Family::V4.outside(), 443), "world");
        assert_eq!(mesh.connect(APP, Family::V4.outside(), 444), "outbound");
        let found = report(lab, 11, &[]);
        assert_eq!(whose(&found), ["kube-proxy"], "{found:#}");
        let ahead = &found["ahead"][0];
        assert_eq!((ahead["traffic"].as_str(), ahead["takes"].as_str()), (Some("outbound"), Some("part")));
        assert_eq!(ahead["packets"], 1);
        let _ = status(lab, &[]).exits(11).prints("kube-proxy takes some IPv4 outgoing TCP").prints("to come first");
        // The way out that is named is one.
        let _ = lab.install(backend, &["--redirect-dns", "--redirect-outbound-insert-instead-of-append"]).succeeds();
        assert_eq!(mesh.connect(APP, Family::V4.outside(), 443), "outbound");
        report(lab, 0, &[]);
    }
}

// Our own table has no other variant; `native` has both of them before it.
each_iptables_variant! {
    fn the_other_variant_takes(lab, variant) {
        install(lab, variant);
        let take = "*nat\n-A OUTPUT -p tcp -m tcp --dport 9999 -j REDIRECT --to-ports 1\nCOMMIT\n";
        firewall::restore(variant.other(), Family::V4, take);
        let found = report(lab, 11, &[]);
        assert_eq!(found["ahead"][0]["place"], format!("nat OUTPUT ({})", variant.other().name()), "{found:#}");
    }
}
