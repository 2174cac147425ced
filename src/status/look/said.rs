//! What a report says beside the rules: sentences about the host, each with what to do about it.

use crate::apply::guests;
use crate::apply::store::Phase;
use crate::exit::Failure;
use crate::host::{self, HostFacts, Ipv6Support};
use crate::plan::Family;
use crate::rules::model::Chain;
use crate::sys::netlink::ruleset;

use super::super::doors::look::Installed;
use super::super::doors::words::Shut;
use super::super::meets::Met;
use super::super::model::{Ahead, Finding, Ports};
use super::super::{ahead, doors};
use super::Look;

impl Look {
    pub(super) fn say_what_is_elsewhere(
        &mut self,
        native: &ruleset::Ruleset,
        taking: &[Ahead],
        ours: impl Fn(&'static str) -> Option<i32>,
    ) {
        self.notes.extend(ahead::elsewhere(native, taking, ours).into_iter().map(Finding::note));
    }

    /// What is redirected on this host goes over loopback.
    pub(super) fn say_if_down(&mut self, loopback: &str) {
        if !host::is_up(loopback) {
            self.problems.push(Finding::new(
                format!(
                    "the loopback interface {loopback} is down, so nothing that is redirected here arrives"
                ),
                format!("run 'ip link set {loopback} up'"),
            ));
        }
    }

    /// An installation brings the address from which the sidecar talks to local IPv6 applications.
    pub(super) fn say_if_passthrough_is_gone(&mut self, planned: &[Family]) -> Result<(), Failure> {
        if !planned.contains(&Family::V6) {
            return Ok(());
        }
        let interfaces = host::interfaces()?;
        if interfaces.ipv6_support() == Ipv6Support::Available && !interfaces.has(host::PASSTHROUGH) {
            self.problems.push(Finding::new(
                format!(
                    "the address {} is gone from {}; from it the sidecar talks to local IPv6 applications",
                    host::PASSTHROUGH,
                    interfaces.loopback()
                ),
                "run 'tproxy install' again: it adds the address",
            ));
        }
        Ok(())
    }

    /// Whose traffic ends at the inbound port although it was to go elsewhere.
    pub(super) fn say_who_are_guests(&mut self, families: &[Family]) {
        let said = guests::findings(&self.config, &host::links(), families);
        self.notes.extend(said.into_iter().map(|(what, cure)| Finding::new(what, cure)));
    }

    /// Which doors of a firewall are open or shut since what arrives is redirected. `stand` is where our rules are, `meets`
    /// what rules about others do to the sidecar.
    pub(super) fn say_what_is_closed(
        &mut self,
        (facts, families): (&HostFacts, &[Family]),
        stand: i32,
        chains: &[Chain],
        meets: &mut Vec<Met>,
    ) -> Vec<Shut> {
        let installed = Installed::of(&self.config, facts, families, stand);
        let found = doors::look::evaluate(&installed, chains, meets);
        self.problems.extend(found.problems.iter().map(|shut| shut.finding.clone()));
        self.notes.extend(found.openings);
        found.problems
    }

    /// Others who are taken for the sidecar, because they run as its user.
    pub(super) fn say_who_bypasses(&mut self, sidecar: u32, ports: Ports) {
        const MOST: usize = 8;
        let ports: Vec<u16> = [ports.outbound, ports.inbound, ports.dns].into_iter().flatten().collect();
        let found = host::owners::bystanders(sidecar, &ports);
        let more = found.len().saturating_sub(MOST);
        for (process, port) in found.into_iter().take(MOST) {
            self.notes.push(Finding::new(
                format!(
                    "{process} runs as the sidecar's user (UID {sidecar}) and listens on TCP port {port}: nothing that it \
                     sends is redirected"
                ),
                "run it as another user, unless it belongs to the sidecar",
            ));
        }
        if more > 0 {
            self.notes.push(Finding::new(
                format!("at least {more} more processes run as the sidecar's user (UID {sidecar}) and listen on TCP ports"),
                "run them as another user, unless they belong to the sidecar",
            ));
        }
    }

    pub(super) fn say_if_unfinished(&mut self) {
        if self.state.as_ref().is_some_and(|state| state.phase == Phase::Changing) {
            self.problems.push(Finding::new(
                "a run of tproxy is under way, or was killed before its end",
                "run 'tproxy install' again; it continues from the present state",
            ));
        }
    }
}
