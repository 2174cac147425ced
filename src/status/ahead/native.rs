//! Native tables of nftables ahead of ours.

use crate::plan::Family;
use crate::sys::netlink::ruleset::{
    Action, Condition, FamilyNumber, HookedChain, NativeRule, Ruleset, is_compat,
};

use super::super::model::Ahead;
use super::{Ours, Part, Traffic, whose};

/// At which iptables translates addresses before routing (`NF_IP_PRI_NAT_DST`).
const IPTABLES: i32 = -100;

/// Our own native table.
const OURS: &str = "kuma_mesh";

const BOTH: FamilyNumber = 1;
const DEEPEST: usize = 16;

const fn number(family: Family) -> FamilyNumber {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// Chains at the same hook with an earlier or the same priority that take of this traffic.
pub fn ahead(ruleset: &Ruleset, family: Family, traffic: Traffic, ours: &Ours) -> Vec<Ahead> {
    let hook = match traffic {
        Traffic::Inbound => 0,
        Traffic::Outbound | Traffic::Dns => 3,
    };
    let search = Search { ruleset, family, traffic, ours };
    ruleset
        .hooked
        .iter()
        .filter(|chain| {
            chain.hook == hook
                && chain.priority <= IPTABLES
                && (chain.family == BOTH || chain.family == number(family))
                && !is_compat(chain)
                && chain.table != OURS
        })
        .filter_map(|chain| search.chain(chain))
        .collect()
}

struct Search<'a> {
    ruleset: &'a Ruleset,
    family: Family,
    traffic: Traffic,
    ours: &'a Ours,
}

impl Search<'_> {
    fn chain(&self, chain: &HookedChain) -> Option<Ahead> {
        let names = [chain.table.to_uppercase(), chain.table.clone(), chain.name.clone()];
        let whose = whose(names.iter().map(String::as_str));
        // What arrives at a published port is a container's and not the host's.
        if self.traffic == Traffic::Inbound && whose == "Docker" {
            return None;
        }
        let (part, packets) = self.taken(chain, &chain.name, 0);
        let family = match chain.family {
            BOTH => "inet",
            2 => "ip",
            _ => "ip6",
        };
        (part > Part::None).then(|| Ahead {
            whose,
            family: self.family,
            hook: self.traffic.hook(),
            place: format!("nftables table {family} {}", chain.table),
            rule: format!("chain {} at priority {}", chain.name, chain.priority),
            traffic: self.traffic.name(),
            all: part == Part::All,
            packets,
            fix: format!(
                "exclude that traffic, or give the chain a priority above {IPTABLES}: 'nft list table {family} {}' \
                 shows its rules",
                chain.table
            ),
        })
    }

    fn taken(&self, of: &HookedChain, chain: &str, depth: usize) -> (Part, Option<u64>) {
        let here =
            |rule: &&NativeRule| rule.family == of.family && rule.table == of.table && rule.chain == chain;
        let mut sum = (Part::None, None);
        for rule in self.ruleset.rules.iter().filter(here) {
            let part = rule.conditions.iter().fold(Part::All, |part, c| part.min(self.concerns(*c)));
            let (taken, packets) = match &rule.action {
                Action::Redirect | Action::Drop => (part, rule.packets),
                Action::Jump(next) if depth < DEEPEST && part > Part::None => {
                    let (inner, packets) = self.taken(of, next, depth + 1);
                    (inner.min(part), packets)
                }
                // Where a map leads is not followed; that it leads somewhere is enough to look at it.
                Action::Map => (part.min(Part::Some), rule.packets),
                Action::Jump(_) | Action::Other => (Part::None, None),
            };
            if taken > Part::None {
                sum.0 = sum.0.max(taken);
                sum.1 = match (sum.1, packets) {
                    (None, None) => None,
                    (a, b) => Some(a.unwrap_or(0u64).saturating_add(b.unwrap_or(0))),
                };
            }
        }
        sum
    }

    fn concerns(&self, condition: Condition) -> Part {
        let dns = self.traffic == Traffic::Dns;
        let all_if = |yes: bool| if yes { Part::All } else { Part::None };
        match condition {
            Condition::Protocol(protocol) => all_if(protocol == if dns { 17 } else { 6 }),
            Condition::Family(family) => all_if(family == number(self.family)),
            // Redirection leaves alone what a host sends to itself, but takes what arrives, which is for the host.
            Condition::OwnAddress => all_if(self.traffic == Traffic::Inbound),
            Condition::User(uid) if uid == self.ours.sidecar => Part::None,
            Condition::Port(port) if dns => all_if(port == 53),
            Condition::Destination(address, bits) if dns => {
                let net = ipnet::IpNet::new(address, bits);
                if net.is_ok_and(|net| self.ours.dns.could_go_to(&net)) { Part::Some } else { Part::None }
            }
            Condition::Destination(address, _) if address.is_loopback() => Part::None,
            Condition::Port(_) | Condition::User(_) | Condition::Destination(..) | Condition::Something => {
                Part::Some
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Dns;
    use super::*;

    fn rule(chain: &str, conditions: &[Condition], action: Action) -> NativeRule {
        NativeRule {
            family: BOTH,
            table: "t".into(),
            chain: chain.into(),
            conditions: conditions.to_vec(),
            action,
            packets: Some(3),
        }
    }

    fn found(priority: i32, rules: Vec<NativeRule>, traffic: Traffic) -> Vec<Ahead> {
        let hooked = HookedChain { family: BOTH, table: "t".into(), name: "out".into(), hook: 3, priority };
        let ours = Ours { sidecar: 5678, outbound: true, inbound: true, dns: Dns::All };
        ahead(&Ruleset { hooked: vec![hooked], rules }, Family::V4, traffic, &ours)
    }

    #[test]
    fn earlier_and_equal_priorities_count() {
        let take = || vec![rule("out", &[Condition::Protocol(6)], Action::Redirect)];
        for (priority, count) in [(-150, 1), (-100, 1), (-99, 0)] {
            assert_eq!(found(priority, take(), Traffic::Outbound).len(), count, "{priority}");
        }
        let one = &found(-100, take(), Traffic::Outbound)[0];
        assert!(one.all && one.packets == Some(3) && one.place == "nftables table inet t", "{one:?}");
        assert_eq!(found(-100, take(), Traffic::Dns), []);
        assert_eq!(found(-100, take(), Traffic::Inbound), []);
    }

    #[test]
    fn only_what_takes_of_ours_counts() {
        let jump = |condition: Condition| {
            vec![
                rule("out", &[condition], Action::Jump("c".into())),
                rule("c", &[Condition::Port(80)], Action::Redirect),
            ]
        };
        assert_eq!(found(-100, jump(Condition::OwnAddress), Traffic::Outbound), []);
        assert_eq!(found(-100, jump(Condition::User(5678)), Traffic::Outbound), []);
        assert_eq!(found(-100, jump(Condition::Family(10)), Traffic::Outbound), []);
        assert_eq!(
            found(-100, jump(Condition::Destination([127, 0, 0, 11].into(), 32)), Traffic::Outbound),
            []
        );
        let part = found(-100, jump(Condition::Something), Traffic::Outbound);
        assert!(part.len() == 1 && !part[0].all, "{part:?}");
        assert_eq!(found(-100, vec![], Traffic::Outbound), []);
        assert_eq!(found(-100, vec![rule("out", &[], Action::Jump("out".into()))], Traffic::Outbound), []);
    }
}
