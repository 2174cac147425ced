//! The report of a host on which the rules are in our own nftables table. No program is needed for it; those of
//! iptables are asked only for rules of ours that should not be there.

use std::net::IpAddr;

use crate::apply;
use crate::backend::Backend;
use crate::backend::iptables::observe::not_listed;
use crate::backend::iptables::situation::Situation;
use crate::backend::iptables::tools::Variant;
use crate::backend::nftables::decode::Observed;
use crate::backend::nftables::foreign::is_installation;
use crate::backend::nftables::infer;
use crate::backend::nftables::lower::{self, own_name};
use crate::backend::nftables::model::HookPoint;
use crate::config::Config;
use crate::config::values::BackendChoice;
use crate::exit::Failure;
use crate::host::{self, HostFacts, Resolver};
use crate::plan::{Family, OwnChain};
use crate::sys::netlink;

use super::super::ahead::{self, Dns, Ours, Traffic};
use super::super::meets::{self, look::Installed};
use super::super::model::{Compared, Finding, Installer, Program, Report, Resolvers};
use super::super::own_table;
use super::parts::{listeners, sidecar};
use super::{Look, foreign};

/// Our own table, if there is one.
///
/// # Errors
/// The kernel does not tell.
pub fn table() -> Result<Option<Observed>, Failure> {
    Ok(any_table()?.filter(|observed| is_installation(&observed.table)))
}

/// The table of our name, whoever made it.
///
/// # Errors
/// The kernel does not tell.
pub(super) fn any_table() -> Result<Option<Observed>, Failure> {
    Ok(apply::look::native()?.and_then(|seen| seen.table))
}

/// What is to be said of a table of our name that is not ours.
pub(super) fn namesake(observed: &Observed) -> Finding {
    let what = format!("there is a table of our name, {}, without our chains", own_table::NAME);
    match observed.owned_by {
        Some(port) => Finding::new(
            format!(
                "{what}; another process owns it (its netlink port is {port}), and only it can change it"
            ),
            "stop that process; its table goes with it",
        ),
        None => Finding::new(
            what,
            format!(
                "'nft list table {}' shows what is in it; 'tproxy install' takes it over or away",
                own_table::NAME
            ),
        ),
    }
}

impl Look {
    /// Puts the report of our own table together.
    pub(super) fn report_of(mut self, observed: &Observed) -> Result<Report, Failure> {
        let table = &observed.table;
        let mut report = Report { backend: Some("nftables"), compared: self.compared, ..Report::nothing() };
        report.installer = Some(Installer {
            program: if self.state.is_some() { Program::Tproxy } else { Program::UnrecordedTable },
            version: self.state.as_ref().map(|state| state.version.clone()),
            since: self.state.as_ref().map(|state| state.installed_at),
        });
        report.families = own_table::families(observed);
        report.table_rules = Some(table.rule_count());
        report.hits = own_table::hits(observed);
        report.ports = own_table::ports(table);
        let installed: Vec<Family> = report.families.iter().map(|report| report.family).collect();

        let (situation, unread) = self.read()?;
        let inferred = infer::infer(table);
        let uid = self.sidecar_uid(inferred.sidecar_uid)?;
        let servers = &inferred.resolvers;
        let dns = match (report.ports.dns, servers.is_empty()) {
            (None, _) => Dns::Off,
            (Some(_), true) => Dns::All,
            (Some(_), false) => Dns::Servers(servers.clone()),
        };
        if self.compared == Compared::Inferred {
            let iptables_executables = self.config.iptables_executables.clone();
            self.config = Config { iptables_executables, ..inferred.config.clone() };
        }
        let current = self.current_resolvers();
        let mut facts = self.facts_for(uid, &situation, servers, current.as_ref(), &installed)?;
        let native = self.ruleset();
        facts.translated = apply::translated::in_ruleset(
            &self.config,
            &facts,
            (&situation, &Family::BOTH),
            Backend::Nftables,
            &native,
        )
        .0;
        let plan = self.plan(&facts, current.as_ref());
        let planned: Vec<Family> = plan.families.iter().map(|plan| plan.family).collect();
        let mut wanted = lower::table(&plan, !self.config.comments.disabled);
        if self.compared == Compared::Inferred {
            wanted = infer::with_comments_of(wanted, table);
        }
        report.differences = own_table::differences(observed, &wanted);
        report.out_of_our_hands = observed.owned_by.is_some();
        self.say_if_passthrough_is_gone(&planned)?;
        self.say_who_are_guests(&planned);
        let stand = own_table::priority(table, HookPoint::Prerouting, Some(own_name(OwnChain::Inbound)));
        let chains = foreign::chains(&mut self.notes);
        report.resolvers = current.map(|current| {
            let file = self.config.redirect.dns.resolv_config_path.display().to_string();
            Resolvers::compare(file, current, servers.clone(), &planned)
        });
        report.sidecar = Some(sidecar(uid));
        report.listeners = listeners(report.ports, &own_table::ways(table, &installed), uid);
        let ours = Ours {
            sidecar: uid,
            outbound: report.ports.outbound.is_some(),
            inbound: report.ports.inbound.is_some(),
            dns,
        };
        let priority = |traffic| match traffic {
            Traffic::Outbound => {
                own_table::priority(table, HookPoint::Output, Some(own_name(OwnChain::Outbound)))
            }
            Traffic::Inbound => {
                own_table::priority(table, HookPoint::Prerouting, Some(own_name(OwnChain::Inbound)))
            }
            Traffic::Dns => own_table::priority(table, HookPoint::Output, None),
        };
        report.ahead = ahead::of_own_table(&situation, &native, &installed, &ours, priority);
        self.say_what_is_elsewhere(&native, &report.ahead, |hook| {
            let at_hook = Traffic::ALL.into_iter().filter(|traffic| traffic.hook() == hook);
            at_hook.filter_map(priority).max()
        });
        self.say_who_may_come_first(Backend::Nftables, &installed, &native, &situation, &ours);
        let now = Installed::new(&self.config, &facts, &installed, Backend::Nftables);
        report.meets = meets::look::judge(&now, &chains);
        let stand = stand.unwrap_or(lower::NAT_LAST);
        let here = (&facts, planned.as_slice());
        report.shut = self.say_what_is_closed(here, stand, &chains, &mut report.meets);
        self.say_who_bypasses(uid, report.ports);
        self.say_more_of(observed, &situation);
        self.say_what_is_unread(&unread, None);
        report.problems = self.problems;
        report.notes = self.notes;
        report.judge();
        Ok(report)
    }

    fn facts_for(
        &mut self,
        sidecar_uid: u32,
        situation: &Situation,
        captured: &[IpAddr],
        current: Option<&Result<Vec<IpAddr>, String>>,
        installed: &[Family],
    ) -> Result<HostFacts, Failure> {
        // Servers that changed are told of as such; the rules are compared with those for which they were made.
        let resolvers = match current {
            Some(Ok(current)) if captured.is_empty() => current.clone(),
            Some(_) => captured.to_vec(),
            None => Vec::new(),
        };
        let interfaces = host::interfaces()?;
        self.say_if_down(interfaces.loopback());
        let chains = netlink::nft_chain_names(Family::V4).map_err(|error| not_listed("tables", &error))?;
        let docker = chains.iter().any(|(table, chain)| table == "nat" && chain == "DOCKER_OUTPUT");
        let mut facts = HostFacts {
            sidecar_uid,
            loopback: interfaces.loopback().to_owned(),
            ipv6: interfaces.ipv6_support(),
            resolvers: resolvers.into_iter().map(|addr| Resolver { addr, zone: None }).collect(),
            docker_dns: docker || situation.has_docker_dns(Variant::Legacy),
            translated: crate::host::Translated::default(),
        };
        self.judge_ipv6(&interfaces, &mut facts, installed.contains(&Family::V6));
        Ok(facts)
    }

    fn say_more_of(&mut self, observed: &Observed, situation: &Situation) {
        for ((of, family), own) in situation.ownership() {
            if !own.is_empty() {
                self.problems.push(Finding::new(
                    format!("{family} rules of the transparent proxy are also there through iptables ({of})"),
                    "run 'tproxy install' again: it brings everything to one backend",
                ));
            }
        }
        if self.config.backend == BackendChoice::Iptables && self.compared != Compared::Inferred {
            self.problems.push(Finding::new(
                "the configuration asks for the backend iptables, but the rules are in an nftables table",
                "run 'tproxy install' with that configuration",
            ));
        }
        if let Some(port) = observed.owned_by {
            self.problems.push(Finding::new(
                format!(
                    "another process owns the table (its netlink port is {port}), and only it can change it"
                ),
                "stop that process; its table goes with it",
            ));
        }
        self.say_if_unfinished();
    }
}
