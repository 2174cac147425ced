//! Rules in words, for messages.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::model::{Action, Field, Name, Rule, Span, Test};
use crate::plan::Family;

/// How a rule, or else the policy, can be named in a message.
pub fn name(rule: Option<&Rule>) -> String {
    let text = match rule {
        None => "policy drop".to_owned(),
        // One that has no words of its own.
        Some(rule) if rule.name.starts_with("rule ") => words(rule),
        Some(rule) => rule.name.clone(),
    };
    crate::text::escape(&text)
}

/// What a rule asks for and does, as far as it is understood, in words close to nft's.
pub fn words(rule: &Rule) -> String {
    let mut words: Vec<String> = rule.tests.iter().map(test).collect();
    words.dedup();
    words.push(action(&rule.action));
    words.join(" ")
}

fn test(test: &Test) -> String {
    let is = |negated: bool| if negated { "!= " } else { "" };
    match test {
        Test::Family { family, negated } => {
            format!("nfproto {}{}", is(*negated), if *family == Family::V4 { "ipv4" } else { "ipv6" })
        }
        Test::In { field, spans, negated } => {
            let all = spans.iter().take(SHOWN).map(|span| self::span(*field, span));
            format!("{} {}{}", field_name(*field), is(*negated), list(&all.collect::<Vec<_>>(), spans.len()))
        }
        Test::Bits { field, mask, negated } => format!("{} {}{mask:#x}", field_name(*field), is(*negated)),
        Test::Interface { leaving, names, negated } => {
            let interface = |name: &Name| format!("\"{}{}\"", name.text, if name.prefix { "*" } else { "" });
            let all = names.iter().take(SHOWN).map(interface);
            let which = if *leaving { "oifname" } else { "iifname" };
            format!("{which} {}{}", is(*negated), list(&all.collect::<Vec<_>>(), names.len()))
        }
        Test::AnyOf { tests, negated } => {
            let all: Vec<String> = tests.iter().take(SHOWN).map(self::test).collect();
            format!("{}({})", if *negated { "not " } else { "" }, all.join(" or "))
        }
        Test::Opaque { .. } => "…".to_owned(),
    }
}

/// So many entries of a list are shown.
const SHOWN: usize = 4;

fn list(shown: &[String], all: usize) -> String {
    match (shown.len(), all) {
        (1, 1) => shown.concat(),
        (some, all) if some < all => format!("{{ {}, … }}", shown.join(", ")),
        _ => format!("{{ {} }}", shown.join(", ")),
    }
}

fn field_name(field: Field) -> &'static str {
    match field {
        Field::Protocol => "protocol",
        Field::Source => "saddr",
        Field::Destination => "daddr",
        Field::SourcePort => "sport",
        Field::DestinationPort => "dport",
        Field::InIndex => "iif",
        Field::OutIndex => "oif",
        Field::User => "skuid",
        Field::Group => "skgid",
        Field::State => "ct state",
        Field::Status => "ct status",
        Field::Direction => "ct direction",
        Field::Mark => "mark",
        Field::SourceType => "saddr type",
        Field::DestinationType => "daddr type",
        Field::Cgroup => "cgroup",
        Field::OriginalPort => "ct original proto-dst",
    }
}

fn span(field: Field, span: &Span) -> String {
    let one = |number: u128| match field {
        Field::Source | Field::Destination => address(number),
        Field::Protocol => match number {
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            other => other.to_string(),
        },
        Field::SourceType | Field::DestinationType => match number {
            1 => "unicast".to_owned(),
            2 => "local".to_owned(),
            other => other.to_string(),
        },
        _ => number.to_string(),
    };
    let network = matches!(field, Field::Source | Field::Destination).then(|| network(span)).flatten();
    if let Some(network) = network {
        network
    } else if span.start() == span.end() {
        one(*span.start())
    } else {
        format!("{}-{}", one(*span.start()), one(*span.end()))
    }
}

/// A range of addresses that is a network, as one.
fn network(span: &Span) -> Option<String> {
    let (first, last) = (*span.start(), *span.end());
    let size = (last.checked_sub(first)?).checked_add(1)?;
    let whole = if last <= u32::MAX.into() { 32 } else { 128 };
    let is_network = size > 1 && size.is_power_of_two() && first.is_multiple_of(size);
    is_network.then(|| format!("{}/{}", address(first), whole - size.trailing_zeros()))
}

/// An IPv6 address has more bits than one of IPv4 unless it is nearly none.
fn address(number: u128) -> String {
    u32::try_from(number)
        .map_or_else(|_| Ipv6Addr::from(number).to_string(), |four| Ipv4Addr::from(four).to_string())
}

fn action(action: &Action) -> String {
    match action {
        Action::Continue => "continue".to_owned(),
        Action::Accept => "accept".to_owned(),
        Action::Drop => "drop".to_owned(),
        Action::Translate => "dnat".to_owned(),
        Action::Untrack => "notrack".to_owned(),
        Action::Zone(_) => "ct zone set".to_owned(),
        Action::Mark => "mark set".to_owned(),
        Action::Return => "return".to_owned(),
        Action::Jump(to) => format!("jump {to}"),
        Action::Goto(to) => format!("goto {to}"),
        Action::Ours | Action::OursPasses => "(tproxy's own)".to_owned(),
    }
}
