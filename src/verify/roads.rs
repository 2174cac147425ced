//! Who sends from where, and what cannot be sent at all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::budget::Budget;
use super::flows::Road;
use super::unrouted::Unrouted;
use super::{ground, routes};
use crate::apply::owners;
use crate::config::Config;
use crate::host::owners::OwnResolver;
use crate::host::{self, HostFacts};
use crate::plan::Family;
use crate::sys::user;

/// Who sends from where. Found out before there is a temporary interface, whose routes would be among the host's.
pub(super) struct Roads {
    /// An ordinary application's user.
    pub(super) app: Option<u32>,
    /// DNS servers of the host, where questions to any are captured.
    pub(super) resolvers: Vec<IpAddr>,
    /// Source addresses and interfaces that routes use.
    pub(super) departures: Vec<Road>,
    /// The source addresses alone.
    pub(super) departing: BTreeSet<IpAddr>,
    /// How an application's questions leave, by server.
    pub(super) servers: BTreeMap<IpAddr, Road>,
    /// The source address of an application's questions, by server.
    pub(super) asked_from: BTreeMap<IpAddr, IpAddr>,
    /// At which addresses this host is asked.
    pub(super) arrivals: BTreeSet<Road>,
    /// DNS servers on this host that ask others whose questions are redirected.
    pub(super) own_resolvers: Vec<OwnResolver>,
    /// What users cannot send at all.
    pub(super) unrouted: Unrouted,
}

impl Roads {
    pub(super) fn find(config: &Config, facts: &HostFacts, families: &[Family], budget: &Budget) -> Self {
        let dns = &config.redirect.dns;
        let known = if dns.enabled && dns.capture_all {
            host::resolvers(&dns.resolv_config_path).map(|(known, _)| known).unwrap_or_default()
        } else {
            facts.resolvers.clone()
        };
        let app = ground::app_uid(config, facts.sidecar_uid, exists);
        let users = (app.unwrap_or_default(), facts.sidecar_uid);
        let unrouted = Unrouted::find(config, families, users, &known, budget);
        let known = known.into_iter().map(|resolver| resolver.addr);
        let resolvers: Vec<IpAddr> =
            if dns.enabled && dns.capture_all { known.collect() } else { Vec::new() };
        let users = [app.unwrap_or_default(), facts.sidecar_uid, 0];
        let departures: Vec<Road> =
            families.iter().flat_map(|&family| routes::departures(family, &users, &facts.loopback)).collect();
        let departing = departures.iter().map(|road| road.address).collect();
        let all = facts.resolvers.iter().map(|resolver| resolver.addr).chain(resolvers.iter().copied());
        let road = |server| Some((server, routes::road(server, app.unwrap_or_default())?));
        let servers: BTreeMap<IpAddr, Road> = all.filter_map(road).collect();
        let asked_from = servers.iter().map(|(server, road)| (*server, road.address)).collect();
        let arrivals = routes::arrivals();
        let own: Vec<IpAddr> = host::own_addresses().into_iter().collect();
        let own_resolvers = owners::own_resolvers(config, facts, &own);
        Self { app, resolvers, departures, departing, servers, asked_from, arrivals, own_resolvers, unrouted }
    }
}

/// Whether this user namespace has a user, as far as it tells.
pub(super) fn exists(uid: u32) -> bool {
    user::is_mapped(uid).unwrap_or(true)
}
