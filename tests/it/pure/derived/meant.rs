//! Whether a probe is the one that its check speaks of.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use tproxy::config::Config;
use tproxy::config::values::Protocol;
use tproxy::host::HostFacts;
use tproxy::plan::{Family, is_link_local};
use tproxy::sidecar::Channel;
use tproxy::verify::Id;
use tproxy::verify::check::{Check, Goal, Probe, Way};

use super::{APP, about, comes_in, ends, goes_out};

/// The probe does what the words say, and nothing else takes its packet out of the redirection.
pub(super) fn is_meant(
    check: &Check,
    config: &Config,
    facts: &HostFacts,
    family: Family,
) -> Result<(), TestCaseError> {
    let (_, words) = about(check);
    let (out, into) = (&config.redirect.outbound, &config.redirect.inbound);
    let ends = ends(family);
    let sent = match &check.probe {
        Probe::Connect { uid, to, .. }
        | Probe::Datagram { uid, to, .. }
        | Probe::Passthrough { uid, to, .. } => Some((*uid, *to)),
        Probe::Again { then, to, .. } => Some((*then, *to)),
        Probe::Arrive { to, .. } | Probe::Guest { to, .. } => Some((0, *to)),
        Probe::NoRoute { .. } | Probe::Nothing(_) => None,
    };
    if let Some((_, to)) = sent {
        prop_assert_eq!(to.is_ipv4(), family == Family::V4);
        prop_assert_ne!(to.port(), 0);
    }
    prop_assert!(!check.target.is_empty() && !check.expected.is_empty());
    match (check.id, &check.probe) {
        (Id::Outbound | Id::Dns, probe) if words.starts_with("guest on ") => {
            let dns = check.id == Id::Dns;
            prop_assert_eq!(check.goal, if dns { Goal::Dns } else { Goal::Port(Channel::Outbound) });
            is_of_a_guest(probe, words.trim_start_matches("guest on "), ends.far)?;
        }
        (Id::Outbound, Probe::Connect { uid, to, way, .. }) => {
            prop_assert_eq!((*uid, to.ip()), (APP, ends.far));
            prop_assert_eq!(check.goal, if out.enabled { Goal::Port(Channel::Outbound) } else { Goal::Past });
            prop_assert_eq!(*way == Way::Route, out.enabled, "what is not to be redirected is bound");
            prop_assert!(goes_out(config, to.port()));
        }
        (Id::Inbound, Probe::Arrive { from, to }) => {
            prop_assert_eq!((*from, to.ip()), (ends.there, ends.here));
            prop_assert_eq!(check.goal, if into.enabled { Goal::Port(Channel::Inbound) } else { Goal::Past });
            prop_assert!(comes_in(config, to.port()));
        }
        (Id::Inbound, Probe::Nothing(_)) => {
            let excluded = into.exclude_ports_for_ips.iter().any(|net| net.net().contains(&ends.there));
            prop_assert!(into.enabled && excluded);
        }
        (Id::Sidecar, Probe::Connect { uid, to, way, .. }) => {
            prop_assert_eq!((*uid, to.ip(), *way), (facts.sidecar_uid, ends.far, Way::Device));
            prop_assert!(goes_out(config, to.port()), "an app's would be redirected");
            prop_assert_eq!(check.goal, Goal::Past);
        }
        (Id::Own, Probe::Connect { uid, to, way, .. }) => {
            prop_assert_eq!((*uid, to.ip(), *way), (facts.sidecar_uid, ends.here, Way::Loopback));
            let excluded = out.exclude_ports_for_uids.iter().any(|exclusion| {
                (exclusion.uids.first..=exclusion.uids.last).contains(uid)
                    && exclusion.protocols.contains(&Protocol::Tcp)
                    && exclusion
                        .ports
                        .iter()
                        .any(|range| (range.first.get()..=range.last.get()).contains(&to.port()))
            });
            let arrives = out.enabled && !excluded;
            prop_assert_eq!(check.goal, if arrives { Goal::Port(Channel::Inbound) } else { Goal::Past });
        }
        (Id::Localhost, Probe::Connect { uid, to, way, .. }) => {
            prop_assert_eq!((*uid, *way), (APP, Way::Loopback));
            prop_assert!(to.ip().is_loopback() || to.ip() == ends.here, "{}", to);
            prop_assert_eq!(check.goal, Goal::Past);
        }
        (Id::Passthrough, Probe::Passthrough { uid, source, to }) => {
            prop_assert_eq!((*uid, to.ip()), (facts.sidecar_uid, ends.here));
            prop_assert_eq!(source.to_string(), if family == Family::V4 { "127.0.0.6" } else { "::6" });
            prop_assert_eq!(check.goal, Goal::Past);
        }
        (Id::Dns, Probe::Nothing(why)) if words == "resolv.conf" => {
            prop_assert!(!config.redirect.dns.capture_all);
            prop_assert_eq!(why, &format!("resolv.conf lists no {family} DNS server"));
        }
        (Id::Dns, Probe::Datagram { uid, to, .. }) => {
            let excluded = out.exclude_ports_for_ips.iter().any(|net| net.net().contains(&to.ip()));
            let goal = if excluded || is_link_local(to.ip()) { Goal::Past } else { Goal::Dns };
            prop_assert_eq!((*uid, to.port(), to.ip().to_string(), check.goal), (APP, 53, words, goal));
        }
        (Id::DnsSidecar, Probe::Again { first, then, to }) => {
            prop_assert!(!config.redirect.dns.skip_conntrack_zone_split);
            prop_assert_eq!((*first, *then, to.port(), check.goal), (APP, facts.sidecar_uid, 53, Goal::Past));
            prop_assert_eq!(to.ip().to_string(), words);
        }
        (Id::DnsSidecar, Probe::Datagram { uid, to, .. }) => {
            prop_assert!(config.redirect.dns.skip_conntrack_zone_split);
            prop_assert_eq!((*uid, to.port(), check.goal), (facts.sidecar_uid, 53, Goal::Past));
            prop_assert_eq!(to.ip().to_string(), words);
        }
        (Id::Exclusion, _) => return is_left_alone(check, config, family),
        other => prop_assert!(false, "{:?}", other),
    }
    Ok(())
}

/// The same of what the configuration excludes.
fn is_left_alone(check: &Check, config: &Config, family: Family) -> Result<(), TestCaseError> {
    let (_, words) = about(check);
    let (out, ends) = (&config.redirect.outbound, ends(family));
    let named = |prefix: &str| words.strip_prefix(prefix).map(str::to_owned);
    if let Some((interface, net)) = named("guests on ").as_deref().and_then(|words| words.split_once(" to "))
    {
        let into = &config.redirect.inbound;
        prop_assert_eq!(
            check.goal,
            if into.enabled && !into.exclude_forwarded { Goal::Port(Channel::Inbound) } else { Goal::Past }
        );
        let Probe::Guest { to, .. } = &check.probe else {
            prop_assert!(matches!(check.probe, Probe::Nothing(_)), "{:?}", check);
            return Ok(());
        };
        prop_assert!(is_within(to.ip(), net) && comes_in(config, to.port()));
        return is_of_a_guest(&check.probe, interface, to.ip());
    }
    prop_assert_eq!(check.goal, Goal::Past);
    match (check.id, &check.probe) {
        (Id::Exclusion, Probe::Connect { uid, to, .. }) if *uid == APP => {
            if words.starts_with("app over TCP") {
                prop_assert_eq!(*to, SocketAddr::new(ends.far, 53));
            } else if let Some(port) = named("app to outbound port ") {
                prop_assert_eq!((to.ip(), to.port().to_string()), (ends.far, port));
            } else if words == "app to a link-local address" {
                prop_assert!(is_link_local(to.ip()) && goes_out(config, to.port()), "{}", to);
            } else if let Some(net) = named("app to excluded address ") {
                prop_assert!(is_within(to.ip(), &net) && goes_out(config, to.port()), "{}", to);
            } else {
                prop_assert_eq!((words.as_str(), to.ip()), ("app to a port that is not included", ends.far));
                prop_assert!(!goes_out(config, to.port()) && to.port() != 53);
            }
        }
        (Id::Exclusion, Probe::Arrive { from, to }) => {
            prop_assert_eq!(to.ip(), ends.here);
            if let Some(port) = named("outside to inbound port ") {
                prop_assert_eq!((*from, to.port().to_string()), (ends.there, port));
            } else if let Some(net) =
                words.strip_suffix(" to this host").and_then(|w| w.strip_prefix("excluded address "))
            {
                prop_assert!(is_within(*from, net) && comes_in(config, to.port()));
            } else {
                prop_assert_eq!(
                    (words.as_str(), *from),
                    ("outside to a port that is not included", ends.there)
                );
                prop_assert!(!comes_in(config, to.port()));
            }
        }
        (Id::Exclusion, Probe::Datagram { uid, to, .. }) if words == "app to a link-local DNS server" => {
            prop_assert!(is_link_local(to.ip()) && (*uid, to.port()) == (APP, 53), "{}", to);
        }
        (Id::Exclusion, Probe::Connect { uid, to, .. } | Probe::Datagram { uid, to, .. }) => {
            let udp = matches!(check.probe, Probe::Datagram { .. });
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let is_it = out.exclude_ports_for_uids.iter().any(|exclusion| {
                (exclusion.uids.first..=exclusion.uids.last).contains(uid)
                    && exclusion.protocols.contains(&protocol)
                    && exclusion.ports.iter().any(|range| {
                        words.ends_with(&format!(" to port {range}"))
                            && (range.first.get()..=range.last.get()).contains(&to.port())
                    })
            });
            prop_assert!(is_it && words.starts_with(&format!("UID {uid} over {protocol} ")), "{}", words);
        }
        (Id::Exclusion, Probe::Nothing(_)) => {
            let forwarded = words == "outside to other hosts, by way of this one";
            prop_assert!(
                forwarded || words.contains("fe8"),
                "only addresses of a link are nobody's: {}",
                words
            );
        }
        other => prop_assert!(false, "{:?}", other),
    }
    Ok(())
}

/// A guest sends it, exactly where there can be one.
fn is_of_a_guest(probe: &Probe, on: &str, address: IpAddr) -> Result<(), TestCaseError> {
    match probe {
        Probe::Guest { interface, to, .. } => {
            prop_assert_eq!((interface.as_str(), to.ip()), (on, address));
            prop_assert!(on.len() > 1 && on.ends_with('+'), "{}", on);
        }
        Probe::Nothing(why) => {
            prop_assert!(
                !on.ends_with('+') || "tpv".starts_with(on.trim_end_matches('+')),
                "{}: {}",
                on,
                why
            );
        }
        other => prop_assert!(false, "{:?}", other),
    }
    Ok(())
}

fn is_within(addr: IpAddr, net: &str) -> bool {
    let net = net.parse().unwrap_or_else(|_| ipnet::IpNet::from(net.parse::<IpAddr>().expect("an address")));
    net.contains(&addr)
}
