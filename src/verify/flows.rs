//! What the configuration promises as packets on their way through this host's chains, and what rules of others do to
//! them that no probe meets. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::Config;
use crate::plan::Family;
use crate::rules::model::{Chain, Field, Hook, Packet, Span, Truth, Value};
use crate::rules::nft::{number_of, span_of};
use crate::rules::numbers::{ESTABLISHED, LOCAL, NEW, TCP, TRANSLATED, UDP, UNICAST};
use crate::rules::walk::{self, Deed, Finding, Part};

const DNS: u128 = 53;

/// A source address, or one at which this host is asked, with its interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Road {
    /// The address.
    pub address: IpAddr,
    /// The interface's name.
    pub interface: String,
    /// Its number.
    pub index: u32,
}

/// The road of a probe, and whom it meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeRoad {
    /// The road.
    pub road: Road,
    /// Where to an application connects.
    pub far: IpAddr,
    /// Who connects to this host.
    pub there: IpAddr,
    /// The application's user.
    pub app: u32,
}

/// At which priorities our own rules stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// Of what leaves.
    pub outbound: i32,
    /// Of what arrives.
    pub inbound: i32,
    /// Of questions.
    pub dns: i32,
}

/// What all packets have in common.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// What is wanted.
    pub config: &'a Config,
    /// The sidecar's user.
    pub sidecar: u32,
    /// The loopback interface's name and number.
    pub loopback: (&'a str, u32),
    /// This host's addresses.
    pub own: &'a [IpAddr],
    /// Where our rules stand.
    pub stand: Stand,
}

/// A packet at a hook.
#[derive(Debug, Clone)]
pub struct Step {
    hook: Hook,
    part: Part,
    /// Whether the destination of its connection is decided.
    translated: bool,
    /// Whether it is an answer.
    answer: bool,
    packet: Packet,
}

/// A promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Applications' connections come to the sidecar.
    Outbound,
    /// Applications' questions to this server do.
    Questions(IpAddr),
    /// What arrives does.
    Inbound,
    /// The sidecar's own connections leave.
    Sidecar,
    /// The sidecar's own questions to this server are answered.
    SidecarAsks(IpAddr),
}

impl Step {
    /// The packet, where it comes to this host, whatever it comes by, and whether it is an answer.
    pub const fn coming_in(&self) -> Option<(&Packet, bool)> {
        if matches!(self.hook, Hook::Input) { Some((&self.packet, self.answer)) } else { None }
    }
}

impl Host<'_> {
    /// The packets of a promise, and the answers to them, by the road that they take.
    pub fn steps(&self, promise: Promise, road: &Road, probe: Option<&ProbeRoad>) -> Vec<Step> {
        match promise {
            Promise::Outbound => self.redirected(road, TCP, None, probe),
            Promise::Questions(server) => self.redirected(road, UDP, Some(server), probe),
            Promise::Inbound => self.arriving(road, probe),
            Promise::Sidecar => self.leaving(road, TCP, None, probe),
            Promise::SidecarAsks(server) => self.leaving(road, UDP, Some(server), probe),
        }
    }

    fn family(road: &Road) -> Family {
        if road.address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// Addresses that are not elsewhere.
    fn here(&self, family: Family) -> Vec<Span> {
        let loopback = match family {
            Family::V4 => "127.0.0.0/8",
            Family::V6 => "::1/128",
        };
        let own = self.own.iter().filter(|addr| family.holds((**addr).into()));
        let own = own.map(|addr| number_of(*addr)..=number_of(*addr));
        own.chain(loopback.parse().ok().map(span_of)).collect()
    }

    fn elsewhere(&self, family: Family) -> Value {
        Value::NotIn(self.here(family))
    }

    /// Where applications' connections go that are redirected.
    fn not_excluded(&self, family: Family) -> Value {
        let excluded =
            self.config.redirect.outbound.exclude_ports_for_ips.iter().map(crate::config::values::Cidr::net);
        let excluded = excluded.filter(|net| family.holds(*net)).map(span_of);
        Value::NotIn(self.here(family).into_iter().chain(excluded).collect())
    }

    fn redirected(
        &self,
        road: &Road,
        protocol: u128,
        server: Option<IpAddr>,
        probe: Option<&ProbeRoad>,
    ) -> Vec<Step> {
        let family = Self::family(road);
        let redirect = &self.config.redirect;
        let (stand, port) = match server {
            Some(_) => (self.stand.dns, redirect.dns.port),
            None => (self.stand.outbound, redirect.outbound.port),
        };
        let localhost = match family {
            Family::V4 => IpAddr::from(Ipv4Addr::LOCALHOST),
            Family::V6 => IpAddr::from(Ipv6Addr::LOCALHOST),
        };
        let there = match (server.or(probe.map(|probe| probe.far)), self.not_excluded(family)) {
            (Some(one), _) => Value::Is(number_of(one)),
            (None, any) => any,
        };
        let port_there = match server {
            Some(_) => Value::Is(DNS),
            None if probe.is_some() => Value::Is(ANY_PORT),
            None => Value::NotIn(
                redirect
                    .outbound
                    .exclude_ports
                    .iter()
                    .map(|port| u128::from(port.get()))
                    .map(|p| p..=p)
                    .collect(),
            ),
        };
        let is = |number: u128| Value::Is(number);
        let (port, source) = (u128::from(port.get()), number_of(road.address));
        let base = Packet::new(family).with(Field::Protocol, is(protocol)).with(Field::Mark, is(0));
        let forth = base
            .clone()
            .with(Field::Source, is(source))
            .with(Field::SourcePort, ephemeral())
            .with(Field::SourceType, is(LOCAL))
            .with(Field::State, is(NEW))
            .with(Field::Direction, is(0));
        let app = match probe {
            Some(probe) => Value::Is(probe.app.into()),
            None => Value::NotIn(vec![self.sidecar.into()..=self.sidecar.into()]),
        };
        let before = leaving(&forth, (&road.interface, road.index))
            .with(Field::User, app)
            .with(Field::Destination, there.clone())
            .with(Field::DestinationPort, port_there.clone())
            .with(Field::DestinationType, is(UNICAST))
            .with(Field::Status, is(0));
        // The packet still carries the interface that it was to leave by, until it is routed anew.
        let after = before
            .clone()
            .with(Field::Destination, is(number_of(localhost)))
            .with(Field::DestinationPort, is(port))
            .with(Field::DestinationType, is(LOCAL))
            .with(Field::Status, is(TRANSLATED));
        let on_loopback = arriving(&after, self.loopback);
        let back = base
            .with(Field::SourcePort, is(port))
            .with(Field::Source, is(number_of(localhost)))
            .with(Field::SourceType, is(LOCAL))
            .with(Field::Destination, is(source))
            .with(Field::DestinationPort, ephemeral())
            .with(Field::DestinationType, is(LOCAL))
            .with(Field::State, is(ESTABLISHED))
            .with(Field::Status, is(TRANSLATED))
            .with(Field::Direction, is(1));
        let answer = leaving(&back, self.loopback).with(Field::User, is(self.sidecar.into()));
        // Its source is given back to it before it is on the loopback interface.
        let returns = arriving(&back, self.loopback)
            .with(Field::Source, there)
            .with(Field::SourcePort, port_there)
            .with(Field::SourceType, is(UNICAST));
        vec![
            step(Hook::Output, Part::UpTo(stand), false, false, before),
            step(Hook::Output, Part::After(stand), true, false, after.clone()),
            step(Hook::Postrouting, Part::All, true, false, leaving(&after, self.loopback)),
            step(Hook::Prerouting, Part::All, true, false, on_loopback.clone()),
            step(Hook::Input, Part::All, true, false, on_loopback),
            step(Hook::Output, Part::All, true, true, answer.clone()),
            step(Hook::Postrouting, Part::All, true, true, answer),
            step(Hook::Prerouting, Part::All, true, true, returns.clone()),
            step(Hook::Input, Part::All, true, true, returns),
        ]
    }

    fn arriving(&self, road: &Road, probe: Option<&ProbeRoad>) -> Vec<Step> {
        let family = Self::family(road);
        let inbound = &self.config.redirect.inbound;
        let is = |number: u128| Value::Is(number);
        let excluded = inbound
            .exclude_ports_for_ips
            .iter()
            .map(crate::config::values::Cidr::net)
            .filter(|net| family.holds(*net));
        let outside = match probe {
            Some(probe) => Value::Is(number_of(probe.there)),
            None => Value::NotIn(self.here(family).into_iter().chain(excluded.map(span_of)).collect()),
        };
        let ports =
            inbound.exclude_ports.iter().map(|port| u128::from(port.get())).map(|port| port..=port).collect();
        let base = Packet::new(family).with(Field::Protocol, is(TCP)).with(Field::Mark, is(0));
        let here = number_of(road.address);
        let to_port = if probe.is_some() { is(ANY_PORT) } else { Value::NotIn(ports) };
        let before = arriving(&base, (&road.interface, road.index))
            .with(Field::Source, outside.clone())
            .with(Field::SourcePort, ephemeral())
            .with(Field::SourceType, is(UNICAST))
            .with(Field::Destination, is(here))
            .with(Field::DestinationPort, to_port.clone())
            .with(Field::OriginalPort, to_port)
            .with(Field::DestinationType, is(LOCAL))
            .with(Field::State, is(NEW))
            .with(Field::Status, is(0))
            .with(Field::Direction, is(0));
        let after = before
            .clone()
            .with(Field::DestinationPort, is(inbound.port.get().into()))
            .with(Field::Status, is(TRANSLATED));
        let back = leaving(&base, (&road.interface, road.index))
            .with(Field::Source, is(here))
            .with(Field::SourcePort, is(inbound.port.get().into()))
            .with(Field::SourceType, is(LOCAL))
            .with(Field::Destination, outside)
            .with(Field::DestinationPort, ephemeral())
            .with(Field::DestinationType, is(UNICAST))
            .with(Field::User, is(self.sidecar.into()))
            .with(Field::State, is(ESTABLISHED))
            .with(Field::Status, is(TRANSLATED))
            .with(Field::Direction, is(1));
        vec![
            step(Hook::Prerouting, Part::UpTo(self.stand.inbound), false, false, before),
            step(Hook::Prerouting, Part::After(self.stand.inbound), true, false, after.clone()),
            step(Hook::Input, Part::All, true, false, after),
            step(Hook::Output, Part::All, true, true, back.clone()),
            step(Hook::Postrouting, Part::All, true, true, back),
        ]
    }

    /// What the sidecar itself sends, and what is answered.
    fn leaving(
        &self,
        road: &Road,
        protocol: u128,
        server: Option<IpAddr>,
        probe: Option<&ProbeRoad>,
    ) -> Vec<Step> {
        let family = Self::family(road);
        let is = |number: u128| Value::Is(number);
        let there = match server.or(probe.map(|probe| probe.far)) {
            Some(one) => is(number_of(one)),
            None => self.elsewhere(family),
        };
        let port_there = match (server, probe) {
            (Some(_), _) => is(DNS),
            (None, Some(_)) => is(ANY_PORT),
            (None, None) => Value::Any,
        };
        let base = Packet::new(family).with(Field::Protocol, is(protocol)).with(Field::Mark, is(0));
        let forth = leaving(&base, (&road.interface, road.index))
            .with(Field::Source, is(number_of(road.address)))
            .with(Field::SourcePort, ephemeral())
            .with(Field::SourceType, is(LOCAL))
            .with(Field::Destination, there.clone())
            .with(Field::DestinationPort, port_there.clone())
            .with(Field::DestinationType, is(UNICAST))
            .with(Field::User, is(self.sidecar.into()))
            .with(Field::State, is(NEW))
            .with(Field::Status, is(0))
            .with(Field::Direction, is(0));
        let back = arriving(&base, (&road.interface, road.index))
            .with(Field::Source, there)
            .with(Field::SourcePort, port_there)
            .with(Field::SourceType, is(UNICAST))
            .with(Field::Destination, is(number_of(road.address)))
            .with(Field::DestinationPort, ephemeral())
            .with(Field::DestinationType, is(LOCAL))
            .with(Field::State, is(ESTABLISHED))
            .with(Field::Status, is(0))
            .with(Field::Direction, is(1));
        vec![
            step(Hook::Output, Part::All, false, false, forth.clone()),
            step(Hook::Postrouting, Part::All, false, false, forth),
            step(Hook::Prerouting, Part::All, true, true, back.clone()),
            step(Hook::Input, Part::All, true, true, back),
        ]
    }
}

/// One that stands for those of probes, which are numbers that nobody has.
const ANY_PORT: u128 = 40_000;

/// Ports that the kernel gives to those who ask for none; those below are servers'.
fn ephemeral() -> Value {
    Value::NotIn(vec![0..=1023])
}

fn step(hook: Hook, part: Part, translated: bool, answer: bool, packet: Packet) -> Step {
    Step { hook, part, translated, answer, packet }
}

fn leaving(packet: &Packet, (name, index): (&str, u32)) -> Packet {
    let mut packet =
        packet.clone().with(Field::OutIndex, Value::Is(index.into())).with(Field::InIndex, Value::Absent);
    packet.output = Some(name.to_owned());
    packet.input = None;
    packet
}

fn arriving(packet: &Packet, (name, index): (&str, u32)) -> Packet {
    let absent = [Field::OutIndex, Field::User, Field::Group];
    let packet = absent.into_iter().fold(packet.clone(), |packet, field| packet.with(field, Value::Absent));
    let mut packet = packet.with(Field::InIndex, Value::Is(index.into()));
    packet.input = Some(name.to_owned());
    packet.output = None;
    packet
}

/// What a rule of somebody else's does to a promise, where no probe meets it.
#[derive(Debug, Clone)]
pub struct Met<'a> {
    /// The rule.
    pub finding: Finding<'a>,
    /// Whose packets.
    pub promise: Promise,
    /// Which way they go.
    pub road: Road,
    /// Whether it is their answers.
    pub answer: bool,
}

/// Everything that rules do to the packets of a promise by a road, but not to those of a probe by its own road.
/// `by_marks`: routing rules may go by marks.
pub fn beyond_probes<'a>(
    host: &Host<'_>,
    chains: &'a [Chain],
    promise: Promise,
    road: &Road,
    probe: Option<&ProbeRoad>,
    by_marks: bool,
) -> Vec<Met<'a>> {
    let met = |step: &Step| walk::at(chains, step.hook, step.part, step.translated, &step.packet);
    let mut all = Vec::new();
    let of_probe = probe.map(|probe| host.steps(promise, &probe.road, Some(probe))).unwrap_or_default();
    for (nth, step) in host.steps(promise, road, None).iter().enumerate() {
        let known = of_probe.get(nth).map(met).unwrap_or_default();
        for finding in met(step) {
            let seen = known.iter().any(|known| finding.is_same(known)) && !finding.specific;
            if !seen && counts(promise, &finding, by_marks) {
                all.push(Met { finding, promise, road: road.clone(), answer: step.answer });
            }
        }
    }
    all
}

fn counts(promise: Promise, finding: &Finding<'_>, by_marks: bool) -> bool {
    let sure = finding.sure == Truth::Yes;
    match (promise, finding.deed) {
        (_, Deed::Marks) => by_marks,
        // What the sidecar sends is anybody's: whose rules keep it from some places, or lead it on, kept everybody.
        // What arrives at a published port is somebody's behind this host.
        (Promise::Sidecar, Deed::Drops) | (Promise::Inbound, Deed::Translates) => sure,
        (Promise::Sidecar, _) | (Promise::SidecarAsks(_), Deed::Translates | Deed::LetsPast) => false,
        _ => true,
    }
}
