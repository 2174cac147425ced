//! The vocabulary of plans: netfilter's tables, chains, matches and targets, as far as redirection needs them.

use std::fmt;

use ipnet::IpNet;

use crate::config::values::{Cidr, Port, PortRange, Protocol, UidRange};

/// An address family with rules of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// Both, in the order in which they are printed.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Whether a network is of this family.
    pub fn holds(self, net: IpNet) -> bool {
        matches!((self, net), (Self::V4, IpNet::V4(_)) | (Self::V6, IpNet::V6(_)))
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A table of netfilter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Before connection tracking: the zones.
    Raw,
    /// Header changes and drops.
    Mangle,
    /// Redirection.
    Nat,
}

impl Table {
    /// Every table in which rules of ours can be, in the order in which an install commits them: what redirects
    /// comes last.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Mangle, Self::Nat];

    /// The kernel's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
        }
    }
}

/// A chain that a netfilter hook calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuiltinChain {
    /// Packets that arrive, before routing.
    Prerouting,
    /// Packets of local processes.
    Output,
}

/// A chain of ours, in nat. The names are Kuma's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnChain {
    /// Decides what of the arriving traffic is redirected.
    Inbound,
    /// Decides what of the leaving traffic is redirected.
    Outbound,
    /// Redirects to the inbound port.
    InboundRedirect,
    /// Redirects to the outbound port.
    OutboundRedirect,
}

impl OwnChain {
    /// All four, in the order in which they are declared.
    pub const ALL: [Self; 4] = [Self::Inbound, Self::Outbound, Self::InboundRedirect, Self::OutboundRedirect];

    /// Its name in the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "KUMA_MESH_INBOUND",
            Self::Outbound => "KUMA_MESH_OUTBOUND",
            Self::InboundRedirect => "KUMA_MESH_INBOUND_REDIRECT",
            Self::OutboundRedirect => "KUMA_MESH_OUTBOUND_REDIRECT",
        }
    }

    /// The chain of that exact name, if it is one of ours.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|chain| chain.name() == name)
    }
}

/// A chain that holds rules of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainRef {
    /// Shared with everybody.
    Builtin(BuiltinChain),
    /// Ours alone.
    Own(OwnChain),
}

impl ChainRef {
    /// Its name in the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Builtin(BuiltinChain::Prerouting) => "PREROUTING",
            Self::Builtin(BuiltinChain::Output) => "OUTPUT",
            Self::Own(chain) => chain.name(),
        }
    }
}

/// Where in a shared chain a rule goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placement {
    /// Before everybody's rules; several keep their order.
    Head,
    /// Behind the rules that are there.
    Tail,
}

/// A condition on a packet. A rule's conditions are in the order in which Kuma writes them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Match {
    /// The transport protocol.
    Protocol(Protocol),
    /// The source is in a network.
    Source(Cidr),
    /// The destination is in a network, or with `negated` outside it.
    Destination {
        /// The network.
        net: Cidr,
        /// Outside instead of inside.
        negated: bool,
    },
    /// It is addressed to another host, so this one forwards it.
    ForOtherHosts,
    /// It arrived by this interface (`+` at the end: by one whose name begins so).
    InInterface(String),
    /// It leaves by this interface.
    OutInterface(String),
    /// The source port; needs a protocol.
    SourcePort(Port),
    /// The destination port; needs a protocol.
    DestinationPort(Port),
    /// The protocol is this one and the destination port one of these, which take 15 places at the most.
    DestinationPorts {
        /// Whose ports.
        protocol: Protocol,
        /// Single ports take one place, ranges two.
        ports: Vec<PortRange>,
    },
    /// The destination that connection tracking saw first is outside a network. For the second and further
    /// networks that a rule leaves out: it can name only one as its destination.
    NotOriginalDestination(Cidr),
    /// The protocol's own match, named although it says nothing more. Kuma writes it so in one place.
    Explicit(Protocol),
    /// The sending socket's user, or with `negated` anybody else.
    Owner {
        /// Whose.
        uids: UidRange,
        /// Anybody else's, packets without a socket included.
        negated: bool,
    },
    /// Connection tracking cannot make sense of it.
    Invalid,
}

/// What happens to a packet that meets every condition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Back to the calling chain; in a built-in chain, its policy.
    Return,
    /// On to a chain of ours.
    Jump(OwnChain),
    /// On to Docker's chain that leads to its DNS server.
    DockerOutput,
    /// To a port of this host.
    Redirect(Port),
    /// Track it in this conntrack zone.
    CtZone(u16),
    /// Away with it.
    Drop,
    /// Write a line to the kernel's log and go on.
    Log {
        /// Begins the line.
        prefix: &'static str,
        /// 0 to 7.
        level: u8,
    },
}

/// A rule: conditions, a target, and the reason for it, which becomes the comment behind the owner tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// All must hold.
    pub matches: Vec<Match>,
    /// What happens then.
    pub target: Target,
    /// Why the rule is there; the words are Kuma's, so that kumactl knows the rule again.
    pub why: String,
}

/// A rule and its place in a chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlacedRule {
    /// Where in the chain; in our own chains always the tail.
    pub placement: Placement,
    /// The rule.
    pub rule: Rule,
}

/// What one table holds of ours. Chains without a rule are not listed, but for our own ones, which always exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePlan {
    /// Which.
    pub table: Table,
    /// Chains in the order in which they are printed, rules in the order in which they are written.
    pub chains: Vec<(ChainRef, Vec<PlacedRule>)>,
}

/// What one address family gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyPlan {
    /// Which.
    pub family: Family,
    /// At most one of each table; a table without rules is not listed.
    pub tables: Vec<TablePlan>,
}

/// What should exist on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// IPv4 first; IPv6 is left out where it is not wanted or not possible.
    pub families: Vec<FamilyPlan>,
    /// What the user should know about it: one sentence each.
    pub notes: Vec<String>,
}
