//! Random tables: what is written is what is read, by us and by the kernel.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tproxy::attribute::{Attributes, attributes};
use tproxy::backend::nftables::change::Change;
use tproxy::backend::nftables::decode::decode;
use tproxy::backend::nftables::encode;
use tproxy::backend::nftables::model::{
    Chain, ChainKind, End, Hook, HookPoint, Interface, Rule, Statement, Table, Test, Verdict,
};
use tproxy::backend::nftables::observe::observe;
use tproxy::backend::nftables::send::send;
use tproxy::backend::nftables::set::{Interval, Key, Set};
use tproxy::backend::nftables::wire::Message;
use tproxy::config::values::{Port, PortRange, Protocol, UidRange};
use tproxy::plan::Family;
use tproxy::sys::netlink::nftables::Door;

use crate::support::Lab;

const SETS: [(&str, Key); 5] = [
    ("four", Key::Ipv4),
    ("six", Key::Ipv6),
    ("ports", Key::Port),
    ("uids", Key::Uid),
    ("names", Key::Interface),
];

/// Chains of their own that others lead to, each to later ones only: the kernel refuses a circle.
const PLAIN: [&str; 3] = ["a", "b", "c"];

fn tests<T: std::fmt::Debug + Clone + 'static>(
    sets: &'static [&'static str],
    value: impl Strategy<Value = T> + Clone + 'static,
) -> impl Strategy<Value = Test<T>> {
    let set = prop::sample::select(sets).prop_map(str::to_owned);
    prop_oneof![
        value.clone().prop_map(Test::Is),
        value.prop_map(Test::IsNot),
        set.clone().prop_map(Test::In),
        set.prop_map(Test::NotIn),
    ]
}

fn net() -> impl Strategy<Value = IpNet> + Clone {
    let four = (any::<[u8; 4]>(), 0..=32_u8).prop_map(|(octets, bits)| {
        IpNet::from(Ipv4Net::new(octets.into(), bits).expect("a length that exists")).trunc()
    });
    let six = (any::<[u8; 16]>(), 0..=128_u8).prop_map(|(octets, bits)| {
        IpNet::from(Ipv6Net::new(octets.into(), bits).expect("a length that exists")).trunc()
    });
    prop_oneof![four.boxed(), six.boxed()]
}

fn ports() -> impl Strategy<Value = PortRange> + Clone {
    let port = |number: u16| Port::try_from(number).expect("not 0");
    prop_oneof![
        (1..=u16::MAX).prop_map(move |one| PortRange::from(port(one))),
        (1..=u16::MAX, 1..=u16::MAX)
            .prop_map(move |(a, b)| PortRange { first: port(a.min(b)), last: port(a.max(b)) }),
    ]
}

fn uids() -> impl Strategy<Value = UidRange> + Clone {
    prop_oneof![
        any::<u32>().prop_map(|uid| UidRange { first: uid, last: uid }),
        any::<(u32, u32)>().prop_map(|(a, b)| UidRange { first: a.min(b), last: a.max(b) }),
    ]
}

fn interface() -> impl Strategy<Value = Interface> + Clone {
    ("[a-z0-9.@-]{1,15}", any::<bool>()).prop_map(|(name, prefix)| Interface { name, prefix })
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Source), Just(End::Destination)]
}

fn statement() -> impl Strategy<Value = Statement> {
    prop_oneof![
        prop_oneof![Just(Family::V4), Just(Family::V6)].prop_map(Statement::Family),
        prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)].prop_map(Statement::Protocol),
        (end(), tests(&["four", "six"], net())).prop_map(|(end, test)| Statement::Address(end, test)),
        (end(), tests(&["ports"], ports())).prop_map(|(end, test)| Statement::Port(end, test)),
        (end(), tests(&["names"], interface())).prop_map(|(end, test)| Statement::Interface(end, test)),
        tests(&["uids"], uids()).prop_map(Statement::Owner),
        Just(Statement::Invalid),
        Just(Statement::ForOtherHosts),
        Just(Statement::Untracked),
        Just(Statement::Counter),
        ("[ -~]{0,60}", 0..8_u8).prop_map(|(prefix, level)| Statement::Log { prefix, level }),
        any::<u16>().prop_map(Statement::CtZone),
    ]
}

/// How a rule can end in the chain before the last so many of [`PLAIN`].
fn ends(translates: bool, may_jump_to: &'static [&'static str]) -> BoxedStrategy<Vec<Statement>> {
    let mut ends = vec![
        Just(Vec::new()).boxed(),
        Just(vec![Statement::Verdict(Verdict::Accept)]).boxed(),
        Just(vec![Statement::Verdict(Verdict::Drop)]).boxed(),
        Just(vec![Statement::Verdict(Verdict::Return)]).boxed(),
    ];
    if translates {
        let redirect = |number| vec![Statement::Redirect(Port::try_from(number).expect("not 0"))];
        ends.push((1..=u16::MAX).prop_map(redirect).boxed());
    }
    if !may_jump_to.is_empty() {
        let jump = |chain: &str| vec![Statement::Verdict(Verdict::Jump(chain.to_owned()))];
        ends.push(prop::sample::select(may_jump_to).prop_map(jump).boxed());
    }
    prop::strategy::Union::new(ends).boxed()
}

fn chain(
    name: &'static str,
    hook: Option<Hook>,
    may_jump_to: &'static [&'static str],
) -> impl Strategy<Value = Chain> {
    let translates = hook.as_ref().is_none_or(|hook| hook.kind == ChainKind::Nat);
    let comment = prop_oneof![Just(None), "[ -~]{0,127}".prop_map(Some), "\\PC{0,30}".prop_map(Some),];
    let rule = (prop::collection::vec(statement(), 0..5), ends(translates, may_jump_to), comment).prop_map(
        |(mut statements, end, comment)| {
            statements.extend(end);
            Rule { statements, comment }
        },
    );
    prop::collection::vec(rule, 0..6).prop_map(move |rules| Chain {
        name: name.to_owned(),
        hook: hook.clone(),
        rules,
    })
}

fn set(key: Key) -> impl Strategy<Value = Set> {
    let value = || prop_oneof![4 => any::<u128>(), 1 => Just(0), 1 => Just(u128::MAX), 2 => 0..64_u128];
    let interval =
        (value(), prop_oneof![Just(0_u128), 0..50_u128, any::<u128>()]).prop_map(move |(first, more)| {
            let first = first % key.max().saturating_add(1).max(1);
            Interval { first, last: first.saturating_add(more).min(key.max()) }
        });
    prop::collection::vec(interval, 0..8).prop_map(move |intervals| Set::new(key, intervals))
}

fn sets() -> impl Strategy<Value = BTreeMap<String, Set>> {
    SETS.map(|(_, key)| set(key))
        .prop_map(|sets| SETS.iter().map(|(name, _)| (*name).to_owned()).zip(sets).collect())
}

fn table() -> impl Strategy<Value = Table> {
    let hook = |kind, point, priority| Some(Hook { kind, point, priority, drops: false });
    let chains = (
        chain("out", hook(ChainKind::Nat, HookPoint::Output, -95), &PLAIN),
        chain("raw", hook(ChainKind::Filter, HookPoint::Prerouting, -300), &[]),
        chain("in", hook(ChainKind::Nat, HookPoint::Prerouting, -105), &PLAIN),
        chain(PLAIN[0], None, &["b", "c"]),
        chain(PLAIN[1], None, &["c"]),
        chain(PLAIN[2], None, &[]),
    );
    (sets(), chains).prop_map(|(sets, (one, two, three, four, five, six))| Table {
        sets,
        chains: vec![one, two, three, four, five, six],
    })
}

#[test]
fn what_is_encoded_decodes_to_the_same() {
    TestRunner::new(Config { cases: 500, failure_persistence: None, ..Config::default() })
        .run(&table(), |table| {
            let observed = decode(&encode::create(&table));
            prop_assert_eq!(&observed.table, &table);
            prop_assert!(observed.is(&table));
            Ok(())
        })
        .expect("every table");
}

/// With an attribute of a kernel to come at the end of this level and, for expressions and elements, of each below.
fn of_a_newer_kernel(message: &Message) -> Message {
    const NEW: u16 = 200;
    let more = |attributes: Attributes| attributes.bytes(NEW, &[7; 5]);
    let each = |bytes: &[u8], with: &dyn Fn(u16, &[u8]) -> Attributes| {
        more(
            attributes(bytes)
                .fold(Attributes::new(), |all, (kind, value)| all.nested(kind, &with(kind, value))),
        )
    };
    let same = |_: u16, value: &[u8]| Attributes::from(value);
    // NFTA_RULE_EXPRESSIONS and NFTA_SET_ELEM_LIST_ELEMENTS.
    let list = match message.kind {
        6 => 4,
        12 => 3,
        _ => 0,
    };
    let body = attributes(&message.body).fold(Attributes::new(), |body, (kind, value)| {
        if kind != list {
            return body.bytes(kind, value);
        }
        let items = attributes(value).fold(Attributes::new(), |items, (of, item)| {
            // NFTA_EXPR_DATA holds what an expression says.
            let deeper = |kind: u16, value: &[u8]| {
                if message.kind == 6 && kind == 2 { each(value, &same) } else { same(kind, value) }
            };
            items.nested(of, &each(item, &deeper))
        });
        body.nested(kind, &items)
    });
    Message { body: more(body).into(), ..message.clone() }
}

#[test]
fn what_newer_kernels_tell_besides_is_passed_over() {
    TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() })
        .run(&table(), |table| {
            let messages = encode::create(&table);
            let newer: Vec<_> = messages.iter().map(of_a_newer_kernel).collect();
            prop_assert_ne!(&newer, &messages);
            let observed = decode(&newer);
            prop_assert_eq!(&observed.table, &table);
            prop_assert!(observed.is(&table));
            Ok(())
        })
        .expect("every table");
}

#[test]
fn the_kernel_tells_what_it_was_told() {
    Lab::enter(|_| {
        let mut door = Door::open().expect("a door");
        let door = std::cell::RefCell::new(&mut door);
        TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() })
            .run(&table(), |table| {
                let mut door = door.borrow_mut();
                let before = observe(&mut door).expect("an answer");
                send(&mut door, &encode::replace(&table), before.generation)
                    .map_err(|refusal| TestCaseError::fail(refusal.to_string()))?;
                let now = observe(&mut door).expect("an answer").table.expect("a table");
                prop_assert_eq!(&now.foreign, &Vec::<String>::new());
                prop_assert_eq!(&now.table, &table);
                let counters = table.chains.iter().flat_map(|chain| &chain.rules);
                let counters = counters.filter(|rule| rule.statements.contains(&Statement::Counter)).count();
                prop_assert_eq!(now.counts.len(), counters);
                Ok(())
            })
            .expect("every table");
    });
}

#[test]
fn a_set_becomes_another_by_the_difference() {
    Lab::enter(|_| {
        let mut door = Door::open().expect("a door");
        let generation = door.generation().expect("a generation");
        let now = Table {
            sets: SETS.iter().map(|(name, key)| ((*name).to_owned(), Set::new(*key, []))).collect(),
            chains: Vec::new(),
        };
        send(&mut door, &encode::create(&now), generation).expect("a table");
        let state = std::cell::RefCell::new((&mut door, now));
        TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() })
            .run(&sets(), |sets| {
                let (door, now) = &mut *state.borrow_mut();
                let wanted = Table { sets, chains: Vec::new() };
                let Change::Elements(changes) = Change::between(Some(now), Some(&wanted)) else {
                    return Ok(());
                };
                let messages: Vec<_> = changes
                    .iter()
                    .flat_map(|of| encode::elements(&of.set, of.key, &of.add, &of.delete))
                    .collect();
                let generation = door.generation().expect("a generation");
                send(door, &messages, generation)
                    .map_err(|refusal| TestCaseError::fail(format!("{refusal}: {changes:?}")))?;
                let is = observe(door).expect("an answer").table.expect("a table").table;
                // What is there now is what the next one starts from, even if it is not as it should be.
                now.clone_from(&is);
                prop_assert_eq!(is, wanted);
                Ok(())
            })
            .expect("every set");
    });
}
