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
        // Stopped at each call it may be too slow for the deadlines of its probes.
        assert!(matches!(run.code, Some(0 | 1)), "{run}");
    }
}

/// An installation that borrows the UIDs of the sidecar and of an application, starts programs, and leaves a process
/// behind that waits.
fn proven(lab: &Lab, backend: Backend) -> Program {
    lab.installing(backend, &["--redirect-dns", "--verify", "--confirm", "60s"])
}

#[test]
fn nor_a_demonstration() {
    Lab::enter(|lab| {
        if !exists_here(SIDECAR) {
            return skip("no further users are mapped here");
        }
        let (run, borrowed) = attacked(&lab.program().arg("demo"));
        assert!(!borrowed.is_empty(), "{run}");
        // Stopped at each call it is too slow for the connections of its last part, so it may end with 1.
        run.prints("3. Upgrade");
    });
}
