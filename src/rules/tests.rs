//! What is told of packets that are not wholly known, beside what happens to each that they may be.

use proptest::prelude::*;

use super::model::{Action, Called, Chain, Field, Hook, Name, Packet, Rule, Test, Truth, Value};
use super::walk::{Deed, Part, at};
use crate::plan::Family;

/// Few numbers, so that rules and packets meet.
fn number() -> impl Strategy<Value = u128> {
    0..5u128
}

fn field() -> impl Strategy<Value = Field> {
    prop::sample::select(vec![Field::Source, Field::DestinationPort, Field::User])
}

fn test() -> impl Strategy<Value = Test> {
    let spans =
        prop::collection::vec((number(), 0..3u128).prop_map(|(first, more)| first..=first + more), 0..3);
    prop_oneof![
        6 => (field(), spans, any::<bool>()).prop_map(|(field, spans, negated)| Test::In { field, spans, negated }),
        1 => (field(), 1..8u128, any::<bool>()).prop_map(|(field, mask, negated)| Test::Bits { field, mask, negated }),
        1 => ("[ab]", any::<bool>(), any::<bool>()).prop_map(|(text, prefix, negated)| {
            Test::Interface { leaving: false, names: vec![Name { text, prefix }], negated }
        }),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Continue),
        Just(Action::Accept),
        Just(Action::Drop),
        Just(Action::Untrack),
        Just(Action::Return),
        "[cd]".prop_map(Action::Jump),
        "[cd]".prop_map(Action::Goto),
    ]
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let rule = (prop::collection::vec(test(), 0..3), action());
    let rule = rule.prop_map(|(tests, action)| Rule { tests, action, name: String::new() });
    prop::collection::vec(rule, 0..5)
}

/// A chain that is called, and two that it may lead to; the last of them leads nowhere, so that nothing goes round.
fn chains() -> impl Strategy<Value = Vec<Chain>> {
    (rules(), rules(), rules(), any::<bool>()).prop_map(|(first, second, mut third, drops)| {
        let leads =
            |rule: &Rule, to: &str| matches!(&rule.action, Action::Jump(of) | Action::Goto(of) if of == to);
        let second: Vec<Rule> = second.into_iter().filter(|rule| !leads(rule, "c")).collect();
        third.retain(|rule| !leads(rule, "c") && !leads(rule, "d"));
        let called = Called { hook: Hook::Output, priority: 0, translates: false, drops };
        let chain = |name: &str, called, rules| Chain {
            families: Family::BOTH.to_vec(),
            table: "t".into(),
            name: name.into(),
            called,
            rules,
        };
        vec![chain("b", Some(called), first), chain("c", None, second), chain("d", None, third)]
    })
}

#[derive(Debug, Clone)]
struct Known {
    source: u128,
    port: u128,
    user: u128,
    input: String,
}

fn known() -> impl Strategy<Value = Known> {
    (number(), number(), number(), "[ab]{1,2}").prop_map(|(source, port, user, input)| Known {
        source,
        port,
        user,
        input,
    })
}

impl Known {
    /// The packet, of which some is known.
    fn packet(&self, source: bool, port: bool, user: bool) -> Packet {
        let value = |known: bool, number| if known { Value::Is(number) } else { Value::Any };
        let mut packet = Packet::new(Family::V4)
            .with(Field::Source, value(source, self.source))
            .with(Field::DestinationPort, value(port, self.port))
            // Of what is not known at least one thing is: that it is not the fifth.
            .with(Field::User, if user { Value::Is(self.user) } else { Value::NotIn(vec![4..=4]) });
        packet.input = Some(self.input.clone());
        packet
    }
}

/// What happens to a packet that is wholly known, rule by rule: the plain way to say it.
fn happens(chains: &[Chain], packet: &Packet) -> Vec<(usize, Option<usize>)> {
    enum End {
        Back,
        Over,
    }
    fn walk(chains: &[Chain], at: usize, packet: &Packet, met: &mut Vec<(usize, Option<usize>)>) -> End {
        for (number, rule) in chains[at].rules.iter().enumerate() {
            if rule.tests.iter().any(|test| test.holds(packet) != Truth::Yes) {
                continue;
            }
            let named = |name: &str| chains.iter().position(|chain| chain.name == name).unwrap();
            match &rule.action {
                Action::Drop => {
                    met.push((at, Some(number)));
                    return End::Over;
                }
                Action::Untrack => met.push((at, Some(number))),
                Action::Accept => return End::Over,
                Action::Return => return End::Back,
                Action::Jump(to) => {
                    if let End::Over = walk(chains, named(to), packet, met) {
                        return End::Over;
                    }
                }
                Action::Goto(to) => return walk(chains, named(to), packet, met),
                _ => {}
            }
        }
        End::Back
    }
    let mut met = Vec::new();
    if let (End::Back, true) = (walk(chains, 0, packet, &mut met), chains[0].called.unwrap().drops) {
        met.push((0, None));
    }
    met
}

/// The same as it is told, with how sure it is.
fn told(chains: &[Chain], packet: &Packet) -> Vec<((usize, Option<usize>), Truth)> {
    let place = |finding: &super::walk::Finding<'_>| {
        let chain = chains.iter().position(|chain| std::ptr::eq(chain, finding.chain)).unwrap();
        let rule = finding
            .rule
            .map(|rule| finding.chain.rules.iter().position(|of| std::ptr::eq(of, rule)).unwrap());
        (chain, rule)
    };
    let found = at(chains, Hook::Output, Part::All, false, packet);
    found.iter().map(|finding| (place(finding), finding.sure)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn of_a_packet_that_is_known_everything_is_told(chains in chains(), known in known()) {
        let packet = known.packet(true, true, true);
        let told = told(&chains, &packet);
        prop_assert!(told.iter().all(|(_, sure)| *sure == Truth::Yes), "{told:?}");
        let places: Vec<_> = told.into_iter().map(|(place, _)| place).collect();
        prop_assert_eq!(places, happens(&chains, &packet));
    }

    /// Whatever may happen is told, and what is told for sure happens to each.
    #[test]
    fn of_others_what_may_be_and_what_must_be(
        chains in chains(), known in known(), source in any::<bool>(), port in any::<bool>(), user in any::<bool>()
    ) {
        let told = told(&chains, &known.packet(source, port, user));
        let sure = |place| told.iter().filter(|(of, _)| *of == place).map(|(_, sure)| *sure).max();
        let some = |known: bool, number: u128, end: u128| if known { number..=number } else { 0..=end };
        for source in some(source, known.source, 6) {
            for port in some(port, known.port, 6) {
                for user in some(user, known.user, 3) {
                    let one = Known { source, port, user, input: known.input.clone() };
                    let happens = happens(&chains, &one.packet(true, true, true));
                    for place in &happens {
                        prop_assert!(sure(*place).is_some(), "{place:?} is not told: {told:?}");
                    }
                    for (place, _) in told.iter().filter(|(_, sure)| *sure == Truth::Yes) {
                        prop_assert!(happens.contains(place), "{place:?} does not happen to {one:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..96), family in 0..12u8) {
        let told = [(family, bytes.as_slice())];
        super::nft::chains(&told, &told, &told);
        super::xt::target("CT", &bytes);
        for name in ["tcp", "udp", "multiport", "owner", "addrtype", "conntrack", "state", "mark", "set"] {
            super::xt::matched(name, 1, &bytes);
        }
    }
}

#[test]
fn a_rule_before_ours_lets_past_and_one_behind_does_not() {
    let rule = |action| Rule { tests: Vec::new(), action, name: String::new() };
    let called = Called { hook: Hook::Output, priority: -100, translates: true, drops: false };
    let chain = |rules| Chain {
        families: vec![Family::V4],
        table: "ip nat".into(),
        name: "OUTPUT".into(),
        called: Some(called),
        rules,
    };
    let packet = Packet::new(Family::V4);
    let deeds = |rules| {
        let chains = [chain(rules)];
        let found = at(&chains, Hook::Output, Part::All, false, &packet);
        found.iter().map(|finding| finding.deed).collect::<Vec<_>>()
    };
    assert_eq!(deeds(vec![rule(Action::Accept), rule(Action::Ours)]), [Deed::LetsPast]);
    assert_eq!(deeds(vec![rule(Action::Translate), rule(Action::Ours)]), [Deed::Translates]);
    assert_eq!(deeds(vec![rule(Action::OursPasses), rule(Action::Ours), rule(Action::Accept)]), []);
    assert_eq!(deeds(vec![rule(Action::Accept)]), [], "ours are elsewhere");
    let chains = [chain(vec![rule(Action::Translate)])];
    assert!(at(&chains, Hook::Output, Part::All, true, &packet).is_empty(), "its destination is decided");
    assert!(at(&chains, Hook::Output, Part::UpTo(-101), false, &packet).is_empty());
}
