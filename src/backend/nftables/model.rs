//! The vocabulary of `nf_tables`, as far as redirection needs it. What is wanted is lowered to it, what the kernel has
//! is decoded to it, and the two are compared. Pure.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::config::values::{Port, PortRange, Protocol, UidRange};
use crate::plan::Family;

use super::set::Set;

/// The name of the table, of family `inet`. Not "tproxy": that is a word of nft's language, and a table of that
/// name cannot be listed back.
pub const TABLE: &str = "kuma_mesh";

/// All that the table holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// By name.
    pub sets: BTreeMap<String, Set>,
    /// In the order in which they are listed; all of them exist before the first rule does.
    pub chains: Vec<Chain>,
}

impl Table {
    /// Whether it leaves a family alone: it is of an installation for the other one.
    pub fn lets_pass(&self, family: Family) -> bool {
        self.chains.iter().flat_map(|chain| &chain.rules).any(|rule| rule.lets_pass() == Some(family))
    }

    /// How many rules it has.
    pub fn rule_count(&self) -> usize {
        self.chains.iter().map(|chain| chain.rules.len()).sum()
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Unique in the table.
    pub name: String,
    /// Where the kernel calls it; `None`: only other chains do.
    pub hook: Option<Hook>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// Where the kernel calls a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: ChainKind,
    /// When in a packet's way.
    pub point: HookPoint,
    /// Lower comes earlier (`enum nf_ip_hook_priorities` in the kernel's `netfilter_ipv4.h`).
    pub priority: i32,
    /// Whether it drops what no rule decides about; never wanted.
    pub drops: bool,
}

/// What the rules of a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Let pass, drop, set metadata.
    Filter,
    /// Set up address translation: sees the first packet of a connection only.
    Nat,
    /// Anything else (`route`); never wanted.
    Other,
}

/// A moment in a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    /// It arrived.
    Prerouting,
    /// A local process sent it.
    Output,
    /// Any other, by its number (`enum nf_inet_hooks`); never wanted.
    Other(u32),
}

/// A rule: statements from left to right, until one does not hold or decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// In order.
    pub statements: Vec<Statement>,
    /// For the reader; at most 127 bytes, nft's limit (`NFTNL_UDATA_COMMENT_MAXLEN`, without the final zero).
    pub comment: Option<String>,
}

impl Rule {
    /// The family that it lets pass, whatever else the packet is: such a rule begins the chains of an installation
    /// for the other family alone.
    pub fn lets_pass(&self) -> Option<Family> {
        match self.statements.as_slice() {
            [Statement::Family(family), Statement::Counter, Statement::Verdict(Verdict::Accept)]
            | [Statement::Family(family), Statement::Verdict(Verdict::Accept)] => Some(*family),
            _ => None,
        }
    }
}

/// A condition, or something done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Statement {
    /// The packet is of this family (`meta nfproto`). Comes before every [`Statement::Address`], because the kernel
    /// reads an address wherever it would be in a packet of that family.
    Family(Family),
    /// The transport protocol (`meta l4proto`). Comes before every [`Statement::Port`], for the same reason.
    Protocol(Protocol),
    /// An address in the packet's header.
    Address(End, Test<IpNet>),
    /// A port in the packet's header.
    Port(End, Test<PortRange>),
    /// It is addressed to another host (`fib daddr type != local`).
    ForOtherHosts,
    /// The interface's name; [`End::Source`] is the one by which the packet came in (`meta iifname`).
    Interface(End, Test<Interface>),
    /// The sending socket's user (`meta skuid`). A packet without such a socket never matches, negated or not.
    Owner(Test<UidRange>),
    /// Connection tracking cannot make sense of it (`ct state invalid`).
    Invalid,
    /// Somebody switched connection tracking off for it (`ct state untracked`).
    Untracked,
    /// Count packets and bytes.
    Counter,
    /// Write a line to the kernel's log and go on.
    Log {
        /// Begins the line.
        prefix: String,
        /// 0 to 7.
        level: u8,
    },
    /// Track it in this conntrack zone, unless it has one already (`ct zone set`).
    CtZone(u16),
    /// To a port of this host.
    Redirect(Port),
    /// Decide.
    Verdict(Verdict),
    /// An expression that tproxy does not write, by its name in the kernel. Only ever decoded.
    Foreign(String),
}

/// Which end of a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// How a value is tested.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Test<T> {
    /// It is this, or within it.
    Is(T),
    /// It is not.
    IsNot(T),
    /// It is in the set of this name.
    In(String),
    /// It is not in that set.
    NotIn(String),
}

/// An interface's name, or with `prefix` the beginning of one; at most 15 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Interface {
    /// Without the `+` or `*` at the end.
    pub name: String,
    /// Whether more may follow.
    pub prefix: bool,
}

/// The end of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Done with this base chain; chains of later priority still see the packet.
    Accept,
    /// Away with it.
    Drop,
    /// Back to the calling chain.
    Return,
    /// To a chain of the table, and back here when it does not decide.
    Jump(String),
}
