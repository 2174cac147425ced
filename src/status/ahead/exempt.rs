//! What rules of somebody else let pass that stand before ours in a chain of iptables. In a table of our own they
//! would stand in another chain, and what one chain lets pass the next one sees all the same. Pure.

use crate::backend::iptables::save::SavedRule;
use crate::backend::iptables::situation::Situation;
use crate::plan::Family;

use super::{Ours, Traffic, rules};

/// A rule of somebody else's before ours that lets traffic pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exempted {
    /// Of which family.
    pub family: Family,
    /// Its table, chain and variant.
    pub place: String,
    /// Its words.
    pub rule: String,
    /// The option of `tproxy install` that leaves the same traffic alone, where there is one.
    pub flag: Option<String>,
}

/// All of them, each once.
pub fn exempted(situation: &Situation, ours: &Ours) -> Vec<Exempted> {
    let mut found: Vec<Exempted> = Vec::new();
    for (place, own) in situation.ownership() {
        if own.is_empty() {
            continue;
        }
        for traffic in Traffic::ALL.into_iter().filter(|traffic| traffic.is_ours(ours)) {
            for ahead in rules::exempting(situation, place, traffic, ours) {
                let same = |known: &Exempted| {
                    (known.family, &known.place, &known.rule) == (ahead.family, &ahead.place, &ahead.rule)
                };
                if !found.iter().any(same) {
                    let flag = flag(&ahead.rule, traffic);
                    found.push(Exempted { family: ahead.family, place: ahead.place, rule: ahead.rule, flag });
                }
            }
        }
    }
    found
}

/// The option for what a rule of these words exempts; none where it says more than one option can.
fn flag(rule: &str, traffic: Traffic) -> Option<String> {
    let words = SavedRule::new(rule).words();
    let mut words = words.iter().map(String::as_str);
    let mut conditions = Vec::new();
    loop {
        let (word, value) = (words.next()?, words.next()?);
        match word {
            "-j" if matches!(value, "RETURN" | "ACCEPT") => break,
            // It is about the traffic at hand, or would not have been found.
            "-p" | "-m" | "--comment" => {}
            "-d" | "-s" | "--uid-owner" => conditions.push((word, value)),
            "--dport" | "--dports" => conditions.push(("--dport", value)),
            _ => return None,
        }
    }
    conditions.sort_unstable();
    let single = |ports: &str| !ports.contains(':');
    match (traffic, conditions.as_slice()) {
        (Traffic::Outbound, [("-d", net)]) => Some(format!("--exclude-outbound-ips {net}")),
        (Traffic::Outbound, [("--dport", ports)]) if single(ports) => {
            Some(format!("--exclude-outbound-ports {ports}"))
        }
        (Traffic::Outbound, [("--uid-owner", uids)]) => {
            Some(format!("--exclude-outbound-ports-for-uids 'tcp:*:{uids}'"))
        }
        (Traffic::Outbound, [("--dport", ports), ("--uid-owner", uids)]) => {
            Some(format!("--exclude-outbound-ports-for-uids tcp:{}:{uids}", ports.replace(':', "-")))
        }
        (Traffic::Inbound, [("-s", net)]) => Some(format!("--exclude-inbound-ips {net}")),
        (Traffic::Inbound, [("--dport", ports)]) if single(ports) => {
            Some(format!("--exclude-inbound-ports {ports}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Dns;
    use super::*;
    use crate::backend::iptables::save::Saved;
    use crate::backend::iptables::tools::Variant;

    #[test]
    fn an_option_is_named_where_it_means_the_same() {
        let said = |rule, traffic| flag(rule, traffic).unwrap_or_default();
        let out = |rule| said(rule, Traffic::Outbound);
        assert_eq!(out("-d 10.0.0.0/8 -j RETURN"), "--exclude-outbound-ips 10.0.0.0/8");
        assert_eq!(out("-p tcp -m tcp --dport 80 -j ACCEPT"), "--exclude-outbound-ports 80");
        assert_eq!(out("-p tcp -m multiport --dports 80,81 -j ACCEPT"), "--exclude-outbound-ports 80,81");
        let user = "-p tcp -m tcp --dport 80:90 -m owner --uid-owner 7 -j RETURN";
        assert_eq!(out(user), "--exclude-outbound-ports-for-uids tcp:80-90:7");
        assert_eq!(out("-m owner --uid-owner 7 -j RETURN"), "--exclude-outbound-ports-for-uids 'tcp:*:7'");
        for other in [
            "-d 10.0.0.1/32 -p tcp -m tcp --dport 80 -j RETURN",
            "! -d 10.0.0.1/32 -j RETURN",
            "-p tcp -m tcp --dport 80:90 -j RETURN",
            "-j RETURN",
            "-d 10.0.0.1/32 -j THEIRS",
            "-d 10.0.0.1/32",
        ] {
            assert_eq!(out(other), "", "{other}");
        }
        let into = |rule| said(rule, Traffic::Inbound);
        assert_eq!(into("-s fd00::/8 -j ACCEPT"), "--exclude-inbound-ips fd00::/8");
        assert_eq!(into("-p tcp -m tcp --dport 80 -j ACCEPT"), "--exclude-inbound-ports 80");
    }

    #[test]
    fn what_stands_before_ours_and_lets_pass_is_found() {
        const TAG: &str = "-m comment --comment kuma/mesh/transparent/proxy";
        let text = format!(
            "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:KUMA_MESH_INBOUND - [0:0]\n\
             :KUMA_MESH_OUTBOUND - [0:0]\n-A OUTPUT -d 10.0.0.1/32 -j RETURN\n\
             -A OUTPUT -d 10.0.0.2/32 -p tcp -j REDIRECT --to-ports 1\n-A OUTPUT -p udp -j RETURN\n\
             -A OUTPUT -p tcp {TAG} -j KUMA_MESH_OUTBOUND\n-A OUTPUT -d 10.0.0.3/32 -j ACCEPT\n\
             -A PREROUTING -p tcp -m tcp --dport 22 -j ACCEPT\n-A PREROUTING -p tcp {TAG} -j KUMA_MESH_INBOUND\n\
             COMMIT\n"
        );
        let observed = [((Variant::Nft, Family::V4), Saved::parse(&text))].into();
        let situation = Situation::new(observed, &BTreeMap::new());
        let ours = Ours { sidecar: 5678, outbound: true, inbound: true, dns: Dns::Off };
        let found = exempted(&situation, &ours);
        let said: Vec<_> = found
            .iter()
            .map(|found| (found.rule.as_str(), found.flag.as_deref().unwrap_or_default()))
            .collect();
        assert_eq!(
            said,
            [
                ("-d 10.0.0.1/32 -j RETURN", "--exclude-outbound-ips 10.0.0.1/32"),
                ("-p tcp -m tcp --dport 22 -j ACCEPT", "--exclude-inbound-ports 22"),
            ]
        );
        assert_eq!(exempted(&situation, &Ours { outbound: false, ..ours }).len(), 1);
    }
}
