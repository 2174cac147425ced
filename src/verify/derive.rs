//! From configuration and host to checks: one for everything that the configuration promises. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::check::{Check, Goal, Id, Probe, Way};
use super::ground::{Dice, Ends, Ports, TEMPORARY, Taken, is_excluded, member, within};
use crate::config::Config;
use crate::config::values::{Cidr, Port, PortRange, Protocol, UidExclusion, UidRange};
use crate::host::HostFacts;
use crate::plan::Family;
use crate::sidecar::Channel;
use crate::sidecar::forward::passthrough;

const DNS: u16 = 53;

/// What checks are made from.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// What is wanted.
    pub config: &'a Config,
    /// What is there.
    pub facts: &'a HostFacts,
    /// DNS servers of the host, also where the configuration captures questions to any.
    pub resolvers: &'a [IpAddr],
    /// What is in use.
    pub taken: &'a Taken,
    /// An ordinary application's user; without one, why there is none.
    pub app: Result<u32, &'a str>,
}

/// The checks of one family, in the order in which they are shown. `ends` are the family's addresses, or why there
/// are none.
pub fn checks(sources: Sources, family: Family, ends: Result<Ends, &str>, dice: &mut Dice) -> Vec<Check> {
    let ports = Ports::new(sources.config, sources.taken);
    let nowhere = unspecified(family);
    let (ends, missing) = match ends {
        Ok(ends) => (ends, None),
        Err(why) => (Ends { here: nowhere, there: nowhere, far: nowhere }, Some(why.to_owned())),
    };
    let (checks, excluded) = (Vec::new(), BTreeSet::new());
    let mut deriving = Deriving { sources, family, ends, missing, ports, dice, checks, excluded };
    deriving.outbound();
    deriving.inbound();
    deriving.sidecar();
    deriving.localhost();
    deriving.dns();
    deriving.passthrough();
    deriving.outbound_exclusions();
    deriving.user_exclusions();
    deriving.inbound_exclusions();
    deriving.virtual_networks();
    deriving.checks.sort_by_key(|check| check.id);
    deriving.checks
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn localhost(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}

struct Deriving<'a> {
    sources: Sources<'a>,
    family: Family,
    ends: Ends,
    /// Why there is no temporary interface.
    missing: Option<String>,
    ports: Ports<'a>,
    dice: &'a mut Dice,
    checks: Vec<Check>,
    /// Targets of exclusions so far: what is configured twice is checked once.
    excluded: BTreeSet<String>,
}

impl Deriving<'_> {
    fn add(&mut self, id: Id, target: String, probe: Probe, goal: Goal, expected: String) {
        let probe = match (&self.missing, &probe) {
            (Some(why), _) if !local(&probe) => Probe::Nothing(why.clone()),
            _ => probe,
        };
        self.checks.push(Check { id, family: self.family, target, probe, goal, expected });
    }

    /// What an application would do, if there can be one.
    fn as_app(&self, probe: impl FnOnce(u32) -> Probe) -> Probe {
        match self.sources.app {
            Ok(uid) => probe(uid),
            Err(why) => Probe::Nothing(why.to_owned()),
        }
    }

    fn outbound(&mut self) {
        let outbound = &self.sources.config.redirect.outbound;
        let (way, goal, expected) = if outbound.enabled {
            (Way::Route, Goal::Port(Channel::Outbound), arrives("outbound", outbound.port))
        } else {
            (Way::Device, Goal::Past, "is not redirected, because outbound redirection is off".to_owned())
        };
        for port in self.ports.all_outbound(self.dice) {
            let to = SocketAddr::new(self.ends.far, port);
            let probe = self.as_app(|uid| Probe::Connect { uid, to, way });
            self.add(Id::Outbound, format!("app to {to}"), probe, goal, expected.clone());
        }
    }

    fn inbound(&mut self) {
        let inbound = &self.sources.config.redirect.inbound;
        let (goal, expected) = if inbound.enabled {
            (Goal::Port(Channel::Inbound), arrives("inbound", inbound.port))
        } else {
            (Goal::Past, "is not redirected, because inbound redirection is off".to_owned())
        };
        let from = self.ends.there;
        for port in self.ports.all_inbound(self.dice) {
            let to = SocketAddr::new(self.ends.here, port);
            let probe = Probe::Arrive { from, to };
            self.add(Id::Inbound, format!("outside to {to}"), probe, goal, expected.clone());
        }
    }

    fn sidecar(&mut self) {
        let config = self.sources.config;
        let uid = self.sources.facts.sidecar_uid;
        let to = SocketAddr::new(self.ends.far, self.ports.outbound(self.dice));
        let probe = Probe::Connect { uid, to, way: Way::Device };
        let expected = "is not redirected: the sidecar's own traffic leaves".to_owned();
        self.add(Id::Sidecar, format!("sidecar to {to}"), probe, Goal::Past, expected);

        let to = SocketAddr::new(self.ends.here, self.ports.any(self.dice));
        let mut probe = Probe::Connect { uid, to, way: Way::Loopback };
        let (goal, expected) = if !config.redirect.outbound.enabled {
            (Goal::Past, "is not redirected, because outbound redirection is off".to_owned())
        } else if is_excluded(config, uid, Protocol::Tcp, to.port()) {
            (Goal::Past, format!("is not redirected, because UID {uid} is excluded"))
        } else {
            (Goal::Port(Channel::Inbound), arrives("inbound", config.redirect.inbound.port))
        };
        if let Some(why) = &self.missing {
            probe = Probe::Nothing(why.clone());
        }
        self.add(Id::Own, format!("sidecar to own address {to}"), probe, goal, expected);
    }

    fn localhost(&mut self) {
        let to = SocketAddr::new(localhost(self.family), self.ports.outbound(self.dice));
        // A listed port may be somebody's, and a fresh one is as good where loopback is concerned.
        let to = if self.sources.taken.ports.contains(&to.port()) {
            SocketAddr::new(to.ip(), self.ports.any(self.dice))
        } else {
            to
        };
        let probe = self.as_app(|uid| Probe::Connect { uid, to, way: Way::Loopback });
        let expected = "is not redirected".to_owned();
        self.add(Id::Localhost, format!("app to {to}"), probe, Goal::Past, expected);
    }

    fn dns(&mut self) {
        let config = self.sources.config;
        let dns = &config.redirect.dns;
        for server in self.dns_servers() {
            let to = SocketAddr::new(server, DNS);
            let probe = self.as_app(|uid| Probe::Datagram { uid, to });
            let expected = answered(dns.port, server);
            self.add(Id::Dns, format!("app to DNS server {server}"), probe, Goal::Dns, expected);

            let then = self.sources.facts.sidecar_uid;
            let (probe, after) = match self.sources.app {
                Ok(first) if !dns.skip_conntrack_zone_split => {
                    (Probe::Again { first, then, to }, ", also right after an app's from the same port")
                }
                _ => (Probe::Datagram { uid: then, to }, ""),
            };
            let expected = format!("is not redirected: the sidecar's own question leaves{after}");
            let target = format!("sidecar to DNS server {server}");
            self.add(Id::DnsSidecar, target, probe, Goal::Past, expected);
        }
        let servers = !self.dns_servers().is_empty();
        if dns.enabled && !servers {
            // Nothing of this family is redirected then, which whoever switched it on may not know.
            let why = format!("resolv.conf lists no {} DNS server", self.family);
            let expected = format!("arrives at the DNS port {}", dns.port);
            let target = "app to a DNS server of resolv.conf".to_owned();
            self.add(Id::Dns, target, Probe::Nothing(why), Goal::Dns, expected);
        }
        if servers && config.redirect.outbound.enabled {
            self.past_port(DNS, "app over TCP to DNS port 53");
        }
    }

    /// Servers that questions are redirected from.
    fn dns_servers(&self) -> Vec<IpAddr> {
        let dns = &self.sources.config.redirect.dns;
        if !dns.enabled {
            return Vec::new();
        }
        let own = |addr: &IpAddr| addr.is_ipv4() == (self.family == Family::V4);
        if dns.capture_all {
            let resolvers = self.sources.resolvers.iter().copied().filter(own);
            return resolvers.chain([self.ends.far]).collect();
        }
        self.sources.facts.resolvers.iter().map(|resolver| resolver.addr).filter(own).collect()
    }

    fn passthrough(&mut self) {
        let source = passthrough(self.family == Family::V4);
        let uid = self.sources.facts.sidecar_uid;
        let to = SocketAddr::new(self.ends.here, self.ports.any(self.dice));
        let mut probe = Probe::Passthrough { uid, source, to };
        if let Some(why) = &self.missing {
            probe = Probe::Nothing(why.clone());
        }
        let expected = format!("{source} can be bound, and what comes from it is not redirected");
        self.add(Id::Passthrough, format!("sidecar as {source} to {to}"), probe, Goal::Past, expected);
    }

    /// An application's connection to a port that is left alone.
    fn past_port(&mut self, port: u16, target: &str) {
        let to = SocketAddr::new(self.ends.far, port);
        let probe = self.as_app(|uid| Probe::Connect { uid, to, way: Way::Device });
        self.exclusion(target.to_owned(), probe);
    }

    fn exclusion(&mut self, target: String, probe: Probe) {
        if !self.excluded.insert(target.clone()) {
            return;
        }
        self.add(Id::Exclusion, target, probe, Goal::Past, "is not redirected".to_owned());
    }

    fn outbound_exclusions(&mut self) {
        let outbound = &self.sources.config.redirect.outbound;
        if outbound.include_ports.is_empty() {
            for port in &outbound.exclude_ports {
                self.past_port(port.get(), &format!("app to outbound port {port}"));
            }
        } else {
            let port = self.ports.any(self.dice);
            self.past_port(port, &format!("app to a port that is not included ({port})"));
        }
        let networks = &outbound.exclude_ports_for_ips;
        for (net, addr) in self.members(networks) {
            let target = format!("app to excluded address {net}");
            let probe = match addr {
                Some(addr) => {
                    let to = SocketAddr::new(addr, self.ports.outbound(self.dice));
                    let way = if addr.is_loopback() { Way::Loopback } else { Way::Device };
                    self.as_app(|uid| Probe::Connect { uid, to, way })
                }
                None => no_member(&net),
            };
            self.exclusion(target, probe);
        }
    }

    fn members(&self, networks: &[Cidr]) -> Vec<(Cidr, Option<IpAddr>)> {
        let own = networks.iter().filter(|cidr| self.family.holds(cidr.net()));
        own.map(|cidr| (cidr.clone(), member(cidr.net(), self.sources.taken))).collect()
    }

    fn user_exclusions(&mut self) {
        for exclusion in &self.sources.config.redirect.outbound.exclude_ports_for_uids {
            for &protocol in &exclusion.protocols {
                for &range in &exclusion.ports {
                    self.user_exclusion(exclusion, protocol, range);
                }
            }
        }
    }

    /// The first and the last one of a range, so that a rule about fewer of them is found.
    fn user_exclusion(&mut self, exclusion: &UidExclusion, protocol: Protocol, range: PortRange) {
        for uid in ends_of(exclusion.uids, self.sources.facts.sidecar_uid) {
            self.one_user(uid, protocol, range);
        }
    }

    fn one_user(&mut self, uid: u32, protocol: Protocol, range: PortRange) {
        let question = (range.first.get()..=range.last.get()).contains(&DNS);
        let probe =
            match (protocol, question.then(|| self.dns_servers()).and_then(|all| all.first().copied())) {
                (Protocol::Udp, Some(server)) => Probe::Datagram { uid, to: SocketAddr::new(server, DNS) },
                (Protocol::Udp, None) => {
                    Probe::Datagram { uid, to: SocketAddr::new(self.ends.far, within(range, self.dice)) }
                }
                (Protocol::Tcp, _) => {
                    let port = self.included(range).unwrap_or_else(|| within(range, self.dice));
                    Probe::Connect { uid, to: SocketAddr::new(self.ends.far, port), way: Way::Device }
                }
            };
        self.exclusion(format!("UID {uid} over {protocol} to port {range}"), probe);
    }

    /// A port of the range that would be redirected if only some are.
    fn included(&self, range: PortRange) -> Option<u16> {
        let only = &self.sources.config.redirect.outbound.include_ports;
        only.iter().find(|port| range.first <= **port && **port <= range.last).map(|port| port.get())
    }

    fn inbound_exclusions(&mut self) {
        let inbound = &self.sources.config.redirect.inbound;
        if !inbound.enabled {
            return;
        }
        let from = self.ends.there;
        let here = self.ends.here;
        let arrive = |port: u16| Probe::Arrive { from, to: SocketAddr::new(here, port) };
        if inbound.include_ports.is_empty() {
            for port in &inbound.exclude_ports {
                self.exclusion(format!("outside to inbound port {port}"), arrive(port.get()));
            }
        } else {
            let port = self.ports.any(self.dice);
            let target = format!("outside to a port that is not included ({port})");
            self.exclusion(target, arrive(port));
        }
        for (net, addr) in self.members(&inbound.exclude_ports_for_ips) {
            let probe = match addr {
                Some(from) if !from.is_loopback() => {
                    let to = SocketAddr::new(here, self.ports.inbound(self.dice));
                    Probe::Arrive { from, to }
                }
                _ => no_member(&net),
            };
            self.exclusion(format!("excluded address {net} to this host"), probe);
        }
    }

    fn virtual_networks(&mut self) {
        let redirect = &self.sources.config.redirect;
        let networks = redirect.vnet.networks.iter();
        let own: Vec<_> = networks.filter(|vnet| self.family.holds(vnet.network.net())).collect();
        let mut interfaces: Vec<&str> = own.iter().map(|vnet| vnet.interface.as_str()).collect();
        interfaces.sort_unstable();
        interfaces.dedup();
        for interface in interfaces {
            let to = SocketAddr::new(self.ends.far, self.ports.any(self.dice));
            let probe = guest(interface, Protocol::Tcp, to);
            let expected = arrives("outbound", redirect.outbound.port);
            let target = format!("guest on {interface} to {to}");
            self.add(Id::Outbound, target, probe, Goal::Port(Channel::Outbound), expected);
            if redirect.dns.enabled {
                let to = SocketAddr::new(self.ends.far, DNS);
                let server = to.ip();
                let probe = guest(interface, Protocol::Udp, to);
                let expected = answered(redirect.dns.port, server);
                self.add(
                    Id::Dns,
                    format!("guest on {interface} to DNS server {server}"),
                    probe,
                    Goal::Dns,
                    expected,
                );
            }
        }
        for vnet in own {
            let target = format!("guests on {} to {}", vnet.interface, vnet.network);
            // It is no outbound traffic, but may be inbound traffic as any that arrives.
            let arrives = arrives("inbound", redirect.inbound.port);
            let expected = format!("is not outbound traffic, and {arrives}");
            let probe = match member(vnet.network.net(), self.sources.taken) {
                None => no_member(&vnet.network),
                Some(_) if !redirect.inbound.enabled => {
                    Probe::Nothing("what is not redirected to this host is seen by nobody on it".to_owned())
                }
                Some(addr) => {
                    let to = SocketAddr::new(addr, self.ports.inbound(self.dice));
                    guest(vnet.interface.as_str(), Protocol::Tcp, to)
                }
            };
            let goal = if redirect.inbound.enabled { Goal::Port(Channel::Inbound) } else { Goal::Past };
            self.add(Id::Exclusion, target, probe, goal, expected);
        }
    }
}

/// The first and the last user of a range, each once. The sidecar's own traffic is left alone anyway, so its neighbour
/// tells more.
fn ends_of(uids: UidRange, sidecar: u32) -> BTreeSet<u32> {
    let several = uids.first < uids.last;
    let first = if several && uids.first == sidecar { uids.first.saturating_add(1) } else { uids.first };
    let last = if several && uids.last == sidecar { uids.last.saturating_sub(1) } else { uids.last };
    [first, last].into()
}

fn arrives(name: &str, port: Port) -> String {
    format!("arrives at the {name} port {port}, which is told where it was to go")
}

fn answered(port: Port, server: IpAddr) -> String {
    format!("arrives at the DNS port {port}, and the answer comes back from {server}")
}

/// What a guest sends, where there can be one.
fn guest(interface: &str, protocol: Protocol, to: SocketAddr) -> Probe {
    if can_be_made(interface) {
        return Probe::Guest { interface: interface.to_owned(), protocol, to };
    }
    Probe::Nothing(format!(
        "only a guest on {interface} could send what is to be seen, and tproxy connects nobody to an interface of the \
         host"
    ))
}

/// Whether interfaces can be made for a moment that a pattern is about: it is the beginning of names, and not of all,
/// nor of that of the interface which stands for the world outside.
fn can_be_made(pattern: &str) -> bool {
    pattern.strip_suffix('+').is_some_and(|prefix| !prefix.is_empty() && !TEMPORARY.starts_with(prefix))
}

fn no_member(net: &Cidr) -> Probe {
    Probe::Nothing(format!("{net} holds no address that a probe could have"))
}

/// Whether a probe needs no temporary interface.
fn local(probe: &Probe) -> bool {
    match probe {
        Probe::Connect { to, way: Way::Loopback, .. }
        | Probe::Datagram { to, .. }
        | Probe::Again { to, .. } => to.ip().is_loopback(),
        Probe::Nothing(_) => true,
        _ => false,
    }
}

/// Every port of the sidecar that the checks need, with what they call it.
pub fn sidecar_ports(config: &Config) -> Vec<(Protocol, Port)> {
    let redirect = &config.redirect;
    let mut ports = vec![(Protocol::Tcp, redirect.outbound.port), (Protocol::Tcp, redirect.inbound.port)];
    if redirect.dns.enabled {
        ports.push((Protocol::Udp, redirect.dns.port));
    }
    ports
}
