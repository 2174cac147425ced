//! What the kernel told of a table, as the messages that make the same once more: whatever is in it, whether or not
//! it can be said in our words, and with what it counted. Pure.
//!
//! A kernel tells of a thing in the attributes with which it is made, and in a few more: handles, which are given
//! anew, and numbers of users. Those are left out here, because newer kernels refuse some of them.

use std::collections::BTreeMap;

use crate::attribute::{Attributes, attributes, find, find_text, find_u32};

use super::elements;
use super::wire::{self, APPEND, CREATE, INET, Message, message};

/// Of each kind of message, in the order in which things need each other: the attributes with which the thing is
/// made. Elements can lead to chains and objects, rules to everything.
const MADE_OF: [(u16, &[u16]); 7] = [
    // Name, flags, user data.
    (message::NEW_TABLE, &[1, 2, 6]),
    // Table, name, hook, policy, type, counters, flags, user data.
    (message::NEW_CHAIN, &[1, 3, 4, 5, 7, 8, 10, 12]),
    // Table, name, type, data, user data.
    (message::NEW_OBJECT, &[1, 2, 3, 4, 8]),
    // Table, name, hook, flags.
    (message::NEW_FLOWTABLE, &[1, 2, 3, 7]),
    // Table, name, flags, key, data, policy, size, timeouts, user data, objects, expressions.
    (message::NEW_SET, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 17, 18]),
    // Table, set, elements.
    (message::NEW_ELEMENTS, &[1, 2, 3]),
    // Table, chain, expressions, compatibility, user data.
    (message::NEW_RULE, &[1, 2, 4, 5, 7]),
];

/// The messages that make it where it is not.
pub fn again(told: &[Message]) -> Vec<Message> {
    let mut messages = Vec::with_capacity(told.len());
    for (kind, keep) in MADE_OF {
        let of_kind = told.iter().filter(|message| message.kind == kind);
        match kind {
            message::NEW_ELEMENTS => messages.extend(all_elements(of_kind)),
            message::NEW_RULE => {
                messages.extend(inner_first(of_kind, told).into_iter().map(|rule| made(rule, keep)));
            }
            message::NEW_SET => {
                // A set is known by a number too while it is made.
                messages.extend((1..).zip(of_kind).map(|(id, set)| {
                    let mut message = made(set, keep);
                    message.body.extend(Vec::from(Attributes::new().number(wire::set::ID, id)));
                    message
                }));
            }
            _ => messages.extend(of_kind.map(|message| made(message, keep))),
        }
    }
    messages
}

fn made(message: &Message, keep: &[u16]) -> Message {
    let body = attributes(&message.body)
        .filter(|(kind, _)| keep.contains(kind))
        .fold(Attributes::new(), |body, (kind, value)| body.bytes(kind, value));
    let append = if message.kind == message::NEW_RULE { APPEND } else { 0 };
    Message { kind: message.kind, flags: CREATE | append, family: INET, body: body.into() }
}

/// The elements of each set in the order in which `nft` sends them, by which some kernels tell intervals that
/// overlap: ascending, an end before a beginning.
fn all_elements<'a>(told: impl Iterator<Item = &'a Message>) -> Vec<Message> {
    let mut sets: BTreeMap<String, Vec<&[u8]>> = BTreeMap::new();
    for message in told {
        let name = find_text(&message.body, wire::element::SET).unwrap_or_default();
        let list = find(&message.body, wire::element::LIST).unwrap_or_default();
        sets.entry(name).or_default().extend(attributes(list).map(|(_, element)| element));
    }
    let place = |element: &&[u8]| {
        let key = find(element, wire::element::KEY).and_then(|key| find(key, wire::data::VALUE));
        (key.unwrap_or_default().to_vec(), !is_end(element))
    };
    let mut messages = Vec::new();
    for (name, mut list) in sets {
        list.sort_by_cached_key(place);
        messages.extend(elements::split(&name, list.into_iter().map(element), message::NEW_ELEMENTS, CREATE));
    }
    messages
}

fn is_end(element: &[u8]) -> bool {
    use wire::element::{FLAGS, INTERVAL_END};
    find_u32(element, FLAGS).unwrap_or_default() & INTERVAL_END != 0
}

/// The kernel tells of the time that an end has left, and takes none for it.
fn element(told: &[u8]) -> Attributes {
    use wire::element::{FLAGS, KEY};
    if !is_end(told) {
        return told.into();
    }
    let kept = attributes(told).filter(|(kind, _)| [KEY, FLAGS].contains(kind));
    kept.fold(Attributes::new(), |kept, (kind, value)| kept.bytes(kind, value))
}

/// The rules in an order in which they can be made. A chain that is part of a rule (`jump { ... }`) takes no further
/// rule once that rule is there.
fn inner_first<'a>(rules: impl Iterator<Item = &'a Message>, told: &[Message]) -> Vec<&'a Message> {
    let inner: Vec<String> = told
        .iter()
        .filter(|message| message.kind == message::NEW_CHAIN)
        .filter(|message| {
            let flags = find_u32(&message.body, wire::chain::FLAGS).unwrap_or_default();
            flags & wire::chain::BINDING != 0
        })
        .filter_map(|message| find_text(&message.body, wire::chain::NAME))
        .collect();
    let mut by_chain: BTreeMap<String, Vec<&Message>> = BTreeMap::new();
    let mut outer = Vec::new();
    for rule in rules {
        let chain = find_text(&rule.body, wire::rule::CHAIN).unwrap_or_default();
        if inner.contains(&chain) { by_chain.entry(chain).or_default().push(rule) } else { outer.push(rule) }
    }
    let mut ordered = Vec::new();
    for rule in outer {
        with_its_chains(rule, &mut by_chain, &mut ordered);
    }
    ordered
}

/// The rule, after those of the chains that are part of it.
fn with_its_chains<'a>(
    rule: &'a Message,
    by_chain: &mut BTreeMap<String, Vec<&'a Message>>,
    ordered: &mut Vec<&'a Message>,
) {
    let names: Vec<String> = by_chain.keys().filter(|name| mentions(rule, name)).cloned().collect();
    for name in names {
        for inner in by_chain.remove(&name).unwrap_or_default() {
            with_its_chains(inner, by_chain, ordered);
        }
    }
    ordered.push(rule);
}

fn mentions(rule: &Message, chain: &str) -> bool {
    let expressions = find(&rule.body, wire::rule::EXPRESSIONS).unwrap_or_default();
    let name: Vec<u8> = chain.bytes().chain([0]).collect();
    expressions.windows(name.len()).any(|window| window == name)
}

#[cfg(test)]
mod tests {
    use super::super::decode::decode;
    use super::super::foreign::intruders;
    use super::super::model::TABLE;
    use super::*;

    /// A flowtable as a kernel tells of it, which many kernels are made without: its name, where and on what it is,
    /// how many use it, its handle, its flags.
    fn flowtable() -> Message {
        let device = Attributes::new().text(1, "eth0");
        let hook = Attributes::new().number(1, 0).number(2, 0).nested(3, &device);
        let named = Attributes::new().text(1, TABLE).text(2, "fast").nested(3, &hook);
        let body = named.number(4, 1).bytes(5, &[0, 0, 0, 0, 0, 0, 0, 9]).number(7, 1);
        Message { kind: message::NEW_FLOWTABLE, flags: 2, family: INET, body: body.into() }
    }

    #[test]
    fn a_flowtable_is_named_and_made_again_before_the_rules_that_use_it() {
        let named = || Attributes::new().text(1, TABLE);
        let told = |kind, body: Attributes| Message { kind, flags: 2, family: INET, body: body.into() };
        let uses = Attributes::new().text(1, "flow_offload").nested(2, &Attributes::new().text(1, "fast"));
        let rule = named().text(2, "outbound").nested(4, &Attributes::new().nested(1, &uses));
        let told = [
            told(message::NEW_RULE, rule),
            flowtable(),
            told(message::NEW_CHAIN, named().text(3, "outbound")),
            told(message::NEW_TABLE, named()),
        ];
        let observed = decode(&told);
        assert_eq!(intruders(&observed), ["flowtable fast", "chain outbound: <flow_offload>"]);
        assert!(observed.handles.contains(&9), "another one of the same name is another one");

        let sent = again(&told);
        let kinds = [message::NEW_TABLE, message::NEW_CHAIN, message::NEW_FLOWTABLE, message::NEW_RULE];
        assert_eq!(sent.iter().map(|message| message.kind).collect::<Vec<_>>(), kinds);
        let given: Vec<u16> = attributes(&sent[2].body).map(|(kind, _)| kind).collect();
        assert_eq!(given, [1, 2, 3, 7], "neither users nor a handle");
        assert_eq!(find(&sent[2].body, 3), find(&flowtable().body, 3));
        assert_eq!(decode(&sent).foreign, observed.foreign);
    }
}
