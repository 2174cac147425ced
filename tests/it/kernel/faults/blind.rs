//! A way back that cannot look: what was committed is named, the exit code says that it may be left, and a trial goes
//! back later.

use std::fs;

use super::{FIRST, install_second, their_rules};
use crate::kernel::trial::wait_for_the_end;
use crate::support::command::{Program, find};
use crate::support::lab::{each_backend, each_iptables_variant, skip};
use crate::support::ruleset::TAG;
use crate::support::snapshot::Snapshot;
use crate::support::wrappers::{Fault, Wrappers};
use crate::support::{Backend, Variant};

const BLIND: &str = "/run/lab/blind";

/// IPv4 is committed; IPv6 is refused, and from then on no save program works any more.
fn tools(variant: Variant) -> Wrappers {
    let refuses = format!(
        "cat >/dev/null; while [ -n \"$(ls /run/lab/first 2>/dev/null)\" ]; do :; done; : > {BLIND}; echo 'six is out' >&2; exit 1"
    );
    // The nft variant's programs work side by side, so the second waits for the first.
    let first = Fault::After("rm -f /run/lab/first".to_owned());
    let blind =
        Fault::Before(format!("if [ -e {BLIND} ]; then echo 'fork: Cannot allocate memory' >&2; exit 1; fi"));
    fs::write("/run/lab/first", "").expect("a file in the private /run");
    Wrappers::new(variant)
        .every("iptables-restore", &first)
        .every("ip6tables-restore", &Fault::Instead(refuses))
        .every("iptables-save", &blind)
        .every("ip6tables-save", &blind)
}

each_iptables_variant! {
    fn what_was_committed_is_named(lab, variant) {
        their_rules(variant);
        let clean = Snapshot::take();
        for first in [false, true] {
            if first {
                lab.install(variant, &FIRST).succeeds();
            }
            let run = install_second(lab, &tools(variant), &["--strict", "--max-retries", "0"]);
            let run = run.exits(5).says("six is out").says("Cannot allocate memory").says("perhaps still there");
            // What is there now has to go, and what was there before is to come back.
            assert!(run.stderr.contains("  IPv4 - -A PREROUTING") && run.stderr.contains(TAG), "{run}");
            assert!(run.stderr.contains("--dport 7002"), "{run}");
            assert_eq!(run.stderr.contains("  IPv4 + "), first, "{run}");
            assert_eq!(run.stderr.contains("the address ::6 of lo"), !first, "{run}");
            assert!(!run.stderr.contains("as it was before"), "{run}");
            fs::remove_file(BLIND).expect("it was blind");
            // The next run repairs it.
            lab.uninstall(variant, &[]).succeeds();
            Snapshot::take().assert_unchanged_since(&clean);
        }
    }

    fn a_trial_goes_back_when_it_can_look_again(lab, variant) {
        their_rules(variant);
        lab.install(variant, &FIRST).succeeds();
        let before = Snapshot::take();
        let run = install_second(lab, &tools(variant), &["--strict", "--max-retries", "0", "--confirm", "1s"]);
        let _ = run.exits(5).says("six is out");
        fs::remove_file(BLIND).expect("it was blind");
        wait_for_the_end();
        Snapshot::take().assert_put_back_since(&before);
    }

    /// Nothing was committed, so there is nothing to look at.
    fn a_refusal_before_the_first_commit_leaves_nothing(lab, variant) {
        their_rules(variant);
        let before = Snapshot::take();
        // A script of one table, refused as a whole.
        let refuses = format!(
            "in=$(cat); : > {BLIND}; n=$(printf %s \"$in\" | grep -n -m1 COMMIT | cut -d: -f1); echo \"line $n failed: it is not my day\" >&2; exit 1"
        );
        let blind = Fault::Before(format!("if [ -e {BLIND} ]; then echo 'fork: Cannot allocate memory' >&2; exit 1; fi"));
        let tools = Wrappers::new(variant)
            .every("iptables-restore", &Fault::Instead(refuses))
            .every("iptables-save", &blind)
            .every("ip6tables-save", &blind);
        let install = ["install", "--kuma-dp-user", "kuma-dp", "--ip-family-mode", "ipv4", "--strict", "--max-retries", "0"];
        let run = lab.program().args(install).args(tools.flags()).run();
        let _ = run.exits(3).says("it is not my day").says("the host is as it was before");
        fs::remove_file(BLIND).expect("it was blind");
        Snapshot::take().assert_put_back_since(&before);
    }
}

each_backend! {
    fn a_record_that_stays_is_named(lab, backend) {
        if find("strace").is_none() {
            return skip("this machine has no strace");
        }
        let log = lab.dir().join("strace.log");
        lab.install(backend, &FIRST).succeeds();
        // Where the kernel removes no file, the record of what is gone stays.
        let strace = ["-qq", "-e", "trace=unlinkat", "-e", "inject=unlinkat:error=EPERM", "-o"];
        let run = Program::new("strace").args(strace).arg(&log).arg(lab.program_path()).arg("uninstall").run();
        let run = run.succeeds().prints("the record /run/tproxy/").prints("could not be removed").prints("'rm /run/tproxy/");
        assert!(!run.stdout.contains("successfully"), "{run}");
        assert_eq!(Backend::installed(), []);
        lab.uninstall(backend, &[]).succeeds().prints("successfully");
    }

    /// Every word to the kernel is refused once, that to remove `::6` among them.
    fn an_uninstall_that_is_not_whole_is_not_called_a_success(lab, backend) {
        if find("strace").is_none() {
            return skip("this machine has no strace");
        }
        let clean = Snapshot::take();
        let log = lab.dir().join("strace.log");
        let uninstall = |inject: &[&str]| {
            let strace = Program::new("strace").args(["-qq", "-e", "trace=sendto"]).args(inject).arg("-o").arg(&log);
            strace.arg(lab.program_path()).args(["uninstall", "--max-retries", "0"]).run()
        };
        lab.install(backend, &FIRST).succeeds();
        uninstall(&[]).succeeds();
        let told = fs::read_to_string(&log).expect("strace wrote its log");
        let calls = told.lines().filter(|line| line.contains("sendto(")).count();
        assert!(calls > 2, "{told}");
        let mut refused = 0;
        for error in ["EPERM", "ENOMEM"] {
            for number in 1..=calls {
                lab.install(backend, &FIRST).succeeds();
                let before = Snapshot::take();
                let run = uninstall(&["-e", &format!("inject=sendto:error={error}:when={number}")]);
                if run.code == Some(0) {
                    Snapshot::take().assert_unchanged_since(&clean);
                    continue;
                }
                refused += 1;
                assert!(run.code == Some(1) || run.code == Some(3), "{run}");
                assert!(!run.stdout.contains("successfully"), "{run}");
                Snapshot::take().assert_put_back_since(&before);
                lab.uninstall(backend, &[]).succeeds();
                Snapshot::take().assert_unchanged_since(&clean);
            }
        }
        // At least the address is removed in all of them.
        assert!(refused > 1, "{refused} of {calls}");
    }
}
