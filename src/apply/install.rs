//! `tproxy install`.

use std::time::Duration;

use crate::backend::iptables::owned::merged;
use crate::backend::iptables::tools::{self, Tools};
use crate::backend::{Backend, firewalld};
use crate::config::values::{BackendChoice, IpFamilyMode};
use crate::exit::{Exit, Failure};
use crate::host::{self, HostFacts, Interfaces, Ipv6Support, PASSTHROUGH};
use crate::passing::Passing;
use crate::plan::{self, Family};
use crate::present::{Action, Receipt};
use crate::sys::sockstat;
use crate::verify::turn::{self, Turn};

use super::confirm;
use super::degrade::Degraded;
use super::doors;
use super::facts;
use super::guard::Guard;
use super::guests;
use super::journal::Journal;
use super::passthrough::Passthrough;
use super::patience::Patience;
use super::persist::Kept;
use super::prove::{self, Unproven};
use super::request::{DryRun, InstallRequest, Trial};
use super::scene::{Goal, Scene};
use super::store::{Phase, State, Store};
use super::transaction::Session;
use super::undo::Undo;
use super::warnings::Warnings;
use super::{first, owners, persist, show, ssh, stop, sweep, translated};

mod fall_back;

/// What an installation ends with whose traffic foreign rules keep from the sidecar.
const KEPT_AWAY: &str =
    "kuma-dp can be run now, but foreign rules keep some of the traffic from it: see the warnings";
/// The same where a DNS server on this host is asked what it asks.
const WITHOUT_END: &str = "kuma-dp can be run now, but DNS questions then go round between it and a server on this host: see the warnings";

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
    backend: Backend,
    interfaces: Interfaces,
    facts: HostFacts,
    /// What is wanted of each family, less what turned out to be impossible here.
    degraded: Degraded<'a>,
    /// Whether another backend may be taken than the one that was chosen.
    may_switch: bool,
    /// What is to be said of the installation; as long as it may become another one, that is kept.
    warnings: Warnings,
    /// Whether it is said that nothing will know the rules again.
    warned: bool,
    /// Rules of which nobody knows whether they belong to the installation that was taken over.
    unattributed: Vec<String>,
    /// What was there before.
    undo: Undo,
    /// What of that may be other now.
    journal: Journal,
    /// What keeps the sidecar from working.
    instead: Option<String>,
    /// Whether `::6` is there and may be from an installation whose record could not be read.
    unsure_of_address: bool,
    /// What a setting of firewalld does to redirected IPv6 connections.
    ipv6_warning: Option<String>,
    /// What became of firewalld's configuration.
    file: Kept,
}

impl<'a> Install<'a> {
    fn run(request: &'a InstallRequest) -> Result<(), Failure> {
        stop::unless_root("run it with sudo, or look at the rules that it would make with --dry-run")?;
        let config = &request.config;
        // Whatever has to be read from file systems: should one not answer, any signal ends the run here.
        let mut store = Store::unlocked()?;
        store.must_answer()?;
        let read = facts::read(config)?;
        persist::must_answer(config.store_firewalld && config.backend != BackendChoice::Nftables)?;
        let ipv6_warning = firewalld::ipv6_warning();
        stop::hold_signals()?;
        let tools = Tools::find(&config.iptables_executables, std::env::var_os("PATH").as_ref())?;
        store.lock(PATIENCE + Duration::from_secs(config.wait.into()))?;
        sweep::sweep(&store);
        store.sweep_unfinished()?;
        confirm::stop_if_pending(&store)?;
        if request.verify {
            // Before anything is changed: no installation is taken back because others verify all the time.
            store.keep(Turn::take(turn::MORE_PATIENCE)?);
        }
        // Under the lock: another run may have just taken ::6 away.
        let interfaces = Patience::of(config).persist(host::interfaces)?;
        let mut facts = read.and(&interfaces);
        host::check_users(config, facts.sidecar_uid)?;
        let found = store.find()?;
        let unsure_of_address = found.hides_address() && interfaces.has(PASSTHROUGH);
        let old = found.clone().state();
        let mut session = Session::new(tools, config, old.as_ref(), request.adopt, false);
        session.sidecar = Some(facts.sidecar_uid);

        let scene = session.first_look()?;
        let both = facts::demand_ipv6(request, &facts);
        let Some((backend, why)) = session.choose(&scene, both) else { return Err(tools::none_found()) };
        show::choice(backend, why, config.backend);
        facts.docker_dns = scene.has_docker_dns(backend);
        let (translated, translating) = translated::find(config, &facts, &scene, backend);
        facts.translated = translated;
        if let Backend::Iptables(variant) = backend {
            facts::check_ipv6_tools(&mut facts, variant, session.tools.of(variant));
        }
        stop::if_owned(&scene)?;
        stop::if_unclaimed(&scene.iptables)?;
        stop::if_chains_in_use_elsewhere(&scene.iptables, backend)?;
        show::warn_of_intruders(&scene);
        stop::warn_of_doubtful(&scene.iptables);
        show::warn_of_exempted(&scene, config, &facts, backend);
        stop::if_asked_to()?;

        let unattributed = stop::unattributed(&scene.iptables);
        let degraded = Degraded::new(config);
        let may_switch = backend != Backend::Nftables && session.may_choose(&scene);
        let warnings = Warnings::new(may_switch);
        let undo = Undo::new(&scene, &interfaces, &found, config.store_firewalld);
        let mut run = Self {
            request,
            store,
            session,
            backend,
            interfaces,
            facts,
            degraded,
            may_switch,
            warnings,
            warned: false,
            unattributed,
            undo,
            journal: Journal::default(),
            instead: None,
            unsure_of_address,
            ipv6_warning,
            file: Kept::AsItWas,
        };
        let families = run.check_ipv6()?;
        let sockets = sockstat::counts();
        if let Some(warning) = translated::warning(&translating) {
            run.warnings.warn(warning, None);
        }
        ssh::warn(config, sockets);
        run.warn_of_guests(&families);
        if !(sockets.are_without_tcp() && sockets.are_without_udp()) {
            run.instead = owners::warn_of_strangers(config, &run.facts, &families, &mut run.warnings);
        }
        if owners::warn_of_own_resolvers(config, &run.facts, run.interfaces.addresses(), &mut run.warnings) {
            run.instead.get_or_insert_with(|| WITHOUT_END.to_owned());
        }
        run.apply(scene, old.as_ref())
    }

    /// A dual-stack installation that gets IPv4 alone says so every time. The families that it gets.
    fn check_ipv6(&mut self) -> Result<Vec<Family>, Failure> {
        facts::require_ipv6(self.request, &self.facts)?;
        facts::require_dns(self.request, &self.facts)?;
        let plan = plan::build(&self.request.config, &self.facts);
        for note in plan.notes {
            self.warnings.warn(note, None);
        }
        let families = plan.families.iter().map(|plan| plan.family).collect();
        let dual = self.request.config.ip_family_mode == IpFamilyMode::DualStack;
        if dual
            && self.facts.ipv6 == Ipv6Support::Available
            && let Some(warning) = self.ipv6_warning.take()
        {
            self.warnings.warn(warning, None);
        }
        Ok(families)
    }

    /// Whoever this host forwards for should not learn it from a failing application.
    fn warn_of_guests(&mut self, families: &[Family]) {
        for (what, cure) in guests::findings(&self.request.config, self.interfaces.links(), families) {
            self.warnings.warn(what, Some(cure));
        }
    }

    fn apply(mut self, mut scene: Scene, old: Option<&State>) -> Result<(), Failure> {
        let first = scene.clone();
        let mut guard: Option<Guard> = None;
        // Whether the state file says that a change is under way.
        let mut intended = false;
        let mut passthrough =
            Passthrough::new(&self.interfaces, old.is_some_and(|state| state.added_passthrough));
        loop {
            let plan = self.degraded.plan(&self.facts);
            let commented = |family| !self.degraded.config(family).comments.disabled;
            let goal = Goal::of(&plan, self.backend, commented);
            let six = plan.families.iter().any(|plan| plan.family == Family::V6);
            // Lists make it long; what the kernel does with the rest takes memory too.
            drop(plan);
            let done = self.state(&first, &goal, passthrough.ours(six));
            if scene.steps(&goal).is_empty() && !passthrough.differs(six) {
                // An earlier try may have committed some of it.
                if let Err(failure) = self.persist() {
                    return Err(self.back(guard, failure));
                }
                let same = old.filter(|old| old.says_the_same(&done));
                if intended || same.is_none() {
                    self.store.note(same.unwrap_or(&done));
                }
                // An earlier try may have done all of it before it was refused a part.
                let address_changed = passthrough.is_there() != self.interfaces.has(PASSTHROUGH);
                let changed = address_changed || self.file == Kept::Written || !first.steps(&goal).is_empty();
                if let Some(guard) = guard.take_if(|_| !changed) {
                    guard.cancel();
                }
                return self.finish(&first, &goal, guard, changed);
            }
            // A run that is killed from here on has to be found by the next one, so what may come is written first.
            let intent = Self::intent(&done, old);
            if let (Some(Trial { time, .. }), None) = (self.request.confirm, &guard) {
                guard = Some(Guard::start(
                    &mut self.store,
                    &self.session,
                    &self.undo,
                    &intent,
                    time,
                    self.request.verify,
                )?);
            }
            intended = true;
            let next = match self.step(&intent, &mut passthrough, &scene, &goal, six) {
                Ok(true) => {
                    self.store.note(&done);
                    break self.finish(&first, &goal, guard, true);
                }
                Ok(false) => self.session.look(),
                Err(failure) => Err(failure),
            };
            scene = match next {
                Ok(scene) => scene,
                Err(failure) => return Err(self.back(guard, failure)),
            };
        }
    }

    /// Goes back after a failure, and says in its message how that went.
    fn back(&mut self, guard: Option<Guard>, failure: Failure) -> Failure {
        let failure = self.undo.after(failure, &self.session, &mut self.store, &self.journal);
        // What could not be undone now can perhaps be when the time is over.
        if let Some(guard) = guard.filter(|_| failure.exit != Exit::Left) {
            guard.cancel();
        }
        failure
    }

    /// Whether all is there now; if not, a part was left out, and the rest is to be tried again.
    fn step(
        &mut self,
        intent: &State,
        passthrough: &mut Passthrough,
        scene: &Scene,
        goal: &Goal,
        six: bool,
    ) -> Result<bool, Failure> {
        self.store.save(intent)?;
        self.session.record.rules = intent.recorded();
        if six && passthrough.differs(six) && !self.store.remembers() {
            tracing::info!(
                "::6 is added to {} and an uninstall leaves it there, because nothing can record that it is new",
                self.facts.loopback
            );
        }
        let unknown = goal.iptables.keys().any(|place| self.degraded.config(place.1).comments.disabled);
        if unknown && !self.store.remembers() && !self.warned {
            self.warned = true;
            let what = "the rules carry no comments, and nothing can record which are ours: to change or remove them, the \
                        next run needs --adopt";
            self.warnings.warn(what.to_owned(), Some("--backend nftables has a table of its own".to_owned()));
        }
        if passthrough.differs(six) {
            self.journal.touches_address(passthrough.interface());
        }
        if let Err(error) = self.session.patience.persist(|| passthrough.bring(six)) {
            let why = format!("the address ::6 cannot be added to {}: {error}", self.facts.loopback);
            if error.is_passing() {
                return Err(Failure::new(Exit::Failed, why).hint("run the command again"));
            }
            self.lose_ipv6(why)?;
            return Ok(false);
        }
        if let Err(refused) = self.session.bring(scene, goal, &mut self.journal) {
            self.go_on_after(&refused, scene)?;
            return Ok(false);
        }
        self.persist()?;
        Ok(true)
    }

    /// All is there. Whether it may stay, packets tell if they are asked, and then perhaps the user.
    fn finish(
        mut self,
        before: &Scene,
        goal: &Goal,
        mut guard: Option<Guard>,
        changed: bool,
    ) -> Result<(), Failure> {
        self.warnings.say();
        // Known only when the rules are there.
        let families = goal.redirected();
        if first::say(&self.request.config, &self.facts, self.backend, &families, before) {
            self.instead.get_or_insert_with(|| KEPT_AWAY.to_owned());
        }
        let format = self.request.format;
        let mut proof = None;
        if self.request.verify {
            match prove::prove(&self.request.config, &self.facts, self.request.written.as_ref()) {
                Ok(report) => proof = Some(report),
                Err(Unproven { report, failure }) => {
                    // The host that went back already proves nothing.
                    let over = guard.as_mut().and_then(|guard| guard.check().err());
                    let report = report.filter(|_| over.is_none());
                    let failure = self.back(guard, over.unwrap_or(failure));
                    let left = failure.exit == Exit::Left;
                    let there = if left {
                        self.receipt(goal, true)
                    } else {
                        let (backends, rules) = (before.installed(), before.own_rules());
                        let unattributed = self.unattributed.clone();
                        Receipt { unattributed, ..Receipt::new(Action::Install, false, backends, rules) }
                    };
                    prove::show(&there, report.as_ref(), format);
                    return Err(failure);
                }
            }
        }
        let trial = self.request.confirm;
        if let (Some(guard), Some(Trial { time, .. }), true) = (&mut guard, trial, proof.is_some()) {
            guard.begin(time);
        }
        if let Some(Err(failure)) = guard.as_mut().map(Guard::check) {
            return Err(self.back(guard, failure));
        }
        let unheard = doors::unheard(&self.request.config, &self.facts, &families);
        let receipt = self.receipt(goal, changed);
        // Whoever reads slowly must not keep others from their turn, least of all the way back.
        drop(self.store);
        show::installed(&receipt, &unheard, proof.as_ref(), guard.as_ref(), format);
        let Some(guard) = guard else {
            if trial.is_some() {
                tracing::info!("{}", no_trial(changed));
            }
            return Ok(());
        };
        guard.announce(trial.is_some_and(|trial| trial.stay), format)
    }

    fn persist(&mut self) -> Result<(), Failure> {
        if persist::may_write(self.request.config.store_firewalld, self.backend) {
            self.undo.before_firewalld(&mut self.journal);
        }
        let comments = !self.degraded.config(Family::V4).comments.disabled;
        let plan = || self.degraded.plan(&self.facts);
        let stores = self.request.config.store_firewalld;
        let kept = persist::keep(stores, plan, self.backend, comments)?;
        if kept == Kept::Written {
            self.file = kept;
        }
        Ok(())
    }

    /// What the state file says when all is done.
    fn state(&self, scene: &Scene, goal: &Goal, added_passthrough: bool) -> State {
        let mut state = State::new(&self.request.config, self.backend, self.facts.sidecar_uid);
        state.phase = Phase::Installed;
        state.network_namespace = self.store.identity().inode;
        state.added_passthrough = added_passthrough;
        state.unsure_of_address = self.unsure_of_address && !added_passthrough;
        state.left_out = self.degraded.left_out().to_vec();
        for (place, wanted) in &goal.iptables {
            if self.degraded.config(place.1).comments.disabled {
                *state.uncommented_mut(place.1) = scene.iptables.records(*place, wanted);
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
            intent.former = old.formers(done);
        }
        intent
    }

    fn receipt(&self, goal: &Goal, changed: bool) -> Receipt {
        Receipt {
            unattributed: self.unattributed.clone(),
            instead: self.instead.clone(),
            ..Receipt::new(Action::Install, changed, vec![self.backend], goal.rules())
        }
    }
}

/// Why there is nothing to confirm; `changed`: a file was, beside rules that did not.
fn no_trial(changed: bool) -> &'static str {
    if changed {
        "the rules did not change, so there is nothing to confirm; firewalld's direct.xml did, and stays so"
    } else {
        "nothing changed, so there is nothing to confirm"
    }
}
