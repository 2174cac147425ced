//! What a plan needs to know of the host, as data.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::plan::Family;

/// What a plan needs to know of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// UID of the sidecar's user.
    pub sidecar_uid: u32,
    /// Name of the first interface with the loopback flag.
    pub loopback: String,
    /// Whether IPv6 rules make sense here.
    pub ipv6: Ipv6Support,
    /// DNS servers of resolv.conf, in its order, without duplicates.
    pub resolvers: Vec<Resolver>,
    /// Whether the IPv4 nat table has Docker's chain `DOCKER_OUTPUT`, which leads questions to 127.0.0.11:53 to
    /// Docker's embedded DNS server.
    pub docker_dns: bool,
    /// Whose DNS questions somebody else's address translation leads to another server than was asked.
    pub translated: Translated,
}

/// Address translation of somebody else that DNS questions meet, such as kube-proxy's for a service's address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Translated {
    /// The families in which there is one.
    pub families: BTreeSet<Family>,
    /// Whether it stands in a chain that our rules would share, so that it sees nothing of what they decide first.
    pub in_our_chain: bool,
}

/// Whether IPv6 rules make sense on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ipv6Support {
    /// The host has an IPv6 address other than the loopback one.
    Available,
    /// It cannot; the sentence says why.
    Unavailable(String),
}

/// One DNS server of resolv.conf.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resolver {
    /// Its address, without the zone.
    pub addr: IpAddr,
    /// The zone of a link-local address (`eth0` in `fe80::1%eth0`).
    pub zone: Option<String>,
}

impl fmt::Display for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.zone {
            Some(zone) => write!(f, "{}%{zone}", self.addr),
            None => write!(f, "{}", self.addr),
        }
    }
}
