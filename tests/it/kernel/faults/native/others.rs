//! Others change the firewall at the very moment between looking and changing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{FIRST, NATIVE};
use crate::support::backend::own_table;
use crate::support::command::Program;
use crate::support::firewall;
use crate::support::generation::nft_generation;
use crate::support::snapshot::Snapshot;
use crate::support::tracer::{Then, When, trace};
use crate::support::{Backend, Lab, Run};

/// Runs it, does something right before each of its transactions, and counts them.
fn disturbed(program: &Program, mut disturb: impl FnMut(usize) + Send) -> (Run, usize) {
    let mut transactions = 0;
    let run = trace(program, |call, when| {
        if when == When::Before && call.transaction().is_some() {
            disturb(transactions);
            transactions += 1;
        }
        Then::GoOn
    });
    (run, transactions)
}

#[test]
fn a_change_in_between_is_looked_at_again() {
    Lab::enter(|lab| {
        lab.install(NATIVE, &FIRST).succeeds();
        let wanted = own_table();
        lab.uninstall(NATIVE, &[]).succeeds();
        firewall::nft("table inet theirs { set numbers { type inet_service; }; }");
        for times in [0, 1, 3] {
            let generation = nft_generation();
            let (run, transactions) = disturbed(&lab.installing(NATIVE, &FIRST), |number| {
                if number < times {
                    firewall::nft(&format!("add element inet theirs numbers {{ {} }}", 10 * times + number));
                }
            });
            run.succeeds();
            assert_eq!(transactions, times + 1);
            assert_eq!(nft_generation(), generation + u32::try_from(times).expect("few") + 1);
            assert_eq!(own_table(), wanted);
            let (run, transactions) = disturbed(&lab.uninstalling(NATIVE, &[]), |number| {
                if number < times {
                    firewall::nft(&format!(
                        "delete element inet theirs numbers {{ {} }}",
                        10 * times + number
                    ));
                }
            });
            run.succeeds();
            assert_eq!(transactions, times + 1);
            assert_eq!(own_table(), None);
        }
    });
}

/// What was going to be created is there, and what was going to be changed is gone.
#[test]
fn our_own_table_changes_in_between() {
    Lab::enter(|lab| {
        lab.install(NATIVE, &FIRST).succeeds();
        let wanted = own_table();
        let text = wanted.clone().expect("a table");
        lab.uninstall(NATIVE, &[]).succeeds();
        // The same, made by somebody else, is as good as ours.
        for (table, needed) in [(text.as_str(), 1), ("table inet kuma_mesh { chain theirs { }; }", 2)] {
            let (run, transactions) = disturbed(&lab.installing(NATIVE, &FIRST), |number| {
                if number == 0 {
                    firewall::nft(table);
                }
            });
            run.succeeds();
            assert_eq!((own_table(), transactions), (wanted.clone(), needed));
            let (run, _) = disturbed(&lab.installing(NATIVE, &["--redirect-all-dns-traffic"]), |number| {
                if number == 0 {
                    firewall::nft("delete table inet kuma_mesh");
                }
            });
            run.succeeds();
            assert!(own_table().is_some_and(|table| table != text));
            let (run, transactions) = disturbed(&lab.uninstalling(NATIVE, &[]), |_| {
                firewall::nft("delete table inet kuma_mesh");
            });
            run.succeeds();
            assert_eq!((own_table(), transactions), (None, 1));
        }
    });
}

#[test]
fn who_never_stops_is_named_as_the_reason() {
    Lab::enter(|lab| {
        lab.install(NATIVE, &FIRST).succeeds();
        firewall::nft("table inet theirs { counter numbers { }; }");
        let before = Snapshot::take();
        let (run, transactions) = disturbed(&lab.installing(NATIVE, &["--redirect-all-dns-traffic"]), |_| {
            firewall::nft("add table inet another\ndelete table inet another");
        });
        let run = run.exits(4).says("another program changed nf_tables").says("hint: find out who");
        assert!(transactions > 100, "{transactions}: {run}");
        Snapshot::take().assert_unchanged_since(&before);
    });
}

#[test]
fn a_writer_who_does_not_care_about_us_loses_nothing() {
    Lab::enter(|lab| {
        firewall::nft("table inet theirs { set numbers { type inet_service; }; }");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut number = 1;
                while !done.load(Ordering::SeqCst) {
                    firewall::nft(&format!("add element inet theirs numbers {{ {number} }}"));
                    number += 1;
                }
                number - 1
            });
            let runs = thread::Builder::new().name("runs".to_owned());
            let runs = runs.spawn_scoped(scope, || {
                let mut transactions = 0;
                for round in 0..10 {
                    let flags: &[&str] =
                        if round % 2 == 0 { &FIRST } else { &["--redirect-all-dns-traffic"] };
                    let (run, more) = disturbed(&lab.installing(NATIVE, flags), |_| {});
                    run.succeeds();
                    transactions += more;
                }
                lab.uninstall(NATIVE, &[]).succeeds();
                transactions
            });
            let transactions = runs.expect("a thread").join();
            done.store(true, Ordering::SeqCst);
            let written = writer.join().expect("the writer wrote");
            let transactions = transactions.expect("installs succeed");
            println!("{transactions} transactions for 10 installs beside {written} changes of others");
            assert!(transactions >= 10);
            let listed = crate::support::command::must("nft", &["list", "set", "inet", "theirs", "numbers"]);
            let elements =
                listed.split_once("elements = {").expect("elements").1.split_once('}').expect("an end").0;
            assert_eq!(elements.split(',').count(), written);
        });
    });
}

#[test]
fn a_dry_run_says_nothing_that_could_change_anything() {
    Lab::enter(|lab| {
        for installed in [false, true] {
            if installed {
                lab.install(NATIVE, &FIRST).succeeds();
            }
            let before = Snapshot::take();
            let generation = nft_generation();
            for mode in [
                &["--dry-run"][..],
                &["--dry-run", "--verbose"],
                &["--dry-run=diff"],
                &["--dry-run", "-o", "json"],
            ] {
                for program in [
                    lab.installing(NATIVE, &["--redirect-all-dns-traffic", "--drop-invalid-packets"])
                        .args(mode),
                    lab.uninstalling(NATIVE, &[]).args(mode),
                ] {
                    let (run, transactions) = disturbed(&program, |_| {});
                    run.succeeds();
                    assert_eq!(transactions, 0, "not even a trial");
                }
            }
            let (_, transactions) = disturbed(&lab.program().arg("status"), |_| {});
            assert_eq!(transactions, 0);
            assert_eq!(nft_generation(), generation);
            Snapshot::take().assert_unchanged_since(&before);
        }
    });
}

/// Runs it, and swaps our table for this one before the question with that number. `false`: there are not that many.
fn swapped(program: &Program, number: usize, text: &str) -> (Run, bool) {
    let mut questions = 0;
    let run = trace(program, |call, when| {
        if when == When::Before && call.said().is_some() && call.transaction().is_none() {
            if questions == number {
                swap(text);
            }
            questions += 1;
        }
        Then::GoOn
    });
    (run, questions > number)
}

/// In one transaction.
fn swap(text: &str) {
    firewall::nft(&format!("delete table inet kuma_mesh\n{text}"));
}

/// Our table is there at every moment, and it is the one or the other. So nobody may find none, or a third.
#[test]
fn a_table_that_is_swapped_while_it_is_read_is_seen_whole() {
    Lab::enter(|lab| {
        lab.install(NATIVE, &["--exclude-outbound-ips=203.0.113.7"]).succeeds();
        let other = own_table().expect("a table");
        let flags = ["--redirect-dns", "--exclude-inbound-ips=198.51.100.0/24"];
        lab.install(NATIVE, &flags).succeeds();
        let wanted = own_table().expect("a table");
        let auto = || lab.program().args(["install", "--kuma-dp-user", "kuma-dp"]).args(flags);
        for program in [lab.program().arg("status"), auto().arg("--dry-run=diff"), auto()] {
            let possible = [&wanted, &other].map(|text| {
                swap(text);
                trace(&program, |_, _| Then::GoOn)
            });
            let mut number = 0;
            loop {
                swap(&wanted);
                let (run, was_swapped) = swapped(&program, number, &other);
                assert!(
                    possible.iter().any(|one| (one.code, &one.stdout) == (run.code, &run.stdout)),
                    "swapped before question {number}: {run}"
                );
                assert_eq!(Backend::installed(), [NATIVE], "swapped before question {number}: {run}");
                if !was_swapped {
                    break;
                }
                number += 1;
            }
            assert!(number > 8, "{number} questions: {}", possible[0]);
        }
    });
}

#[test]
fn a_table_that_never_stands_still_is_said_to_be_there() {
    Lab::enter(|lab| {
        lab.install(NATIVE, &FIRST).succeeds();
        let text = own_table().expect("a table");
        // Every other time it has one chain more.
        let swaps = ["", "table inet kuma_mesh { chain theirs { }; }"]
            .map(|more| format!("delete table inet kuma_mesh\n{text}\n{more}"));
        let mut swaps = swaps.iter().cycle();
        let run = trace(&lab.program().arg("status"), |call, when| {
            // NFT_MSG_GETCHAIN: once each time that the table is read.
            let chains = |said: Vec<u8>| said[4] == 4;
            if when == When::Before && call.said().is_some_and(chains) {
                firewall::nft(swaps.next().expect("without end"));
            }
            Then::GoOn
        });
        run.exits(4).says("again and again").says("hint: find out who");
    });
}
