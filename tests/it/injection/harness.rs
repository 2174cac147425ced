//! The harness itself: what it counts, injects and finds. A program that breaks a promise on purpose is found out.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::engine::{Choice, Report, try_all};
use super::fault::{self, every, read, some, telling, text};
use super::law::{Goal, Marks, Seen, broken};
use super::scenario::{Act, Scenario, Start};
use super::{NATIVE, TRIAL};
use crate::support::command::Program;
use crate::support::injector::{Calls, Fault, Injection, Role, run};
use crate::support::snapshot::Snapshot;
use crate::support::state::State;
use crate::support::{Lab, Run};

fn injection(role: Role, call: i64, nth: u32, fault: Fault) -> Injection {
    Injection { role, call, nth, fault }
}

/// A shell that starts another program twice, and itself once more.
fn shell() -> Program {
    Program::new("/bin/sh").args(["-c", "/bin/echo hello; /bin/echo hello; (echo fork); echo done"])
}

#[test]
fn calls_are_counted_by_who_makes_them() {
    Lab::enter(|_| {
        let seen = run(&shell(), None, |_| ());
        assert_eq!(seen.run.stdout, "hello\nhello\nfork\ndone\n", "{}", seen.run);
        let count = |role, call| seen.calls.get(&(role, call)).copied().unwrap_or_default();
        assert_eq!(count(Role::Fork, libc::SYS_execve), 2);
        assert_eq!(count(Role::Fork, libc::SYS_write), 1);
        assert_eq!(count(Role::Child, libc::SYS_write), 2);
        assert_eq!(count(Role::Program, libc::SYS_write), 1);
        assert_eq!(count(Role::Loader, libc::SYS_write), 0);
        assert!(count(Role::Loader, libc::SYS_mmap) > 2, "{:?}", seen.calls);
        // The same with one number alone.
        let second = injection(Role::Child, libc::SYS_write, 3, Fault::Error(Errno::EIO));
        let again = run(&shell(), Some(second), |_| ());
        assert!(!again.reached && again.run.code == Some(0) && !again.hung);
        assert_eq!(again.calls[&(Role::Child, libc::SYS_write)], 2);
    });
}

#[test]
fn the_nth_call_fails_and_no_other() {
    Lab::enter(|_| {
        let second = injection(Role::Child, libc::SYS_write, 2, Fault::Error(Errno::EIO));
        let seen = run(&shell(), Some(second), |run| assert!(run.code.is_some()));
        assert!(seen.reached);
        assert_eq!(seen.run.stdout, "hello\nfork\ndone\n");
        let _ = seen.run.says("Input/output error");
    });
}

#[test]
fn who_makes_the_call_is_killed_or_the_program_is() {
    Lab::enter(|_| {
        let at = |fault| injection(Role::Child, libc::SYS_write, 1, fault);
        let caller = run(&shell(), Some(at(Fault::Signal(Signal::SIGKILL))), |_| ());
        assert_eq!((caller.run.stdout.as_str(), caller.run.code), ("hello\nfork\ndone\n", Some(0)));
        let program = run(&shell(), Some(at(Fault::SignalProgram(Signal::SIGKILL))), |_| ());
        // What it had started ends by itself, and is waited for.
        assert_eq!((program.run.code, program.run.signal), (None, Some(9)));
        assert_eq!(fs::read_to_string("/run/lab/injected-stdout").expect("readable"), "hello\n");
        let asked = run(&shell(), Some(at(Fault::SignalProgram(Signal::SIGTERM))), |_| ());
        assert_eq!((asked.run.code, asked.run.signal), (None, Some(15)));
    });
}

/// What is reported of an installation of which the real program is killed at once, and a shell around it does this
/// then.
fn reported(body: &'static str) -> Report {
    Lab::elsewhere(move |lab| {
        let (start, act) = (Start::Nothing, Act::Install(NATIVE, &[]));
        let scenario = Scenario { name: "fake", start, act, around: Some(body) };
        let killed = injection(Role::Child, libc::SYS_geteuid, 1, Fault::Signal(Signal::SIGKILL));
        try_all(lab, &scenario, &Choice::One(killed), 0)
    })
}

#[track_caller]
fn finds(body: &'static str, words: &str) {
    let report = reported(body);
    assert!(report.broken.keys().any(|what| what.contains(words)), "{words}: {:?}", report.broken);
}

#[test]
fn broken_promises_are_reported() {
    Lab::enter(|_| {
        let honest = reported("exit 1");
        assert!(honest.broken.is_empty(), "{:?}", honest.broken);
        assert_eq!((honest.tried, honest.missed), (1, 0));
        assert_eq!(reported("exit 99").crashes.len(), 1, "a strange code is worth to know");

        finds("exit 0", "ended with 0 and left out");
        finds("ip addr add ::9/128 dev lo; exit 1", "ended with 1, and [\"addresses lo\"] is not as before");
        finds("ip addr add ::9/128 dev lo; echo sorry >&2; exit 5", "does not list [\"addresses lo\"]");
        finds("ip addr add ::9/128 dev lo; kill -ABRT $$", "half-way");
        finds("iptables-nft -t nat -F OUTPUT; exit 1", "others' rules were changed");
        finds("ip addr add ::9/128 dev lo; exit 5", "the same command again did not repair");
        finds(
            "echo '::6 is there' >&2; ip addr add ::9/128 dev lo; touch /run/lab/refuse; exit 5",
            "again ended with 1",
        );
    });
}

fn state(parts: &[(&str, &str)]) -> State {
    State(parts.iter().map(|(part, text)| ((*part).to_owned(), text.as_bytes().to_vec())).collect())
}

fn ended(code: i32, stderr: &str) -> Run {
    let (line, stdout, stderr) = (String::new(), String::new(), stderr.to_owned());
    Run { line, code: Some(code), signal: None, stdout, stderr }
}

/// What is broken when a fault in a child, or the program, ends like this.
fn judged(fault: Fault, role: Role, goal: Goal, run: &Run, then: &State, after: &State) -> Vec<String> {
    let before = state(&[("nft ip nat", "theirs"), ("nft ip6 nat", "theirs")]);
    let wanted = state(&[("nft ip nat", "ours"), ("nft ip6 nat", "ours")]);
    let marks = Marks { before, wanted, in_words: Snapshot::default(), instead: None };
    let injection = injection(role, libc::SYS_read, 1, fault);
    let seen = Seen {
        injection,
        run,
        then,
        after,
        hung: false,
        foreign: None,
        in_words: false,
        again: None,
        again_in_words: false,
    };
    broken(&marks, goal, &seen)
}

#[test]
fn what_is_missing_has_to_be_said_and_to_be_the_hosts_fault() {
    let half = state(&[("nft ip nat", "ours"), ("nft ip6 nat", "theirs")]);
    let refused = Fault::Error(Errno::EPERM);
    let judge = |fault, words| judged(fault, Role::Child, Goal::Stays, &ended(0, words), &half, &half);
    assert_eq!(judge(refused, "warning: IPv6 traffic is not redirected"), Vec::<String>::new());
    assert_eq!(judge(refused, "").len(), 1);
    for passing in
        [Fault::Error(Errno::ENOMEM), Fault::Signal(Signal::SIGKILL), Fault::Signal(Signal::SIGTERM)]
    {
        assert_eq!(judge(passing, "warning: IPv6 traffic is not redirected").len(), 1, "{passing:?}");
    }
}

#[test]
fn a_trial_has_to_go_back_unless_who_waits_was_killed() {
    let there = state(&[("nft ip nat", "ours"), ("nft ip6 nat", "ours")]);
    let error = Fault::Error(Errno::EIO);
    let judge = |fault, role| judged(fault, role, Goal::Trial, &ended(0, ""), &there, &there);
    assert_eq!(judge(error, Role::Fork).len(), 1);
    assert_eq!(judge(error, Role::Program).len(), 1);
    assert_eq!(judge(Fault::Signal(Signal::SIGKILL), Role::Program).len(), 1);
    assert_eq!(judge(Fault::Signal(Signal::SIGTERM), Role::Fork).len(), 1);
    assert_eq!(judge(Fault::Signal(Signal::SIGKILL), Role::Fork), Vec::<String>::new());
}

/// Whoever is killed before there is a process that waits cannot remove the file that tells of it.
#[test]
fn a_file_alone_may_stay_of_a_trial_that_never_began() {
    let file = ("file /run/tproxy/1.pending", "");
    let before = state(&[("nft ip nat", "theirs"), ("nft ip6 nat", "theirs"), file]);
    let there = state(&[("nft ip nat", "ours"), ("nft ip6 nat", "ours"), file]);
    let killed = Run { code: None, signal: Some(9), ..ended(0, "") };
    let fault = Fault::Signal(Signal::SIGKILL);
    let judge = |then, after| judged(fault, Role::Program, Goal::Trial, &killed, then, after);
    assert_eq!(judge(&before, &before), Vec::<String>::new());
    assert_eq!(judge(&there, &before).len(), 1);
    assert_eq!(judge(&there, &there).len(), 1);
}

/// Where an uninstall could not end, what it removed is not left.
#[test]
fn what_is_left_of_an_uninstall_has_to_be_listed() {
    let half = state(&[("nft ip nat", "ours"), ("nft ip6 nat", "theirs")]);
    let judge = |goal, words| {
        judged(Fault::Error(Errno::EIO), Role::Program, goal, &ended(5, words), &half, &half).len()
    };
    assert_eq!(judge(Goal::Removed, "IPv6 rules are left"), 0);
    assert_eq!(judge(Goal::Removed, "IPv4 rules are left"), 1);
    assert_eq!(judge(Goal::Stays, "IPv4 rules are left"), 0);
}

#[test]
fn injections_are_read_as_they_are_written() {
    let calls = Calls::from([
        ((Role::Program, libc::SYS_sendto), 50),
        ((Role::Child, libc::SYS_close), 2),
        ((Role::Child, libc::SYS_write), 2),
        ((Role::Loader, libc::SYS_mmap), 9),
        ((Role::Fork, 9_999), 1),
    ]);
    let all = every(&calls);
    for injection in &all {
        assert_eq!(read(&text(injection)), Some(*injection), "{}", text(injection));
    }
    // Three errors and two signals at each; two more at others' calls; no errors of a call that never fails.
    assert_eq!(all.len(), 50 * 5 + 2 * 4 + 2 * 7 + 9 * 7 + 7);
    let few = telling(&calls);
    let count = |role, call| few.iter().filter(|one| one.role == role && one.call == call).count();
    assert_eq!(count(Role::Loader, libc::SYS_mmap), 0);
    assert_eq!(count(Role::Child, libc::SYS_close), 0);
    assert_eq!(count(Role::Child, libc::SYS_write), 14);
    assert_eq!(count(Role::Program, libc::SYS_sendto), 20 * 5);
    assert!(few.iter().any(|one| one.call == libc::SYS_sendto && one.nth == 50), "the last one, too");
    for nonsense in
        ["", "program:sendto:1", "nobody:read:1:EIO", "program:read:x:EIO", "program:read:1:ENONSENSE"]
    {
        assert_eq!(read(nonsense), None, "{nonsense}");
    }
    assert_eq!(fault::name(9_999), "9999");
}

#[test]
fn a_seed_chooses_some() {
    let all: Vec<u32> = (0..1_000).collect();
    let tenth = some(all.clone(), 100, 7);
    assert_eq!(tenth.len(), 100);
    assert_eq!(tenth, some(all.clone(), 100, 7));
    assert_ne!(tenth, some(all.clone(), 100, 8));
    let mut sorted = some(all.clone(), 1_001, 7);
    sorted.sort_unstable();
    assert_eq!(sorted, all);
    let distinct: std::collections::BTreeSet<u32> = tenth.into_iter().collect();
    assert_eq!(distinct.len(), 100);
}

/// The flags that make a trial are those that the goal is read from.
#[test]
fn a_trial_is_told_by_its_flags() {
    let goal = |act| Scenario { name: "", start: Start::Nothing, act, around: None }.goal();
    assert_eq!(goal(Act::Install(NATIVE, TRIAL)), Goal::Trial);
    assert_eq!(goal(Act::Install(NATIVE, &[])), Goal::Stays);
    assert_eq!(goal(Act::Confirm), Goal::Confirmed);
}
