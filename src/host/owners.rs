//! Programs by whose sockets the redirection stands or falls: who has the sidecar's ports, and DNS servers on this host
//! whose own questions are redirected too.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;

use crate::config::Config;
use crate::config::values::Protocol;
use crate::plan::Family;
use crate::sys::netlink::sockets::Waiting;
use crate::sys::{Holder, ancestry, socket_holders, user_of};

use super::HostFacts;
use super::listeners::listeners;

/// The port of DNS servers.
const DNS: u16 = 53;

const ROOT: u32 = 0;

/// The processes of sockets, and as whom what they send is seen, where that can be found out. Many programs make their
/// sockets as root and then become another user: rules go by the user at the time when a socket is made, and those for
/// what they send are made later.
#[derive(Debug)]
pub struct Senders(HashMap<u32, Holder>);

impl Senders {
    /// Those of sockets, each told by its inode and the user who made it; one search for all of them.
    pub fn of(sockets: impl IntoIterator<Item = (u32, u32)>) -> Self {
        Self(socket_holders(sockets))
    }

    /// As whom the process sends that has a socket which a user made.
    pub fn user(&self, inode: u32, uid: u32) -> u32 {
        let now = || user_of(self.0.get(&inode)?.pid);
        if uid == ROOT { now().unwrap_or(uid) } else { uid }
    }

    /// Which process has a socket.
    pub fn process(&self, inode: u32) -> Option<String> {
        self.0.get(&inode).map(Holder::to_string)
    }
}

/// A socket as [`Senders::of`] wants it.
pub fn by_maker(socket: &Waiting) -> (u32, u32) {
    (socket.inode, socket.uid)
}

/// Whether a user's traffic is let through to wherever the sidecar would pass it on.
pub fn is_let_through(config: &Config, sidecar: u32, uid: u32, protocol: Protocol) -> bool {
    let all = |exclusion: &crate::config::values::UidExclusion| {
        let covers = |port: u16| {
            exclusion.ports.iter().any(|range| (range.first.get()..=range.last.get()).contains(&port))
        };
        let whole = match protocol {
            Protocol::Udp => covers(DNS),
            Protocol::Tcp => {
                exclusion.ports.iter().any(|range| range.first.get() == 1 && range.last.get() == u16::MAX)
            }
        };
        (exclusion.uids.first..=exclusion.uids.last).contains(&uid)
            && exclusion.protocols.contains(&protocol)
            && whole
    };
    uid == sidecar || config.redirect.outbound.exclude_ports_for_uids.iter().any(all)
}

/// Processes of the sidecar's user that have nothing to do with the sidecar, each with a port at which it listens:
/// nothing that they send is redirected. The sidecar's own processes are those that have one of its ports, those that
/// started them and run as its user, and those that any of these started, but for process 1, which starts everybody in
/// a container. Before the sidecar runs all of its user's processes are named.
pub fn bystanders(sidecar: u32, ports: &[u16]) -> Vec<(String, u16)> {
    /// Each process that is looked at takes reading about all that started it.
    const MOST: usize = 64;
    let mut sockets = Vec::new();
    for family in Family::BOTH {
        sockets.extend(listeners(Protocol::Tcp, family).unwrap_or_default());
    }
    sockets.retain(|socket| socket.uid == sidecar);
    let holders = socket_holders(sockets.iter().map(by_maker));
    let mut own = BTreeSet::new();
    let mut others: Vec<(u16, &Holder)> = Vec::new();
    let mut named = BTreeSet::new();
    for socket in &sockets {
        let Some(holder) = holders.get(&socket.inode) else { continue };
        if ports.contains(&socket.port) {
            own.insert(holder.pid);
        } else if named.insert(holder.pid) {
            others.push((socket.port, holder));
        }
    }
    let is_its = |pid: &u32| own.contains(pid) || user_of(*pid) == Some(sidecar);
    let family: BTreeSet<u32> = own.iter().take(MOST).flat_map(|pid| ancestry(*pid)).filter(is_its).collect();
    let is_child = |pid: u32| ancestry(pid).iter().any(|pid| *pid != 1 && family.contains(pid));
    let is_related = |pid: u32| own.contains(&pid) || family.contains(&pid) || is_child(pid);
    let looked_at = others.into_iter().take(MOST).filter(|(_, holder)| !is_related(holder.pid));
    looked_at.map(|(port, holder)| (holder.to_string(), port)).collect()
}

/// A DNS server on this host that the host's programs ask, and whose own questions are redirected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnResolver {
    /// Where it is asked.
    pub server: IpAddr,
    /// As whom it asks others.
    pub uid: u32,
    /// Which process it is, where it can be found out.
    pub process: Option<String>,
    /// The servers to which questions of its are redirected; empty where questions to every server are.
    pub others: Vec<IpAddr>,
}

/// DNS servers of this host among `servers`, which the host's programs ask, that may ask others whose questions are
/// redirected as everybody's: to the sidecar, which asks them again. `own` are this host's addresses.
///
/// # Errors
/// The kernel does not tell of sockets.
pub fn own_resolvers(
    config: &Config,
    facts: &HostFacts,
    servers: &[IpAddr],
    own: &[IpAddr],
) -> io::Result<Vec<OwnResolver>> {
    let dns = &config.redirect.dns;
    if !dns.enabled {
        return Ok(Vec::new());
    }
    let is_here = |addr: &IpAddr| addr.is_loopback() || own.contains(addr);
    let others: Vec<IpAddr> = servers.iter().copied().filter(|addr| !is_here(addr)).collect();
    if !dns.capture_all && others.is_empty() {
        return Ok(Vec::new());
    }
    let mut found: Vec<OwnResolver> = Vec::new();
    if !servers.iter().any(is_here) {
        return Ok(found);
    }
    let mut sockets = Vec::new();
    for family in Family::BOTH {
        sockets.extend(listeners(Protocol::Udp, family)?.into_iter().filter(|socket| socket.port == DNS));
    }
    let senders = Senders::of(sockets.iter().map(by_maker));
    for &server in servers.iter().filter(|addr| is_here(addr)) {
        let takes = |socket: &&Waiting| {
            let any = socket.address.is_unspecified()
                && (socket.address.is_ipv4() == server.is_ipv4() || socket.both_families);
            any || socket.address == server
        };
        let Some(socket) = sockets.iter().find(takes) else { continue };
        let (uid, process) = (senders.user(socket.inode, socket.uid), senders.process(socket.inode));
        let others = if dns.capture_all { Vec::new() } else { others.clone() };
        let known = found.iter().any(|known| known.uid == uid);
        if !known && !is_let_through(config, facts.sidecar_uid, uid, Protocol::Udp) {
            found.push(OwnResolver { server, uid, process, others });
        }
    }
    Ok(found)
}

impl OwnResolver {
    /// What an installation has to leave alone for it.
    pub fn cure(&self) -> String {
        format!("--exclude-outbound-ports-for-uids udp:53:{}", self.uid)
    }

    /// Who it is.
    pub fn name(&self) -> String {
        match &self.process {
            Some(process) => format!("{process}, UID {}", self.uid),
            None => format!("a program of UID {}", self.uid),
        }
    }
}
