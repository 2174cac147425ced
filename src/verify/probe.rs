//! Sends one probe and sees where it arrives.
//!
//! Whatever the rules of a host make of it, no packet leaves by an interface that is not ours. What can be is bound
//! to the temporary interface or to loopback. What is redirected cannot: redirection changes its interface. So of
//! that a first one is sent that is bound, and does not get far; connection tracking tells where it was to go. Only
//! if that is this host, the real one follows.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::budget::out_of_time;
use super::check::{Method, Probe, Reached};
use super::connect::Held;
use super::guests;
use super::lab::Lab;
use super::queue::Patience;
use crate::config::values::Protocol;
use crate::sidecar::token::{Token, Tokens};
use crate::sys::netlink::conntrack;

/// How long is waited for something that need not come.
pub(super) const BRIEFLY: Duration = Duration::from_millis(300);

/// Zones that rules put the sidecar's own DNS flows into and everybody else's, and the one without a number.
const SIDECAR_ZONES: [u16; 2] = [1, 0];
const APP_ZONES: [u16; 2] = [2, 0];

/// All of them.
pub(super) const ZONES: [u16; 3] = [0, 1, 2];

/// A flow that a probe began, and its ends.
pub type Began = (Protocol, SocketAddr, SocketAddr);

/// Where probes are sent.
pub struct Field<'a> {
    /// Where they go to, where that can be made.
    pub lab: Option<&'a Lab>,
    /// Guests of virtual networks, by their interfaces as the configuration names them.
    pub guests: &'a BTreeMap<String, Lab>,
    /// The loopback interface's name.
    pub loopback: &'a str,
    /// This host's addresses.
    pub own: &'a [IpAddr],
    /// What ends of our own answer with.
    pub token: Token,
    /// The sidecar's user.
    pub sidecar: u32,
    /// The sidecar's DNS port.
    pub dns_port: u16,
    /// The sidecar's inbound port.
    pub inbound_port: u16,
    /// The sidecar of our own.
    pub tokens: &'a Tokens,
    /// How it is seen where they arrive.
    pub method: Method,
    /// Whether all rules are known to be as wanted, with nothing ahead of them.
    pub sound: bool,
    /// Whether what the sidecar asks is followed to where another rule leads it.
    pub following: AtomicBool,
    /// How long is waited.
    pub patience: &'a Patience<'a>,
    /// One probe at a time to the same destination: each has a listener there.
    pub busy: Mutex<HashMap<SocketAddr, Arc<Mutex<()>>>>,
    /// One datagram at a time that the kernel only counts.
    pub knocking: Mutex<()>,
    /// Flows that probes began: connection tracking would know some of them for minutes.
    pub flows: Mutex<Vec<Began>>,
    /// Connections that a running sidecar has not let go of yet.
    pub unfinished: Mutex<Vec<Held>>,
}

impl Field<'_> {
    /// Sends a probe.
    pub fn send(&self, probe: &Probe) -> Reached {
        let sent = match probe {
            Probe::Connect { uid, to, way, from } => self.connect(*uid, *to, *way, *from),
            Probe::Arrive { from, to } => self.arrive(*from, *to),
            Probe::Datagram { uid, to, from } => self.datagram(*uid, *to, *from),
            Probe::Again { first, then, to } => self.again(*first, *then, *to),
            Probe::Passthrough { uid, source, to } => self.pass_on(*uid, *source, *to),
            Probe::Guest { interface, protocol, to } => self.visit(interface, *protocol, *to),
            Probe::NoRoute { uid, to, why } => Ok(Reached::NoRoute(*to, *uid, why.clone())),
            Probe::Nothing(why) => Ok(Reached::Unknown(why.clone())),
        };
        sent.unwrap_or_else(|error| failed(probe, &error))
    }

    pub(super) fn lab(&self) -> io::Result<&Lab> {
        self.lab.ok_or_else(|| io::Error::other("there is no temporary interface"))
    }

    /// Remembers a flow, to have it forgotten.
    pub(super) fn began(&self, protocol: Protocol, from: SocketAddr, to: SocketAddr) {
        lock(&self.flows).push((protocol, from, to));
    }

    pub(super) fn place(&self, to: SocketAddr) -> Arc<Mutex<()>> {
        lock(&self.busy).entry(to).or_default().clone()
    }

    /// Waits until nobody else sends to a place. Many may wait for the same one.
    pub(super) fn alone<'a>(&self, place: &'a Mutex<()>) -> io::Result<MutexGuard<'a, ()>> {
        let alone = lock(place);
        if self.patience.has_time() { Ok(alone) } else { Err(out_of_time()) }
    }

    /// Whether packets to an address stay on this host.
    pub(super) fn is_here(&self, addr: IpAddr) -> bool {
        let ends = self.lab.into_iter().flat_map(|lab| lab.ends.values().flatten());
        addr.is_loopback()
            || self.own.contains(&addr)
            || ends.into_iter().any(|ends| ends.here == addr)
            || guests::addresses(self.guests).any(|here| here == addr)
    }

    /// Where else than to its destination a connection was led, if it was.
    pub(super) fn led_to(&self, local: SocketAddr, to: SocketAddr) -> io::Result<Option<Reached>> {
        let flow = conntrack::flow(Protocol::Tcp, local, to, 0)?;
        Ok(flow
            .map(|flow| flow.answers_from)
            .filter(|from| !same(*from, to))
            .map(|from| self.elsewhere(from)))
    }

    pub(super) fn elsewhere(&self, to: SocketAddr) -> Reached {
        if self.is_here(to.ip()) {
            Reached::Tracked { port: to.port(), answered: None }
        } else {
            Reached::Astray(to)
        }
    }

    /// The zones in which a user's DNS flows can be.
    pub(super) fn zones(&self, uid: u32) -> [u16; 2] {
        if uid == self.sidecar { SIDECAR_ZONES } else { APP_ZONES }
    }
}

/// Whether two addresses are the same but for what IPv6 adds to them.
pub(super) fn same(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip() == b.ip() && a.port() == b.port()
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn failed(probe: &Probe, error: &io::Error) -> Reached {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Reached::Refused,
        io::ErrorKind::TimedOut => Reached::Nowhere,
        // Of a kernel that does not tell of connections, and of a host with too little time or too few threads.
        io::ErrorKind::Unsupported | io::ErrorKind::QuotaExceeded | io::ErrorKind::WouldBlock => {
            Reached::Unknown(error.to_string())
        }
        // Programs of this host have every local port, or the one that is needed. No rule has a say in that.
        io::ErrorKind::AddrInUse => Reached::Unknown(format!("no port of this host is free for it: {error}")),
        io::ErrorKind::AddrNotAvailable if !matches!(probe, Probe::Passthrough { .. }) => {
            Reached::Unknown(format!("this host has no free port, or not that address any more: {error}"))
        }
        _ => Reached::Unsent(error.to_string()),
    }
}

pub(super) fn unspecified(family_of: IpAddr) -> IpAddr {
    if family_of.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

pub(super) fn localhost(family_of: IpAddr) -> IpAddr {
    if family_of.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::check::Way;

    #[test]
    fn a_host_without_a_free_port_is_no_firewall() {
        let to: SocketAddr = ([192, 0, 2, 1], 80).into();
        let connect = Probe::Connect { uid: 0, to, way: Way::Device, from: None };
        let passthrough = Probe::Passthrough { uid: 0, source: Ipv4Addr::new(127, 0, 0, 6).into(), to };
        let reached = |probe: &Probe, kind: io::ErrorKind| failed(probe, &kind.into());
        assert!(matches!(reached(&connect, io::ErrorKind::AddrInUse), Reached::Unknown(_)));
        assert!(matches!(reached(&connect, io::ErrorKind::AddrNotAvailable), Reached::Unknown(_)));
        assert!(matches!(reached(&passthrough, io::ErrorKind::AddrNotAvailable), Reached::Unsent(_)));
        assert!(matches!(reached(&connect, io::ErrorKind::PermissionDenied), Reached::Unsent(_)));
    }
}
