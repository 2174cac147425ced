//! What `tproxy verify` checks: everything that a configuration promises, each once, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use tproxy::config::Config;
use tproxy::config::values::Port;
use tproxy::host::{HostFacts, Ipv6Support, Resolver};
use tproxy::plan::{Family, is_link_local};
use tproxy::verify::Id;
use tproxy::verify::check::{Check, Probe};
use tproxy::verify::derive::{Sources, checks};
use tproxy::verify::ground::{Dice, Ends, Taken};

use super::configs;

mod meant;

const APP: u32 = 65_534;

/// Somewhere, as far as these tests care.
fn ends(family: Family) -> Ends {
    let [here, there, far] = match family {
        Family::V4 => ["192.0.2.1", "192.0.2.2", "198.51.100.3"],
        Family::V6 => ["2001:db8:1::1", "2001:db8:1::2", "2001:db8:2::3"],
    }
    .map(|text| text.parse().expect("an address"));
    Ends { here, there, far }
}

/// Derives with resolvers of resolv.conf that are the captured ones.
fn derive(config: &Config, facts: &HostFacts, family: Family, seed: u64) -> Vec<Check> {
    let resolvers: Vec<IpAddr> = facts.resolvers.iter().map(|resolver| resolver.addr).collect();
    let taken = Taken { ports: [22, 80].into(), ..Taken::default() };
    let sources = Sources {
        config,
        facts,
        resolvers: &resolvers,
        taken: &taken,
        app: Ok(APP),
        departing: &BTreeSet::new(),
        own_resolvers: &[],
        asked_from: &BTreeMap::new(),
    };
    checks(sources, family, Ok(ends(family)), &mut Dice::new(seed))
}

fn facts(resolvers: &[&str]) -> HostFacts {
    let resolvers =
        resolvers.iter().map(|addr| Resolver { addr: addr.parse().expect("an address"), zone: None });
    HostFacts {
        sidecar_uid: 5678,
        loopback: "lo".into(),
        ipv6: Ipv6Support::Available,
        resolvers: resolvers.collect(),
        docker_dns: false,
        translated: tproxy::host::Translated::default(),
    }
}

/// Servers of a family, where questions are redirected.
fn asked(config: &Config, facts: &HostFacts, family: Family) -> Vec<IpAddr> {
    let dns = &config.redirect.dns;
    if !dns.enabled {
        return Vec::new();
    }
    let listed = facts.resolvers.iter().map(|resolver| resolver.addr);
    let mut servers: Vec<_> = listed.filter(|addr| addr.is_ipv4() == (family == Family::V4)).collect();
    servers.extend(dns.capture_all.then_some(ends(family).far));
    servers
}

/// Everything that a configuration promises of a family, in words without the ports that chance chose.
fn promises(config: &Config, facts: &HostFacts, family: Family) -> BTreeMap<(Id, String), u32> {
    let mut all: Vec<(Id, String)> =
        [Id::Outbound, Id::Inbound, Id::Sidecar, Id::Own, Id::Localhost, Id::Passthrough]
            .map(|id| (id, String::new()))
            .into();
    let servers = asked(config, facts, family);
    for server in &servers {
        all.extend([(Id::Dns, server.to_string()), (Id::DnsSidecar, server.to_string())]);
    }
    let nobody_is_asked = config.redirect.dns.enabled && servers.is_empty();
    all.extend(nobody_is_asked.then(|| (Id::Dns, "resolv.conf".to_owned())));
    let own = |net: ipnet::IpNet| matches!(net, ipnet::IpNet::V4(_)) == (family == Family::V4);
    let guests = || config.redirect.vnet.networks.iter().filter(|vnet| own(vnet.network.net()));
    let interfaces: BTreeSet<&str> = guests().map(|vnet| vnet.interface.as_str()).collect();
    for interface in interfaces {
        all.push((Id::Outbound, format!("guest on {interface}")));
        all.extend(config.redirect.dns.enabled.then(|| (Id::Dns, format!("guest on {interface}"))));
    }
    let mut left_alone = Vec::new();
    let (out, into) = (&config.redirect.outbound, &config.redirect.inbound);
    let redirected = servers.iter().any(|server| !is_link_local(*server));
    if redirected && out.enabled {
        left_alone.push("app over TCP to DNS port 53".to_owned());
    }
    if family == Family::V6 {
        left_alone.extend(out.enabled.then(|| "app to a link-local address".to_owned()));
        let all = config.redirect.dns.enabled && config.redirect.dns.capture_all;
        left_alone.extend(all.then(|| "app to a link-local DNS server".to_owned()));
    }
    if out.include_ports.is_empty() {
        left_alone.extend(out.exclude_ports.iter().map(|port| format!("app to outbound port {port}")));
    } else {
        left_alone.push("app to a port that is not included".to_owned());
    }
    let nets = out.exclude_ports_for_ips.iter().filter(|net| own(net.net()));
    left_alone.extend(nets.map(|net| format!("app to excluded address {net}")));
    for exclusion in &out.exclude_ports_for_uids {
        let (first, last) = (exclusion.uids.first, exclusion.uids.last);
        let sidecar = |uid: u32| uid == facts.sidecar_uid && last > first;
        let first_told = if sidecar(first) { first + 1 } else { first };
        let last_told = if sidecar(last) { last - 1 } else { last };
        for protocol in &exclusion.protocols {
            for uid in [first_told, last_told] {
                left_alone.extend(
                    exclusion.ports.iter().map(|ports| format!("UID {uid} over {protocol} to port {ports}")),
                );
            }
        }
    }
    if into.enabled {
        if into.include_ports.is_empty() {
            left_alone
                .extend(into.exclude_ports.iter().map(|port| format!("outside to inbound port {port}")));
        } else {
            left_alone.push("outside to a port that is not included".to_owned());
        }
        left_alone
            .extend(into.exclude_forwarded.then(|| "outside to other hosts, by way of this one".to_owned()));
        let nets = into.exclude_ports_for_ips.iter().filter(|net| own(net.net()));
        left_alone.extend(nets.map(|net| format!("excluded address {net} to this host")));
    }
    left_alone.extend(guests().map(|vnet| format!("guests on {} to {}", vnet.interface, vnet.network)));
    all.extend(left_alone.into_iter().map(|words| (Id::Exclusion, words)));
    // What is configured twice is promised once; each of the only ports there are is promised by itself.
    let mut all: BTreeMap<_, _> = all.into_iter().map(|promise| (promise, 1)).collect();
    let each = |only: &[Port]| u32::try_from(numbers(only).len().max(1)).expect("few ports");
    let to_servers = redirected && numbers(&out.include_ports).contains(&53);
    all.insert((Id::Outbound, String::new()), each(&out.include_ports) - u32::from(to_servers));
    // Localhost, another address of this host, and another of loopback, of which IPv6 has one.
    all.insert((Id::Localhost, String::new()), if family == Family::V4 { 3 } else { 2 });
    all.insert((Id::Inbound, String::new()), each(&into.include_ports));
    all.retain(|_, count| *count > 0);
    all
}

/// What a check is about, in the same words.
fn about(check: &Check) -> (Id, String) {
    let words = match check.id {
        _ if check.target.starts_with("guest on ") => {
            check.target.split(" to ").next().unwrap_or_default().to_owned()
        }
        Id::Exclusion => check.target.split(" (").next().unwrap_or_default().to_owned(),
        Id::Dns | Id::DnsSidecar => check.target.rsplit(' ').next().unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    (check.id, words)
}

fn counted(checks: &[Check]) -> BTreeMap<(Id, String), u32> {
    let mut counted = BTreeMap::new();
    for check in checks {
        *counted.entry(about(check)).or_default() += 1;
    }
    counted
}

fn numbers(ports: &[Port]) -> BTreeSet<u16> {
    ports.iter().map(|port| port.get()).collect()
}

fn is_redirected(only: &[Port], but: &[Port], port: u16) -> bool {
    let is_in = |ports: &[Port]| ports.iter().any(|listed| listed.get() == port);
    if only.is_empty() { !is_in(but) } else { is_in(only) }
}

fn goes_out(config: &Config, port: u16) -> bool {
    let out = &config.redirect.outbound;
    is_redirected(&out.include_ports, &out.exclude_ports, port)
}

fn comes_in(config: &Config, port: u16) -> bool {
    let into = &config.redirect.inbound;
    is_redirected(&into.include_ports, &into.exclude_ports, port)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_promise_is_checked_once_and_nothing_else(
        config in configs::config(), facts in configs::facts(), seed in any::<u64>(), six in any::<bool>()
    ) {
        let family = if six { Family::V6 } else { Family::V4 };
        let checks = derive(&config, &facts, family, seed);
        prop_assert_eq!(counted(&checks), promises(&config, &facts, family));
        prop_assert!(checks.is_sorted_by_key(|check| check.id), "in the order in which they are shown");
        for check in &checks {
            prop_assert_eq!(check.family, family);
            meant::is_meant(check, &config, &facts, family)?;
        }
    }

    /// Without an interface to send by, or a user to be, exactly what needs it is left, with the reason.
    #[test]
    fn what_cannot_be_sent_says_why(config in configs::config(), facts in configs::facts(), seed in any::<u64>()) {
        let taken = Taken::default();
        let resolvers: Vec<IpAddr> = facts.resolvers.iter().map(|resolver| resolver.addr).collect();
        let sources = Sources { config: &config, facts: &facts, resolvers: &resolvers, taken: &taken, app: Ok(APP), departing: &BTreeSet::new(), own_resolvers: &[], asked_from: &BTreeMap::new() };
        for check in checks(sources, Family::V4, Err("no cable"), &mut Dice::new(seed)) {
            match &check.probe {
                Probe::Nothing(why) => prop_assert!(!why.is_empty()),
                Probe::Connect { to, .. } | Probe::Datagram { to, .. } | Probe::Again { to, .. } => {
                    prop_assert!(to.ip().is_loopback(), "{:?}", check);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
        let sources = Sources { app: Err("nobody here"), ..sources };
        for check in checks(sources, Family::V4, Ok(ends(Family::V4)), &mut Dice::new(seed)) {
            let by_app = check.target.starts_with("app ");
            let nobody = matches!(&check.probe, Probe::Nothing(why) if why == "nobody here");
            prop_assert!(!by_app || nobody || matches!(&check.probe, Probe::Nothing(_)), "{:?}", check);
            prop_assert!(by_app || !nobody, "{:?}", check);
        }
    }
}

/// Targets of the checks of some ids.
fn targets(checks: &[Check], ids: &[Id]) -> Vec<String> {
    checks.iter().filter(|check| ids.contains(&check.id)).map(|check| check.target.clone()).collect()
}

#[test]
fn what_is_configured_twice_is_checked_once() {
    let mut config = Config::default();
    config.redirect.inbound.exclude_ports = ["22", "22"].map(|port| port.parse().expect("a port")).into();
    config.redirect.outbound.exclude_ports_for_uids =
        ["7", "7", "tcp:*:7"].map(|e| e.parse().expect("one")).into();
    let checks = derive(&config, &facts(&[]), Family::V4, 1);
    assert_eq!(
        targets(&checks, &[Id::Exclusion]),
        ["UID 7 over tcp to port 1-65535", "UID 7 over udp to port 1-65535", "outside to inbound port 22"]
    );
}

#[test]
fn every_included_port_is_checked() {
    let mut config = Config::default();
    config.redirect.outbound.include_ports =
        ["443", "80", "443"].map(|port| port.parse().expect("a port")).into();
    config.redirect.inbound.include_ports = ["8080", "8443"].map(|port| port.parse().expect("a port")).into();
    let checks = derive(&config, &facts(&[]), Family::V4, 1);
    assert_eq!(targets(&checks, &[Id::Outbound]), ["app to 198.51.100.3:80", "app to 198.51.100.3:443"]);
    assert_eq!(targets(&checks, &[Id::Inbound]), ["outside to 192.0.2.1:8080", "outside to 192.0.2.1:8443"]);
}

#[test]
fn questions_are_those_to_captured_servers_of_the_family() {
    let mut config = Config::default();
    let facts = facts(&["10.96.0.10", "fd00:96::10", "127.0.0.11"]);
    let dns =
        |config: &Config, family| targets(&derive(config, &facts, family, 1), &[Id::Dns, Id::DnsSidecar]);
    assert!(dns(&config, Family::V4).is_empty(), "no question is redirected");
    config.redirect.dns.enabled = true;
    let of = |who: &str, server: &str| format!("{who} to DNS server {server}");
    assert_eq!(
        dns(&config, Family::V4),
        [
            of("app", "10.96.0.10"),
            of("app", "127.0.0.11"),
            of("sidecar", "10.96.0.10"),
            of("sidecar", "127.0.0.11")
        ]
    );
    assert_eq!(dns(&config, Family::V6), [of("app", "fd00:96::10"), of("sidecar", "fd00:96::10")]);
    config.redirect.dns.capture_all = true;
    assert!(
        dns(&config, Family::V6).contains(&of("app", &ends(Family::V6).far.to_string())),
        "and any other"
    );
}

/// Its own probe has to go where nothing is excluded, or it would prove nothing.
#[test]
fn the_sidecar_is_not_probed_as_a_user_that_is_left_alone_anyway() {
    let mut config = Config::default();
    config.redirect.outbound.exclude_ports_for_uids = vec!["tcp:443:5678-5700".parse().expect("one")];
    let checks = derive(&config, &facts(&[]), Family::V4, 1);
    let of = |uid| format!("UID {uid} over tcp to port 443");
    assert_eq!(targets(&checks, &[Id::Exclusion]), [of(5679), of(5700)]);
    config.redirect.outbound.exclude_ports_for_uids =
        ["tcp:443:5600-5678", "tcp:443:5678"].map(|one| one.parse().expect("one")).into();
    let checks = derive(&config, &facts(&[]), Family::V4, 1);
    assert_eq!(targets(&checks, &[Id::Exclusion]), [of(5600), of(5677), of(5678)]);
}

#[test]
fn a_network_without_a_usable_address_is_said_not_to_be_tested() {
    let mut config = Config::default();
    config.redirect.outbound.exclude_ports_for_ips = vec!["10.77.0.1/32".parse().expect("a network")];
    config.redirect.inbound.exclude_ports_for_ips = vec!["127.0.0.0/8".parse().expect("a network")];
    let facts = facts(&[]);
    let taken = Taken { addresses: vec![Ipv4Addr::new(10, 77, 0, 1).into()], ..Taken::default() };
    let sources = Sources {
        config: &config,
        facts: &facts,
        resolvers: &[],
        taken: &taken,
        app: Ok(APP),
        departing: &BTreeSet::new(),
        own_resolvers: &[],
        asked_from: &BTreeMap::new(),
    };
    let checks = checks(sources, Family::V4, Ok(ends(Family::V4)), &mut Dice::new(1));
    let exclusions: Vec<_> = checks.iter().filter(|check| check.id == Id::Exclusion).collect();
    assert_eq!(exclusions.len(), 2);
    for check in exclusions {
        assert!(matches!(&check.probe, Probe::Nothing(why) if why.contains("holds no address")), "{check:?}");
    }
}
