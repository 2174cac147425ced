//! What is checked, as data: who sends what where, where it has to arrive, and how it came out. Pure.

use std::net::{IpAddr, SocketAddr};

use crate::config::values::Protocol;
use crate::plan::Family;
use crate::sidecar::Channel;

/// What a check is about; the names are those of the JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// An application's connection to anywhere.
    Outbound,
    /// Somebody's connection to this host.
    Inbound,
    /// The sidecar's connection to anywhere.
    Sidecar,
    /// The sidecar's connection to this host's own address.
    Own,
    /// An application's connection to localhost.
    Localhost,
    /// An application's DNS question.
    Dns,
    /// The sidecar's DNS question.
    DnsSidecar,
    /// A question that a DNS server on this host asks others.
    Resolver,
    /// The source address of what the sidecar passes on.
    Passthrough,
    /// What the configuration leaves alone.
    Exclusion,
    /// Rules of others that no probe meets.
    Rules,
}

impl Id {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Sidecar => "sidecar",
            Self::Own => "self",
            Self::Localhost => "localhost",
            Self::Dns => "dns",
            Self::DnsSidecar => "dns-sidecar",
            Self::Resolver => "resolver",
            Self::Passthrough => "passthrough",
            Self::Exclusion => "exclusion",
            Self::Rules => "rules",
        }
    }
}

/// Where a packet has to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// At one of the sidecar's TCP ports, which learns where it was to go.
    Port(Channel),
    /// At the sidecar's DNS port, and the answer comes from the server that was asked.
    Dns,
    /// Where it was sent.
    Past,
}

/// How a packet of a local process gets on its way. None of the ways leads off this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By a route to the temporary interface. Packets that are to be redirected need it: the redirection changes
    /// their interface, which a bound socket does not allow.
    Route,
    /// Bound to the temporary interface.
    Device,
    /// Over loopback.
    Loopback,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A TCP connection of a local user.
    Connect {
        /// Whose.
        uid: u32,
        /// Where to.
        to: SocketAddr,
        /// How.
        way: Way,
        /// From which of this host's addresses; `None`: from the temporary interface's, or whichever the route gives.
        from: Option<IpAddr>,
    },
    /// A TCP connection from outside.
    Arrive {
        /// Its source address.
        from: IpAddr,
        /// Where to.
        to: SocketAddr,
    },
    /// A datagram of a local user.
    Datagram {
        /// Whose.
        uid: u32,
        /// Where to.
        to: SocketAddr,
        /// From which of this host's addresses, as above.
        from: Option<IpAddr>,
    },
    /// A datagram of one user, and then one of the other from the same address and port.
    Again {
        /// Who is first.
        first: u32,
        /// Whose datagram counts.
        then: u32,
        /// Where to.
        to: SocketAddr,
    },
    /// A TCP connection from the sidecar's source address to an application.
    Passthrough {
        /// The sidecar's user.
        uid: u32,
        /// That address.
        source: IpAddr,
        /// Where to.
        to: SocketAddr,
    },
    /// A TCP connection or a DNS question of a guest of a virtual network.
    Guest {
        /// On which interfaces its own is one, as the configuration names them.
        interface: String,
        /// By TCP, or with a datagram.
        protocol: Protocol,
        /// Where to.
        to: SocketAddr,
    },
    /// Nothing, because this user's sockets get an error at once, whichever DNS server is asked.
    NoRoute {
        /// Whose.
        uid: u32,
        /// Where to.
        to: IpAddr,
        /// The kernel's words.
        why: String,
    },
    /// Nothing, for this reason.
    Nothing(String),
}

/// One thing to find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What about.
    pub id: Id,
    /// Of which family.
    pub family: Family,
    /// From whom to where, in words.
    pub target: String,
    /// What is sent.
    pub probe: Probe,
    /// Where it has to arrive.
    pub goal: Goal,
    /// What has to happen, in words.
    pub expected: String,
}

/// Where a packet did arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// At a TCP port of the sidecar, which was told this original destination.
    Port(Channel, Option<SocketAddr>),
    /// At the sidecar's DNS port; whether the asker took the answer for the server's.
    Dns {
        /// It came from the address that was asked.
        answered: bool,
    },
    /// Where it was sent; for datagrams, whether the answer came back.
    Destination {
        /// It did.
        answered: bool,
    },
    /// Where it was sent, and the answer came back as the beginning of a flow of its own: a firewall that lets only
    /// answers in drops it.
    Apart,
    /// At this port of this host, as connection tracking says.
    Tracked {
        /// Which.
        port: u16,
        /// For datagrams, whether the answer came back; `None` if there was none.
        answered: Option<bool>,
    },
    /// Here, by a rule of somebody else's that changes its destination; and whether the answer came back.
    LedOn {
        /// Where.
        to: SocketAddr,
        /// It did.
        answered: bool,
    },
    /// Where it was sent there is a program of this host, which got nothing of it; whether an answer comes back.
    Program {
        /// It does.
        answered: bool,
    },
    /// It was not sent: it would come to this port, which somebody else has, and go round without end.
    Held {
        /// Which port.
        port: u16,
        /// At which address; the unspecified one is all.
        address: IpAddr,
        /// Whose it is.
        uid: u32,
    },
    /// It would go there, by a rule that changes its destination, and was kept from it.
    Astray(SocketAddr),
    /// At somebody who is not the sidecar.
    Somebody,
    /// It was turned away.
    Refused,
    /// Nowhere, within the time.
    Nowhere,
    /// It could not be sent.
    Unsent(String),
    /// This user cannot send there, in the kernel's words, before any rule.
    NoRoute(IpAddr, u32, String),
    /// That cannot be told.
    Unknown(String),
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// As expected.
    Pass,
    /// Not as expected.
    Fail,
    /// Nobody knows.
    NotTested,
}

impl Status {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::NotTested => "not-tested",
        }
    }
}

/// What a verdict rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// An end of tproxy's own took the packet, or would have if it had come there.
    Listener,
    /// Connection tracking says where the packet goes.
    Conntrack,
    /// Our redirecting rules counted at least as many packets as were sent.
    Counters,
}

impl Evidence {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Conntrack => "conntrack",
            Self::Counters => "counters",
        }
    }
}

/// A check with its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What was found out.
    pub check: Check,
    /// How it came out.
    pub status: Status,
    /// What happened, in words.
    pub happened: String,
    /// What that rests on; nothing where nobody saw the packet again.
    pub evidence: Vec<Evidence>,
    /// The likely cause of a failure.
    pub cause: Option<String>,
    /// The one thing to do next.
    pub next: Option<String>,
}

/// How it was seen where packets arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The sidecar was not running, and tproxy itself listened on its ports.
    Listeners,
    /// The ports are in use; connection tracking told, and the counters of our rules.
    Counters,
}

impl Method {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listeners => "listeners",
            Self::Counters => "counters",
        }
    }
}

/// Everything that was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How.
    pub method: Method,
    /// In the order in which they are shown.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// Whether anything is not as expected.
    pub fn failed(&self) -> bool {
        self.count(Status::Fail) > 0
    }

    /// The next step of the first failure that has one.
    pub fn next(&self) -> Option<String> {
        let mut failed = self.outcomes.iter().filter(|outcome| outcome.status == Status::Fail);
        failed.find_map(|outcome| outcome.next.clone())
    }

    /// How many came out so.
    pub fn count(&self, status: Status) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.status == status).count()
    }
}
