//! Rules in words, for messages.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::model::{Action, Chain, Field, Name, Rule, Span, Test};
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

/// Where a rule is.
pub fn place(chain: &Chain) -> String {
    crate::text::escape(&format!("chain {} of {}", chain.name, chain.table))
}

/// What a rule asks for and does, as far as it is understood, in words close to nft's.
pub fn words(rule: &Rule) -> String {
    let mut words: Vec<String> = rule.tests.iter().map(test).collect();
    words.dedup();
    words.push(action(&rule.action));
    words.join(" ")
}

fn test(test: &Test) -> String {
    let term = match test {
        Test::Family { .. } => "meta nfproto",
        Test::In { field, .. } | Test::Bits { field, .. } => field_name(*field),
        Test::Interface { leaving: true, .. } => "oifname",
        Test::Interface { leaving: false, .. } => "iifname",
        Test::AnyOf { tests, negated } => {
            let all: Vec<String> = tests.iter().take(SHOWN).map(self::test).collect();
            return format!("{}({})", if *negated { "not " } else { "" }, all.join(" or "));
        }
        Test::Opaque { .. } => return "…".to_owned(),
    };
    let six = matches!(test, Test::In { spans, .. } if spans.iter().any(|span| u32::try_from(*span.end()).is_err()));
    format!("{term} {}", operand(test, six).unwrap_or_default())
}

/// What nft writes behind the term that a test is about; nothing of one that is not understood.
pub fn operand(test: &Test, six: bool) -> Option<String> {
    let is = |negated: bool| if negated { "!= " } else { "" };
    Some(match test {
        Test::Family { family, negated } => {
            format!("{}{}", is(*negated), if *family == Family::V4 { "ipv4" } else { "ipv6" })
        }
        Test::In { field, spans, negated } => {
            match spans.as_slice() {
                [span] if !*negated && *span.end() == u128::MAX => {
                    return Some(format!(">= {}", self::span(*field, &(*span.start()..=*span.start()), six)));
                }
                [span] if !*negated && *span.start() == 0 && *span.end() > 0 => {
                    return Some(format!("<= {}", self::span(*field, &(*span.end()..=*span.end()), six)));
                }
                _ => {}
            }
            let all = spans.iter().take(SHOWN).map(|span| self::span(*field, span, six));
            format!("{}{}", is(*negated), list(&all.collect::<Vec<_>>(), spans.len()))
        }
        Test::Bits { field, mask, negated } => {
            let not = if *negated { "! " } else { "" };
            format!("{not}{}", bits(*field, *mask))
        }
        Test::Interface { names, negated, .. } => {
            let interface = |name: &Name| format!("\"{}{}\"", name.text, if name.prefix { "*" } else { "" });
            let all = names.iter().take(SHOWN).map(interface);
            format!("{}{}", is(*negated), list(&all.collect::<Vec<_>>(), names.len()))
        }
        Test::AnyOf { .. } | Test::Opaque { .. } => return None,
    })
}

/// States and the like by their names.
fn bits(field: Field, mask: u128) -> String {
    let known: &[(u128, &str)] = match field {
        Field::State => &[(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")],
        Field::Status => &[(2, "seen-reply"), (4, "assured"), (8, "confirmed"), (16, "snat"), (32, "dnat")],
        _ => &[],
    };
    let named: Vec<&str> = known.iter().filter(|(bit, _)| mask & bit != 0).map(|(_, name)| *name).collect();
    let all = known.iter().fold(0, |all, (bit, _)| all | bit);
    if mask & !all == 0 { named.join(",") } else { format!("{mask:#x}") }
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
        Field::Protocol => "meta l4proto",
        Field::Source => "ip saddr",
        Field::Destination => "ip daddr",
        Field::SourcePort => "sport",
        Field::DestinationPort => "dport",
        Field::InIndex => "iif",
        Field::OutIndex => "oif",
        Field::User => "meta skuid",
        Field::Group => "meta skgid",
        Field::State => "ct state",
        Field::Status => "ct status",
        Field::Direction => "ct direction",
        Field::Mark => "meta mark",
        Field::SourceType => "fib saddr type",
        Field::DestinationType => "fib daddr type",
        Field::Cgroup => "cgroup",
        Field::OriginalPort => "ct original proto-dst",
    }
}

fn span(field: Field, span: &Span, six: bool) -> String {
    let one = |number: u128| match field {
        Field::Source | Field::Destination => address(number, six),
        Field::Protocol => protocol(number),
        Field::State | Field::Status => bits(field, number),
        Field::Direction => if number == 0 { "original" } else { "reply" }.to_owned(),
        Field::Mark => format!("{number:#010x}"),
        Field::SourceType | Field::DestinationType => match number {
            1 => "unicast".to_owned(),
            2 => "local".to_owned(),
            other => other.to_string(),
        },
        _ => number.to_string(),
    };
    let network = matches!(field, Field::Source | Field::Destination).then(|| network(span, six)).flatten();
    if let Some(network) = network {
        network
    } else if span.start() == span.end() {
        one(*span.start())
    } else {
        format!("{}-{}", one(*span.start()), one(*span.end()))
    }
}

/// A protocol by its name, where that is in every program.
pub fn protocol(number: u128) -> String {
    match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        58 => "ipv6-icmp",
        132 => "sctp",
        other => return other.to_string(),
    }
    .to_owned()
}

/// A range of addresses that is a network, as one.
pub fn network(span: &Span, six: bool) -> Option<String> {
    let (first, last) = (*span.start(), *span.end());
    let size = (last.checked_sub(first)?).checked_add(1)?;
    let whole = if six { 128 } else { 32 };
    let is_network = size > 1 && size.is_power_of_two() && first.is_multiple_of(size);
    is_network.then(|| format!("{}/{}", address(first, six), whole - size.trailing_zeros()))
}

/// An address that is kept as a number.
pub fn address(number: u128, six: bool) -> String {
    match u32::try_from(number) {
        Ok(four) if !six => Ipv4Addr::from(four).to_string(),
        _ => Ipv6Addr::from(number).to_string(),
    }
}

/// What is done, in nft's language.
pub fn action(action: &Action) -> String {
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
