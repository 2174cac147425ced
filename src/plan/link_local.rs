//! Link-local destinations. A socket to such an address is bound to its link, and what the sidecar answers comes by
//! loopback, so a redirected connection or question never gets an answer. So `fe80::/10` is left alone. kumactl
//! redirects it.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::Ipv6Net;

use crate::config::values::{Cidr, Port, Protocol};

use super::build::{Scope, head, tail};
use super::model::{Family, Match, PlacedRule, Target};

const DNS: Port = Port::of(53);
const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
const NETWORK: Ipv6Net = Ipv6Net::new_assert(ADDRESS, 10);

/// The link-local addresses of IPv6 (RFC 4291, section 2.5.6).
pub fn link_local() -> Cidr {
    ipnet::IpNet::V6(NETWORK).into()
}

/// Whether an address means something only together with a link.
pub fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(six) if NETWORK.contains(&six))
}

/// In our chain of outbound traffic, before everything else: included ports and the sidecar's own connections are no
/// exception.
pub(super) fn connections(scope: &Scope) -> Option<PlacedRule> {
    let why = "return traffic destined for link-local addresses, because no answer of the sidecar reaches a socket \
               bound to a link";
    has_links(scope).then(|| tail(vec![to_links()], Target::Return, why))
}

/// Before the redirection of every DNS question. Servers that are redirected one by one never are link-local.
pub(super) fn questions(scope: &Scope) -> Option<PlacedRule> {
    let why = "return DNS requests destined for link-local addresses, because no answer of the sidecar reaches a \
               socket bound to a link";
    let matches = vec![to_links(), Match::Protocol(Protocol::Udp), Match::DestinationPort(DNS)];
    has_links(scope).then(|| head(matches, Target::Return, why))
}

/// In the zone in which answers of DNS servers are, and the sidecar's own questions; in none where those are in none.
pub(super) fn questions_zone(scope: &Scope, zone: Option<Target>) -> Option<PlacedRule> {
    let why = match zone {
        Some(_) => {
            "assign connection tracking zone 1 to DNS requests destined for link-local addresses, which are not \
             redirected"
        }
        None => {
            "skip connection tracking zones for DNS requests destined for link-local addresses, which are not redirected"
        }
    };
    let matches = vec![to_links(), Match::Protocol(Protocol::Udp), Match::DestinationPort(DNS)];
    has_links(scope).then(|| tail(matches, zone.unwrap_or(Target::Return), why))
}

/// Answers to them, where those of other servers are named one by one.
pub(super) fn answers_zone(scope: &Scope, zone: Target) -> Option<PlacedRule> {
    let why = "assign connection tracking zone 1 to DNS responses from link-local addresses";
    let matches = vec![Match::Source(link_local()), Match::Protocol(Protocol::Udp), Match::SourcePort(DNS)];
    has_links(scope).then(|| tail(matches, zone, why))
}

/// Who is asked without the sidecar, in a sentence.
pub(super) fn note(scope: &Scope) -> Option<String> {
    let dns = &scope.config.redirect.dns;
    let own = scope
        .facts
        .resolvers
        .iter()
        .filter(|resolver| is_link_local(resolver.addr) && scope.family.holds(resolver.addr.into()));
    let servers: Vec<String> = own.map(ToString::to_string).collect();
    let said = dns.enabled && !dns.capture_all && !servers.is_empty();
    said.then(|| {
        format!(
            "DNS questions to {} are not redirected: a socket to a link-local address is bound to its link, and no \
             answer of the sidecar would reach it",
            servers.join(" and ")
        )
    })
}

fn has_links(scope: &Scope) -> bool {
    scope.family == Family::V6
}

fn to_links() -> Match {
    Match::Destination { net: link_local(), negated: false }
}
