//! Stopped at any moment it ends at once, and everything with it. What is left is looked for by every run in a room.

use super::room::{Demo, Who};
use crate::support::Lab;

/// Lines after each of which something else is under way.
const MOMENTS: [&str; 9] = [
    "host A",
    "1. Before",
    "2. Install",
    "$ tproxy install",
    "The sidecar saw",
    "3. Upgrade",
    "--exclude-inbound-ports",
    "4. Uninstall",
    "$ tproxy uninstall",
];

fn stopped_by(signal: &str, who: Who) {
    let signal = signal.to_owned();
    Lab::enter(move |lab| {
        for moment in MOMENTS {
            let demo = Demo::by(who).when(moment, &format!("kill -s {signal} $pid"));
            let Some(run) = demo.run(lab) else { return };
            let run = run.exits(1).says(&format!("stopped by SIG{signal}"));
            assert!(!run.stdout.contains("Done in"), "{run}");
        }
    });
}

#[test]
fn by_control_c() {
    stopped_by("INT", Who::Root);
}

#[test]
fn by_control_c_of_an_ordinary_user() {
    stopped_by("INT", Who::WithUsers);
}

#[test]
fn by_control_c_of_an_ordinary_user_alone() {
    stopped_by("INT", Who::Alone);
}

#[test]
fn politely() {
    stopped_by("TERM", Who::Root);
}

#[test]
fn by_a_closed_terminal() {
    stopped_by("HUP", Who::WithUsers);
}
