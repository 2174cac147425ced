//! Threads and processes run out: a run fails with the host as before, or gets over it. It is
//! never cut off after the first change.

use std::fs;

use super::{SECOND, Start};
use crate::support::command::{Program, find};
use crate::support::lab::{each_backend, skip};
use crate::support::snapshot::Snapshot;
use crate::support::{Backend, Lab, Run};

fn install(lab: &Lab, backend: Backend, through: Program) -> Run {
    let program = through.arg(lab.program_path()).args(["install", "--kuma-dp-user", "kuma-dp"]);
    let retries = ["--max-retries", "1", "--sleep-between-retries", "1ms"];
    program.args(backend.flags()).args(SECOND).args(retries).run()
}

/// As wanted, or as before.
#[track_caller]
fn judge(run: &Run, before: &Snapshot, wanted: &Snapshot) {
    match run.code {
        Some(0) => Snapshot::take().without_counters().assert_unchanged_since(wanted),
        Some(1 | 3) => Snapshot::take().assert_put_back_since(before),
        _ => panic!("{run}"),
    }
}

/// What the second configuration looks like, and what it looks like before it, from each start.
fn each_start(lab: &Lab, backend: Backend, check: impl Fn(&Snapshot, &Snapshot, &dyn Fn())) {
    lab.install(backend, &SECOND).succeeds();
    let wanted = Snapshot::take().without_counters();
    for start in Start::BOTH {
        start.prepare(lab, backend);
        let before = Snapshot::take();
        check(&before, &wanted, &|| start.prepare(lab, backend));
    }
}

each_backend! {
    fn without_another_thread_or_process(lab, backend) {
        if find("strace").is_none() {
            return skip("this machine has no strace");
        }
        let strace = |inject: &[&str]| {
            let calls = "trace=clone,clone3,fork,vfork";
            Program::new("strace").args(["-f", "-qq", "-o", "/run/lab/strace.log", "-e", calls]).args(inject)
        };
        each_start(lab, backend, |_, wanted, again| {
            install(lab, backend, strace(&[])).succeeds();
            let log = fs::read_to_string("/run/lab/strace.log").expect("strace wrote its log");
            let calls = log.lines().filter(|line| line.contains(" = ")).count();
            for error in ["EAGAIN", "ENOMEM"] {
                for number in 1..=calls + 1 {
                    again();
                    let before = Snapshot::take();
                    let inject = format!("inject=clone,clone3,fork,vfork:error={error}:when={number}");
                    let run = install(lab, backend, strace(&["-e", &inject]));
                    judge(&run, &before, wanted);
                }
                again();
                let before = Snapshot::take();
                // From the first one on: only what needs no process succeeds.
                let inject = format!("inject=clone,clone3,fork,vfork:error={error}");
                let run = install(lab, backend, strace(&["-e", &inject]));
                judge(&run, &before, wanted);
                assert_eq!(run.code == Some(0), backend == Backend::Nftables, "{run}");
            }
        });
    }
}
