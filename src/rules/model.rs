//! Rules and packets as data.

use std::ops::RangeInclusive;

use crate::plan::Family;

/// How sure something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Truth {
    /// It is not so.
    No,
    /// It cannot be told.
    Maybe,
    /// It is so.
    Yes,
}

impl Truth {
    /// The opposite.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
            Self::Yes => Self::No,
        }
    }

    /// Of something that is known.
    pub const fn of(so: bool) -> Self {
        if so { Self::Yes } else { Self::No }
    }
}

/// A number of a packet that rules ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// The transport protocol.
    Protocol,
    /// The source address.
    Source,
    /// The destination address.
    Destination,
    /// The source port.
    SourcePort,
    /// The destination port.
    DestinationPort,
    /// The number of the interface by which it came.
    InIndex,
    /// The number of the interface by which it leaves.
    OutIndex,
    /// The user of the socket that sent it.
    User,
    /// That socket's group.
    Group,
    /// What connection tracking says of it, as one bit (`NF_CT_STATE_BIT`).
    State,
    /// What connection tracking knows of its connection, as bits (`IPS_*`).
    Status,
    /// Its direction in its connection: 0 as the first packet, 1 as the answers.
    Direction,
    /// Its mark.
    Mark,
    /// What its source is to this host (`RTN_*`).
    SourceType,
    /// What its destination is to this host (`RTN_*`).
    DestinationType,
    /// The control group of the socket that sent it: its number, that of `net_cls`, or one that stands for its path.
    Cgroup,
    /// The port to which its connection was sent, before anybody translated it.
    OriginalPort,
}

/// How many there are.
const FIELDS: usize = 17;

/// Numbers from one to another.
pub type Span = RangeInclusive<u128>;

/// What is known of a number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Value {
    /// It is this one.
    Is(u128),
    /// Any but these.
    NotIn(Vec<Span>),
    /// There is none, as there is no user without a socket: no rule that asks for it holds.
    Absent,
    /// Nothing.
    #[default]
    Any,
}

/// A packet, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Its family.
    pub family: Family,
    values: [Value; FIELDS],
    /// The name of the interface by which it came, if by any.
    pub input: Option<String>,
    /// The name of the interface by which it leaves, if by any.
    pub output: Option<String>,
}

impl Packet {
    /// One of which nothing is known but the family.
    pub fn new(family: Family) -> Self {
        Self { family, values: Default::default(), input: None, output: None }
    }

    /// The same with something known.
    #[must_use]
    pub fn with(mut self, field: Field, value: Value) -> Self {
        self.values[field as usize] = value;
        self
    }

    /// What is known of a number.
    pub fn value(&self, field: Field) -> &Value {
        &self.values[field as usize]
    }
}

/// An interface as a rule names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    /// The name, or how it begins.
    pub text: String,
    /// Whether it only begins so.
    pub prefix: bool,
}

impl Name {
    fn is(&self, name: &str) -> bool {
        if self.prefix { name.starts_with(&self.text) } else { name == self.text }
    }
}

/// What a rule asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Test {
    /// The family.
    Family {
        /// Which.
        family: Family,
        /// Any but this one.
        negated: bool,
    },
    /// That a number is one of these.
    In {
        /// Which number.
        field: Field,
        /// These.
        spans: Vec<Span>,
        /// Any but these.
        negated: bool,
    },
    /// That a number has one of these bits.
    Bits {
        /// Which number.
        field: Field,
        /// The bits.
        mask: u128,
        /// None of them.
        negated: bool,
    },
    /// An interface.
    Interface {
        /// By which it leaves, and not that by which it came.
        leaving: bool,
        /// One of these.
        names: Vec<Name>,
        /// None of these.
        negated: bool,
    },
    /// One of several.
    AnyOf {
        /// These.
        tests: Vec<Test>,
        /// None of them.
        negated: bool,
    },
    /// Something that is not understood here.
    Opaque {
        /// Whether it is about addresses, interfaces, users or marks, of which a probe has others than the host's own
        /// traffic.
        specific: bool,
    },
}

impl Test {
    /// Whether a packet of a probe may meet it otherwise than those of others, for all that is known.
    pub fn is_specific(&self) -> bool {
        matches!(self, Self::Opaque { specific: true } | Self::In { field: Field::Cgroup, .. })
    }

    /// Whether a packet meets it.
    pub fn holds(&self, packet: &Packet) -> Truth {
        let (truth, negated) = match self {
            Self::Family { family, negated } => (Truth::of(*family == packet.family), *negated),
            Self::In { field, spans, negated } => match packet.value(*field) {
                Value::Absent => return Truth::No,
                value => (contains(spans, value), *negated),
            },
            Self::Bits { field, mask, negated } => match packet.value(*field) {
                Value::Absent => return Truth::No,
                Value::Is(value) => (Truth::of(value & mask != 0), *negated),
                Value::Any | Value::NotIn(_) => (Truth::Maybe, *negated),
            },
            Self::Interface { leaving, names, negated } => {
                let name = if *leaving { &packet.output } else { &packet.input };
                let is = name.as_ref().is_some_and(|name| names.iter().any(|of| of.is(name)));
                (Truth::of(is), *negated)
            }
            Self::AnyOf { tests, negated } => {
                let any = tests.iter().map(|test| test.holds(packet)).max().unwrap_or(Truth::No);
                (any, *negated)
            }
            Self::Opaque { .. } => return Truth::Maybe,
        };
        if negated { truth.opposite() } else { truth }
    }
}

/// Whether a number that is perhaps not known is one of these.
fn contains(spans: &[Span], value: &Value) -> Truth {
    match value {
        Value::Is(number) => Truth::of(spans.iter().any(|span| span.contains(number))),
        Value::Absent => Truth::No,
        Value::Any => if_possible(spans),
        Value::NotIn(others) => {
            let inside = |span: &Span| {
                others.iter().any(|other| other.contains(span.start()) && other.contains(span.end()))
            };
            if spans.iter().all(inside) { Truth::No } else { if_possible(spans) }
        }
    }
}

fn if_possible(spans: &[Span]) -> Truth {
    if spans.is_empty() { Truth::No } else { Truth::Maybe }
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing that matters here, and the next rule follows.
    Continue,
    /// Lets it pass this chain, and all that called it.
    Accept,
    /// Away with it, with or without a word.
    Drop,
    /// Changes its destination.
    Translate,
    /// Keeps connection tracking from it.
    Untrack,
    /// Has it tracked in another zone.
    Zone(u16),
    /// Marks it.
    Mark,
    /// Back to the calling chain.
    Return,
    /// On to another chain, and back.
    Jump(String),
    /// On to another chain.
    Goto(String),
    /// A rule of our own that redirects, or leads to the chains that do.
    Ours,
    /// A rule of our own that leaves something alone.
    OursPasses,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// All must hold.
    pub tests: Vec<Test>,
    /// What happens then.
    pub action: Action,
    /// How it can be named: its words, or its number in its chain.
    pub name: String,
}

/// Where in the kernel a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// It has arrived.
    Prerouting = 0,
    /// It is for this host.
    Input = 1,
    /// A program of this host has sent it.
    Output = 3,
    /// It is about to leave.
    Postrouting = 4,
}

/// What calls a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Called {
    /// Where.
    pub hook: Hook,
    /// When: the lower, the earlier.
    pub priority: i32,
    /// Whether it may translate addresses: of those, only the first packet of a connection sees one.
    pub translates: bool,
    /// Whether what no rule decides about is dropped.
    pub drops: bool,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The families whose packets it sees.
    pub families: Vec<Family>,
    /// In words: whose table it is in.
    pub table: String,
    /// Its name.
    pub name: String,
    /// What calls it, if no rule does.
    pub called: Option<Called>,
    /// Its rules, in their order.
    pub rules: Vec<Rule>,
}
