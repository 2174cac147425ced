//! Rules of others about the users, groups and control groups of who sends. The sidecar sends what applications sent, so
//! such rules meet its user in place of theirs: whoever was let through may be cut off, and whoever was kept off may get
//! out. Pure.
//!
//! For each such rule a packet of somebody whom it names is walked through the chains as without redirection, the same
//! packet as one of the sidecar's, and what becomes of it on its way to the sidecar. Only what differs is told.

use std::collections::BTreeSet;

use crate::config::values::{Cidr, Protocol};
use crate::plan::Family;
use crate::rules::model::{Action, Chain, Field, Hook, Packet, Rule, Span, Test, Truth, Value};
use crate::rules::nft::{is_own_chain, number_of, span_of};
use crate::rules::walk::{self, Deed, Finding, Part};
use crate::verify::flows::Road;

use super::words::{self, networks};
use super::{Asked, LOCAL, Met, TCP, TRANSLATED, UDP, UNICAST, is, walks};

const DNS: u128 = 53;
/// Addresses, ports and users of one rule that are tried.
const TRIED: usize = 2;

/// Everything that such rules do to the sidecar and to those whom they name.
pub fn judge(asked: &Asked<'_>, chains: &[Chain]) -> Vec<Met> {
    let owner_rules: Vec<(&Chain, &Rule)> = chains
        .iter()
        .filter(|chain| !is_own_chain(&chain.name))
        .flat_map(|chain| chain.rules.iter().map(move |rule| (chain, rule)))
        .filter(|(_, rule)| names_owner(rule))
        .collect();
    if owner_rules.is_empty() || !asked.config.redirect.outbound.enabled && !asked.config.redirect.dns.enabled
    {
        return Vec::new();
    }
    // As it would be without ours.
    let bare: Vec<Chain> = chains.iter().map(without_ours).collect();
    let size: usize = chains.iter().map(|chain| chain.rules.len()).sum();
    let mut search = Search { asked, chains, bare: &bare, left: walks(size), found: Vec::new() };
    for (chain, rule) in &owner_rules {
        for family in asked.families.iter().filter(|family| chain.families.contains(family)) {
            search.rule(rule, *family);
        }
    }
    search.found
}

fn is_ours(rule: &Rule) -> bool {
    matches!(rule.action, Action::Ours | Action::OursPasses)
}

fn without_ours(chain: &Chain) -> Chain {
    Chain { rules: chain.rules.iter().filter(|rule| !is_ours(rule)).cloned().collect(), ..chain.clone() }
}

const fn is_owner(field: Field) -> bool {
    matches!(field, Field::User | Field::Group | Field::Cgroup)
}

/// Whether it is a foreign rule about who sends.
pub fn names_owner(rule: &Rule) -> bool {
    let about = |test: &Test| matches!(test, Test::In { field, .. } if is_owner(*field));
    rule.tests.iter().any(about) && !is_ours(rule)
}

/// Somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    User(u32),
    /// Any user of this group.
    Group(u32),
    /// A process in this control group.
    Cgroup(u128),
    /// Anybody whom the rule does not name.
    Others,
}

/// Where to.
#[derive(Debug, Clone)]
struct There {
    protocol: u128,
    address: Value,
    port: Value,
    /// In words, and as the value of an option where it can be one.
    said: Option<String>,
    option: Option<String>,
    /// Protocol and ports as an exclusion of users has them.
    ports: String,
}

/// The ports that a rule names, unless those are too many for an option.
fn tcp_ports(spans: Option<&[Span]>) -> String {
    const MOST: usize = 15;
    let one = |span: &Span| {
        let (first, last) = (span.start(), span.end());
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    let named = spans.filter(|spans| (1..=MOST).contains(&spans.len()));
    let ports =
        named.map_or_else(|| "*".to_owned(), |spans| spans.iter().map(one).collect::<Vec<_>>().join(","));
    format!("tcp:{ports}")
}

/// What becomes of a packet.
#[derive(Debug)]
struct Fate<'a> {
    found: Vec<Finding<'a>>,
}

impl<'a> Fate<'a> {
    /// How sure a deed is.
    fn of(&self, deed: Deed) -> Truth {
        let sure = self.found.iter().filter(|finding| finding.deed == deed).map(|finding| finding.sure);
        sure.max().unwrap_or(Truth::No)
    }

    fn by(&self, deed: Deed) -> Option<&Finding<'a>> {
        self.found.iter().filter(|finding| finding.deed == deed).max_by_key(|finding| finding.sure)
    }
}

struct Search<'a, 'b> {
    asked: &'b Asked<'b>,
    chains: &'a [Chain],
    bare: &'a [Chain],
    /// How many packets may still be walked.
    left: usize,
    found: Vec<Met>,
}

impl<'a> Search<'a, '_> {
    fn rule(&mut self, rule: &Rule, family: Family) {
        let roads: Vec<Road> =
            self.asked.departures.iter().filter(|road| family.holds(road.address.into())).cloned().collect();
        let who = self.named(rule);
        for there in self.destinations(rule, family) {
            for who in &who {
                for road in tried(rule, &roads) {
                    if self.left == 0 {
                        let said = words::not_all(family);
                        if !self.found.contains(&said) {
                            self.found.push(said);
                        }
                        return;
                    }
                    self.left -= 1;
                    for met in self.compare(*who, &there, &road, family) {
                        if !self.found.contains(&met) {
                            self.found.push(met);
                        }
                    }
                }
            }
        }
    }

    /// Whom a rule names, and somebody whom it does not. The sidecar is neither.
    fn named(&self, rule: &Rule) -> Vec<Who> {
        let mut all = BTreeSet::new();
        for test in &rule.tests {
            let Test::In { field, spans, .. } = test else { continue };
            for span in spans.iter().take(TRIED) {
                let narrow = |number: u128| u32::try_from(number).ok();
                all.extend(match field {
                    Field::User => {
                        let mut users = [*span.start(), span.end().saturating_sub(1).max(*span.start())]
                            .into_iter()
                            .filter_map(narrow);
                        users
                            .find(|uid| *uid != self.asked.sidecar && span.contains(&u128::from(*uid)))
                            .map(Who::User)
                    }
                    Field::Group => narrow(*span.start()).map(Who::Group),
                    Field::Cgroup => Some(Who::Cgroup(*span.start())),
                    _ => None,
                });
            }
            if is_owner(*field) {
                all.insert(Who::Others);
            }
        }
        all.into_iter().collect()
    }

    /// Redirected traffic that a rule is about.
    fn destinations(&self, rule: &Rule, family: Family) -> Vec<There> {
        let redirect = &self.asked.config.redirect;
        let only = |wanted: Field| {
            rule.tests.iter().find_map(move |test| match test {
                Test::In { field, spans, negated: false } if *field == wanted => Some(spans.as_slice()),
                _ => None,
            })
        };
        let has = |wanted: Field, number: u128| {
            only(wanted).is_none_or(|spans| spans.iter().any(|span| span.contains(&number)))
        };
        let excluded: Vec<Span> = redirect
            .outbound
            .exclude_ports_for_ips
            .iter()
            .map(Cidr::net)
            .filter(|net| family.holds(*net))
            .map(span_of)
            .collect();
        let elsewhere: Vec<Span> = self.asked.here(family).into_iter().chain(excluded).collect();
        let inside = |number: u128| elsewhere.iter().any(|span| span.contains(&number));
        let addresses: Vec<(Value, Option<&Span>)> = match only(Field::Destination) {
            Some(spans) => spans
                .iter()
                .filter(|span| !inside(*span.start()))
                .take(TRIED)
                .map(|span| (is(*span.start()), Some(span)))
                .collect(),
            None => vec![(Value::NotIn(elsewhere.clone()), None)],
        };
        let mut all = Vec::new();
        if redirect.outbound.enabled && has(Field::Protocol, TCP) {
            let excluded: Vec<Span> = redirect
                .outbound
                .exclude_ports
                .iter()
                .map(|port| u128::from(port.get()))
                .map(|port| port..=port)
                .collect();
            let redirected = |port: &u128| !excluded.iter().any(|span| span.contains(port));
            let port = match only(Field::DestinationPort) {
                Some(spans) => spans.iter().map(|span| *span.start()).find(redirected).map(is),
                None => Some(Value::NotIn(excluded.clone())),
            };
            for (address, span) in port.iter().flat_map(|_| addresses.iter()) {
                let Some(port) = port.clone() else { continue };
                let nets = span.map(networks);
                let said = nets.clone().map(|nets| match &port {
                    Value::Is(port) => format!("{nets} TCP port {port}"),
                    _ => nets,
                });
                let said = said.or_else(|| match &port {
                    Value::Is(port) => Some(format!("TCP port {port} of other hosts")),
                    _ => None,
                });
                let ports = tcp_ports(only(Field::DestinationPort));
                all.push(There { protocol: TCP, address: address.clone(), port, said, option: nets, ports });
            }
        }
        if redirect.dns.enabled && has(Field::Protocol, UDP) && has(Field::DestinationPort, DNS) {
            let servers: Vec<u128> = if redirect.dns.capture_all {
                only(Field::Destination)
                    .into_iter()
                    .flatten()
                    .map(|span| *span.start())
                    .filter(|number| !inside(*number))
                    .collect()
            } else {
                let own = self
                    .asked
                    .servers
                    .iter()
                    .filter(|addr| family.holds((**addr).into()))
                    .map(|addr| number_of(*addr));
                own.filter(|number| has(Field::Destination, *number)).collect()
            };
            for server in servers.into_iter().take(TRIED) {
                let said = Some(format!("the DNS server {}", networks(&(server..=server))));
                let ports = format!("udp:{DNS}");
                all.push(There {
                    protocol: UDP,
                    address: is(server),
                    port: is(DNS),
                    said,
                    option: None,
                    ports,
                });
            }
        }
        all
    }

    fn is_excluded(&self, uid: u32, there: &There) -> bool {
        let (protocol, port) = match (there.protocol, &there.port) {
            (UDP, _) => (Protocol::Udp, Some(DNS)),
            (_, Value::Is(port)) => (Protocol::Tcp, Some(*port)),
            _ => (Protocol::Tcp, None),
        };
        self.asked.config.redirect.outbound.exclude_ports_for_uids.iter().any(|exclusion| {
            let covers = exclusion.ports.iter().any(|range| {
                let (first, last) = (u128::from(range.first.get()), u128::from(range.last.get()));
                port.map_or(first == 1 && last == u128::from(u16::MAX), |port| (first..=last).contains(&port))
            });
            (exclusion.uids.first..=exclusion.uids.last).contains(&uid)
                && exclusion.protocols.contains(&protocol)
                && covers
        })
    }

    /// Somebody whom no rule names.
    fn nobody(&self, packet: &Packet) -> Packet {
        let number = is(self.asked.nobody.into());
        packet.clone().with(Field::User, number.clone()).with(Field::Group, number).with(Field::Cgroup, is(0))
    }

    fn compare(&self, who: Who, there: &There, road: &Road, family: Family) -> Vec<Met> {
        let sidecar = u128::from(self.asked.sidecar);
        if matches!(who, Who::User(uid) if self.is_excluded(uid, there)) {
            return Vec::new();
        }
        let others = Value::NotIn(vec![sidecar..=sidecar]);
        let packet = packet(there, road, family);
        let sent = match who {
            Who::User(uid) => packet.clone().with(Field::User, is(uid.into())),
            Who::Group(gid) => packet.clone().with(Field::User, others).with(Field::Group, is(gid.into())),
            Who::Cgroup(id) => packet.clone().with(Field::User, others).with(Field::Cgroup, is(id)),
            Who::Others => self.nobody(&packet),
        };
        let by_sidecar = packet.clone().with(Field::User, is(sidecar));
        let fate = |packet: &Packet| {
            let mut found = walk::at(self.bare, Hook::Output, Part::All, false, packet);
            found.extend(walk::at(self.bare, Hook::Postrouting, Part::All, false, packet));
            Fate { found }
        };
        let (before, instead) = (fate(&sent), fate(&by_sidecar));
        // What everybody's redirected packets suffer is no matter of users.
        let redirected = self.redirected(&sent, there, family);
        let nobody = self.redirected(&self.nobody(&packet), there, family).of(Deed::Drops);
        let (was, of_sidecar) = (before.of(Deed::Drops), instead.of(Deed::Drops));
        let on_the_way = redirected.of(Deed::Drops);
        let now = on_the_way.max(of_sidecar);
        let mut found: Vec<Met> = Vec::new();
        let mut add = |met: Option<Met>| found.extend(met);
        let words = words::Who {
            family,
            named: words_of(who),
            sidecar: self.asked.sidecar,
            to: there.said.as_deref(),
            option: there.option.as_deref(),
            ports: &there.ports,
        };
        if now < was {
            add(before.by(Deed::Drops).map(|by| words.gets_out(by, was == Truth::Yes && now == Truth::No)));
        } else if of_sidecar > was && (who != Who::Others || of_sidecar == Truth::Yes) {
            add(instead.by(Deed::Drops).map(|by| words.cut_off(by, of_sidecar == Truth::Yes, false)));
        } else if on_the_way > was.max(nobody) {
            add(redirected.by(Deed::Drops).map(|by| words.cut_off(by, on_the_way == Truth::Yes, true)));
        }
        if self.asked.by_marks.contains(&family) && before.of(Deed::Marks) != instead.of(Deed::Marks) {
            let by = before.by(Deed::Marks).or(instead.by(Deed::Marks));
            add(by.map(|by| words.routed(by, before.of(Deed::Marks) > instead.of(Deed::Marks))));
        }
        let still = walk::at(self.chains, Hook::Output, Part::UpTo(self.stand(there)), false, &sent);
        let still = Fate { found: still }.of(Deed::Translates);
        if before.of(Deed::Translates) > instead.of(Deed::Translates).max(still) && who != Who::Others {
            add(before.by(Deed::Translates).map(|by| words.not_led(by)));
        }
        found
    }

    fn stand(&self, there: &There) -> i32 {
        if there.protocol == UDP { self.asked.stand.dns } else { self.asked.stand.outbound }
    }

    /// What becomes of an application's packet on its way to the sidecar.
    fn redirected(&self, sent: &Packet, there: &There, family: Family) -> Fate<'a> {
        let redirect = &self.asked.config.redirect;
        let port = if there.protocol == UDP { redirect.dns.port } else { redirect.outbound.port };
        let stand = self.stand(there);
        let after = sent
            .clone()
            .with(Field::Destination, is(super::localhost(family)))
            .with(Field::DestinationPort, is(port.get().into()))
            .with(Field::DestinationType, is(LOCAL))
            .with(Field::Status, is(TRANSLATED));
        let mut found = walk::at(self.bare, Hook::Output, Part::UpTo(stand), false, sent);
        found.extend(walk::at(self.bare, Hook::Output, Part::After(stand), true, &after));
        let mut leaving = after.with(Field::OutIndex, is(self.asked.loopback.1.into()));
        leaving.output = Some(self.asked.loopback.0.to_owned());
        found.extend(walk::at(self.bare, Hook::Postrouting, Part::All, true, &leaving));
        Fate { found }
    }
}

/// By which interfaces a rule's packets leave, for all that it says.
fn tried(rule: &Rule, roads: &[Road]) -> Vec<Road> {
    let named = rule.tests.iter().find_map(|test| match test {
        Test::Interface { leaving: true, names, negated: false } => names.first(),
        _ => None,
    });
    match (named, roads.first()) {
        (Some(name), Some(road)) => {
            let known = roads.iter().find(|road| road.interface == name.text);
            vec![known.cloned().unwrap_or_else(|| Road { interface: name.text.clone(), ..road.clone() })]
        }
        (None, Some(_)) => roads.iter().take(TRIED).cloned().collect(),
        _ => Vec::new(),
    }
}

/// Somebody's packet.
fn packet(there: &There, road: &Road, family: Family) -> Packet {
    let mut packet = Packet::new(family)
        .with(Field::Protocol, is(there.protocol))
        .with(Field::Mark, is(0))
        .with(Field::Source, is(number_of(road.address)))
        .with(Field::SourcePort, Value::NotIn(vec![0..=1023]))
        .with(Field::SourceType, is(LOCAL))
        .with(Field::Destination, there.address.clone())
        .with(Field::DestinationPort, there.port.clone())
        .with(Field::OriginalPort, there.port.clone())
        .with(Field::DestinationType, is(UNICAST))
        .with(Field::State, is(super::NEW))
        .with(Field::Status, is(0))
        .with(Field::Direction, is(0))
        .with(Field::OutIndex, is(road.index.into()))
        .with(Field::InIndex, Value::Absent);
    packet.output = Some(road.interface.clone());
    packet
}

fn words_of(who: Who) -> words::Named {
    match who {
        Who::User(uid) => words::Named::User(uid),
        Who::Group(gid) => words::Named::Group(gid),
        Who::Cgroup(_) => words::Named::Cgroup,
        Who::Others => words::Named::Others,
    }
}
