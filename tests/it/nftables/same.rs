//! A batch of ours makes exactly what `nft` makes of the same words.

use std::fs;
use std::path::Path;

use tproxy::backend::nftables::decode::decode;
use tproxy::backend::nftables::model::Table;
use tproxy::backend::nftables::observe::observe;
use tproxy::backend::nftables::send::send;
use tproxy::backend::nftables::wire::Message;
use tproxy::backend::nftables::{encode, lower, text};
use tproxy::plan::build;
use tproxy::sys::netlink::nftables::Door;

use super::sample;
use crate::pure::golden;
use crate::support::command::{Program, must};
use crate::support::{Lab, firewall};

/// What the kernel tells, without what differs each time.
fn told(door: &mut Door) -> Vec<Message> {
    let seen = observe(door).expect("an answer").table.expect("a table");
    let mut told = seen.told.to_vec();
    for message in &mut told {
        message.flags = 0;
        message.body = without_handles(message);
    }
    told.sort_by_key(|message| message.kind);
    told
}

pub fn without_handles(message: &Message) -> Vec<u8> {
    use tproxy::attribute::{Attributes, attributes};
    const TABLE: (u16, &[u16]) = (0, &[4]);
    const CHAIN: (u16, &[u16]) = (3, &[2]);
    // Handle and place.
    const RULE: (u16, &[u16]) = (6, &[3, 6]);
    // ID, which the kernel does not keep, and handle.
    const SET: (u16, &[u16]) = (9, &[16]);
    const OBJECT: (u16, &[u16]) = (18, &[6]);
    const FLOWTABLE: (u16, &[u16]) = (22, &[5]);
    let drop = [TABLE, CHAIN, RULE, SET, OBJECT, FLOWTABLE]
        .into_iter()
        .find(|(kind, _)| *kind == message.kind)
        .map(|(_, drop)| drop);
    attributes(&message.body)
        .filter(|(kind, _)| !drop.is_some_and(|drop| drop.contains(kind)))
        .fold(Attributes::new(), |kept, (kind, value)| kept.bytes(kind, value))
        .into()
}

/// The expressions of all rules as `nft` shows them that it sends, or is told by the kernel.
fn expressions(args: &[&str], stdin: &str) -> Vec<String> {
    let shown = Program::new("nft").arg("--debug=netlink").args(args).stdin(stdin).run().succeeds().stdout;
    let lines = shown.lines().map(str::trim).filter(|line| line.starts_with('[') && line.ends_with(']'));
    // The kernel tells of what is not given too.
    lines.map(|line| line.replace(" 0x0 ]", " ]").replace(" proto_max reg 1", "")).collect()
}

/// Fails where what is there after `text` and after the batch are not the same bytes.
#[track_caller]
fn assert_same(door: &mut Door, name: &str, table: &Table, text: &str) {
    let sent_by_nft = expressions(&["-c", "-f", "-"], text);
    assert!(sent_by_nft.len() > table.rule_count(), "{name}: {sent_by_nft:?}");
    firewall::nft(text);
    let theirs = told(door);
    let seen = observe(door).expect("an answer");
    assert_eq!(seen.table.expect("a table").table, *table, "{name}: what nft made of the text");
    send(door, &encode::replace(table), seen.generation).unwrap_or_else(|error| panic!("{name}: {error}"));
    let ours = told(door);
    for (theirs, ours) in theirs.iter().zip(&ours) {
        let read = |message| decode(std::slice::from_ref(message));
        assert_eq!(theirs, ours, "{name}: nft's:\n{:?}\nours:\n{:?}", read(theirs), read(ours));
    }
    assert_eq!(theirs.len(), ours.len(), "{name}");
    assert_eq!(expressions(&["list", "table", "inet", "kuma_mesh"], ""), sent_by_nft, "{name}");

    // What nft shows of it, it loads again.
    let listed = must("nft", &["list", "table", "inet", "kuma_mesh"]);
    firewall::nft(&format!("delete table inet kuma_mesh\n{listed}"));
    assert_eq!(told(door), ours, "{name}: loaded from what nft shows:\n{listed}");
    let seen = observe(door).expect("an answer");
    assert!(seen.table.expect("a table").is(table), "{name}");
    send(door, &encode::remove(), seen.generation).expect("no table");
}

#[test]
fn the_kernel_has_the_same_as_after_nft() {
    Lab::enter(|lab| {
        // A stray packet would be counted.
        lab.silence();
        let (table, text) = sample::table();
        assert_same(&mut Door::open().expect("a door"), "every statement", &table, &text);
    });
}

#[test]
fn every_golden_loads_by_nft_as_by_ourselves() {
    Lab::enter(|lab| {
        lab.silence();
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let mut door = Door::open().expect("a door");
        let mut cases = 0;
        for entry in fs::read_dir(directory).expect("tests/golden") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|extension| extension != "txt") {
                continue;
            }
            let whole = fs::read_to_string(&path).expect("a readable golden");
            let (yaml, _) = whole.split_once(golden::LINE).expect("a configuration");
            let name = path.file_name().expect("a name").to_string_lossy();
            let config = golden::config(&name, yaml);
            let plan = build(&config, &golden::facts(yaml));
            let table = lower::table(&plan, !config.comments.disabled);
            assert_same(&mut door, &name, &table, &text::create(&table));
            // Over one that is there, with what others left in it.
            firewall::nft("add table inet kuma_mesh\nadd chain inet kuma_mesh outbound\n");
            assert_same(&mut door, &name, &table, &text::replace(&table));
            cases += 1;
        }
        assert!(cases >= 12, "only {cases} goldens");
    });
}
