//! Rules in the words of iptables, as the kernel's legacy tables are told here.

use ipnet::IpNet;

use super::model::{Action, Called, Chain, Field, Hook, Name, Rule, Span, Test};
use super::nft::{is_own_chain, span_of};
use super::xt::{self, within};
use crate::backend::iptables::save::{Saved, SavedChain, SavedRule, SavedTable, UNREAD};
use crate::plan::Family;

/// The chains of a family's legacy tables. `drops` says which chains of which tables drop what no rule decides about.
pub fn chains(saved: &Saved, family: Family, drops: impl Fn(&str, &str) -> bool) -> Vec<Chain> {
    let of_table = |table: &SavedTable| -> Vec<Chain> {
        table.chains.iter().map(|chain| self::chain(table, chain, family, &drops)).collect()
    };
    saved.tables.iter().flat_map(of_table).collect()
}

fn chain(
    table: &SavedTable,
    chain: &SavedChain,
    family: Family,
    drops: &impl Fn(&str, &str) -> bool,
) -> Chain {
    let hook = match chain.name.as_str() {
        "PREROUTING" => Some(Hook::Prerouting),
        "INPUT" => Some(Hook::Input),
        "OUTPUT" => Some(Hook::Output),
        "POSTROUTING" => Some(Hook::Postrouting),
        _ => None,
    };
    let called = hook.filter(|_| chain.builtin).and_then(|hook| {
        let priority = match (table.name.as_str(), hook) {
            ("raw", _) => -300,
            ("mangle", _) => -150,
            ("nat", Hook::Prerouting | Hook::Output) => -100,
            ("nat", _) => 100,
            ("filter", _) => 0,
            ("security", _) => 50,
            _ => return None,
        };
        Some(Called {
            hook,
            priority,
            translates: table.name == "nat",
            drops: drops(&table.name, &chain.name),
        })
    });
    Chain {
        families: vec![family],
        table: format!("{} (legacy)", table.name),
        name: chain.name.clone(),
        called,
        rules: chain.rules.iter().map(|rule| self::rule(rule, family)).collect(),
    }
}

fn rule(rule: &SavedRule, family: Family) -> Rule {
    let words = rule.words();
    let mut tests = Vec::new();
    let mut action = Action::Continue;
    let mut goes = None;
    let mut negated = false;
    let mut last_match = String::new();
    let mut words = words.iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        match word {
            "!" => {
                negated = true;
                continue;
            }
            "--socket-exists" => tests.push(super::owner::has_socket(negated)),
            "--suppl-groups" => {}
            "-f" | "--limit-iface-in" | "--limit-iface-out" => tests.push(Test::Opaque { specific: false }),
            UNREAD => tests.push(Test::Opaque { specific: xt::is_specific(&last_match) }),
            "-m" => words.next().unwrap_or_default().clone_into(&mut last_match),
            "--comment" => {
                words.next();
            }
            "-j" | "-g" => {
                let target = words.next().unwrap_or_default();
                let untracks = target == "CT" && words.any(|word| word == "--notrack");
                action = match xt::target(target, &[]) {
                    _ if untracks => Action::Untrack,
                    // Which zone is not told.
                    Action::Continue if target == "CT" => Action::Zone(0),
                    known => known,
                };
                // Another chain, or a target of which nobody here knows what it does, as of a chain that is not known.
                let leads = action == Action::Continue && !xt::goes_on(target);
                goes = leads.then(|| (target.to_owned(), word == "-g"));
                break;
            }
            _ => {
                let value = words.next().unwrap_or_default();
                tests.push(self::test(word, value, negated));
            }
        }
        negated = false;
    }
    let own = rule.is_tagged() || goes.as_ref().is_some_and(|(to, _)| is_own_chain(to));
    if own {
        let takes = action == Action::Translate || goes.as_ref().is_some_and(|(to, _)| is_own_chain(to));
        action = if takes { Action::Ours } else { Action::OursPasses };
    } else if let Some((to, goto)) = goes {
        action = if goto { Action::Goto(to) } else { Action::Jump(to) };
    }
    let _ = family;
    Rule { tests, action, name: rule.args.clone() }
}

/// What an option of a rule asks for.
fn test(option: &str, value: &str, negated: bool) -> Test {
    let field = match option {
        "-s" => Field::Source,
        "-d" => Field::Destination,
        "-p" | "--ctproto" => Field::Protocol,
        "--sport" | "--sports" => Field::SourcePort,
        "--dport" | "--dports" => Field::DestinationPort,
        "--uid-owner" => Field::User,
        "--gid-owner" => Field::Group,
        "--cgroup" => Field::Cgroup,
        "--path" => {
            let id = super::owner::of_path(value.as_bytes());
            return within(Field::Cgroup, vec![Span::new(id, id)], negated);
        }
        "--src-type" => Field::SourceType,
        "--dst-type" => Field::DestinationType,
        "--ctorigdstport" => Field::OriginalPort,
        "--ctdir" => return within(Field::Direction, vec![0..=0], value != "ORIGINAL"),
        "--ctstate" | "--state" => {
            let known: Option<u16> = value.split(',').map(state).try_fold(0, |all, one| Some(all | one?));
            return known.map_or(Test::Opaque { specific: true }, |mask| xt::states(mask, negated));
        }
        "--ports" => {
            let Some(spans) = value.split(',').map(range).collect::<Option<Vec<Span>>>() else {
                return Test::Opaque { specific: true };
            };
            let either = [Field::SourcePort, Field::DestinationPort];
            let tests = either.map(|field| within(field, spans.clone(), false)).into();
            return Test::AnyOf { tests, negated };
        }
        "-i" | "-o" => {
            let (text, prefix) = value.strip_suffix('+').map_or((value, false), |text| (text, true));
            let names = vec![Name { text: text.to_owned(), prefix }];
            return Test::Interface { leaving: option == "-o", names, negated };
        }
        _ => return Test::Opaque { specific: false },
    };
    let spans: Option<Vec<Span>> = match field {
        Field::Source | Field::Destination => network(value).map(|net| vec![net]),
        Field::Protocol => protocol(value).map(|number| vec![number..=number]),
        Field::SourceType | Field::DestinationType => value.split(',').map(kind).collect(),
        _ => value.split(',').map(range).collect(),
    };
    spans.map_or(Test::Opaque { specific: true }, |spans| within(field, spans, negated))
}

/// Its bit (`XT_CONNTRACK_STATE_*`).
fn state(name: &str) -> Option<u16> {
    let all = ["INVALID", "ESTABLISHED", "RELATED", "NEW"];
    let plain = all.iter().position(|state| *state == name).map(|bit| 1 << bit);
    plain.or(match name {
        "SNAT" => Some(0x40),
        "DNAT" => Some(0x80),
        "UNTRACKED" => Some(0x100),
        _ => None,
    })
}

fn network(text: &str) -> Option<Span> {
    let net: IpNet = text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))?;
    Some(span_of(net))
}

fn protocol(text: &str) -> Option<u128> {
    match text {
        "tcp" => Some(6),
        "udp" => Some(17),
        "icmp" => Some(1),
        "ipv6-icmp" => Some(58),
        "sctp" => Some(132),
        other => other.parse().ok(),
    }
}

fn kind(text: &str) -> Option<Span> {
    let all = ["UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE"];
    let number = all.iter().position(|kind| *kind == text)? as u128;
    Some(number..=number)
}

fn range(text: &str) -> Option<Span> {
    let (first, last) = text.split_once([':', '-']).unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}
