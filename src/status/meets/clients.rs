//! Rules of others by the addresses of clients. Behind the sidecar every client has one address, `127.0.0.6` or `::6`, and
//! before it the sidecar's port: a ban or a list of addresses shuts out everybody, or nobody any more. Pure.

use std::collections::BTreeMap;

use crate::config::{Config, leaving_alone};
use crate::plan::Family;
use crate::rules::model::{Chain, Field, Hook, Packet, Rule, Span, Test, Truth, Value};
use crate::rules::nft::{number_of, span_of};
use crate::rules::show;
use crate::rules::walk::{self, Deed, Finding, Part};
use crate::verify::flows::Road;

use super::words::rule;
use super::{Asked, Clients, LOCAL, Met, NEW, TCP, TRANSLATED, UNICAST, is, passthrough, walks};

/// Clients of one rule, and ports, that are tried.
const CLIENTS: usize = 2;
const PORTS: usize = 64;
/// Addresses of this host that are asked at.
const ROADS: usize = 4;

/// Everything that such rules do.
pub fn judge(asked: &Asked<'_>, chains: &[Chain]) -> Vec<Met> {
    let inbound = &asked.config.redirect.inbound;
    if !inbound.enabled || asked.ports.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for &family in asked.families {
        let size = chains
            .iter()
            .filter(|chain| chain.families.contains(&family))
            .map(|chain| chain.rules.len())
            .sum();
        let mut search = Search { asked, chains, family, left: walks(size) };
        found.extend(search.shut_out());
        found.extend(search.bans());
    }
    found
}

/// Rules of a chain that are about clients, and the ports that they do not close any more.
#[derive(Debug, Default)]
struct Bans<'a> {
    rules: Vec<String>,
    first: Option<Finding<'a>>,
    ports: Vec<u16>,
    /// How many more there may be.
    more: usize,
}

struct Search<'a, 'b> {
    asked: &'b Asked<'b>,
    chains: &'a [Chain],
    family: Family,
    left: usize,
}

/// What drops something, and how sure that is.
fn drops<'a>(found: &[Finding<'a>]) -> Option<Finding<'a>> {
    found.iter().filter(|finding| finding.deed == Deed::Drops).max_by_key(|finding| finding.sure).cloned()
}

fn sure(of: Option<&Finding<'_>>) -> Truth {
    of.map_or(Truth::No, |finding| finding.sure)
}

impl<'a> Search<'a, '_> {
    fn roads(&self) -> impl Iterator<Item = &Road> {
        let own = self.asked.arrivals.iter().filter(|road| self.family.holds(road.address.into()));
        own.take(ROADS)
    }

    fn may_walk(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left > 0
    }

    /// What the sidecar sends to an application of this host.
    fn passed_on(&self, road: &Road, port: u16) -> Option<Finding<'a>> {
        let (name, index) = self.asked.loopback;
        let mut out = Packet::new(self.family)
            .with(Field::Protocol, is(TCP))
            .with(Field::Mark, is(0))
            .with(Field::Source, is(number_of(passthrough(self.family))))
            .with(Field::SourceType, is(LOCAL))
            .with(Field::SourcePort, ephemeral())
            .with(Field::Destination, is(number_of(road.address)))
            .with(Field::DestinationType, is(LOCAL))
            .with(Field::DestinationPort, is(port.into()))
            .with(Field::OriginalPort, is(port.into()))
            .with(Field::State, is(NEW))
            .with(Field::Status, is(0))
            .with(Field::Direction, is(0))
            .with(Field::User, is(self.asked.sidecar.into()))
            .with(Field::OutIndex, is(index.into()))
            .with(Field::InIndex, Value::Absent);
        out.output = Some(name.to_owned());
        let mut into = out
            .clone()
            .with(Field::User, Value::Absent)
            .with(Field::Group, Value::Absent)
            .with(Field::Cgroup, Value::Absent)
            .with(Field::OutIndex, Value::Absent)
            .with(Field::InIndex, is(index.into()));
        into.output = None;
        into.input = Some(name.to_owned());
        let hooks = [
            (Hook::Output, &out),
            (Hook::Postrouting, &out),
            (Hook::Prerouting, &into),
            (Hook::Input, &into),
        ];
        let found: Vec<Finding<'a>> = hooks
            .into_iter()
            .flat_map(|(hook, packet)| walk::at(self.chains, hook, Part::All, true, packet))
            .collect();
        drops(&found)
    }

    /// What a client sends, as it arrives for an application or, redirected, for the sidecar.
    fn arriving(&self, road: &Road, client: Value, port: u16, redirected: bool) -> Option<Finding<'a>> {
        let base = Packet::new(self.family)
            .with(Field::Protocol, is(TCP))
            .with(Field::Mark, is(0))
            .with(Field::Source, client)
            .with(Field::SourceType, is(UNICAST))
            .with(Field::SourcePort, ephemeral())
            .with(Field::Destination, is(number_of(road.address)))
            .with(Field::DestinationType, is(LOCAL))
            .with(Field::State, is(NEW))
            .with(Field::Direction, is(0))
            .with(Field::InIndex, is(road.index.into()));
        let absent = [Field::User, Field::Group, Field::Cgroup, Field::OutIndex];
        let base = absent.into_iter().fold(base, |packet, field| packet.with(field, Value::Absent));
        let (to, status) =
            if redirected { (self.asked.config.redirect.inbound.port.get(), TRANSLATED) } else { (port, 0) };
        let mut packet = base
            .with(Field::DestinationPort, is(to.into()))
            .with(Field::OriginalPort, is(port.into()))
            .with(Field::Status, is(status));
        packet.input = Some(road.interface.clone());
        drops(&walk::at(self.chains, Hook::Input, Part::All, true, &packet))
    }

    fn stranger(&self) -> Value {
        Value::NotIn(self.asked.here(self.family))
    }

    /// Rules that shut out the address by which the sidecar connects, of ports that somebody could reach.
    fn shut_out(&mut self) -> Vec<Met> {
        let mut by_rule: BTreeMap<(bool, String), (Finding<'_>, Vec<u16>)> = BTreeMap::new();
        let roads: Vec<Road> = self.roads().take(1).cloned().collect();
        for road in &roads {
            for &port in self.asked.ports.iter().take(PORTS) {
                if !self.may_walk() {
                    break;
                }
                let Some(by) = self.passed_on(road, port) else { continue };
                // What nobody could reach before is as it was.
                let was = self.arriving(road, self.stranger(), port, false);
                let narrower = by.specific && sure(was.as_ref()) < Truth::Yes;
                if by.sure == Truth::Yes && sure(was.as_ref()) < Truth::Yes || narrower {
                    let key = (by.sure == Truth::Yes, rule(&by));
                    by_rule.entry(key).or_insert_with(|| (by, Vec::new())).1.push(port);
                }
            }
        }
        let (from, family) = (passthrough(self.family), self.family);
        let said = by_rule.into_iter().map(|((dead, rule), (by, ports))| {
            let (drops, nobody) = if dead { ("drops", "nobody reaches") } else { ("may drop", "clients may not reach") };
            let list = list(&ports);
            Met {
                family,
                what: format!(
                    "{rule} {drops} what comes from {from}, the address of every client behind the sidecar: {nobody} {list} any \
                     more"
                ),
                fix: format!(
                    "let {from} through in that chain, or install with {}, which leaves these ports alone",
                    leaving_alone(self.asked.config, ports.iter().copied())
                ),
                dead,
                clients: Some(about(&by, ports, dead)),
            }
        });
        said.collect()
    }

    /// Rules that keep clients by their addresses from ports, and do not any more.
    fn bans(&mut self) -> Vec<Met> {
        let roads: Vec<Road> = self.roads().take(1).cloned().collect();
        let Some(road) = roads.first() else { return Vec::new() };
        let mut by_chain: BTreeMap<(String, String), Bans<'_>> = BTreeMap::new();
        let (chains, family) = (self.chains, self.family);
        for chain in chains.iter().filter(|chain| chain.families.contains(&family)) {
            for one in &chain.rules {
                let Some(clients) = self.clients(one) else { continue };
                let key = (chain.name.clone(), chain.table.clone());
                if let Some(known) = by_chain.get_mut(&key).filter(|known| known.rules.len() >= CLIENTS) {
                    known.more += 1;
                    continue;
                }
                for port in self.ports_of(one).into_iter().take(PORTS) {
                    for client in &clients {
                        if !self.may_walk() {
                            break;
                        }
                        let was = self.arriving(road, is(*client), port, false);
                        let by_this = was.as_ref().is_some_and(|was| {
                            was.sure == Truth::Yes && was.rule.is_some_and(|rule| std::ptr::eq(rule, one))
                        });
                        let still = || {
                            sure(self.arriving(road, is(*client), port, true).as_ref())
                                .max(sure(self.passed_on(road, port).as_ref()))
                        };
                        if by_this && still() == Truth::No {
                            let known = by_chain.entry(key.clone()).or_default();
                            let said = was.as_ref().map(rule).unwrap_or_default();
                            if !known.rules.contains(&said) {
                                known.rules.push(said);
                            }
                            if !known.ports.contains(&port) {
                                known.ports.push(port);
                            }
                            known.first = known.first.take().or(was);
                        }
                    }
                }
            }
        }
        let port = self.asked.config.redirect.inbound.port;
        let said = by_chain.into_values().filter_map(|Bans { rules, first, ports, more }| {
            let first = first?;
            let more = if more > 0 { format!(" (and up to {more} more rules of that chain)") } else { String::new() };
            let list = list(&ports);
            Some(Met {
                family,
                what: format!(
                    "{}{more} keeps clients by their addresses from {}, but not any more: redirected, their packets go to \
                     port {port}, and behind the sidecar they come from {}",
                    rules.join(" and "),
                    list,
                    passthrough(self.family)
                ),
                fix: format!(
                    "install with {}, which leaves these ports to the rule, or make it one about port {port} too",
                    leaving_alone(self.asked.config, ports.iter().copied())
                ),
                dead: false,
                clients: Some(about(&first, ports, false)),
            })
        });
        said.collect()
    }

    /// Clients that a rule drops for their addresses.
    fn clients(&self, rule: &Rule) -> Option<Vec<u128>> {
        if rule.action != crate::rules::model::Action::Drop {
            return None;
        }
        let here = self.asked.here(self.family);
        let here = |number: u128| here.iter().any(|span| span.contains(&number));
        let (spans, negated) = rule.tests.iter().find_map(|test| match test {
            Test::In { field: Field::Source, spans, negated } => Some((spans.as_slice(), *negated)),
            _ => None,
        })?;
        let found: Vec<u128> = if negated {
            let somebody: Option<Span> = match self.family {
                Family::V4 => "198.51.100.7/32".parse().ok().map(span_of),
                Family::V6 => "2001:db8:6::7/128".parse().ok().map(span_of),
            };
            somebody
                .map(|span| *span.start())
                .filter(|one| !spans.iter().any(|span| span.contains(one)))
                .into_iter()
                .collect()
        } else {
            spans.iter().map(|span| *span.start()).filter(|one| !here(*one)).take(CLIENTS).collect()
        };
        (!found.is_empty()).then_some(found)
    }

    /// Redirected ports that a rule is about.
    fn ports_of(&self, rule: &Rule) -> Vec<u16> {
        let named = rule.tests.iter().find_map(|test| match test {
            Test::In { field: Field::DestinationPort, spans, negated: false } => Some(spans),
            _ => None,
        });
        let all = self.asked.ports.iter().copied();
        all.filter(|port| {
            named.is_none_or(|spans| spans.iter().any(|span| span.contains(&u128::from(*port))))
        })
        .collect()
    }
}

/// What is known of a rule by which others tell whether they are about the same one.
fn about(by: &Finding<'_>, ports: Vec<u16>, shuts: bool) -> Clients {
    Clients { place: show::place(by.chain), rule: show::name(by.rule), ports, shuts }
}

fn ephemeral() -> Value {
    Value::NotIn(vec![0..=1023])
}

/// Ports in words.
fn list(ports: &[u16]) -> String {
    const NAMED: usize = 8;
    let all: Vec<String> = ports.iter().take(NAMED).map(u16::to_string).collect();
    let more = if ports.len() > NAMED { format!(" and {} more", ports.len() - NAMED) } else { String::new() };
    let word = if ports.len() == 1 { "TCP port" } else { "TCP ports" };
    format!("{word} {}{more}", all.join(", "))
}

/// What is to be said of the ports on which somebody listens: their programs see one client.
pub fn lost(config: &Config, ports: &[u16], families: &[Family]) -> Option<(String, String)> {
    if ports.is_empty() || families.is_empty() {
        return None;
    }
    let words = list(ports);
    let from: Vec<String> = families.iter().map(|family| passthrough(*family).to_string()).collect();
    let what = format!(
        "behind the sidecar, what listens on {words} sees {} in place of the client's address: a ban or a list of addresses \
         there is about everybody",
        from.join(" or ")
    );
    let exclude = leaving_alone(config, ports.iter().copied());
    let fix = format!(
        "where a program needs its clients' addresses, leave its ports alone: {exclude} for all of them"
    );
    Some((what, fix))
}
