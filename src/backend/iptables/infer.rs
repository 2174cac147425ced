//! What configuration an installation was most likely made with, read off its rules. Pure.
//!
//! For installations without a record: kumactl leaves none. What comes out is planned again and compared with the
//! rules, so whatever was read wrongly or cannot be expressed shows up as a difference and is not lost.

use std::net::IpAddr;

use crate::config::values::{
    Cidr, InterfacePattern, IpFamilyMode, Port, PortRange, Protocol, UidExclusion, UserSpec, VirtualNetwork,
};
use crate::config::{Config, Redirect};
use crate::plan::{BuiltinChain, ChainRef, Family, Match, OwnChain, Table, Target, link_local};

use super::decode::EVERY_INTERFACE;
use super::typed::{Purpose, TypedRule};

/// What can be read off the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inferred {
    /// The configuration.
    pub config: Config,
    /// The sidecar's user.
    pub sidecar_uid: Option<u32>,
}

const OUTPUT: ChainRef = ChainRef::Builtin(BuiltinChain::Output);
const PREROUTING: ChainRef = ChainRef::Builtin(BuiltinChain::Prerouting);
const INBOUND: ChainRef = ChainRef::Own(OwnChain::Inbound);
const OUTBOUND: ChainRef = ChainRef::Own(OwnChain::Outbound);

/// Reads a configuration off the rules of every family; `commented` says whether they carry comments.
pub fn infer(rules: &[(Family, Vec<TypedRule>)], commented: bool) -> Inferred {
    let mut inferred = Inferred { config: Config::default(), sidecar_uid: None };
    let config = &mut inferred.config;
    config.comments.disabled = !commented;
    let six = rules.iter().any(|(family, rules)| *family == Family::V6 && !rules.is_empty());
    config.ip_family_mode = if six { IpFamilyMode::DualStack } else { IpFamilyMode::Ipv4 };
    // Zones are used wherever DNS is redirected, unless they are not wanted.
    config.redirect.dns.skip_conntrack_zone_split = !rules
        .iter()
        .any(|(_, rules)| rules.iter().any(|rule| matches!(rule.rule.target(), Target::CtZone(_))));
    for (family, rules) in rules {
        let known = inferred.config.clone();
        for rule in rules {
            inferred.read(rule, &known, *family);
        }
        inferred.read_order(rules);
    }
    if !inferred.config.redirect.dns.enabled {
        inferred.config.redirect.dns.skip_conntrack_zone_split = false;
    }
    inferred.config.kuma_dp_user = inferred.sidecar_uid.and_then(user);
    inferred
}

fn user(uid: u32) -> Option<UserSpec> {
    uid.to_string().parse().ok()
}

/// Which versions of kumactl write rules such as these. What they write about DNS over TCP changed several times
/// (pull requests 14557, 15401 and 16138 of kumahq/kuma).
pub fn kumactl_version(rules: &[(Family, Vec<TypedRule>)], uncommented: bool) -> Option<&'static str> {
    if uncommented {
        return Some("2.8 or older, or with comments disabled");
    }
    let all = || rules.iter().flat_map(|(_, rules)| rules);
    // No kumactl leaves these alone unasked.
    let is_link_local = |m: &Match| matches!(m, Match::Destination { net, .. } if *net == link_local());
    if all().any(|rule| rule.chain == OUTBOUND && rule.rule.matches().iter().any(is_link_local)) {
        return None;
    }
    let dns = all().any(|rule| rule.purpose() == Some(Purpose::Dns));
    let redirects_tcp =
        all().any(|rule| rule.chain == OUTBOUND && matches!(rule.rule.target(), Target::Redirect(_)));
    let leaves_tcp_alone = all().any(|rule| {
        rule.chain == OUTPUT
            && *rule.rule.target() == Target::Return
            && rule.rule.matches().iter().any(|m| matches!(m, Match::Owner { negated: true, .. }))
    });
    // Rules with "! --dport 53" are no rules of a plan, so those two are missing here.
    let to_itself = all()
        .any(|rule| rule.chain == OUTBOUND && *rule.rule.target() == Target::Jump(OwnChain::InboundRedirect));
    match (dns, redirects_tcp, leaves_tcp_alone, to_itself) {
        (false, ..) => Some("2.9 or newer"),
        (true, true, ..) => Some("2.9 to 2.12.0"),
        (true, false, false, _) => Some("2.11.6 to 2.13.0"),
        (true, false, true, false) => Some("2.11.9 to 2.13"),
        (true, false, true, true) => Some("2.14 or newer"),
    }
}

/// The servers whose DNS questions the rules of a family redirect, in their order.
pub fn captured_resolvers(rules: &[TypedRule]) -> Vec<IpAddr> {
    let asked = rules.iter().filter(|rule| {
        rule.table == Table::Nat && rule.chain == OUTPUT && matches!(rule.rule.target(), Target::Redirect(_))
    });
    addresses(asked)
}

/// The servers that any rule of a family is about, those whose questions are redirected first.
pub fn known_resolvers(rules: &[TypedRule]) -> Vec<IpAddr> {
    let mut known = captured_resolvers(rules);
    let zoned = rules.iter().filter(|rule| {
        rule.table == Table::Raw && rule.chain == OUTPUT && *rule.rule.target() == Target::CtZone(2)
    });
    for addr in addresses(zoned) {
        if !known.contains(&addr) {
            known.push(addr);
        }
    }
    known
}

fn addresses<'a>(rules: impl Iterator<Item = &'a TypedRule>) -> Vec<IpAddr> {
    let destination = |rule: &TypedRule| {
        rule.rule.matches().iter().find_map(|m| match m {
            Match::Destination { net, negated: false } => Some(net.net().addr()),
            _ => None,
        })
    };
    rules.filter_map(destination).collect()
}

/// A rule's conditions, each where it can be found.
#[derive(Default)]
struct Conditions {
    udp: bool,
    port: Option<Port>,
    ports: Option<(Protocol, Vec<PortRange>)>,
    source: Option<Cidr>,
    destination: Option<Cidr>,
    outside: Vec<Cidr>,
    interface: Option<String>,
    forwarded: bool,
    owner: Option<(crate::config::values::UidRange, bool)>,
}

impl Conditions {
    fn of(rule: &TypedRule) -> Self {
        let mut all = Self::default();
        for m in rule.rule.matches() {
            match m {
                Match::Protocol(protocol) => all.udp = *protocol == Protocol::Udp,
                Match::DestinationPort(port) => all.port = Some(*port),
                Match::DestinationPorts { protocol, ports } => all.ports = Some((*protocol, ports.clone())),
                Match::Source(net) => all.source = Some(net.clone()),
                Match::Destination { net, negated: false } => all.destination = Some(net.clone()),
                Match::Destination { net, negated: true } => all.outside.insert(0, net.clone()),
                Match::NotOriginalDestination(net) => all.outside.push(net.clone()),
                Match::ForOtherHosts => all.forwarded = true,
                Match::InInterface(name) => all.interface = Some(name.clone()),
                Match::Owner { uids, negated } => all.owner = Some((*uids, *negated)),
                Match::OutInterface(_) | Match::SourcePort(_) | Match::Explicit(_) | Match::Invalid => {}
            }
        }
        all
    }

    /// Every port, one by one; ranges come from lists of single ports.
    fn single_ports(&self) -> Vec<Port> {
        let ranges = self.ports.iter().flat_map(|(_, ports)| ports);
        let listed = ranges.flat_map(|range| (range.first.get()..=range.last.get()).filter_map(port));
        self.port.into_iter().chain(listed).collect()
    }
}

/// Every address of a family.
fn everything(family: Family) -> Option<Cidr> {
    let text = match family {
        Family::V4 => "0.0.0.0/0",
        Family::V6 => "::/0",
    };
    text.parse().ok()
}

fn port(number: u16) -> Option<Port> {
    number.to_string().parse().ok()
}

/// Adds what the other family has not told; what a family tells twice was asked for twice.
fn add<T: PartialEq>(list: &mut Vec<T>, known: &[T], items: impl IntoIterator<Item = T>) {
    list.extend(items.into_iter().filter(|item| !known.contains(item)));
}

impl Inferred {
    fn read(&mut self, rule: &TypedRule, known: &Config, family: Family) {
        let known = &known.redirect;
        let mut on = Conditions::of(rule);
        if *rule.rule.target() == Target::Return && rule.rule.matches().is_empty() {
            // Every address is excluded: no program prints that, and the kernel does not keep it.
            (on.source, on.destination) = (everything(family), everything(family));
        }
        match (rule.table, rule.chain) {
            (Table::Mangle, _) => {
                self.config.drop_invalid_packets |= *rule.rule.target() == Target::Drop;
            }
            (Table::Nat, ChainRef::Own(OwnChain::InboundRedirect)) => {
                if let Target::Redirect(port) = rule.rule.target() {
                    self.config.redirect.inbound.port = *port;
                }
            }
            (Table::Nat, ChainRef::Own(OwnChain::OutboundRedirect)) => {
                if let Target::Redirect(port) = rule.rule.target() {
                    self.config.redirect.outbound.port = *port;
                }
            }
            (Table::Nat, chain) if chain == INBOUND => self.read_inbound(rule, on, known),
            (Table::Nat, chain) if chain == OUTBOUND => self.read_outbound(rule, &on, known),
            (Table::Nat, chain) if chain == OUTPUT => self.read_output(rule, on, known),
            (Table::Nat, chain) if chain == PREROUTING => self.read_prerouting(rule, on, known),
            _ => {}
        }
    }

    fn read_inbound(&mut self, rule: &TypedRule, on: Conditions, known: &Redirect) {
        let inbound = &mut self.config.redirect.inbound;
        let ports = on.single_ports();
        match rule.rule.target() {
            Target::Return if on.forwarded => inbound.exclude_forwarded = true,
            Target::Return if on.source.is_some() => {
                add(&mut inbound.exclude_ports_for_ips, &known.inbound.exclude_ports_for_ips, on.source);
            }
            Target::Return if !ports.is_empty() => {
                add(&mut inbound.exclude_ports, &known.inbound.exclude_ports, ports);
            }
            Target::Return => inbound.enabled = false,
            Target::Jump(OwnChain::InboundRedirect) => {
                add(&mut inbound.include_ports, &known.inbound.include_ports, ports);
            }
            _ => {}
        }
    }

    fn read_outbound(&mut self, rule: &TypedRule, on: &Conditions, known: &Redirect) {
        let outbound = &mut self.config.redirect.outbound;
        let ports = on.single_ports();
        let bare = rule.rule.matches().iter().all(|m| matches!(m, Match::Protocol(_)));
        match rule.rule.target() {
            Target::Return if on.owner.is_some() => {
                if let Some((uids, _)) = on.owner.filter(|(uids, _)| uids.first == uids.last) {
                    self.sidecar_uid = Some(uids.first);
                }
            }
            Target::Return if !ports.is_empty() => {
                add(&mut outbound.exclude_ports, &known.outbound.exclude_ports, ports);
            }
            Target::Return if bare => outbound.enabled = false,
            Target::Jump(OwnChain::OutboundRedirect) => {
                add(&mut outbound.include_ports, &known.outbound.include_ports, ports);
            }
            _ => {}
        }
    }

    fn read_output(&mut self, rule: &TypedRule, on: Conditions, known: &Redirect) {
        let outbound = &mut self.config.redirect.outbound;
        let dns = &mut self.config.redirect.dns;
        match (rule.rule.target(), &on) {
            (Target::Redirect(port), _) => {
                dns.enabled = true;
                dns.port = *port;
                dns.capture_all |= on.destination.is_none();
            }
            (Target::Log { level, .. }, _) => {
                self.config.log.enabled = true;
                self.config.log.level = *level;
            }
            (
                Target::Return,
                Conditions { ports: Some((protocol, ports)), owner: Some((uids, false)), .. },
            ) => {
                let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
                let typed = format!("{protocol}:{}:{uids}", ports.join(","));
                add(
                    &mut outbound.exclude_ports_for_uids,
                    &known.outbound.exclude_ports_for_uids,
                    typed.parse::<UidExclusion>().ok(),
                );
            }
            // In front of the redirection of every question, whatever the configuration.
            (Target::Return, Conditions { destination: Some(_), udp: true, .. }) => {}
            (Target::Return, Conditions { destination: Some(_), .. }) => {
                add(
                    &mut outbound.exclude_ports_for_ips,
                    &known.outbound.exclude_ports_for_ips,
                    on.destination,
                );
            }
            // Where outbound redirection is off, this is the rule that names the sidecar.
            (Target::Return, Conditions { udp: true, owner: Some((uids, false)), .. })
                if uids.first == uids.last =>
            {
                self.sidecar_uid = Some(uids.first);
            }
            _ => {}
        }
    }

    fn read_prerouting(&mut self, rule: &TypedRule, on: Conditions, known: &Redirect) {
        match rule.rule.target() {
            Target::Log { level, .. } => {
                self.config.log.enabled = true;
                self.config.log.level = *level;
            }
            // With DNS redirected, but no server known, these are the only rules about it.
            Target::Redirect(port) if on.udp => {
                self.config.redirect.dns.enabled = true;
                self.config.redirect.dns.port = *port;
            }
            Target::Redirect(_) => {
                let name = on.interface.as_deref().unwrap_or(EVERY_INTERFACE);
                let Ok(interface) = name.parse::<InterfacePattern>() else { return };
                let networks = on
                    .outside
                    .into_iter()
                    .map(|network| VirtualNetwork { interface: interface.clone(), network });
                add(&mut self.config.redirect.vnet.networks, &known.vnet.networks, networks);
            }
            _ => {}
        }
    }

    /// What only the order of rules tells: an inserted jump of outbound traffic has the exception for DNS over TCP
    /// before the redirection of DNS.
    fn read_order(&mut self, rules: &[TypedRule]) {
        let output: Vec<_> =
            rules.iter().filter(|rule| rule.table == Table::Nat && rule.chain == OUTPUT).collect();
        let jump = output.iter().position(|r| *r.rule.target() == Target::Jump(OwnChain::Outbound));
        let redirect = output.iter().position(|r| matches!(r.rule.target(), Target::Redirect(_)));
        let except = output.iter().position(|r| {
            *r.rule.target() == Target::Return
                && r.rule.matches().iter().any(|m| matches!(m, Match::Owner { negated: true, .. }))
        });
        let before = |a: Option<usize>, b: Option<usize>| matches!((a, b), (Some(a), Some(b)) if a < b);
        if before(except, redirect) || before(jump, except) {
            self.config.redirect.outbound.insert_redirect_instead_of_append = true;
        }
        // An appended jump of inbound traffic comes behind the rule that logs; beside virtual networks it never is
        // appended, whatever the configuration says.
        let arriving: Vec<_> =
            rules.iter().filter(|rule| rule.table == Table::Nat && rule.chain == PREROUTING).collect();
        let jump = arriving.iter().position(|r| *r.rule.target() == Target::Jump(OwnChain::Inbound));
        let log = arriving.iter().position(|r| matches!(r.rule.target(), Target::Log { .. }));
        let bridged = arriving.iter().any(|r| matches!(r.rule.target(), Target::Redirect(_)));
        if !bridged && before(jump, log) {
            self.config.redirect.inbound.insert_redirect_instead_of_append = true;
        }
    }
}
