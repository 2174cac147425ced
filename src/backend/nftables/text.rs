//! The table in nft's own language, as `nft -f` loads it and `nft list table` prints it. Pure.

use std::fmt::{self, Display, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::config::values::{PortRange, UidRange};
use crate::plan::Family;

use super::model::{
    Chain, ChainKind, End, Hook, HookPoint, Interface, Rule, Statement, TABLE, Table, Test, Verdict,
};
use super::set::{Interval, Key, Set};

/// What creates the table where there is none.
pub fn create(table: &Table) -> String {
    block(table).to_string()
}

/// What puts the table in the place of the one that may be there, in one transaction.
pub fn replace(table: &Table) -> String {
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n{}", block(table))
}

fn block(table: &Table) -> impl Display {
    let mut text = format!("table inet {TABLE} {{\n");
    let mut between = "";
    for (name, set) in &table.sets {
        let _ = write!(text, "{between}{}", set_block(name, set)); // cannot fail
        between = "\n";
    }
    for chain in &table.chains {
        let _ = write!(text, "{between}{}", chain_block(chain));
        between = "\n";
    }
    text.push_str("}\n");
    text
}

fn set_block(name: &str, set: &Set) -> String {
    let key = match set.key {
        Key::Ipv4 => "ipv4_addr",
        Key::Ipv6 => "ipv6_addr",
        Key::Port => "inet_service",
        Key::Uid => "uid",
        Key::Interface => "ifname",
    };
    let elements: Vec<String> = set.intervals.iter().map(|&interval| element(set.key, interval)).collect();
    let mut text = format!("\tset {name} {{\n\t\ttype {key}\n\t\tflags interval\n\t\tauto-merge\n");
    if !elements.is_empty() {
        let _ = writeln!(text, "\t\telements = {{ {} }}", elements.join(",\n\t\t\t     "));
    }
    text.push_str("\t}\n");
    text
}

/// One element of a set.
pub fn element(key: Key, interval: Interval) -> String {
    match key {
        Key::Ipv4 => {
            addresses(interval, 32, |bits| Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)))
        }
        Key::Ipv6 => addresses(interval, 128, Ipv6Addr::from_bits),
        Key::Port | Key::Uid => range(&interval.first, &interval.last),
        Key::Interface => {
            let bytes = interval.first.to_be_bytes();
            let name: Vec<u8> = bytes.into_iter().take_while(|byte| *byte != 0).collect();
            let more = if interval.first == interval.last { "" } else { "*" };
            format!("\"{}{more}\"", String::from_utf8_lossy(&name))
        }
    }
}

/// As a network where the interval is one.
fn addresses<A: Display>(interval: Interval, width: u32, address: impl Fn(u128) -> A) -> String {
    let span = interval.last ^ interval.first;
    let free = 128 - span.leading_zeros();
    let whole = span.count_ones() == free && interval.first & span == 0;
    match (whole, free) {
        (true, 0) => address(interval.first).to_string(),
        (true, _) => format!("{}/{}", address(interval.first), width - free),
        (false, _) => format!("{}-{}", address(interval.first), address(interval.last)),
    }
}

fn range<N: Display + PartialEq>(first: &N, last: &N) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn chain_block(chain: &Chain) -> String {
    let mut text = format!("\tchain {} {{\n", chain.name);
    if let Some(hook) = &chain.hook {
        let _ = writeln!(text, "\t\t{hook}");
    }
    for rule in &chain.rules {
        let _ = writeln!(text, "\t\t{rule}");
    }
    text.push_str("\t}\n");
    text
}

impl Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Other => "route",
        };
        write!(f, "type {kind} hook ")?;
        match self.point {
            HookPoint::Prerouting => f.write_str("prerouting")?,
            HookPoint::Output => f.write_str("output")?,
            HookPoint::Other(1) => f.write_str("input")?,
            HookPoint::Other(2) => f.write_str("forward")?,
            HookPoint::Other(4) => f.write_str("postrouting")?,
            HookPoint::Other(5) => f.write_str("ingress")?,
            HookPoint::Other(number) => write!(f, "{number}")?,
        }
        let policy = if self.drops { "drop" } else { "accept" };
        write!(f, " priority {}; policy {policy};", self.priority)
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::with_capacity(self.statements.len() + 1);
        for (at, statement) in self.statements.iter().enumerate() {
            // nft adds by itself what a header field implies.
            let implied = match (statement, self.statements.get(at + 1)) {
                (Statement::Family(family), Some(Statement::Address(_, test))) => fits(*family, test),
                (Statement::Protocol(_), Some(Statement::Port(..))) => true,
                _ => false,
            };
            if !implied {
                words.push(words_of(statement, &self.statements[..at]));
            }
        }
        if let Some(comment) = &self.comment {
            words.push(format!("comment \"{comment}\""));
        }
        f.write_str(&words.join(" "))
    }
}

/// Whether the family is the one that the address would name.
fn fits(family: Family, test: &Test<IpNet>) -> bool {
    match test {
        Test::Is(net) | Test::IsNot(net) => family.holds(*net),
        Test::In(_) | Test::NotIn(_) => true,
    }
}

/// `before` is what the statement follows: a set does not tell whose addresses are meant, nor a port whose.
fn words_of(statement: &Statement, before: &[Statement]) -> String {
    match statement {
        Statement::Family(Family::V4) => "meta nfproto ipv4".to_owned(),
        Statement::Family(Family::V6) => "meta nfproto ipv6".to_owned(),
        Statement::Protocol(protocol) => format!("meta l4proto {protocol}"),
        Statement::Address(end, test) => {
            let six = before.iter().any(|s| matches!(s, Statement::Family(Family::V6)));
            let field = match end {
                End::Source => "saddr",
                End::Destination => "daddr",
            };
            format!("{} {field} {}", if six { "ip6" } else { "ip" }, tested(test, network))
        }
        Statement::Port(end, test) => {
            let protocol = before.iter().rev().find_map(|statement| match statement {
                Statement::Protocol(protocol) => Some(protocol.to_string()),
                _ => None,
            });
            let field = match end {
                End::Source => "sport",
                End::Destination => "dport",
            };
            format!("{} {field} {}", protocol.as_deref().unwrap_or("th"), tested(test, PortRange::to_string))
        }
        Statement::Interface(end, test) => {
            let field = match end {
                End::Source => "iifname",
                End::Destination => "oifname",
            };
            format!("{field} {}", tested(test, Interface::to_string))
        }
        Statement::Owner(test) => {
            format!("meta skuid {}", tested(test, |uids: &UidRange| range(&uids.first, &uids.last)))
        }
        Statement::ForOtherHosts => "fib daddr type != local".to_owned(),
        Statement::Invalid => "ct state invalid".to_owned(),
        Statement::Untracked => "ct state untracked".to_owned(),
        Statement::Counter => "counter".to_owned(),
        Statement::Log { prefix, level } => {
            const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];
            let level = LEVELS.get(usize::from(*level)).unwrap_or(&"debug");
            format!("log prefix \"{prefix}\" level {level}")
        }
        Statement::CtZone(zone) => format!("ct zone set {zone}"),
        Statement::Redirect(port) => format!("redirect to :{port}"),
        Statement::Verdict(Verdict::Accept) => "accept".to_owned(),
        Statement::Verdict(Verdict::Drop) => "drop".to_owned(),
        Statement::Verdict(Verdict::Return) => "return".to_owned(),
        Statement::Verdict(Verdict::Jump(chain)) => format!("jump {chain}"),
        Statement::Foreign(name) => format!("<{name}>"),
    }
}

fn tested<T>(test: &Test<T>, value: impl Fn(&T) -> String) -> String {
    match test {
        Test::Is(one) => value(one),
        Test::IsNot(one) => format!("!= {}", value(one)),
        Test::In(set) => format!("@{set}"),
        Test::NotIn(set) => format!("!= @{set}"),
    }
}

fn network(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.trunc().to_string() }
}

impl Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}{}\"", self.name, if self.prefix { "*" } else { "" })
    }
}
