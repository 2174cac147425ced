//! What is said of rules in the words of iptables, without a kernel.

use super::words::{Findings, Plain, findings};
use super::*;
use crate::backend::iptables::save::Saved;
use crate::config::values::Port;
use crate::rules::words;

fn asked(listening: &[u16]) -> Asked {
    let socket = |port: &u16| Socket {
        interface: 0,
        udp: false,
        families: Family::BOTH.to_vec(),
        address: "::".parse().unwrap(),
        port: *port,
        uid: 0,
        inode: 1,
    };
    let road = |address: &str, interface: &str, index| Road {
        address: address.parse().unwrap(),
        interface: interface.into(),
        index,
    };
    Asked {
        config: Config::default(),
        sidecar: 5678,
        families: vec![Family::V4],
        stand: -100,
        loopback: ("lo".into(), 1),
        arrivals: vec![road("10.0.0.1", "eth0", 2), road("10.1.0.1", "eth1", 3)],
        listening: listening.iter().map(socket).collect(),
        servers: Vec::new(),
    }
}

/// What is said of a filter table's rules; `drops`: its policy.
fn said(asked: &Asked, drops: bool, rules: &str) -> Findings {
    let saved = Saved::parse(&format!("*filter\n:INPUT ACCEPT [0:0]\n{rules}COMMIT\n"));
    let chains = words::chains(&saved, Family::V4, |_, chain| drops && chain == "INPUT");
    findings(&asked.config, &chains, &judge(asked, &chains), Plain::Nft)
}

/// Which ports are said to be closed no longer.
fn opened(found: &Findings) -> Vec<&str> {
    assert_eq!(found.problems, [], "{found:?}");
    assert!(found.openings.iter().all(|opening| opening.what.contains(" no longer seen by '")), "{found:?}");
    found.openings.iter().filter_map(|opening| opening.what.split(" (IPv4)").next()).collect()
}

const USUAL: &str =
    "-A INPUT -i lo -j ACCEPT\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n";

#[test]
fn rules_that_name_a_port_close_it_no_more() {
    let asked = asked(&[]);
    for (rules, ports) in [
        ("-A INPUT -p tcp -m tcp --dport 5432 -j DROP\n", "TCP port 5432"),
        ("-A INPUT -s 10.9.0.0/16 -p tcp -m tcp --dport 5432 -j DROP\n", "TCP port 5432"),
        ("-A INPUT ! -s 10.9.0.0/16 -p tcp -m tcp --dport 5432 -j REJECT …\n", "TCP port 5432"),
        ("-A INPUT ! -i eth1 -p tcp -m tcp --dport 5432 -j DROP\n", "TCP port 5432"),
        ("-A INPUT -d 10.1.0.1/32 -p tcp -m tcp --dport 5432 -j DROP\n", "TCP port 5432"),
        ("-A INPUT -p tcp -m multiport --dports 25,6000:6100 -j DROP\n", "TCP ports 25, 6000, 6100"),
        (":b - [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j b\n-A b -s 10.9.9.9/32 -j DROP\n", "TCP port 22"),
        ("-A INPUT -p tcp -m tcp --dport 5432 -m conntrack --ctstate NEW -j DROP\n", "TCP port 5432"),
    ] {
        assert_eq!(opened(&said(&asked, false, rules)), [ports], "{rules}");
    }
}

#[test]
fn what_still_closes_or_never_did_is_passed_over() {
    let asked = asked(&[5432]);
    for rules in [
        "",
        "-A INPUT -p tcp -m tcp --dport 5432 -j ACCEPT\n",
        "-A INPUT -s 10.9.9.9/32 -j DROP\n",
        "-A INPUT -i lo -p tcp -m tcp --dport 5432 -j DROP\n",
        "-A INPUT -p udp -m udp --dport 5432 -j DROP\n",
        "-A INPUT -p tcp -m conntrack --ctorigdstport 5432 -j DROP\n",
        "-A INPUT -p tcp -m tcp --dport 5432 -m conntrack --ctstate ESTABLISHED -j DROP\n",
        "-A INPUT -m set … -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 5432 -j DROP\n",
        "-A INPUT -p tcp -m tcp --dport 5432 -m recent … -j DROP\n",
        "-A INPUT -p tcp -m tcp --dport 5432 -j NFQUEUE …\n-A INPUT -p tcp -m tcp --dport 5432 -j DROP\n",
        "-A INPUT -m conntrack --ctstate INVALID -j DROP\n",
        "-A INPUT -p tcp -m tcp --dport 15006 -j ACCEPT\n-A INPUT -p tcp -m tcp -i eth0 --dport 15001 -j DROP\n",
    ] {
        assert_eq!(said(&asked, false, rules), Findings::default(), "{rules}");
    }
}

#[test]
fn who_lets_in_the_sidecars_port_opens_what_is_listened_on() {
    let asked = asked(&[5432, 22]);
    let rules = format!(
        "{USUAL}-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 15006 -j ACCEPT\n"
    );
    assert_eq!(opened(&said(&asked, true, &rules)), ["TCP port 5432"]);
    let translated = USUAL.replace("RELATED,ESTABLISHED", "RELATED,ESTABLISHED,DNAT");
    assert_eq!(opened(&said(&asked, true, &translated)), ["TCP ports 22, 5432"]);
    let mut only = asked.clone();
    only.config.redirect.inbound.include_ports = vec![Port::of(80)];
    assert_eq!(opened(&said(&only, true, &rules)), [""; 0], "they are not redirected");
}

#[test]
fn who_lets_in_a_list_drops_what_is_redirected() {
    let asked = asked(&[443]);
    let dead = |drops, rules: &str| {
        let found = said(&asked, drops, &format!("{USUAL}{rules}"));
        assert_eq!(found.openings, [], "{found:?}");
        found
            .problems
            .into_iter()
            .map(|shut| format!("{} {}", shut.finding.what, shut.finding.fix.unwrap_or_default()))
            .collect::<Vec<_>>()
    };
    let all = dead(
        true,
        "-A INPUT -p tcp -m tcp --dport 443 -j ACCEPT\n-A INPUT -s 10.9.0.0/16 -p tcp -m tcp --dport 22 -j ACCEPT\n",
    );
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(
        all[0]
            .starts_with("nothing that arrives over IPv4 reaches the sidecar: 'policy drop' in chain INPUT"),
        "{all:?}"
    );
    assert!(all[0].contains("run 'iptables-legacy -I INPUT -p tcp --dport 15006 -j ACCEPT'"), "{all:?}");
    let last = dead(
        false,
        "-A INPUT -s 10.8.8.8/32 -j DROP\n-A INPUT -m addrtype --dst-type MULTICAST -j ACCEPT\n-A INPUT -j REJECT …\n",
    );
    assert!(last.len() == 1 && last[0].contains("'-j REJECT …'"), "{last:?}");
    let one = dead(true, "-A INPUT -i eth1 -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 443 -j ACCEPT\n");
    assert!(one.len() == 1 && one[0].starts_with("connections to TCP port 443 (IPv4), which"), "{one:?}");
    for alive in [
        "-A INPUT -s 10.9.0.0/16 -j ACCEPT\n",
        "-A INPUT -i eth+ -j ACCEPT\n",
        "-A INPUT -m set … -j ACCEPT\n",
        "-A INPUT -j unknown\n",
        "-A INPUT -p tcp -m tcp --dport 15006 -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 443 -j ACCEPT\n",
    ] {
        assert_eq!(dead(true, alive), [""; 0], "{alive}");
    }
}

#[test]
fn loopback_is_looked_at_too() {
    let mut asked = asked(&[]);
    asked.config.redirect.dns.enabled = true;
    asked.servers = vec!["10.96.0.10".parse().unwrap()];
    let found = said(
        &asked,
        true,
        "-A INPUT -p tcp -m tcp --dport 15006 -j ACCEPT\n-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n",
    );
    let what: Vec<&str> =
        found.problems.iter().map(|shut| shut.finding.what.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(what, ["what", "DNS"], "{found:?}");
    assert!(
        found.problems[0]
            .finding
            .fix
            .as_deref()
            .is_some_and(|fix| fix.contains("-I INPUT -i lo -p tcp --dport 15001 -j ACCEPT"))
    );
}

#[test]
fn what_somebody_has_comes_first_where_there_are_too_many_rules() {
    let port = |n: u16| format!("-A INPUT -p tcp -m tcp --dport {} -j DROP\n", 20_000 + n);
    let many: String = (0..40_000).map(port).collect();
    let found = said(&asked(&[5432]), false, &format!("{many}-A INPUT -p tcp -m tcp --dport 5432 -j DROP\n"));
    let what: Vec<&str> = found.openings.iter().map(|opening| opening.what.as_str()).collect();
    assert!(what[0].starts_with("TCP port 5432"), "{what:?}");
    assert!(what[what.len() - 1].starts_with("there are too many rules"), "{what:?}");
    assert!(what.len() <= 8, "{what:?}");
}
