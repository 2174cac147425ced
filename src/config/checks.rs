//! What has to hold between settings, and what is most likely not meant.

use std::time::Duration;

use super::field::Field;
use super::layers::Work;
use super::origin::Origin;
use super::settings::SETTINGS;
use super::values::{Cidr, Port};

/// Adds every problem and warning that no value has on its own.
pub(super) fn run(work: &mut Work) {
    capture_all(work);
    ports(work);
    programs(work);
    chosen_and_excluded(work);
    host_bits(work);
    let pause = work.config.retry.sleep_between_retries;
    if !pause.is_zero() && pause < Duration::from_millis(1) {
        let naming = work.sources.of("retry.sleepBetweenRetries").naming("retry.sleepBetweenRetries");
        work.warnings.push(format!(
            "{naming} is {}, because a number without a unit counts nanoseconds; write 2s for two seconds",
            super::duration::show(pause)
        ));
    }
}

/// Capturing all DNS turns DNS redirection on, whatever else was said.
fn capture_all(work: &mut Work) {
    let dns = &mut work.config.redirect.dns;
    if !dns.capture_all || dns.enabled {
        return;
    }
    dns.enabled = true;
    let origin = work.sources.of("redirect.dns.enabled");
    if origin != Origin::Default {
        let all = work.sources.of("redirect.dns.captureAll").naming("redirect.dns.captureAll");
        let naming = origin.naming("redirect.dns.enabled");
        work.warnings.push(format!("{naming} is false, but {all} is true and turns DNS redirection on"));
    }
    work.sources.set("redirect.dns.enabled", Origin::Implied("redirect.dns.captureAll"));
}

/// The sidecar cannot listen twice on one port, and a redirect to a listener of the wrong kind breaks traffic.
fn ports(work: &mut Work) {
    let redirect = &work.config.redirect;
    let all: [(&str, Port); 3] = [
        ("redirect.inbound.port", redirect.inbound.port),
        ("redirect.outbound.port", redirect.outbound.port),
        ("redirect.dns.port", redirect.dns.port),
    ];
    let mut left = all.into_iter().filter(|(key, _)| !work.unsettled.contains(key)).collect::<Vec<_>>();
    while let Some((key, port)) = left.first().copied() {
        let same = left.iter().filter(|(_, other)| *other == port).map(|(key, _)| *key).collect::<Vec<_>>();
        if same.len() > 1 {
            let named = same.iter().map(|key| work.sources.of(key).naming(key)).collect::<Vec<_>>();
            work.problems.push(format!(
                "{} are the same port, {port}; each listener of the sidecar needs a port of its own",
                named.join(" and ")
            ));
        }
        left.retain(|(other, other_port)| *other != key && *other_port != port);
    }
}

/// Half a family's programs would mean a guess about the other half.
fn programs(work: &mut Work) {
    if work.unsettled.contains("iptablesExecutables") {
        return;
    }
    let mut programs = work.config.iptables_executables.clone();
    let given = programs.each().map(|(name, path)| (name, path.is_some()));
    for family in [&given[..3], &given[3..]] {
        let count = family.iter().filter(|(_, given)| *given).count();
        if count == 0 || count == 3 {
            continue;
        }
        let pick = |wanted: bool| {
            family.iter().filter(|(_, given)| *given == wanted).map(|(name, _)| *name).collect::<Vec<_>>()
        };
        let (there, missing) = (pick(true), pick(false));
        let all = family.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let place = |name: &&str| {
            let origin = work.sources.of(&format!("iptablesExecutables.{name}"));
            format!("{name} ({origin})")
        };
        let there = there.iter().map(place).collect::<Vec<_>>().join(" and ");
        work.problems.push(format!(
            "iptablesExecutables has {there} but not {}; give all of {all} or none of them",
            missing.join(" and "),
        ));
    }
}

/// With a choice of ports, exclusions are not looked at.
fn chosen_and_excluded(work: &mut Work) {
    let redirect = &work.config.redirect;
    let both = [
        ("inbound", &redirect.inbound.include_ports, &redirect.inbound.exclude_ports),
        ("outbound", &redirect.outbound.include_ports, &redirect.outbound.exclude_ports),
    ];
    for (direction, include, exclude) in both {
        if !include.is_empty() && !exclude.is_empty() {
            let key = format!("redirect.{direction}.excludePorts");
            let naming = work.sources.of(&key).naming(&key);
            work.warnings.push(format!(
                "{naming} has no effect, because redirect.{direction}.includePorts already names the only ports \
                 that are redirected"
            ));
        }
    }
}

/// The kernel masks what stands behind the prefix; whoever wrote it may have meant one address.
fn host_bits(work: &mut Work) {
    for setting in SETTINGS {
        let (networks, single): (Vec<Cidr>, bool) = match setting.field {
            Field::Networks(place) => (place(&mut work.config).clone(), true),
            Field::Bridges(place) => {
                (place(&mut work.config).iter().map(|bridge| bridge.network.clone()).collect(), false)
            }
            _ => continue,
        };
        for cidr in networks.iter().filter(|cidr| cidr.has_host_bits()) {
            let naming = work.sources.of(setting.key).naming(setting.key);
            let (net, addr) = (cidr.net().trunc(), cidr.net().addr());
            let one = if single { format!("; write {addr} for the one address") } else { String::new() };
            work.warnings.push(format!("{cidr} in {naming} is the whole network {net} to the kernel{one}"));
        }
    }
}
