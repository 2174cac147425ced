//! What our own nftables table says: what its rules counted, where they lead, and how it differs from the one that is
//! wanted. Pure.

use std::collections::BTreeMap;

use crate::backend::nftables::decode::Observed;
use crate::backend::nftables::foreign::{is_commented, is_in_our_words};
use crate::backend::nftables::model::{Chain, HookPoint, Rule, Statement, Table, Test, Verdict};
use crate::backend::nftables::text;
use crate::config::values::Protocol;
use crate::plan::Family;

use super::listen::Way;
use super::model::{Difference, DifferenceKind, FamilyReport, Hits, Ports};
use super::sequence::{left_over, moved};

/// How the table is called in reports.
pub const NAME: &str = "inet kuma_mesh";

/// What a rule is there for, as far as it is worth counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Outbound,
    Inbound,
    Dns,
    Excluded,
    Invalid,
}

fn purpose(table: &Table, chain: &Chain, rule: &Rule) -> Option<Purpose> {
    let statements = &rule.statements;
    let udp = statements.contains(&Statement::Protocol(Protocol::Udp));
    match (statements.last()?, chain.name.as_str()) {
        (Statement::Redirect(_), "inbound_redirect") => Some(Purpose::Inbound),
        (Statement::Redirect(_), "outbound_redirect") => Some(Purpose::Outbound),
        (Statement::Redirect(_), _) if udp => Some(Purpose::Dns),
        // What virtual networks send.
        (Statement::Redirect(_), _) if chain.hook.is_some() => Some(Purpose::Outbound),
        (Statement::Verdict(Verdict::Drop), _) => Some(Purpose::Invalid),
        (Statement::Verdict(Verdict::Return | Verdict::Accept), _) => {
            (excludes(rule) && !is_said_again(table, chain, rule)).then_some(Purpose::Excluded)
        }
        _ => None,
    }
}

/// Whether it tests for what the configuration excludes: those lists have such names.
fn excludes(rule: &Rule) -> bool {
    rule.statements.iter().any(|statement| match statement {
        Statement::ForOtherHosts => true,
        Statement::Address(_, Test::In(set))
        | Statement::Port(_, Test::In(set))
        | Statement::Owner(Test::In(set)) => set.starts_with("excluded_"),
        _ => false,
    })
}

/// Whether the same packet meets the same rule again in the chain of the later priority.
fn is_said_again(table: &Table, chain: &Chain, rule: &Rule) -> bool {
    let later = chain.name.strip_suffix("_first");
    let later = later.and_then(|name| table.chains.iter().find(|chain| chain.name == name));
    later.is_some_and(|chain| chain.rules.iter().any(|other| other.statements == rule.statements))
}

/// What the rules counted.
pub fn hits(observed: &Observed) -> Hits {
    let mut sum = Hits::default();
    for (at, chain) in observed.table.chains.iter().enumerate() {
        for (nth, rule) in chain.rules.iter().enumerate() {
            let Some(purpose) = purpose(&observed.table, chain, rule) else { continue };
            let packets = observed.counts.get(&(at, nth)).map(|count| count.packets);
            let none = Hits::default();
            sum = sum.plus(match purpose {
                Purpose::Outbound => Hits { outbound: packets, ..none },
                Purpose::Inbound => Hits { inbound: packets, ..none },
                Purpose::Dns => Hits { dns: packets, ..none },
                Purpose::Excluded => Hits { excluded: packets, ..none },
                Purpose::Invalid => Hits { invalid_dropped: packets, ..none },
            });
        }
    }
    sum
}

/// The family of which alone a packet can be that meets the rule.
fn family_of(rule: &Rule) -> Option<Family> {
    rule.statements.iter().find_map(|statement| match statement {
        Statement::Family(family) => Some(*family),
        _ => None,
    })
}

/// The families whose packets are redirected, each with the rules that they can meet. What both counted together is
/// told of a family only if there is no other.
pub fn families(observed: &Observed) -> Vec<FamilyReport> {
    let rules = || observed.table.chains.iter().flat_map(|chain| &chain.rules);
    let passed = |family: Family| rules().any(|rule| rule.lets_pass() == Some(family));
    let redirected: Vec<Family> = Family::BOTH.into_iter().filter(|family| !passed(*family)).collect();
    let hits = if redirected.len() == 1 { hits(observed) } else { Hits::default() };
    let report = |family| {
        let meets = |rule: &&Rule| family_of(rule).is_none_or(|of| of == family);
        FamilyReport { family, rules: rules().filter(meets).count(), hits }
    };
    redirected.into_iter().map(report).filter(|report| report.rules > 0).collect()
}

/// The ports to which traffic is redirected.
pub fn ports(table: &Table) -> Ports {
    let mut ports = Ports::default();
    for chain in &table.chains {
        for rule in &chain.rules {
            let Some(Statement::Redirect(port)) = rule.statements.last() else { continue };
            let place = match purpose(table, chain, rule) {
                Some(Purpose::Outbound) => &mut ports.outbound,
                Some(Purpose::Inbound) => &mut ports.inbound,
                Some(Purpose::Dns) => &mut ports.dns,
                _ => continue,
            };
            place.get_or_insert(port.get());
        }
    }
    ports
}

/// What of these families meets a rule that redirects it, on the way from a hook.
pub fn ways(table: &Table, families: &[Family]) -> Vec<Way> {
    let mut found = Vec::new();
    for &family in families {
        let mut open: Vec<&Chain> = table.chains.iter().filter(|chain| chain.hook.is_some()).collect();
        let mut next = 0;
        while let Some(&chain) = open.get(next) {
            next += 1;
            for rule in chain.rules.iter().filter(|rule| family_of(rule).is_none_or(|of| of == family)) {
                let name = match (rule.statements.last(), purpose(table, chain, rule)) {
                    (Some(Statement::Verdict(Verdict::Jump(to))), _) => {
                        let to = table.chains.iter().find(|chain| chain.name == *to);
                        open.extend(to.filter(|to| !open.iter().any(|chain| chain.name == to.name)));
                        continue;
                    }
                    (_, Some(Purpose::Outbound)) => "outbound",
                    (_, Some(Purpose::Inbound)) => "inbound",
                    (_, Some(Purpose::Dns)) => "dns",
                    _ => continue,
                };
                found.push((name, family));
            }
        }
    }
    found
}

/// The priority of the chain at a hook in which a traffic is redirected: the one that leads to `chain`, or the one
/// that redirects by itself.
pub fn priority(table: &Table, point: HookPoint, chain: Option<&str>) -> Option<i32> {
    let leads = |rule: &Rule| match (rule.statements.last(), chain) {
        (Some(Statement::Verdict(Verdict::Jump(to))), Some(chain)) => to == chain,
        (Some(Statement::Redirect(_)), None) => rule.statements.contains(&Statement::Protocol(Protocol::Udp)),
        _ => false,
    };
    let hooked = table.chains.iter().filter(|chain| chain.rules.iter().any(leads));
    hooked
        .filter_map(|chain| chain.hook.as_ref().filter(|hook| hook.point == point))
        .map(|h| h.priority)
        .max()
}

/// Every difference between the table that is there and the wanted one.
pub fn differences(observed: &Observed, wanted: &Table) -> Vec<Difference> {
    let mut found: Vec<Difference> = Vec::new();
    for what in &observed.foreign {
        found.push(difference(DifferenceKind::Foreign, None, "", None, what));
    }
    let by_name = |table: &Table| -> BTreeMap<String, Chain> {
        table.chains.iter().map(|chain| (chain.name.clone(), chain.clone())).collect()
    };
    let (now, goal) = (by_name(&observed.table), by_name(wanted));
    let commented = is_commented(&observed.table);
    for (name, chain) in &now {
        let whole = goal.get(name);
        if whole.is_none() {
            found.push(difference(DifferenceKind::Extra, None, name, None, ""));
        }
        if whole.is_some_and(|whole| whole.hook != chain.hook) {
            let hook = chain.hook.as_ref().map_or("it is called by no hook".to_owned(), ToString::to_string);
            found.push(difference(DifferenceKind::Extra, None, name, None, &hook));
        }
        let nothing = Vec::new();
        let rules = whole.map_or(&nothing, |whole| &whole.rules);
        chain_differences(chain, rules, commented, &mut found);
    }
    for (name, chain) in &goal {
        if now.contains_key(name) {
            continue;
        }
        found.push(difference(DifferenceKind::Missing, None, name, None, ""));
        let missing = chain.rules.iter();
        found.extend(missing.map(|rule| of_rule(DifferenceKind::Missing, name, rule)));
    }
    set_differences(&observed.table, wanted, &mut found);
    if found.is_empty() && !observed.is(wanted) {
        // Such as the order of the chains, which only tells that somebody else wrote them.
        found.push(difference(DifferenceKind::Reordered, None, "", None, ""));
    }
    found
}

fn chain_differences(chain: &Chain, wanted: &[Rule], commented: bool, found: &mut Vec<Difference>) {
    for rule in left_over(&chain.rules, wanted) {
        let unknown = rule.statements.iter().any(|statement| matches!(statement, Statement::Foreign(_)));
        let kind = if unknown || !is_in_our_words(rule, commented) {
            DifferenceKind::Foreign
        } else {
            DifferenceKind::Extra
        };
        found.push(of_rule(kind, &chain.name, rule));
    }
    let missing = left_over(wanted, &chain.rules);
    found.extend(missing.into_iter().map(|rule| of_rule(DifferenceKind::Missing, &chain.name, rule)));
    let moved = moved(&chain.rules, wanted).into_iter();
    found.extend(moved.map(|rule| of_rule(DifferenceKind::Reordered, &chain.name, rule)));
}

fn set_differences(now: &Table, wanted: &Table, found: &mut Vec<Difference>) {
    let mut names: Vec<&String> = now.sets.keys().chain(wanted.sets.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (was, is) = (now.sets.get(name), wanted.sets.get(name));
        let mut say = |kind, text: &str| found.push(difference(kind, None, "", Some(name), text));
        match (was, is) {
            (Some(was), Some(is)) if was.key != is.key => {
                say(DifferenceKind::Extra, "another type of elements");
            }
            (Some(was), Some(is)) => {
                let extra = was.intervals.iter().filter(|i| is.intervals.binary_search(i).is_err());
                extra.for_each(|i| say(DifferenceKind::Extra, &text::element(was.key, *i)));
                let missing = is.intervals.iter().filter(|i| was.intervals.binary_search(i).is_err());
                missing.for_each(|i| say(DifferenceKind::Missing, &text::element(is.key, *i)));
            }
            (Some(_), None) => say(DifferenceKind::Extra, ""),
            (None, _) => say(DifferenceKind::Missing, ""),
        }
    }
}

fn of_rule(kind: DifferenceKind, chain: &str, rule: &Rule) -> Difference {
    difference(kind, family_of(rule), chain, None, &rule.to_string())
}

fn difference(
    kind: DifferenceKind,
    family: Option<Family>,
    chain: &str,
    set: Option<&str>,
    rule: &str,
) -> Difference {
    Difference {
        kind,
        variant: None,
        family,
        table: NAME.to_owned(),
        chain: chain.to_owned(),
        set: set.map(str::to_owned),
        rule: rule.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::nftables::decode::Count;
    use crate::backend::nftables::lower;
    use crate::config::{self, File, Layers};
    use crate::host::{HostFacts, Ipv6Support, Resolver};
    use crate::plan;

    fn table(wanted: &str) -> Table {
        let file = File { name: "wanted".into(), text: wanted.into(), recorded: false };
        let layers = Layers { files: vec![file], ..Layers::default() };
        let servers = ["10.0.0.2", "10.0.0.3", "fd00::2"];
        let servers = servers.map(|addr| Resolver { addr: addr.parse().expect("an address"), zone: None });
        let facts = HostFacts {
            sidecar_uid: 5678,
            loopback: "lo".into(),
            ipv6: Ipv6Support::Available,
            resolvers: servers.into(),
            docker_dns: false,
            translated: crate::host::Translated::default(),
        };
        let config = config::resolve(&layers).expect("valid").config;
        lower::table(&plan::build(&config, &facts), true)
    }

    /// As the kernel tells it, every rule that counts at seven packets.
    fn seen(table: Table) -> Observed {
        let mut counts = BTreeMap::new();
        for (at, chain) in table.chains.iter().enumerate() {
            for (nth, rule) in chain.rules.iter().enumerate() {
                if rule.statements.contains(&Statement::Counter) {
                    counts.insert((at, nth), Count { packets: 7, bytes: 0 });
                }
            }
        }
        Observed { table, counts, ..Observed::default() }
    }

    const DNS: &str =
        "redirect: { dns: { enabled: true, port: 7 }, outbound: { port: 8 }, inbound: { port: 9 } }";

    #[test]
    fn a_table_tells_what_it_is_for() {
        let table = table(DNS);
        assert_eq!(ports(&table), Ports { outbound: Some(8), inbound: Some(9), dns: Some(7) });
        assert_eq!(priority(&table, HookPoint::Output, Some("outbound")), Some(lower::NAT_LAST));
        assert_eq!(priority(&table, HookPoint::Output, None), Some(lower::NAT_FIRST));
        assert_eq!(priority(&table, HookPoint::Output, Some("inbound")), None);
    }

    #[test]
    fn what_is_said_twice_counts_once() {
        let excluded =
            "redirect: { dns: { enabled: true }, outbound: { excludePortsForIPs: [10.9.0.0/16] } }";
        let table = table(excluded);
        let rules = table.chains.iter().flat_map(|chain| &chain.rules).filter(|rule| excludes(rule)).count();
        assert_eq!(rules, 2, "{table:?}");
        let hits = hits(&seen(table));
        assert_eq!((hits.excluded, hits.outbound, hits.invalid_dropped), (Some(7), Some(7), None));
    }

    #[test]
    fn a_family_that_is_let_pass_is_not_redirected() {
        let both = families(&seen(table("{}")));
        assert!(both.len() == 2 && both[0].hits == Hits::default(), "{both:?}");
        let four = families(&seen(table("ipFamilyMode: ipv4")));
        assert_eq!(four.len(), 1);
        assert_eq!((four[0].family, four[0].hits.inbound), (Family::V4, Some(7)));
    }

    #[test]
    fn what_no_hook_leads_to_is_not_redirected() {
        let both = Family::BOTH;
        let whole = table(DNS);
        let of = |name: &str, table: &Table| {
            let found = ways(table, &both);
            both.map(|family| found.contains(&(name, family)))
        };
        for name in ["outbound", "inbound", "dns"] {
            assert_eq!(of(name, &whole), [true; 2], "{name}");
        }
        let mut now = whole.clone();
        let six_asks = |rule: &Rule| {
            family_of(rule) == Some(Family::V6)
                && matches!(rule.statements.last(), Some(Statement::Redirect(_)))
        };
        now.chains.iter_mut().for_each(|chain| chain.rules.retain(|rule| !six_asks(rule)));
        assert_eq!((of("dns", &now), of("outbound", &now)), ([true, false], [true; 2]));
        let leads = |rule: &Rule| {
            rule.statements.last() == Some(&Statement::Verdict(Verdict::Jump("outbound".into())))
        };
        now.chains.iter_mut().for_each(|chain| chain.rules.retain(|rule| !leads(rule)));
        // What the sidecar sends to this host itself was on that way too; what arrives is not.
        assert_eq!((of("outbound", &now), of("inbound", &now)), ([false; 2], [true; 2]));
        now.chains.iter_mut().for_each(|chain| chain.rules.clear());
        assert_eq!(ways(&now, &both), []);
    }

    #[test]
    fn differences_are_told_apart() {
        let wanted = table(DNS);
        assert_eq!(differences(&seen(wanted.clone()), &wanted), []);
        let mut now = wanted.clone();
        let outbound = now.chains.iter_mut().find(|chain| chain.name == "outbound").expect("a chain");
        outbound.rules.rotate_right(1);
        let mut theirs = outbound.rules[1].clone();
        theirs.comment = None;
        outbound.rules.push(theirs);
        let kinds: Vec<_> = differences(&seen(now), &wanted).into_iter().map(|d| (d.kind, d.chain)).collect();
        let outbound = || "outbound".to_owned();
        assert_eq!(kinds, [(DifferenceKind::Foreign, outbound()), (DifferenceKind::Reordered, outbound())]);
        let dormant = Observed { foreign: vec!["the flag \"dormant\"".into()], ..seen(wanted.clone()) };
        assert_eq!(differences(&dormant, &wanted)[0].kind, DifferenceKind::Foreign);
    }
}
