//! All or nothing: commits what a plan needs, and takes everything back when a part of it cannot be had.
//!
//! The kernel commits a table as a whole, but nothing beyond it. What holds several tables and families together is
//! done here: everything is observed first, what failed is told from what changed meanwhile by observing again, and
//! the way back is the way from what is there then to what was there first.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::backend::Backend;
use crate::backend::iptables::commit::{Commit, CommitError, LockWait, Working};
use crate::backend::iptables::observe::lacks_rights;
use crate::backend::iptables::situation::{Changes, Place, Situation, Unfound};
use crate::backend::iptables::tools::{Tools, Variant};
use crate::backend::iptables::transition;
use crate::backend::iptables::wanted::Wanted;
use crate::backend::nftables::change::differences;
use crate::backend::nftables::commit as native;
use crate::backend::nftables::foreign::is_installation;
use crate::backend::nftables::observe::Seen as SeenTable;
use crate::backend::nftables::send::SendError;
use crate::config::Config;
use crate::config::values::BackendChoice;
use crate::exit::{Exit, Failure};
use crate::passing::Passing as _;

use super::dns_flows::DnsFlows;
use super::journal::Journal;
use super::look::{self, Record, Sight};
use super::open::OpenConnections;
use super::patience::Patience;
use super::refused::Refused;
use super::scene::{Goal, Scene, Steps};
use super::store::State;

/// How often a script is tried again that was refused without a word, and the pause before that.
const DOUBTS: u32 = 2;
const DOUBT: Duration = Duration::from_millis(100);

/// What is to be done when the way back fails.
const BY_HAND: &str =
    "run 'tproxy uninstall', or correct the lines above by hand ('-' is to be removed, '+' to be added)";

/// What is to be done where they are of no use.
const WITHOUT_PROGRAMS: &str = "run the command again with --backend nftables, which needs no program";

/// What every step of a run needs.
#[derive(Debug, Clone)]
pub struct Session {
    /// The programs.
    pub tools: Tools,
    /// The way that the configuration names.
    pub choice: BackendChoice,
    /// Whether that was left to us, and the programs turned out not to read what is there.
    given_up: bool,
    /// How much has to be seen, whatever way is chosen.
    least: Sight,
    /// What an earlier run recorded.
    pub record: Record,
    /// How the xtables lock is waited for.
    pub lock_wait: LockWait,
    /// How often something is tried again that failed for a reason that passes.
    pub patience: Patience,
    /// As whom the sidecar runs, where that is known.
    pub sidecar: Option<u32>,
    /// Take over rules that look like ours.
    pub adopt: bool,
    /// Remove other people's jumps to our chains.
    pub force: bool,
}

impl Session {
    /// For this configuration.
    pub fn new(tools: Tools, config: &Config, old: Option<&State>, adopt: bool, force: bool) -> Self {
        Self {
            tools,
            choice: config.backend,
            given_up: false,
            least: if adopt { Sight::All } else { Sight::Ours },
            record: old.map(Record::from).unwrap_or_default(),
            lock_wait: LockWait { seconds: config.wait, interval: config.wait_interval },
            patience: Patience::of(config),
            sidecar: None,
            adopt,
            force,
        }
    }

    /// What is there when a run begins. Where the programs do not read it and nothing of ours is known to be there, a
    /// run that was not told by what way to go does without them from here on.
    ///
    /// # Errors
    /// As those of [`Session::look`].
    pub fn first_look(&mut self) -> Result<Scene, Failure> {
        let native = self.patience.persist(look::native)?;
        for (variant, family) in look::out_of_reach(&self.tools, &self.record)? {
            tracing::warn!("there are {family} tables of the {variant} variant, but no program to read them");
        }
        let mut said = None;
        let scene = match self.patience.persist(|| self.look_beside(native.clone())) {
            Ok(scene) => scene,
            // It says nothing of what the programs are good for.
            Err(failure) if failure.passing => return Err(failure),
            Err(failure) => {
                let choice = BackendChoice::Nftables;
                let without = Self { choice, adopt: false, least: Sight::Ours, ..self.clone() };
                // What is needed then is not read either.
                let Ok(scene) = without.look_beside(native) else { return Err(failure) };
                if self.adopt || !self.may_choose(&scene) {
                    let hint = match lacks_rights(Variant::Legacy) {
                        // It is what the failure's own hint is about.
                        Some(remedy) if failure.hint.as_ref() == Some(&remedy) => {
                            format!("{remedy}; or {WITHOUT_PROGRAMS}")
                        }
                        _ => WITHOUT_PROGRAMS.to_owned(),
                    };
                    return Err(failure.hint(hint));
                }
                tracing::warn!("{failure}");
                self.choice = BackendChoice::Nftables;
                self.given_up = true;
                said = Some(failure);
                scene
            }
        };
        for (_, failure) in scene.unread.iter().filter(|(_, failure)| Some(failure) != said.as_ref()) {
            tracing::warn!("{failure}; whatever is there stays as it is");
        }
        Ok(scene)
    }

    /// By what way to go, and why; `both` says that an installation without IPv6 is none. `None`: there is no way.
    pub fn choose(&self, scene: &Scene, both: bool) -> Option<(Backend, &'static str)> {
        if self.given_up {
            return Some((Backend::Nftables, "iptables cannot read the rules that are here"));
        }
        let (backend, why) = scene.choose(self.choice, &self.tools)?;
        let lacks_ipv6 = backend.variant().is_some_and(|variant| self.tools.of(variant).v6.is_none());
        if both && lacks_ipv6 && self.may_choose(scene) {
            return Some((Backend::Nftables, "no ip6tables was found, and --strict wants IPv6 too"));
        }
        Some((backend, why))
    }

    /// Whether any way will do: what is installed stays where it is, and what was named was meant.
    pub fn may_choose(&self, scene: &Scene) -> bool {
        let free = self.choice == BackendChoice::Auto && self.tools.named.is_none();
        free && !scene.iptables.is_installed()
    }

    /// What is there now, and whose it is.
    ///
    /// # Errors
    /// The kernel or a program does not tell.
    pub fn look(&self) -> Result<Scene, Failure> {
        self.patience.persist(|| self.look_once())
    }

    fn look_once(&self) -> Result<Scene, Failure> {
        self.look_beside(look::native()?)
    }

    fn look_beside(&self, seen: Option<SeenTable>) -> Result<Scene, Failure> {
        let (generation, native) = seen.map_or((None, None), |seen| (Some(seen.generation), seen.table));
        // Where no iptables is going to be used, its programs are asked only for rules of ours that have to go.
        let sight = match self.choice {
            BackendChoice::Nftables => Sight::Ours,
            BackendChoice::Auto if native.as_ref().is_some_and(|table| is_installation(&table.table)) => {
                Sight::Ours
            }
            BackendChoice::Auto | BackendChoice::Iptables => Sight::ToChoose,
        };
        let seen = look::iptables(&self.tools, &self.record, sight.max(self.least))?;
        let mut iptables = Situation::new(seen.rules, &self.record.rules);
        if self.adopt {
            iptables.adopt();
        }
        if self.force {
            iptables.seize_jumps();
        }
        let (legacy, docker_dns, unread) = (seen.legacy, seen.docker_dns, seen.unread);
        Ok(Scene { iptables, native, generation, legacy, docker_dns, unread })
    }

    /// Brings `scene` to `goal`, again from the start when a foreign change or lock was in the way, or a lack that
    /// passes. The journal gets what was committed.
    ///
    /// # Errors
    /// The kernel or a program refused a part and would again. What was committed until then is still there:
    /// [`Session::take_back`] is for that.
    pub fn bring(&self, scene: &Scene, goal: &Goal, journal: &mut Journal) -> Result<(), Refused> {
        let flows = DnsFlows::new(scene, goal);
        let mut now = None;
        let mut tries = self.patience.tries();
        let mut doubts = DOUBTS;
        let mut unfound = Unfound::new();
        loop {
            let scene = now.as_ref().unwrap_or(scene);
            let open = OpenConnections::before(scene, goal, self.sidecar);
            let committed = self.commit_all(scene, scene.steps_with(goal, &unfound), goal, journal);
            open.after();
            let Err(refused) = committed else {
                let Some(new) = self.strayed(goal)? else {
                    flows.forget();
                    return Ok(());
                };
                if doubts > 0 {
                    doubts -= 1;
                    tracing::info!("iptables put rules to other places than it was told; trying again");
                } else if !tries.again(&Refused::Strayed) {
                    return Err(Refused::Strayed);
                }
                now = Some(new);
                continue;
            };
            let again = match &refused {
                Refused::Iptables { error: CommitError::Busy { .. }, .. } => tries.again(&refused),
                _ if refused.is_passing() => tries.again(&refused),
                // A lack of memory sounds like that too.
                Refused::Iptables { error: CommitError::Refused { refusal, .. }, .. }
                    if !refusal.says_why() && doubts > 0 =>
                {
                    doubts -= 1;
                    tries.after(&refused, DOUBT)
                }
                // A refused block tells not reliably why; that the rules are others than a moment ago does.
                Refused::Iptables { error: CommitError::Refused { .. }, .. } => match self.look_once() {
                    Ok(new) if !new.same_rules(scene) => {
                        let again = tries.after(&refused, Duration::ZERO);
                        now = Some(new);
                        again.then_some(()).ok_or(refused)?;
                        continue;
                    }
                    // It may have been written in another revision of a match than this program writes now.
                    Ok(new) if refused.is_unfound(&mut unfound) => {
                        tracing::info!("{refused}; trying again by its number");
                        now = Some(new);
                        continue;
                    }
                    _ => false,
                },
                Refused::Iptables { error: CommitError::Broken { .. } | CommitError::Run { .. }, .. }
                | Refused::Native(_)
                | Refused::Strayed => false,
            };
            if !again {
                return Err(refused);
            }
            match self.look() {
                Ok(new) => now = Some(new),
                Err(_) => return Err(refused),
            }
        }
    }

    /// What is there, if rules are not in the places that a program was told although it ended with 0.
    ///
    /// # Errors
    /// They are not, and nobody tells what is there.
    fn strayed(&self, goal: &Goal) -> Result<Option<Scene>, Refused> {
        if goal.has_landed() {
            return Ok(None);
        }
        let new = self.look().map_err(|_| Refused::Strayed)?;
        Ok((!new.steps(goal).is_empty()).then_some(new))
    }

    /// Goes back to what was ours before this run.
    ///
    /// # Errors
    /// Something is left that should not be; the failure lists it ([`Exit::Left`]). Where the rules cannot be looked at
    /// any more, that is what `journal` says was committed.
    pub fn take_back(&self, before: &Goal, journal: Option<&Journal>) -> Result<(), Failure> {
        // Rules that go back into shared chains go to their places among others', so all have to be seen.
        let shared = before.iptables.values().any(|wanted| wanted.rule_count() > 0);
        let session = Self {
            least: if shared { Sight::All } else { self.least },
            patience: self.patience.on_the_way_back(),
            ..self.clone()
        };
        session.go_back(before).map_err(|blind| match blind {
            Stuck::Seen(failure) => failure,
            Stuck::Blind(failure) => {
                let left = match journal {
                    Some(journal) => {
                        format!("; committed before that, and perhaps still there:{}", journal.rules())
                    }
                    None => "; what was installed is perhaps still there".to_owned(),
                };
                Failure::new(Exit::Left, format!("the way back failed too: {failure}{left}")).hint(BY_HAND)
            }
        })
    }

    fn go_back(&self, before: &Goal) -> Result<(), Stuck> {
        let scene = self.look().map_err(Stuck::Blind)?;
        let reworded = reworded(&scene, before);
        let Err(refused) = self.bring(&scene, before, &mut Journal::default()) else {
            for rule in reworded {
                tracing::warn!(
                    "its comment had characters that iptables-restore cannot read; it is back with '?': {rule}"
                );
            }
            return Ok(());
        };
        let scene = self.look().map_err(|failure| {
            Stuck::Blind(Failure { message: format!("{refused}; {}", failure.message), ..failure })
        })?;
        let mut left = String::new();
        for (place, changes) in scene.steps(before).iptables {
            for line in changes.iter().flat_map(|change| &change.diff) {
                let _ = write!(left, "\n  {} {line}", place.1); // cannot fail
            }
        }
        for line in differences(scene.native.as_ref(), before.native.as_ref()) {
            let _ = write!(left, "\n  {line}");
        }
        Err(Stuck::Seen(
            Failure::new(
                Exit::Left,
                format!("the way back failed too: {refused}; still different from before:{left}"),
            )
            .hint(BY_HAND),
        ))
    }

    /// Commits all; where rules move from one backend to the other, the new ones first, so that traffic is
    /// redirected at every moment.
    fn commit_all(
        &self,
        scene: &Scene,
        mut steps: Steps,
        goal: &Goal,
        journal: &mut Journal,
    ) -> Result<(), Refused> {
        // What is committed before would be taken for a change by others.
        let first = goal.native.is_some() || steps.iptables.is_empty();
        let native = |journal: &mut Journal| {
            if steps.native.is_nothing() {
                return Ok(());
            }
            let seen =
                scene.generation.filter(|_| first).map(|generation| (generation, scene.native.as_ref()));
            let done = native::bring_from(seen, goal.native.as_ref());
            if done.as_ref().map_or_else(SendError::may_have_changed, |()| true) {
                journal.changed_table();
            }
            done.map_err(Refused::Native)
        };
        if goal.native.is_some() {
            native(journal)?;
            self.commit_iptables(&mut steps.iptables, &goal.iptables, journal)
        } else {
            self.commit_iptables(&mut steps.iptables, &goal.iptables, journal)?;
            native(journal)
        }
    }

    /// Commits every place; where rules move from one variant to the other, the new ones first, so that traffic is
    /// redirected at every moment. All programs of a variant are started before the first of them has anything to
    /// read, so that what cannot be started does not leave half of it.
    fn commit_iptables(
        &self,
        changes: &mut Changes,
        wanted: &BTreeMap<Place, Wanted>,
        journal: &mut Journal,
    ) -> Result<(), Refused> {
        let redirects = |of: Variant| wanted.iter().any(|((variant, _), w)| *variant == of && w.redirects());
        let mut variants = Variant::BOTH;
        variants.sort_by_key(|variant| !redirects(*variant));
        for variant in variants {
            // Only places that were observed or planned have changes, and both need the programs.
            let commits: Vec<(Place, Commit)> = changes
                .iter()
                .filter(|((of, _), _)| *of == variant)
                .filter_map(|(place, changes)| {
                    let programs = self.tools.of(variant).programs(place.1)?;
                    let script = transition::script(changes);
                    tracing::debug!("{} gets:\n{script}", programs.restore.display());
                    Some((*place, Commit::new(programs, variant, self.lock_wait, script)))
                })
                .collect();
            let refused = |place: Place| move |error| Refused::Iptables { place, error };
            let mut waiting = Vec::with_capacity(commits.len());
            for (place, commit) in &commits {
                waiting.push((*place, commit, commit.hold().map_err(refused(*place))?));
            }
            let mut judged = |place: Place, commit: &Commit, done: Result<(), CommitError>| {
                if done.as_ref().map_or_else(|error| error.may_have_committed(commit.script()), |()| true) {
                    journal.committed(place, changes);
                }
                done.map_err(refused(place))
            };
            match variant {
                // Side by side: their transactions are independent, and each waits mostly for the kernel.
                Variant::Nft => {
                    let mut working = Vec::with_capacity(waiting.len());
                    for (place, commit, waiting) in waiting {
                        working.push((place, commit, waiting.release()));
                    }
                    let mut all = Ok(());
                    for (place, commit, working) in working {
                        let done = working.and_then(Working::finish);
                        all = all.and(judged(place, commit, done));
                    }
                    all?;
                }
                // They would only wait for each other's lock.
                Variant::Legacy => {
                    for (place, commit, waiting) in waiting {
                        judged(place, commit, waiting.release().and_then(Working::finish))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Rules that come back, but not to the letter.
fn reworded(scene: &Scene, before: &Goal) -> Vec<String> {
    let mut rules = Vec::new();
    for (place, changes) in scene.steps(before).iptables {
        let Some(wanted) = before.iptables.get(&place) else { continue };
        let lines = changes.iter().flat_map(|change| &change.diff).filter(|line| wanted.rewords(line));
        rules.extend(lines.map(|line| format!("{} {line}", place.1)));
    }
    rules
}

/// A way back that did not reach its end.
enum Stuck {
    /// What is left was seen.
    Seen(Failure),
    /// It could not be looked at.
    Blind(Failure),
}
