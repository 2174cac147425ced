//! From configuration to report.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;

use super::budget::{Budget, NO_TIME, Stage};
use super::check::{Check, Goal, Id, Method, Outcome, Probe, Reached, Report, Status, Way};
use super::derive::{self, Sources};
use super::elsewhere;
use super::flows::{ProbeRoad, Road, Stand};
use super::ground::{self, Dice, Ends, Taken};
use super::guests;
use super::judge::Bench;
use super::lab::{self, Lab};
use super::loopback;
use super::others::{self, Asked};
use super::probe::Field;
use super::queue::{self, Patience};
use super::roads::{Roads, exists};
use super::routes;
use super::routing;
use super::rules::{self, Look};
use super::settle;
use super::stand_in;
use super::witness;
use crate::apply::doors::{self, Stranger};
use crate::backend::nftables::lower::{NAT_FIRST, NAT_LAST};
use crate::config::values::IpFamilyMode;
use crate::config::{Config, Written, install_command};
use crate::exit::{Exit, Failure};
use crate::host::{self, HostFacts, Ipv6Support};
use crate::plan::Family;
use crate::sidecar::Sidecar;
use crate::sidecar::token::{Token, Tokens};
use crate::status::ahead::IPTABLES;
use crate::status::meets::{self, look::Installed};
use crate::sys::rights::{self, Right};
use crate::sys::{netlink, signal};

/// What it takes to make a pair of interfaces, and to be other users.
pub(super) const RIGHTS: [Right; 4] = [Right::NetAdmin, Right::NetRaw, Right::SetUid, Right::SysAdmin];

/// Finds out whether traffic goes where a configuration says, with packets that do not leave this host. Needs root.
/// What there is no time for is not tested. `written` is what the command to run next may refer to.
///
/// # Errors
/// Nothing could be tested at all.
pub fn run(
    config: &Config,
    facts: &HostFacts,
    written: Option<&Written>,
    budget: &Budget,
) -> Result<Report, Failure> {
    let token = Token::random();
    let mut dice = Dice::new(token.seed());
    let families: Vec<Family> = match config.ip_family_mode {
        IpFamilyMode::DualStack if facts.ipv6 == Ipv6Support::Available => Family::BOTH.to_vec(),
        _ => vec![Family::V4],
    };
    lab::wait_for_the_last_one(budget);
    let in_use = in_use();
    let roads = Roads::find(config, facts, &families, budget);
    // Before there are any of our own.
    let tied = if config.redirect.outbound.enabled {
        routing::tied(&families, facts.sidecar_uid, &facts.loopback)
    } else {
        Vec::new()
    };
    if !host::is_up(&facts.loopback) {
        let down = Err(loopback::is_down(&facts.loopback));
        let checks = checks(config, facts, &in_use, &roads, &families, &down, &mut dice);
        let outcomes = checks.into_iter().map(|check| loopback::judge(check, &facts.loopback)).collect();
        return Ok(Report { method: Method::Listeners, outcomes });
    }
    let lab = make_lab(config, &in_use, &families, &mut dice, budget);
    let mut checks = checks(config, facts, &in_use, &roads, &families, &lab, &mut dice);
    if let Ok(lab) = &lab {
        invite(lab, &mut checks, &in_use, budget);
    }
    let used = lab.iter().flat_map(|lab| lab.ends.values().flatten());
    let used = used.flat_map(Ends::networks);
    let and_ours =
        Taken { networks: in_use.networks.iter().copied().chain(used).collect(), ..in_use.clone() };
    let guests = guests::make(config, &and_ours, &families, &mut checks, &mut dice, budget);

    let mut holders = stand_in::holders(config, &families, facts.sidecar_uid);
    let listening = if holders.is_empty() {
        stand_in::listen(config, facts.sidecar_uid, &families, lab.as_ref().ok(), &guests)?
    } else {
        None
    };
    // In the sidecar's place there is nobody else.
    let strangers = if listening.is_some() { Vec::new() } else { doors::strangers(config, facts, &families) };
    // Whoever else listens there, what comes is theirs.
    holders.extend(strangers.iter().map(|of| ((of.family, of.port), vec![of.uid])));
    let method = if listening.is_some() { Method::Listeners } else { Method::Counters };
    let before = if method == Method::Counters { look(config, budget, Stage::Preparing) } else { None };
    let tokens = Arc::new(Tokens::new(token, destinations(&checks)));
    let sidecar = match listening {
        Some(ports) => {
            Some(Sidecar::start(ports, tokens.clone()).map_err(|error| stand_in::refused(&error))?)
        }
        None => None,
    };
    let patience = Patience::new(budget, method);
    let field = Field {
        lab: lab.as_ref().ok(),
        guests: &guests,
        loopback: &facts.loopback,
        own: &in_use.addresses,
        token,
        sidecar: facts.sidecar_uid,
        dns_port: config.redirect.dns.port.get(),
        inbound_port: config.redirect.inbound.port.get(),
        tokens: &tokens,
        method,
        sound: before.as_ref().is_some_and(Look::is_sound),
        following: AtomicBool::new(false),
        patience: &patience,
        busy: Mutex::default(),
        knocking: Mutex::default(),
        flows: Mutex::default(),
        unfinished: Mutex::default(),
    };
    let reached = send_all(&strangers, &field, &checks);
    let flows = field.flows.into_inner().unwrap_or_default();
    let unfinished = field.unfinished.into_inner().unwrap_or_default();
    drop(sidecar);
    let after = look(config, budget, Stage::Explaining);
    let labs = || lab.iter().chain(guests.values());
    settle::wait(unfinished, labs(), &flows, budget);
    let addresses = settle::addresses(labs());
    let probes = lab.as_ref().map(|lab| probing(lab, roads.app.unwrap_or_default())).unwrap_or_default();
    let is_missing = lab.is_err();
    drop((lab, guests));
    settle::forget(&flows, &addresses, budget);
    unless_stopped()?;

    for complaint in after.iter().flat_map(Look::complaints).chain(tied) {
        tracing::warn!("{complaint}");
    }
    let native = after.as_ref().is_some_and(Look::is_native);
    let install = install_command(config, written);
    let bench = Bench { config, method, holders, sidecar: facts.sidecar_uid, native, install };
    let judged = checks.into_iter().zip(reached);
    let mut outcomes: Vec<Outcome> = judged.map(|(check, reached)| bench.judge(check, &reached)).collect();
    outcomes.extend(ipv6_left_out(config, facts, written));
    if let Some(after) = &after {
        if let Some(before) = &before {
            witness::confirm(&before.counted(), &after.counted(), &mut outcomes);
        }
        bench.explain_all(&mut outcomes, |id, family| after.about(id, family));
    }
    explain(config, facts, &families, &mut outcomes);
    outcomes.extend(beyond_probes(config, facts, roads, &families, probes, native, budget));
    unless_stopped()?;
    concluded(Report { method, outcomes }, is_missing)
}

fn make_lab(
    config: &Config,
    in_use: &Taken,
    families: &[Family],
    dice: &mut Dice,
    budget: &Budget,
) -> Result<Lab, String> {
    let wanted = families.iter().map(|&family| {
        let none = || format!("every {family} documentation address is in use here, or excluded");
        (family, ground::ends(config, in_use, family, dice).ok_or_else(none))
    });
    let wanted: BTreeMap<Family, Result<Ends, String>> = wanted.collect();
    Lab::make(ground::TEMPORARY, wanted, dice, budget).and_then(Lab::without_passage)
}

/// A run that is asked to stop has proved nothing, because what it had no time for may fail.
fn unless_stopped() -> Result<(), Failure> {
    let stopped = |number| {
        Failure::new(Exit::Failed, format!("stopped by {} before it was verified", signal::name(number)))
    };
    signal::interrupted().map_or(Ok(()), |number| Err(stopped(number)))
}

/// Lets checks say what neither rules nor probes tell. By now nobody listens in the sidecar's place.
fn explain(config: &Config, facts: &HostFacts, families: &[Family], outcomes: &mut [Outcome]) {
    elsewhere::explain(outcomes, &doors::unheard(config, facts, families));
    routing::explain(outcomes, &facts.loopback);
}

/// The report, unless nothing at all was proved. `is_missing`: there was no place for probes to go to.
fn concluded(report: Report, is_missing: bool) -> Result<Report, Failure> {
    // Traffic that stays on loopback proves nothing about redirection.
    let proved = |outcome: &Outcome| outcome.status == Status::Pass && outcome.check.id != Id::Localhost;
    if report.failed() || report.outcomes.iter().any(proved) {
        return Ok(report);
    }
    let untested = report.outcomes.into_iter().find(|outcome| outcome.status == Status::NotTested);
    let why = untested.map(|outcome| outcome.happened).unwrap_or_default();
    let nothing = Failure::new(Exit::Host, format!("nothing can be tested here: {why}"));
    Err(if is_missing { nothing.hint(rights::remedy(&RIGHTS)) } else { nothing })
}

/// Sends the probes of all checks.
fn send_all(strangers: &[Stranger], field: &Field<'_>, checks: &[Check]) -> Vec<Reached> {
    // Of what would come to somebody else's port nothing is sent: it would go round without end.
    let send = |check: &Check| {
        stand_in::held_by_a_stranger(strangers, check).unwrap_or_else(|| field.send(&check.probe))
    };
    let mut reached = queue::send_all(field.patience, checks, send);
    field.following.store(true, Ordering::Relaxed);
    for (check, reached) in checks.iter().zip(&mut reached) {
        let led_on = check.id == Id::DnsSidecar && matches!(reached, Reached::Astray(_));
        if led_on && field.patience.has_time() {
            *reached = field.send(&check.probe);
        }
    }
    reached
}

/// The roads that probes take.
fn probing(lab: &Lab, app: u32) -> BTreeMap<Family, ProbeRoad> {
    let road = |(family, ends): (&Family, &Result<Ends, String>)| {
        let Ends { here, there, far } = *ends.as_ref().ok()?;
        let road = Road { address: here, interface: lab.device.clone(), index: lab.index };
        Some((*family, ProbeRoad { road, far, there, app }))
    };
    lab.ends.iter().filter_map(road).collect()
}

/// What rules of others, and interfaces, do to what is promised where no probe goes.
fn beyond_probes(
    config: &Config,
    facts: &HostFacts,
    roads: Roads,
    families: &[Family],
    probes: BTreeMap<Family, ProbeRoad>,
    native: bool,
    budget: &Budget,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    if config.redirect.inbound.enabled {
        for &family in families {
            let bare = routes::without_address(family, &roads.departures, &roads.arrivals);
            outcomes.extend(bare.iter().map(|interface| others::without_address(family, interface)));
        }
    }
    let redirect = &config.redirect;
    let place = |first: bool| if first { NAT_FIRST } else { NAT_LAST };
    let stand = if native {
        let (outbound, inbound) = (&redirect.outbound, &redirect.inbound);
        Stand {
            outbound: place(outbound.insert_redirect_instead_of_append),
            inbound: place(inbound.insert_redirect_instead_of_append),
            dns: NAT_FIRST,
        }
    } else {
        Stand { outbound: IPTABLES, inbound: IPTABLES, dns: IPTABLES }
    };
    let by_marks = |family: &Family| !netlink::rules::is_local_table_first(*family).unwrap_or(true);
    let asked = Asked {
        config: config.clone(),
        sidecar: facts.sidecar_uid,
        loopback: (facts.loopback.clone(), if_nametoindex(facts.loopback.as_str()).unwrap_or(1)),
        own: roads.arrivals.iter().map(|road| road.address).collect(),
        stand,
        departures: roads.departures,
        arrivals: roads.arrivals.into_iter().filter(|road| !routes::is_scoped(road.address)).collect(),
        servers: roads.servers.into_iter().collect(),
        probes,
        families: families.to_vec(),
        by_marks: families.iter().copied().filter(by_marks).collect(),
    };
    let known = facts.clone();
    let judge = move |chains: Vec<crate::rules::model::Chain>| {
        let installed = Installed { config: &asked.config, facts: &known, families: &asked.families, native };
        let mut found = others::judge(&asked, &chains);
        found.extend(meets::look::judge(&installed, &chains).iter().map(others::meets_the_sidecar));
        found
    };
    let read = budget.within(Stage::Explaining, move || host::chains::all().map(judge));
    match read {
        Some(Ok(found)) => outcomes.extend(found),
        Some(Err(error)) => outcomes.push(others::unread(&error.to_string())),
        None => outcomes.push(others::unread(NO_TIME)),
    }
    outcomes
}

/// Looks at the rules. `None`: that cannot be done, or not in time.
fn look(config: &Config, budget: &Budget, stage: Stage) -> Option<Look> {
    let wanted = config.clone();
    match budget.within(stage, move || rules::look(&wanted)) {
        Some(Ok(look)) => Some(look),
        Some(Err(failure)) => {
            tracing::debug!("the rules could not be looked at: {failure}");
            None
        }
        None => {
            tracing::warn!("there was no time left to look at the rules for causes; 'tproxy status' does");
            None
        }
    }
}

fn in_use() -> Taken {
    let mut taken = Taken { ports: host::listening_tcp_ports().unwrap_or_default(), ..Taken::default() };
    for interface in getifaddrs().into_iter().flatten() {
        let ip = |storage: Option<nix::sys::socket::SockaddrStorage>| -> Option<IpAddr> {
            let storage = storage?;
            let four = storage.as_sockaddr_in().map(|four| four.ip().into());
            four.or_else(|| storage.as_sockaddr_in6().map(|six| six.ip().into()))
        };
        let Some(addr) = ip(interface.address) else { continue };
        taken.addresses.push(addr);
        let net = ip(interface.netmask).and_then(|mask| ipnet::IpNet::with_netmask(addr, mask).ok());
        taken.networks.extend(net);
    }
    taken
}

fn checks(
    config: &Config,
    facts: &HostFacts,
    taken: &Taken,
    roads: &Roads,
    families: &[Family],
    lab: &Result<Lab, String>,
    dice: &mut Dice,
) -> Vec<Check> {
    let app = roads.app.ok_or("there is no user here but the sidecar's and excluded ones");
    let Roads { resolvers, departing, asked_from, own_resolvers, .. } = roads;
    let sources = Sources { config, facts, resolvers, taken, app, departing, own_resolvers, asked_from };
    let of_family = |&family: &Family| {
        let ends = match lab {
            Ok(lab) => match lab.ends.get(&family) {
                Some(Ok(ends)) => Ok(*ends),
                Some(Err(why)) => Err(why.as_str()),
                None => Err("the family was not set up"),
            },
            Err(why) => Err(why.as_str()),
        };
        derive::checks(sources, family, ends, dice)
    };
    let mut checks: Vec<Check> = families.iter().flat_map(of_family).collect();
    roads.unrouted.tell(config, families, &mut checks);
    for check in &mut checks {
        if let Probe::Connect { uid, .. } | Probe::Datagram { uid, .. } = check.probe
            && !exists(uid)
        {
            check.probe =
                Probe::Nothing(format!("this user namespace has no UID {uid}, so nobody here can be it"));
        }
    }
    checks
}

/// Puts somebody at the destinations that are not ours to choose.
fn invite(lab: &Lab, checks: &mut [Check], taken: &Taken, budget: &Budget) {
    let addr = |check: &Check| match &check.probe {
        Probe::Connect { to, way: Way::Device, .. }
        | Probe::Datagram { to, .. }
        | Probe::Again { to, .. } => Some(to.ip()),
        Probe::Arrive { from, .. } => Some(*from),
        _ => None,
    };
    let wanted =
        checks.iter().filter_map(addr).filter(|addr| !addr.is_loopback() && !taken.addresses.contains(addr));
    let invited = lab.invite(&wanted.collect(), budget);
    for check in checks {
        if let Some((addr, Err(why))) = addr(check).and_then(|addr| invited.get_key_value(&addr)) {
            check.probe = Probe::Nothing(format!("nobody can be put at {addr}: {why}"));
        }
    }
}

fn destinations(checks: &[Check]) -> BTreeSet<IpAddr> {
    let addresses = checks.iter().filter_map(|check| match &check.probe {
        Probe::Connect { to, .. }
        | Probe::Arrive { to, .. }
        | Probe::Passthrough { to, .. }
        | Probe::Guest { to, .. } => Some(to.ip()),
        _ => None,
    });
    addresses.collect()
}

/// A dual-stack configuration on a host without IPv6.
fn ipv6_left_out(config: &Config, facts: &HostFacts, written: Option<&Written>) -> Option<Outcome> {
    let Ipv6Support::Unavailable(why) = &facts.ipv6 else { return None };
    if config.ip_family_mode != IpFamilyMode::DualStack {
        return None;
    }
    let check = Check {
        id: Id::Outbound,
        family: Family::V6,
        target: "everything".to_owned(),
        probe: Probe::Nothing(why.clone()),
        goal: Goal::Past,
        expected: "is redirected as IPv4 is".to_owned(),
    };
    let meant = Config { ip_family_mode: IpFamilyMode::Ipv4, ..config.clone() };
    let written = written.cloned().map(|written| written.but("ipFamilyMode"));
    Some(Outcome {
        check,
        status: Status::NotTested,
        happened: why.clone(),
        evidence: Vec::new(),
        cause: None,
        next: Some(format!("if that is meant to be so: {}", install_command(&meant, written.as_ref()))),
    })
}
