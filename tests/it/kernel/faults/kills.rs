//! The program itself is killed, or asked to stop, at any of its steps.

use super::{SECOND, Start, assert_not_between, at_each_call, calls, install_second, their_rules, wanted};
use crate::support::lab::each_iptables_variant;
use crate::support::snapshot::Snapshot;
use crate::support::wrappers::{Fault, Wrappers};
use crate::support::{Lab, Variant};

const KILL: &str = "kill -9 $PPID";

/// Killed at each call of a tool, before or after the tool did its work: a plain install repairs, a plain uninstall
/// cleans, whatever was there.
fn killed(lab: &Lab, variant: Variant, fault: &Fault) {
    their_rules(variant);
    Start::Clean.prepare(lab, variant);
    let clean = Snapshot::take();
    let wanted = wanted(lab, variant);
    for start in Start::BOTH {
        for call in calls(lab, variant, start) {
            for repair in [true, false] {
                start.prepare(lab, variant);
                let tools = Wrappers::new(variant).at(&call, fault);
                let run = install_second(lab, &tools, &[]);
                assert_eq!(run.signal, Some(9), "{call:?}: {run}");
                // What it had started ends by itself.
                tools.settle();
                if repair {
                    lab.install(variant, &SECOND).succeeds();
                    Snapshot::take().without_counters().assert_unchanged_since(&wanted);
                }
                lab.uninstall(variant, &[]).succeeds();
                Snapshot::take().assert_unchanged_since(&clean);
            }
        }
    }
}

// Killed where a program is called. The native backend calls the kernel: `native::kills` has each of its calls.
each_iptables_variant! {
    fn killed_before_a_tool_works(lab, variant) {
        killed(lab, variant, &Fault::Before(KILL.to_owned()));
    }

    fn killed_after_a_tool_worked(lab, variant) {
        killed(lab, variant, &Fault::After(KILL.to_owned()));
    }

    fn an_uninstall_killed_at_any_step_is_finished_by_the_next(lab, variant) {
        their_rules(variant);
        Start::Clean.prepare(lab, variant);
        let clean = Snapshot::take();
        let uninstall = |tools: &Wrappers| lab.program().arg("uninstall").args(tools.flags()).run();
        Start::Installed.prepare(lab, variant);
        let tools = Wrappers::new(variant);
        uninstall(&tools).succeeds();
        let calls = tools.calls();
        assert!(calls.iter().any(|(tool, _)| tool == "iptables-restore"), "{calls:?}");
        for call in calls {
            for fault in [Fault::Before(KILL.to_owned()), Fault::After(KILL.to_owned())] {
                Start::Installed.prepare(lab, variant);
                let tools = Wrappers::new(variant).at(&call, &fault);
                assert_eq!(uninstall(&tools).signal, Some(9), "{call:?}");
                tools.settle();
                lab.uninstall(variant, &[]).succeeds();
                Snapshot::take().assert_unchanged_since(&clean);
            }
        }
    }

    fn asked_to_stop_it_leaves_no_half(lab, variant) {
        let wanted = Lab::elsewhere(move |lab| {
            their_rules(variant);
            wanted(lab, variant)
        });
        their_rules(variant);
        for signal in ["TERM", "INT", "HUP"] {
            let fault = Fault::Before(format!("kill -{signal} $PPID"));
            at_each_call(lab, variant, &fault, |tools, _, call| {
                let before = Snapshot::take();
                let run = install_second(lab, tools, &[]);
                tools.settle();
                // Nothing is begun any more, and what was begun is finished.
                assert_eq!(run.code == Some(0), call.0.ends_with("-restore"), "{signal}, {call:?}: {run}");
                assert_not_between(&run, &before, &wanted);
            });
            lab.uninstall(variant, &[]).succeeds();
        }
    }
}
