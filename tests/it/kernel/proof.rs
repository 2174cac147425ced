//! `--confirm` with `--verify`: whatever becomes of the proof, the host goes back when it was promised, and not while
//! it is being proven.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};

use super::trial::{end_ago, file, notes, now, promise, wait_for_the_end, waiter_beside};
use crate::support::command::{Running, pid};
use crate::support::lab::each_backend;
use crate::support::snapshot::Snapshot;
use crate::support::{Backend, Lab};

const FIRST: &[&str] = &["--redirect-dns"];
const WITH_PROOF: &[&str] = &["--redirect-all-dns-traffic", "--exclude-inbound-ports", "22", "--verify"];

/// Longer than any of these tests takes; nobody waits for it.
const LONG: u64 = 600;

/// An installation in the middle of its proof: all rules are there, and packets are under way.
fn proving(lab: &Lab, backend: Backend, seconds: u64) -> Running {
    let time = format!("{seconds}s");
    let running = lab.installing(backend, &[WITH_PROOF, &["--confirm", &time]].concat()).start();
    until("its temporary interface is there", || {
        std::fs::read_to_string("/proc/thread-self/net/dev")
            .is_ok_and(|devices| devices.contains("tpv"))
            .then_some(())
    });
    running
}

/// The same, stopped.
pub(super) fn stopped(lab: &Lab, backend: Backend, seconds: u64) -> Running {
    let running = proving(lab, backend, seconds);
    kill(pid(running.pid), Signal::SIGSTOP).expect("it is under way");
    running
}

/// A process that holds another one up, as a slow machine would: that one is not stopped, and gets nowhere. It goes on
/// with the end of the value.
struct Slow(Child);

impl Slow {
    fn down(running: &Running) -> Self {
        // Threads trace, and another thread waits for the end of what this process started.
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "kernel::proof::holds_another_process", "--ignored", "--nocapture"])
            .env("PID", running.pid.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.expect("it starts");
        let lines = BufReader::new(child.stdout.as_mut().expect("a pipe")).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "held"));
        Self(child)
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn holds_another_process() {
    let pid = pid(std::env::var("PID").expect("a PID").parse().expect("a number"));
    ptrace::seize(pid, ptrace::Options::empty()).expect("root may");
    ptrace::interrupt(pid).expect("it is traced");
    waitpid(pid, Some(WaitPidFlag::__WALL)).expect("it is traced");
    println!("\nheld");
    let _ = std::io::stdin().read(&mut [0]);
    // It may have been killed meanwhile.
    let _ = ptrace::detach(pid, None);
}

/// Waits until the process that goes back is about to take the lock that the installation holds.
fn wait_for_a_queue(lab: &Lab, running: &Running) {
    let waiter = waiter_beside(lab, Some(running.pid));
    let is_lock = |link: std::path::PathBuf| link.extension().is_some_and(|extension| extension == "lock");
    until("the other process has opened the lock", || {
        let mut files =
            std::fs::read_dir(format!("/proc/{waiter}/fd")).expect("it waits").filter_map(Result::ok);
        files.any(|file| std::fs::read_link(file.path()).is_ok_and(is_lock)).then_some(())
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
        let running = stopped(lab, backend, LONG);
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
        let running = stopped(lab, backend, 1);
        kill(pid(running.pid), Signal::SIGKILL).expect("it is held");
        running.finish();
        wait_for_the_end();
        std::fs::remove_file(file("log").expect("a log")).expect("removed");
        std::fs::remove_dir("/run/tproxy").expect("nothing else in it");
        Snapshot::take().assert_unchanged_since(&before);
    }

    /// A host that goes back while it is proven would look broken.
    fn a_proof_may_take_longer_than_the_time(lab, backend) {
        let running = proving(lab, backend, LONG);
        let slow = Slow::down(&running);
        end_ago(1, true);
        wait_for_a_queue(lab, &running);
        let said = notes(lab);
        assert!(said.contains("packets are just being sent to prove") && !said.contains("nobody confirmed"), "{said}");
        let began = now();
        drop(slow);
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
        let running = proving(lab, backend, LONG);
        let slow = Slow::down(&running);
        end_ago(1, true);
        wait_for_a_queue(lab, &running);
        assert!(file("pending").is_some(), "it goes back while it is proven");
        kill(pid(running.pid), Signal::SIGKILL).expect("it is held");
        drop(slow);
        running.finish();
        wait_for_the_end();
        Snapshot::take().without_counters().assert_unchanged_since(&before);
    }
}
