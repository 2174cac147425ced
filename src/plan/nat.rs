//! Redirection: the shared chains' rules in this file, our own chains' in the second half.

use std::collections::BTreeMap;

use crate::config::values::{Cidr, InterfacePattern, Port, Protocol};

use super::build::{Scope, head, tail};
use super::link_local;
use super::model::{BuiltinChain, ChainRef, Match, OwnChain, PlacedRule, Table, TablePlan, Target};
use super::ports::{multiport, tcp_to};
use super::raw::bare;

const DNS: Port = Port::of(53);
const TCP: Match = Match::Protocol(Protocol::Tcp);
const UDP: Match = Match::Protocol(Protocol::Udp);
const LOGGED: &str = "log matching packets using kernel logging";

pub(super) fn table(scope: &Scope) -> TablePlan {
    let mut chains = vec![
        (ChainRef::Builtin(BuiltinChain::Prerouting), prerouting(scope)),
        (ChainRef::Builtin(BuiltinChain::Output), output(scope)),
    ];
    for chain in OwnChain::ALL {
        let rules = match chain {
            OwnChain::Inbound => inbound(scope),
            OwnChain::Outbound => outbound(scope),
            OwnChain::InboundRedirect => redirect(scope.config.redirect.inbound.port),
            OwnChain::OutboundRedirect => redirect(scope.config.redirect.outbound.port),
        };
        chains.push((ChainRef::Own(chain), rules));
    }
    TablePlan { table: Table::Nat, chains }
}

/// The family's virtual networks by interface name.
pub(super) fn vnet_interfaces<'a>(scope: &Scope<'a>) -> BTreeMap<&'a InterfacePattern, Vec<&'a Cidr>> {
    let mut interfaces: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for vnet in &scope.config.redirect.vnet.networks {
        if scope.family.holds(vnet.network.net()) {
            interfaces.entry(&vnet.interface).or_default().push(&vnet.network);
        }
    }
    interfaces
}

fn log(scope: &Scope, prefix: &'static str) -> Option<Target> {
    let log = scope.config.log;
    log.enabled.then_some(Target::Log { prefix, level: log.level })
}

fn prerouting(scope: &Scope) -> Vec<PlacedRule> {
    let mut rules = Vec::new();
    rules.extend(log(scope, "PREROUTING:").map(|target| tail(vec![], target, LOGGED)));
    let interfaces = vnet_interfaces(scope);
    for (interface, networks) in &interfaces {
        rules.extend(vnet_rules(scope, interface, networks));
    }
    let jump = Target::Jump(OwnChain::Inbound);
    rules.push(
        if interfaces.is_empty() && !scope.config.redirect.inbound.insert_redirect_instead_of_append {
            tail(vec![TCP], jump, "redirect inbound TCP traffic to our custom chain for processing")
        } else {
            head(vec![TCP], jump, "redirect remaining TCP traffic to our custom chain for processing")
        },
    );
    rules
}

fn vnet_rules(scope: &Scope, interface: &InterfacePattern, networks: &[&Cidr]) -> Vec<PlacedRule> {
    let on_interface = Match::InInterface(interface.to_string());
    let mut rules = Vec::new();
    let dns = &scope.config.redirect.dns;
    if dns.enabled {
        rules.push(head(
            vec![on_interface.clone(), Match::Explicit(Protocol::Udp), UDP, Match::DestinationPort(DNS)],
            Target::Redirect(dns.port),
            format!(
                "redirect DNS requests on interface {interface} to the kuma-dp DNS proxy (listening on port {})",
                dns.port
            ),
        ));
    }
    let mut matches: Vec<Match> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for &network in networks {
        matches.push(if matches.is_empty() {
            Match::Destination { net: network.clone(), negated: true }
        } else {
            Match::NotOriginalDestination(network.clone())
        });
        names.push(network.to_string());
    }
    // The interface and the protocol come right behind the one destination that the rule itself can name.
    matches.splice(1..1, [on_interface, TCP]);
    let port = scope.config.redirect.outbound.port;
    rules.push(head(
        matches,
        Target::Redirect(port),
        format!(
            "redirect TCP traffic on interface {interface}, excluding destination {}, to the envoy's outbound \
             passthrough port {port}",
            names.join(" and ")
        ),
    ));
    rules
}

fn output(scope: &Scope) -> Vec<PlacedRule> {
    let outbound = &scope.config.redirect.outbound;
    let mut rules = Vec::new();
    rules.extend(log(scope, "OUTPUT:").map(|target| head(vec![], target, LOGGED)));
    rules.extend(exclusions(scope));
    if scope.dns() {
        rules.extend(dns_rules(scope));
    }
    let to_mesh = if outbound.insert_redirect_instead_of_append { head } else { tail };
    rules.push(to_mesh(
        vec![TCP],
        Target::Jump(OwnChain::Outbound),
        "redirect outbound TCP traffic to our custom chain for processing".to_owned(),
    ));
    rules
}

fn exclusions(scope: &Scope) -> Vec<PlacedRule> {
    let why = "skip further processing for configured IP addresses, ports and UIDs";
    let outbound = &scope.config.redirect.outbound;
    let mut rules = Vec::new();
    for exclusion in &outbound.exclude_ports_for_uids {
        for &protocol in &exclusion.protocols {
            for ports in multiport(&exclusion.ports) {
                let owner = Match::Owner { uids: exclusion.uids, negated: false };
                rules.push(head(
                    vec![Match::DestinationPorts { protocol, ports }, owner],
                    Target::Return,
                    why,
                ));
            }
        }
    }
    for net in scope.own(&outbound.exclude_ports_for_ips) {
        rules.push(head(vec![Match::Destination { net: net.clone(), negated: false }], Target::Return, why));
    }
    rules
}

fn dns_rules(scope: &Scope) -> Vec<PlacedRule> {
    let dns = &scope.config.redirect.dns;
    let uid = scope.facts.sidecar_uid;
    let question = [UDP, Match::DestinationPort(DNS)];
    let own_question = || {
        let mut matches = question.to_vec();
        matches.push(Match::Owner { uids: uid.into(), negated: false });
        matches
    };
    let mut rules = Vec::new();
    if scope.docker_dns() {
        let why = "redirect DNS traffic from kuma-dp to the DOCKER_OUTPUT chain";
        rules.push(head(own_question(), Target::DockerOutput, why));
    }
    // Also behind Docker's chain, which returns questions to other servers: without it they would come back to
    // the sidecar by the redirection below.
    // But what returns here does not meet the rules of others behind ours either. Where those lead questions to the
    // server that answers, ours are about everybody else's questions alone.
    let leave_to_others = scope.translated() && scope.facts.translated.in_our_chain;
    if !leave_to_others {
        rules.push(head(own_question(), Target::Return, "return early for DNS traffic from kuma-dp"));
    }
    let others_alone = |matches: &mut Vec<Match>| {
        if leave_to_others {
            matches.push(Match::Owner { uids: uid.into(), negated: true });
        }
    };

    // An inserted jump to our chain would take the question first, so this rule then has to be inserted too.
    let beside_jump =
        if scope.config.redirect.outbound.insert_redirect_instead_of_append { head } else { tail };
    rules.push(beside_jump(
        vec![TCP, Match::DestinationPort(DNS), Match::Owner { uids: uid.into(), negated: true }],
        Target::Return,
        format!(
            "allow applications to perform DNS queries over TCP to port 53 without mesh redirection (only \
             traffic not owned by UID {uid} (kuma-dp user))"
        ),
    ));

    let to_sidecar = Target::Redirect(dns.port);
    if dns.capture_all {
        let why =
            format!("redirect all DNS requests to the kuma-dp DNS proxy (listening on port {})", dns.port);
        rules.extend(link_local::questions(scope));
        let mut matches = question.to_vec();
        others_alone(&mut matches);
        rules.push(head(matches, to_sidecar, why));
    } else {
        for addr in scope.resolvers() {
            let mut matches = vec![Match::Destination { net: bare(addr), negated: false }];
            matches.extend(question.clone());
            others_alone(&mut matches);
            let why = format!(
                "redirect DNS requests to {addr} to the kuma-dp DNS proxy (listening on port {})",
                dns.port
            );
            rules.push(head(matches, to_sidecar.clone(), why));
        }
    }
    rules
}

fn inbound(scope: &Scope) -> Vec<PlacedRule> {
    let inbound = &scope.config.redirect.inbound;
    if !inbound.enabled {
        return vec![tail(vec![TCP], Target::Return, "inbound traffic redirection is disabled")];
    }
    let to_redirect = Target::Jump(OwnChain::InboundRedirect);
    let mut rules = Vec::new();
    if inbound.exclude_forwarded {
        let why = "skip further processing for traffic forwarded to other hosts";
        rules.push(tail(vec![Match::ForOtherHosts], Target::Return, why));
    }
    for net in scope.own(&inbound.exclude_ports_for_ips) {
        let why = "skip further processing for configured IP address";
        rules.push(tail(vec![Match::Source(net.clone())], Target::Return, why));
    }
    if !inbound.include_ports.is_empty() {
        rules.extend(for_ports(&inbound.include_ports, &to_redirect, |ports| {
            format!("redirect inbound traffic from {ports} to the custom chain for processing")
        }));
        return rules;
    }
    rules.extend(for_ports(&inbound.exclude_ports, &Target::Return, |ports| {
        format!("exclude inbound traffic from {ports} from redirection")
    }));
    let why = "redirect all inbound traffic to the custom chain for processing";
    rules.push(tail(vec![TCP], to_redirect, why));
    rules
}

fn outbound(scope: &Scope) -> Vec<PlacedRule> {
    let outbound = &scope.config.redirect.outbound;
    if !outbound.enabled {
        return vec![tail(vec![TCP], Target::Return, "outbound traffic redirection is disabled")];
    }
    let mut rules: Vec<PlacedRule> = link_local::connections(scope).into_iter().collect();
    if outbound.include_ports.is_empty() {
        rules.extend(for_ports(&outbound.exclude_ports, &Target::Return, |ports| {
            format!("exclude outbound traffic from {ports} from redirection")
        }));
    }
    rules.extend(sidecar_rules(scope));
    let localhost = scope.localhost();
    rules.push(tail(
        vec![Match::Destination { net: localhost.clone(), negated: false }],
        Target::Return,
        format!("return traffic destined for localhost ({localhost}) to avoid redirection"),
    ));
    let to_redirect = Target::Jump(OwnChain::OutboundRedirect);
    if outbound.include_ports.is_empty() {
        let why = "redirect all other outbound traffic to our custom chain for further processing";
        rules.push(tail(vec![], to_redirect, why));
    } else {
        rules.extend(for_ports(&outbound.include_ports, &to_redirect, |ports| {
            format!("redirect outbound TCP traffic to {ports} to our custom chain for further processing")
        }));
    }
    rules
}

/// What keeps the sidecar's own traffic out of the redirection, and traffic over loopback apart.
fn sidecar_rules(scope: &Scope) -> [PlacedRule; 4] {
    let uid = scope.facts.sidecar_uid;
    let loopback = Match::OutInterface(scope.facts.loopback.clone());
    let (passthrough, localhost) = (scope.passthrough(), scope.localhost());
    let owner = |negated| Match::Owner { uids: uid.into(), negated };
    [
        tail(
            vec![Match::Source(passthrough.clone()), loopback.clone()],
            Target::Return,
            format!(
                "prevent traffic loops by ensuring traffic from the sidecar proxy (using {passthrough}) to \
                 loopback interface is not redirected again"
            ),
        ),
        tail(
            vec![
                TCP,
                loopback.clone(),
                Match::Destination { net: localhost.clone(), negated: true },
                owner(false),
            ],
            Target::Jump(OwnChain::InboundRedirect),
            format!(
                "redirect outbound TCP traffic destined for loopback interface, but not targeting address \
                 {localhost}, and owned by UID {uid} (kuma-dp user) to KUMA_MESH_INBOUND_REDIRECT chain for \
                 proper handling"
            ),
        ),
        tail(
            vec![TCP, loopback, owner(true)],
            Target::Return,
            format!(
                "return outbound TCP traffic destined for loopback interface, owned by any UID other than {uid} \
                 (kuma-dp user)"
            ),
        ),
        tail(
            vec![owner(false)],
            Target::Return,
            format!("return outbound traffic owned by UID {uid} (kuma-dp user)"),
        ),
    ]
}

fn redirect(port: Port) -> Vec<PlacedRule> {
    let why = format!("redirect TCP traffic to envoy (port {port})");
    vec![tail(vec![TCP], Target::Redirect(port), why)]
}

/// One rule for each match that the list needs; `why` is told "port 80", or "configured ports" where several share.
fn for_ports(ports: &[Port], target: &Target, why: impl Fn(&str) -> String) -> Vec<PlacedRule> {
    tcp_to(ports)
        .into_iter()
        .map(|(matches, port)| {
            let name = port.map_or_else(|| "configured ports".to_owned(), |port| format!("port {port}"));
            tail(matches, target.clone(), why(&name))
        })
        .collect()
}
