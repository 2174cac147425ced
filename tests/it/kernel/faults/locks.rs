//! Somebody else is at it: the xtables lock, and another run of ours.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};

use super::{FIRST, SECOND, their_rules};
use crate::support::command::{Running, pid};
use crate::support::lab::each_backend;
use crate::support::snapshot::Snapshot;
use crate::support::tracer::{Then, When, trace};
use crate::support::wrappers::{Fault, Wrappers};
use crate::support::{Backend, Lab, Variant};

const LOCK: &str = "/run/xtables.lock";

/// Somebody who holds the xtables lock until the value goes.
struct Holder(Child);

impl Holder {
    fn new() -> Self {
        let child = Command::new("flock")
            .args([LOCK, "sh", "-c", "echo held; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("flock runs");
        let mut holder = Self(child);
        let mut line = [0; 5];
        std::io::Read::read_exact(holder.0.stdout.as_mut().expect("a pipe"), &mut line).expect("it says so");
        holder
    }

    fn release(mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_held_xtables_lock_ends_in_words_about_its_holder() {
    Lab::enter(|lab| {
        their_rules(Variant::Legacy);
        lab.install(Variant::Legacy, &FIRST).succeeds();
        let before = Snapshot::take();
        let holder = Holder::new();
        let tools = Wrappers::new(Variant::Legacy);
        let run = lab
            .program()
            .args(["install", "--kuma-dp-user", "kuma-dp", "--wait", "1", "--max-retries", "2"])
            .args(["--sleep-between-retries", "10ms"])
            .args(tools.flags())
            .args(SECOND)
            .run();
        let run = run.exits(4).says(&holder.0.id().to_string()).says("flock");
        let tries = tools.log().iter().filter(|line| line.starts_with("iptables-restore --wait=1")).count();
        assert_eq!(tries, 3, "{run}");
        holder.release();
        Snapshot::take().assert_unchanged_since(&before);
    });
}

#[test]
fn a_lock_that_is_released_in_time_is_waited_for() {
    Lab::enter(|lab| {
        let holder = Holder::new();
        let tools = Wrappers::new(Variant::Legacy);
        let install = lab
            .program()
            .args(["install", "--kuma-dp-user", "kuma-dp", "--wait", "60"])
            .args(tools.flags())
            .start();
        while !tools.log().iter().any(|line| line.starts_with("iptables-restore --wait=60")) {
            thread::yield_now();
        }
        holder.release();
        install.finish().succeeds();
    });
}

#[test]
fn the_nft_variant_does_not_mind_the_xtables_lock() {
    Lab::enter(|lab| {
        let holder = Holder::new();
        lab.install(Variant::Nft, &FIRST).succeeds();
        holder.release();
    });
}

each_backend! {
    fn many_installs_at_once_end_as_one_of_them(lab, backend) {
        their_rules(backend.tools());
        let wanted = [&FIRST[..], &SECOND].map(|flags| {
            lab.install(backend, flags).succeeds();
            Snapshot::take().without_counters()
        });
        lab.uninstall(backend, &[]).succeeds();
        let runs: Vec<_> = (0..8)
            .map(|number| lab.installing(backend, if number % 2 == 0 { &FIRST } else { &SECOND }).start())
            .collect();
        for run in runs {
            run.finish().succeeds();
        }
        let now = Snapshot::take().without_counters();
        assert!(wanted.contains(&now), "{now}");
    }

    fn an_install_and_an_uninstall_at_once_do_not_mix(lab, backend) {
        their_rules(backend.tools());
        let before = Snapshot::take().without_counters();
        lab.install(backend, &SECOND).succeeds();
        let wanted = Snapshot::take().without_counters();
        for _ in 0..5 {
            let runs = [lab.uninstalling(backend, &[]).start(), lab.installing(backend, &SECOND).start()];
            for run in runs {
                run.finish().succeeds();
            }
            let now = Snapshot::take().without_counters();
            if now != before {
                now.assert_unchanged_since(&wanted);
            }
        }
    }

    /// The second one works only when the first one is done, and a third one need not wait for that.
    fn a_second_install_waits_for_the_first(lab, backend) {
        let second = match backend {
            Backend::Iptables(variant) => {
                let gate = Path::new("/run/lab/gate");
                crate::support::command::must("mkfifo", &[&gate.to_string_lossy()]);
                let held = Fault::Before(format!("read -r x < {}", gate.display()));
                let slow = Wrappers::new(variant).at(&("iptables-restore".to_owned(), 1), &held);
                let first = lab.program().args(["install", "--kuma-dp-user", "kuma-dp"]).args(slow.flags()).args(FIRST).start();
                while !slow.log().iter().any(|line| line.starts_with("iptables-restore ")) {
                    thread::yield_now();
                }
                let second = others_wait(lab, backend);
                fs::write(gate, "go\n").expect("somebody reads");
                first.finish().succeeds();
                second
            }
            Backend::Nftables => {
                let mut second = None;
                let first = trace(&lab.installing(backend, &FIRST), |call, when| {
                    if when == When::Before && second.is_none() && call.transaction().is_some() {
                        // The tracer waits for every child of its thread.
                        let others = thread::scope(|scope| scope.spawn(|| others_wait(lab, backend)).join());
                        second = Some(others.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
                    }
                    Then::GoOn
                });
                first.succeeds();
                second.expect("a transaction")
            }
        };
        second.finish().succeeds();
        let now = Snapshot::take().without_counters();
        lab.uninstall(backend, &[]).succeeds();
        lab.install(backend, &SECOND).succeeds();
        now.assert_unchanged_since(&Snapshot::take().without_counters());
    }
}

/// Another installation begins and waits, and a third one is asked to wait no longer.
fn others_wait(lab: &Lab, backend: Backend) -> Running {
    let second = lab.installing(backend, &SECOND).start();
    stands_at_a_lock(second.pid);
    let third = lab.installing(backend, &FIRST).start();
    stands_at_a_lock(third.pid);
    kill(pid(third.pid), Signal::SIGTERM).expect("it is there");
    third.finish().exits(1).says("SIGTERM");
    second
}

/// Waits until a process has opened a lock file that another one has locked.
fn stands_at_a_lock(pid: u32) {
    let is_lock = |path: std::path::PathBuf| path.extension().is_some_and(|extension| extension == "lock");
    let files = || fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().filter_map(Result::ok);
    while !files().filter_map(|file| fs::read_link(file.path()).ok()).any(is_lock) {
        thread::yield_now();
    }
}
