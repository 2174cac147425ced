//! Nothing holds up the way back of a trial for long, and where nobody is left to go back, everybody is told.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};

use super::proof::stopped;
use super::trial::{
    FIRST, LONG, RUN, end_ago, file, log, on_trial, wait_for_the_end, wait_for_the_installation, waiter,
    waiter_beside,
};
use crate::support::command::{Program, pid};
use crate::support::lab::each_backend;
use crate::support::mesh::listening_sidecar;
use crate::support::names::{How, INSTALLATION, as_root_without_capabilities, take, take_as_a_run};
use crate::support::snapshot::Snapshot;
use crate::support::wrappers::is_running;
use crate::support::{APP, Backend, Family, Lab, Run, as_user};

/// What is kept while the time to confirm ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// The lock file, by a run that hangs.
    File,
    /// The name, by a run in another container that hangs.
    Name,
    /// The name, by an ordinary user.
    NameOfStranger,
    /// The name, by root without capabilities.
    NameWithoutProof,
}

impl Kept {
    const ALL: [Self; 4] = [Self::File, Self::Name, Self::NameOfStranger, Self::NameWithoutProof];

    /// Keeps it for as long as the value lives. `None` where this user namespace cannot.
    fn keep(self) -> Option<(Option<Flock<File>>, Vec<OwnedFd>)> {
        Some(match self {
            Self::File => {
                let file = File::open(file("lock").expect("a lock file")).expect("readable");
                let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).expect("nobody has it");
                (Some(lock), Vec::new())
            }
            Self::Name => (None, vec![take_as_a_run(INSTALLATION)?]),
            Self::NameOfStranger => (None, as_user(APP, || take(INSTALLATION, How::Full))),
            Self::NameWithoutProof => (None, as_root_without_capabilities(|| take(INSTALLATION, How::Full))),
        })
    }
}

fn status(lab: &Lab) -> (Run, serde_json::Value) {
    let run = lab.program().args(["status", "-o", "json"]).run();
    let report = serde_json::from_str(&run.stdout).expect("JSON");
    (run, report)
}

/// Kills the process that waits, and waits for its end.
fn kill_waiter(lab: &Lab) {
    let waiter = waiter(lab);
    kill(pid(waiter), Signal::SIGKILL).expect("it waits");
    while is_running(waiter) {
        std::thread::yield_now();
    }
}

/// The program as process 1 of a PID namespace of its own.
fn first(lab: &Lab, backend: Backend, flags: &[&str]) -> Program {
    let install = ["install", "--kuma-dp-user", "kuma-dp", "--redirect-all-dns-traffic"];
    Program::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--"])
        .arg(lab.program_path())
        .args(install)
        .args(backend.flags())
        .args(flags)
}

each_backend! {
    fn nobody_is_waited_for_long(lab, backend) {
        lab.install(backend, FIRST).succeeds();
        let before = Snapshot::take().without_counters();
        for kept in Kept::ALL {
            on_trial(lab, backend, LONG).run().succeeds();
            let Some(keeping) = kept.keep() else { lab.program().arg("confirm").run().succeeds(); continue };
            end_ago(0, true);
            wait_for_the_end();
            assert_eq!(log().contains("going back without the lock"), matches!(kept, Kept::File | Kept::Name), "{kept:?} {}", log());
            drop(keeping);
            Snapshot::take().without_counters().assert_unchanged_since(&before);
            std::fs::remove_file(file("log").expect("a log")).expect("removed");
        }
        lab.install(backend, FIRST).succeeds().prints("nothing was written");
    }

    /// It goes on when the host went back already.
    fn an_installation_that_is_stopped_is_not_waited_for(lab, backend) {
        lab.install(backend, FIRST).succeeds();
        let before = Snapshot::take().without_counters();
        let stopped = stopped(lab, backend, 600);
        end_ago(0, true);
        wait_for_the_end();
        assert!(log().contains("going back without the lock"), "{}", log());
        kill(pid(stopped.pid), Signal::SIGCONT).expect("it is stopped");
        let run = stopped.finish().exits(1);
        run.says("the time to confirm was over before the installation was complete").says("as it was before");
        assert_eq!(file("pending"), None);
        Snapshot::take().without_counters().assert_unchanged_since(&before);
    }

    fn an_installation_whose_waiter_is_killed_is_taken_back(lab, backend) {
        let before = Snapshot::take();
        let stopped = stopped(lab, backend, 600);
        kill(pid(waiter_beside(lab, Some(stopped.pid))), Signal::SIGKILL).expect("it waits");
        kill(pid(stopped.pid), Signal::SIGCONT).expect("it is stopped");
        stopped.finish().exits(1).says("the process that waits for the confirmation has ended").says("as it was before");
        assert!(!Path::new(RUN).exists());
        Snapshot::take().assert_unchanged_since(&before);
    }

    fn where_nobody_is_left_to_go_back_everybody_is_told(lab, backend) {
        let _sidecar = listening_sidecar();
        on_trial(lab, backend, LONG).run().succeeds();
        let (run, report) = status(lab);
        let _ = run.exits(0);
        assert_eq!(report["trial"]["state"], "waiting");
        kill_waiter(lab);
        let (run, report) = status(lab);
        let _ = run.exits(11);
        assert_eq!(report["trial"]["state"], "abandoned");
        // Also in other mount and PID namespaces.
        let elsewhere = Program::new("unshare").args(["--mount", "--pid", "--fork", "--mount-proc", "--"])
            .arg(lab.program_path()).arg("status").run();
        let _ = elsewhere.exits(11).prints("nothing goes").prints("tproxy confirm").prints("tproxy uninstall");
        let there = Snapshot::take().without_counters();
        lab.program().arg("confirm").run().succeeds().prints("the installation stays").prints("had ended already");
        Snapshot::take().without_counters().assert_unchanged_since(&there);
        let (run, report) = status(lab);
        let _ = run.exits(0);
        assert!(report["trial"].is_null());
        lab.program().arg("confirm").run().exits(1);
    }

    fn it_is_confirmed_after_its_time_if_nobody_went_back(lab, backend) {
        on_trial(lab, backend, LONG).run().succeeds();
        kill_waiter(lab);
        end_ago(5, false);
        assert_eq!(status(lab).1["trial"]["state"], "abandoned");
        lab.program().arg("confirm").run().succeeds().prints("the installation stays");
        assert!(backend.has_ours(Family::V4));
    }

    fn nothing_is_refused_because_nobody_is_left(lab, backend) {
        let before = Snapshot::take().without_counters();
        on_trial(lab, backend, LONG).run().succeeds();
        kill_waiter(lab);
        lab.install(backend, FIRST).succeeds().says("the process that would have taken it back has ended");
        assert_eq!(file("pending"), None);
        on_trial(lab, backend, LONG).run().succeeds();
        kill_waiter(lab);
        lab.uninstall(backend, &[]).succeeds();
        Snapshot::take().without_counters().assert_unchanged_since(&before);
        assert!(!Path::new(RUN).exists());
    }

    /// Its time is over and it does not go back; that does not hide that another one has ended.
    fn one_that_is_stopped_is_not_taken_for_a_later_one(lab, backend) {
        on_trial(lab, backend, LONG).run().succeeds();
        let stopped = waiter(lab);
        kill(pid(stopped), Signal::SIGSTOP).expect("it waits");
        end_ago(600, false);
        lab.install(backend, FIRST).succeeds();
        on_trial(lab, backend, LONG).run().succeeds();
        let second = waiter_beside(lab, Some(stopped));
        assert_eq!(status(lab).1["trial"]["state"], "waiting");
        kill(pid(second), Signal::SIGKILL).expect("it waits");
        while is_running(second) {
            std::thread::yield_now();
        }
        assert_eq!(status(lab).1["trial"]["state"], "abandoned");
        kill(pid(stopped), Signal::SIGCONT).expect("it is stopped");
        while is_running(stopped) {
            std::thread::yield_now();
        }
        lab.program().arg("confirm").run().succeeds();
    }

    fn process_1_of_a_container_stays(lab, backend) {
        let before = Snapshot::take();
        let run = first(lab, backend, &["--confirm", "1s"]).run();
        let run = run.exits(1).says("tproxy stays").says("process 1 of its PID namespace").says("nobody confirmed");
        assert_eq!(file("pending"), None, "{run}");
        std::fs::remove_file(file("log").expect("a log")).expect("removed");
        std::fs::remove_dir(RUN).expect("nothing else in it");
        Snapshot::take().assert_unchanged_since(&before);
        let staying = first(lab, backend, LONG).start();
        wait_for_the_installation();
        lab.program().arg("confirm").run().succeeds();
        staying.finish().succeeds().prints("confirmed");
    }

    /// As a container is stopped.
    fn process_1_of_a_container_goes_back_when_it_is_stopped(lab, backend) {
        let before = Snapshot::take().without_counters();
        let staying = first(lab, backend, LONG).start();
        wait_for_the_installation();
        kill(pid(child_of(staying.pid)), Signal::SIGTERM).expect("it stays");
        staying.finish().exits(1).says("what was there before is back");
        assert!(log().contains("asked to end by SIGTERM"), "{}", log());
        Snapshot::take().without_counters().assert_foreign_unchanged_since(&before);
        assert!(!backend.has_ours(Family::V4));
        // Not even that can be told to one that is killed, and all with it.
        let staying = first(lab, backend, LONG).start();
        wait_for_the_installation();
        kill(pid(child_of(staying.pid)), Signal::SIGKILL).expect("it stays");
        let _ = staying.finish();
        let (run, report) = status(lab);
        assert_eq!(report["trial"]["state"], "abandoned", "{run}");
        lab.uninstall(backend, &[]).succeeds();
    }

    fn the_main_process_of_a_unit_stays(lab, backend) {
        let before = Snapshot::take().without_counters();
        let line = "export SYSTEMD_EXEC_PID=$$; exec \"$0\" install --kuma-dp-user kuma-dp --confirm 1s \"$@\"";
        let run = Program::new("sh").args(["-c", line]).arg(lab.program_path()).args(backend.flags()).run();
        run.exits(1).says("tproxy stays").says("main process of a systemd unit").says("nobody confirmed");
        Snapshot::take().without_counters().assert_foreign_unchanged_since(&before);
        assert!(!backend.has_ours(Family::V4));
    }
}

/// The program is not process 1, which ends before anybody confirms.
#[test]
fn the_end_of_a_container_is_seen() {
    Lab::enter(|lab| {
        let line = "\"$0\" install --kuma-dp-user kuma-dp --backend nftables --confirm 600s; exit $?";
        let _sidecar = listening_sidecar();
        let shell = Program::new("unshare").args(["--pid", "--fork", "--mount-proc", "--", "sh", "-c", line]);
        shell.arg(lab.program_path()).run().succeeds().says("once process 1 of this PID namespace has ended");
        let (run, report) = status(lab);
        assert_eq!(report["trial"]["state"], "abandoned", "{run}");
        let _ = run.exits(11);
    });
}

fn child_of(parent: u32) -> u32 {
    let wanted = format!("PPid:\t{parent}\n");
    let numbers = || {
        std::fs::read_dir("/proc")
            .expect("processes")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
    };
    let is_child = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| text.contains(&wanted))
    };
    numbers().find(is_child).expect("a child")
}
