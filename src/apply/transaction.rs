//! All or nothing: commits what a plan needs, and takes everything back when a part of it cannot be had.
//!
//! The kernel commits a table as a whole, but nothing beyond it. What holds several tables and families together is
//! done here: everything is observed first, what failed is told from what changed meanwhile by observing again, and
//! the way back is the way from what is there then to what was there first.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::backend::Backend;
use crate::backend::iptables::commit::{Commit, CommitError, LockWait, Turn};
use crate::backend::iptables::situation::{Changes, Place, Situation};
use crate::backend::iptables::tools::{Tools, Variant};
use crate::backend::iptables::transition::{self, Wanted};
use crate::backend::nftables::change::differences;
use crate::backend::nftables::commit as native;
use crate::backend::nftables::decode::Observed;
use crate::backend::nftables::foreign::is_installation;
use crate::backend::nftables::send::SendError;
use crate::config::Config;
use crate::config::values::BackendChoice;
use crate::exit::{Exit, Failure};
use crate::sys::signal;

use super::dns_flows::DnsFlows;
use super::look::{self, Record, Sight};
use super::open::OpenConnections;
use super::scene::{Goal, Scene, Steps};
use super::store::State;

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
    /// Tries after the first one.
    pub max_retries: u32,
    /// Pause before a try that waits for somebody else.
    pub pause: Duration,
    /// Take over rules that look like ours.
    pub adopt: bool,
    /// Remove other people's jumps to our chains.
    pub force: bool,
}

/// A try that did not succeed.
#[derive(Debug)]
pub enum Refused {
    /// By the iptables programs.
    Iptables {
        /// Where.
        place: Place,
        /// Why.
        error: CommitError,
    },
    /// In our own table.
    Native(SendError),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iptables { error, .. } => error.fmt(f),
            Self::Native(error) => error.fmt(f),
        }
    }
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
            max_retries: config.retry.max_retries,
            pause: config.retry.sleep_between_retries,
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
        let native = look::native()?;
        for (variant, family) in look::out_of_reach(&self.tools, &self.record)? {
            tracing::warn!("there are {family} tables of the {variant} variant, but no program to read them");
        }
        let mut said = None;
        let scene = match self.look_beside(native.clone()) {
            Ok(scene) => scene,
            Err(failure) => {
                let choice = BackendChoice::Nftables;
                let without = Self { choice, adopt: false, least: Sight::Ours, ..self.clone() };
                // What is needed then is not read either.
                let Ok(scene) = without.look_beside(native) else { return Err(failure) };
                if self.adopt || !self.may_choose(&scene) {
                    return Err(failure.hint(WITHOUT_PROGRAMS));
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
    pub fn look(&self) -> Result<Scene, Failure> {
        self.look_beside(look::native()?)
    }

    fn look_beside(&self, native: Option<Observed>) -> Result<Scene, Failure> {
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
        Ok(Scene { iptables, native, docker_dns: seen.docker_dns, unread: seen.unread })
    }

    /// Brings `situation` to `wanted`, again from the start when somebody else's change or lock was in the way.
    ///
    /// # Errors
    /// The kernel or a program refused a part and would again. What was committed until then is still there:
    /// [`Session::take_back`] is for that.
    pub fn bring(&self, scene: &Scene, goal: &Goal) -> Result<(), Refused> {
        self.bring_pausing(scene, goal, |pause| signal::sleep(pause).is_ok())
    }

    /// `pause` says whether to go on after it.
    fn bring_pausing(
        &self,
        scene: &Scene,
        goal: &Goal,
        pause: impl Fn(Duration) -> bool,
    ) -> Result<(), Refused> {
        let flows = DnsFlows::new(scene, goal);
        let mut scene = scene.clone();
        for attempt in 0..=self.max_retries {
            let open = OpenConnections::before(&scene, goal);
            let tried = self.commit_all(&scene.steps(goal), goal);
            open.after();
            let Err(refused) = tried else {
                flows.forget();
                return Ok(());
            };
            if attempt == self.max_retries {
                return Err(refused);
            }
            match refused {
                Refused::Iptables { error: CommitError::Busy { .. }, .. } => {
                    tracing::info!(
                        "{refused}; trying again in {:?} ({} of {})",
                        self.pause,
                        attempt + 1,
                        self.max_retries
                    );
                    if !pause(self.pause) {
                        return Err(refused);
                    }
                    match self.look() {
                        Ok(now) => scene = now,
                        Err(_) => return Err(refused),
                    }
                }
                // A refused block tells not reliably why; that the rules are others than a moment ago does.
                Refused::Iptables { error: CommitError::Refused { .. }, .. } => match self.look() {
                    Ok(now) if !now.same_rules(&scene) => {
                        tracing::debug!("the rules changed meanwhile: {refused}");
                        scene = now;
                    }
                    _ => return Err(refused),
                },
                Refused::Iptables { error: CommitError::Run { .. }, .. } | Refused::Native(_) => {
                    return Err(refused);
                }
            }
        }
        Ok(())
    }

    /// Goes back to what was ours before this run.
    ///
    /// # Errors
    /// Something is left that should not be; the failure lists it ([`Exit::Left`]).
    pub fn take_back(&self, before: &Goal) -> Result<(), Failure> {
        // Rules that go back into shared chains go to their places among others', so all have to be seen.
        let all_seen = Self { least: Sight::All, ..self.clone() };
        let shared = before.iptables.values().any(|wanted| wanted.rule_count() > 0);
        let session = if shared { &all_seen } else { self };
        session.go_back(before)
    }

    fn go_back(&self, before: &Goal) -> Result<(), Failure> {
        let scene = self.look()?;
        // Whoever asked us to stop has already been heard; the way back is not cut short.
        let patiently = |pause| {
            std::thread::sleep(pause);
            true
        };
        let Err(refused) = self.bring_pausing(&scene, before, patiently) else { return Ok(()) };
        let scene = self.look()?;
        let mut left = String::new();
        for (place, changes) in scene.steps(before).iptables {
            for line in changes.iter().flat_map(|change| &change.diff) {
                let _ = write!(left, "\n  {} {line}", place.1); // cannot fail
            }
        }
        for line in differences(scene.native.as_ref(), before.native.as_ref()) {
            let _ = write!(left, "\n  {line}");
        }
        Err(Failure::new(
            Exit::Left,
            format!("the way back failed too: {refused}; still different from before:{left}"),
        )
        .hint(
            "run 'tproxy uninstall', or correct the lines above by hand ('-' is to be removed, '+' to be added)",
        ))
    }

    /// Commits all; where rules move from one backend to the other, the new ones first, so that traffic is
    /// redirected at every moment.
    fn commit_all(&self, steps: &Steps, goal: &Goal) -> Result<(), Refused> {
        let native = || match &steps.native {
            change if change.is_nothing() => Ok(()),
            _ => native::bring(goal.native.as_ref()).map_err(Refused::Native),
        };
        if goal.native.is_some() {
            native()?;
            self.commit_iptables(&steps.iptables, &goal.iptables)
        } else {
            self.commit_iptables(&steps.iptables, &goal.iptables)?;
            native()
        }
    }

    /// Commits every place; where rules move from one variant to the other, the new ones first, so that traffic is
    /// redirected at every moment. The nft variant's two families go side by side: their transactions are
    /// independent, and each waits mostly for the kernel. The legacy ones would only wait for each other's lock.
    fn commit_iptables(&self, changes: &Changes, wanted: &BTreeMap<Place, Wanted>) -> Result<(), Refused> {
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
            let one = |(place, commit): &(Place, Commit)| {
                commit.run().map_err(|error| Refused::Iptables { place: *place, error })
            };
            match (variant, commits.as_slice()) {
                (Variant::Nft, [first, second]) => std::thread::scope(|scope| {
                    let second = scope.spawn(|| one(second));
                    let first = one(first);
                    let second = second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    first.and(second)
                })?,
                (Variant::Legacy, [(first_place, first), (second_place, second)]) => {
                    first.run_in_turn(second).map_err(|(turn, error)| match turn {
                        Turn::First => Refused::Iptables { place: *first_place, error },
                        Turn::Second => Refused::Iptables { place: *second_place, error },
                    })?;
                }
                (_, commits) => commits.iter().try_for_each(one)?,
            }
        }
        Ok(())
    }
}
