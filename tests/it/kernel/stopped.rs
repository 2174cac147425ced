//! The process that waits, stopped by somebody, and spared where the kernel needs memory.

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};

use super::trial::{FIRST, LONG, RUN, end_ago, file, on_trial, wait_for_the_end, waiter};
use crate::support::command::pid;
use crate::support::lab::each_backend;
use crate::support::snapshot::Snapshot;
use crate::support::wrappers::is_running;
use crate::support::{Backend, Lab};

/// Stops it, and waits until it is.
fn stop(lab: &Lab) -> u32 {
    let waiter = waiter(lab);
    kill(pid(waiter), Signal::SIGSTOP).expect("it waits");
    while !tproxy::sys::is_stopped(waiter) {
        std::thread::yield_now();
    }
    waiter
}

fn go_on(waiter: u32) {
    kill(pid(waiter), Signal::SIGCONT).expect("it is stopped");
    while is_running(waiter) {
        std::thread::yield_now();
    }
}

each_backend! {
    fn status_says_that_nothing_goes_back(lab, backend) {
        let before = Snapshot::take().without_counters();
        on_trial(lab, backend, LONG).run().succeeds();
        let waiter = stop(lab);
        for over in [false, true] {
            if over {
                end_ago(5, true);
                let busy = lab.install(backend, FIRST).exits(4);
                busy.says(&format!("process {waiter} is stopped")).says(&format!("kill -CONT {waiter}"));
            }
            let status = lab.program().arg("status").run().exits(11);
            let status = status.prints(&format!("process {waiter}")).prints("is stopped").prints("until it continues");
            status.prints(&format!("kill -CONT {waiter}")).prints("tproxy confirm").prints("uninstall");
            let run = lab.program().args(["status", "-o", "json"]).run();
            let report: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
            assert_eq!(report["trial"]["state"], "stopped");
        }
        go_on(waiter);
        wait_for_the_end();
        fs::remove_dir_all(RUN).expect("its log");
        Snapshot::take().without_counters().assert_unchanged_since(&before);
    }

    fn it_is_confirmed_while_it_is_stopped(lab, backend) {
        for over in [false, true] {
            on_trial(lab, backend, LONG).run().succeeds();
            let (waiter, there) = (stop(lab), Snapshot::take().without_counters());
            if over {
                end_ago(5, true);
            }
            lab.program().arg("confirm").run().succeeds().prints("the installation stays");
            go_on(waiter);
            Snapshot::take().without_counters().assert_unchanged_since(&there);
            assert_eq!(file("pending"), None);
            lab.uninstall(backend, &[]).succeeds();
        }
    }

    fn one_that_has_begun_to_go_back_is_not_confirmed(lab, backend) {
        on_trial(lab, backend, LONG).run().succeeds();
        let waiter = stop(lab);
        end_ago(5, true);
        // As it says before it goes on without a lock that somebody keeps.
        fs::write(file("log").expect("a log"), "going back without the lock").expect("written");
        lab.program().arg("confirm").run().exits(1).says("too late");
        go_on(waiter);
        wait_for_the_end();
        assert_eq!(Backend::installed(), []);
    }
}

#[test]
fn the_kernel_ends_others_first() {
    Lab::enter(|lab| {
        let wanted = |path: &str| fs::read_to_string(path).expect("a number").trim().to_owned();
        let allowed = Command::new("sh")
            .args(["-c", "echo -1000 >/proc/self/oom_score_adj"])
            .output()
            .expect("a shell");
        let own = wanted("/proc/self/oom_score_adj");
        let expected = if allowed.status.success() { "-1000" } else { &own };
        lab.install(Backend::Nftables, LONG).succeeds();
        assert_eq!(wanted(&format!("/proc/{}/oom_score_adj", waiter(lab))), expected);
        lab.program().arg("confirm").run().succeeds();
    });
}
