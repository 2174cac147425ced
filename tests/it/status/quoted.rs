//! Foreign rules are quoted as their own program prints them.

use std::collections::BTreeSet;

use crate::support::command::must;
use crate::support::lab::{each_backend, each_stack};
use crate::support::{Lab, firewall};

use super::{install, report};

/// The rules that status quotes as rules about users, each in quotes and with its chain.
fn quoted(lab: &Lab) -> Vec<String> {
    let found = report(lab, 0, &[]);
    let all = found["meetSidecar"].as_array().expect("a list").iter();
    all.map(|met| met["what"].as_str().expect("a sentence").to_owned()).collect()
}

/// Each of these lines is quoted.
#[track_caller]
fn quotes(lab: &Lab, lines: &BTreeSet<String>) {
    let all = quoted(lab);
    assert!(lines.len() > 2);
    for line in lines {
        assert!(all.iter().any(|met| met.starts_with(&format!("'{line}' in chain "))), "{line}: {all:#?}");
    }
}

each_stack! {
    fn rules_of_iptables_read_as_it_lists_them(lab, backend, family) {
        let (net, one) = if family.host().is_ipv4() { ("203.0.113.0/24", "198.51.100.9") } else { ("2001:db8:9::/48", "2001:db8:7::9") };
        for rule in [
            format!("-d {net} -p tcp -m owner --uid-owner 5700 -j REJECT --reject-with tcp-reset"),
            format!("-d {one} -p tcp -m owner --uid-owner 5701 -m tcp --dport 25:26 -m comment --comment 'two words' -j DROP"),
            format!("-d {net} -o eth+ -p tcp -m multiport --dports 80,443,8000:8080 -m owner --uid-owner 5702 -j REJECT"),
            format!("-d {net} -p tcp ! --dport 81 -m owner --uid-owner 5703 -m conntrack --ctstate NEW -j DROP"),
        ] {
            let program = firewall::path(backend.tools(), family, "");
            let _ = must("sh", &["-c", &format!("{} -A OUTPUT {rule}", program.display())]);
        }
        install(lab, backend);
        let listed = must(&firewall::path(backend.tools(), family, "").to_string_lossy(), &["-S", "OUTPUT"]);
        let lines: BTreeSet<String> =
            listed.lines().filter_map(|line| line.strip_prefix("-A OUTPUT ")).map(str::to_owned).collect();
        quotes(lab, &lines);
    }
}

each_backend! {
    fn rules_of_nftables_read_as_it_lists_them(lab, backend) {
        firewall::nft(
            "table inet mine {\nset far {\ntype ipv4_addr\nflags interval\nelements = { 203.0.113.0/24 }\n}\n\
             chain out {\ntype filter hook output priority 0\n\
             meta skuid 5700 ip daddr @far drop\n\
             ip daddr 203.0.113.9 tcp dport { 25, 80-90 } meta skuid 5701 reject with tcp reset\n\
             ip6 daddr 2001:db8:9::/48 meta skuid 5702-5704 tcp dport 443 counter drop\n\
             oifname \"eth*\" meta l4proto tcp ip6 daddr 2001:db8:7::9 meta skuid 5705 tcp dport != 81 ct state new drop\n}\n}\n",
        );
        install(lab, backend);
        let listed = must("nft", &["-s", "list", "chain", "inet", "mine", "out"]);
        let rules = listed.lines().map(str::trim).filter(|line| line.contains("skuid"));
        quotes(lab, &rules.map(str::to_owned).collect());
    }

    fn what_is_not_decoded_is_named(lab, backend) {
        firewall::nft(
            "table inet mine {\nchain out {\ntype filter hook output priority 0\n\
             meta skuid 5700 ip daddr 203.0.113.9 limit rate over 3/second ct mark 7 drop\n}\n}\n",
        );
        install(lab, backend);
        let all = quoted(lab);
        let rule = "'meta skuid 5700 ip daddr 203.0.113.9 limit … ct mark … drop' in chain out of inet mine";
        assert!(all.iter().any(|met| met.starts_with(rule)), "{all:#?}");
    }
}
