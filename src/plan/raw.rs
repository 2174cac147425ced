//! Conntrack zones. The sidecar's own DNS questions and the redirected ones of applications can have the same
//! addresses and ports; in separate zones they cannot be taken for one another. Zone 1 is between sidecar and
//! resolver, zone 2 between application and sidecar. Where somebody else translates the address of a resolver, its
//! answers carry another one than was asked, by which no rule could know them: there the sidecar's own flows stay in
//! the zone that has no number, which keeps them apart as well.

use std::net::{IpAddr, Ipv4Addr};

use crate::config::values::{Cidr, Port, Protocol};

use super::build::{Scope, tail};
use super::link_local;
use super::model::{BuiltinChain, ChainRef, Match, PlacedRule, Table, TablePlan, Target};
use super::nat::vnet_interfaces;

const SIDECAR: Target = Target::CtZone(1);
const APPLICATION: Target = Target::CtZone(2);
const DNS: Port = Port::of(53);
const LOCAL_SERVER: &str = "assign conntrack zone 1 to DNS responses from the local DNS server to localhost, \
     needed when the DNS query port is altered by a DNAT iptables rule, such as with Docker containers in a \
     custom network";

pub(super) fn table(scope: &Scope) -> Option<TablePlan> {
    if !scope.dns() || scope.config.redirect.dns.skip_conntrack_zone_split {
        return None;
    }
    Some(TablePlan {
        table: Table::Raw,
        chains: vec![
            (ChainRef::Builtin(BuiltinChain::Prerouting), prerouting(scope)),
            (ChainRef::Builtin(BuiltinChain::Output), output(scope)),
        ],
    })
}

fn prerouting(scope: &Scope) -> Vec<PlacedRule> {
    let answer = [Match::Protocol(Protocol::Udp), Match::SourcePort(DNS)];
    let mut rules = Vec::new();
    if scope.translated() {
        // An answer comes from another address than was asked. What is in no zone is known again all the same.
    } else if scope.config.redirect.dns.capture_all {
        let why = "assign connection tracking zone 1 to all DNS responses";
        rules.push(tail(answer.to_vec(), SIDECAR, why));
    } else {
        for addr in scope.resolvers() {
            let mut matches = vec![Match::Source(bare(addr))];
            matches.extend(answer.clone());
            let why = format!("assign connection tracking zone 1 to DNS responses from {addr}");
            rules.push(tail(matches, SIDECAR, why));
        }
        rules.extend(link_local::answers_zone(scope, SIDECAR));
    }
    // The sidecar's answer leaves in zone 2 whoever asked, so a guest's question has to arrive in it.
    for interface in vnet_interfaces(scope).keys() {
        let matches = vec![
            Match::InInterface(interface.to_string()),
            Match::Protocol(Protocol::Udp),
            Match::DestinationPort(DNS),
        ];
        let why = format!("assign connection tracking zone 2 to DNS requests on interface {interface}");
        rules.push(tail(matches, APPLICATION, why));
    }
    rules
}

fn output(scope: &Scope) -> Vec<PlacedRule> {
    let uid = scope.facts.sidecar_uid;
    let udp = Match::Protocol(Protocol::Udp);
    let sidecar = Match::Owner { uids: uid.into(), negated: false };
    let own_question = vec![udp.clone(), Match::DestinationPort(DNS), sidecar.clone()];
    let translated = scope.translated();
    let mut rules = vec![
        if translated {
            let why =
                format!("skip connection tracking zones for DNS traffic from the kuma-dp user (UID {uid})");
            tail(own_question, Target::Return, why)
        } else {
            let why =
                format!("assign connection tracking zone 1 to DNS traffic from the kuma-dp user (UID {uid})");
            tail(own_question, SIDECAR, why)
        },
        tail(
            vec![udp.clone(), Match::SourcePort(scope.config.redirect.dns.port), sidecar],
            APPLICATION,
            "assign connection tracking zone 2 to DNS responses from the kuma-dp DNS proxy",
        ),
    ];
    // The first zone counts, so it comes before that of all questions.
    rules.extend(link_local::questions_zone(scope, (!translated).then_some(SIDECAR)));
    let from_local_server = |addr: IpAddr| {
        let localhost = Match::Destination { net: scope.localhost(), negated: false };
        tail(vec![Match::Source(bare(addr)), localhost, udp.clone()], SIDECAR, LOCAL_SERVER)
    };
    if scope.config.redirect.dns.capture_all {
        let why = "assign connection tracking zone 2 to all DNS requests";
        rules.push(tail(vec![udp.clone(), Match::DestinationPort(DNS)], APPLICATION, why));
        if scope.docker_dns() && !translated {
            rules.push(from_local_server(Ipv4Addr::new(127, 0, 0, 11).into()));
        }
    } else {
        for addr in scope.resolvers() {
            let to_server = Match::Destination { net: bare(addr), negated: false };
            let why = format!("assign connection tracking zone 2 to DNS requests destined for {addr}");
            rules.push(tail(vec![to_server, udp.clone(), Match::DestinationPort(DNS)], APPLICATION, why));
            if addr.is_loopback() && !translated {
                rules.push(from_local_server(addr));
            }
        }
    }
    rules
}

/// An address as Kuma writes a resolver: without a prefix length.
pub(super) fn bare(addr: IpAddr) -> Cidr {
    Cidr::bare(addr)
}
