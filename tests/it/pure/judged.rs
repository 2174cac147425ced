//! From where a probe arrived to a verdict: never a pass without having seen it, never a failure without advice.

use std::net::SocketAddr;

use proptest::prelude::*;
use tproxy::config::Config;
use tproxy::config::values::Port;
use tproxy::plan::Family;
use tproxy::sidecar::Channel;
use tproxy::verify::check::{Check, Goal, Probe, Reached, Way};
use tproxy::verify::explain::Rules;
use tproxy::verify::judge::{Bench, Holders};
use tproxy::verify::{Id, Method, Outcome, Status};

const APP: u32 = 65_534;
pub(super) const SIDECAR: u32 = 5678;

pub(super) fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A check for each thing that there is to find out.
pub(super) fn all_checks() -> Vec<Check> {
    let far = at("198.51.100.3:23456");
    let own = at("192.0.2.1:23456");
    let connect = |uid, to, way| Probe::Connect { uid, to, way, from: None };
    let question = |uid, to: &str| Probe::Datagram { uid, to: at(to), from: None };
    let again = |to: &str| Probe::Again { first: APP, then: SIDECAR, to: at(to) };
    let all = [
        (Id::Outbound, connect(APP, far, Way::Route), Goal::Port(Channel::Outbound)),
        (Id::Outbound, connect(APP, far, Way::Device), Goal::Past),
        (Id::Inbound, Probe::Arrive { from: far.ip(), to: own }, Goal::Port(Channel::Inbound)),
        (Id::Inbound, Probe::Arrive { from: far.ip(), to: own }, Goal::Past),
        (Id::Sidecar, connect(SIDECAR, far, Way::Device), Goal::Past),
        (Id::Own, connect(SIDECAR, own, Way::Loopback), Goal::Port(Channel::Inbound)),
        (Id::Own, connect(SIDECAR, own, Way::Loopback), Goal::Past),
        (Id::Localhost, connect(APP, at("127.0.0.1:23456"), Way::Loopback), Goal::Past),
        (Id::Dns, question(APP, "10.96.0.10:53"), Goal::Dns),
        (Id::Dns, question(APP, "127.0.0.11:53"), Goal::Dns),
        (Id::DnsSidecar, again("10.96.0.10:53"), Goal::Past),
        (Id::DnsSidecar, again("127.0.0.11:53"), Goal::Past),
        (Id::DnsSidecar, question(SIDECAR, "127.0.0.11:53"), Goal::Past),
        (
            Id::Passthrough,
            Probe::Passthrough { uid: SIDECAR, source: at("127.0.0.6:0").ip(), to: own },
            Goal::Past,
        ),
        (Id::Exclusion, connect(APP, far, Way::Device), Goal::Past),
        (Id::Exclusion, Probe::Arrive { from: far.ip(), to: own }, Goal::Past),
        (Id::Exclusion, question(7000, "10.96.0.10:53"), Goal::Past),
        (Id::Exclusion, Probe::Nothing("nobody is there".into()), Goal::Past),
    ];
    let check = |(id, probe, goal): (Id, Probe, Goal)| {
        let [six, four] = [Family::V6, Family::V4].map(|family| Check {
            id,
            family,
            target: "somebody to somewhere".into(),
            probe: probe.clone(),
            goal,
            expected: "arrives".into(),
        });
        [four, six]
    };
    all.into_iter().flat_map(check).collect()
}

pub(super) fn a_check(id: Id) -> Check {
    all_checks().into_iter().find(|check| check.id == id).expect("one of each")
}

/// Everything that a probe can come to, with ports of the sidecar and others.
fn reached() -> impl Strategy<Value = Reached> {
    let port = prop_oneof![Just(15001), Just(15006), Just(15053), Just(53), Just(40000), 1..=u16::MAX];
    let channel = prop_oneof![Just(Channel::Outbound), Just(Channel::Inbound)];
    let told = prop_oneof![
        Just(None),
        Just(Some(at("198.51.100.3:23456"))),
        Just(Some(at("192.0.2.1:23456"))),
        Just(Some(at("127.0.0.1:15001")))
    ];
    prop_oneof![
        3 => (channel, told).prop_map(|(channel, told)| Reached::Port(channel, told)),
        1 => any::<bool>().prop_map(|answered| Reached::Dns { answered }),
        1 => any::<bool>().prop_map(|answered| Reached::Destination { answered }),
        1 => Just(Reached::Apart),
        5 => (port, any::<Option<bool>>()).prop_map(|(port, answered)| Reached::Tracked { port, answered }),
        1 => any::<bool>().prop_map(|answered| Reached::LedOn { to: at("10.77.0.2:53"), answered }),
        1 => Just(Reached::Held { port: 15001, address: std::net::Ipv4Addr::UNSPECIFIED.into(), uid: 1000 }),
        1 => Just(Reached::NoRoute("10.9.9.9".parse().expect("an address"), 1000, "unreachable".to_owned())),
        1 => Just(Reached::Astray(at("10.77.0.2:7"))),
        1 => Just(Reached::Somebody),
        2 => nothing(),
    ]
}

/// Whatever is not the arrival of a packet.
fn nothing() -> impl Strategy<Value = Reached> {
    prop_oneof![
        Just(Reached::Refused),
        Just(Reached::Nowhere),
        "[a-z ]{1,20}".prop_map(Reached::Unsent),
        "[a-z ]{1,20}".prop_map(Reached::Unknown),
    ]
}

/// Who has the sidecar's ports: for each of the three nobody, the sidecar, or somebody else.
fn holders() -> impl Strategy<Value = Holders> {
    let users = prop_oneof![Just(vec![]), Just(vec![SIDECAR]), Just(vec![1000]), Just(vec![1000, SIDECAR])];
    let ports = Family::BOTH.into_iter().flat_map(|family| [15001, 15006, 15053].map(|port| (family, port)));
    prop::collection::vec(users, 6).prop_map(move |users| ports.clone().zip(users).collect())
}

fn a_check_of_any_kind() -> impl Strategy<Value = Check> {
    prop::sample::select(all_checks())
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![Just(Method::Listeners), Just(Method::Counters)]
}

fn port_of(goal: Goal) -> Option<u16> {
    match goal {
        Goal::Port(Channel::Outbound) => Some(15001),
        Goal::Port(Channel::Inbound) => Some(15006),
        Goal::Dns => Some(15053),
        Goal::Past => None,
    }
}

/// Whether this was seen to be as it should be: the one list of what may be called a pass.
fn is_seen(check: &Check, reached: &Reached, holders: &Holders) -> bool {
    let sent = match &check.probe {
        Probe::Connect { to, .. }
        | Probe::Arrive { to, .. }
        | Probe::Datagram { to, .. }
        | Probe::Again { to, .. }
        | Probe::Passthrough { to, .. }
        | Probe::Guest { to, .. } => Some(*to),
        Probe::NoRoute { .. } | Probe::Nothing(_) => None,
    };
    let sidecar_has =
        |port: &u16| holders.get(&(check.family, *port)).is_some_and(|users| users.contains(&SIDECAR));
    match (check.goal, reached) {
        (Goal::Port(channel), Reached::Port(at, told)) => channel == *at && told.is_some() && *told == sent,
        (Goal::Port(_), Reached::Tracked { port, .. }) => {
            port_of(check.goal) == Some(*port) && sidecar_has(port)
        }
        (Goal::Dns, Reached::Dns { answered })
        | (Goal::Past, Reached::Destination { answered } | Reached::LedOn { answered, .. }) => *answered,
        (Goal::Dns, Reached::Tracked { port, answered }) => {
            *port == 15053 && sidecar_has(port) && *answered == Some(true)
        }
        (Goal::Past, Reached::Somebody) => true,
        // The sidecar's own port, left alone as any other.
        (Goal::Past, Reached::Port(channel, _)) => sent.is_some_and(|to| {
            let tcp = !matches!(check.probe, Probe::Datagram { .. } | Probe::Again { .. });
            tcp && Some(to.port()) == port_of(Goal::Port(*channel))
        }),
        // Docker's server, behind a port of its own.
        (Goal::Past, Reached::Tracked { port, answered }) => {
            let led_on = check.id == Id::DnsSidecar && ![15001, 15006, 15053].contains(port);
            led_on && *answered == Some(true)
        }
        _ => false,
    }
}

pub(super) fn bench(config: &Config, method: Method, holders: Holders) -> Bench<'_> {
    Bench { config, method, holders, sidecar: SIDECAR, native: false, install: "tproxy install".into() }
}

/// The verdict with a sidecar that is up.
pub(super) fn judged(check: Check, reached: &Reached) -> Outcome {
    let holders = [15001, 15006, 15053].map(|port| ((check.family, port), vec![SIDECAR])).into();
    bench(&Config::default(), Method::Counters, holders).judge(check, reached)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_pass_was_seen_and_what_was_seen_passes(
        check in a_check_of_any_kind(), reached in reached(), method in method(), holders in holders()
    ) {
        let config = Config::default();
        let seen = is_seen(&check, &reached, &holders);
        let outcome = bench(&config, method, holders).judge(check.clone(), &reached);
        prop_assert_eq!(outcome.status == Status::Pass, seen, "{:?} {:?}", reached, outcome);
        prop_assert_eq!(&outcome.check, &check);
        prop_assert!(!outcome.happened.is_empty());
        let said = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let advised = (said(&outcome.cause), said(&outcome.next));
        let failed = outcome.status == Status::Fail;
        prop_assert_eq!(advised, (failed, failed), "advice for failures and nothing else: {:?}", outcome);
    }

    #[test]
    fn nothing_passes_that_was_not_tested(
        check in a_check_of_any_kind(), reached in nothing(), method in method(), holders in holders()
    ) {
        let outcome = bench(&Config::default(), method, holders).judge(check, &reached);
        prop_assert_ne!(outcome.status, Status::Pass, "{:?}", reached);
        if let Reached::Unknown(why) = &reached {
            prop_assert_eq!((outcome.status, &outcome.happened), (Status::NotTested, why));
        }
    }

    #[test]
    fn ports_are_those_of_the_configuration(
        out in 1024..20_000_u16, into in 20_000..40_000_u16, dns in 40_000..60_000_u16, port in 1024..60_000_u16
    ) {
        let mut config = Config::default();
        let [out, into, dns, port] = [out, into, dns, port].map(|port| Port::try_from(port).expect("not 0"));
        let redirect = &mut config.redirect;
        (redirect.outbound.port, redirect.inbound.port, redirect.dns.port) = (out, into, dns);
        for own in [out, into, dns] {
            let holders: Holders = [((Family::V4, own.get()), vec![SIDECAR])].into();
            let bench = bench(&config, Method::Counters, holders);
            for (check, wanted) in
                [(a_check(Id::Outbound), out), (a_check(Id::Inbound), into), (a_check(Id::Dns), dns)]
            {
                for at in [own, port] {
                    let reached = Reached::Tracked { port: at.get(), answered: Some(true) };
                    let passes = bench.judge(check.clone(), &reached).status == Status::Pass;
                    prop_assert_eq!(passes, at == wanted && at == own);
                }
            }
        }
    }

    /// The rules explain a failure; they never make one, nor hide one.
    #[test]
    fn rules_change_no_verdict(
        check in a_check_of_any_kind(), reached in reached(), method in method(), holders in holders(), which in 0..7_usize
    ) {
        let some = || vec!["-t nat -A OUTPUT -p tcp -j KUMA_MESH_OUTBOUND".to_owned()];
        let rules = [
            Rules::NotInstalled, Rules::Missing(some()), Rules::Foreign(some()),
            Rules::Extra(some()), Rules::Displaced(some()), Rules::Outdated(some()), Rules::AsWanted,
        ];
        let config = Config::default();
        let bench = bench(&config, method, holders);
        let before = bench.judge(check, &reached);
        if before.status != Status::Fail {
            return Ok(());
        }
        let mut after = before.clone();
        bench.explain(&mut after, &rules[which]);
        prop_assert_eq!((after.status, &after.happened, &after.check), (before.status, &before.happened, &before.check));
        prop_assert!(after.cause.is_some_and(|cause| !cause.is_empty()) && after.next.is_some_and(|next| !next.is_empty()));
    }
}
