//! Which ports are left alone for which users, read off a table. Pure.

use std::collections::BTreeMap;

use crate::config::values::{MAX_UID, Protocol, UidExclusion};

use super::super::model::{ChainKind, End, HookPoint, Rule, Statement, Table, Test, Verdict};
use super::super::set::Interval;
use super::is_at;
use super::values::{is_list, ranges};

/// The exclusions from which the rules of a table were most likely made.
pub(super) fn infer(table: &Table) -> Vec<UidExclusion> {
    let mut seen: Vec<(Protocol, String, String)> = Vec::new();
    let mut taken: BTreeMap<Protocol, Vec<Interval>> = BTreeMap::new();
    let mut exclusions = Vec::new();
    let chains = table.chains.iter().filter(|chain| is_at(chain, ChainKind::Nat, HookPoint::Output));
    for rule in chains.flat_map(|chain| &chain.rules) {
        let Some((protocol, ports, set)) = read(table, rule) else { continue };
        // In the chain of the later priority it is said again.
        let said = (protocol, ports.clone(), set.to_owned());
        if seen.contains(&said) {
            continue;
        }
        seen.push(said);
        let users = table.sets.get(set).map(|set| set.intervals.as_slice()).unwrap_or_default();
        let taken = taken.entry(protocol).or_default();
        for &interval in users {
            for part in apart(interval, taken) {
                taken.push(part);
                let last = part.last.min(MAX_UID.into());
                let typed = format!("{protocol}:{ports}:{}-{last}", part.first);
                exclusions.extend(typed.parse::<UidExclusion>().ok());
            }
        }
    }
    exclusions
}

/// The protocol, the ports as they are typed, and the set of users; `None` for any other rule.
fn read<'a>(table: &Table, rule: &'a Rule) -> Option<(Protocol, String, &'a str)> {
    let (mut protocol, mut ports, mut users) = (None, None, None);
    for statement in &rule.statements {
        match statement {
            Statement::Protocol(is) => protocol = Some(*is),
            Statement::Port(End::Destination, test) => ports = Some(ranges(table, test)),
            Statement::Owner(Test::In(set)) if is_list(set, "excluded_uids") => users = Some(set.as_str()),
            _ => {}
        }
    }
    let returns = rule.statements.last() == Some(&Statement::Verdict(Verdict::Return));
    let ports: Vec<String> = ports?.iter().map(ToString::to_string).collect();
    (returns && !ports.is_empty()).then_some((protocol?, ports.join(","), users?))
}

/// The users in parts, none of which is taken: rules for the very same users would be joined, and these were not.
fn apart(users: Interval, taken: &[Interval]) -> Vec<Interval> {
    /// So many ways to divide are tried.
    const WAYS: u128 = 64;
    if !taken.contains(&users) {
        return vec![users];
    }
    let cuts = users.first..users.last.min(users.first.saturating_add(WAYS));
    let mut ways = cuts.map(|cut| {
        [Interval { first: users.first, last: cut }, Interval { first: cut + 1, last: users.last }]
    });
    ways.find(|way| way.iter().all(|part| !taken.contains(part))).map_or(vec![users], |way| way.to_vec())
}
