//! The time to confirm is that of one clock, which nobody can set and which a start of the machine sets to zero.

use nix::sys::signal::{Signal, kill};

use super::trial::{file, notes, promise, say, waiter};
use crate::support::command::{Program, Run, pid};
use crate::support::lab::{each_backend, skip};
use crate::support::wrappers::is_running;
use crate::support::{Backend, Lab};

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

/// A command where the clock since the boot is so many seconds ahead of what the one on the wall knows of.
fn later(lab: &Lab, seconds: u64, command: &[&str]) -> Run {
    let ahead = ["--time", "--fork", "--boottime", &seconds.to_string()];
    Program::new("unshare").args(ahead).arg(lab.program_path()).args(command).run()
}

#[test]
fn the_clock_on_the_wall_decides_nothing() {
    Lab::enter(|lab| {
        if later(lab, 1, &["--version"]).code != Some(0) {
            return skip("this machine has no time namespaces");
        }
        lab.install(Backend::Nftables, LONG).succeeds();
        let install = &["install", "--backend", "nftables"];
        later(lab, 500, install).exits(4).says("waits to be confirmed");
        later(lab, 601, install).exits(4).says("being taken back");
        later(lab, 601, &["status", "-o", "json"]).prints("nobody confirmed");
        later(lab, 601, &["confirm"]).exits(1).says("too late");
        // Nobody is that late.
        later(lab, 1200, install).succeeds();
        assert_eq!(file("pending"), None);
    });
}
