//! A batch of ours makes exactly what `nft` makes of the same words.

use tproxy::backend::nftables::decode::decode;
use tproxy::backend::nftables::encode;
use tproxy::backend::nftables::observe::{observe, read};
use tproxy::backend::nftables::wire::Message;
use tproxy::sys::netlink::nftables::Door;

use super::sample;
use crate::support::{Lab, firewall};

/// What the kernel tells, without what differs each time.
fn told(door: &mut Door) -> Vec<Message> {
    let mut told = read(door).expect("an answer").expect("a table");
    for message in &mut told {
        message.flags = 0;
        message.body = without_handles(message);
    }
    told.sort_by_key(|message| message.kind);
    told
}

fn without_handles(message: &Message) -> Vec<u8> {
    use tproxy::attribute::{Attributes, attributes};
    const TABLE: (u16, &[u16]) = (0, &[4]);
    const CHAIN: (u16, &[u16]) = (3, &[2]);
    // Handle and place.
    const RULE: (u16, &[u16]) = (6, &[3, 6]);
    // ID, which the kernel does not keep, and handle.
    const SET: (u16, &[u16]) = (9, &[16]);
    let drop =
        [TABLE, CHAIN, RULE, SET].into_iter().find(|(kind, _)| *kind == message.kind).map(|(_, drop)| drop);
    attributes(&message.body)
        .filter(|(kind, _)| !drop.is_some_and(|drop| drop.contains(kind)))
        .fold(Attributes::new(), |kept, (kind, value)| kept.bytes(kind, value))
        .into()
}

#[test]
fn the_kernel_has_the_same_as_after_nft() {
    Lab::enter(|lab| {
        // A stray packet would be counted.
        lab.silence();
        let (table, text) = sample::table();
        firewall::nft(&text);
        let mut door = Door::open().expect("a door");
        let seen = observe(&mut door).expect("an answer");
        let theirs = told(&mut door);
        door.commit(&encode::replace(&table), seen.generation).expect("a table");
        let ours = told(&mut door);
        for (theirs, ours) in theirs.iter().zip(&ours) {
            assert_eq!(
                theirs,
                ours,
                "nft's:\n{:?}\nours:\n{:?}",
                decode(std::slice::from_ref(theirs)),
                decode(std::slice::from_ref(ours))
            );
        }
        assert_eq!(theirs.len(), ours.len());
        let read = observe(&mut door).expect("an answer").table.expect("a table");
        assert_eq!(read.table, table);
        assert!(read.is(&table));
    });
}
