//! What a table of `nf_tables` does to a packet: the base chains of the hook by priority, every rule statement by
//! statement.

use std::net::IpAddr;

use tproxy::backend::nftables::model::{
    Chain, ChainKind, End, HookPoint, Interface, Rule, Statement, Table, Test, Verdict,
};
use tproxy::backend::nftables::set::{Interval, Key};
use tproxy::config::values::{Port, Protocol};
use tproxy::plan::{BuiltinChain, Family};

use super::packet::{Fate, NAT_USUAL, Packet, Translation};

/// Connection tracking looks at packets at this priority (`NF_IP_PRI_CONNTRACK`).
const CONNTRACK: i32 = -200;

pub fn fate(table: &Table, packet: &Packet) -> Fate {
    let mut walk = Walk { table, packet, fate: Fate::default(), tracked: false };
    let point = match packet.hook {
        BuiltinChain::Prerouting => HookPoint::Prerouting,
        BuiltinChain::Output => HookPoint::Output,
    };
    let mut chains: Vec<_> = table
        .chains
        .iter()
        .filter_map(|chain| chain.hook.as_ref().map(|hook| (hook, chain)))
        .filter(|(hook, _)| hook.point == point)
        .collect();
    chains.sort_by_key(|(hook, _)| hook.priority);
    let mut undecided = !packet.invalid;
    for (hook, chain) in chains {
        walk.tracked = hook.priority > CONNTRACK;
        match hook.kind {
            ChainKind::Filter => {
                if let Flow::Dropped = walk.chain(chain) {
                    walk.fate.dropped = true;
                    return walk.fate;
                }
            }
            ChainKind::Nat if undecided && packet.theirs && hook.priority > NAT_USUAL => {
                walk.fate.translation = Translation::Theirs;
                undecided = false;
            }
            ChainKind::Nat if undecided => {
                if let Flow::Redirected(port) = walk.chain(chain) {
                    walk.fate.translation = Translation::Redirected(port);
                    undecided = false;
                }
            }
            // The first to translate is the only one.
            ChainKind::Nat => {}
            ChainKind::Other => panic!("a chain of another kind: {chain:?}"),
        }
    }
    if undecided && packet.theirs {
        walk.fate.translation = Translation::Theirs;
    }
    walk.fate
}

/// How a chain ended.
enum Flow {
    /// Behind its last rule, or returned.
    Passed,
    Accepted,
    Dropped,
    Redirected(Port),
}

struct Walk<'a> {
    table: &'a Table,
    packet: &'a Packet,
    fate: Fate,
    /// Connection tracking has seen the packet.
    tracked: bool,
}

impl<'a> Walk<'a> {
    fn chain(&mut self, chain: &'a Chain) -> Flow {
        for rule in &chain.rules {
            match self.rule(rule) {
                Some(Step::Out(flow)) => return flow,
                Some(Step::Into(name)) => {
                    let chain = self.table.chains.iter().find(|chain| chain.name == *name);
                    let chain = chain.unwrap_or_else(|| panic!("no chain {name}"));
                    match self.chain(chain) {
                        Flow::Passed => {}
                        flow => return flow,
                    }
                }
                None => {}
            }
        }
        Flow::Passed
    }

    fn rule(&mut self, rule: &'a Rule) -> Option<Step<'a>> {
        for (at, statement) in rule.statements.iter().enumerate() {
            match statement {
                Statement::Counter => {}
                Statement::Log { prefix, level } => self.fate.logged.push((prefix.clone(), *level)),
                // A packet that has a zone keeps it (`nft_ct_set_zone_eval`).
                Statement::CtZone(zone) => {
                    assert!(!self.tracked, "a zone after connection tracking: {rule:?}");
                    self.fate.zone.get_or_insert(*zone);
                }
                Statement::Redirect(port) => return Some(Step::Out(Flow::Redirected(*port))),
                Statement::Verdict(verdict) => {
                    return Some(match verdict {
                        Verdict::Accept => Step::Out(Flow::Accepted),
                        Verdict::Drop => Step::Out(Flow::Dropped),
                        Verdict::Return => Step::Out(Flow::Passed),
                        Verdict::Jump(name) => Step::Into(name),
                    });
                }
                condition => {
                    if !self.meets(condition, &rule.statements[..at]) {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// `before` must have told what the bytes mean that are looked at.
    fn meets(&self, condition: &Statement, before: &[Statement]) -> bool {
        let packet = self.packet;
        match condition {
            Statement::Family(family) => packet.family() == *family,
            Statement::Protocol(protocol) => packet.protocol == Some(*protocol),
            Statement::Address(end, test) => {
                let family = packet.family();
                assert!(before.contains(&Statement::Family(family)), "an address of any family: {before:?}");
                let addr = match end {
                    End::Source => packet.source.ip(),
                    End::Destination => packet.destination.ip(),
                };
                let key = match family {
                    Family::V4 => Key::Ipv4,
                    Family::V6 => Key::Ipv6,
                };
                self.test(test, key, number(addr), |net| {
                    assert!(family.holds(*net), "{net} for {family}");
                    net.contains(&addr)
                })
            }
            Statement::Port(end, test) => {
                let told = [Protocol::Tcp, Protocol::Udp].map(Statement::Protocol);
                assert!(before.iter().any(|told_before| told.contains(told_before)), "a port of anything");
                let port = match end {
                    End::Source => packet.source.port(),
                    End::Destination => packet.destination.port(),
                };
                self.test(test, Key::Port, port.into(), |range| {
                    (range.first.get()..=range.last.get()).contains(&port)
                })
            }
            Statement::Interface(end, test) => {
                // The one that a packet does not have has no name: the test holds for nothing.
                let arriving = packet.hook == BuiltinChain::Prerouting;
                let name = &packet.interface;
                let interface = Interface { name: name.clone(), prefix: false };
                arriving == (*end == End::Source)
                    && self.test(test, Key::Interface, Interval::from(&interface).first, |wanted| {
                        if wanted.prefix { name.starts_with(&wanted.name) } else { *name == wanted.name }
                    })
            }
            // `nft_meta_get_eval_skugid`: without a socket the rule does not hold, whatever it tests.
            Statement::Owner(test) => packet.owner.is_some_and(|uid| {
                self.test(test, Key::Uid, uid.into(), |uids| (uids.first..=uids.last).contains(&uid))
            }),
            Statement::ForOtherHosts => !packet.here,
            Statement::Invalid => {
                assert!(self.tracked, "a state before connection tracking");
                packet.invalid
            }
            // No rule of others takes part in this.
            Statement::Untracked => {
                assert!(!self.tracked, "too late to keep it out of connection tracking");
                false
            }
            other => panic!("not a condition: {other:?}"),
        }
    }

    fn test<T>(&self, test: &Test<T>, key: Key, value: u128, is: impl Fn(&T) -> bool) -> bool {
        let within = |name: &String| {
            let set = self.table.sets.get(name).unwrap_or_else(|| panic!("no set {name}"));
            assert_eq!(set.key, key, "{name}");
            set.intervals.iter().any(|interval| (interval.first..=interval.last).contains(&value))
        };
        match test {
            Test::Is(wanted) => is(wanted),
            Test::IsNot(wanted) => !is(wanted),
            Test::In(name) => within(name),
            Test::NotIn(name) => !within(name),
        }
    }
}

/// What a rule that holds says.
enum Step<'a> {
    Out(Flow),
    Into(&'a String),
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().into(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}
