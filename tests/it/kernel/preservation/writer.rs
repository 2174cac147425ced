//! The same while somebody else keeps changing the firewall.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::firewall;
use crate::support::lab::each_backend;
use crate::support::{Family, Variant};

/// How many rules the writer adds; it removes every other one again.
const RULES: usize = 120;

fn rule(number: usize) -> String {
    format!("OUTPUT -d 198.51.100.{}/32 -p tcp -m tcp --dport {} -j ACCEPT", 1 + number % 250, 20000 + number)
}

/// Adds rules to nat OUTPUT, where ours are, and takes every other one away.
fn write(variant: Variant, family: Family) {
    for number in 0..RULES {
        let rule = of(family, number);
        firewall::iptables(variant, family, &format!("-w 30 -t nat -A {rule}")).succeeds();
        if number % 2 == 1 {
            firewall::iptables(variant, family, &format!("-w 30 -t nat -D {rule}")).succeeds();
        }
    }
}

fn of(family: Family, number: usize) -> String {
    match family {
        Family::V4 => rule(number),
        Family::V6 => rule(number).replace("198.51.100.", "2001:db8:c633::").replace("/32", "/128"),
    }
}

each_backend! {
    fn a_concurrent_writer_loses_nothing(lab, backend) {
        let done = Arc::new(AtomicBool::new(false));
        let writers = Family::BOTH.map(|family| {
            let done = done.clone();
            thread::spawn(move || {
                write(backend.tools(), family);
                done.store(true, Ordering::SeqCst);
            })
        });
        let mut installs = 0;
        while !done.load(Ordering::SeqCst) || installs < 4 {
            let flags: &[&str] = if installs % 2 == 0 { &["--redirect-dns"] } else { &["--exclude-outbound-ports", "7"] };
            lab.install(backend, flags).succeeds();
            installs += 1;
        }
        for writer in writers {
            writer.join().expect("the writer wrote");
        }
        println!("{installs} installs beside the writer");
        let check = || {
            for family in Family::BOTH {
                let rules = firewall::rules(backend.tools(), family);
                let theirs: Vec<String> = rules
                    .clone()
                    .without_ours()
                    .chain("nat", "OUTPUT")
                    .into_iter()
                    .map(str::to_owned)
                    .collect();
                let wanted: Vec<String> =
                    (0..RULES).filter(|number| number % 2 == 0).map(|number| format!("-A {}", of(family, number))).collect();
                assert_eq!(theirs, wanted, "{rules}");
            }
        };
        check();
        lab.install(backend, &["--redirect-dns"]).succeeds();
        check();
        assert_eq!(super::super::jumps_to_outbound(backend), [1, 1]);
        lab.uninstall(backend, &[]).succeeds();
        check();
    }
}
