use super::super::Dns;
use super::*;

fn rule(chain: &str, conditions: &[Condition], action: Action) -> NativeRule {
    NativeRule {
        family: BOTH,
        table: "t".into(),
        chain: chain.into(),
        conditions: conditions.to_vec(),
        action,
        packets: Some(3),
    }
}

const BESIDE: Stand = Stand { priority: IPTABLES, own_table: false, legacy: false, compat: false };
const OWN: Stand = Stand { priority: -95, own_table: true, legacy: false, compat: true };

fn found(priority: i32, rules: Vec<NativeRule>, traffic: Traffic) -> Vec<Ahead> {
    found_by(BESIDE, ChainType::Nat, "t", priority, rules, traffic)
}

fn found_by(
    stand: Stand,
    kind: ChainType,
    table: &str,
    priority: i32,
    mut rules: Vec<NativeRule>,
    traffic: Traffic,
) -> Vec<Ahead> {
    for rule in &mut rules {
        rule.table = table.into();
    }
    let hooked =
        HookedChain { kind, family: BOTH, table: table.into(), name: "out".into(), hook: 3, priority };
    let ours = Ours { sidecar: 5678, outbound: true, inbound: true, dns: Dns::All };
    let ruleset = Ruleset { hooked: vec![hooked], rules, ..Ruleset::default() };
    ahead(&ruleset, Family::V4, traffic, &ours, stand)
}

#[test]
fn a_table_of_our_own_stands_where_its_chain_does() {
    let take = || vec![rule("out", &[Condition::Protocol(6)], Action::Redirect)];
    let count = |ours: i32, theirs: i32| {
        let stand = Stand { priority: ours, ..OWN };
        found_by(stand, ChainType::Nat, "t", theirs, take(), Traffic::Outbound).len()
    };
    assert_eq!([count(-95, -100), count(-95, -95), count(-95, -90)], [1, 1, 0]);
    assert_eq!([count(-105, -106), count(-105, -105), count(-105, -100)], [1, 1, 0]);
    let stand = OWN;
    let fix =
        |theirs: i32| found_by(stand, ChainType::Nat, "t", theirs, take(), Traffic::Outbound)[0].fix.clone();
    assert!(fix(-100).contains("--redirect-outbound-insert-instead-of-append"));
    assert!(fix(-110).contains("a priority above -95"));
    assert_eq!(found_by(stand, ChainType::Nat, TABLE, -100, take(), Traffic::Outbound), []);
}

#[test]
fn what_is_not_tracked_is_named_at_any_early_priority() {
    let untrack = || vec![rule("out", &[Condition::Protocol(6)], Action::Untrack)];
    let one = found_by(BESIDE, ChainType::Untracked, "t", -300, untrack(), Traffic::Outbound);
    assert!(one.len() == 1 && one[0].fix.contains("tracked"), "{one:?}");
    // Such a chain can redirect nothing, and what translates addresses switches nothing off.
    let redirect = vec![rule("out", &[], Action::Redirect)];
    assert_eq!(found_by(BESIDE, ChainType::Untracked, "t", -300, redirect, Traffic::Outbound), []);
    assert_eq!(found(-100, untrack(), Traffic::Outbound), []);
}

#[test]
fn translation_at_other_priorities_is_named_whatever_it_does() {
    let chain = |table: &str, hook, priority| HookedChain {
        kind: ChainType::Nat,
        family: BOTH,
        table: table.into(),
        name: "c".into(),
        hook,
        priority,
    };
    let ruleset = Ruleset {
        hooked: vec![chain("t", 3, -101), chain("usual", 3, -100), chain(TABLE, 3, -105)],
        others: vec![chain("late", 3, -50), chain("postrouting", 4, 100)],
        ..Ruleset::default()
    };
    let said = |taking: &[Ahead]| elsewhere(&ruleset, taking, |hook| (hook == "output").then_some(-95));
    let all = said(&[]);
    assert!(all.len() == 2 && all[0].contains("before ours") && all[1].contains("after ours"), "{all:?}");
    let taking = found(-101, vec![rule("out", &[], Action::Redirect)], Traffic::Outbound);
    let named: Vec<_> =
        taking.into_iter().map(|ahead| Ahead { rule: "chain c at priority -101".into(), ..ahead }).collect();
    assert_eq!(said(&named).len(), 1);
}

#[test]
fn a_table_of_our_name_is_ours_in_one_family_only() {
    let chain = |family| HookedChain {
        kind: ChainType::Nat,
        family,
        table: TABLE.into(),
        name: "c".into(),
        hook: 3,
        priority: -110,
    };
    assert_eq!([BOTH, 2, 10].map(|family| may_be_ahead(&chain(family))), [false, true, true]);
    let ruleset = Ruleset { hooked: [BOTH, 2, 10].map(chain).into(), ..Ruleset::default() };
    assert_eq!(elsewhere(&ruleset, &[], |_| Some(-95)).len(), 2);
}

#[test]
fn earlier_and_equal_priorities_count() {
    let take = || vec![rule("out", &[Condition::Protocol(6)], Action::Redirect)];
    for (priority, count) in [(-150, 1), (-100, 1), (-99, 0)] {
        assert_eq!(found(priority, take(), Traffic::Outbound).len(), count, "{priority}");
    }
    let one = &found(-100, take(), Traffic::Outbound)[0];
    assert!(one.all && one.packets == Some(3) && one.place == "nftables table inet t", "{one:?}");
    assert_eq!(found(-100, take(), Traffic::Dns), []);
    assert_eq!(found(-100, take(), Traffic::Inbound), []);
}

#[test]
fn only_what_takes_of_ours_counts() {
    let jump = |condition: Condition| {
        vec![
            rule("out", &[condition], Action::Jump("c".into())),
            rule("c", &[Condition::Port(80)], Action::Redirect),
        ]
    };
    assert_eq!(found(-100, jump(Condition::OwnAddress), Traffic::Outbound), []);
    assert_eq!(found(-100, jump(Condition::User(5678)), Traffic::Outbound), []);
    assert_eq!(found(-100, jump(Condition::Family(10)), Traffic::Outbound), []);
    assert_eq!(found(-100, jump(Condition::Destination([127, 0, 0, 11].into(), 32)), Traffic::Outbound), []);
    let part = found(-100, jump(Condition::Something), Traffic::Outbound);
    assert!(part.len() == 1 && !part[0].all, "{part:?}");
    assert_eq!(found(-100, vec![], Traffic::Outbound), []);
    assert_eq!(found(-100, vec![rule("out", &[], Action::Jump("out".into()))], Traffic::Outbound), []);
}
