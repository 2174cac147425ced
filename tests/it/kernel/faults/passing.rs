//! A tool crashes, or lacks memory or processes: that says nothing of what the host can do. It is tried again; nothing
//! is left out, and no other backend is taken.

use super::refusals::instead_of;
use super::{install_second, their_rules, wanted};
use crate::support::command::must;
use crate::support::firewall;
use crate::support::lab::each_iptables_variant;
use crate::support::snapshot::Snapshot;
use crate::support::wrappers::{Fault, Wrappers};
use crate::support::{Backend, Family, Lab, Run};

/// How a restore program ends that did not come to its work, in shell: crashed itself or behind a wrapper, or in the
/// words of iptables, its libraries, the linker and the shell.
const ENDS: [&str; 11] = [
    "kill -ABRT $$",
    "kill -SEGV $$",
    "exit 137",
    "echo 'iptables-nft-restore v1.8.9 (nf_tables): Could not fetch rule set generation id: Memory allocation problem' >&2; exit 4",
    "echo 'line 2: RULE_APPEND failed (Cannot allocate memory): rule in chain OUTPUT' >&2; exit 4",
    "echo 'line 2: CHAIN_ADD failed (No buffer space available): chain OUTPUT' >&2; exit 4",
    "echo 'iptables-restore: line 5 failed: Memory allocation problem.' >&2; exit 1",
    "echo 'iptables-restore: out of memory' >&2; exit 1",
    "echo \"can't initialize iptables table \\`nat': Memory allocation problem\" >&2; exit 3",
    "echo 'libxt_comment.so: failed to map segment from shared object' >&2; echo \"Couldn't load match \\`comment':No such file or directory\" >&2; echo 'Error occurred at line: 2' >&2; exit 2",
    "echo 'sh: 1: Cannot fork: Resource temporarily unavailable' >&2; exit 2",
];

fn instead(end: &str) -> Fault {
    Fault::Instead(format!("cat >/dev/null; {end}"))
}

#[track_caller]
fn nothing_is_missing(run: &Run) {
    for word in ["without", "IPv6 traffic", "of no use", "using nftables"] {
        assert!(!run.stderr.contains(word), "{run}");
    }
}

each_iptables_variant! {
    fn a_restore_that_breaks_once_leaves_nothing_out(lab, variant) {
        let wanted = Lab::elsewhere(move |lab| {
            their_rules(variant);
            wanted(lab, variant)
        });
        their_rules(variant);
        let before = Snapshot::take();
        for end in ENDS {
            for tool in ["iptables-restore", "ip6tables-restore"] {
                let tools = Wrappers::new(variant).at(&(tool.to_owned(), 1), &instead(end));
                let run = install_second(lab, &tools, &[]).succeeds().says("trying again");
                nothing_is_missing(&run);
                Snapshot::take().without_counters().assert_unchanged_since(&wanted);
                lab.uninstall(variant, &[]).succeeds();
                Snapshot::take().assert_unchanged_since(&before);
            }
        }
    }

    fn a_restore_that_always_breaks_changes_nothing(lab, variant) {
        their_rules(variant);
        let before = Snapshot::take();
        for end in ENDS {
            for tool in ["iptables-restore", "ip6tables-restore"] {
                let tools = Wrappers::new(variant).every(tool, &instead(end));
                let run = install_second(lab, &tools, &["--max-retries", "1"]).exits(1).says("hint: ");
                nothing_is_missing(&run);
                Snapshot::take().assert_put_back_since(&before);
            }
        }
    }

    /// Where any backend would do, a crash is no reason to take another one.
    fn a_program_that_breaks_is_no_reason_to_move(lab, variant) {
        their_rules(variant);
        let before = Snapshot::take();
        for program in ["-restore", "-save"] {
            let program = firewall::path(variant, Family::V4, program);
            instead_of(&program, "cat >/dev/null; kill -ABRT $$");
            let install = ["install", "--kuma-dp-user", "kuma-dp", "--max-retries", "1", "--sleep-between-retries", "1ms"];
            let run = lab.program().args(install).run();
            must("umount", &["/usr/sbin"]);
            let run = run.exits(1).says("killed by signal 6");
            nothing_is_missing(&run);
            Snapshot::take().assert_put_back_since(&before);
        }
    }

    fn a_save_that_breaks_once_is_asked_again(lab, variant) {
        their_rules(variant);
        for tool in ["iptables-save", "ip6tables-save"] {
            for end in ["kill -9 $$", "echo 'fork: Cannot allocate memory' >&2; exit 1"] {
                let tools = Wrappers::new(variant).at(&(tool.to_owned(), 1), &instead(end));
                nothing_is_missing(&install_second(lab, &tools, &[]).succeeds().says("trying again"));
                assert_eq!(Backend::installed(), [Backend::Iptables(variant)]);
                let tools = Wrappers::new(variant).at(&(tool.to_owned(), 1), &instead(end));
                let uninstall = lab.program().args(["uninstall", "--sleep-between-retries", "1ms"]);
                uninstall.args(tools.flags()).run().succeeds();
                assert_eq!(Backend::installed(), []);
            }
        }
    }

    /// Older legacy programs give no reason, whatever it is: it is tried again before a part is left out.
    fn a_refusal_without_a_word_is_doubted(lab, variant) {
        let wanted = Lab::elsewhere(move |lab| {
            their_rules(variant);
            wanted(lab, variant)
        });
        their_rules(variant);
        let tools = Wrappers::new(variant)
            .at(&("iptables-restore".to_owned(), 1), &instead("echo 'iptables-restore: line 4 failed' >&2; exit 1"));
        nothing_is_missing(&install_second(lab, &tools, &[]).succeeds());
        Snapshot::take().without_counters().assert_unchanged_since(&wanted);
    }

    /// Which part it is about, nobody says.
    fn a_failure_that_names_no_part_leaves_none_out(lab, variant) {
        their_rules(variant);
        let before = Snapshot::take();
        let words = "error while loading shared libraries: libmnl.so.0: cannot open shared object file: No such file or directory";
        let tools = Wrappers::new(variant).every("iptables-restore", &instead(&format!("echo '{words}' >&2; exit 127")));
        let run = install_second(lab, &tools, &[]).exits(3).says(words);
        nothing_is_missing(&run);
        Snapshot::take().assert_put_back_since(&before);
    }
}
