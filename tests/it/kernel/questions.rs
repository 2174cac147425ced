//! What a run asks the kernel: nothing twice, and over few sockets. Unlike times, such counts do not depend on the
//! machine.

use std::collections::BTreeMap;

use crate::support::command::{Program, find};
use crate::support::lab::skip;
use crate::support::tracer::{Then, When, trace};
use crate::support::{Backend, Lab};

/// The number of a message, by which its answer is known.
const SEQUENCE: std::ops::Range<usize> = 8..12;

fn named(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_native_install_asks_nothing_twice() {
    Lab::enter(|lab| {
        // By what was said so far: before the change, and after it.
        let mut asked: [BTreeMap<String, usize>; 2] = Default::default();
        let mut changed = false;
        let program = lab.installing(Backend::Nftables, &["--redirect-dns"]);
        let run = trace(&program, |call, when| {
            if let (When::Before, Some(mut bytes)) = (when, call.sent()) {
                if call.transaction().is_some() {
                    assert!(!changed, "one transaction");
                    changed = true;
                    return Then::GoOn;
                }
                if let Some(sequence) = bytes.get_mut(SEQUENCE) {
                    sequence.fill(0);
                }
                *asked[usize::from(changed)].entry(named(&bytes)).or_default() += 1;
            }
            Then::GoOn
        });
        let _ = run.succeeds();
        assert!(changed && asked.iter().all(|asked| !asked.is_empty()), "{asked:#?}");
        for asked in &asked {
            assert!(asked.values().all(|count| *count == 1), "{asked:#?}");
        }
    });
}

#[test]
fn a_native_install_opens_few_sockets_and_files() {
    Lab::enter(|lab| {
        if find("strace").is_none() {
            return skip("this machine has no strace");
        }
        let log = lab.dir().join("opened.log");
        let strace = Program::new("strace").args(["-f", "-qq", "-e", "trace=socket,open,openat", "-o"]);
        let install = ["install", "--kuma-dp-user", "kuma-dp", "--redirect-dns", "--backend", "nftables"];
        strace.arg(&log).arg(lab.program_path()).args(install).run().succeeds();
        let log = std::fs::read_to_string(&log).expect("strace wrote its log");
        let count =
            |words: &[&str]| log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
        for protocol in ["NETLINK_ROUTE", "NETLINK_NETFILTER", "NETLINK_SOCK_DIAG"] {
            assert_eq!(count(&["socket(AF_NETLINK", protocol]), 1, "{protocol}\n{log}");
        }
        // Before the change, and after it.
        assert_eq!(count(&["ip_tables_names"]), 2, "{log}");
        assert_eq!(count(&["ip6_tables_names"]), 2, "{log}");
        // Before, right before, and right after.
        assert_eq!(count(&["net/sockstat\""]), 3, "{log}");
        assert!(count(&["firewalld.pid"]) <= 1, "{log}");
    });
}
