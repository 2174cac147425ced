//! Configurations, hosts and other people's rules at random.

use std::fmt::Display;

use proptest::prelude::*;
use tproxy::config::Config;
use tproxy::config::values::{IpFamilyMode, Port, UidExclusion};
use tproxy::host::{HostFacts, Ipv6Support, Resolver, Translated};
use tproxy::plan::Family;

fn port() -> impl Strategy<Value = Port> {
    (1..=u16::MAX).prop_map(|number| Port::try_from(number).expect("not 0"))
}

fn ports() -> impl Strategy<Value = Vec<Port>> {
    prop_oneof![3 => prop::collection::vec(port(), 0..4), 1 => prop::collection::vec(port(), 14..60)]
}

fn parsed<T: std::str::FromStr<Err: Display>>(text: &str) -> T {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn some_of<T: Clone + std::fmt::Debug + std::str::FromStr<Err: Display>>(
    texts: &'static [&'static str],
) -> impl Strategy<Value = Vec<T>> {
    prop::sample::subsequence(texts, 0..=texts.len())
        .prop_map(|texts| texts.into_iter().map(parsed).collect())
}

const NETS: &[&str] = &[
    "10.0.0.1",
    "192.168.7.9/24",
    "fe80::1",
    "fe80::/10",
    "fd00::1/8",
    "172.32.16.8/16",
    "172.32.128.0/17",
    "10.96.0.0/16",
    "fd00:96::/32",
    "203.0.113.0/28",
];
const EXCLUSIONS: &[&str] = &[
    "1000",
    "tcp:80,90,1000-2000:106-108",
    "udp:53:4294967294",
    "*:*:0",
    "1,3,5,7,9,11,13,15,17,19,21,23,25-30,40-50:7",
    "tcp:53:5678",
    "udp:50-60,15053:5600-5678",
];
const VNETS: &[&str] = &[
    "docker0:172.17.0.0/16",
    "docker0:172.18.0.1/16",
    "docker0:172.19.0.0/16",
    "br+:172.18.0.0/16",
    "iface:::1/64",
    "docker+:172.17.128.0/17",
    "br+:fd18::/64",
    "br+:fd19::/64",
    "+:172.16.0.0/12",
    "+:fd20::/64",
    "lo+:172.28.0.0/16",
    "abcdefghijklmn+:172.24.0.0/16",
    "abcdefghijklmno:172.25.0.0/16",
];

/// Any configuration that is valid.
pub fn config() -> impl Strategy<Value = Config> {
    let switches = prop::collection::vec(any::<bool>(), 13);
    let lists = (ports(), ports(), ports(), ports());
    let nets = (some_of(NETS), some_of(NETS), some_of(EXCLUSIONS), some_of(VNETS));
    (switches, lists, nets, 0..=7u8).prop_map(|(on, lists, nets, level)| {
        let mut config = Config {
            ip_family_mode: if on[0] { IpFamilyMode::Ipv4 } else { IpFamilyMode::DualStack },
            drop_invalid_packets: on[1],
            ..Config::default()
        };
        config.log.enabled = on[2];
        config.log.level = level;
        config.comments.disabled = on[3];
        let redirect = &mut config.redirect;
        redirect.inbound.enabled = on[4];
        redirect.outbound.enabled = on[5];
        redirect.inbound.insert_redirect_instead_of_append = on[6];
        redirect.inbound.exclude_forwarded = on[12];
        redirect.outbound.insert_redirect_instead_of_append = on[7];
        redirect.dns.enabled = on[8] || on[9];
        redirect.dns.capture_all = on[9];
        redirect.dns.skip_conntrack_zone_split = on[10];
        (redirect.inbound.exclude_ports, redirect.outbound.exclude_ports) = (lists.0, lists.1);
        if on[11] {
            (redirect.inbound.include_ports, redirect.outbound.include_ports) = (lists.2, lists.3);
        }
        redirect.inbound.exclude_ports_for_ips = nets.0;
        redirect.outbound.exclude_ports_for_ips = nets.1;
        redirect.outbound.exclude_ports_for_uids = nets.2;
        redirect.vnet.networks = nets.3;
        config
    })
}

/// The same, sometimes with every address excluded: such a rule says nothing but its target.
pub fn config_or_all() -> impl Strategy<Value = Config> {
    (config(), some_of(&["0.0.0.0/0", "10.0.0.1/0", "::/0"]), 0..3_u8).prop_map(|(mut config, all, which)| {
        let redirect = &mut config.redirect;
        match which {
            0 => {}
            1 => redirect.outbound.exclude_ports_for_ips.extend(all),
            _ => redirect.inbound.exclude_ports_for_ips.extend(all),
        }
        config
    })
}

/// Exclusions of neighbours and of the same users over and over.
pub fn exclusions() -> impl Strategy<Value = Vec<UidExclusion>> {
    let ports = prop::sample::select(vec!["80", "80-81", "81,80", "82,90-99", "*", "1-79"]);
    let users = (100..106_u32, 0..3_u32).prop_map(|(first, more)| format!("{first}-{}", first + more));
    let one = (prop::sample::select(vec!["tcp", "udp", "*"]), ports, users);
    prop::collection::vec(one.prop_map(|(p, ports, users)| parsed(&format!("{p}:{ports}:{users}"))), 0..6)
}

/// Any host.
pub fn facts() -> impl Strategy<Value = HostFacts> {
    let resolvers: &[&str] =
        &["10.96.0.10", "127.0.0.53", "127.0.0.1", "fe80::53", "fd00::53", "::1", "127.0.0.11"];
    let resolvers = prop::sample::subsequence(resolvers, 0..=resolvers.len());
    let translated = prop::sample::subsequence(Family::BOTH.to_vec(), 0..=2);
    let users = prop_oneof![Just(0), Just(5678), any::<u32>()];
    (any::<bool>(), any::<bool>(), users, resolvers, translated).prop_map(
        |(six, docker_dns, sidecar_uid, resolvers, families)| HostFacts {
            sidecar_uid: sidecar_uid.min(u32::MAX - 1),
            loopback: "lo".into(),
            ipv6: if six { Ipv6Support::Available } else { Ipv6Support::Unavailable("no address".into()) },
            resolvers: resolvers
                .into_iter()
                .map(|addr| Resolver { addr: parsed(addr), zone: None })
                .collect(),
            docker_dns,
            translated: Translated { families: families.into_iter().collect(), in_our_chain: false },
        },
    )
}

/// Other people's rules, those that merely look like ours among them.
pub fn foreign() -> impl Strategy<Value = Vec<&'static str>> {
    let blocks: &[&str] = &[
        "*nat\n:DOCKER_OUTPUT - [0:0]\n:DOCKER - [0:0]\n-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT\n-A DOCKER -i docker0 -j RETURN\n-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER\n-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\nCOMMIT\n",
        "*nat\n:KUMA_MESH_CUSTOM - [0:0]\n-A OUTPUT -p tcp -m tcp --dport 7777 -j KUMA_MESH_CUSTOM\n-A KUMA_MESH_CUSTOM -j RETURN\nCOMMIT\n",
        "*nat\n-A OUTPUT -d 10.0.0.1/32 -j RETURN\n-A OUTPUT -p udp -m udp --dport 53 -j REDIRECT --to-ports 5353\nCOMMIT\n",
        "*nat\n-A OUTPUT -m comment --comment \"not kuma/mesh/transparent/proxy/x\" -j RETURN\n-A OUTPUT -m comment --comment kuma/mesh/transparent/proxyish -j RETURN\nCOMMIT\n",
        "*filter\n:KUMA_MESH_INBOUND - [0:0]\n-A INPUT -j KUMA_MESH_INBOUND\n-A KUMA_MESH_INBOUND -m comment --comment \"a \\\"quoted\\\" one\" -j ACCEPT\nCOMMIT\n",
        "*mangle\n-A PREROUTING -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n",
        "*raw\n-A OUTPUT -p udp -m udp --dport 53 -j CT --zone 1\n-A PREROUTING -j ACCEPT\nCOMMIT\n",
        "*nat\n-A OUTPUT -j RETURN\nCOMMIT\n",
        "*nat\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\nCOMMIT\n",
    ];
    prop::sample::subsequence(blocks, 0..=blocks.len()).prop_shuffle()
}
