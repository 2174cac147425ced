//! Install over nothing, over itself, over older and foreign things; and away again.

mod adopt;
mod comments;
mod intruders;
mod reinstall;
mod uninstall;
mod upgrade;

use crate::support::snapshot::Snapshot;
use crate::support::{Backend, Lab};

/// A configuration with most of what there is.
const RICH: [&str; 9] = [
    "--redirect-all-dns-traffic",
    "--vnet",
    "br+:172.18.0.0/16",
    "--exclude-outbound-ports",
    "1,22,333",
    "--exclude-inbound-ips",
    "192.0.2.0/24,2001:db8:1::/64",
    "--drop-invalid-packets",
    "--iptables-logs",
];

/// What a machine without history looks like after an install with these flags, but for counters.
fn fresh(backend: Backend, flags: &[&str]) -> Snapshot {
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    Lab::elsewhere(move |lab| {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        lab.install(backend, &flags).succeeds();
        Snapshot::take().without_counters()
    })
}

/// The rules now are those of a fresh install with these flags.
#[track_caller]
fn assert_fresh(backend: Backend, flags: &[&str]) {
    Snapshot::take().without_counters().assert_unchanged_since(&fresh(backend, flags));
}
