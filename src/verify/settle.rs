//! The end of probes: nothing may be under way any more when the temporary interfaces go, because what is sent then
//! leaves by another one.

use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use super::budget::{Budget, Stage};
use super::connect::is_over;
use super::lab::Lab;
use super::probe::{Began, ZONES};
use crate::config::values::Protocol;
use crate::plan::Family;
use crate::sys::netlink::{conntrack, sockets};

/// How soon is looked again, at first and after a while.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// Waits until nobody here, such as a real sidecar, has a connection with an address of a temporary interface, and
/// until it has let go of those that probes made: a sidecar that has not yet may still go on to their destinations.
/// That takes what is left of the run's time at most.
pub fn wait<'a>(mut unfinished: Vec<TcpStream>, labs: impl Iterator<Item = &'a Lab>, budget: &Budget) {
    let own = addresses(labs);
    let mut left = || {
        unfinished.retain(|stream| !is_over(stream));
        // Both ends of what is unfinished are on this host.
        unfinished.len().max(with(&own))
    };
    let deadline = budget.end_of(Stage::Explaining);
    let (mut pause, longest) = PAUSES;
    while left() > 0 {
        if Instant::now() >= deadline {
            tracing::warn!(
                "the sidecar has not let go of {} connections of probes in time; what it sends for them from now on \
                 may leave this host, towards addresses of the documentation ranges",
                left()
            );
            return;
        }
        std::thread::sleep(pause);
        pause = longest.min(pause * 2);
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

/// How many connections there are with any of these addresses.
fn with(addresses: &[IpAddr]) -> usize {
    let of_family = |family| sockets::connections(family).unwrap_or_default();
    let all = Family::BOTH.into_iter().flat_map(of_family);
    all.filter(|(from, to)| addresses.contains(from) || addresses.contains(to)).count()
}
