//! A tool fails, or dies, at any of its calls.

use super::{FIRST, SECOND, Start, assert_not_between, at_each_call, install_second, their_rules, wanted};
use crate::support::lab::each_iptables_variant;
use crate::support::ruleset::TAG;
use crate::support::snapshot::Snapshot;
use crate::support::wrappers::{Fault, Wrappers};
use crate::support::{Lab, Variant};

/// One call goes wrong; the run fails or gets over it, and the next one gets what is wanted in any case.
fn one_call_goes_wrong(lab: &Lab, variant: Variant, fault: &Fault) {
    let wanted = wanted_beside_theirs(variant);
    their_rules(variant);
    at_each_call(lab, variant, fault, |tools, start, call| {
        let before = Snapshot::take();
        let run = install_second(lab, tools, &["--strict"]);
        println!("{start:?}, {call:?}: {:?}", run.code);
        assert_not_between(&run, &before, &wanted);
        lab.install(variant, &SECOND).succeeds();
        Snapshot::take().without_counters().assert_unchanged_since(&wanted);
    });
}

fn wanted_beside_theirs(variant: Variant) -> Snapshot {
    Lab::elsewhere(move |lab| {
        their_rules(variant);
        wanted(lab, variant)
    })
}

// The native backend runs no tool; what the kernel refuses it is in `native`.
each_iptables_variant! {
    fn a_tool_fails(lab, variant) {
        one_call_goes_wrong(lab, variant, &Fault::fails(1, "it is not my day"));
    }

    fn a_tool_is_killed_before_it_works(lab, variant) {
        one_call_goes_wrong(lab, variant, &Fault::Instead("kill -9 $$".to_owned()));
    }

    fn a_tool_is_killed_after_it_worked(lab, variant) {
        one_call_goes_wrong(lab, variant, &Fault::After("kill -9 $$".to_owned()));
    }

    fn a_tool_that_always_fails_changes_nothing(lab, variant) {
        their_rules(variant);
        for tool in ["iptables-save", "ip6tables-save", "iptables-restore", "ip6tables-restore"] {
            for start in Start::BOTH {
                start.prepare(lab, variant);
                let before = Snapshot::take();
                let tools = Wrappers::new(variant).every(tool, &Fault::fails(1, "it is not my day"));
                install_second(lab, &tools, &["--strict"]).exits(3).says("it is not my day");
                Snapshot::take().assert_put_back_since(&before);
            }
        }
    }

    /// Between the look at the rules and the change somebody takes one of ours away, so the change cannot remove it.
    fn rules_that_changed_meanwhile_are_looked_at_again(lab, variant) {
        let wanted = wanted_beside_theirs(variant);
        their_rules(variant);
        lab.install(variant, &FIRST).succeeds();
        let meanwhile = Fault::Before("\"${real%-restore}\" -t nat -D OUTPUT 1".to_owned());
        let tools = Wrappers::new(variant).at(&("iptables-restore".to_owned(), 1), &meanwhile);
        install_second(lab, &tools, &["--strict"]).succeeds();
        let restores = tools.log().iter().filter(|line| line.starts_with("iptables-restore ")).count();
        assert!(restores > 1, "{:?}", tools.log());
        Snapshot::take().without_counters().assert_unchanged_since(&wanted);
    }

    fn the_tools_own_words_are_in_the_error(lab, variant) {
        let tools = Wrappers::new(variant).every("iptables-restore", &Fault::fails(1, "it is not my day"));
        let before = Snapshot::take();
        install_second(lab, &tools, &["--strict"]).exits(3).says("it is not my day");
        Snapshot::take().assert_unchanged_since(&before);
    }

    /// IPv6 fails when IPv4 is done, and then the way back fails as well.
    fn a_way_back_that_fails_is_told_line_by_line(lab, variant) {
        their_rules(variant);
        lab.install(variant, &FIRST).succeeds();
        let tools = Wrappers::new(variant)
            .every("ip6tables-restore", &Fault::fails(1, "six is out"))
            .at(&("iptables-restore".to_owned(), 2), &Fault::fails(1, "four is out too"));
        let run = install_second(lab, &tools, &["--strict"]);
        let run = run.exits(5).says("six is out").says("four is out too");
        assert!(run.stderr.contains("--dport 7001") && run.stderr.contains(TAG), "{run}");
        lab.install(variant, &SECOND).succeeds();
        Snapshot::take().without_counters().assert_unchanged_since(&wanted_beside_theirs(variant));
    }

    fn an_uninstall_that_fails_leaves_the_installation_whole(lab, variant) {
        their_rules(variant);
        lab.install(variant, &FIRST).succeeds();
        let before = Snapshot::take();
        for tool in ["iptables-restore", "ip6tables-restore"] {
            let tools = Wrappers::new(variant).every(tool, &Fault::fails(1, "it is not my day"));
            lab.program().arg("uninstall").args(tools.flags()).run().exits(3).says("it is not my day");
            Snapshot::take().assert_put_back_since(&before);
        }
    }
}
