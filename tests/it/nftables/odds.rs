//! What can come between us and the table: others, their rights, the sheer size.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use tproxy::backend::nftables::encode;
use tproxy::backend::nftables::model::{
    Chain, ChainKind, End, Hook, HookPoint, Rule, Statement, Table, Test, Verdict,
};
use tproxy::backend::nftables::observe::observe;
use tproxy::backend::nftables::refusal::Part;
use tproxy::backend::nftables::send::{SendError, send};
use tproxy::backend::nftables::set::{Interval, Key, Set};
use tproxy::plan::Family;
use tproxy::sys::netlink::nftables::Door;

use crate::support::{Lab, firewall};

fn with_sets(sets: impl IntoIterator<Item = (&'static str, Set)>) -> Table {
    let rule = |name: &str| Rule {
        statements: vec![
            Statement::Family(Family::V4),
            Statement::Address(End::Destination, Test::In(name.to_owned())),
            Statement::Verdict(Verdict::Return),
        ],
        comment: Some(format!("what is in {name}")),
    };
    let sets: BTreeMap<String, Set> = sets.into_iter().map(|(name, set)| (name.to_owned(), set)).collect();
    let rules = sets.iter().filter(|(_, set)| set.key == Key::Ipv4).map(|(name, _)| rule(name)).collect();
    let hook = Some(Hook { kind: ChainKind::Nat, point: HookPoint::Output, priority: -95, drops: false });
    Table { chains: vec![Chain { name: "out".into(), hook, rules }], sets }
}

/// Every other value.
fn every_other(key: Key, count: u128) -> Set {
    Set::new(key, (1..=count).map(|number| Interval { first: 2 * number, last: 2 * number }))
}

#[test]
fn a_change_in_between_is_noticed() {
    Lab::enter(|_| {
        let mut door = Door::open().expect("a door");
        let seen = observe(&mut door).expect("an answer");
        assert_eq!(seen.table, None);
        firewall::nft("add table inet foreign\n");
        let table = with_sets([("four", every_other(Key::Ipv4, 3))]);
        let refused = send(&mut door, &encode::create(&table), seen.generation);
        assert!(matches!(refused, Err(SendError::Changed)), "{refused:?}");
        let seen = observe(&mut door).expect("an answer");
        assert_eq!(seen.table, None);
        send(&mut door, &encode::create(&table), seen.generation).expect("nobody in between");
        let now = observe(&mut door).expect("an answer");
        assert!(now.table.expect("a table").is(&table));
        assert_eq!(now.generation, seen.generation + 1);
        send(&mut door, &encode::remove(), now.generation).expect("nobody in between");
        assert_eq!(observe(&mut door).expect("an answer").table, None);
        let listed = crate::support::command::must("nft", &["list", "tables"]);
        assert_eq!(listed, "table inet foreign\n");
    });
}

#[test]
fn a_batch_with_one_bad_message_does_nothing_and_says_which() {
    Lab::enter(|_| {
        let mut door = Door::open().expect("a door");
        let mut table = with_sets([("four", every_other(Key::Ipv4, 3))]);
        let generation = door.generation().expect("a generation");
        send(&mut door, &encode::create(&table), generation).expect("a table");
        let before = observe(&mut door).expect("an answer");

        let jump = Statement::Verdict(Verdict::Jump("nowhere".into()));
        table.chains[0]
            .rules
            .push(Rule { statements: vec![Statement::Counter, jump.clone()], comment: None });
        match send(&mut door, &encode::replace(&table), before.generation) {
            Err(SendError::Refused(refused)) => {
                assert_eq!(refused.errno, libc::ENOENT);
                assert_eq!(refused.statement, Some(jump), "{refused}");
                assert!(matches!(&refused.part, Part::Rule(chain, _) if chain == "out"), "{refused:?}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(observe(&mut door).expect("an answer"), before);
    });
}

#[test]
fn ten_thousand_elements_are_one_transaction() {
    Lab::enter(|_| {
        let mut door = Door::open().expect("a door");
        let mut table = with_sets([
            ("four", every_other(Key::Ipv4, 10_000)),
            ("ports", every_other(Key::Port, 10_000)),
            ("six", every_other(Key::Ipv6, 10_000)),
        ]);
        let generation = door.generation().expect("a generation");
        let messages = encode::create(&table);
        assert!(messages.iter().all(|message| message.body.len() < usize::from(u16::MAX)));
        match send(&mut door, &messages, generation) {
            // Without the right to a larger buffer; what is too big does not happen, and is told as that.
            Err(SendError::TooBig { bytes }) if !nix::unistd::geteuid().is_root() || in_user_namespace() => {
                assert!(bytes > 1_000_000);
                return;
            }
            other => other.expect("a table"),
        }
        let now = observe(&mut door).expect("an answer");
        assert!(now.table.expect("a table").is(&table));
        assert_eq!(now.generation, generation + 1);

        let ports = table.sets.get_mut("ports").expect("a set");
        let gone = ports.intervals.remove(17);
        let new = Interval { first: 60_001, last: 60_003 };
        let change = encode::elements("ports", Key::Port, &[new], &[gone]);
        assert!(change.iter().map(|message| message.body.len() + 20).sum::<usize>() < 1000);
        ports.intervals.push(new);
        send(&mut door, &change, now.generation).expect("a change");
        assert!(observe(&mut door).expect("an answer").table.expect("a table").is(&table));
    });
}

pub fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").expect("a map");
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Of this thread alone: the C library's function would change every thread of the test run.
#[allow(unsafe_code, reason = "there is no wrapper for the call that concerns one thread")]
fn drop_privileges() {
    // SAFETY: setresuid takes three integers and touches no memory of ours.
    nix::errno::Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) })
        .expect("a process that may");
}

#[test]
fn an_ordinary_user_is_told_so() {
    Lab::enter(|_| {
        if in_user_namespace() {
            return eprintln!("skipped: this user namespace has no second user");
        }
        drop_privileges();
        let mut door = Door::open().expect("everybody gets a socket");
        let refused = observe(&mut door).expect_err("not everybody gets an answer");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let refused = send(&mut door, &encode::create(&Table::default()), 1);
        assert!(matches!(refused, Err(SendError::Denied)), "{refused:?}");
    });
}

#[test]
fn a_table_that_another_process_owns_is_seen_and_left_alone() {
    Lab::enter(|_| {
        // The owner's socket has to stay; a table made by nft -i lives as long as it does.
        let mut owner = Door::open().expect("a door");
        let table = with_sets([("four", every_other(Key::Ipv4, 2))]);
        let mut messages = encode::create(&table);
        // NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER
        let flags: Vec<u8> = tproxy::attribute::Attributes::new().number(2, 2).into();
        messages[0].body.extend(flags);
        let generation = owner.generation().expect("a generation");
        send(&mut owner, &messages, generation).expect("a table");

        let mut door = Door::open().expect("a door");
        let seen = observe(&mut door).expect("an answer");
        let observed = seen.table.expect("everybody can read it");
        assert!(observed.owned_by.is_some_and(|port| port != 0));
        assert_eq!(observed.table, table);
        for change in [encode::replace(&table), encode::remove()] {
            let refused = send(&mut door, &change, seen.generation);
            assert!(matches!(refused, Err(SendError::Owned)), "{refused:?}");
        }
        owner.close();
        // Children that other threads make have a copy of the owner's socket until they execute something.
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Some(table) = observe(&mut door).expect("an answer").table {
            assert!(Instant::now() < deadline, "{table:?}");
            std::thread::yield_now();
        }
    });
}

#[test]
fn what_others_put_into_the_table_is_seen() {
    Lab::enter(|_| {
        firewall::nft(
            "table inet kuma_mesh {
                flags dormant
                set s { type mark; elements = { 1, 2 } }
                set hashed { type inet_service; elements = { 1, 2 } }
                map m { type inet_service : inet_service; elements = { 1 : 2 } }
                chain out {
                    type nat hook output priority -95; policy drop;
                    ip protocol icmp meta mark @s counter packets 3 bytes 4 dnat ip to 10.0.0.1
                    tcp dport vmap { 1 : accept, 2 : drop }
                    tcp dport 1 goto sub
                    meta skuid < 5 fib daddr type local limit rate 5/second log group 3 accept
                }
                chain sub { }
                chain other { type route hook output priority 7; }
            }\n",
        );
        let mut door = Door::open().expect("a door");
        let observed = observe(&mut door).expect("an answer").table.expect("a table");
        let mut foreign = observed.foreign.clone();
        foreign.retain(|what| !what.contains("__"));
        assert_eq!(foreign.len(), 4, "{foreign:?}");
        assert!(observed.table.chains[0].hook.as_ref().expect("a hook").drops);
        assert!(!observed.is(&observed.table));
        let rules = &observed.table.chains[0].rules;
        assert_eq!(rules.len(), 4);
        for rule in rules {
            let known = rule.statements.iter().all(|one| !matches!(one, Statement::Foreign(_)));
            assert!(!known, "{rule:?}");
        }
        assert_eq!(observed.counts[&(0, 0)].packets, 3);
        assert_eq!(observed.counts[&(0, 0)].bytes, 4);
        assert_eq!(observed.table.chains[2].hook.as_ref().expect("a hook").kind, ChainKind::Other);

        // And it all goes in one transaction.
        let table = with_sets([("four", every_other(Key::Ipv4, 2))]);
        let generation = door.generation().expect("a generation");
        send(&mut door, &encode::replace(&table), generation).expect("ours to replace");
        assert!(observe(&mut door).expect("an answer").table.expect("a table").is(&table));
    });
}
