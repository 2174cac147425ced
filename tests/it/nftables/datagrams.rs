//! What the kernel sends, byte for byte, and what such datagrams may become: whatever is in one, it is read to its end,
//! and what it tells of our table is used as if it were true.
//!
//! `fuzz/seeds/netlink` has datagrams that a kernel sent; `UPDATE_GOLDEN=1 cargo test --test it datagrams` records them
//! anew.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use proptest::prelude::*;
use tproxy::attribute::{Attributes, find_text};
use tproxy::backend::nftables::change::Wanted;
use tproxy::backend::nftables::commit::bring;
use tproxy::backend::nftables::decode::{Observed, decode};
use tproxy::backend::nftables::foreign::intruders;
use tproxy::backend::nftables::lower;
use tproxy::backend::nftables::model::TABLE;
use tproxy::backend::nftables::observe::observe;
use tproxy::plan::build;
use tproxy::sys::netlink::answer::Answer;
use tproxy::sys::netlink::nftables::Door;

use super::{foreign, sample};
use crate::pure::golden;
use crate::support::{Lab, firewall};

#[path = "../../../fuzz/told.rs"]
mod told;

const HEADER: usize = 16;
const SET: u16 = 9;
const DONE: [u8; 2] = 3_u16.to_ne_bytes();
/// The questions for lists of chains, rules, objects, flowtables, sets.
const LISTS: [u16; 5] = [4, 7, 19, 23, 10];

fn seeds() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "seeds", "netlink"].iter().collect()
}

/// A question to `nf_tables` about the family `inet`.
fn question(kind: u16, flags: u16, attributes: Attributes) -> Vec<u8> {
    let body: Vec<u8> = attributes.into();
    let length = u32::try_from(HEADER + 4 + body.len()).expect("a short question");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend((10 << 8 | kind).to_ne_bytes());
    bytes.extend((1 | flags).to_ne_bytes());
    bytes.extend(told::SEQUENCE.to_ne_bytes());
    bytes.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    bytes.extend(body);
    bytes
}

/// All messages of the answer, as they came; the last one only says that it was.
fn answer(question: &[u8]) -> Vec<u8> {
    let door =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)
            .expect("a socket");
    sendto(door.as_raw_fd(), question, &NetlinkAddr::new(0, 0), MsgFlags::empty()).expect("a question");
    let (mut all, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let size = recv(door.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("an answer");
        let mut datagram = &buffer[..size];
        while let Some(length) = datagram.first_chunk() {
            let length = usize::try_from(u32::from_ne_bytes(*length)).expect("a length");
            // An end, or an error that is none.
            if [DONE, [2, 0]].contains(&[datagram[4], datagram[5]]) {
                return all;
            }
            let (message, rest) = datagram.split_at(length.next_multiple_of(4));
            all.extend(message);
            datagram = rest;
        }
    }
}

/// Everything about our table.
fn dump() -> Vec<u8> {
    const DUMP: u16 = 0x300;
    const ACKNOWLEDGE: u16 = 4;
    let of_table = || Attributes::new().text(1, TABLE);
    let mut all = answer(&question(1, ACKNOWLEDGE, of_table()));
    for list in LISTS {
        all.extend(answer(&question(list, DUMP, of_table())));
    }
    let mut told = Answer::to(told::SEQUENCE);
    let _ = told.take(&all).expect("no error");
    for set in told.messages.iter().filter(|message| message.kind == SET) {
        let name = find_text(&set.body, 2).expect("a name");
        all.extend(answer(&question(13, DUMP, of_table().text(2, &name))));
    }
    all
}

fn read(datagram: &[u8]) -> Observed {
    let mut answer = Answer::to(told::SEQUENCE);
    assert!(!answer.take(datagram).expect("no error"), "an end");
    decode(&answer.messages)
}

/// What is recorded was sent by a kernel, and another one sends the same of the same table.
#[test]
fn recorded_datagrams_are_those_of_a_kernel() {
    Lab::enter(|lab| {
        lab.silence();
        let planned = |name: &str| {
            let path = [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name].iter().collect::<PathBuf>();
            let whole = fs::read_to_string(path).expect("a golden");
            let yaml = whole.split_once(golden::LINE).expect("a configuration").0.to_owned();
            Wanted::New(lower::table(&build(&golden::config(name, &yaml), &golden::facts(&yaml)), true))
        };
        let ours = [
            ("statements", Wanted::New(sample::table().0)),
            ("exclusions", planned("exclusions.txt")),
            ("vnets", planned("vnets.txt")),
        ];
        for (name, wanted) in ours {
            bring(Some(&wanted)).expect("a table");
            let now = recorded(name);
            assert_eq!(now.table, *wanted.table(), "{name}");
            assert_eq!(intruders(&now).is_empty(), name != "statements", "{name}");
        }
        bring(None).expect("no table");
        firewall::nft(foreign::EVERYTHING);
        let now = recorded("everything");
        assert!(intruders(&now).iter().any(|what| what.starts_with("quota some")), "{now:?}");
    });
}

/// What the kernel tells now, which is what the file of that name tells.
#[track_caller]
fn recorded(name: &str) -> Observed {
    let (dump, path) = (dump(), seeds().join(name));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &dump).expect("a writable seed");
    }
    let now = read(&dump);
    let seen = observe(&mut Door::open().expect("a door")).expect("an answer").table.expect("a table");
    assert_eq!((&now.table, &now.counts, &now.foreign), (&seen.table, &seen.counts, &seen.foreign), "{name}");
    let then = read(&fs::read(path).expect("a seed"));
    // A chain within a rule is named by a number that is another one each time.
    let shape = |of: &Observed| (of.table.sets.clone(), of.table.rule_count(), of.foreign.clone());
    assert_eq!(shape(&now), shape(&then), "{name}");
    now
}

/// Something that happens to bytes; places count from the beginning again when there are fewer.
#[derive(Debug, Clone)]
enum Mishap {
    Flip(usize, u8),
    /// A length, a kind or a number becomes another one.
    Write(usize, u16),
    Cut(usize, usize),
    Repeat(usize, usize),
    /// All behind it is lost.
    End(usize),
}

fn mishap() -> impl Strategy<Value = Mishap> {
    let size = prop_oneof![1..8_usize, 1..200_usize];
    prop_oneof![
        4 => (any::<usize>(), 0..8_u8).prop_map(|(at, bit)| Mishap::Flip(at, bit)),
        4 => (any::<usize>(), prop_oneof![0..64_u16, any::<u16>()]).prop_map(|(at, is)| Mishap::Write(at, is)),
        1 => (any::<usize>(), size.clone()).prop_map(|(at, size)| Mishap::Cut(at, 4 * size)),
        1 => (any::<usize>(), size).prop_map(|(at, size)| Mishap::Repeat(at, 4 * size)),
        1 => any::<usize>().prop_map(Mishap::End),
    ]
}

fn suffer(bytes: &mut Vec<u8>, mishap: &Mishap) {
    if bytes.is_empty() {
        return;
    }
    let place = |at: &usize| at % bytes.len();
    match mishap {
        Mishap::Flip(at, bit) => {
            let at = place(at);
            bytes[at] ^= 1 << bit;
        }
        Mishap::Write(at, is) => {
            // Everything begins at a fourth byte.
            let at = place(at) & !3;
            bytes.iter_mut().skip(at).zip(is.to_ne_bytes()).for_each(|(byte, is)| *byte = is);
        }
        Mishap::Cut(at, size) => {
            let at = place(at) & !3;
            bytes.drain(at..bytes.len().min(at + size));
        }
        Mishap::Repeat(at, size) => {
            let at = place(at) & !3;
            let end = bytes.len().min(at + size);
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        Mishap::End(at) => bytes.truncate(place(at)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn what_happens_to_a_datagram_breaks_nothing(
        seed in prop::sample::select(vec!["statements", "exclusions", "vnets", "everything"]),
        mishaps in prop::collection::vec(mishap(), 0..12),
    ) {
        let mut bytes = fs::read(seeds().join(seed)).expect("a seed");
        for mishap in &mishaps {
            suffer(&mut bytes, mishap);
        }
        told::datagram(&bytes);
    }

    #[test]
    fn no_bytes_break_it(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        kind in 0..26_u16,
        subsystem in prop_oneof![4 => Just(10), 1 => 0..12_u16],
    ) {
        told::datagram(&bytes);
        // As a message of a likely kind.
        let mut message = question(kind, 0, Attributes::new().text(1, TABLE));
        message.extend(&bytes);
        let length = u32::try_from(message.len()).expect("a short message");
        message[..4].copy_from_slice(&length.to_ne_bytes());
        message[4..6].copy_from_slice(&(subsystem << 8 | kind).to_ne_bytes());
        told::datagram(&message);
    }
}
