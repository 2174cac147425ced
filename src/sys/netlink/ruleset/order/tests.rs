use std::time::Duration;

use super::*;
use crate::attribute::Attributes;
use crate::sys::netlink::message::nest;
use crate::sys::netns::testing::apart;
use crate::sys::run::{Command, run};

fn key(family: FamilyNumber, table: &str, chain: &str) -> Key {
    (family, table.to_owned(), chain.to_owned())
}

fn chain(family: FamilyNumber, table: &str, chain: &str) -> Called {
    Called::Chain(key(family, table, chain))
}

/// An answer of `nfnetlink_hook` as the kernel puts one together.
fn answer(function: &str, priority: i32, chain: Option<(&str, &str, FamilyNumber)>) -> Vec<u8> {
    let mut body = Attributes::new().text(5, "a_module").text(4, function).number(1, 3);
    body = body.number(2, priority.cast_unsigned());
    if let Some((table, name, family)) = chain {
        let told = Attributes::new().text(1, table).text(3, name).bytes(2, &[family]);
        body = body.nested(6, &Attributes::new().number(2, 1).nested(1, &told));
    }
    let body: Vec<u8> = body.into();
    [&[2, 0, 0, 0][..], &body].concat()
}

fn read_answer(payload: &[u8]) -> Option<Called> {
    called(&Message { kind: HOOK, payload, ..Message::default() })
}

#[test]
fn the_question_is_the_one_that_the_kernel_takes() {
    let question = question((10, 3));
    let bytes = question.bytes();
    // Kind, family, and the number of the hook as an attribute.
    assert_eq!(bytes[4..6], HOOK.to_ne_bytes());
    assert_eq!(bytes[16..20], [10, 0, 0, 0]);
    assert_eq!(bytes[20..], *nest(&[(1, &[0, 0, 0, 3])]));
}

#[test]
fn answers_name_chains_and_legacy_tables() {
    let ours = answer("nft_nat_do_chain", -100, Some(("nat", "OUTPUT", 2)));
    assert_eq!(read_answer(&ours), Some(chain(2, "nat", "OUTPUT")));
    for function in ["ipt_do_table", "ip6t_do_table", "iptable_nat_do_chain", "ip6table_nat_do_chain"] {
        assert_eq!(read_answer(&answer(function, -100, None)), Some(Called::Legacy), "{function}");
        assert_eq!(read_answer(&answer(function, -300, None)), Some(Called::Other), "{function}");
    }
    assert_eq!(read_answer(&answer("nf_nat_ipv4_out", -100, None)), Some(Called::Other));
    for cut in 0..ours.len() {
        read_answer(&ours[..cut]);
    }
}

#[test]
fn a_list_of_the_kernel_counts_more_than_ages() {
    let (one, other) = (chain(2, "one", "c"), chain(1, "other", "c"));
    let listed = [Called::Other, one.clone(), other.clone(), Called::Legacy].to_vec();
    let age = |table| Age { table, chain: 1, with_table: true };
    let ages = [(key(2, "one", "c"), age(1)), (key(1, "other", "c"), age(2))];
    let mut order = Order { called: [((2, 3), listed)].into(), ages: ages.into() };
    assert_eq!(order.turn((2, 3), &one, &other), Turn::Before);
    assert_eq!(order.turn((2, 3), &other, &one), Turn::After);
    assert_eq!(order.turn((2, 3), &Called::Legacy, &one), Turn::After);
    // A kernel that lists only the hook behind which they hang.
    order.called.insert((2, 3), vec![Called::Other]);
    assert_eq!(order.turn((2, 3), &one, &other), Turn::After);
    assert_eq!(order.turn((2, 3), &Called::Legacy, &one), Turn::Unknown);
}

#[test]
fn handles_tell_what_was_made_last() {
    let table = |name: &str| (2, name.to_owned());
    let tables = [(table("old"), 1), (table("new"), 2)];
    let chains = [(key(2, "old", "a"), 1), (key(2, "old", "b"), 5), (key(2, "new", "c"), 2)];
    let sets = [(table("new"), 1)];
    let order = Order { called: BTreeMap::new(), ages: ages(&tables, &chains, &sets) };
    let turn = |one: (&str, &str), other: (&str, &str)| {
        order.turn((2, 3), &chain(2, one.0, one.1), &chain(2, other.0, other.1))
    };
    assert_eq!(turn(("new", "c"), ("old", "a")), Turn::Before);
    assert_eq!(turn(("old", "a"), ("new", "c")), Turn::After);
    // Between `a` and `b` something was made that is gone, or is a rule: `b` may be newer than the other table.
    assert_eq!(turn(("new", "c"), ("old", "b")), Turn::Unknown);
    assert_eq!(turn(("old", "b"), ("new", "c")), Turn::Unknown);
    assert_eq!(turn(("old", "b"), ("old", "a")), Turn::Before);
    assert_eq!(turn(("old", "b"), ("gone", "a")), Turn::Unknown);
}

fn nft(script: &str) {
    let nft = Command::new("nft", ["-f", "-"], Duration::from_secs(20));
    let output = run(&Command { stdin: script.into(), ..nft }).unwrap();
    assert!(output.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn ages_are_those_of_the_kernel() {
    let nat = |table: &str, more: &str| {
        format!("table ip {table} {{\n{more}\nchain c {{\ntype nat hook output priority -100\n}}\n}}\n")
    };
    let order = apart(|| {
        nft(&nat("one", ""));
        nft(&nat("other", "set s {\ntype ipv4_addr\n}"));
        nft("table ip late {\nchain x {\naccept\n}\n}\n");
        nft(&nat("late", ""));
        nft(&(nat("asleep", "") + "add table ip asleep { flags dormant; }\n"));
        super::super::read(|_| true).unwrap()
    });
    let Some(ruleset) = order else { return };
    let turn = |one, other| ruleset.order.turn((2, 3), &chain(2, one, "c"), &chain(2, other, "c"));
    assert_eq!([turn("other", "one"), turn("one", "other")], [Turn::Before, Turn::After]);
    assert_eq!(turn("late", "one"), Turn::Before);
    // The rule in it is older than the chain.
    nft_is_unknown(turn("asleep", "late"));
    assert!(ruleset.hooked.iter().all(|chain| chain.table != "asleep"), "{ruleset:?}");
}

/// With a list of the kernel it is known.
fn nft_is_unknown(turn: Turn) {
    assert!(matches!(turn, Turn::Unknown | Turn::Before), "{turn:?}");
}
