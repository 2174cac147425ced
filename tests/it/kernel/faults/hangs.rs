//! A tool hangs: it is given up on, its whole process group with it, and said so.
//!
//! The deadline is ten seconds beyond the wait for the lock, so all of these run side by side.

use std::thread;

use super::{FIRST, install_second, their_rules};
use crate::support::snapshot::Snapshot;
use crate::support::wrappers::{Fault, Wrappers, is_running};
use crate::support::{Lab, Variant};

fn hangs(variant: Variant, tool: &'static str, fault: Fault) -> thread::JoinHandle<()> {
    let body = move || {
        Lab::elsewhere(move |lab| {
            their_rules(variant);
            lab.install(variant, &FIRST).succeeds();
            let before = Snapshot::take();
            let tools = Wrappers::new(variant).at(&(tool.to_owned(), 1), &fault);
            let run = install_second(lab, &tools, &["--wait", "0"]);
            let program = crate::support::firewall::tool(variant, crate::support::Family::V4, "");
            assert!(run.code.is_some_and(|code| code == 1 || code == 3), "{program}: {run}");
            assert!(
                run.stderr.contains(&tool.replacen("tables", &format!("tables-{}", variant.name()), 1)),
                "{run}"
            );
            assert!(run.stderr.contains("10 s"), "the error names the deadline: {run}");
            for pid in tools.pids() {
                assert!(!is_running(pid), "{tool} ({pid}) still runs");
            }
            Snapshot::take().assert_put_back_since(&before);
        });
    };
    thread::Builder::new().name(format!("{} {tool}", variant.name())).spawn(body).expect("a thread")
}

#[test]
fn a_tool_that_hangs_is_given_up_on() {
    Lab::enter(|_| {
        let sleep = || Fault::Instead("exec sleep 600".to_owned());
        // A grandchild keeps the pipes open, and dies with its group.
        let family = || Fault::Instead("sleep 600 & echo $! >> \"$dir/pids\"; sleep 600".to_owned());
        let late = || Fault::After("sleep 600".to_owned());
        let threads = Variant::BOTH.into_iter().flat_map(|variant| {
            [
                hangs(variant, "iptables-save", sleep()),
                hangs(variant, "iptables-restore", family()),
                hangs(variant, "iptables-restore", late()),
                hangs(variant, "ip6tables-restore", sleep()),
                hangs(variant, "ip6tables-restore", late()),
            ]
        });
        let threads: Vec<_> = threads.collect();
        for thread in threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}
