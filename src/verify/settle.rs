//! The end of probes: nothing may be under way any more when the temporary interfaces go, because what is sent then
//! leaves by another one.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::budget::{Budget, Stage};
use super::connect::Held;
use super::lab::Lab;
use super::probe::{Began, ZONES};
use crate::config::values::Protocol;
use crate::plan::Family;
use crate::sys::netlink::sockets::Connection;
use crate::sys::netlink::{conntrack, sockets};
use crate::sys::signal;

/// How soon is looked again, at first and after a while.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// How long a sidecar is waited for that took a connection and does not let go of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until nobody here, such as a real sidecar, has a connection with an address of a temporary interface, and
/// until it has let go of those that probes made: a sidecar that has not yet may still go on to their destinations.
/// `flows` are those of all probes.
pub fn wait<'a>(
    mut unfinished: Vec<Held>,
    labs: impl Iterator<Item = &'a Lab>,
    flows: &[Began],
    budget: &Budget,
) {
    let own = addresses(labs);
    let deadline = budget.until(Stage::Settling, PATIENCE);
    let (mut pause, longest) = PAUSES;
    loop {
        unfinished.retain_mut(|held| !held.is_over());
        let all: Vec<Connection> = Family::BOTH
            .into_iter()
            .flat_map(|family| sockets::connections(family).unwrap_or_default())
            .collect();
        let is_taken = |held: &Held| {
            let Ok(local) = held.stream.local_addr() else { return true };
            !all.iter().any(|at| at.unaccepted && at.to == local)
        };
        let (taken, idle) = std::mem::take(&mut unfinished).into_iter().partition::<Vec<Held>, _>(is_taken);
        unfinished = taken;
        let again = !idle.is_empty();
        give_up(idle, flows);
        // Both ends of what is unfinished are on this host.
        let with = |at: &&Connection| own.contains(&at.from.ip()) || own.contains(&at.to.ip());
        let left = unfinished.len().max(all.iter().filter(with).count());
        if left == 0 {
            return;
        }
        if !again && !budget.is_before(deadline) {
            tracing::warn!(
                "the sidecar has not let go of {left} connections of probes in time; what it sends for them from now on \
                 may leave this host, towards addresses of the documentation ranges"
            );
            return;
        }
        // A signal takes the time that is left.
        let _ = signal::sleep(pause);
        pause = longest.min(pause * 2);
    }
}

/// Takes connections back that nobody has accepted. Who accepts one of them later finds it closed, and does not learn where
/// it was to go: the kernel reads that from connection tracking.
fn give_up(idle: Vec<Held>, flows: &[Began]) {
    let ends: Vec<SocketAddr> = idle.iter().filter_map(|held| held.stream.local_addr().ok()).collect();
    // This resets them, while connection tracking still knows to whom that goes.
    drop(idle);
    for (protocol, from, to) in flows.iter().filter(|(_, from, _)| ends.contains(from)) {
        // A kernel that does not tell of connections does not forget them either.
        let _ = conntrack::forget(*protocol, *from, *to, 0);
    }
}

/// Those of temporary interfaces.
pub fn addresses<'a>(labs: impl Iterator<Item = &'a Lab>) -> Vec<IpAddr> {
    let ends = labs.flat_map(|lab| lab.ends.values().flatten());
    ends.flat_map(|ends| [ends.here, ends.there, ends.far]).collect()
}

/// Lets connection tracking forget what probes began with these addresses, which nobody else has. Called when their
/// interfaces are gone, so that nothing comes back; what there is no time for goes by itself in two minutes.
pub fn forget(flows: &[Began], addresses: &[IpAddr], budget: &Budget) {
    let own = |(_, from, to): &&Began| addresses.contains(&from.ip()) || addresses.contains(&to.ip());
    for &(protocol, from, to) in flows.iter().filter(own) {
        if !budget.has_time(Stage::Explaining) {
            return;
        }
        let zones = if protocol == Protocol::Udp { &ZONES[..] } else { &[0] };
        for &zone in zones {
            // A kernel that does not tell of connections does not forget them either.
            let _ = conntrack::forget(protocol, from, to, zone);
        }
    }
}
