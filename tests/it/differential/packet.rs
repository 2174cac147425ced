//! The first packet of a connection, and what becomes of it.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use proptest::sample::Index;
use tproxy::config::Config;
use tproxy::config::values::{Cidr, Port, PortRange, Protocol};
use tproxy::host::HostFacts;
use tproxy::plan::{BuiltinChain, Family};

/// The priority at which everybody translates destinations.
pub const NAT_USUAL: i32 = -100;

/// What rules can see of a packet.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Where it meets the rules.
    pub hook: BuiltinChain,
    /// `None`: neither TCP nor UDP, so the ports say nothing.
    pub protocol: Option<Protocol>,
    pub source: SocketAddr,
    /// Of the same family.
    pub destination: SocketAddr,
    /// By which it arrived (PREROUTING) or leaves (OUTPUT).
    pub interface: String,
    /// The user of the socket; `None` without a socket, as always in PREROUTING.
    pub owner: Option<u32>,
    /// It is addressed to this host.
    pub here: bool,
    /// Connection tracking makes no sense of it, so no address translation looks at it.
    pub invalid: bool,
    /// Somebody else's rule translates its destination, unless we do it before.
    pub theirs: bool,
}

impl Packet {
    pub fn family(&self) -> Family {
        if self.destination.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// Towards Docker's embedded server, which Docker's own rules lead elsewhere.
    pub fn is_for_docker(&self) -> bool {
        self.destination == "127.0.0.11:53".parse::<SocketAddr>().expect("an address")
            && self.protocol.is_some()
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fate {
    /// The conntrack zone it is tracked in.
    pub zone: Option<u16>,
    pub dropped: bool,
    pub translation: Translation,
    /// Lines in the kernel's log: prefix and level.
    pub logged: Vec<(String, u8)>,
}

/// Where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Translation {
    /// Where it wanted.
    #[default]
    None,
    /// To a port of this host.
    Redirected(Port),
    /// Where somebody else's rule sends it.
    Theirs,
}

/// How many addresses come up more often than the others.
const USUAL: usize = 7;

/// Choices, made into a packet for a certain configuration and host.
#[derive(Debug, Clone)]
pub struct Choice {
    flags: (bool, bool, bool, bool),
    protocol: u8,
    places: [Index; 6],
    /// Lists can be long: more than every second is a value that most rules are about.
    usual: [bool; 4],
}

/// A packet at random.
pub fn choice() -> impl Strategy<Value = Choice> {
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.05), prop::bool::weighted(0.2));
    let usual = [(); 4].map(|()| prop::bool::weighted(0.6));
    (flags, 0..12_u8, any::<[Index; 6]>(), usual).prop_map(|(flags, protocol, places, usual)| Choice {
        flags,
        protocol,
        places,
        usual,
    })
}

/// What packets of interest are made of: every value that the configuration or the host names, and its neighbours.
pub struct Pool {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    ports: Vec<u16>,
    owners: Vec<Option<u32>>,
    interfaces: Vec<String>,
    sidecar: u32,
    docker: bool,
}

impl Pool {
    pub fn new(config: &Config, facts: &HostFacts) -> Self {
        let redirect = &config.redirect;
        let mut nets: Vec<_> = redirect.inbound.exclude_ports_for_ips.iter().map(Cidr::net).collect();
        nets.extend(redirect.outbound.exclude_ports_for_ips.iter().map(Cidr::net));
        nets.extend(redirect.vnet.networks.iter().map(|vnet| vnet.network.net()));
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect();
        let first: Vec<IpAddr> = addresses(&["203.0.113.99", "2001:db8::9", "10.77.0.1", "fd77::1"]);
        let others: Vec<IpAddr> = addresses(&["127.0.0.1", "127.0.0.6", "127.0.0.11", "::1", "::6"]);
        let mut addresses = first;
        addresses.extend(facts.resolvers.iter().map(|resolver| resolver.addr));
        addresses.extend(others);
        for net in nets {
            let (first, last) = (net.network(), net.broadcast());
            addresses.extend([first, net.addr(), last, step(first, -1), step(last, 1)]);
        }

        let mut ports = vec![53, 443, 80, THEIR_PORT];
        let mut ranges: Vec<PortRange> = [redirect.inbound.port, redirect.outbound.port, redirect.dns.port]
            .into_iter()
            .chain(redirect.inbound.include_ports.iter().copied())
            .chain(redirect.inbound.exclude_ports.iter().copied())
            .chain(redirect.outbound.include_ports.iter().copied())
            .chain(redirect.outbound.exclude_ports.iter().copied())
            .map(PortRange::from)
            .collect();
        let exclusions = &redirect.outbound.exclude_ports_for_uids;
        ranges.extend(exclusions.iter().flat_map(|exclusion| exclusion.ports.iter().copied()));
        for range in ranges {
            let (first, last) = (range.first.get(), range.last.get());
            ports.extend([first, last, first.saturating_sub(1).max(1), last.saturating_add(1)]);
        }

        let mut owners = vec![None, Some(0), Some(1000), Some(facts.sidecar_uid)];
        for exclusion in exclusions {
            let (first, last) = (exclusion.uids.first, exclusion.uids.last);
            owners.extend([first, last, first.saturating_sub(1), last.saturating_add(1)].map(Some));
        }

        let mut interfaces = vec!["lo".to_owned(), "eth0".to_owned()];
        for vnet in &redirect.vnet.networks {
            let pattern = vnet.interface.as_str();
            let name = pattern.strip_suffix('+').unwrap_or(pattern);
            interfaces
                .extend([name.to_owned(), format!("{name}0")].into_iter().filter(|name| name.len() > 1));
        }
        let (v4, v6) = addresses.into_iter().partition(IpAddr::is_ipv4);
        Self { v4, v6, ports, owners, interfaces, sidecar: facts.sidecar_uid, docker: facts.docker_dns }
    }

    /// Without users that only a rule can name.
    pub fn packet(&self, choice: &Choice) -> Packet {
        let (output, four, invalid, theirs) = choice.flags;
        let [source, destination, from, to, owner, interface] = &choice.places;
        let addresses = if four { &self.v4 } else { &self.v6 };
        let [usual_source, usual_address, usual_port, usual_owner] = choice.usual;
        let pick = |usual: bool, from: &[IpAddr], index: &Index| {
            // The first ones are those of the host and of the world.
            let end = if usual { from.len().min(USUAL) } else { from.len() };
            *index.get(&from[..end])
        };
        let port = |usual: bool, index: &Index| {
            if usual { [53, 53, 443, THEIR_PORT][index.index(4)] } else { *index.get(&self.ports) }
        };
        let owners = [Some(self.sidecar), Some(1000)];
        let mut packet = Packet {
            hook: if output { BuiltinChain::Output } else { BuiltinChain::Prerouting },
            protocol: match choice.protocol {
                0..7 => Some(Protocol::Tcp),
                7..11 => Some(Protocol::Udp),
                _ => None,
            },
            source: SocketAddr::new(pick(usual_source, addresses, source), port(false, from)),
            destination: SocketAddr::new(pick(usual_address, addresses, destination), port(usual_port, to)),
            interface: interface.get(&self.interfaces).clone(),
            owner: match (output, usual_owner) {
                (true, true) => *owner.get(&owners),
                (true, false) => *owner.get(&self.owners),
                (false, _) => None,
            },
            here: (usual_source ^ usual_owner) || output,
            invalid,
            theirs,
        };
        if self.docker {
            packet.theirs = output && packet.is_for_docker();
        }
        packet
    }
}

impl Pool {
    /// The same for packets that a machine really sends or gets, each from a source port of its own but for those
    /// that rules may be about. `None` where no such packet can be.
    pub fn real(&self, choice: &Choice, serial: u16, machine: &Real) -> Option<Packet> {
        let [source, _, from, _, owner, interface] = &choice.places;
        let mut packet = self.packet(choice);
        (packet.invalid, packet.protocol) = (false, packet.protocol.or(Some(Protocol::Tcp)));
        let port = match from.index(8) {
            0 => 53,
            1 => machine.dns_port,
            _ => serial,
        };
        let local = machine.is_local;
        let here = local(packet.destination.ip());
        // The first address of a network is every router's of it: an anycast address, which is not of the type LOCAL.
        packet.here = here && !is_anycast(packet.destination.ip());
        let sender = if packet.hook == BuiltinChain::Output {
            if here { "lo" } else { "eth0" }.clone_into(&mut packet.interface);
            let owners: Vec<u32> =
                self.owners.iter().flatten().copied().filter(|uid| (machine.has_user)(*uid)).collect();
            if packet.owner.is_none_or(|uid| !(machine.has_user)(uid)) {
                packet.owner = Some(*owner.get(&owners));
            }
            let senders: &[&str] = match (packet.family(), here) {
                (Family::V4, true) => &["127.0.0.1", "127.0.0.6", "127.0.0.53", "127.0.0.11", "10.77.0.1"],
                (Family::V4, false) => &["10.77.0.1"],
                (Family::V6, true) => &["::1", "::6", "fd77::1"],
                (Family::V6, false) => &["fd77::1"],
            };
            source.get(senders).parse().expect("an address")
        } else {
            let arriving = *interface.get(machine.interfaces);
            arriving.clone_into(&mut packet.interface);
            packet.source.ip()
        };
        packet.source = SocketAddr::new(sender, port);
        let from_afar = packet.hook == BuiltinChain::Prerouting && local(sender);
        let their_ports = packet.protocol == Some(Protocol::Tcp) && packet.destination.port() == THEIR_PORT;
        let dockers = self.docker && packet.hook == BuiltinChain::Output && packet.is_for_docker();
        packet.theirs = machine.theirs && their_ports || dockers;
        (!from_afar).then_some(packet)
    }
}

/// What a real machine is like.
pub struct Real {
    pub is_local: fn(IpAddr) -> bool,
    pub has_user: fn(u32) -> bool,
    pub interfaces: &'static [&'static str],
    pub dns_port: u16,
    /// Somebody else's rules redirect [`THEIR_PORT`].
    pub theirs: bool,
}

/// The TCP port that somebody else's rules are about.
pub const THEIR_PORT: u16 = 7000;

/// The address before or after; the same at the end of all addresses.
fn step(addr: IpAddr, by: i8) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => IpAddr::from(addr.to_bits().saturating_add_signed(by.into()).to_be_bytes()),
        IpAddr::V6(addr) => IpAddr::from(addr.to_bits().saturating_add_signed(by.into()).to_be_bytes()),
    }
}

fn is_anycast(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(six) if !six.is_unspecified() && six.segments()[4..] == [0; 4])
}
