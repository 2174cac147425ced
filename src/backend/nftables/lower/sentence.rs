//! Why a rule is there: one short sentence, for whoever lists the table. Pure.
//!
//! A plan's own words are Kuma's, and many are longer than a comment may be. These name nothing that anybody typed:
//! addresses, ports, users and interfaces stand in the rule itself. So every one of them has an end.

use crate::config::values::Protocol;
use crate::plan::{BuiltinChain, ChainRef, Family, Match, OwnChain, Rule, Target};

/// In the chain of everybody but the sidecar, about the sidecar.
pub(super) const SIDECAR_GOES_ON: &str = "The sidecar's traffic goes on in the calling chain.";
/// And about everybody else.
pub(super) const OTHERS_PASS: &str = "Everybody else's traffic is left alone.";

/// In a chain for one family, about the other.
pub(super) const fn not_redirected(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4 traffic is not redirected.",
        Family::V6 => "IPv6 traffic is not redirected.",
    }
}

/// What a planned rule of this chain is for.
pub(super) fn of(chain: ChainRef, rule: &Rule) -> &'static str {
    let matches = rule.matches.as_slice();
    match &rule.target {
        Target::Return => left_alone(chain, matches),
        Target::Jump(to) => led_on(chain, *to, matches),
        Target::Redirect(_) => redirected(chain, matches),
        Target::CtZone(zone) => zoned(*zone, matches),
        Target::DockerOutput => "The sidecar's own DNS questions go to Docker's DNS server.",
        Target::Drop => "Packets of which connection tracking can make no sense are dropped.",
        Target::Log { .. } => "New connections are written to the kernel's log.",
    }
}

fn left_alone(chain: ChainRef, matches: &[Match]) -> &'static str {
    match (chain, matches) {
        (ChainRef::Own(OwnChain::Inbound), [Match::Protocol(_)]) => {
            "Redirection of arriving traffic is turned off."
        }
        (ChainRef::Own(OwnChain::Outbound), [Match::Protocol(_)]) => {
            "Redirection of leaving traffic is turned off."
        }
        (ChainRef::Own(OwnChain::Inbound), [Match::Source(_)]) => {
            "Traffic from the excluded addresses is left alone."
        }
        (ChainRef::Own(OwnChain::Inbound), _) => "Traffic to the excluded inbound ports is left alone.",
        (ChainRef::Own(OwnChain::Outbound), [Match::Source(_), Match::OutInterface(_)]) => {
            "What the sidecar passes on to local applications is not redirected again."
        }
        (ChainRef::Own(OwnChain::Outbound), [.., Match::Owner { negated: true, .. }]) => {
            "Traffic over loopback is left alone, unless it is the sidecar's."
        }
        (ChainRef::Own(OwnChain::Outbound), [Match::Owner { .. }]) => {
            "The sidecar's own traffic is left alone."
        }
        (ChainRef::Own(OwnChain::Outbound), [Match::Destination { .. }]) => {
            "Traffic to localhost is left alone."
        }
        (ChainRef::Own(OwnChain::Outbound), _) => "Traffic to the excluded outbound ports is left alone.",
        (ChainRef::Builtin(_), [Match::DestinationPorts { .. }, Match::Owner { .. }]) => {
            "Traffic of the excluded users to these ports is left alone."
        }
        (ChainRef::Builtin(_), [Match::Destination { .. }]) => {
            "Traffic to the excluded addresses is left alone."
        }
        (ChainRef::Builtin(_), [.., Match::Owner { negated: false, .. }]) => {
            "The sidecar's own DNS questions are left alone."
        }
        (ChainRef::Builtin(_), [.., Match::Owner { negated: true, .. }]) => {
            "DNS questions over TCP are left alone, unless they are the sidecar's."
        }
        _ => "This traffic is left alone.",
    }
}

fn led_on(chain: ChainRef, to: OwnChain, matches: &[Match]) -> &'static str {
    let about_ports =
        matches.iter().any(|m| matches!(m, Match::DestinationPort(_) | Match::DestinationPorts { .. }));
    match (chain, to) {
        (_, OwnChain::Inbound) => "The chain inbound decides about TCP that arrives.",
        (_, OwnChain::Outbound) => "The chain outbound decides about TCP that local processes send.",
        (ChainRef::Own(OwnChain::Outbound), OwnChain::InboundRedirect) => {
            "What the sidecar sends to this host itself goes to the sidecar's inbound port."
        }
        (_, OwnChain::InboundRedirect) if about_ports => {
            "TCP that arrives at the included ports is redirected."
        }
        (_, OwnChain::InboundRedirect) => "All other TCP that arrives is redirected.",
        (_, OwnChain::OutboundRedirect) if about_ports => "TCP to the included ports is redirected.",
        (_, OwnChain::OutboundRedirect) => "All other TCP that local processes send is redirected.",
    }
}

fn redirected(chain: ChainRef, matches: &[Match]) -> &'static str {
    let udp = matches.contains(&Match::Protocol(Protocol::Udp));
    match (chain, matches) {
        (ChainRef::Own(OwnChain::InboundRedirect), _) => "TCP goes to the sidecar's inbound port.",
        (ChainRef::Own(OwnChain::OutboundRedirect), _) => "TCP goes to the sidecar's outbound port.",
        (ChainRef::Builtin(BuiltinChain::Prerouting), _) if udp => {
            "DNS questions of this virtual network go to the sidecar."
        }
        (ChainRef::Builtin(BuiltinChain::Prerouting), _) => {
            "TCP that leaves this virtual network goes to the sidecar's outbound port."
        }
        (_, [Match::Destination { .. }, ..]) => "DNS questions to this host's servers go to the sidecar.",
        _ => "DNS questions to any server go to the sidecar.",
    }
}

fn zoned(zone: u16, matches: &[Match]) -> &'static str {
    let has = |wanted: fn(&Match) -> bool| matches.iter().any(wanted);
    let by_sidecar = has(|m| matches!(m, Match::Owner { .. }));
    match zone {
        1 if by_sidecar => "The sidecar's own DNS questions are tracked in zone 1.",
        1 if has(|m| matches!(m, Match::SourcePort(_))) => {
            "Answers of DNS servers are tracked in zone 1, as the sidecar's questions are."
        }
        1 => "Answers of a DNS server on this host are tracked in zone 1, from whatever port.",
        _ if by_sidecar => "The sidecar's DNS answers are tracked in zone 2, as the questions are.",
        _ if has(|m| matches!(m, Match::InInterface(_))) => {
            "DNS questions of virtual networks are tracked in zone 2."
        }
        _ => "DNS questions of applications are tracked in zone 2.",
    }
}
