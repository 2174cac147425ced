//! What users cannot send at all. The kernel looks for a route and a source address before any rule of OUTPUT sees a
//! packet, so a redirection comes too late where there is none: the application gets an error. Probes have a route of
//! their own and never meet that, so it is asked before there is one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::budget::{Budget, Stage};
use super::check::{Check, Goal, Id, Probe};
use super::derive::DNS;
use super::ground::is_excluded;
use super::probe::unspecified;
use super::routes::anywhere;
use crate::config::Config;
use crate::config::values::Protocol;
use crate::host::Resolver;
use crate::plan::Family;
use crate::sidecar::Channel;
use crate::sys::netlink::rules;
use crate::sys::{signal, user};

/// So many users are tried for whom routing rules were written.
const USERS: usize = 8;

/// How long an address of IPv6 may take to be used, which it is not while the kernel looks for another host that has it.
const TENTATIVE: Duration = Duration::from_millis(1500);

/// So soon that is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// Whose packets end where.
#[derive(Debug, Default)]
pub struct Unrouted {
    /// Why a user's questions to a server are not sent.
    servers: BTreeMap<(IpAddr, u32), String>,
    /// Users who cannot send a question to any server.
    cut_off: BTreeSet<u32>,
    /// Why a user's packets to networks beyond this host's own are not sent.
    beyond: BTreeMap<(Family, u32), String>,
    /// An ordinary application's user.
    app: u32,
    /// Users for whom routing rules were written.
    others: Vec<(Family, u32)>,
}

impl Unrouted {
    /// Asks for an ordinary application's user, the sidecar's, and those whom routing rules (`ip rule … uidrange`) name.
    pub fn find(
        config: &Config,
        families: &[Family],
        (app, sidecar): (u32, u32),
        resolvers: &[Resolver],
        budget: &Budget,
    ) -> Self {
        let patience = budget.until(Stage::Preparing, TENTATIVE);
        let others = named_by_rules(config, families, &[app, sidecar]);
        let users: BTreeSet<u32> = others.iter().map(|(_, uid)| *uid).chain([app, sidecar]).collect();
        let mut found = Self { app, others, ..Self::default() };
        for &uid in &users {
            let mut reached = false;
            for resolver in resolvers {
                match refusal(end(resolver), uid, budget, patience) {
                    Some(why) => {
                        found.servers.entry((resolver.addr, uid)).or_insert(why);
                    }
                    None => reached = true,
                }
            }
            if !reached && !resolvers.is_empty() {
                found.cut_off.insert(uid);
            }
            for &family in families {
                let refused: Option<Vec<String>> = anywhere(family)
                    .into_iter()
                    .map(|to| refusal(Ok(SocketAddr::new(to, DNS)), uid, budget, patience))
                    .collect();
                if let Some(why) = refused.and_then(|all| all.into_iter().next()) {
                    found.beyond.insert((family, uid), why);
                }
            }
        }
        found
    }

    /// Lets checks that ask a server say what their user would see, and adds what no probe tells of.
    pub fn tell(&self, config: &Config, families: &[Family], checks: &mut Vec<Check>) {
        for check in checks.iter_mut() {
            self.ask(check);
        }
        for &family in families {
            let others = self.others.iter().filter(|(of, _)| *of == family).map(|(_, uid)| *uid);
            for uid in [self.app].into_iter().chain(others) {
                checks.extend(self.untested(config, family, uid));
            }
        }
        // Those of a family and of a kind belong together.
        checks.sort_by_key(|check| (check.family, check.id));
    }

    /// What becomes of a question to a server.
    fn ask(&self, check: &mut Check) {
        let (uid, to) = match check.probe {
            Probe::Datagram { uid, to, .. } => (uid, to),
            Probe::Again { first, then, to } => {
                if self.servers.contains_key(&(to.ip(), first)) {
                    check.probe = Probe::Datagram { uid: then, to, from: None };
                }
                (then, to)
            }
            _ => return,
        };
        if let Some(why) = self.servers.get(&(to.ip(), uid)) {
            let to = to.ip();
            check.probe = if self.cut_off.contains(&uid) {
                Probe::NoRoute { uid, to, why: why.clone() }
            } else {
                // The C library goes on to the next server.
                Probe::Nothing(no_route(to, uid, why))
            };
        }
    }

    /// What a user cannot send where no check is about that.
    fn untested(&self, config: &Config, family: Family, uid: u32) -> Vec<Check> {
        let redirect = &config.redirect;
        let mut found = Vec::new();
        let mut add = |id: Id, to: String, goal: Goal, why: String| {
            let who = if uid == self.app { "app".to_owned() } else { format!("UID {uid}") };
            let (target, expected) = (format!("{who} to {to}"), "is redirected to the sidecar".to_owned());
            found.push(Check { id, family, target, probe: Probe::Nothing(why), goal, expected });
        };
        // What is true of every application is said once.
        let is_said = |of_app: bool| uid != self.app && of_app;
        if let Some(why) = self.beyond.get(&(family, uid))
            && redirect.outbound.enabled
            && !is_said(self.beyond.contains_key(&(family, self.app)))
        {
            let why =
                format!("UID {uid} has no route there ({why}): a connection ends before any rule sees it");
            let to = "addresses beyond this host's networks".to_owned();
            add(Id::Outbound, to, Goal::Port(Channel::Outbound), why);
        }
        if uid == self.app || !redirect.dns.enabled {
            return found;
        }
        for ((server, user), why) in &self.servers {
            let is_new = !is_said(self.servers.contains_key(&(*server, self.app)));
            if *user == uid && family.holds((*server).into()) && is_new {
                add(Id::Dns, format!("DNS server {server}"), Goal::Dns, no_route(*server, uid, why));
            }
        }
        found
    }
}

/// In words.
pub(super) fn no_route(to: IpAddr, uid: u32, why: &str) -> String {
    format!("UID {uid} cannot send to {to} ({why}): a question ends before any rule sees it")
}

/// Users whose packets routing rules lead elsewhere, whom the configuration does not leave alone: of each range the
/// first and the last.
fn named_by_rules(config: &Config, families: &[Family], but: &[u32]) -> Vec<(Family, u32)> {
    let mut found = Vec::new();
    for &family in families {
        let rules = rules::by_user(family).unwrap_or_default();
        let ends = rules.iter().flat_map(|rule| [rule.first, rule.last]).filter(|uid| {
            !but.contains(uid)
                && *uid < u32::MAX - 1
                && !is_excluded(config, *uid, Protocol::Udp, DNS)
                && user::is_mapped(*uid).unwrap_or(true)
        });
        let ends: BTreeSet<u32> = ends.collect();
        found.extend(ends.into_iter().take(USERS).map(|uid| (family, uid)));
    }
    found
}

/// Where a question to a server of resolv.conf goes; or why that is nowhere.
fn end(resolver: &Resolver) -> Result<SocketAddr, String> {
    let IpAddr::V6(six) = resolver.addr else { return Ok(SocketAddr::new(resolver.addr, DNS)) };
    let scope = match &resolver.zone {
        None => 0,
        Some(zone) => if_nametoindex(zone.as_str())
            .ok()
            .or_else(|| zone.parse().ok())
            .ok_or_else(|| format!("there is no interface {zone}"))?,
    };
    Ok(SocketAddrV6::new(six, DNS, 0, scope).into())
}

/// Why a user's datagram does not get as far as to the rules. Connecting a UDP socket looks for route and source address
/// as sending does, and sends nothing.
fn refusal(to: Result<SocketAddr, String>, uid: u32, budget: &Budget, patience: Instant) -> Option<String> {
    let to = match to {
        Ok(to) => to,
        Err(why) => return Some(why),
    };
    loop {
        let ask = || {
            let udp = UdpSocket::bind(SocketAddr::new(unspecified(to.ip()), 0))?;
            udp.connect(to)?;
            udp.local_addr()
        };
        // Who cannot be that user has no answer either.
        let asked: io::Result<SocketAddr> = user::run_as(uid, ask).ok()?;
        let error = match asked {
            Ok(local) if local.ip() != Ipv4Addr::UNSPECIFIED => return None,
            Ok(_) => return Some("this host has no source address for it".to_owned()),
            Err(error) => error,
        };
        let errno = Errno::from_raw(error.raw_os_error()?);
        let again = errno == Errno::EADDRNOTAVAIL && to.is_ipv6() && budget.is_before(patience);
        if again && signal::sleep(PAUSE).is_ok() {
            continue;
        }
        return is_of_routes(errno).then(|| errno.desc().to_owned());
    }
}

/// Whether it says something of routes or addresses, and not of a lack of sockets or memory. EINVAL is that of a
/// blackhole, and of a link-local address without its link; EACCES of a route that prohibits.
fn is_of_routes(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENETUNREACH
            | Errno::EHOSTUNREACH
            | Errno::ENETDOWN
            | Errno::ENODEV
            | Errno::EINVAL
            | Errno::EACCES
            | Errno::EADDRNOTAVAIL
            | Errno::EAFNOSUPPORT
    )
}
