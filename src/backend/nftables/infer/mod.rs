//! What configuration a table was most likely made from, read off the table itself. Pure.
//!
//! For tables without a record: `/run` is in memory, and may be another one in a container. What comes out is planned
//! and lowered again and compared with the table, so whatever was read wrongly or cannot be expressed shows up as a
//! difference and is not lost.

mod exclusions;
mod resolvers;
mod values;

use std::net::IpAddr;

use crate::config::Config;
use crate::config::values::{BackendChoice, InterfacePattern, IpFamilyMode, Protocol, VirtualNetwork};
use crate::host::{HostFacts, Resolver};
use crate::plan::{self, Family, OwnChain};

use super::lower::{self, NAT_FIRST, own_name};
use super::model::{Chain, ChainKind, End, HookPoint, Interface, Rule, Statement, Table, Test, Verdict};

pub use self::resolvers::resolvers;
use self::values::{networks, ranges, single_ports};

/// What can be read off a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inferred {
    /// The configuration.
    pub config: Config,
    /// The sidecar's user. `None` where no rule is about it, so that any will do.
    pub sidecar_uid: Option<u32>,
    /// The servers questions to which are redirected, in an order that makes the same rules.
    pub resolvers: Vec<IpAddr>,
}

impl Inferred {
    /// What is known of the host, with what the table says of user and servers.
    pub fn facts(&self, host: HostFacts) -> HostFacts {
        let resolvers = self.resolvers.iter().map(|&addr| Resolver { addr, zone: None }).collect();
        HostFacts { sidecar_uid: self.sidecar_uid.unwrap_or(host.sidecar_uid), resolvers, ..host }
    }

    /// The table that an installation with this configuration would make now; `now` is the one that it was read off,
    /// whose comments count for as good as ours.
    pub fn wanted(&self, host: HostFacts, now: &Table) -> Table {
        let plan = plan::build(&self.config, &self.facts(host));
        with_comments_of(lower::table(&plan, !self.config.comments.disabled), now)
    }
}

/// Reads a configuration off a table.
pub fn infer(table: &Table) -> Inferred {
    let config = Config { backend: BackendChoice::Nftables, ..Config::default() };
    let mut inferred = Inferred { config, sidecar_uid: sidecar_uid(table), resolvers: resolvers(table) };
    inferred.read(table);
    inferred
}

/// A table whose rules have the comments that the same rules have in another one.
pub fn with_comments_of(mut table: Table, other: &Table) -> Table {
    for chain in &mut table.chains {
        let Some(theirs) = other.chains.iter().find(|theirs| theirs.name == chain.name) else { continue };
        let mut taken = vec![false; theirs.rules.len()];
        for rule in &mut chain.rules {
            let same = |(at, other): &(usize, &Rule)| !taken[*at] && other.statements == rule.statements;
            if let Some((at, other)) = theirs.rules.iter().enumerate().find(same) {
                rule.comment.clone_from(&other.comment);
                taken[at] = true;
            }
        }
    }
    table
}

/// The user whose traffic is left alone; excluded users are in sets.
pub fn sidecar_uid(table: &Table) -> Option<u32> {
    statements(table).find_map(|statement| match statement {
        Statement::Owner(Test::Is(uids)) if uids.first == uids.last => Some(uids.first),
        _ => None,
    })
}

fn statements(table: &Table) -> impl Iterator<Item = &Statement> {
    table.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.statements)
}

pub(super) fn is_at(chain: &Chain, kind: ChainKind, point: HookPoint) -> bool {
    chain.hook.as_ref().is_some_and(|hook| hook.kind == kind && hook.point == point)
}

fn family_of(rule: &Rule) -> Option<Family> {
    rule.statements.iter().find_map(|statement| match statement {
        Statement::Family(family) => Some(*family),
        _ => None,
    })
}

fn jumps_to(rule: &Rule, chain: OwnChain) -> bool {
    matches!(rule.statements.last(), Some(Statement::Verdict(Verdict::Jump(to))) if to == own_name(chain))
}

/// Whether it lets everything go, as the only rule does of a direction that is not redirected.
fn lets_all_pass(rule: &Rule) -> bool {
    let tests = |s: &&Statement| {
        !matches!(s, Statement::Protocol(_) | Statement::Counter | Statement::Verdict(Verdict::Return))
    };
    rule.statements.last() == Some(&Statement::Verdict(Verdict::Return))
        && !rule.statements.iter().any(|s| tests(&s))
}

fn protocol(rule: &Rule) -> Option<Protocol> {
    rule.statements.iter().find_map(|statement| match statement {
        Statement::Protocol(protocol) => Some(*protocol),
        _ => None,
    })
}

fn add<T: PartialEq>(list: &mut Vec<T>, items: impl IntoIterator<Item = T>) {
    for item in items {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

impl Inferred {
    fn read(&mut self, table: &Table) {
        let rules = || table.chains.iter().flat_map(|chain| &chain.rules);
        let lets_six_pass = |rule: &Rule| rule.lets_pass() == Some(Family::V6);
        let config = &mut self.config;
        config.comments.disabled = rules().all(|rule| rule.comment.is_none());
        config.ip_family_mode =
            if rules().any(lets_six_pass) { IpFamilyMode::Ipv4 } else { IpFamilyMode::DualStack };
        config.drop_invalid_packets = statements(table).any(|statement| *statement == Statement::Invalid);
        for statement in statements(table) {
            if let Statement::Log { level, .. } = statement {
                (config.log.enabled, config.log.level) = (true, *level);
            }
        }
        self.read_lists(table);
        for chain in &table.chains {
            self.read_chain(table, chain);
        }
        let redirect = &mut self.config.redirect;
        redirect.outbound.exclude_ports_for_uids = exclusions::infer(table);
        let zones = statements(table).any(|statement| matches!(statement, Statement::CtZone(_)));
        redirect.dns.skip_conntrack_zone_split = redirect.dns.enabled && !zones;
        self.read_places(table);
        self.config.kuma_dp_user = self.sidecar_uid.and_then(|uid| uid.to_string().parse().ok());
    }

    fn read_chain(&mut self, table: &Table, chain: &Chain) {
        let own = OwnChain::ALL.into_iter().find(|own| own_name(*own) == chain.name);
        for rule in &chain.rules {
            match own {
                Some(OwnChain::InboundRedirect | OwnChain::OutboundRedirect) => {
                    let redirect = &mut self.config.redirect;
                    let place = match own {
                        Some(OwnChain::InboundRedirect) => &mut redirect.inbound.port,
                        _ => &mut redirect.outbound.port,
                    };
                    if let Some(Statement::Redirect(port)) = rule.statements.last() {
                        *place = *port;
                    }
                }
                Some(OwnChain::Inbound) if rule.statements.contains(&Statement::ForOtherHosts) => {
                    self.config.redirect.inbound.exclude_forwarded = true;
                }
                Some(OwnChain::Inbound) if lets_all_pass(rule) => {
                    self.config.redirect.inbound.enabled = false;
                }
                Some(OwnChain::Outbound) if lets_all_pass(rule) => {
                    self.config.redirect.outbound.enabled = false;
                }
                None if is_at(chain, ChainKind::Nat, HookPoint::Output) => self.read_output(rule),
                None if is_at(chain, ChainKind::Nat, HookPoint::Prerouting) => {
                    self.read_prerouting(table, rule);
                }
                _ => {}
            }
        }
    }

    /// What is included and excluded, which lists tell by their names, even where the rules are gone.
    fn read_lists(&mut self, table: &Table) {
        let redirect = &mut self.config.redirect;
        let (inbound, outbound) = (&mut redirect.inbound, &mut redirect.outbound);
        for name in table.sets.keys() {
            let ports = || single_ports(ranges(table, &Test::In(name.clone())));
            match name.as_str() {
                "excluded_inbound_ports" => inbound.exclude_ports = ports(),
                "included_inbound_ports" => inbound.include_ports = ports(),
                "excluded_outbound_ports" => outbound.exclude_ports = ports(),
                "included_outbound_ports" => outbound.include_ports = ports(),
                "excluded_inbound_ipv4" | "excluded_inbound_ipv6" => {
                    inbound.exclude_ports_for_ips.extend(networks(table, name));
                }
                "excluded_outbound_ipv4" | "excluded_outbound_ipv6" => {
                    outbound.exclude_ports_for_ips.extend(networks(table, name));
                }
                _ => {}
            }
        }
    }

    fn read_output(&mut self, rule: &Rule) {
        let Some(Statement::Redirect(port)) = rule.statements.last() else { return };
        if protocol(rule) == Some(Protocol::Udp) {
            let dns = &mut self.config.redirect.dns;
            (dns.enabled, dns.port) = (true, *port);
            let listed = |s: &Statement| matches!(s, Statement::Address(End::Destination, _));
            dns.capture_all |= !rule.statements.iter().any(listed);
        }
    }

    fn read_prerouting(&mut self, table: &Table, rule: &Rule) {
        let Some(Statement::Redirect(port)) = rule.statements.last() else { return };
        let dns = &mut self.config.redirect.dns;
        if protocol(rule) == Some(Protocol::Udp) {
            // With no server known, these are the only rules about DNS.
            (dns.enabled, dns.port) = (true, *port);
            return;
        }
        let interface = rule.statements.iter().find_map(|statement| match statement {
            Statement::Interface(_, test) => Some(test),
            _ => None,
        });
        let interface = match interface {
            Some(Test::Is(interface)) => pattern(interface),
            Some(_) => None,
            None => pattern(&Interface { name: String::new(), prefix: true }),
        };
        let outside = rule.statements.iter().find_map(|statement| match statement {
            Statement::Address(End::Destination, Test::NotIn(set)) => Some(set),
            _ => None,
        });
        let (Some(interface), Some(set)) = (interface, outside) else { return };
        let bridged = networks(table, set).into_iter();
        let bridged = bridged.map(|network| VirtualNetwork { interface: interface.clone(), network });
        add(&mut self.config.redirect.vnet.networks, bridged);
    }

    /// What only the priority of chains tells.
    fn read_places(&mut self, table: &Table) {
        let early = |point: HookPoint, own: OwnChain, family: Family| {
            let chains = table.chains.iter().filter(|chain| is_at(chain, ChainKind::Nat, point));
            let leads = |rule: &Rule| jumps_to(rule, own) && family_of(rule).is_none_or(|of| of == family);
            let mut chains = chains.filter(|chain| chain.rules.iter().any(leads));
            chains.any(|chain| chain.hook.as_ref().is_some_and(|hook| hook.priority == NAT_FIRST))
        };
        let redirect = &mut self.config.redirect;
        // Beside virtual networks it always is inserted, whatever the configuration says.
        let bridged = |family: Family| redirect.vnet.networks.iter().any(|n| family.holds(n.network.net()));
        redirect.inbound.insert_redirect_instead_of_append = Family::BOTH
            .into_iter()
            .any(|family| !bridged(family) && early(HookPoint::Prerouting, OwnChain::Inbound, family));
        redirect.outbound.insert_redirect_instead_of_append =
            Family::BOTH.into_iter().any(|family| early(HookPoint::Output, OwnChain::Outbound, family));
    }
}

/// As a configuration writes it.
fn pattern(interface: &Interface) -> Option<InterfacePattern> {
    format!("{}{}", interface.name, if interface.prefix { "+" } else { "" }).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_in_a_table_is_read() {
        let odd = [Statement::Port(End::Destination, Test::In("no such set".into())), Statement::CtZone(9)];
        let rule = |statements: &[Statement]| Rule { statements: statements.to_vec(), comment: None };
        let chain = |name: &str| Chain { name: name.into(), hook: None, rules: vec![rule(&odd), rule(&[])] };
        let table =
            Table { chains: ["inbound", "outbound_redirect", "x"].map(chain).into(), ..Table::default() };
        assert_eq!(infer(&table).config.redirect.inbound.include_ports, []);
        assert_eq!(infer(&Table::default()).sidecar_uid, None);
    }
}
