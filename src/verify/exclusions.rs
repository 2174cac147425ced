//! Checks of what a configuration leaves alone, and of guests of virtual networks. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::check::{Goal, Id, Probe, Way};
use super::derive::{DNS, Deriving, answered, arrives};
use super::ground::{TEMPORARY, member, within};
use crate::config::values::{Cidr, PortRange, Protocol, UidExclusion, UidRange};
use crate::sidecar::Channel;

/// Why something has no probe.
const UNSEEN: &str = "what is not redirected to this host is seen by nobody on it";

impl Deriving<'_> {
    /// An application's connection to a port that is left alone.
    pub(super) fn past_port(&mut self, port: u16, target: &str) {
        let to = SocketAddr::new(self.ends.far, port);
        let probe = self.as_app(|uid| Probe::Connect { uid, to, way: Way::Device, from: None });
        self.exclusion(target.to_owned(), probe);
    }

    fn exclusion(&mut self, target: String, probe: Probe) {
        if !self.excluded.insert(target.clone()) {
            return;
        }
        self.add(Id::Exclusion, target, probe, Goal::Past, "is not redirected".to_owned());
    }

    pub(super) fn outbound_exclusions(&mut self) {
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
                    self.as_app(|uid| Probe::Connect { uid, to, way, from: None })
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

    pub(super) fn user_exclusions(&mut self) {
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
        let probe = match (
            protocol,
            question.then(|| self.redirected_servers()).and_then(|all| all.first().copied()),
        ) {
            (Protocol::Udp, Some(server)) => {
                Probe::Datagram { uid, to: SocketAddr::new(server, DNS), from: None }
            }
            (Protocol::Udp, None) => Probe::Datagram {
                uid,
                to: SocketAddr::new(self.ends.far, within(range, self.dice)),
                from: None,
            },
            (Protocol::Tcp, _) => {
                let port = self.included(range).unwrap_or_else(|| within(range, self.dice));
                Probe::Connect { uid, to: SocketAddr::new(self.ends.far, port), way: Way::Device, from: None }
            }
        };
        self.exclusion(format!("UID {uid} over {protocol} to port {range}"), probe);
    }

    /// A port of the range that would be redirected if only some are.
    fn included(&self, range: PortRange) -> Option<u16> {
        let only = &self.sources.config.redirect.outbound.include_ports;
        only.iter().find(|port| range.first <= **port && **port <= range.last).map(|port| port.get())
    }

    pub(super) fn inbound_exclusions(&mut self) {
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
        if inbound.exclude_forwarded {
            let target = "outside to other hosts, by way of this one".to_owned();
            self.exclusion(target, Probe::Nothing(UNSEEN.to_owned()));
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

    pub(super) fn virtual_networks(&mut self) {
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
        // To other hosts than this one, so it is not seen again where it is left alone.
        let unseen = !redirect.inbound.enabled || redirect.inbound.exclude_forwarded;
        for vnet in own {
            let target = format!("guests on {} to {}", vnet.interface, vnet.network);
            // It is no outbound traffic, but may be inbound traffic as any that arrives.
            let arrives = arrives("inbound", redirect.inbound.port);
            let expected = if unseen {
                "is not redirected".to_owned()
            } else {
                format!("is not outbound traffic, and {arrives}")
            };
            let probe = match member(vnet.network.net(), self.sources.taken) {
                None => no_member(&vnet.network),
                Some(_) if unseen => Probe::Nothing(UNSEEN.to_owned()),
                Some(addr) => {
                    let to = SocketAddr::new(addr, self.ports.inbound(self.dice));
                    guest(vnet.interface.as_str(), Protocol::Tcp, to)
                }
            };
            let goal = if unseen { Goal::Past } else { Goal::Port(Channel::Inbound) };
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
