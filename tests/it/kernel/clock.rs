//! The time to confirm is that of one clock, which nobody can set and which a start of the machine sets to zero.

use nix::sys::signal::{Signal, kill};

use super::trial::{file, notes, promise, say, waiter};
use crate::support::Lab;
use crate::support::command::{Program, Run, pid};
use crate::support::lab::{each_backend, skip};
use crate::support::wrappers::is_running;

/// Longer than any of these tests takes; nobody waits for it.
const LONG: &[&str] = &["--confirm", "600s"];

each_backend! {
    fn another_boots_time_is_void(lab, backend) {
        lab.install(backend, LONG).succeeds();
        // A machine that stops takes the waiting process along.
        let waiter = waiter(lab);
        kill(pid(waiter), Signal::SIGKILL).expect("it waits");
        while is_running(waiter) {
            std::thread::yield_now();
        }
        let mut says = promise();
        assert_eq!(says["boot"].as_str().map(str::len), Some(36), "{says}");
        says["boot"] = "00000000-0000-0000-0000-000000000000".into();
        say(&says, true);
        lab.program().arg("confirm").run().exits(1).says("no installation waits");
        assert_eq!(notes(lab), "");
        lab.install(backend, &[]).succeeds();
        assert_eq!(file("pending"), None);
    }
}

/// A command in a time namespace that adds so many seconds to the clock since the boot.
fn elsewhere(lab: &Lab, seconds: i64, command: &[&str]) -> Run {
    let other = ["--time", "--fork", "--boottime", &seconds.to_string()];
    Program::new("unshare").args(other).arg(lab.program_path()).args(command).run()
}

/// Of `2026-11-29T19:10:48Z`; a day's first second comes after its last one.
fn second_of_day(time: &str) -> u32 {
    let clock = time.split_once('T').and_then(|(_, clock)| clock.strip_suffix('Z')).expect("a time");
    let second = clock.split(':').fold(0, |sum, number| sum * 60 + number.parse::<u32>().expect("a number"));
    if second < 12 * 3600 { second + 24 * 3600 } else { second }
}

#[test]
fn a_time_namespace_changes_no_times() {
    Lab::enter(|lab| {
        if elsewhere(lab, 1, &["--version"]).code != Some(0) {
            return skip("this machine has no time namespaces");
        }
        let install = &["install", "--kuma-dp-user", "kuma-dp", "--backend", "nftables"];
        let until = |run: &Run| {
            let report: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
            assert_eq!(report["trial"]["state"], "waiting", "{run}");
            report["trial"]["until"].as_str().map(str::to_owned).expect("a time")
        };
        let status = &["status", "-o", "json"];
        // Made here and seen from there, and the other way round.
        for (made, seen) in [(0, 100_000), (100_000, 0), (-1, 5)] {
            elsewhere(lab, made, &[&install[..], LONG].concat()).succeeds();
            let times = [0, made, seen].map(|seconds| until(&elsewhere(lab, seconds, status)));
            // Each is rounded to a second of the clock on the wall.
            assert!(
                times.iter().all(|time| second_of_day(time).abs_diff(second_of_day(&times[0])) <= 1),
                "{times:?}"
            );
            elsewhere(lab, seen, install).exits(4).says("waits to be confirmed, for");
            elsewhere(lab, seen, &["confirm"]).succeeds();
            elsewhere(lab, 0, &["uninstall"]).succeeds();
        }
    });
}
