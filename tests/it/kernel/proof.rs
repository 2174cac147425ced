//! `--confirm` with `--verify`: whatever becomes of the proof, the host goes back when it was promised, and not while
//! it is being proven.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use super::trial::{end_ago, file, notes, now, promise, wait_for_the_end};
use crate::support::command::{Running, pid};
use crate::support::lab::each_backend;
use crate::support::snapshot::Snapshot;
use crate::support::{Backend, Lab};

const FIRST: &[&str] = &["--redirect-dns"];
const WITH_PROOF: &[&str] = &["--redirect-all-dns-traffic", "--exclude-inbound-ports", "22", "--verify"];

/// Longer than any of these tests takes; nobody waits for it.
const LONG: u64 = 600;

/// An installation that is held in the middle of its proof: all rules are there, and packets are under way.
fn held(lab: &Lab, backend: Backend, seconds: u64) -> Running {
    let time = format!("{seconds}s");
    let running = lab.installing(backend, &[WITH_PROOF, &["--confirm", &time]].concat()).start();
    until("its temporary interface is there", || {
        std::fs::read_to_string("/proc/thread-self/net/dev")
            .is_ok_and(|devices| devices.contains("tpv"))
            .then_some(())
    });
    kill(pid(running.pid), Signal::SIGSTOP).expect("it is under way");
    running
}

/// Waits until somebody waits for the lock that an installation holds.
fn wait_for_a_queue() {
    use std::os::unix::fs::MetadataExt as _;
    let lock = std::fs::metadata(file("lock").expect("a lock")).expect("there");
    let inode = format!(":{} ", lock.ino());
    until("somebody waits for the lock", || {
        let locks = std::fs::read_to_string("/proc/locks").expect("a list of locks");
        locks.lines().any(|line| line.contains("-> ") && line.contains(&inode)).then_some(())
    });
}

#[track_caller]
fn until(what: &str, look: impl Fn() -> Option<()>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while look().is_none() {
        assert!(Instant::now() < deadline, "it never came to that: {what}");
        std::thread::yield_now();
    }
}

each_backend! {
    /// The promise is made with the change, not with the proof.
    fn who_is_killed_in_the_proof_has_promised_already(lab, backend) {
        lab.install(backend, FIRST).succeeds();
        let before = Snapshot::take().without_counters();
        let running = held(lab, backend, LONG);
        let promised = promise();
        let number = |key: &str| promised[key].as_u64().expect("a number");
        assert_eq!(number("until"), number("begun") + LONG * 1_000_000_000, "{promised}");
        kill(pid(running.pid), Signal::SIGKILL).expect("it is held");
        assert_eq!(running.finish().signal, Some(Signal::SIGKILL as i32));
        assert_eq!(promise(), promised, "whoever comes may still confirm");
        end_ago(0, true);
        wait_for_the_end();
        Snapshot::take().without_counters().assert_unchanged_since(&before);
    }

    fn and_it_is_kept_by_itself(lab, backend) {
        let before = Snapshot::take();
        let running = held(lab, backend, 1);
        kill(pid(running.pid), Signal::SIGKILL).expect("it is held");
        running.finish();
        wait_for_the_end();
        std::fs::remove_file(file("log").expect("a log")).expect("removed");
        std::fs::remove_dir("/run/tproxy").expect("nothing else in it");
        Snapshot::take().assert_unchanged_since(&before);
    }

    /// A host that goes back while it is proven would look broken.
    fn a_proof_may_take_longer_than_the_time(lab, backend) {
        let running = held(lab, backend, LONG);
        end_ago(1, true);
        wait_for_a_queue();
        let said = notes(lab);
        assert!(said.contains("packets are just being sent to prove") && !said.contains("nobody confirmed"), "{said}");
        let began = now();
        kill(pid(running.pid), Signal::SIGCONT).expect("it is held");
        running.finish().succeeds().prints("not yet kept: run 'tproxy confirm' from a new connection within ");
        let anew = promise();
        assert!(anew["until"].as_u64().is_some_and(|until| until >= began + LONG * 1_000_000_000), "{anew}");
        let said = notes(lab);
        assert!(said.contains("comes undone at"), "{said}");
        lab.program().arg("confirm").run().succeeds();
        assert!(file("pending").is_none());
        lab.install(backend, WITH_PROOF).succeeds().prints("nothing was written");
    }

    fn but_not_longer_than_it_lives(lab, backend) {
        lab.install(backend, FIRST).succeeds();
        let before = Snapshot::take().without_counters();
        let running = held(lab, backend, LONG);
        end_ago(1, true);
        wait_for_a_queue();
        assert!(file("pending").is_some(), "it goes back while it is proven");
        kill(pid(running.pid), Signal::SIGKILL).expect("it is held");
        running.finish();
        wait_for_the_end();
        Snapshot::take().without_counters().assert_unchanged_since(&before);
    }
}
