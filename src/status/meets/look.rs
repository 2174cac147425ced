//! Reads what such rules are asked about, and asks.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::net::if_::if_nametoindex;

use crate::backend::Backend;
use crate::backend::nftables::lower::{NAT_FIRST, NAT_LAST};
use crate::config::Config;
use crate::config::values::Protocol;
use crate::host::{self, HostFacts};
use crate::plan::Family;
use crate::rules::model::{Action, Chain, Field, Test};
use crate::rules::nft::is_own_chain;
use crate::status::ahead::IPTABLES;
use crate::sys::netlink::rules as routing;
use crate::sys::{cgroup, socket_holders};
use crate::verify::flows::{Road, Stand};
use crate::verify::routes as roads;

use super::{Asked, Met, cgroups, routes};

/// What is or will be installed.
#[derive(Debug, Clone, Copy)]
pub struct Installed<'a> {
    /// What is redirected.
    pub config: &'a Config,
    /// The host.
    pub facts: &'a HostFacts,
    /// The redirected families.
    pub families: &'a [Family],
    /// Whether our rules are in a table of our own.
    pub native: bool,
}

impl<'a> Installed<'a> {
    /// By what way they come into the kernel.
    pub fn new(config: &'a Config, facts: &'a HostFacts, families: &'a [Family], backend: Backend) -> Self {
        Self { config, facts, families, native: backend == Backend::Nftables }
    }

    fn stand(&self) -> Stand {
        let own = |first: bool| if first { NAT_FIRST } else { NAT_LAST };
        let redirect = &self.config.redirect;
        if self.native {
            Stand {
                outbound: own(redirect.outbound.insert_redirect_instead_of_append),
                inbound: own(redirect.inbound.insert_redirect_instead_of_append),
                dns: NAT_FIRST,
            }
        } else {
            Stand { outbound: IPTABLES, inbound: IPTABLES, dns: IPTABLES }
        }
    }
}

/// What the rules of this host do to the sidecar.
pub fn judge(installed: &Installed<'_>, chains: &[Chain]) -> Vec<Met> {
    let mut found: Vec<Met> = Vec::new();
    for met in both_families(installed, chains) {
        // Many rules are the same for both.
        if !found.iter().any(|known| known.what == met.what) {
            found.push(met);
        }
    }
    found.sort_by_key(|met| !met.dead);
    found
}

fn both_families(installed: &Installed<'_>, chains: &[Chain]) -> Vec<Met> {
    let Installed { config, facts, families, .. } = *installed;
    let mut found = routes::judge(config, facts.sidecar_uid, families);
    if config.redirect.outbound.enabled {
        found.extend(filters(config, facts.sidecar_uid, families));
    }
    if !chains.iter().any(may_drop) && !chains.iter().any(names_owners) {
        return found;
    }
    let about_owner = chains.iter().any(names_owners);
    let nobody = nobody(chains, facts.sidecar_uid);
    let departures: Vec<Road> = if about_owner {
        let of = |family: &Family| roads::departures(*family, &[nobody, facts.sidecar_uid], &facts.loopback);
        families.iter().flat_map(of).collect()
    } else {
        Vec::new()
    };
    let arrivals: Vec<Road> =
        roads::arrivals().into_iter().filter(|road| !roads::is_scoped(road.address)).collect();
    let by_marks: Vec<Family> =
        families.iter().copied().filter(|family| routing::go_by_marks(*family).unwrap_or(false)).collect();
    let servers: Vec<IpAddr> = facts.resolvers.iter().map(|resolver| resolver.addr).collect();
    let asked = Asked {
        config,
        sidecar: facts.sidecar_uid,
        nobody,
        families,
        stand: installed.stand(),
        loopback: (&facts.loopback, if_nametoindex(facts.loopback.as_str()).unwrap_or(1)),
        departures: &departures,
        arrivals: &arrivals,
        servers: &servers,
        ports: &ports(config, facts.sidecar_uid),
        by_marks: &by_marks,
    };
    found.extend(super::judge(&asked, chains));
    found
}

/// What filters on control groups do. A kernel that does not tell has none that could be read.
fn filters(config: &Config, sidecar: u32, families: &[Family]) -> Vec<Met> {
    // A host can have thousands of control groups, and mostly none of these programs.
    if !cgroup::has_filters() {
        return Vec::new();
    }
    let ports = [config.redirect.outbound.port.get(), config.redirect.inbound.port.get()];
    let listeners = Family::BOTH
        .into_iter()
        .flat_map(|family| host::listeners(Protocol::Tcp, family).unwrap_or_default());
    let own = listeners.filter(|socket| socket.uid == sidecar && ports.contains(&socket.port));
    let holders = socket_holders(own.map(|socket| (socket.inode, socket.uid)));
    let processes: BTreeSet<u32> = holders.into_values().map(|holder| holder.pid).collect();
    let filtered = cgroup::filtered(&processes).unwrap_or_default();
    cgroups::judge(&filtered, &processes, families)
}

fn may_drop(chain: &Chain) -> bool {
    chain.called.is_some_and(|called| called.drops)
        || chain.rules.iter().any(|rule| rule.action == Action::Drop)
}

fn names_owners(chain: &Chain) -> bool {
    !is_own_chain(&chain.name) && chain.rules.iter().any(super::users::names_owner)
}

/// A user whom no rule names.
fn nobody(chains: &[Chain], sidecar: u32) -> u32 {
    let named = |uid: u32| {
        let names = |test: &Test| match test {
            Test::In { field: Field::User | Field::Group, spans, .. } => {
                spans.iter().any(|span| span.start() == span.end() && span.contains(&uid.into()))
            }
            _ => false,
        };
        chains.iter().flat_map(|chain| &chain.rules).any(|rule| rule.tests.iter().any(names))
    };
    let mut free = (60_000..61_000).rev().filter(|uid| *uid != sidecar);
    free.find(|uid| !named(*uid)).unwrap_or(60_999)
}

/// TCP ports that are redirected when they are asked for from outside, and on which somebody but the sidecar listens.
pub fn ports(config: &Config, sidecar: u32) -> Vec<u16> {
    let inbound = &config.redirect.inbound;
    if !inbound.enabled {
        return Vec::new();
    }
    let own = [config.redirect.outbound.port.get(), inbound.port.get()];
    let mut found = BTreeSet::new();
    for family in Family::BOTH {
        for socket in host::listeners(Protocol::Tcp, family).unwrap_or_default() {
            let excluded = inbound.exclude_ports.iter().any(|port| port.get() == socket.port);
            let theirs = socket.uid == sidecar || own.contains(&socket.port);
            if !socket.address.is_loopback() && !excluded && !theirs {
                found.insert(socket.port);
            }
        }
    }
    found.into_iter().collect()
}
