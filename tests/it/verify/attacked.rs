//! What the users can do to a run whose UIDs it borrows for its probes: nothing, to none of its threads and children.

use std::collections::BTreeSet;
use std::fs::{self, File};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::support::Backend;
use crate::support::command::{Program, Run};
use crate::support::lab::{Lab, each_backend, skip};
use crate::support::tracer::{Call, Then, When, trace};
use crate::support::users::{APP, SIDECAR, as_user, exists_here};

/// Calls after which a thread has other credentials, or is at work with them.
const MOMENTS: [i64; 10] = [
    libc::SYS_setfsuid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setuid,
    libc::SYS_setresgid,
    libc::SYS_capset,
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_execve,
    libc::SYS_unshare,
];

/// What belongs to those alone who may trace a process (`ptrace(2)`, "access mode checking").
const TRACERS_FILES: [&str; 4] = ["mem", "environ", "syscall", "fd/0"];

/// Real, effective, saved and file system UID of a thread.
fn uids(thread: i32) -> Option<Vec<u32>> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().map(|word| word.parse().ok()).collect()
}

/// Whether a thread is one of the run, as long as the calling thread traces that: a number of one that has ended may be
/// another program's by then, of any user. One that is traced keeps its number until the tracer hears of its end.
fn is_of_the_run(thread: i32) -> bool {
    let tracer = fs::read_to_string(format!("/proc/{thread}/status")).ok().and_then(|status| {
        status.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse().ok())
    });
    tracer == Some(nix::unistd::gettid().as_raw())
}

/// What a user can do to threads.
fn attack(user: u32, threads: &BTreeSet<i32>) -> Vec<String> {
    let threads = threads.clone();
    as_user(user, move || {
        let mut possible = Vec::new();
        for thread in threads {
            match kill(Pid::from_raw(thread), None) {
                Err(Errno::EPERM | Errno::ESRCH) => {}
                other => possible.push(format!("signal {thread}: {other:?}")),
            }
            let open = |file: &&str| File::open(format!("/proc/{thread}/{file}")).is_ok();
            possible.extend(
                TRACERS_FILES.iter().filter(|file| open(file)).map(|file| format!("{file} of {thread}")),
            );
        }
        possible
    })
}

/// Runs a command while both users try everything at each moment. Also tells whose UIDs it borrowed.
fn attacked(program: &Program) -> (Run, BTreeSet<u32>) {
    let mut threads = BTreeSet::new();
    let mut borrowed = BTreeSet::new();
    let run = trace(program, |call: &Call, when| {
        threads.insert(call.thread());
        if when == When::After && MOMENTS.contains(&call.number) {
            threads.retain(|thread| is_of_the_run(*thread));
            assert!(threads.contains(&call.thread()), "a thread of the run is not taken for one");
            borrowed.extend(uids(call.thread()).into_iter().flatten());
            for user in [SIDECAR, APP] {
                let possible = attack(user, &threads);
                assert!(possible.is_empty(), "after call {}, user {user} can: {possible:?}", call.number);
            }
        }
        Then::GoOn
    });
    borrowed.remove(&0);
    (run, borrowed)
}

each_backend! {
    fn nobody_but_root_can_signal_or_trace_an_installation_that_proves_itself(lab, backend) {
        let (run, borrowed) = attacked(&proven(lab, backend));
        assert!(borrowed.contains(&SIDECAR) && borrowed.len() > 1, "{borrowed:?} {run}");
        // Stopped at each call, beside other tests, it may be too slow for the deadlines of its probes. Then it says so,
        // and has gone back.
        if run.code != Some(0) {
            let run = run.exits(1).says("the installation does not work").says("the host is as it was before");
            assert!(run.stdout.contains("was not answered in time") || run.stdout.contains("a program that is not the sidecar"), "{run}");
        }
    }
}

/// An installation that borrows the UIDs of the sidecar and of an application, starts programs, and leaves a process
/// behind that waits.
fn proven(lab: &Lab, backend: Backend) -> Program {
    lab.installing(backend, &["--redirect-dns", "--verify", "--confirm", "60s"])
}

/// What is tried does succeed with a thread that is a user's own.
#[test]
fn whose_uid_a_thread_has_can_signal_it() {
    Lab::enter(|_| {
        if !exists_here(SIDECAR) {
            return skip("no further users are mapped here");
        }
        let (told, tid) = std::sync::mpsc::channel();
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            as_user(SIDECAR, move || {
                told.send(nix::unistd::gettid().as_raw()).expect("somebody waits");
                let _ = wait.recv();
            });
        });
        let thread = tid.recv().expect("a thread");
        assert!(!is_of_the_run(thread));
        let possible = attack(SIDECAR, &[thread].into());
        assert!(possible.iter().any(|it| it.starts_with("signal")), "{possible:?}");
        drop(end);
        other.join().expect("it ends");
    });
}

#[test]
fn nor_a_demonstration() {
    Lab::enter(|lab| {
        if !exists_here(SIDECAR) {
            return skip("no further users are mapped here");
        }
        let (run, borrowed) = attacked(&lab.program().arg("demo"));
        assert!(!borrowed.is_empty(), "{run}");
        let run = run.prints("3. Upgrade");
        // Stopped at each call it is too slow for the connections of its last part. There is no other reason to fail.
        if run.code != Some(0) {
            let _ = run
                .exits(1)
                .says("connections did not reach the sidecar; nothing on this machine was changed");
        }
    });
}
