//! The shapes of the catalogue's rules in the shared chains, for installations whose rules carry no comment. Pure.

use crate::config::values::Protocol;
use crate::plan::{BuiltinChain, ChainRef, Match, OwnChain, Table, Target};

use super::decode::Canonical;

/// What kind of condition, without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Tcp,
    Udp,
    Source,
    Destination,
    NotDestination,
    NotOriginalDestination,
    In,
    From,
    To,
    ToDns,
    ToSome,
    Owner,
    NotOwner,
    Invalid,
}

/// What kind of target, without its value but where that is part of the shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Return,
    Docker,
    Redirect,
    Zone(u16),
    Drop,
    Log,
    Jump(OwnChain),
}

use BuiltinChain::{Output, Prerouting};
use Goal::{Docker, Drop, Jump, Log, Redirect, Return, Zone};
use Kind::{
    Destination, From, In, Invalid, NotDestination, NotOriginalDestination, NotOwner, Owner, Source, Tcp, To,
    ToDns, ToSome, Udp,
};

/// Every rule that Kuma's installers, and this one, put into a shared chain.
const CATALOGUE: &[(Table, BuiltinChain, &[Kind], Goal)] = &[
    (Table::Raw, Prerouting, &[Udp, From], Zone(1)),
    (Table::Raw, Prerouting, &[Source, Udp, From], Zone(1)),
    (Table::Raw, Prerouting, &[In, Udp, ToDns], Zone(2)),
    (Table::Raw, Output, &[Udp, ToDns, Owner], Zone(1)),
    (Table::Raw, Output, &[Udp, From, Owner], Zone(2)),
    (Table::Raw, Output, &[Udp, ToDns], Zone(2)),
    (Table::Raw, Output, &[Destination, Udp, ToDns], Zone(2)),
    (Table::Raw, Output, &[Source, Destination, Udp], Zone(1)),
    (Table::Raw, Output, &[Destination, Udp, ToDns], Zone(1)),
    (Table::Mangle, Prerouting, &[Invalid], Drop),
    (Table::Nat, Prerouting, &[], Log),
    (Table::Nat, Prerouting, &[In, Udp, ToDns], Redirect),
    (Table::Nat, Prerouting, &[NotDestination, In, Tcp], Redirect),
    (Table::Nat, Prerouting, &[Tcp], Jump(OwnChain::Inbound)),
    (Table::Nat, Output, &[], Log),
    (Table::Nat, Output, &[Tcp, ToSome, Owner], Return),
    (Table::Nat, Output, &[Udp, ToSome, Owner], Return),
    (Table::Nat, Output, &[Destination], Return),
    (Table::Nat, Output, &[Destination, Udp, ToDns], Return),
    (Table::Nat, Output, &[Udp, ToDns, Owner], Return),
    (Table::Nat, Output, &[Udp, ToDns, Owner], Docker),
    (Table::Nat, Output, &[Tcp, ToDns, NotOwner], Return),
    (Table::Nat, Output, &[Udp, ToDns], Redirect),
    (Table::Nat, Output, &[Destination, Udp, ToDns], Redirect),
    (Table::Nat, Output, &[Tcp], Jump(OwnChain::Outbound)),
];

/// Whether an installation writes rules of exactly this shape into this chain.
pub fn in_catalogue(table: Table, chain: &str, rule: &Canonical) -> bool {
    let Some(mut kinds) = rule.matches().iter().map(kind).collect::<Option<Vec<_>>>() else { return false };
    // There are as many of these as an interface has further networks.
    kinds.retain(|kind| *kind != NotOriginalDestination);
    kinds.sort_unstable();
    let goal = goal(rule.target());
    CATALOGUE.iter().any(|(of_table, of_chain, of_kinds, of_goal)| {
        let mut of_kinds = of_kinds.to_vec();
        of_kinds.sort_unstable();
        *of_table == table
            && ChainRef::Builtin(*of_chain).name() == chain
            && of_kinds == kinds
            && *of_goal == goal
    })
}

fn kind(matching: &Match) -> Option<Kind> {
    Some(match matching {
        Match::Protocol(Protocol::Tcp) => Tcp,
        Match::Protocol(Protocol::Udp) => Udp,
        Match::Source(_) => Source,
        Match::Destination { negated: false, .. } => Destination,
        Match::Destination { negated: true, .. } => NotDestination,
        Match::NotOriginalDestination(_) => NotOriginalDestination,
        Match::InInterface(_) => In,
        Match::SourcePort(_) => From,
        Match::DestinationPort(port) if port.get() == 53 => ToDns,
        Match::DestinationPort(_) => To,
        Match::DestinationPorts { .. } => ToSome,
        Match::Owner { negated: false, .. } => Owner,
        Match::Owner { negated: true, .. } => NotOwner,
        Match::Invalid => Invalid,
        Match::OutInterface(_) | Match::Explicit(_) | Match::ForOtherHosts => return None,
    })
}

fn goal(target: &Target) -> Goal {
    match target {
        Target::Return => Return,
        Target::DockerOutput => Docker,
        Target::Redirect(_) => Redirect,
        Target::CtZone(zone) => Zone(*zone),
        Target::Drop => Drop,
        Target::Log { .. } => Log,
        Target::Jump(chain) => Jump(*chain),
    }
}
