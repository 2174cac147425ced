//! The table says what the plan says: both are read here without a kernel.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use tproxy::backend::nftables::model::Table;
use tproxy::backend::nftables::{lower, text};
use tproxy::config::Config;
use tproxy::config::values::Protocol;
use tproxy::host::{HostFacts, Ipv6Support, Resolver};
use tproxy::plan::{BuiltinChain, Plan, build};

use super::packet::{Packet, Pool, Translation, choice};
use super::planned::outcome;
use super::{native, planned};
use crate::pure::configs;

/// What the table does with the packet, and what it should.
fn compare(plan: &Plan, table: &Table, packet: &Packet) -> Result<(), String> {
    let mut wanted = planned::outcome(plan, packet);
    // In a chain of our own nothing is past other people's chains.
    if wanted.past_everybody && packet.theirs {
        wanted.fate.translation = Translation::Theirs;
    }
    let found = native::fate(table, packet);
    if found == wanted.fate {
        return Ok(());
    }
    Err(format!("{packet:#?}\nplanned {:?}\nfound {found:?}\n{}", wanted.fate, text::create(table)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_table_does_to_every_packet_what_the_rules_do(
        config in configs::config(), facts in configs::facts(), choices in prop::collection::vec(choice(), 64),
    ) {
        let plan = build(&config, &facts);
        let table = lower::table(&plan, !config.comments.disabled);
        let pool = Pool::new(&config, &facts);
        for choice in &choices {
            compare(&plan, &table, &pool.packet(choice)).map_err(TestCaseError::fail)?;
        }
    }
}

/// The zones hang on source, destination, ports and user together, which random packets seldom get right. So here are
/// all of them, with servers on the machine itself between others.
#[test]
fn every_question_and_answer_gets_its_zone() {
    let servers = ["10.96.0.10", "127.0.0.53", "127.0.0.1", "fd00::53", "::1", "fd00::54", "127.0.0.11"];
    let addresses: Vec<IpAddr> = servers
        .iter()
        .chain(&["203.0.113.9", "2001:db8::9"])
        .map(|text| text.parse().expect("an address"))
        .collect();
    let resolver = |text: &&str| Resolver { addr: text.parse().expect("an address"), zone: None };
    for (capture_all, docker_dns) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut config = Config::default();
        config.redirect.dns.enabled = true;
        config.redirect.dns.capture_all = capture_all;
        let facts = HostFacts {
            sidecar_uid: 5678,
            loopback: "lo".into(),
            ipv6: Ipv6Support::Available,
            resolvers: servers.iter().map(resolver).collect(),
            docker_dns,
            translated: tproxy::host::Translated::default(),
        };
        let plan = build(&config, &facts);
        let table = lower::table(&plan, true);
        let ends = |ports: [u16; 3]| {
            addresses.iter().flat_map(move |ip| ports.map(|port| SocketAddr::new(*ip, port)))
        };
        for source in ends([53, 15053, 40000]) {
            for destination in ends([53, 40000, 443]).filter(|to| to.is_ipv4() == source.is_ipv4()) {
                for (hook, owner) in [
                    (BuiltinChain::Prerouting, None),
                    (BuiltinChain::Output, None),
                    (BuiltinChain::Output, Some(5678)),
                    (BuiltinChain::Output, Some(1000)),
                ] {
                    for protocol in [Some(Protocol::Udp), Some(Protocol::Tcp), None] {
                        let mut packet = Packet {
                            hook,
                            protocol,
                            source,
                            destination,
                            interface: "lo".to_owned(),
                            owner,
                            here: true,
                            invalid: false,
                            theirs: false,
                        };
                        packet.theirs = docker_dns && hook == BuiltinChain::Output && packet.is_for_docker();
                        compare(&plan, &table, &packet).unwrap_or_else(|difference| panic!("{difference}"));
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Nothing that leaves for a link-local address is redirected, and nobody's question is in another zone than its
    /// answer, which a firewall that lets only answers in would drop.
    #[test]
    fn link_local_destinations_are_left_alone(
        config in configs::config(), facts in configs::facts(), host in any::<u64>(), port in 1..=u16::MAX, users in any::<u32>(),
    ) {
        let addr = |last: u64| IpAddr::from(((0xfe80_u128 << 112) | u128::from(last)).to_be_bytes());
        let (here, there) = (addr(1), addr(host.max(2)));
        let plan = build(&config, &facts);
        for (owner, port) in [facts.sidecar_uid, 1000, users].into_iter().flat_map(|uid| [(uid, port), (uid, 53), (uid, 443)]) {
            let packet = |hook, protocol, source, destination| Packet {
                hook,
                protocol: Some(protocol),
                source,
                destination,
                interface: "eth0".to_owned(),
                owner: (hook == BuiltinChain::Output).then_some(owner),
                here: true,
                invalid: false,
                theirs: false,
            };
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let (from, to) = (SocketAddr::new(here, 40_000), SocketAddr::new(there, port));
                let question = outcome(&plan, &packet(BuiltinChain::Output, protocol, from, to)).fate;
                prop_assert_eq!(question.translation, Translation::None);
                let answer = outcome(&plan, &packet(BuiltinChain::Prerouting, protocol, to, from)).fate;
                let zones = (question.zone.unwrap_or(0), answer.zone.unwrap_or(0));
                // What is no question to a server has no zone, unless it comes from a port of the sidecar's.
                prop_assert!(zones.0 == zones.1 || port != 53, "{:?}", zones);
            }
        }
    }
}
