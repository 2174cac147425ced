//! Looks at the host and puts the report together. Reads only.

mod facts;
mod foreign;
mod native;
pub(crate) mod parts;
mod reading;
mod said;

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::apply::look::Record;
use crate::apply::pending::{self, Trial};
use crate::apply::store::{State, Store};
use crate::apply::translated;
use crate::backend::Backend;
use crate::backend::iptables::infer;
use crate::backend::iptables::observe::Observation;
use crate::backend::iptables::situation::{Place, Recorded, Situation};
use crate::backend::iptables::tools::{self, Tools, Variant};
use crate::backend::iptables::typed::TypedRule;
use crate::backend::iptables::wanted::Wanted;
use crate::backend::nftables::foreign::is_installation;
use crate::config::values::{BackendChoice, IpFamilyMode};
use crate::config::{Config, Resolved};
use crate::exit::{Exit, Failure};
use crate::host;
use crate::plan::{self, Family};
use crate::saved;
use crate::sys::netlink::ruleset;

use super::ahead::Ours;
use super::meets::{self, look::Installed};
use super::model::{Compared, Finding, Hits, Installer, Program, Report, Resolvers, Saved};
use super::{ahead, compare, source, trial, words};
pub(crate) use native::table as native_table;
use parts::{families, listeners, live, ports, sidecar};
use reading::Unread;

/// What is there, and what it should be.
struct Look {
    state: Option<State>,
    config: Config,
    compared: Compared,
    /// Where rules of ours can be that only a program of iptables can read.
    places: Vec<Place>,
    /// Legacy rules of others, which may be ahead of ours.
    others: Observation,
    /// Found only if there is such a place.
    tools: Tools,
    /// The sidecar's user is not looked up, because the programs that may be run are needed for more.
    user_unasked: bool,
    /// What is to be said of a table of our name that is not ours.
    namesake: Option<Finding>,
    on_trial: Option<Trial>,
    problems: Vec<Finding>,
    notes: Vec<Finding>,
}

/// Only root can see the rules; without that nothing can be told, not even that nothing is there.
pub fn check_root() -> Result<(), Failure> {
    if !host::is_root() {
        return Err(Failure::new(
            Exit::Host,
            "only root can see firewall rules, so whether anything is installed is not known",
        )
        .hint("run 'sudo tproxy status'"));
    }
    Ok(())
}

/// Looks at everything.
///
/// # Errors
/// The rules cannot be read, or, with a configuration given, the sidecar's user does not exist.
pub fn report(resolved: &Resolved) -> Result<Report, Failure> {
    Look::begin(resolved)?.report()
}

/// Looks at everything, and compares with a configuration.
///
/// # Errors
/// As above.
pub fn compared_with(config: &Config) -> Result<Report, Failure> {
    let given = |_: Option<&State>| (config.clone(), Compared::Given);
    Look::with(given)?.report()
}

impl Look {
    /// Finds out where to look and with what to compare.
    fn begin(resolved: &Resolved) -> Result<Self, Failure> {
        Self::with(|state| source::effective(resolved, state.map(|s| s.config.as_str())))
    }

    fn with(source: impl FnOnce(Option<&State>) -> (Config, Compared)) -> Result<Self, Failure> {
        check_root()?;
        let store = Store::unlocked()?;
        let state = store.load()?;
        let mut notes = Vec::new();
        let mut problems = Vec::new();
        let on_trial = pending::trial(&store)?;
        if let Some(on_trial) = on_trial {
            let what = trial::finding(on_trial, &store.path("log"));
            if on_trial.is_stuck() { problems.push(what) } else { notes.push(what) }
        }
        let (config, compared) = source(state.as_ref());
        let (places, others) = reading::places(&state.as_ref().map(Record::from).unwrap_or_default())?;
        // The variant of named programs is on record; asking them for it would be one more process.
        let known = state.as_ref().filter(|_| compared == Compared::Recorded).and_then(State::variant);
        let tools = reading::tools(&places, &config.iptables_executables, known)?;
        if let (Compared::Recorded, None, Some(state)) = (compared, tools.named, &state) {
            notes.extend(reading::unnamed_programs(&places, &tools, state));
        }
        Ok(Self {
            state,
            config,
            compared,
            places,
            others,
            tools,
            user_unasked: false,
            namesake: None,
            on_trial,
            problems,
            notes,
        })
    }

    fn recorded(&self) -> Recorded {
        self.state.as_ref().map(State::recorded).unwrap_or_default()
    }

    /// Puts the report together.
    fn report(self) -> Result<Report, Failure> {
        let on_trial = self.on_trial.map(trial::on_trial);
        let mut report = self.report_of_rules()?;
        report.on_trial = on_trial;
        report.saved = saved::find();
        report.notes.extend(report.saved.iter().map(Saved::finding));
        Ok(report)
    }

    fn report_of_rules(mut self) -> Result<Report, Failure> {
        if let Some(observed) = native::any_table()? {
            if is_installation(&observed.table) {
                return self.report_of(&observed);
            }
            self.namesake = Some(native::namesake(&observed));
        }
        let (mut situation, unreadable) = self.read()?;
        let uncommented = !situation.unclaimed().is_empty();
        situation.adopt();
        if !situation.is_installed() {
            return self.nothing(&unreadable);
        }
        self.notes.extend(self.namesake.take());
        if uncommented {
            self.notes.push(Finding::new(
                "the rules carry no comments, so they are known as an installation's by their shape alone",
                "'tproxy install --adopt' replaces them with rules that can be told apart",
            ));
        }
        let Some(variant) = self.variant(&situation) else { return Err(tools::none_found()) };
        // Half of an installation says nothing true about the whole.
        if let Some(failure) = unreadable.iter().find_map(|unread| unread.failed_in(variant)) {
            return Err(failure.clone());
        }
        let rules = Family::BOTH.map(|family| (family, situation.own_rules((variant, family))));
        let inferred = infer::infer(&rules, !uncommented);
        if self.compared == Compared::Inferred {
            self.config = Config {
                iptables_executables: self.config.iptables_executables.clone(),
                ..inferred.config.clone()
            };
        }
        let mut report =
            Report { backend: Some("iptables"), variant: Some(variant.to_string()), ..Report::nothing() };
        report.compared = self.compared;
        report.installer = Some(self.installer(&rules, uncommented));
        report.families = families(&situation);
        report.hits = report.families.iter().fold(Hits::default(), |sum, family| sum.plus(family.hits));

        let current = self.current_resolvers();
        let mut facts = self.facts(variant, &inferred, &rules, current.as_ref().map(|c| c.as_deref()))?;
        facts.docker_dns = situation.has_docker_dns(variant);
        let native = self.ruleset();
        let backend = Backend::Iptables(variant);
        facts.translated =
            translated::in_ruleset(&self.config, &facts, (&situation, &Family::BOTH), backend, &native).0;
        let plan = self.plan(&facts, current.as_ref());
        let wanted = self.wanted(&plan, variant);
        let changes = situation.changes(&wanted);
        report.differences = compare::differences(&situation, &changes);

        let planned: Vec<Family> = plan.families.iter().map(|plan| plan.family).collect();
        self.say_if_passthrough_is_gone(&planned)?;
        self.say_who_are_guests(&planned);
        let chains = foreign::chains(&mut self.notes);
        report.resolvers = current.map(|current| {
            let file = self.config.redirect.dns.resolv_config_path.display().to_string();
            let captured = rules.iter().flat_map(|(_, rules)| infer::captured_resolvers(rules)).collect();
            Resolvers::compare(file, current, captured, &planned)
        });
        report.sidecar = Some(sidecar(facts.sidecar_uid));
        report.ports = ports(&rules);
        report.listeners = listeners(report.ports, &live(&rules, &situation), facts.sidecar_uid);
        report.ahead = ahead::of_ours(&situation, variant, &native, &Ours::of(&self.config, &facts));
        self.say_what_is_elsewhere(&native, &report.ahead, |_| Some(ahead::IPTABLES));
        let ours = Ours::of(&self.config, &facts);
        self.say_who_may_come_first(backend, &planned, &native, &situation, &ours);
        let installed = Installed::new(&self.config, &facts, &planned, backend);
        report.meets = meets::look::judge(&installed, &chains);
        let here = (&facts, planned.as_slice());
        report.shut = self.say_what_is_closed(here, ahead::IPTABLES, &chains, &mut report.meets);
        self.say_who_bypasses(facts.sidecar_uid, report.ports);
        self.say_more(&situation, variant);
        self.say_what_is_unread(&unreadable, Some(variant));
        report.problems = self.problems;
        report.notes = self.notes;
        report.judge();
        Ok(report)
    }

    /// The chains of nftables that may be ahead of ours, those of iptables' nft variant among them.
    fn ruleset(&mut self) -> ruleset::Ruleset {
        ruleset::read(ahead::may_be_ahead).unwrap_or_else(|error| {
            let what =
                format!("the kernel does not list its nftables chains ({error}); some may be ahead of ours");
            self.notes.push(Finding::note(what));
            ruleset::Ruleset::default()
        })
    }

    /// Nothing of ours is there.
    fn nothing(self, unreadable: &[Unread]) -> Result<Report, Failure> {
        if let Some(unread) = unreadable.first() {
            return Err(unread.failure());
        }
        let mut report = Report::nothing();
        if let Some(state) = &self.state {
            report.notes.push(Finding::new(
                format!(
                    "tproxy {} installed here on {}, but none of its rules is left: something flushed them",
                    state.version,
                    words::time(state.installed_at)
                ),
                "run 'tproxy install' again; 'tproxy status --watch' shows who flushes rules",
            ));
        }
        report.notes.extend(self.namesake);
        report.notes.extend(self.problems.into_iter().filter(|_| self.on_trial.is_some_and(Trial::is_stuck)));
        Ok(report)
    }

    /// The variant in which the rules should be.
    fn variant(&self, situation: &Situation) -> Option<Variant> {
        if let Some(named) = self.tools.named {
            return Some(named);
        }
        let recorded = self.state.as_ref().filter(|_| self.compared != Compared::Inferred);
        let recorded = recorded.and_then(State::variant);
        let holds =
            |variant: Variant| situation.ownership().any(|((of, _), own)| of == variant && !own.is_empty());
        recorded
            .or_else(|| Variant::BOTH.into_iter().find(|variant| holds(*variant)))
            .or_else(|| situation.choose(&self.tools).map(|(variant, _)| variant))
    }

    fn installer(&self, rules: &[(Family, Vec<TypedRule>)], uncommented: bool) -> Installer {
        match &self.state {
            Some(state) => Installer {
                program: Program::Tproxy,
                version: Some(state.version.clone()),
                since: Some(state.installed_at),
            },
            None => Installer {
                program: Program::Unrecorded,
                version: infer::kumactl_version(rules, uncommented).map(str::to_owned),
                since: None,
            },
        }
    }

    /// The servers of resolv.conf, where questions to them are to be redirected one by one.
    fn current_resolvers(&self) -> Option<Result<Vec<IpAddr>, String>> {
        let dns = &self.config.redirect.dns;
        (dns.enabled && !dns.capture_all).then(|| {
            host::resolvers(&dns.resolv_config_path)
                .map(|(resolvers, _)| resolvers.into_iter().map(|resolver| resolver.addr).collect())
                .map_err(|failure| failure.message)
        })
    }

    fn wanted(&self, plan: &plan::Plan, variant: Variant) -> BTreeMap<Place, Wanted> {
        let recorded = self.recorded();
        let families = plan.families.iter().map(|plan| {
            // A kernel without comments got rules without; the record knows them.
            let degraded = self.compared == Compared::Recorded
                && recorded.get(&plan.family).is_some_and(|rules| !rules.is_empty());
            let wanted = Wanted::plan(plan, !self.config.comments.disabled && !degraded);
            let wanted =
                if self.compared == Compared::Inferred { wanted.whatever_comments() } else { wanted };
            ((variant, plan.family), wanted)
        });
        families.collect()
    }

    fn say_more(&mut self, situation: &Situation, variant: Variant) {
        let reinstall = "run 'tproxy install' again: it brings everything to one variant";
        for ((of, family), own) in situation.ownership() {
            if of != variant && !own.is_empty() {
                let why = format!(
                    "{family} rules of the transparent proxy are in the {of} variant, where none should be"
                );
                self.problems.push(Finding::new(why, reinstall));
            }
        }
        if self.config.backend == BackendChoice::Nftables && self.compared != Compared::Inferred {
            self.problems.push(Finding::new(
                "the configuration asks for the backend nftables, but the rules are there through iptables",
                "run 'tproxy install' with that configuration",
            ));
        }
        self.say_if_unfinished();
        for ((_, family), rule) in situation.jumps() {
            let text = crate::text::escape(&rule.text());
            self.notes.push(Finding::note(format!("a foreign {family} rule jumps to our chains: {text}")));
        }
        if self.config.ip_family_mode == IpFamilyMode::Ipv4 && self.compared != Compared::Inferred {
            self.notes.push(Finding::note("IPv6 is not redirected, as configured (ip-family-mode ipv4)"));
        }
    }
}
