//! What rules of others at the hook `input` do to connections that arrive, once those are redirected: they see the
//! sidecar's port in place of the port that was meant. So a rule that closes a port does not see it any more, and what
//! lets in a list of ports drops the sidecar's.
//!
//! Packets that stand for others are walked through the rules as they are and as they would be without redirection.
//! What a walk does not tell for sure is not claimed. Pure but for `look`.

pub mod look;
mod sample;
#[cfg(test)]
mod tests;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::config::Config;
use crate::config::values::{self, Cidr};
use crate::plan::Family;
use crate::rules::model::{Chain, Field, Hook, Packet, Rule, Span, Test, Truth, Value};
use crate::rules::nft::{number_of, span_of};
use crate::rules::numbers::{LOCAL, NEW, TCP, TRANSLATED, UNICAST};
use crate::rules::show;
use crate::rules::walk::{self, Deed, Finding, Part, Passage};
use crate::verify::flows::{self, Host, Promise, Road, Stand};

use super::listen::Socket;
use super::meets::Met;
use sample::Sample;

/// So many rules are looked at for one report, each as often as it is met, and no fewer walks than [`WALKS`].
const RULES: usize = 1_000_000;
const WALKS: usize = 100;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What is redirected.
    pub config: Config,
    /// The sidecar's user.
    pub sidecar: u32,
    /// The redirected families.
    pub families: Vec<Family>,
    /// At which priority our own rules about what arrives stand.
    pub stand: i32,
    /// The loopback interface's name and number.
    pub loopback: (String, u32),
    /// At which addresses of which interfaces this host is asked.
    pub arrivals: Vec<Road>,
    /// Who listens.
    pub listening: Vec<Socket>,
    /// Servers whose questions are redirected.
    pub servers: Vec<IpAddr>,
}

/// What was found out.
#[derive(Debug, Clone, Default)]
pub struct Found<'a> {
    /// What closed a port, and does not any more, with the ports.
    pub opened: Vec<Door<'a>>,
    /// What drops connections that are redirected.
    pub shut: Vec<Door<'a>>,
    /// Whether there were too many rules to look at all of them for every port.
    pub partly: bool,
}

impl Found<'_> {
    /// Leaves what rules about clients are told of already to that: a port that one of them shuts for the sidecar, which is
    /// everybody's way to it, is not open, and a ban need not be told twice.
    fn leave_to(&mut self, meets: &[Met]) {
        for (family, clients) in meets.iter().filter_map(|met| Some((met.family, met.clients.as_ref()?))) {
            for door in &mut self.opened {
                let same_chain = clients.place == show::place(door.by.chain);
                let bans = same_chain && door.by.rule.is_some_and(is_about_clients);
                if !clients.shuts && !bans {
                    continue;
                }
                let same_rule = same_chain && clients.rule == show::name(door.by.rule);
                if same_rule || door.ports.iter().all(|port| clients.ports.contains(port)) {
                    door.families.remove(&family);
                } else if door.families.iter().all(|of| *of == family) {
                    door.ports.retain(|port| !clients.ports.contains(port));
                }
            }
        }
        self.opened.retain(|door| !door.families.is_empty());
    }
}

fn is_about_clients(rule: &Rule) -> bool {
    rule.tests.iter().any(|test| matches!(test, Test::In { field: Field::Source, .. }))
}

/// A rule, or a policy, at the hook.
#[derive(Debug, Clone)]
pub struct Door<'a> {
    /// The chain that the hook calls.
    pub base: &'a Chain,
    /// The chain that the rule is in, and the rule.
    pub by: Finding<'a>,
    /// Of whose packets.
    pub families: BTreeSet<Family>,
    /// What is dropped.
    pub what: What,
    /// Which ports; none where it is about everything.
    pub ports: BTreeSet<u16>,
    /// Where it is about everything: the ports that the firewall lets in, for all that is known.
    pub let_in: BTreeSet<u16>,
    /// Whether answers may be among it.
    pub answers: bool,
}

/// Whose way a door is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Of what arrives.
    Inbound,
    /// Of what applications here send.
    Outbound,
    /// Of their questions.
    Dns,
}

/// Whether there may be anything to say: whether anything at the hook drops.
pub fn may_matter(chains: &[Chain]) -> bool {
    Family::BOTH.into_iter().any(|family| Sample::of(chains, family).drops)
}

/// Asks.
pub fn judge<'a>(asked: &Asked, chains: &'a [Chain]) -> Found<'a> {
    let mut found = Found::default();
    for &family in &asked.families {
        let sample = Sample::of(chains, family);
        if !sample.drops {
            continue;
        }
        let mut search =
            Search { asked, chains, family, left: (RULES / sample.rules.max(1)).max(WALKS), found };
        search.loopback();
        if asked.config.redirect.inbound.enabled {
            search.inbound(&sample);
        }
        found = search.found;
    }
    found
}

struct Search<'a, 'b> {
    asked: &'b Asked,
    chains: &'a [Chain],
    family: Family,
    /// So many walks are left.
    left: usize,
    found: Found<'a>,
}

impl<'a> Search<'a, '_> {
    /// What is redirected on this host comes over loopback.
    fn loopback(&mut self) {
        let Asked { config, sidecar, arrivals, .. } = self.asked;
        let Some(road) = self.roads().next().cloned() else { return };
        let own: Vec<IpAddr> = arrivals.iter().map(|road| road.address).collect();
        let stand = Stand { outbound: self.asked.stand, inbound: self.asked.stand, dns: self.asked.stand };
        let loopback = (self.asked.loopback.0.as_str(), self.asked.loopback.1);
        let host = Host { config, sidecar: *sidecar, loopback, own: &own, stand };
        let server = self.asked.servers.iter().find(|server| self.family.holds((**server).into()));
        let outbound = config.redirect.outbound.enabled.then_some((What::Outbound, Promise::Outbound));
        let dns = server.filter(|_| config.redirect.dns.enabled);
        let dns = dns.map(|server| (What::Dns, Promise::Questions(*server)));
        for (what, promise) in outbound.into_iter().chain(dns) {
            let steps = host.steps(promise, &road, None);
            let passages = steps.iter().filter_map(flows::Step::coming_in).map(|(packet, answer)| {
                (walk::passage(self.chains, Hook::Input, Part::All, true, packet), answer)
            });
            let passages: Vec<(Passage<'a>, bool)> = passages.collect();
            let answers = passages.iter().any(|(passage, answer)| *answer && passage.passes != Truth::Yes);
            for (base, by) in passages.into_iter().flat_map(|(passage, _)| passage.closed) {
                let door = Door { what, answers, ..self.door(base, by) };
                add(&mut self.found.shut, door);
            }
        }
    }

    fn roads(&self) -> impl Iterator<Item = &Road> {
        let family = self.family;
        self.asked.arrivals.iter().filter(move |road| family.holds(road.address.into()))
    }

    fn inbound(&mut self, sample: &Sample<'_>) {
        let all: Vec<Road> = self.roads().cloned().collect();
        let roads = sample.distinct(&all, |road| self.meant(road, Value::Any, 0));
        if roads.is_empty() {
            return;
        }
        // From nobody by no interface: then it is so whatever port is meant.
        let others = Value::NotIn(self.own_and_excluded());
        let closed: Vec<Passage<'a>> =
            roads.iter().map(|road| self.redirected(road, others.clone(), None)).collect();
        let own = self.own_and_excluded();
        let sources: Vec<u128> = sample.sources(self.family, &own);
        let ports = self.ports(sample);
        if closed.iter().all(|passage| passage.passes == Truth::No) {
            let let_in = self.let_in(&roads, &sources, &ports);
            for (base, by) in closed.into_iter().flat_map(|passage| passage.closed) {
                let door = Door { let_in: let_in.clone(), ..self.door(base, by) };
                add(&mut self.found.shut, door);
            }
            return;
        }
        for road in &roads {
            for &source in &sources {
                self.by(road, source, &ports, sample.asks_original);
            }
        }
    }

    /// The ports at which somebody is let in for sure.
    fn let_in(&mut self, roads: &[Road], sources: &[u128], ports: &[Port]) -> BTreeSet<u16> {
        let mut found = BTreeSet::new();
        for port in ports {
            for (road, source) in
                roads.iter().flat_map(|road| sources.iter().map(move |source| (road, source)))
            {
                let Some(left) = self.left.checked_sub(1) else { return found };
                self.left = left;
                let here = port.address.is_none_or(|address| address == road.address);
                let meant = || self.meant(road, Value::Is(*source), port.number);
                if here && self.input(&meant()).passes == Truth::Yes {
                    found.insert(port.number);
                    break;
                }
            }
        }
        found
    }

    /// Everything that one source may mean by one interface.
    fn by(&mut self, road: &Road, source: u128, ports: &[Port], asks_original: bool) {
        let from = || Value::Is(source);
        let whatever = self.input(&self.meant(road, from(), 0).with(Field::DestinationPort, Value::Any));
        let known = (!asks_original).then(|| self.redirected(road, from(), None));
        if whatever.passes == Truth::Yes && known.as_ref().is_some_and(|after| after.passes != Truth::No) {
            return;
        }
        for port in ports.iter().filter(|port| port.address.is_none_or(|address| address == road.address)) {
            let Some(left) = self.left.checked_sub(1) else {
                self.found.partly = true;
                return;
            };
            self.left = left;
            let meant = self.meant(road, from(), port.number);
            let before = self.input(&meant);
            if before.passes == Truth::Maybe {
                continue;
            }
            let after = match &known {
                Some(after) => after.clone(),
                None => self.redirected(road, from(), Some(port.number)),
            };
            if after.passes == Truth::Maybe || after.passes == before.passes || !self.is_redirected(&meant) {
                continue;
            }
            if after.passes == Truth::No {
                for (base, by) in after.closed {
                    let door = Door { ports: BTreeSet::from([port.number]), ..self.door(base, by) };
                    add(&mut self.found.shut, door);
                }
            } else if let Some((base, by)) = before.closed.into_iter().next() {
                let door = Door { ports: BTreeSet::from([port.number]), ..self.door(base, by) };
                add(&mut self.found.opened, door);
            }
        }
    }

    /// Of everything that arrives.
    fn door(&self, base: &'a Chain, by: Finding<'a>) -> Door<'a> {
        let families = BTreeSet::from([self.family]);
        let (ports, let_in) = (BTreeSet::new(), BTreeSet::new());
        Door { base, by, families, what: What::Inbound, ports, let_in, answers: false }
    }

    /// Whether nothing keeps our rules from redirecting a connection.
    fn is_redirected(&self, packet: &Packet) -> bool {
        let before = walk::at(self.chains, Hook::Prerouting, Part::UpTo(self.asked.stand), false, packet);
        before.iter().all(|finding| matches!(finding.deed, Deed::Marks | Deed::Zones))
    }

    fn input(&self, packet: &Packet) -> Passage<'a> {
        walk::passage(self.chains, Hook::Input, Part::All, true, packet)
    }

    /// What becomes of a connection that is redirected.
    fn redirected(&self, road: &Road, source: Value, meant: Option<u16>) -> Passage<'a> {
        let packet = self.meant(road, source, 0);
        let port = self.asked.config.redirect.inbound.port.get();
        let original = meant.map_or(Value::NotIn(self.excluded_ports()), |port| Value::Is(port.into()));
        let packet = packet
            .with(Field::DestinationPort, Value::Is(port.into()))
            .with(Field::OriginalPort, original)
            .with(Field::Status, Value::Is(TRANSLATED));
        // It goes to the first address of the interface by which it came.
        let several = self.roads().filter(|other| other.index == road.index).count() > 1;
        let packet =
            if several { packet.with(Field::Destination, Value::NotIn(self.loopbacks())) } else { packet };
        let mut input = self.input(&packet);
        let stand = Part::After(self.asked.stand);
        let routed = walk::passage(self.chains, Hook::Prerouting, stand, true, &packet);
        // What may be dropped there is dropped whatever port it has, as by filters of paths back.
        if routed.passes == Truth::No {
            input.passes = Truth::No;
        }
        input.closed.extend(routed.closed);
        input
    }

    /// A connection as it arrives.
    fn meant(&self, road: &Road, source: Value, port: u16) -> Packet {
        let is = |number: u128| Value::Is(number);
        let mut packet = Packet::new(self.family)
            .with(Field::Protocol, is(TCP))
            .with(Field::Source, source)
            .with(Field::SourcePort, Value::NotIn(vec![0..=1023]))
            .with(Field::SourceType, is(UNICAST))
            .with(Field::Destination, is(number_of(road.address)))
            .with(Field::DestinationPort, is(port.into()))
            .with(Field::OriginalPort, is(port.into()))
            .with(Field::DestinationType, is(LOCAL))
            .with(Field::InIndex, is(road.index.into()))
            .with(Field::OutIndex, Value::Absent)
            .with(Field::User, Value::Absent)
            .with(Field::Group, Value::Absent)
            .with(Field::State, is(NEW))
            .with(Field::Status, is(0))
            .with(Field::Direction, is(0))
            .with(Field::Mark, is(0));
        packet.input = Some(road.interface.clone());
        packet
    }

    fn loopbacks(&self) -> Vec<Span> {
        let net = match self.family {
            Family::V4 => "127.0.0.0/8",
            Family::V6 => "::1/128",
        };
        net.parse().ok().map(span_of).into_iter().collect()
    }

    fn excluded_ports(&self) -> Vec<Span> {
        let ports = self.asked.config.redirect.inbound.exclude_ports.iter();
        ports.map(|port| u128::from(port.get())).map(|port| port..=port).collect()
    }

    /// Sources of whom nothing is promised: this host, and whoever is excluded.
    fn own_and_excluded(&self) -> Vec<Span> {
        let own = self.roads().map(|road| number_of(road.address)).map(|own| own..=own);
        let excluded = self.asked.config.redirect.inbound.exclude_ports_for_ips.iter();
        let excluded = excluded.map(Cidr::net).filter(|net| self.family.holds(*net));
        // Nobody outside has an address of loopback.
        let loopback: &[&str] = match self.family {
            Family::V4 => &["127.0.0.0/8"],
            Family::V6 => &["::1/128", "::6/128"],
        };
        let loopback = loopback.iter().filter_map(|net| net.parse().ok());
        own.chain(excluded.chain(loopback).map(span_of)).collect()
    }

    /// Ports that somebody has or that a rule names, as far as they are redirected.
    fn ports(&self, sample: &Sample<'_>) -> Vec<Port> {
        let redirect = &self.asked.config.redirect;
        let own = [redirect.inbound.port.get(), redirect.outbound.port.get()];
        let is_ours = |port: u16| !own.contains(&port) && is_redirected(&self.asked.config, port);
        let mut all: BTreeMap<(u16, Option<IpAddr>), usize> = BTreeMap::new();
        let listening = self.asked.listening.iter().filter(|socket| {
            !socket.udp && socket.uid != self.asked.sidecar && socket.families.contains(&self.family)
        });
        for socket in listening.filter(|socket| !socket.address.is_loopback()) {
            let address = (!socket.address.is_unspecified()).then_some(socket.address);
            all.entry((socket.port, address)).or_insert(0);
        }
        for &port in &sample.ports {
            all.entry((port, None)).or_insert(1);
        }
        let mut ports: Vec<_> = all.into_iter().filter(|((port, _), _)| is_ours(*port)).collect();
        // Those that somebody has come first, should there be too many.
        ports.sort_by_key(|(_, named)| *named);
        ports.into_iter().map(|((number, address), _)| Port { number, address }).collect()
    }
}

/// A port, and the address at which alone somebody has it.
struct Port {
    number: u16,
    address: Option<IpAddr>,
}

/// Whether what arrives for a port is redirected.
pub fn is_redirected(config: &Config, port: u16) -> bool {
    let inbound = &config.redirect.inbound;
    let listed = |ports: &[values::Port]| ports.iter().any(|listed| listed.get() == port);
    inbound.enabled
        && if inbound.include_ports.is_empty() {
            !listed(&inbound.exclude_ports)
        } else {
            listed(&inbound.include_ports)
        }
}

/// Adds a door, or its families and ports to those of the same one.
fn add<'a>(doors: &mut Vec<Door<'a>>, door: Door<'a>) {
    let same = doors.iter_mut().find(|known| {
        std::ptr::eq(known.base, door.base)
            && known.what == door.what
            && known.by.is_same_rule(&door.by)
            && known.ports.is_empty() == door.ports.is_empty()
    });
    match same {
        Some(known) => {
            known.families.extend(door.families);
            known.ports.extend(door.ports);
            known.let_in.extend(door.let_in);
            known.answers |= door.answers;
        }
        None => doors.push(door),
    }
}
