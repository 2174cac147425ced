//! Facts of the host, as far as a comparison needs them.

use std::net::IpAddr;

use crate::apply::degrade::Degraded;
use crate::backend::iptables::infer::{self, Inferred};
use crate::backend::iptables::tools::Variant;
use crate::backend::iptables::typed::TypedRule;
use crate::exit::{Exit, Failure};
use crate::host::{self, HostFacts, Interfaces, Ipv6Support, Resolver};
use crate::plan::{self, Family};

use super::super::model::{Compared, Finding};
use super::Look;
use super::reading::CHILDREN;

impl Look {
    pub(super) fn facts(
        &mut self,
        variant: Variant,
        inferred: &Inferred,
        rules: &[(Family, Vec<TypedRule>)],
        current: Option<Result<&[IpAddr], &String>>,
    ) -> Result<HostFacts, Failure> {
        let known: Vec<IpAddr> = rules.iter().flat_map(|(_, rules)| infer::known_resolvers(rules)).collect();
        // Servers that changed are told of as such; the rules are compared with those for which they were made.
        let resolvers = match current {
            Some(Ok(current)) if known.is_empty() => current.to_vec(),
            Some(_) => known,
            None => Vec::new(),
        };
        let interfaces = host::interfaces()?;
        self.say_if_down(interfaces.loopback());
        let mut facts = HostFacts {
            sidecar_uid: self.sidecar_uid(inferred.sidecar_uid)?,
            loopback: interfaces.loopback().to_owned(),
            ipv6: interfaces.ipv6_support(),
            resolvers: resolvers.into_iter().map(|addr| Resolver { addr, zone: None }).collect(),
            docker_dns: false,
            translated: crate::host::Translated::default(),
        };
        if facts.ipv6 == Ipv6Support::Available && self.tools.of(variant).v6.is_none() {
            facts.ipv6 = Ipv6Support::Unavailable(format!("no ip6tables of the {variant} variant was found"));
        }
        let six = rules.iter().any(|(family, rules)| *family == Family::V6 && !rules.is_empty());
        self.judge_ipv6(&interfaces, &mut facts, six);
        Ok(facts)
    }

    /// Rules of IPv6 stay wanted where they are installed, also on a host that has lost IPv6 since.
    pub(super) fn judge_ipv6(&mut self, interfaces: &Interfaces, facts: &mut HostFacts, installed: bool) {
        let Ipv6Support::Unavailable(why) = &facts.ipv6 else { return };
        if !installed {
            return;
        }
        let lost = interfaces.loopback_without_ipv6().filter(|lost| lost == why);
        match lost {
            Some(why) => self.problems.push(Finding::new(
                format!("redirected IPv6 traffic is lost, because {why}"),
                format!("run 'sysctl -w net.ipv6.conf.{}.disable_ipv6=0'", interfaces.loopback()),
            )),
            None => self.notes.push(Finding::note(format!("the IPv6 rules have nothing to do: {why}"))),
        }
        facts.ipv6 = Ipv6Support::Available;
    }

    pub(super) fn sidecar_uid(&mut self, inferred: Option<u32>) -> Result<u32, Failure> {
        // Whom the rules name need not be looked up, which can take a program.
        if let (Compared::Inferred | Compared::Nothing, Some(uid)) = (self.compared, inferred) {
            return Ok(uid);
        }
        if self.user_unasked {
            let uid = self.state.as_ref().map(|state| state.sidecar_uid).unwrap_or_default();
            self.notes.push(Finding::new(
                format!(
                    "the sidecar's user was not looked up, to run {CHILDREN} programs at most; UID {uid} is taken"
                ),
                "give the sidecar's UID with --kuma-dp-user",
            ));
            return Ok(uid);
        }
        let found = host::sidecar_user(self.config.kuma_dp_user.as_ref(), self.config.cni_mode);
        match self.compared {
            Compared::Given => found.map(|user| user.uid),
            Compared::Inferred | Compared::Nothing => Ok(found.map(|user| user.uid).unwrap_or_default()),
            Compared::Recorded => {
                let recorded = self.state.as_ref().map(|state| state.sidecar_uid).unwrap_or_default();
                let fix =
                    "run 'tproxy install' again, with --kuma-dp-user if the sidecar has another user now";
                match found {
                    Ok(user) if user.uid == recorded => {}
                    Ok(user) => self.problems.push(Finding::new(
                        format!(
                            "the sidecar's user has UID {} now, but the rules are for UID {recorded}",
                            user.uid
                        ),
                        fix,
                    )),
                    Err(failure) if failure.exit != Exit::Host => self.notes.push(Finding::note(format!(
                        "the sidecar's user cannot be looked up (the rules are for UID {recorded}): {failure}"
                    ))),
                    Err(failure) => self.problems.push(Finding::new(
                        format!("the sidecar's user is gone (the rules are for UID {recorded}): {failure}"),
                        fix,
                    )),
                }
                Ok(recorded)
            }
        }
    }

    /// The plan of the wanted rules, with notes.
    ///
    /// It is that of the servers in the rules. What is said of servers is true of those of today (`current`) too.
    pub(super) fn plan(
        &mut self,
        facts: &HostFacts,
        current: Option<&Result<Vec<IpAddr>, String>>,
    ) -> plan::Plan {
        let record = self.state.as_ref().filter(|_| self.compared != Compared::Inferred);
        let left_out = record.map(|state| state.left_out.as_slice()).unwrap_or_default();
        let degraded = Degraded::as_recorded(&self.config, left_out);
        for left in degraded.left_out() {
            self.notes.push(Finding::new(
                format!("left out at installation, because it was refused: {left}"),
                "run 'tproxy install' again when this host can do it",
            ));
        }
        let plan = degraded.plan(facts);
        let mut known = facts.clone();
        for &addr in current.and_then(|current| current.as_ref().ok()).into_iter().flatten() {
            if !known.resolvers.iter().any(|resolver| resolver.addr == addr) {
                known.resolvers.push(Resolver { addr, zone: None });
            }
        }
        self.notes.extend(degraded.plan(&known).notes.iter().map(Finding::note));
        plan
    }
}
