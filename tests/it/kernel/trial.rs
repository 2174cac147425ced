//! `--confirm`: what nobody confirms comes undone, whoever is killed meanwhile.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use tproxy::sys::moment::Moment;
use tproxy::sys::turn::Turn;
use tproxy::sys::watch::while_it_stays;

use crate::support::backend::own_the_table;
use crate::support::command::{Program, must, pid};
use crate::support::lab::{each_backend, each_iptables_variant};
use crate::support::names::INSTALLATION;
use crate::support::snapshot::Snapshot;
use crate::support::tracer::{Then, trace};
use crate::support::wrappers::{Fault, Wrappers, is_running};
use crate::support::{Backend, Family, Lab, Variant, firewall};

pub(super) const FIRST: &[&str] = &["--redirect-dns"];
const SECOND: &[&str] =
    &["--redirect-all-dns-traffic", "--exclude-inbound-ports", "22", "--ip-family-mode", "ipv4"];
pub(super) const RUN: &str = "/run/tproxy";

/// Longer than any of these tests takes; nobody waits for it.
pub(super) const LONG: &[&str] = &["--confirm", "600s"];

pub(super) fn file(kind: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(RUN).ok()?;
    entries.filter_map(Result::ok).map(|e| e.path()).find(|path| path.extension().is_some_and(|e| e == kind))
}

/// Waits until the installation no longer waits to be confirmed.
pub(super) fn wait_for_the_end() {
    let stayed = while_it_stays(Path::new(RUN), Moment::now().plus(Duration::from_secs(30)), || {
        Some(file("pending").is_some())
    });
    let log = || file("log").and_then(|log| std::fs::read_to_string(log).ok()).unwrap_or_default();
    assert!(!stayed, "it still waits: {}", log());
}

/// Until the second configuration is on its way to the kernel.
fn wait_for_the_beginning() {
    let begun = || {
        let state = file("json").and_then(|path| std::fs::read_to_string(path).ok());
        state.is_some_and(|state| state.contains("captureAll: true"))
    };
    while !begun() {
        std::thread::yield_now();
    }
}

/// What the file says that waits to be confirmed.
pub(super) fn promise() -> serde_json::Value {
    let text = std::fs::read_to_string(file("pending").expect("it waits")).expect("readable");
    serde_json::from_str(&text).expect("JSON")
}

/// The clock that counts, in its nanoseconds.
pub(super) fn now() -> u64 {
    serde_json::to_value(Moment::now()).ok().and_then(|now| now.as_u64()).expect("a number")
}

/// Changes the end of the time to confirm to so many seconds ago; who waits hears of it if it is put in place.
pub(super) fn end_ago(seconds: u64, heard: bool) {
    let mut says = promise();
    says["until"] = now().saturating_sub(seconds * 1_000_000_000).into();
    say(&says, heard);
}

/// What status has to note, as far as the trial is concerned.
pub(super) fn notes(lab: &Lab) -> String {
    let run = lab.program().args(["status", "-o", "json"]).run();
    let report: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    let notes = report["notes"].as_array().expect("a list").iter().filter_map(|note| note["what"].as_str());
    notes.filter(|what| what.contains("trial") || what.contains("confirm")).collect()
}

pub(super) fn say(says: &serde_json::Value, heard: bool) {
    let pending = file("pending").expect("it waits");
    let written = if heard { pending.with_extension("new") } else { pending.clone() };
    std::fs::write(&written, says.to_string()).expect("written");
    std::fs::rename(&written, &pending).expect("in place");
}

/// Until it is there, and the run that made it has looked for the last time whether somebody waits: it gives its turn away
/// after that.
pub(super) fn wait_for_the_installation() {
    let installed = || {
        let state = file("json").and_then(|path| std::fs::read_to_string(path).ok());
        state.is_some_and(|state| state.contains("captureAll: true") && state.contains("\"installed\""))
    };
    while !installed() {
        std::thread::yield_now();
    }
    drop(Turn::take(INSTALLATION, Duration::from_secs(60)).expect("the run gives it away"));
}

/// The process that waits on this machine.
pub(super) fn waiter(lab: &Lab) -> u32 {
    waiter_beside(lab, None)
}

/// The same beside the one that installed.
pub(super) fn waiter_beside(lab: &Lab, installer: Option<u32>) -> u32 {
    let network = |process: &Path| std::fs::metadata(process.join("ns/net")).ok().map(|file| file.ino());
    let here = network(Path::new("/proc/thread-self"));
    let program = lab.program_path().as_os_str().as_encoded_bytes();
    let waits = |process: &PathBuf| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        network(process) == here && line.split(|byte| *byte == 0).next() == Some(program)
    };
    let processes = std::fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    let number = |path: PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let found: Vec<u32> = processes.map(|entry| entry.path()).filter(waits).filter_map(number).collect();
    let others: Vec<u32> = found.into_iter().filter(|pid| Some(*pid) != installer).collect();
    let [one] = others.as_slice() else { panic!("{others:?}") };
    *one
}

/// Until it has looked at its files for the first time: it sleeps and has its timer.
fn wait_until_it_waits(waiter: u32) {
    let process = PathBuf::from(format!("/proc/{waiter}"));
    let waits = || {
        let state = std::fs::read_to_string(process.join("stat")).expect("it waits");
        let mut fds = std::fs::read_dir(process.join("fd")).expect("it waits").filter_map(Result::ok);
        let is_timer = |fd: std::fs::DirEntry| {
            std::fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:[timerfd]")
        };
        state.contains(") S ") && fds.any(is_timer)
    };
    while !waits() {
        std::thread::yield_now();
    }
}

/// What waits has written so far.
pub(super) fn log() -> String {
    file("log").and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
}

/// Rules of somebody else that have met packets.
fn their_rules(variant: Variant) {
    for family in Family::BOTH {
        let rules = "*nat\n:THEIRS - [0:0]\n[7:420] -A OUTPUT -p udp -m udp --dport 9 -j THEIRS\n\
                     [3:180] -A THEIRS -p udp -j RETURN\nCOMMIT\n*filter\n[5:300] -A INPUT -p udp -j ACCEPT\nCOMMIT\n";
        firewall::restore(variant, family, rules);
    }
}

pub(super) fn on_trial(lab: &Lab, backend: Backend, more: &[&str]) -> Program {
    lab.installing(backend, &[SECOND, more].concat())
}

each_backend! {
    fn what_nobody_confirms_comes_undone(lab, backend) {
        their_rules(backend.tools());
        lab.silence();
        let theirs = Snapshot::take();
        lab.install(backend, FIRST).succeeds();
        let before = Snapshot::take().without_counters();
        on_trial(lab, backend, &["--confirm", "1s", "--foreground"]).run().exits(1).says("nobody confirmed");
        Snapshot::take().without_counters().assert_unchanged_since(&before);
        Snapshot::take().assert_foreign_unchanged_since(&theirs);
        let log = std::fs::read_to_string(file("log").expect("a log")).expect("a readable log");
        assert!(log.contains("nobody confirmed"), "{log}");
        lab.install(backend, FIRST).succeeds().prints("nothing was written");
        lab.program().arg("confirm").run().exits(1).says("no installation waits");
    }

    fn from_nothing_it_goes_back_to_nothing(lab, backend) {
        let before = Snapshot::take();
        on_trial(lab, backend, &["--confirm", "1s"]).run().succeeds().prints("tproxy confirm");
        assert!(backend.has_ours(Family::V4));
        wait_for_the_end();
        // Whoever comes back wants to know what happened: the log is all that is left.
        std::fs::remove_file(file("log").expect("a log")).expect("removed");
        std::fs::remove_dir(RUN).expect("nothing else in it");
        Snapshot::take().assert_unchanged_since(&before);
    }

    fn what_is_confirmed_stays(lab, backend) {
        lab.install(backend, FIRST).succeeds();
        let staying = on_trial(lab, backend, &[LONG, &["--foreground"]].concat()).start();
        wait_for_the_beginning();
        lab.program().arg("confirm").run().succeeds().prints("stays");
        staying.finish().succeeds().prints("stays");
        lab.install(backend, SECOND).succeeds().prints("nothing was written");
        lab.program().arg("confirm").run().exits(1);
    }

    fn it_outlives_its_process_group(lab, backend) {
        lab.install(backend, FIRST).succeeds();
        let before = Snapshot::take().without_counters();
        let flags = ["--kuma-dp-user", "kuma-dp", "--confirm", "2s", "--foreground"];
        let group = Program::new("setsid").arg(lab.program_path()).arg("install").args(flags)
            .args(backend.flags()).args(SECOND).start();
        wait_for_the_beginning();
        let leader = pid(group.pid);
        for signal in [Signal::SIGHUP, Signal::SIGKILL] {
            kill(nix::unistd::Pid::from_raw(-leader.as_raw()), signal).expect("the group is there");
        }
        // The first one may have ended it already.
        let run = group.finish();
        assert!(run.signal == Some(Signal::SIGKILL as i32) || run.code == Some(1), "{run}");
        wait_for_the_end();
        Snapshot::take().without_counters().assert_unchanged_since(&before);
    }

    fn another_installation_has_to_wait_and_an_uninstall_has_not(lab, backend) {
        let before = Snapshot::take();
        on_trial(lab, backend, LONG).run().succeeds();
        let trial = Snapshot::take().without_counters();
        lab.install(backend, FIRST).exits(4).says("waits to be confirmed");
        Snapshot::take().without_counters().assert_unchanged_since(&trial);
        lab.uninstall(backend, &[]).succeeds();
        Snapshot::take().assert_unchanged_since(&before);
        lab.program().arg("confirm").run().exits(1);
    }

    fn one_that_is_being_taken_back_does_not_take_another_along(lab, backend) {
        on_trial(lab, backend, LONG).run().succeeds();
        let waiter = waiter(lab);
        wait_until_it_waits(waiter);
        // It does not hear of it.
        end_ago(2, false);
        lab.install(backend, FIRST).exits(4).says("being taken back");
        lab.program().arg("confirm").run().exits(1).says("too late");
        end_ago(600, false);
        lab.install(backend, FIRST).succeeds();
        assert_eq!(file("pending"), None);
        let after = Snapshot::take().without_counters();
        while is_running(waiter) {
            std::thread::yield_now();
        }
        Snapshot::take().without_counters().assert_unchanged_since(&after);
    }

    fn where_nothing_changes_there_is_nothing_to_confirm(lab, backend) {
        lab.install(backend, SECOND).succeeds();
        let run = on_trial(lab, backend, LONG).run().succeeds().prints("nothing was written");
        let _ = run.says("note: nothing changed, so there is nothing to confirm");
        lab.program().arg("confirm").run().exits(1);
    }

    fn who_is_asked_to_wait_no_longer_goes_back_at_once(lab, backend) {
        let before = Snapshot::take();
        for spoilt in [false, true] {
            on_trial(lab, backend, LONG).run().succeeds();
            let waiter = waiter(lab);
            if spoilt {
                // Whatever it is, nobody confirmed.
                std::fs::write(file("pending").expect("it waits"), "?").expect("written");
            }
            kill(pid(waiter), Signal::SIGTERM).expect("it waits");
            wait_for_the_end();
            let log = file("log").expect("a log");
            while is_running(waiter) {
                std::thread::yield_now();
            }
            let text = std::fs::read_to_string(&log).expect("readable");
            assert!(text.contains("SIGTERM: going back at once"), "{text}");
            std::fs::remove_file(log).expect("removed");
            std::fs::remove_dir(RUN).expect("nothing else in it");
            Snapshot::take().assert_unchanged_since(&before);
        }
    }

    fn what_became_of_it_is_not_made_up(lab, backend) {
        let staying = on_trial(lab, backend, &[LONG, &["--foreground"]].concat()).start();
        wait_for_the_installation();
        kill(pid(waiter_beside(lab, Some(staying.pid))), Signal::SIGKILL).expect("it waits");
        staying.finish().exits(5).says("whether the host went back is not known").says("tproxy status");
    }

    fn without_anybody_to_wait_nothing_is_done(lab, backend) {
        let before = Snapshot::take();
        // One becomes the leader of a session, and the other changes its directory.
        for last in [libc::SYS_setsid, libc::SYS_chdir] {
            let mut killed = false;
            let run = trace(&on_trial(lab, backend, LONG), |call, _| {
                if call.number == last && !killed {
                    call.kill();
                    killed = true;
                }
                Then::GoOn
            });
            assert!(killed);
            run.exits(1).says("nothing was changed");
            Snapshot::take().assert_unchanged_since(&before);
            assert!(!Path::new(RUN).exists());
        }
    }

    fn it_says_until_when_and_where_its_log_is(lab, backend) {
        let run = on_trial(lab, backend, LONG).run().succeeds().prints("tproxy confirm").prints("until 20");
        let log = file("log").expect("a log");
        let _ = run.prints(&format!("log: {}\n", log.display()));
        let confirm = || lab.program().args(["confirm", "-o", "json"]).run();
        let said: serde_json::Value = serde_json::from_str(&confirm().succeeds().stdout).expect("JSON");
        let kept = serde_json::json!({ "schema": 1, "action": "confirm", "confirmed": true, "abandoned": false });
        assert_eq!(said, kept);
        // There is nothing more to keep, which is no result.
        assert_eq!(confirm().exits(1).says("no installation waits").stdout, "");
    }

    fn staying_can_be_given_up_and_waiting_goes_on(lab, backend) {
        let before = Snapshot::take().without_counters();
        let staying = on_trial(lab, backend, &[LONG, &["--foreground"]].concat()).start();
        wait_for_the_beginning();
        kill(pid(staying.pid), Signal::SIGTERM).expect("it stays");
        staying.finish().exits(1).says("SIGTERM").says("still waits to be confirmed");
        end_ago(0, true);
        wait_for_the_end();
        std::fs::remove_file(file("log").expect("a log")).expect("removed");
        std::fs::remove_dir(RUN).expect("nothing else in it");
        Snapshot::take().without_counters().assert_unchanged_since(&before);
    }

    fn an_uninstall_is_no_confirmation(lab, backend) {
        let staying = on_trial(lab, backend, &[LONG, &["--foreground"]].concat()).start();
        wait_for_the_beginning();
        lab.uninstall(backend, &[]).succeeds();
        staying.finish().exits(1).says("uninstalled meanwhile");
    }

    fn it_keeps_nobodys_pipe_open(lab, backend) {
        let _ = backend;
        let line = "exec 3>&1; cd \"$0\" && exec ./tproxy install --kuma-dp-user kuma-dp --confirm 600s >/dev/null 2>&1";
        // The end of the output, which the third descriptor leads to as well, is waited for.
        Program::new("sh").args(["-c", line]).arg(lab.dir()).run().succeeds();
        lab.program().arg("confirm").run().succeeds();
    }

    fn without_a_place_to_wait_nothing_is_done(lab, backend) {
        must("mount", &["-o", "remount,ro", "/run"]);
        let before = Snapshot::take();
        on_trial(lab, backend, LONG).run().exits(3).says("without a writable /run").says("hint: install without --confirm");
        Snapshot::take().assert_unchanged_since(&before);
    }
}

#[test]
fn a_way_back_to_a_native_table_that_fails_is_tried_again() {
    Lab::enter(|lab| {
        lab.install(Backend::Nftables, FIRST).succeeds();
        let before = Snapshot::take().without_counters();
        on_trial(lab, Backend::Nftables, LONG).run().succeeds();
        firewall::nft("delete table inet kuma_mesh");
        let owner = own_the_table();
        end_ago(1, true);
        while !log().contains("trying again") {
            std::thread::yield_now();
        }
        assert!(file("pending").is_some(), "it has not given up");
        owner.close();
        wait_for_the_end();
        Snapshot::take().without_counters().assert_unchanged_since(&before);
    });
}

// The same by programs that fail and then work again.
each_iptables_variant! {
    fn a_way_back_that_fails_is_tried_again(lab, variant) {
        let broken = lab.dir().join("broken");
        let fault = format!("if [ -e {} ]; then cat >/dev/null; echo 'not today' >&2; exit 1; fi", broken.display());
        let tools = Wrappers::new(variant).every("iptables-restore", &Fault::Before(fault));
        let install = |flags: &[&str]| {
            lab.program().args(["install", "--kuma-dp-user", "kuma-dp"]).args(tools.flags()).args(flags).run()
        };
        install(FIRST).succeeds();
        let before = Snapshot::take().without_counters();
        install(&[SECOND, LONG].concat()).succeeds();
        std::fs::write(&broken, "").expect("a file of the lab");
        end_ago(1, true);
        while !log().contains("not today") || !log().contains("trying again") {
            std::thread::yield_now();
        }
        assert!(file("pending").is_some(), "it has not given up");
        std::fs::remove_file(&broken).expect("a file of the lab");
        wait_for_the_end();
        Snapshot::take().without_counters().assert_unchanged_since(&before);
    }
}
