//! Every statement there is, in our words and in nft's.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tproxy::backend::nftables::model::{
    Chain, ChainKind, End, Hook, HookPoint, Interface, Rule, Statement, Table, Test, Verdict,
};
use tproxy::backend::nftables::set::{Interval, Key, Set};
use tproxy::config::values::Protocol;
use tproxy::plan::Family;

/// A rule of the chain `out`, in our words and in nft's.
pub struct Said {
    pub statements: Vec<Statement>,
    pub text: &'static str,
}

fn rule<const N: usize>(text: &'static str, statements: [Statement; N]) -> Said {
    Said { statements: statements.into(), text }
}

fn to(test: Test<&str>) -> Statement {
    Statement::Address(End::Destination, test.map(|net| net.parse().expect("a network")))
}

fn from(test: Test<&str>) -> Statement {
    Statement::Address(End::Source, test.map(|net| net.parse().expect("a network")))
}

fn port(test: Test<&str>) -> Statement {
    Statement::Port(End::Destination, test.map(|ports| ports.parse().expect("ports")))
}

fn uid(test: Test<&str>) -> Statement {
    Statement::Owner(test.map(|uids| uids.parse().expect("UIDs")))
}

fn leaves_by(test: Test<&str>) -> Statement {
    Statement::Interface(
        End::Destination,
        test.map(|name| Interface {
            name: name.trim_end_matches('*').to_owned(),
            prefix: name.ends_with('*'),
        }),
    )
}

fn set(name: &str) -> Test<&'static str> {
    Test::In(name.to_owned())
}

fn not_set(name: &str) -> Test<&'static str> {
    Test::NotIn(name.to_owned())
}

trait Map<T> {
    fn map<U>(self, with: impl Fn(T) -> U) -> Test<U>;
}

impl<T> Map<T> for Test<T> {
    fn map<U>(self, with: impl Fn(T) -> U) -> Test<U> {
        match self {
            Self::Is(value) => Test::Is(with(value)),
            Self::IsNot(value) => Test::IsNot(with(value)),
            Self::In(set) => Test::In(set),
            Self::NotIn(set) => Test::NotIn(set),
        }
    }
}

pub fn sayings() -> Vec<Said> {
    use Statement::{Counter, CtZone, Invalid, Redirect, Verdict as Ends};
    use Test::{Is, IsNot};
    let four = || Statement::Family(Family::V4);
    let six = || Statement::Family(Family::V6);
    let tcp = || Statement::Protocol(Protocol::Tcp);
    let udp = || Statement::Protocol(Protocol::Udp);
    let back = || Ends(Verdict::Return);
    let log = |prefix: &str, level| Statement::Log { prefix: prefix.to_owned(), level };
    vec![
        rule("meta nfproto ipv4 meta skuid 0 return", [four(), uid(Is("0")), back()]),
        rule("meta nfproto ipv6 meta skuid != 5678 return", [six(), uid(IsNot("5678")), back()]),
        rule("meta skuid 5-1000 return", [uid(Is("5-1000")), back()]),
        rule("meta skuid != 5-1000 return", [uid(IsNot("5-1000")), back()]),
        rule("meta skuid @uids return", [uid(set("uids")), back()]),
        rule("meta skuid != @uids return", [uid(not_set("uids")), back()]),
        rule("meta nfproto ipv4 ip daddr 10.0.0.0/8 return", [four(), to(Is("10.0.0.0/8")), back()]),
        rule("meta nfproto ipv4 ip daddr 10.1.2.0/24 return", [four(), to(Is("10.1.2.0/24")), back()]),
        rule("meta nfproto ipv4 ip daddr 10.16.0.0/12 return", [four(), to(Is("10.16.0.0/12")), back()]),
        rule("meta nfproto ipv4 ip daddr 0.0.0.0/0 return", [four(), to(Is("0.0.0.0/0")), back()]),
        rule(
            "meta nfproto ipv4 ip daddr != 10.16.0.0/12 return",
            [four(), to(IsNot("10.16.0.0/12")), back()],
        ),
        rule("meta nfproto ipv4 ip daddr != 10.0.0.0/8 return", [four(), to(IsNot("10.0.0.0/8")), back()]),
        rule("meta nfproto ipv4 ip saddr 127.0.0.6 return", [four(), from(Is("127.0.0.6/32")), back()]),
        rule("meta nfproto ipv4 ip daddr @v4 return", [four(), to(set("v4")), back()]),
        rule("meta nfproto ipv4 ip saddr != @v4 return", [four(), from(not_set("v4")), back()]),
        rule("meta nfproto ipv6 ip6 daddr fd00::/9 return", [six(), to(Is("fd00::/9")), back()]),
        rule("meta nfproto ipv6 ip6 daddr fd00::/8 return", [six(), to(Is("fd00::/8")), back()]),
        rule("meta nfproto ipv6 ip6 daddr ::/0 return", [six(), to(Is("::/0")), back()]),
        rule("meta nfproto ipv6 ip6 saddr != ::6 return", [six(), from(IsNot("::6/128")), back()]),
        rule("meta nfproto ipv6 ip6 daddr @v6 return", [six(), to(set("v6")), back()]),
        rule("meta nfproto ipv6 ip6 daddr != @v6 return", [six(), to(not_set("v6")), back()]),
        rule("meta l4proto tcp tcp dport 80 return", [tcp(), port(Is("80")), back()]),
        rule("meta l4proto tcp tcp dport != 80 return", [tcp(), port(IsNot("80")), back()]),
        rule("meta l4proto tcp tcp dport 80-90 return", [tcp(), port(Is("80-90")), back()]),
        rule("meta l4proto tcp tcp dport 1-65535 return", [tcp(), port(Is("1-65535")), back()]),
        rule("meta l4proto tcp tcp dport != 80-90 return", [tcp(), port(IsNot("80-90")), back()]),
        rule("meta l4proto udp udp dport @ports return", [udp(), port(set("ports")), back()]),
        rule("meta l4proto udp udp dport != @ports return", [udp(), port(not_set("ports")), back()]),
        rule(
            "meta l4proto udp udp sport 53 return",
            [udp(), Statement::Port(End::Source, Is("53".parse().expect("a port"))), back()],
        ),
        rule("oifname \"lo\" return", [leaves_by(Is("lo")), back()]),
        rule("oifname != \"lo\" return", [leaves_by(IsNot("lo")), back()]),
        rule("oifname \"docker*\" return", [leaves_by(Is("docker*")), back()]),
        rule("oifname != \"d*\" return", [leaves_by(IsNot("d*")), back()]),
        rule("oifname \"fifteen-letters\" return", [leaves_by(Is("fifteen-letters")), back()]),
        rule("oifname @names return", [leaves_by(set("names")), back()]),
        rule("oifname != @names return", [leaves_by(not_set("names")), back()]),
        rule("fib daddr type != local return", [Statement::ForOtherHosts, back()]),
        rule("ct state invalid drop", [Invalid, Ends(Verdict::Drop)]),
        rule("ct state untracked accept", [Statement::Untracked, Ends(Verdict::Accept)]),
        rule("log prefix \"OUTPUT: \" level debug", [log("OUTPUT: ", 7)]),
        rule("log prefix \"x\" level warn", [log("x", 4)]),
        rule("log level info", [log("", 6)]),
        rule("log prefix \"x\" level emerg accept", [log("x", 0), Ends(Verdict::Accept)]),
        rule("ct zone set 5", [CtZone(5)]),
        rule("meta l4proto udp ct zone set 65535 return", [udp(), CtZone(65535), back()]),
        rule("counter", [Counter]),
        rule(
            "meta l4proto tcp counter redirect to :15001",
            [tcp(), Counter, Redirect("15001".parse().expect("a port"))],
        ),
        rule("meta l4proto udp counter jump sub", [udp(), Counter, Ends(Verdict::Jump("sub".to_owned()))]),
    ]
}

/// Sets of every type: a value, an interval, one to the highest value.
const SETS: &str = "
    set names { type ifname; flags interval; auto-merge; elements = { \"lo\", \"docker*\", \"fifteen-letters\" } }
    set none { type ipv4_addr; flags interval; auto-merge; }
    set ports { type inet_service; flags interval; auto-merge; elements = { 22, 80-90, 65530-65535 } }
    set uids { type uid; flags interval; auto-merge; elements = { 0, 5678, 100000-4294967295 } }
    set v4 { type ipv4_addr; flags interval; auto-merge; elements = { 10.0.0.0/8, 1.2.3.4, 224.0.0.0/3 } }
    set v6 { type ipv6_addr; flags interval; auto-merge; elements = { ::1, fd00::/8, ff00::/8 } }
";

fn sets() -> BTreeMap<String, Set> {
    let name = |name: &str, prefix| Interval::from(&Interface { name: name.to_owned(), prefix });
    let net = |net: &str| Interval::from(net.parse::<ipnet::IpNet>().expect("a network"));
    let span = |first, last| Interval { first, last };
    [
        (
            "names",
            Key::Interface,
            vec![name("lo", false), name("docker", true), name("fifteen-letters", false)],
        ),
        ("none", Key::Ipv4, vec![]),
        ("ports", Key::Port, vec![span(22, 22), span(80, 90), span(65530, 65535)]),
        ("uids", Key::Uid, vec![span(0, 0), span(5678, 5678), span(100_000, u32::MAX.into())]),
        ("v4", Key::Ipv4, vec![net("10.0.0.0/8"), net("1.2.3.4/32"), net("224.0.0.0/3")]),
        ("v6", Key::Ipv6, vec![net("::1/128"), net("fd00::/8"), net("ff00::/8")]),
    ]
    .into_iter()
    .map(|(name, key, intervals)| (name.to_owned(), Set::new(key, intervals)))
    .collect()
}

fn chain(name: &str, hook: Option<Hook>, rules: Vec<Rule>) -> Chain {
    Chain { name: name.to_owned(), hook, rules }
}

/// A table with all of it, and the text of the same table.
pub fn table() -> (Table, String) {
    let (mut text, mut rules) = (String::new(), Vec::new());
    for said in sayings() {
        // The comment repeats the rule, whose quotes would end it.
        let comment = format!("x {}", said.text.replace('"', ""));
        let _ = writeln!(text, "        {} comment \"{comment}\"", said.text);
        rules.push(Rule { statements: said.statements, comment: Some(comment) });
    }
    let plain = |statement| Rule { statements: vec![statement], comment: None };
    let hook = |kind, point, priority| Some(Hook { kind, point, priority, drops: false });
    let table = Table {
        sets: sets(),
        chains: vec![
            chain("sub", None, vec![plain(Statement::Verdict(Verdict::Return))]),
            chain("out", hook(ChainKind::Nat, HookPoint::Output, -95), rules),
            chain(
                "early",
                hook(ChainKind::Filter, HookPoint::Prerouting, -300),
                vec![plain(Statement::Counter)],
            ),
        ],
    };
    let text = format!(
        "table inet kuma_mesh {{{SETS}
    chain sub {{
        return
    }}
    chain out {{
        type nat hook output priority -95; policy accept;
{text}    }}
    chain early {{
        type filter hook prerouting priority -300; policy accept;
        counter
    }}
}}
"
    );
    (table, text)
}
