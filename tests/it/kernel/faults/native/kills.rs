//! The program is killed, or asked to stop, at any of its steps.

use nix::sys::signal::Signal;

use super::super::{FIRST, SECOND, Start, their_rules};
use super::NATIVE;
use crate::support::backend::own_table;
use crate::support::command::Program;
use crate::support::snapshot::Snapshot;
use crate::support::tracer::{Call, Then, When, trace};
use crate::support::{Lab, Run, Variant};

/// Calls by which a process changes, or asks, something that is not itself.
fn is_step(call: &Call) -> bool {
    const STEPS: &[i64] = &[
        libc::SYS_sendto,
        libc::SYS_write,
        libc::SYS_flock,
        libc::SYS_fsync,
        libc::SYS_ftruncate,
        libc::SYS_fchmod,
        libc::SYS_mkdirat,
        libc::SYS_unlinkat,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mkdir,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename,
    ];
    STEPS.contains(&call.number)
}

/// Sends a signal at one step, before or after it is made; how many there were until then.
fn interrupted(program: &Program, at: usize, signal: Signal) -> (Run, usize) {
    let mut steps = 0;
    let run = trace(program, |call: &Call, _: When| {
        if !is_step(call) {
            return Then::GoOn;
        }
        steps += 1;
        if steps == at + 1 { Then::Signal(signal) } else { Then::GoOn }
    });
    (run, steps)
}

/// What is there when nothing is, when the first configuration is, when the second is.
struct States {
    clean: Snapshot,
    tables: [Option<String>; 3],
}

impl States {
    fn of(lab: &Lab) -> Self {
        their_rules(Variant::Nft);
        lab.uninstall(NATIVE, &[]).succeeds();
        let clean = Snapshot::take();
        let tables = [&FIRST[..], &SECOND].map(|flags| {
            lab.install(NATIVE, flags).succeeds();
            own_table()
        });
        let [first, second] = tables;
        assert!(first.is_some() && second.is_some() && first != second);
        Self { clean, tables: [None, first, second] }
    }
}

/// Kills a run at each step, looks that the table is whole, and that what comes next ends as if nothing had been.
fn killed(lab: &Lab, start: Start, program: impl Fn(&Lab) -> Program) {
    let states = States::of(lab);
    for at in 0.. {
        start.prepare(lab, NATIVE);
        let (run, steps) = interrupted(&program(lab), at, Signal::SIGKILL);
        if steps <= at {
            run.succeeds();
            println!("{start:?}: killed at each of {at} steps");
            assert!(at > 20, "only {at} steps");
            break;
        }
        assert_eq!(run.signal, Some(9), "step {at}: {run}");
        let table = own_table();
        assert!(states.tables.contains(&table), "step {at}: {table:?}");
        // Each repairs by itself: an install makes it whole, and an uninstall finds all that is ours.
        if at % 2 == 0 {
            lab.install(NATIVE, &SECOND).succeeds();
            assert_eq!(own_table(), states.tables[2], "step {at}");
        }
        lab.uninstall(NATIVE, &[]).succeeds();
        Snapshot::take().assert_unchanged_since(&states.clean);
    }
}

#[test]
fn an_install_killed_at_any_step_is_repaired_by_the_next() {
    Lab::enter(|lab| killed(lab, Start::Clean, |lab| lab.installing(NATIVE, &SECOND)));
}

#[test]
fn a_reinstall_killed_at_any_step_is_repaired_by_the_next() {
    Lab::enter(|lab| killed(lab, Start::Installed, |lab| lab.installing(NATIVE, &SECOND)));
}

#[test]
fn an_uninstall_killed_at_any_step_is_finished_by_the_next() {
    Lab::enter(|lab| killed(lab, Start::Installed, |lab| lab.uninstalling(NATIVE, &[])));
}

#[test]
fn asked_to_stop_it_leaves_no_half() {
    Lab::enter(|lab| {
        let states = States::of(lab);
        let mut stopped = 0;
        for at in 0.. {
            Start::Installed.prepare(lab, NATIVE);
            let before = Snapshot::take();
            let (run, steps) = interrupted(&lab.installing(NATIVE, &SECOND), at, Signal::SIGTERM);
            if steps <= at {
                run.succeeds();
                break;
            }
            match (run.code, run.signal) {
                (Some(0), _) => assert_eq!(own_table(), states.tables[2], "step {at}"),
                // It had not begun, and did not hold signals yet.
                (None, Some(15)) => Snapshot::take().assert_unchanged_since(&before),
                _ => {
                    stopped += 1;
                    let _ = run.exits(1).says("SIGTERM");
                    Snapshot::take().assert_unchanged_since(&before);
                }
            }
        }
        assert!(stopped > 3, "{stopped}");
    });
}
