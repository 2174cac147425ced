//! Any bytes as what the kernel tells of our table: read without a panic, and what was read can be written and read
//! again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tproxy::attribute::Attributes;
use tproxy::backend::nftables::decode::decode;
use tproxy::backend::nftables::encode;
use tproxy::backend::nftables::foreign::intruders;
use tproxy::backend::nftables::model::{Statement, TABLE};
use tproxy::backend::nftables::refusal::Refused;
use tproxy::backend::nftables::replay::again;
use tproxy::backend::nftables::wire::{INET, Message};

/// Messages one after the other: a kind, a length of two bytes, attributes behind the table's name.
fn messages(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let [kind, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (attributes, behind) = rest.split_at(length);
        let mut body: Vec<u8> = Attributes::new().text(1, TABLE).into();
        body.extend(attributes);
        messages.push(Message { kind: u16::from(kind % 24), flags: 0, family: INET, body });
        bytes = behind;
    }
    messages
}

fuzz_target!(|bytes: &[u8]| {
    let messages = messages(bytes);
    let observed = decode(&messages);
    for set in observed.table.sets.values() {
        assert!(set.intervals.iter().all(|interval| interval.first <= interval.last));
        assert!(set.intervals.windows(2).all(|pair| pair[0].last < pair[1].first));
    }
    let _ = intruders(&observed);
    // What is sent for a way back is told again as the same; a second way back sends the same bytes.
    let sent = again(&messages);
    assert_eq!(again(&sent), sent);
    for (place, message) in messages.iter().enumerate() {
        let refused = Refused::new(Some(message), Some(place * 8), 2, None);
        let _ = (refused.to_string(), refused.hint());
    }
    let rules = || observed.table.chains.iter().flat_map(|chain| &chain.rules);
    // What is not understood, or tests addresses in a set that is not there, is not written as it was read.
    let plain = rules().flat_map(|rule| &rule.statements).all(|statement| match statement {
        Statement::Foreign(..) => false,
        Statement::Address(_, test) => !format!("{test:?}").contains("In("),
        _ => true,
    });
    if plain {
        let _ = decode(&encode::create(&observed.table));
    }
});
