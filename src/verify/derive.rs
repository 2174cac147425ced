//! From configuration and host to checks: one for everything that the configuration promises. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::check::{Check, Goal, Id, Probe, Way};
use super::ground::{
    Dice, Ends, Ports, Taken, is_excluded, is_excluded_inbound, is_excluded_outbound, link_local,
};
use crate::config::Config;
use crate::config::values::{Port, Protocol};
use crate::host::HostFacts;
use crate::host::owners::OwnResolver;
use crate::plan::{Family, is_link_local};
use crate::sidecar::Channel;
use crate::sidecar::forward::passthrough;

/// The port of DNS servers.
pub(super) const DNS: u16 = 53;

/// So many source addresses of a family are tried. Most hosts have less than five.
const SOURCES: usize = 24;

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
    /// Source addresses that this host's routes use, of both families.
    pub departing: &'a BTreeSet<IpAddr>,
    /// DNS servers on this host that ask others whose questions are redirected.
    pub own_resolvers: &'a [OwnResolver],
    /// The source address of an application's questions to DNS servers that are not on this host.
    pub asked_from: &'a BTreeMap<IpAddr, IpAddr>,
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
    deriving.links();
    deriving.inbound();
    deriving.sidecar();
    deriving.localhost();
    deriving.dns();
    deriving.own_resolvers();
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

pub(super) struct Deriving<'a> {
    pub(super) sources: Sources<'a>,
    pub(super) family: Family,
    pub(super) ends: Ends,
    /// Why there is no temporary interface.
    missing: Option<String>,
    pub(super) ports: Ports<'a>,
    pub(super) dice: &'a mut Dice,
    checks: Vec<Check>,
    /// Targets of exclusions so far: what is configured twice is checked once.
    pub(super) excluded: BTreeSet<String>,
}

impl Deriving<'_> {
    pub(super) fn add(&mut self, id: Id, target: String, probe: Probe, goal: Goal, expected: String) {
        let probe = match (&self.missing, &probe) {
            (Some(why), _) if !local(&probe) => Probe::Nothing(why.clone()),
            _ => probe,
        };
        self.checks.push(Check { id, family: self.family, target, probe, goal, expected });
    }

    /// What an application would do, if there can be one.
    pub(super) fn as_app(&self, probe: impl FnOnce(u32) -> Probe) -> Probe {
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
        // TCP to DNS servers is left alone where questions are redirected, whatever ports are listed.
        let dns = !self.redirected_servers().is_empty();
        let mut ports = self.ports.all_outbound(self.dice);
        ports.retain(|port| *port != DNS || !dns);
        for port in ports {
            let to = SocketAddr::new(self.ends.far, port);
            let probe = self.as_app(|uid| Probe::Connect { uid, to, way, from: None });
            self.add(Id::Outbound, format!("app to {to}"), probe, goal, expected.clone());
        }
        if outbound.enabled {
            self.outbound_from_each_source(&expected);
        }
    }

    /// What a firewall does to answers may depend on the address that they go to, and the temporary interface's is
    /// nobody's.
    fn outbound_from_each_source(&mut self, expected: &str) {
        let port = self.ports.outbound(self.dice);
        let family = self.family;
        let own = self.sources.departing.iter().copied().filter(|from| family.holds((*from).into()));
        let own: Vec<IpAddr> = own.take(SOURCES).collect();
        for from in own {
            let to = SocketAddr::new(self.ends.far, port);
            let probe = self.as_app(|uid| Probe::Connect { uid, to, way: Way::Route, from: Some(from) });
            let target = format!("app as {from} to {to}");
            self.add(Id::Outbound, target, probe, Goal::Port(Channel::Outbound), expected.to_owned());
        }
    }

    /// Link-local addresses are left alone, whatever is included.
    fn links(&mut self) {
        let redirect = &self.sources.config.redirect;
        let expected = "is not redirected, because the address is link-local";
        if self.family == Family::V6 && redirect.outbound.enabled {
            let to = SocketAddr::new(link_local(self.dice).into(), self.ports.outbound(self.dice));
            let probe = self.as_app(|uid| Probe::Connect { uid, to, way: Way::Device, from: None });
            let target = format!("app to a link-local address ({to})");
            self.add(Id::Exclusion, target, probe, Goal::Past, expected.to_owned());
        }
        if self.family == Family::V6 && redirect.dns.enabled && redirect.dns.capture_all {
            let to = SocketAddr::new(link_local(self.dice).into(), DNS);
            let probe = self.as_app(|uid| Probe::Datagram { uid, to, from: None });
            let target = format!("app to a link-local DNS server ({})", to.ip());
            self.add(Id::Exclusion, target, probe, Goal::Past, expected.to_owned());
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
        let excluded = inbound.enabled && is_excluded_inbound(self.sources.config, from);
        for port in self.ports.all_inbound(self.dice) {
            let to = SocketAddr::new(self.ends.here, port);
            let probe = if excluded {
                Probe::Nothing("what comes from an address that a probe could have is excluded".to_owned())
            } else {
                Probe::Arrive { from, to }
            };
            self.add(Id::Inbound, format!("outside to {to}"), probe, goal, expected.clone());
        }
    }

    fn sidecar(&mut self) {
        let config = self.sources.config;
        let uid = self.sources.facts.sidecar_uid;
        let to = SocketAddr::new(self.ends.far, self.ports.outbound(self.dice));
        let probe = Probe::Connect { uid, to, way: Way::Device, from: None };
        let expected = "is not redirected: the sidecar's own traffic leaves".to_owned();
        self.add(Id::Sidecar, format!("sidecar to {to}"), probe, Goal::Past, expected);

        let to = SocketAddr::new(self.ends.here, self.ports.any(self.dice));
        let mut probe = Probe::Connect { uid, to, way: Way::Loopback, from: None };
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
        let expected = "is not redirected";
        let probe = self.as_app(|uid| Probe::Connect { uid, to, way: Way::Loopback, from: None });
        self.add(Id::Localhost, format!("app to {to}"), probe, Goal::Past, expected.to_owned());

        // Loopback has more addresses, and this host's others are reached over it.
        let another = (self.family == Family::V4).then(|| IpAddr::from([127, 0, 0, 2]));
        for addr in another.into_iter().chain([self.ends.here]) {
            let to = SocketAddr::new(addr, self.ports.any(self.dice));
            let probe = match &self.missing {
                Some(why) if !addr.is_loopback() => Probe::Nothing(why.clone()),
                _ => self.as_app(|uid| Probe::Connect { uid, to, way: Way::Loopback, from: None }),
            };
            let own = if addr.is_loopback() { "" } else { "own address " };
            self.add(Id::Localhost, format!("app to {own}{to}"), probe, Goal::Past, expected.to_owned());
        }
    }

    fn dns(&mut self) {
        let config = self.sources.config;
        let dns = &config.redirect.dns;
        for server in self.dns_servers() {
            let to = SocketAddr::new(server, DNS);
            let (goal, expected) = if is_excluded_outbound(config, server) {
                (Goal::Past, "is not redirected, because the address is excluded".to_owned())
            } else if is_link_local(server) {
                (Goal::Past, "is not redirected, because the address is link-local".to_owned())
            } else {
                (Goal::Dns, answered(dns.port, server))
            };
            // Its packets are bound to another interface than loopback, which would take a probe off this host.
            let unbound = (is_link_local(server) && self.sources.taken.addresses.contains(&server))
                .then(|| format!("{server} is this host's own address, on a link where no probe is sent"));
            let probe = if let Some(why) = &unbound {
                Probe::Nothing(why.clone())
            } else {
                let from = self.sources.asked_from.get(&server).copied();
                self.as_app(|uid| Probe::Datagram { uid, to, from })
            };
            self.add(Id::Dns, format!("app to DNS server {server}"), probe, goal, expected);

            let then = self.sources.facts.sidecar_uid;
            let (probe, after) = match self.sources.app {
                _ if unbound.is_some() => (Probe::Nothing(unbound.unwrap_or_default()), ""),
                Ok(first) if !dns.skip_conntrack_zone_split => {
                    (Probe::Again { first, then, to }, ", also right after an app's from the same port")
                }
                _ => (Probe::Datagram { uid: then, to, from: None }, ""),
            };
            let expected = format!("is not redirected: the sidecar's own question leaves{after}");
            let target = format!("sidecar to DNS server {server}");
            self.add(Id::DnsSidecar, target, probe, Goal::Past, expected);
        }
        let servers = !self.redirected_servers().is_empty();
        if dns.enabled && self.dns_servers().is_empty() {
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

    /// What a DNS server on this host asks others may not come back to it.
    fn own_resolvers(&mut self) {
        for resolver in self.sources.own_resolvers {
            let family = self.family;
            let upstream = resolver.others.iter().copied().find(|addr| family.holds((*addr).into()));
            let upstream = if resolver.others.is_empty() { Some(self.ends.far) } else { upstream };
            let Some(upstream) = upstream else { continue };
            let to = SocketAddr::new(upstream, DNS);
            let probe = Probe::Datagram { uid: resolver.uid, to, from: None };
            let target = format!("DNS server on this host ({}) to DNS server {upstream}", resolver.name());
            let expected = "is not redirected: this host's own DNS server asks others itself".to_owned();
            self.add(Id::Resolver, target, probe, Goal::Past, expected);
        }
    }

    /// Servers that questions are redirected from.
    pub(super) fn redirected_servers(&self) -> Vec<IpAddr> {
        self.dns_servers().into_iter().filter(|server| !is_link_local(*server)).collect()
    }

    /// Servers of the family, where questions are redirected.
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
}

pub(super) fn arrives(name: &str, port: Port) -> String {
    format!("arrives at the {name} port {port}, which is told where it was to go")
}

pub(super) fn answered(port: Port, server: IpAddr) -> String {
    format!("arrives at the DNS port {port}, and the answer comes back from {server}")
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
