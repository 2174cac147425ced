//! Which recorded rules an installation can have written. Pure.
//!
//! A record may be damaged, of another installation, or not from us at all. Of the rules without comment that it
//! names, those count that a plan of its own configuration holds.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::config::Config;
use crate::host::{HostFacts, Ipv6Support, Resolver, Translated};
use crate::plan::{ChainRef, Family, Match, family_plan};

use super::decode::Canonical;
use super::owned::RecordedRule;
use super::save::SavedRule;

/// Rules in shared chains, by table and chain.
#[derive(Debug, Default)]
pub struct Written(HashSet<(String, String, Canonical)>);

impl Written {
    /// Whether a recorded rule is among them.
    pub fn contains(&self, rule: &RecordedRule) -> bool {
        let Some(said) = Canonical::read(&SavedRule::new(&rule.args)) else { return false };
        self.0.contains(&(rule.table.clone(), rule.chain.clone(), said))
    }
}

/// What installations write without comments into the shared chains of a family: `writers` are their configurations
/// with the sidecar's UID. Which DNS servers the host had is not on record, so it is taken from the rules; where
/// Docker's was, there are rules beside it, and where not, none; so it is where somebody translated their addresses.
pub fn rules(recorded: &[RecordedRule], writers: &[(Config, u32)], family: Family) -> Written {
    let resolvers = resolvers(recorded);
    let mut written = HashSet::new();
    for (config, sidecar_uid) in writers {
        let translated = Translated { families: [family].into(), in_our_chain: true };
        let both = [Translated::default(), translated];
        let hosts = [false, true].into_iter().flat_map(|docker| both.clone().map(|other| (docker, other)));
        for (docker_dns, translated) in hosts {
            let facts = HostFacts {
                sidecar_uid: *sidecar_uid,
                loopback: String::new(),
                ipv6: Ipv6Support::Available,
                resolvers: resolvers.clone(),
                docker_dns,
                translated,
            };
            for table in family_plan(config, &facts, family).tables {
                for (chain, rules) in table.chains {
                    if let ChainRef::Builtin(_) = chain {
                        let (table, chain) = (table.table.name(), chain.name());
                        let rules = rules.iter().map(|placed| Canonical::of(&placed.rule, false));
                        written.extend(rules.map(|rule| (table.to_owned(), chain.to_owned(), rule)));
                    }
                }
            }
        }
    }
    Written(written)
}

/// The single addresses whose DNS the rules are about.
fn resolvers(recorded: &[RecordedRule]) -> Vec<Resolver> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for rule in recorded.iter().filter_map(|rule| Canonical::read(&SavedRule::new(&rule.args))) {
        let to_dns = |m: &Match| matches!(m, Match::DestinationPort(port) if port.get() == 53);
        let asks = rule.matches().iter().any(to_dns);
        for m in rule.matches().iter().filter(|m| asks || matches!(m, Match::Source(_))) {
            let (Match::Source(net) | Match::Destination { net, negated: false }) = m else { continue };
            let net = net.net();
            if net.prefix_len() == net.max_prefix_len() {
                addresses.push(net.addr());
            }
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into_iter().map(|addr| Resolver { addr, zone: None }).collect()
}
