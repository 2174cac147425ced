//! From configuration and host facts to the plan.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::Config;
use crate::config::values::{Cidr, IpFamilyMode};
use crate::host::{HostFacts, Ipv6Support};

use super::model::{
    BuiltinChain, ChainRef, Family, FamilyPlan, Match, PlacedRule, Placement, Plan, Rule, Table, TablePlan,
    Target,
};
use super::{link_local, nat, raw};

/// What should exist on a host with these facts, for this configuration. Never fails: what the host cannot do is
/// left out with a note.
pub fn build(config: &Config, facts: &HostFacts) -> Plan {
    let mut notes = Vec::new();
    if let (IpFamilyMode::DualStack, Ipv6Support::Unavailable(why)) = (config.ip_family_mode, &facts.ipv6) {
        notes.push(format!("IPv6 traffic is not redirected: {why}"));
    }
    let families = families(config, facts);
    for &family in &families {
        let scope = Scope::new(config, facts, family);
        let links = link_local::note(&scope);
        if config.redirect.dns.enabled && !scope.dns() && links.is_none() {
            notes.push(format!(
                "no {family} DNS servers found in {}; {family} DNS questions are not redirected",
                config.redirect.dns.resolv_config_path.display()
            ));
        }
        notes.extend(links);
    }
    Plan { families: families.into_iter().map(|family| family_plan(config, facts, family)).collect(), notes }
}

/// Those whose traffic is redirected.
fn families(config: &Config, facts: &HostFacts) -> Vec<Family> {
    match (config.ip_family_mode, &facts.ipv6) {
        (IpFamilyMode::DualStack, Ipv6Support::Available) => vec![Family::V4, Family::V6],
        _ => vec![Family::V4],
    }
}

/// Whether questions of this family are redirected: to any server, or to one that is known.
pub fn redirects_dns(config: &Config, facts: &HostFacts, family: Family) -> bool {
    Scope::new(config, facts, family).dns()
}

/// Whether DNS questions are to be redirected, and no server is known from which any could be.
pub fn lacks_dns_servers(config: &Config, facts: &HostFacts) -> bool {
    let any = || families(config, facts).iter().any(|family| redirects_dns(config, facts, *family));
    config.redirect.dns.enabled && !any()
}

/// What should exist for one address family.
pub fn family_plan(config: &Config, facts: &HostFacts, family: Family) -> FamilyPlan {
    let scope = Scope::new(config, facts, family);
    let tables = [raw::table(&scope), mangle(&scope), Some(nat::table(&scope))];
    FamilyPlan { family, tables: tables.into_iter().flatten().collect() }
}

fn mangle(scope: &Scope) -> Option<TablePlan> {
    let why = "drop packets in the INVALID state to prevent potential issues with malformed or out-of-order packets";
    let rule = tail(vec![Match::Invalid], Target::Drop, why);
    scope.config.drop_invalid_packets.then(|| TablePlan {
        table: Table::Mangle,
        chains: vec![(ChainRef::Builtin(BuiltinChain::Prerouting), vec![rule])],
    })
}

/// One family's view of what is wanted and what is there.
pub(super) struct Scope<'a> {
    pub config: &'a Config,
    pub facts: &'a HostFacts,
    pub family: Family,
}

impl<'a> Scope<'a> {
    fn new(config: &'a Config, facts: &'a HostFacts, family: Family) -> Self {
        Self { config, facts, family }
    }

    /// The family's resolvers from which questions can be redirected.
    pub fn resolvers(&self) -> impl Iterator<Item = IpAddr> {
        let family = self.family;
        self.facts
            .resolvers
            .iter()
            .map(|resolver| resolver.addr)
            .filter(move |addr| family.holds((*addr).into()) && !link_local::is_link_local(*addr))
    }

    /// Whether this family's DNS questions are redirected.
    pub fn dns(&self) -> bool {
        let dns = &self.config.redirect.dns;
        dns.enabled && (dns.capture_all || self.resolvers().next().is_some())
    }

    /// Whether Docker's embedded DNS server is there; it has an IPv4 address only.
    pub fn docker_dns(&self) -> bool {
        self.family == Family::V4 && self.facts.docker_dns
    }

    /// Whether somebody else translates the address of this family's DNS questions.
    pub fn translated(&self) -> bool {
        self.facts.translated.families.contains(&self.family)
    }

    /// The loopback address that applications use.
    pub fn localhost(&self) -> Cidr {
        host(match self.family {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        })
    }

    /// The address from which the sidecar passes inbound traffic on to the application.
    pub fn passthrough(&self) -> Cidr {
        host(match self.family {
            Family::V4 => Ipv4Addr::new(127, 0, 0, 6).into(),
            Family::V6 => Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6).into(),
        })
    }

    /// Those of the networks that are of this family.
    pub fn own<'n>(&self, networks: &'n [Cidr]) -> impl Iterator<Item = &'n Cidr> {
        let family = self.family;
        networks.iter().filter(move |cidr| family.holds(cidr.net()))
    }
}

/// A network of one address, written with its prefix length.
fn host(addr: IpAddr) -> Cidr {
    ipnet::IpNet::from(addr).into()
}

pub(super) fn rule(matches: Vec<Match>, target: Target, why: impl Into<String>) -> Rule {
    Rule { matches, target, why: why.into() }
}

pub(super) fn head(matches: Vec<Match>, target: Target, why: impl Into<String>) -> PlacedRule {
    PlacedRule { placement: Placement::Head, rule: rule(matches, target, why) }
}

pub(super) fn tail(matches: Vec<Match>, target: Target, why: impl Into<String>) -> PlacedRule {
    PlacedRule { placement: Placement::Tail, rule: rule(matches, target, why) }
}
