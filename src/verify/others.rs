//! Rules of others where no probe meets them, as checks of what they do to what is promised.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::Config;
use crate::plan::Family;
use crate::rules::model::{Chain, Truth};
use crate::rules::show;
use crate::rules::walk::Deed;
use crate::status::meets;

use super::check::{Check, Goal, Id, Outcome, Probe, Status};
use super::flows::{self, Host, Met, ProbeRoad, Promise, Road, Stand};

/// So many rules are named at once.
const SHOWN: usize = 3;

/// What promises are checked against.
pub struct Asked {
    /// What is wanted.
    pub config: Config,
    /// The sidecar's user.
    pub sidecar: u32,
    /// The loopback interface's name and number.
    pub loopback: (String, u32),
    /// This host's addresses.
    pub own: Vec<IpAddr>,
    /// Where our rules stand.
    pub stand: Stand,
    /// By which source addresses and interfaces packets leave.
    pub departures: Vec<Road>,
    /// At which addresses of which interfaces this host is asked.
    pub arrivals: Vec<Road>,
    /// DNS servers whose questions are redirected.
    pub servers: Vec<(IpAddr, Road)>,
    /// The road of probes, of each family that they have one in.
    pub probes: BTreeMap<Family, ProbeRoad>,
    /// The families that are redirected.
    pub families: Vec<Family>,
    /// The families in which routing rules come before the table of local addresses.
    pub by_marks: Vec<Family>,
}

/// A check for each chain of others that does something to what is promised; none where nobody does.
pub fn judge(asked: &Asked, chains: &[Chain]) -> Vec<Outcome> {
    let (name, index) = (asked.loopback.0.as_str(), asked.loopback.1);
    let host = Host {
        config: &asked.config,
        sidecar: asked.sidecar,
        loopback: (name, index),
        own: &asked.own,
        stand: asked.stand,
    };
    let redirect = &asked.config.redirect;
    let mut met: Vec<(Family, Met<'_>)> = Vec::new();
    for &family in &asked.families {
        let probe = asked.probes.get(&family);
        let by_marks = asked.by_marks.contains(&family);
        let of_family = |road: &&Road| family.holds(road.address.into());
        let mut add = |promise: Promise, road: &Road| {
            let found = flows::beyond_probes(&host, chains, promise, road, probe, by_marks);
            met.extend(found.into_iter().map(|met| (family, met)));
        };
        for road in asked.departures.iter().filter(of_family) {
            if redirect.outbound.enabled {
                add(Promise::Outbound, road);
            }
            add(Promise::Sidecar, road);
        }
        for road in asked.arrivals.iter().filter(of_family).filter(|_| redirect.inbound.enabled) {
            add(Promise::Inbound, road);
        }
        for (server, road) in asked.servers.iter().filter(|(server, _)| family.holds((*server).into())) {
            add(Promise::Questions(*server), road);
            add(Promise::SidecarAsks(*server), road);
        }
    }
    collected(&met)
}

/// One check for all that a chain does of one kind to one promise: there may be thousands of rules.
fn collected(met: &[(Family, Met<'_>)]) -> Vec<Outcome> {
    type Key = (Family, &'static str, Deed, bool, String, String);
    let mut groups: BTreeMap<Key, Vec<&Met<'_>>> = BTreeMap::new();
    for (family, one) in met {
        let sure = one.finding.sure == Truth::Yes && !matches!(one.finding.deed, Deed::Zones | Deed::Marks);
        let chain = one.finding.chain;
        let key =
            (*family, kind(one.promise), one.finding.deed, sure, chain.table.clone(), chain.name.clone());
        groups.entry(key).or_default().push(one);
    }
    groups
        .into_iter()
        .filter_map(|((family, _, deed, sure, ..), group)| outcome(family, deed, sure, &group))
        .collect()
}

fn kind(promise: Promise) -> &'static str {
    match promise {
        Promise::Outbound => "outbound",
        Promise::Questions(_) => "questions",
        Promise::Inbound => "inbound",
        Promise::Sidecar => "sidecar",
        Promise::SidecarAsks(_) => "sidecar-asks",
    }
}

fn outcome(family: Family, deed: Deed, sure: bool, group: &[&Met<'_>]) -> Option<Outcome> {
    let first = group.first()?;
    let chain = first.finding.chain;
    let mut rules: Vec<String> = group.iter().map(|met| show::name(met.finding.rule)).collect();
    rules.sort();
    rules.dedup();
    let more = rules.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let rules = rules.iter().take(SHOWN).map(|rule| format!("'{rule}'")).collect::<Vec<_>>().join(", ");
    let place = format!("{} of {}", chain.name, chain.table);
    let which = who(first);
    let does = does(deed, sure);
    let happened = format!("{which} {does} by {rules}{more} in chain {place}, which no probe meets");
    let check = Check {
        id: Id::Rules,
        family,
        target: format!("others' rules in chain {place}"),
        probe: Probe::Nothing(happened.clone()),
        goal: Goal::Past,
        expected: expected(first.promise).to_owned(),
    };
    let status = if sure { Status::Fail } else { Status::NotTested };
    let cause = sure.then(|| format!("a foreign rule: {rules}{more}"));
    Some(Outcome {
        check,
        status,
        happened,
        evidence: Vec::new(),
        cause,
        next: Some(list_command(chain, family)),
    })
}

fn who(met: &Met<'_>) -> String {
    let Road { address, interface, .. } = &met.road;
    let what = match met.promise {
        Promise::Outbound => format!("applications' connections as {address} by {interface}"),
        Promise::Questions(server) => format!("applications' questions to {server} as {address}"),
        Promise::Inbound => format!("connections that arrive at {address} by {interface}"),
        Promise::Sidecar => format!("the sidecar's own connections as {address} by {interface}"),
        Promise::SidecarAsks(server) => format!("the sidecar's own questions to {server} as {address}"),
    };
    if met.answer { format!("the answers to {what}") } else { what }
}

fn does(deed: Deed, sure: bool) -> &'static str {
    match (deed, sure) {
        (Deed::Drops, true) => "are dropped",
        (Deed::Drops, false) => "may be dropped in part",
        (Deed::Translates, true) => "are led elsewhere before they are redirected,",
        (Deed::Translates, false) => "may be led elsewhere in part before they are redirected,",
        (Deed::LetsPast, true) => "are let past the redirection",
        (Deed::LetsPast, false) => "may be let past the redirection in part",
        (Deed::Untracks, true) => "are not tracked, and so not redirected,",
        (Deed::Untracks, false) => "may be in part not tracked, and so not redirected,",
        (Deed::Zones, _) => "may be tracked in another zone",
        (Deed::Marks, _) => "may be marked, by which this host's routing rules may go,",
    }
}

fn expected(promise: Promise) -> &'static str {
    match promise {
        Promise::Outbound | Promise::Inbound => "comes to the sidecar, and its answers come back",
        Promise::Questions(_) => "comes to the sidecar's DNS port, and the answer comes back",
        Promise::Sidecar | Promise::SidecarAsks(_) => "leaves, and the answer comes back",
    }
}

/// How to look at a chain.
fn list_command(chain: &Chain, family: Family) -> String {
    match chain.table.strip_suffix(" (legacy)") {
        Some(table) => {
            let tool = if family == Family::V4 { "iptables-legacy" } else { "ip6tables-legacy" };
            format!("{tool} -t {table} -vnL {}", chain.name)
        }
        None => format!("nft list chain {} {}", chain.table, chain.name),
    }
}

/// Of an interface without an address of a family, by which packets of it arrive: what is redirected there goes to
/// that address, so all of it is dropped.
pub fn without_address(family: Family, interface: &str) -> Outcome {
    let happened = format!(
        "{interface} has no {family} address, and the kernel redirects what arrives to the address of the interface by \
         which it came: it drops every connection that arrives by {interface}"
    );
    let check = Check {
        id: Id::Inbound,
        family,
        target: format!("outside by {interface}"),
        probe: Probe::Nothing(happened.clone()),
        goal: Goal::Past,
        expected: "arrives at the inbound port".to_owned(),
    };
    let address =
        if family == Family::V4 { "an IPv4 address" } else { "an IPv6 address other than a link-local one" };
    Outcome {
        check,
        status: Status::Fail,
        happened,
        evidence: Vec::new(),
        cause: Some(format!(
            "give {interface} {address}, or leave out what arrives: --redirect-inbound=false"
        )),
        next: Some(format!("ip address show dev {interface}")),
    }
}

/// What nobody knows, because rules of others could not be read.
pub fn unread(why: &str) -> Outcome {
    let happened = format!("rules of others could not be read, which may stand where no probe goes: {why}");
    let check = Check {
        id: Id::Rules,
        family: Family::V4,
        target: "others' rules".to_owned(),
        probe: Probe::Nothing(happened.clone()),
        goal: Goal::Past,
        expected: "keep from nothing that the configuration promises".to_owned(),
    };
    Outcome { check, status: Status::NotTested, happened, evidence: Vec::new(), cause: None, next: None }
}

/// Of a rule about users or addresses that meets the sidecar in place of others.
pub fn meets_the_sidecar(met: &meets::Met) -> Outcome {
    let check = Check {
        id: Id::Rules,
        family: met.family,
        target: "rules about users and addresses".to_owned(),
        probe: Probe::Nothing(met.what.clone()),
        goal: Goal::Past,
        expected: "do the same to whoever is behind the sidecar".to_owned(),
    };
    let status = if met.dead { Status::Fail } else { Status::NotTested };
    let cause = met.dead.then(|| met.fix.clone());
    let next = if met.dead { "tproxy status".to_owned() } else { met.fix.clone() };
    Outcome { check, status, happened: met.what.clone(), evidence: Vec::new(), cause, next: Some(next) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Exit, Failure};
    use crate::verify::Method;
    use crate::verify::check::Report;

    fn met(dead: bool) -> meets::Met {
        meets::Met {
            family: Family::V4,
            what: "it is dropped".into(),
            fix: "let it pass".into(),
            dead,
            clients: None,
        }
    }

    #[test]
    fn a_failure_of_rules_has_a_next_step_and_an_empty_one_is_not_a_hint() {
        let told = |outcomes| Report { method: Method::Listeners, outcomes }.next();
        assert_eq!(
            told(vec![meets_the_sidecar(&met(false)), meets_the_sidecar(&met(true))]),
            Some("tproxy status".into())
        );
        assert_eq!(told(vec![unread("why")]), None);
        let stepless = Outcome { next: None, ..meets_the_sidecar(&met(true)) };
        assert_eq!(told(vec![stepless, unread("why")]), None);
        assert_eq!(Failure::new(Exit::VerifyFailed, "it failed").hint("").hint, None);
    }
}
