//! DNS questions of sockets that were there before a change.
//!
//! The kernel translates the first datagram between two ends, and sends what follows the same way until it forgets
//! them. A program that keeps one socket for its questions would stay on the old way for as long as it asks. So after
//! a commit that changes what happens to questions, what the kernel knows of questions of this host is forgotten.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::backend::iptables::infer as iptables;
use crate::backend::iptables::typed::TypedRule;
use crate::backend::nftables::change::Wanted;
use crate::backend::nftables::infer as native;
use crate::backend::nftables::model::Table;
use crate::config::Config;
use crate::host;
use crate::plan::Family;
use crate::sys::netlink::conntrack::list::{Datagrams, datagrams, forget_all, is_empty};

use super::scene::{Goal, Scene};

const DNS: u16 = 53;
/// Zones of questions, see the plan's table `raw`.
const SIDECAR: u16 = 1;
const APPLICATION: u16 = 2;

/// Answers that were under way are looked for so often, in such steps.
const LOOKS: usize = 10;
const STEP: Duration = Duration::from_millis(20);

/// What happens to the questions of a family.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Redirected {
    /// The sidecar's port.
    port: u16,
    /// Whether they have zones of their own.
    zones: bool,
    /// Which servers' they are; `None`: all.
    servers: Option<BTreeSet<IpAddr>>,
    /// Whose are left alone, in words that are only compared.
    users: Vec<String>,
}

/// What was, and what is to be.
#[derive(Debug)]
pub struct DnsFlows {
    changed: Vec<(Family, Option<Redirected>, Option<Redirected>)>,
}

impl DnsFlows {
    /// Of a commit that brings the scene to the goal.
    pub fn new(scene: &Scene, goal: &Goal) -> Self {
        let table = scene.table();
        let wanted = goal.native.as_ref().map(Wanted::table);
        let changed = Family::BOTH.into_iter().filter_map(|family| {
            let before = redirected(scene.iptables.datagram_rules(family), table, family);
            let after = redirected(goal.datagram_rules(family), wanted, family);
            (before != after).then_some((family, before, after))
        });
        Self { changed: changed.collect() }
    }

    /// The commit was made.
    pub fn forget(&self) {
        let zones_changed = |(_, before, after): &(_, Option<Redirected>, Option<Redirected>)| matches!((before, after), (Some(before), Some(after)) if before.zones != after.zones);
        if self.changed.iter().any(zones_changed) {
            tracing::warn!(
                "DNS questions under way while conntrack zones change may stay without an answer; they are asked again"
            );
        }
        if self.changed.is_empty() || is_empty() {
            return;
        }
        let here = host::own_addresses();
        for (family, before, after) in &self.changed {
            if let Err(error) = forget(*family, before.as_ref(), after.as_ref(), &here) {
                tracing::warn!(
                    "programs that ask {family} DNS servers from sockets they keep may go on as before: what connection \
                     tracking knows of them cannot be forgotten ({error})"
                );
            }
        }
    }
}

fn redirected(rules: Vec<TypedRule>, table: Option<&Table>, family: Family) -> Option<Redirected> {
    let servers = iptables::captured_resolvers(&rules);
    let over_iptables = iptables::infer(&[(family, rules)], true);
    if let Some(found) = summary(&over_iptables.config, over_iptables.sidecar_uid, servers) {
        return Some(found);
    }
    let table = table.filter(|table| !table.lets_pass(family))?;
    let natively = native::infer(table);
    let servers = natively.resolvers.iter().copied().filter(|addr| family.holds((*addr).into())).collect();
    summary(&natively.config, natively.sidecar_uid, servers)
}

fn summary(config: &Config, sidecar: Option<u32>, servers: Vec<IpAddr>) -> Option<Redirected> {
    let dns = &config.redirect.dns;
    let excluded = config.redirect.outbound.exclude_ports_for_uids.iter().map(ToString::to_string);
    let mut users: Vec<String> = excluded.filter(|text| !text.starts_with("tcp:")).collect();
    users.sort();
    users.extend(sidecar.map(|uid| uid.to_string()));
    dns.enabled.then(|| Redirected {
        port: dns.port.get(),
        zones: !dns.skip_conntrack_zone_split,
        servers: (!dns.capture_all).then(|| servers.into_iter().collect()),
        users,
    })
}

fn forget(
    family: Family,
    before: Option<&Redirected>,
    after: Option<&Redirected>,
    here: &BTreeSet<IpAddr>,
) -> io::Result<()> {
    let is_here = |addr: IpAddr| addr.is_loopback() || here.contains(&addr);
    let sweep = |wrong: &dyn Fn(&Datagrams) -> bool| -> io::Result<usize> {
        let mut found = Vec::new();
        match datagrams(family, |flow| found.extend(wrong(&flow).then_some(flow))) {
            // What tracks nothing keeps nothing.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(0),
            told => told?,
        }
        forget_all(&found)?;
        Ok(found.len())
    };
    let found = sweep(&|flow| is_wrong(flow, before, after, is_here))?;
    // In one zone, an answer that was under way begins a flow of its own, whose answers are the next questions.
    if found > 0 && after.is_some_and(|after| !after.zones) {
        let mut quiet = 0;
        for _ in 0..LOOKS {
            std::thread::sleep(STEP);
            quiet = if sweep(&|flow| is_late_answer(flow, is_here))? == 0 { quiet + 1 } else { 0 };
            if quiet == 2 {
                break;
            }
        }
    }
    Ok(())
}

/// Whether what the kernel knows of a flow may not be what is wanted now. Only questions of this host count.
fn is_wrong(
    flow: &Datagrams,
    before: Option<&Redirected>,
    after: Option<&Redirected>,
    is_here: impl Fn(IpAddr) -> bool,
) -> bool {
    let ports: Vec<u16> = [before, after].into_iter().flatten().map(|dns| dns.port).collect();
    let question = flow.to.port() == DNS || ports.contains(&flow.to.port()) && is_here(flow.to.ip());
    if !question || !is_here(flow.from.ip()) {
        return is_late_answer(flow, is_here) && after.is_some_and(|after| !after.zones);
    }
    let redirected_to =
        (flow.answers_from != flow.to && is_here(flow.answers_from.ip())).then(|| flow.answers_from.port());
    match after {
        // Where others send it is none of our business.
        None => {
            flow.zone == SIDECAR
                || flow.zone == APPLICATION
                || redirected_to.is_some_and(|port| ports.contains(&port))
        }
        Some(after) => {
            let others_changed = before.is_some_and(|it| (it.port, it.zones) == (after.port, after.zones));
            let zone = if after.zones { APPLICATION } else { 0 };
            let as_redirected = redirected_to == Some(after.port) && flow.zone == zone;
            let as_the_sidecars = after.zones && flow.zone == SIDECAR && redirected_to.is_none();
            others_changed || !as_redirected && !as_the_sidecars
        }
    }
}

/// An answer from a server that came after its question was forgotten.
fn is_late_answer(flow: &Datagrams, is_here: impl Fn(IpAddr) -> bool) -> bool {
    flow.from.port() == DNS && flow.to.port() != DNS && is_here(flow.to.ip()) && flow.answers_from == flow.to
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(from: &str, to: &str, answers_from: &str, zone: u16) -> Datagrams {
        let at = |text: &str| text.parse().unwrap();
        Datagrams { from: at(from), to: at(to), answers_from: at(answers_from), zone }
    }

    fn dns(port: u16, zones: bool) -> Redirected {
        Redirected { port, zones, servers: None, users: Vec::new() }
    }

    fn wrong(flow: &Datagrams, before: Option<&Redirected>, after: Option<&Redirected>) -> bool {
        let here: IpAddr = "192.0.2.1".parse().unwrap();
        is_wrong(flow, before, after, |addr| addr == here || addr.is_loopback())
    }

    const APP: &str = "192.0.2.1:4000";
    const SERVER: &str = "192.0.2.53:53";

    #[test]
    fn questions_go_where_they_are_to_go_now() {
        let (on, off) = (dns(15053, true), None);
        let plain = flow(APP, SERVER, SERVER, 0);
        let redirected = flow(APP, SERVER, "127.0.0.1:15053", 2);
        let sidecars = flow(APP, SERVER, SERVER, 1);
        assert!(wrong(&plain, off, Some(&on)));
        assert!(!wrong(&redirected, off, Some(&on)) && !wrong(&sidecars, off, Some(&on)));
        assert!(wrong(&redirected, Some(&on), off) && wrong(&sidecars, Some(&on), off));
        assert!(!wrong(&plain, Some(&on), off));
        assert!(wrong(&redirected, Some(&on), Some(&dns(15054, true))));
        assert!(wrong(&redirected, Some(&on), Some(&dns(15053, false))));
        let fewer = Redirected { servers: Some(BTreeSet::new()), ..on.clone() };
        assert!(wrong(&redirected, Some(&on), Some(&fewer)));
    }

    #[test]
    fn flows_of_others_are_left_alone() {
        let (on, moved) = (dns(15053, false), dns(15054, false));
        for other in [
            flow("172.17.0.2:4000", SERVER, SERVER, 0),
            flow(APP, "192.0.2.53:123", "192.0.2.53:123", 0),
            flow(APP, "192.0.2.53:15053", "192.0.2.53:15053", 0),
            flow("192.0.2.53:53", "192.0.2.1:53", "192.0.2.1:53", 0),
        ] {
            for (before, after) in [(None, Some(&on)), (Some(&on), Some(&moved)), (Some(&on), None)] {
                assert!(!wrong(&other, before, after), "{other:?} {before:?} {after:?}");
            }
        }
        let by_others = flow(APP, SERVER, "10.0.0.7:53", 0);
        assert!(!wrong(&by_others, Some(&on), None));
    }

    #[test]
    fn a_late_answer_begins_no_flow() {
        let late = flow(SERVER, APP, APP, 0);
        assert!(wrong(&late, None, Some(&dns(15053, false))));
        assert!(!wrong(&late, Some(&dns(15053, false)), None));
    }
}
