//! Any bytes as what the kernel tells of our table, whose name is put before them: read without a panic, and what was
//! read can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tproxy::attribute::Attributes;
use tproxy::backend::nftables::model::TABLE;
use tproxy::backend::nftables::wire::{INET, Message};

#[allow(dead_code, reason = "datagrams have a target of their own")]
#[path = "../told.rs"]
mod told;

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
    told::messages(&messages(bytes));
});
