//! Sets and their elements as messages.
//!
//! The kernel keeps an interval as two elements: its first value, and, marked as an end, the first value that is not
//! in it any more. One that reaches to the highest value has no end.

use crate::attribute::Attributes;

use super::encode::new;
use super::model::TABLE;
use super::set::{Interval, Key, Set};
use super::wire::{INET, Message, element, message, set, userdata};

/// An attribute's length is a 16-bit number, and all elements of a message are one attribute.
const ROOM: usize = 60_000;

impl Key {
    /// `enum datatypes` in nft's `datatype.h`, and in which byte order `nft` shows the numbers.
    const fn datatype(self) -> (u32, u32) {
        match self {
            Self::Ipv4 => (7, set::NETWORK_ORDER),
            Self::Ipv6 => (8, set::NETWORK_ORDER),
            Self::Port => (13, set::NETWORK_ORDER),
            Self::Uid => (24, set::HOST_ORDER),
            Self::Interface => (41, set::HOST_ORDER),
        }
    }

    /// That of a set whose elements have this type and length.
    pub(super) fn of(datatype: u32, length: u32) -> Option<Self> {
        [Self::Ipv4, Self::Ipv6, Self::Port, Self::Uid, Self::Interface]
            .into_iter()
            .find(|key| key.datatype().0 == datatype && usize::try_from(length) == Ok(key.width()))
    }
}

/// The message that makes a set; the ID is unique among the sets made in the same batch.
pub(super) fn new_set(name: &str, wanted: &Set, id: u32) -> Message {
    let (datatype, order) = wanted.key.datatype();
    let length = u32::try_from(wanted.key.width()).unwrap_or(u32::MAX);
    let shown =
        userdata(&[(set::KEY_BYTE_ORDER, &order.to_ne_bytes()), (set::AUTO_MERGE, &1_u32.to_ne_bytes())]);
    let body = Attributes::new()
        .text(set::TABLE, TABLE)
        .text(set::NAME, name)
        .number(set::FLAGS, set::INTERVAL)
        .number(set::KEY_TYPE, datatype)
        .number(set::KEY_LENGTH, length)
        .number(set::ID, id)
        .bytes(set::USERDATA, &shown);
    new(message::NEW_SET, 0, body)
}

/// The messages that fill a new set.
pub(super) fn fill(name: &str, set: &Set) -> Vec<Message> {
    // nft marks the beginning of what is not in the set, and takes a set to be older than itself that has no mark.
    let gap = set.intervals.first().is_some_and(|interval| interval.first > 0);
    let mark = gap.then(|| end(set.key, 0)).into_iter();
    let elements = mark.chain(set.intervals.iter().flat_map(|interval| both_ends(set.key, *interval)));
    split(name, elements, message::NEW_ELEMENTS, super::wire::CREATE)
}

/// The messages that add intervals to a set, or delete them.
pub(super) fn change(name: &str, key: Key, intervals: &[Interval], kind: u16, flags: u16) -> Vec<Message> {
    split(name, intervals.iter().flat_map(|interval| both_ends(key, *interval)), kind, flags)
}

fn both_ends(key: Key, interval: Interval) -> impl Iterator<Item = Attributes> {
    let start = value(key, interval.first);
    if interval.last >= key.max() {
        let open = userdata(&[(element::ELEMENT_FLAGS, &element::OPEN.to_ne_bytes())]);
        [Some(start.bytes(element::USERDATA, &open)), None]
    } else {
        [Some(start), Some(end(key, interval.last + 1))]
    }
    .into_iter()
    .flatten()
}

fn end(key: Key, number: u128) -> Attributes {
    Attributes::new().number(element::FLAGS, element::INTERVAL_END).nested(element::KEY, &data(key, number))
}

fn value(key: Key, number: u128) -> Attributes {
    Attributes::new().nested(element::KEY, &data(key, number))
}

fn data(key: Key, number: u128) -> Attributes {
    let bytes = number.to_be_bytes();
    Attributes::new().bytes(super::wire::data::VALUE, &bytes[bytes.len() - key.width()..])
}

/// As many messages as it takes.
pub(super) fn split(
    name: &str,
    elements: impl Iterator<Item = Attributes>,
    kind: u16,
    flags: u16,
) -> Vec<Message> {
    let message = |list: &Attributes| {
        let body = Attributes::new()
            .text(element::TABLE, TABLE)
            .text(element::SET, name)
            .nested(element::LIST, list);
        Message { kind, flags, family: INET, body: body.into() }
    };
    let mut messages = Vec::new();
    let mut list = Attributes::new();
    for element in elements {
        if !list.is_empty() && list.len() + element.len() > ROOM {
            messages.push(message(&std::mem::take(&mut list)));
        }
        list = list.nested(element::LIST_ELEMENT, &element);
    }
    if !list.is_empty() {
        messages.push(message(&list));
    }
    messages
}
