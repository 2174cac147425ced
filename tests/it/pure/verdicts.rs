//! Verdicts one by one: what is said of each thing that can happen to a probe.

use std::collections::BTreeMap;

use tproxy::config::Config;
use tproxy::plan::Family;
use tproxy::sidecar::Channel;
use tproxy::verify::check::Reached;
use tproxy::verify::explain::Rules;
use tproxy::verify::{Id, Method, Outcome, Report, Status};

use super::judged::{SIDECAR, a_check, all_checks, at, bench, judged};

/// A row: what was checked, where it arrived, and words of what happened, the cause and the next command.
type Row = (Id, Reached, &'static str, &'static str, &'static str);

#[track_caller]
fn all_fail(rows: &[Row]) {
    for (id, reached, happened, cause, next) in rows {
        // The first of these checks is the one that is to be redirected, where there are two.
        let outcome = judged(a_check(*id), reached);
        assert_eq!(outcome.status, Status::Fail, "{outcome:?}");
        let all =
            [(happened, &Some(outcome.happened.clone())), (cause, &outcome.cause), (next, &outcome.next)];
        for (wanted, said) in all {
            assert!(said.as_ref().is_some_and(|said| said.contains(*wanted)), "{wanted}: {outcome:?}");
        }
    }
}

#[test]
fn connections_that_fail() {
    all_fail(&[
        (
            Id::Outbound,
            Reached::Destination { answered: true },
            "went straight to",
            "no rule redirects it",
            "tproxy status",
        ),
        (
            Id::Outbound,
            Reached::Refused,
            "nobody listened on port 15001",
            "a firewall is in the way",
            "iptables-save -c",
        ),
        (
            Id::Outbound,
            Reached::Nowhere,
            "was not answered in time",
            "a firewall is in the way",
            "iptables-save -c",
        ),
        (
            Id::Outbound,
            Reached::Port(Channel::Outbound, None),
            "was said to go to nowhere",
            "another NAT rule changed the destination first",
            "tproxy status",
        ),
        (
            Id::Outbound,
            Reached::Port(Channel::Inbound, None),
            "was redirected to the inbound port 15006",
            "a rule redirects it that should not",
            "tproxy status",
        ),
        (
            Id::Inbound,
            Reached::Somebody,
            "taken by a program that is not the sidecar",
            "a rule ahead of ours",
            "tproxy status",
        ),
        (
            Id::Inbound,
            Reached::Astray(at("10.77.0.2:7")),
            "gone to 10.77.0.2:7 instead",
            "a foreign NAT rule",
            "tproxy status",
        ),
        (
            Id::Sidecar,
            Reached::Port(Channel::Outbound, None),
            "was redirected to the outbound port 15001",
            "another user than the sidecar's",
            "tproxy install",
        ),
        (
            Id::Sidecar,
            Reached::Unsent("EPERM".into()),
            "turned off its way before it left: EPERM",
            "a rule redirects it",
            "tproxy status",
        ),
        (
            Id::Own,
            Reached::Unsent("EPERM".into()),
            "could not be sent: EPERM",
            "a firewall is in the way",
            "iptables-save -c",
        ),
        (
            Id::Localhost,
            Reached::Tracked { port: 15001, answered: None },
            "was redirected to the outbound port 15001",
            "a rule redirects it",
            "tproxy status",
        ),
    ]);
}

#[test]
fn questions_and_exclusions_that_fail() {
    let tracked = |port| Reached::Tracked { port, answered: None };
    all_fail(&[
        (
            Id::Dns,
            Reached::Destination { answered: true },
            "went straight to",
            "no rule redirects it",
            "tproxy status",
        ),
        (
            Id::Dns,
            Reached::Dns { answered: false },
            "its answer got lost",
            "conntrack zones",
            "tproxy install",
        ),
        (
            Id::Dns,
            Reached::Nowhere,
            "neither there nor at the sidecar",
            "a firewall is in the way",
            "iptables-save -c",
        ),
        (
            Id::DnsSidecar,
            tracked(15053),
            "was redirected to the DNS port 15053",
            "conntrack zones",
            "tproxy install",
        ),
        (
            Id::DnsSidecar,
            Reached::Dns { answered: true },
            "was redirected to the DNS port",
            "conntrack zones",
            "tproxy install",
        ),
        (
            Id::Passthrough,
            tracked(15006),
            "was redirected to the inbound port",
            "comes back to it for ever",
            "tproxy install",
        ),
        (
            Id::Exclusion,
            tracked(15001),
            "was redirected to the outbound port",
            "a rule redirects it",
            "tproxy status",
        ),
    ]);
}

#[test]
fn a_port_has_to_be_the_sidecars() {
    let config = Config::default();
    let reached = Reached::Tracked { port: 15001, answered: None };
    let held_by = |users: Vec<u32>| {
        bench(&config, Method::Counters, [((Family::V4, 15001), users)].into())
            .judge(a_check(Id::Outbound), &reached)
    };
    assert_eq!(held_by(vec![SIDECAR]).status, Status::Pass);
    let other = held_by(vec![1000]);
    assert!(other.status == Status::Fail && other.happened.contains("which UID 1000 has"), "{other:?}");
    assert_eq!(other.next.as_deref(), Some("ss -lnptu 'sport = :15001'"));
    let nobody = held_by(vec![]);
    assert!(nobody.status == Status::Fail && nobody.happened.contains("where nobody listens"), "{nobody:?}");
}

/// That it listens for IPv4 says nothing of IPv6.
#[test]
fn a_sidecar_of_one_family_is_none_of_the_other() {
    let config = Config::default();
    let of = |id, family| {
        all_checks().into_iter().find(|check| check.id == id && check.family == family).expect("one of each")
    };
    let judge = |id, family, reached: &Reached| {
        let holders = [15006, 15053].map(|port| ((Family::V4, port), vec![SIDECAR])).into();
        bench(&config, Method::Counters, holders).judge(of(id, family), reached)
    };
    let answered = Reached::Tracked { port: 15053, answered: Some(true) };
    assert_eq!(judge(Id::Dns, Family::V4, &answered).status, Status::Pass);
    for (id, port, reached) in [
        (Id::Dns, 15053, answered),
        (Id::Dns, 15053, Reached::Tracked { port: 15053, answered: None }),
        (Id::Inbound, 15006, Reached::Refused),
        (Id::Inbound, 15006, Reached::Tracked { port: 15006, answered: None }),
    ] {
        let mut outcome = judge(id, Family::V6, &reached);
        // Rules that are missing are another matter.
        bench(&config, Method::Counters, BTreeMap::new())
            .explain(&mut outcome, &Rules::Missing(vec!["x".into()]));
        assert_eq!(outcome.status, Status::Fail, "{outcome:?}");
        assert!(outcome.happened.contains("nobody listens"), "{outcome:?}");
        assert!(outcome.cause.is_some_and(|cause| cause.contains("the sidecar is not up")));
        assert_eq!(outcome.next, Some(format!("ss -lnptu 'sport = :{port}'")));
    }
    let elsewhere = judge(Id::Inbound, Family::V4, &Reached::Refused);
    assert!(elsewhere.cause.is_some_and(|cause| cause.contains("a firewall is in the way")));
}

/// A sidecar that does not answer what is no question has not been seen to answer.
#[test]
fn an_answer_that_was_not_seen_is_not_tested() {
    let outcome = judged(a_check(Id::Dns), &Reached::Tracked { port: 15053, answered: None });
    assert_eq!(outcome.status, Status::NotTested);
    assert!(outcome.happened.contains("was not seen"), "{outcome:?}");
}

#[test]
fn the_family_of_the_missing_address_is_told() {
    let refused = Reached::Unsent("::6 cannot be bound".into());
    let of =
        |family| all_checks().into_iter().find(|check| check.id == Id::Passthrough && check.family == family);
    let six = judged(of(Family::V6).expect("one"), &refused);
    assert!(six.cause.is_some_and(|cause| cause.contains("::6 is not on the loopback interface")));
    let four = judged(of(Family::V4).expect("one"), &refused);
    assert!(four.cause.is_some_and(|cause| cause.contains("a firewall is in the way")));
}

#[test]
fn rules_name_the_cause_and_what_to_do_about_it() {
    let config = Config::default();
    let bench = bench(&config, Method::Listeners, BTreeMap::new());
    let failed = bench.judge(a_check(Id::Outbound), &Reached::Destination { answered: true });
    let explained = |rules: Rules| {
        let mut outcome = failed.clone();
        bench.explain(&mut outcome, &rules);
        (outcome.cause.expect("a cause"), outcome.next.expect("a next step"))
    };
    let rules = |count: usize| (1..=count).map(|n| format!("rule {n}")).collect::<Vec<_>>();
    let install = "tproxy install";
    let (cause, next) = explained(Rules::NotInstalled);
    assert_eq!((cause.as_str(), next.as_str()), ("no redirection is installed for IPv4 here", install));
    let (cause, next) = explained(Rules::Missing(rules(5)));
    assert_eq!(cause, "rules are missing: 'rule 1', 'rule 2', 'rule 3' and 2 more");
    assert_eq!(next, install);
    let (cause, next) = explained(Rules::Extra(rules(1)));
    assert_eq!(cause, "rules are there that this configuration does not want: 'rule 1'");
    assert_eq!(next, install);
    let (cause, next) = explained(Rules::Displaced(Vec::new()));
    assert!(cause.contains("stand before them"), "{cause}");
    assert_eq!(next, "tproxy status");
    assert_eq!(explained(Rules::AsWanted), (failed.cause.expect("a cause"), failed.next.expect("a step")));

    // To install what is there already would not help.
    let mut lost = bench.judge(a_check(Id::Dns), &Reached::Dns { answered: false });
    assert_eq!(lost.next.as_deref(), Some(install));
    bench.explain(&mut lost, &Rules::AsWanted);
    assert_eq!(lost.next.as_deref(), Some("tproxy status"));
}

#[test]
fn one_failure_is_a_failure_and_what_was_not_tested_is_none() {
    let outcome = |reached: &Reached| judged(a_check(Id::Localhost), reached);
    let pass = outcome(&Reached::Destination { answered: true });
    let untested = outcome(&Reached::Unknown("why".into()));
    let fail = outcome(&Reached::Nowhere);
    let report = |outcomes: &[&Outcome]| Report {
        method: Method::Listeners,
        outcomes: outcomes.iter().map(|&outcome| outcome.clone()).collect(),
    };
    assert!(!report(&[&pass, &untested]).failed());
    let mixed = report(&[&pass, &untested, &fail]);
    assert!(mixed.failed());
    assert_eq!([Status::Pass, Status::Fail, Status::NotTested].map(|status| mixed.count(status)), [1, 1, 1]);
}
