//! From configuration to report.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;

use super::check::{Check, Goal, Id, Method, Outcome, Probe, Reached, Report, Status, Way};
use super::derive::{self, Sources};
use super::ground::{self, Dice, Ends, Taken};
use super::guests;
use super::judge::{Bench, Holders};
use super::lab::Lab;
use super::probe::{Field, NO_TIME};
use super::rules::{self, Look};
use super::witness;
use crate::config::values::{IpFamilyMode, Protocol};
use crate::config::{Config, install_command};
use crate::exit::{Exit, Failure};
use crate::host::{self, HostFacts, Ipv6Support};
use crate::plan::Family;
use crate::sidecar::token::{Token, Tokens};
use crate::sidecar::{Channel, Port, Sidecar};
use crate::sys::netlink::sockets;
use crate::sys::user;

/// When no further probe is begun. The last ones take a few seconds more, and so does looking at the rules.
const PATIENCE: Duration = Duration::from_secs(10);

/// When preparations have to be done, of which there are many where a thousand addresses are excluded.
const PREPARATION: Duration = Duration::from_secs(4);

/// What it takes to make a pair of interfaces, and to be other users.
const CAPABILITIES: &str = "run it as root of the host or of the container whose traffic is redirected, with the \
    capabilities NET_ADMIN, NET_RAW, SETUID and SYS_ADMIN";

/// How long connections of probes may take to end.
const ENDING: Duration = Duration::from_secs(1);

/// Probes under way at the same time. They wait, mostly.
const WORKERS: usize = 64;

/// Finds out whether traffic goes where a configuration says, with packets that do not leave this host. Needs root.
///
/// # Errors
/// Nothing could be tested at all.
pub fn run(config: &Config, facts: &HostFacts) -> Result<Report, Failure> {
    let begun = Instant::now();
    let token = Token::random();
    let mut dice = Dice::new(token.seed());
    let families: Vec<Family> = match config.ip_family_mode {
        IpFamilyMode::DualStack if facts.ipv6 == Ipv6Support::Available => Family::BOTH.to_vec(),
        _ => vec![Family::V4],
    };
    let in_use = in_use();
    let wanted = families.iter().map(|&family| {
        let none = || format!("every {family} documentation address is in use here, or excluded");
        (family, ground::ends(config, &in_use, family, &mut dice).ok_or_else(none))
    });
    let wanted: BTreeMap<Family, Result<Ends, String>> = wanted.collect();
    let lab = Lab::make(ground::TEMPORARY, wanted, &mut dice);
    let mut checks = checks(config, facts, &in_use, &families, &lab, &mut dice);
    if let Ok(lab) = &lab {
        invite(lab, &mut checks, begun + PREPARATION);
    }
    let used = lab.iter().flat_map(|lab| lab.ends.values().flatten());
    let used = used.flat_map(|ends| [ends.here, ends.there, ends.far]).map(ipnet::IpNet::from);
    let and_ours =
        Taken { networks: in_use.networks.iter().copied().chain(used).collect(), ..in_use.clone() };
    let guests = guests::make(config, &and_ours, &families, &mut checks, &mut dice);

    let holders = holders(config, &families);
    let listening = if holders.is_empty() {
        listen(config, facts.sidecar_uid, &families, lab.as_ref().ok(), &guests)?
    } else {
        None
    };
    let method = if listening.is_some() { Method::Listeners } else { Method::Counters };
    let look = || {
        rules::look(config)
            .inspect_err(|failure| tracing::debug!("the rules could not be looked at: {failure}"))
            .ok()
    };
    let before = if method == Method::Counters { look() } else { None };
    let tokens = Arc::new(Tokens::new(token, destinations(&checks)));
    let sidecar = match listening {
        Some(ports) => Some(Sidecar::start(ports, tokens.clone()).map_err(|error| no_sidecar(&error))?),
        None => None,
    };
    let field = Field {
        lab: lab.as_ref().ok(),
        guests: &guests,
        loopback: &facts.loopback,
        own: &in_use.addresses,
        token,
        sidecar: facts.sidecar_uid,
        tokens: &tokens,
        method,
        sound: before.as_ref().is_some_and(Look::is_sound),
        until: begun + PATIENCE,
        busy: Mutex::default(),
        lost: AtomicUsize::new(0),
    };
    let reached = send_all(&field, &checks);
    drop(sidecar);
    settle(lab.iter().chain(guests.values()));
    let is_missing = lab.is_err();
    drop((lab, guests));

    let after = look();
    for complaint in after.iter().flat_map(Look::complaints) {
        tracing::warn!("{complaint}");
    }
    let native = after.as_ref().is_some_and(Look::is_native);
    let bench = Bench { config, method, holders, sidecar: facts.sidecar_uid, native };
    let judged = checks.into_iter().zip(reached);
    let mut outcomes: Vec<Outcome> = judged.map(|(check, reached)| bench.judge(check, &reached)).collect();
    outcomes.extend(ipv6_left_out(config, facts));
    if let Some(after) = &after {
        if let Some(before) = &before {
            witness::confirm(&before.counted(), &after.counted(), &mut outcomes);
        }
        explain(&bench, after, &mut outcomes);
    }
    let report = Report { method, outcomes };
    // Traffic that stays on loopback proves nothing about redirection.
    let proved = |outcome: &Outcome| outcome.status == Status::Pass && outcome.check.id != Id::Localhost;
    if report.failed() || report.outcomes.iter().any(proved) {
        return Ok(report);
    }
    let untested = report.outcomes.into_iter().find(|outcome| outcome.status == Status::NotTested);
    let why = untested.map(|outcome| outcome.happened).unwrap_or_default();
    let nothing = Failure::new(Exit::Host, format!("nothing can be tested here: {why}"));
    Err(if is_missing { nothing.hint(CAPABILITIES) } else { nothing })
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
    families: &[Family],
    lab: &Result<Lab, String>,
    dice: &mut Dice,
) -> Vec<Check> {
    let dns = &config.redirect.dns;
    let resolvers: Vec<IpAddr> = if dns.enabled && dns.capture_all {
        let known = host::resolvers(&dns.resolv_config_path).map(|(known, _)| known).unwrap_or_default();
        known.into_iter().map(|resolver| resolver.addr).collect()
    } else {
        Vec::new()
    };
    let exists = |uid| user::is_mapped(uid).unwrap_or(true);
    let app = ground::app_uid(config, facts.sidecar_uid, exists)
        .ok_or("there is no user here but the sidecar's and excluded ones");
    let sources = Sources { config, facts, resolvers: &resolvers, taken, app };
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
    families.iter().flat_map(of_family).collect()
}

/// Puts somebody at the destinations that are not ours to choose.
fn invite(lab: &Lab, checks: &mut [Check], until: Instant) {
    let addr = |check: &Check| match &check.probe {
        Probe::Connect { to, way: Way::Device, .. }
        | Probe::Datagram { to, .. }
        | Probe::Again { to, .. } => Some(to.ip()),
        Probe::Arrive { from, .. } => Some(*from),
        _ => None,
    };
    let wanted = checks.iter().filter_map(addr).filter(|addr| !addr.is_loopback());
    let invited = lab.invite(&wanted.collect(), until);
    for check in checks {
        if let Some((addr, Err(why))) = addr(check).and_then(|addr| invited.get_key_value(&addr)) {
            check.probe = Probe::Nothing(format!("nobody can be put at {addr}: {why}"));
        }
    }
}

/// Users who have the sidecar's ports. A socket of IPv6 may take IPv4 as well.
fn holders(config: &Config, families: &[Family]) -> Holders {
    let mut holders = Holders::new();
    let wanted = derive::sidecar_ports(config);
    for of in Family::BOTH {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            // A kernel that cannot tell is asked by trying to listen.
            for socket in sockets::waiting(of, protocol).unwrap_or_default() {
                if !wanted.iter().any(|(of, port)| *of == protocol && port.get() == socket.port) {
                    continue;
                }
                for &family in families.iter().filter(|family| **family == of || socket.both_families) {
                    holders.entry((family, socket.port)).or_default().push(socket.uid);
                }
            }
        }
    }
    holders
}

/// Listens in the sidecar's place; `None` if somebody does already. Nobody else can get through to these: they are on
/// loopback, and on the temporary interface.
fn listen(
    config: &Config,
    uid: u32,
    families: &[Family],
    lab: Option<&Lab>,
    guests: &BTreeMap<String, Lab>,
) -> Result<Option<Vec<Port>>, Failure> {
    let redirect = &config.redirect;
    let bind = || -> io::Result<Vec<Port>> {
        let mut ports = Vec::new();
        for &family in families {
            let localhost: IpAddr = match family {
                Family::V4 => Ipv4Addr::LOCALHOST.into(),
                Family::V6 => Ipv6Addr::LOCALHOST.into(),
            };
            let local = |port: crate::config::values::Port| SocketAddr::new(localhost, port.get());
            ports.push(Port::tcp(Channel::Outbound, uid, local(redirect.outbound.port), None)?);
            ports.push(Port::tcp(Channel::Inbound, uid, local(redirect.inbound.port), None)?);
            if redirect.dns.enabled {
                ports.push(Port::dns(uid, local(redirect.dns.port))?);
            }
            if let Some((lab, Ok(ends))) = lab.and_then(|lab| Some((lab, lab.ends.get(&family)?))) {
                let here = SocketAddr::new(ends.here, redirect.inbound.port.get());
                ports.push(Port::tcp(Channel::Inbound, uid, here, Some(&lab.device))?);
            }
            // What a guest sends is redirected to this host's address on the guest's interface.
            for guest in guests.values() {
                let Some(ends) = guest.ends_of(localhost) else { continue };
                let here = |port: crate::config::values::Port| SocketAddr::new(ends.here, port.get());
                let device = Some(guest.device.as_str());
                ports.push(Port::tcp(Channel::Outbound, uid, here(redirect.outbound.port), device)?);
                ports.push(Port::tcp(Channel::Inbound, uid, here(redirect.inbound.port), device)?);
                if redirect.dns.enabled {
                    ports.push(Port::dns(uid, here(redirect.dns.port))?);
                }
            }
        }
        Ok(ports)
    };
    match bind() {
        Ok(ports) => Ok(Some(ports)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(no_sidecar(&error)),
    }
}

fn no_sidecar(error: &io::Error) -> Failure {
    Failure::new(Exit::Host, format!("the sidecar's ports cannot be listened on in its place: {error}"))
        .hint("run it as root of the host or of the container whose traffic is redirected")
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

/// Sends them all, exclusions last: there may be a thousand of them, more than there is time for where each gets lost.
fn send_all(field: &Field, checks: &[Check]) -> Vec<Reached> {
    let mut order: Vec<usize> = (0..checks.len()).collect();
    order.sort_by_key(|at| checks.get(*at).is_some_and(|check| check.id == Id::Exclusion));
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Reached>>> = checks.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        while let Some(&at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (Some(check), Some(place)) = (checks.get(at), results.get(at)) else { continue };
            let reached = if field.has_time() {
                field.send(&check.probe)
            } else {
                Reached::Unknown(NO_TIME.to_owned())
            };
            tracing::debug!("{} {} {}: {reached:?}", check.family, check.id.name(), check.target);
            if let Ok(mut place) = place.lock() {
                *place = Some(reached);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(checks.len()) {
            // With fewer threads it takes longer.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
    });
    let nobody = || Reached::Unknown("nobody came to test it".to_owned());
    results.into_iter().map(|result| result.into_inner().ok().flatten().unwrap_or_else(nobody)).collect()
}

/// Waits until nobody here, such as a real sidecar, has a connection with an address of a temporary interface: what
/// it sent then, without the interface, would leave by another one.
fn settle<'a>(labs: impl Iterator<Item = &'a Lab>) {
    const PAUSE: Duration = Duration::from_millis(5);
    let ends = labs.flat_map(|lab| lab.ends.values().flatten());
    let own: Vec<IpAddr> = ends.flat_map(|ends| [ends.here, ends.there, ends.far]).collect();
    let deadline = Instant::now() + ENDING;
    let is_busy = |family: &Family| {
        let all = sockets::connections(*family).unwrap_or_default();
        all.iter().any(|(from, to)| own.contains(from) || own.contains(to))
    };
    while Family::BOTH.iter().any(is_busy) && Instant::now() < deadline {
        std::thread::sleep(PAUSE);
    }
}

/// A dual-stack configuration on a host without IPv6.
fn ipv6_left_out(config: &Config, facts: &HostFacts) -> Option<Outcome> {
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
    Some(Outcome {
        check,
        status: Status::NotTested,
        happened: why.clone(),
        evidence: Vec::new(),
        cause: None,
        next: Some(format!("if that is meant to be so: {}", install_command(&meant))),
    })
}

/// Lets failures say what the rules say.
fn explain(bench: &Bench, look: &Look, outcomes: &mut [Outcome]) {
    for outcome in outcomes.iter_mut().filter(|outcome| outcome.status == Status::Fail) {
        bench.explain(outcome, &look.about(&outcome.check));
    }
}
