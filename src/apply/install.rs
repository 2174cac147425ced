//! `tproxy install`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backend::firewalld;
use crate::backend::iptables::commit::CommitError;
use crate::backend::iptables::owned::merged;
use crate::backend::iptables::situation::{Place, Situation};
use crate::backend::iptables::tools::{self, Tools, Variant};
use crate::backend::iptables::transition::Wanted;
use crate::config::values::IpFamilyMode;
use crate::exit::{Exit, Failure};
use crate::host::{self, HostFacts, Interfaces, Ipv6Support};
use crate::plan::{self, Family};
use crate::present::{Action, Receipt};

use super::confirm::{self, Guard};
use super::degrade::Degraded;
use super::facts;
use super::passthrough::Passthrough;
use super::prove::{self, Unproven};
use super::request::{DryRun, InstallRequest, Trial};
use super::store::{Phase, State, Store};
use super::transaction::{Refused, Session};
use super::undo::Undo;
use super::{persist, show, stop};

/// How long another run of ours is waited for, beyond the wait for the xtables lock.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Installs, or shows what installing would do. Prints the result on stdout.
///
/// # Errors
/// See [`Exit`]; unless it is [`Exit::Left`], the host is as it was before.
pub fn install(request: &InstallRequest) -> Result<(), Failure> {
    match request.dry_run {
        DryRun::Off => Install::run(request),
        DryRun::Rules => show::install_rules(request),
        DryRun::Diff => show::install_diff(request),
    }
}

/// A run of it.
struct Install<'a> {
    request: &'a InstallRequest,
    store: Store,
    session: Session,
    variant: Variant,
    interfaces: Interfaces,
    facts: HostFacts,
    /// What is wanted of each family, less what turned out to be impossible here.
    degraded: Degraded,
}

impl<'a> Install<'a> {
    fn run(request: &'a InstallRequest) -> Result<(), Failure> {
        stop::unless_root()?;
        stop::hold_signals()?;
        let config = &request.config;
        let tools = Tools::find(&config.iptables_executables, std::env::var_os("PATH").as_ref())?;
        let store = Store::open(PATIENCE + Duration::from_secs(config.wait.into()))?;
        confirm::stop_if_pending(&store)?;
        // Under the lock: another run may have just taken ::6 away.
        let interfaces = host::interfaces()?;
        let mut facts = facts::collect(config, &interfaces)?;
        let old = store.load();
        let recorded = old.as_ref().map(State::recorded).unwrap_or_default();
        let session = Session::new(tools, config, recorded, request.adopt, false);

        let situation = session.look()?;
        let Some((variant, why)) = situation.choose(&session.tools) else { return Err(tools::none_found()) };
        tracing::debug!("using the {variant} variant: {why}");
        facts.docker_dns = situation.has_docker_dns(variant);
        facts::check_ipv6_tools(&mut facts, variant, session.tools.of(variant));
        stop::if_unclaimed(&situation)?;
        stop::if_chains_in_use_elsewhere(&situation, variant)?;
        show::warn_of_intruders(&situation);
        stop::if_asked_to()?;

        let degraded = Degraded::new(config);
        let run = Self { request, store, session, variant, interfaces, facts, degraded };
        run.check_ipv6()?;
        facts::warn_of_ssh(config);
        run.apply(situation, old.as_ref())
    }

    /// A dual-stack installation that gets IPv4 alone says so every time.
    fn check_ipv6(&self) -> Result<(), Failure> {
        let plan = self.plan();
        for note in &plan.notes {
            tracing::warn!("{note}");
        }
        let dual = self.request.config.ip_family_mode == IpFamilyMode::DualStack;
        match &self.facts.ipv6 {
            Ipv6Support::Unavailable(why) if dual && self.request.strict => Err(no_ipv6(why)),
            Ipv6Support::Available if dual => {
                if let Some(warning) = firewalld::ipv6_warning() {
                    tracing::warn!("{warning}");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn plan(&self) -> plan::Plan {
        plan::build(&self.request.config, &self.facts)
    }

    /// What is wanted of every family, less what was left out.
    fn wanted(&self) -> BTreeMap<Place, Wanted> {
        let families = self.plan().families.into_iter().map(|plan| plan.family);
        families
            .map(|family| {
                let config = self.degraded.config(family);
                let plan = plan::family_plan(config, &self.facts, family);
                ((self.variant, family), Wanted::plan(&plan, !config.comments.disabled))
            })
            .collect()
    }

    fn apply(mut self, mut situation: Situation, old: Option<&State>) -> Result<(), Failure> {
        let undo = Undo::new(&situation, &self.interfaces, old);
        let first = situation.clone();
        let mut guard = None;
        let mut passthrough =
            Passthrough::new(&self.interfaces, old.is_some_and(|state| state.added_passthrough));
        loop {
            let wanted = self.wanted();
            let six = wanted.contains_key(&(self.variant, Family::V6));
            let done = self.state(&first, &wanted, passthrough.ours(six));
            if situation.changes(&wanted).is_empty() && !passthrough.differs(six) {
                self.persist(&wanted)?;
                if old.is_none_or(|old| !old.says_the_same(&done)) {
                    self.store.note(&done);
                }
                return self.finish(&undo, &first, &wanted, None, false);
            }
            // A run that is killed from here on has to be found by the next one, so what may come is written first.
            if let (Some(Trial { time, .. }), None) = (self.request.confirm, &guard) {
                let time = if self.request.verify { time.saturating_add(prove::AT_MOST) } else { time };
                guard = Some(Guard::start(&mut self.store, &self.session, &undo, time)?);
            }
            let intent = Self::intent(&done, old);
            let next = match self.step(&intent, &mut passthrough, &situation, &wanted) {
                Ok(true) => {
                    self.store.note(&done);
                    break self.finish(&undo, &first, &wanted, guard, true);
                }
                Ok(false) => self.session.look(),
                Err(failure) => Err(failure),
            };
            situation = match next {
                Ok(situation) => situation,
                Err(failure) => {
                    let failure = undo.after(failure, &self.session, &mut self.store);
                    // What could not be undone now can perhaps be when the time is over.
                    if let Some(guard) = guard.filter(|_| failure.exit != Exit::Left) {
                        guard.cancel();
                    }
                    return Err(failure);
                }
            };
        }
    }

    /// Whether all is there now; if not, a part was left out, and the rest is to be tried again.
    fn step(
        &mut self,
        intent: &State,
        passthrough: &mut Passthrough,
        situation: &Situation,
        wanted: &BTreeMap<Place, Wanted>,
    ) -> Result<bool, Failure> {
        self.store.save(intent)?;
        self.session.recorded = intent.recorded();
        let six = wanted.contains_key(&(self.variant, Family::V6));
        if six && passthrough.differs(six) && !self.store.remembers() {
            tracing::info!(
                "::6 is added to {} and an uninstall leaves it there, because nothing can record that it is new",
                self.facts.loopback
            );
        }
        if let Err(error) = passthrough.bring(six) {
            self.lose_ipv6(format!("the address ::6 cannot be added to {}: {error}", self.facts.loopback))?;
            return Ok(false);
        }
        if let Err(refused) = self.session.bring(situation, wanted) {
            self.go_on_without(&refused)?;
            return Ok(false);
        }
        self.persist(wanted)?;
        Ok(true)
    }

    /// All is there. Whether it may stay, packets tell if they are asked, and then perhaps the user.
    fn finish(
        mut self,
        undo: &Undo,
        before: &Situation,
        wanted: &BTreeMap<Place, Wanted>,
        mut guard: Option<Guard>,
        changed: bool,
    ) -> Result<(), Failure> {
        let (format, rules) = (self.request.format, |wanted: &BTreeMap<Place, Wanted>| {
            wanted.iter().map(|((_, family), wanted)| (*family, wanted.rule_count())).collect()
        });
        let mut proof = None;
        if self.request.verify {
            match prove::prove(&self.request.config, &self.facts) {
                Ok(report) => proof = Some(report),
                Err(Unproven { report, failure }) => {
                    let failure = undo.after(failure, &self.session, &mut self.store);
                    let left = failure.exit == Exit::Left;
                    if let Some(guard) = guard.filter(|_| !left) {
                        guard.cancel();
                    }
                    let rules = if left { rules(wanted) } else { before.own_rule_counts() };
                    prove::show(&self.receipt(rules, left), report.as_ref(), format);
                    return Err(failure);
                }
            }
        }
        let trial = self.request.confirm;
        if let (Some(guard), Some(Trial { time, .. }), true) = (&mut guard, trial, proof.is_some()) {
            guard.begin(time);
        }
        show::installed(&self.receipt(rules(wanted), changed), proof.as_ref(), guard.as_ref(), format);
        let Some(guard) = guard else { return Ok(()) };
        drop(self.store);
        guard.announce(trial.is_some_and(|trial| trial.stay), format)
    }

    fn persist(&self, wanted: &BTreeMap<Place, Wanted>) -> Result<(), Failure> {
        let plans = wanted
            .keys()
            .map(|(_, family)| plan::family_plan(self.degraded.config(*family), &self.facts, *family));
        let plan = plan::Plan { families: plans.collect(), notes: Vec::new() };
        let comments = !self.degraded.config(Family::V4).comments.disabled;
        persist::keep(self.request.config.store_firewalld, &plan, self.variant, comments)
    }

    /// Leaves out what was refused, if it can be left out.
    fn go_on_without(&mut self, refused: &Refused) -> Result<(), Failure> {
        let Refused { place: (variant, family), error } = refused;
        if let CommitError::Refused { refusal, .. } = error {
            if *family == Family::V6 && refusal.is_missing_family() {
                return self.lose_ipv6(refusal.words.clone());
            }
            let may_degrade = !self.request.strict && *variant == self.variant;
            if let Some(how) = may_degrade.then(|| self.degraded.leave_out(*family, refusal)).flatten() {
                tracing::warn!("{error}; {family} is installed {how}");
                return Ok(());
            }
        }
        Err(failure(refused, self.request.strict))
    }

    fn lose_ipv6(&mut self, why: String) -> Result<(), Failure> {
        if self.request.strict {
            return Err(no_ipv6(&why));
        }
        tracing::warn!("IPv6 traffic is not redirected: {why}");
        self.facts.ipv6 = Ipv6Support::Unavailable(why);
        Ok(())
    }

    /// What the state file says when all is done.
    fn state(
        &self,
        situation: &Situation,
        wanted: &BTreeMap<Place, Wanted>,
        added_passthrough: bool,
    ) -> State {
        let mut state = State::new(&self.request.config, self.variant, self.facts.sidecar_uid);
        state.phase = Phase::Installed;
        state.added_passthrough = added_passthrough;
        for (place, wanted) in wanted {
            if self.degraded.config(place.1).comments.disabled {
                *state.uncommented_mut(place.1) = situation.records(*place, wanted);
            }
        }
        state
    }

    /// What it says meanwhile: whatever may be there of the old installation or of the new one.
    fn intent(done: &State, old: Option<&State>) -> State {
        let mut intent = State { phase: Phase::Changing, ..done.clone() };
        if let Some(old) = old {
            intent.added_passthrough |= old.added_passthrough;
            intent.uncommented_v4 = merged(&old.uncommented_v4, &done.uncommented_v4);
            intent.uncommented_v6 = merged(&old.uncommented_v6, &done.uncommented_v6);
        }
        intent
    }

    fn receipt(&self, rules: BTreeMap<Family, usize>, changed: bool) -> Receipt {
        Receipt { action: Action::Install, changed, variant: Some(self.variant), rules }
    }
}

fn no_ipv6(why: &str) -> Failure {
    Failure::new(Exit::Host, format!("IPv6 traffic cannot be redirected: {why}"))
        .hint("install with --ip-family-mode ipv4, or without --strict")
}

/// A refusal as the end of a run.
pub(super) fn failure(refused: &Refused, strict: bool) -> Failure {
    let Refused { place: (variant, family), error } = refused;
    let message = format!("the {family} rules ({variant}) could not be committed: {error}");
    match error {
        CommitError::Busy { .. } => {
            Failure::new(Exit::Busy, message).hint("run the command again later, or with a longer --wait")
        }
        // With --wait 0 iptables waits until it is killed.
        CommitError::Run { holder: Some(_), .. } => {
            Failure::new(Exit::Busy, message).hint("run the command again when that process has ended")
        }
        CommitError::Refused { .. } if strict => Failure::new(Exit::Host, message)
            .hint("without --strict, parts that can be left out are left out"),
        CommitError::Refused { .. } => Failure::new(Exit::Host, message)
            .hint("the kernel or the program lacks something that is required; its own words above say what"),
        CommitError::Run { .. } => Failure::new(Exit::Failed, message)
            .hint("find out what holds that program up, and run the command again"),
    }
}
