//! Why a rule is there: one short sentence, for whoever lists the table. Pure.
//!
//! A plan's own words are Kuma's, and many are longer than a comment may be. These name nothing that anybody typed:
//! addresses, ports, users and interfaces stand in the rule itself. So every one of them has an end.

use crate::config::values::Protocol;
use crate::plan::{BuiltinChain, ChainRef, Family, Match, OwnChain, Rule, Target, link_local};

/// In the chain of everybody but the sidecar, about the sidecar.
pub(super) const SIDECAR_GOES_ON: &str = "The sidecar's traffic goes on in the calling chain.";
/// And about everybody else.
pub(super) const OTHERS_PASS: &str = "Everybody else's traffic is left alone.";

/// Before rules about zones, about what somebody else switched connection tracking off for.
pub(super) const STAYS_UNTRACKED: &str = "What somebody else left untracked stays so.";

const WITHOUT_IPV4: &str = "IPv4 traffic is not redirected.";
const WITHOUT_IPV6: &str = "IPv6 traffic is not redirected.";
const DOCKER: &str = "The sidecar's own DNS questions go to Docker's DNS server.";
const INVALID: &str = "Packets of which connection tracking can make no sense are dropped.";
const LOGGED: &str = "New connections are written to the kernel's log.";
const INBOUND_OFF: &str = "Redirection of arriving traffic is turned off.";
const OUTBOUND_OFF: &str = "Redirection of leaving traffic is turned off.";
const EXCLUDED_SOURCES: &str = "Traffic from the excluded addresses is left alone.";
const FORWARDED: &str = "Traffic to other hosts is left alone: this one forwards it.";
const EXCLUDED_INBOUND_PORTS: &str = "Traffic to the excluded inbound ports is left alone.";
const PASSED_ON: &str = "What the sidecar passes on to local applications is not redirected again.";
const LOOPBACK: &str = "Traffic over loopback is left alone, unless it is the sidecar's.";
const SIDECAR: &str = "The sidecar's own traffic is left alone.";
const LOCALHOST: &str = "Traffic to localhost is left alone.";
const LINK_LOCAL: &str =
    "Traffic to link-local addresses is left alone: no answer of the sidecar gets there.";
const EXCLUDED_OUTBOUND_PORTS: &str = "Traffic to the excluded outbound ports is left alone.";
const EXCLUDED_USERS: &str = "Traffic of the excluded users to these ports is left alone.";
const EXCLUDED_DESTINATIONS: &str = "Traffic to the excluded addresses is left alone.";
const SIDECAR_ASKS: &str = "The sidecar's own DNS questions are left alone.";
const DNS_OVER_TCP: &str = "DNS questions over TCP are left alone, unless they are the sidecar's.";
/// No rule of a plan; one of a later plan that has no words here yet.
const LEFT_ALONE: &str = "This traffic is left alone.";
const INBOUND_DECIDES: &str = "The chain inbound decides about TCP that arrives.";
const OUTBOUND_DECIDES: &str = "The chain outbound decides about TCP that local processes send.";
const SIDECAR_TO_ITSELF: &str =
    "What the sidecar sends to this host itself goes to the sidecar's inbound port.";
const INCLUDED_INBOUND_PORTS: &str = "TCP that arrives at the included ports is redirected.";
const ALL_INBOUND: &str = "All other TCP that arrives is redirected.";
const INCLUDED_OUTBOUND_PORTS: &str = "TCP to the included ports is redirected.";
const ALL_OUTBOUND: &str = "All other TCP that local processes send is redirected.";
const TO_INBOUND_PORT: &str = "TCP goes to the sidecar's inbound port.";
const TO_OUTBOUND_PORT: &str = "TCP goes to the sidecar's outbound port.";
const GUESTS_ASK: &str = "DNS questions of this virtual network go to the sidecar.";
const GUESTS_CONNECT: &str = "TCP that leaves this virtual network goes to the sidecar's outbound port.";
const QUESTIONS_TO_SERVERS: &str = "DNS questions to this host's servers go to the sidecar.";
const QUESTIONS: &str = "DNS questions to any server go to the sidecar.";
const SIDECARS_QUESTIONS_TRACKED: &str = "The sidecar's own DNS questions are tracked in zone 1.";
const ANSWERS_TRACKED: &str = "Answers of DNS servers are tracked in zone 1, as the sidecar's questions are.";
const LOCAL_ANSWERS_TRACKED: &str =
    "Answers of a DNS server on this host are tracked in zone 1, from whatever port.";
const SIDECARS_ANSWERS_TRACKED: &str =
    "The sidecar's DNS answers are tracked in zone 2, as the questions are.";
const LINK_LOCAL_TRACKED: &str = "DNS of link-local servers is tracked in zone 1, because it is left alone.";
const GUESTS_QUESTIONS_TRACKED: &str = "DNS questions of virtual networks are tracked in zone 2.";
const QUESTIONS_TRACKED: &str = "DNS questions of applications are tracked in zone 2.";

/// By them a rule is known as ours. Whoever changes one keeps the former here too, or an upgrade calls rules with it
/// somebody else's.
const ALL: [&str; 44] = [
    SIDECAR_GOES_ON,
    OTHERS_PASS,
    STAYS_UNTRACKED,
    WITHOUT_IPV4,
    WITHOUT_IPV6,
    DOCKER,
    INVALID,
    LOGGED,
    INBOUND_OFF,
    OUTBOUND_OFF,
    EXCLUDED_SOURCES,
    FORWARDED,
    EXCLUDED_INBOUND_PORTS,
    PASSED_ON,
    LOOPBACK,
    SIDECAR,
    LOCALHOST,
    LINK_LOCAL,
    EXCLUDED_OUTBOUND_PORTS,
    EXCLUDED_USERS,
    EXCLUDED_DESTINATIONS,
    SIDECAR_ASKS,
    DNS_OVER_TCP,
    LEFT_ALONE,
    INBOUND_DECIDES,
    OUTBOUND_DECIDES,
    SIDECAR_TO_ITSELF,
    INCLUDED_INBOUND_PORTS,
    ALL_INBOUND,
    INCLUDED_OUTBOUND_PORTS,
    ALL_OUTBOUND,
    TO_INBOUND_PORT,
    TO_OUTBOUND_PORT,
    GUESTS_ASK,
    GUESTS_CONNECT,
    QUESTIONS_TO_SERVERS,
    QUESTIONS,
    SIDECARS_QUESTIONS_TRACKED,
    ANSWERS_TRACKED,
    LOCAL_ANSWERS_TRACKED,
    SIDECARS_ANSWERS_TRACKED,
    LINK_LOCAL_TRACKED,
    GUESTS_QUESTIONS_TRACKED,
    QUESTIONS_TRACKED,
];

/// Whether a comment is one of these.
pub fn is_ours(comment: &str) -> bool {
    ALL.contains(&comment)
}

/// In a chain for one family, about the other.
pub(super) const fn not_redirected(family: Family) -> &'static str {
    match family {
        Family::V4 => WITHOUT_IPV4,
        Family::V6 => WITHOUT_IPV6,
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
        Target::DockerOutput => DOCKER,
        Target::Drop => INVALID,
        Target::Log { .. } => LOGGED,
    }
}

fn left_alone(chain: ChainRef, matches: &[Match]) -> &'static str {
    match (chain, matches) {
        (ChainRef::Own(OwnChain::Inbound), [Match::Protocol(_)]) => INBOUND_OFF,
        (ChainRef::Own(OwnChain::Outbound), [Match::Protocol(_)]) => OUTBOUND_OFF,
        (ChainRef::Own(OwnChain::Inbound), [Match::Source(_)]) => EXCLUDED_SOURCES,
        (ChainRef::Own(OwnChain::Inbound), [Match::ForOtherHosts]) => FORWARDED,
        (ChainRef::Own(OwnChain::Inbound), _) => EXCLUDED_INBOUND_PORTS,
        (ChainRef::Own(OwnChain::Outbound), [Match::Source(_), Match::OutInterface(_)]) => PASSED_ON,
        (ChainRef::Own(OwnChain::Outbound), [.., Match::Owner { negated: true, .. }]) => LOOPBACK,
        (ChainRef::Own(OwnChain::Outbound), [Match::Owner { .. }]) => SIDECAR,
        (ChainRef::Own(OwnChain::Outbound), [to]) if is_about_links(to) => LINK_LOCAL,
        (ChainRef::Own(OwnChain::Outbound), [Match::Destination { .. }]) => LOCALHOST,
        (ChainRef::Own(OwnChain::Outbound), _) => EXCLUDED_OUTBOUND_PORTS,
        (ChainRef::Builtin(_), [Match::DestinationPorts { .. }, Match::Owner { .. }]) => EXCLUDED_USERS,
        (ChainRef::Builtin(_), [Match::Destination { .. }]) => EXCLUDED_DESTINATIONS,
        (ChainRef::Builtin(_), [to, ..]) if is_about_links(to) => LINK_LOCAL,
        (ChainRef::Builtin(_), [.., Match::Owner { negated: false, .. }]) => SIDECAR_ASKS,
        (ChainRef::Builtin(_), [.., Match::Owner { negated: true, .. }]) => DNS_OVER_TCP,
        _ => LEFT_ALONE,
    }
}

fn led_on(chain: ChainRef, to: OwnChain, matches: &[Match]) -> &'static str {
    let about_ports =
        matches.iter().any(|m| matches!(m, Match::DestinationPort(_) | Match::DestinationPorts { .. }));
    match (chain, to) {
        (_, OwnChain::Inbound) => INBOUND_DECIDES,
        (_, OwnChain::Outbound) => OUTBOUND_DECIDES,
        (ChainRef::Own(OwnChain::Outbound), OwnChain::InboundRedirect) => SIDECAR_TO_ITSELF,
        (_, OwnChain::InboundRedirect) if about_ports => INCLUDED_INBOUND_PORTS,
        (_, OwnChain::InboundRedirect) => ALL_INBOUND,
        (_, OwnChain::OutboundRedirect) if about_ports => INCLUDED_OUTBOUND_PORTS,
        (_, OwnChain::OutboundRedirect) => ALL_OUTBOUND,
    }
}

fn redirected(chain: ChainRef, matches: &[Match]) -> &'static str {
    let udp = matches.contains(&Match::Protocol(Protocol::Udp));
    match (chain, matches) {
        (ChainRef::Own(OwnChain::InboundRedirect), _) => TO_INBOUND_PORT,
        (ChainRef::Own(OwnChain::OutboundRedirect), _) => TO_OUTBOUND_PORT,
        (ChainRef::Builtin(BuiltinChain::Prerouting), _) if udp => GUESTS_ASK,
        (ChainRef::Builtin(BuiltinChain::Prerouting), _) => GUESTS_CONNECT,
        (_, [Match::Destination { .. }, ..]) => QUESTIONS_TO_SERVERS,
        _ => QUESTIONS,
    }
}

fn zoned(zone: u16, matches: &[Match]) -> &'static str {
    let has = |wanted: fn(&Match) -> bool| matches.iter().any(wanted);
    let by_sidecar = has(|m| matches!(m, Match::Owner { .. }));
    match zone {
        1 if matches.first().is_some_and(is_about_links) => LINK_LOCAL_TRACKED,
        1 if by_sidecar => SIDECARS_QUESTIONS_TRACKED,
        1 if has(|m| matches!(m, Match::SourcePort(_))) => ANSWERS_TRACKED,
        1 => LOCAL_ANSWERS_TRACKED,
        _ if by_sidecar => SIDECARS_ANSWERS_TRACKED,
        _ if has(|m| matches!(m, Match::InInterface(_))) => GUESTS_QUESTIONS_TRACKED,
        _ => QUESTIONS_TRACKED,
    }
}

fn is_about_links(condition: &Match) -> bool {
    match condition {
        Match::Source(net) | Match::Destination { net, negated: false } => *net == link_local(),
        _ => false,
    }
}
