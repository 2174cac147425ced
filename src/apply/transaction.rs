//! All or nothing: commits what a plan needs, and takes everything back when a part of it cannot be had.
//!
//! The kernel commits a table as a whole, but nothing beyond it. What holds several tables and families together is
//! done here: everything is observed first, what failed is told from what changed meanwhile by observing again, and
//! the way back is the way from what is there then to what was there first.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::backend::iptables::commit::{Commit, CommitError, LockWait, Turn};
use crate::backend::iptables::observe::observe;
use crate::backend::iptables::situation::{Changes, Place, Recorded, Situation};
use crate::backend::iptables::tools::{Tools, Variant};
use crate::backend::iptables::transition::{self, Wanted};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::sys::signal;

/// What every step of a run needs.
#[derive(Debug, Clone)]
pub struct Session {
    /// The programs.
    pub tools: Tools,
    /// Rules without comment that an earlier run recorded.
    pub recorded: Recorded,
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
pub struct Refused {
    /// Where.
    pub place: Place,
    /// Why.
    pub error: CommitError,
}

impl Session {
    /// For this configuration.
    pub fn new(tools: Tools, config: &Config, recorded: Recorded, adopt: bool, force: bool) -> Self {
        Self {
            tools,
            recorded,
            lock_wait: LockWait { seconds: config.wait, interval: config.wait_interval },
            max_retries: config.retry.max_retries,
            pause: config.retry.sleep_between_retries,
            adopt,
            force,
        }
    }

    /// What is there now, and whose it is.
    pub fn look(&self) -> Result<Situation, Failure> {
        let mut situation = Situation::new(observe(&self.tools)?, &self.recorded);
        if self.adopt {
            situation.adopt();
        }
        if self.force {
            situation.seize_jumps();
        }
        Ok(situation)
    }

    /// Brings `situation` to `wanted`, again from the start when somebody else's change or lock was in the way.
    ///
    /// # Errors
    /// The kernel or a program refused a part and would again. What was committed until then is still there:
    /// [`Session::take_back`] is for that.
    pub fn bring(&self, situation: &Situation, wanted: &BTreeMap<Place, Wanted>) -> Result<(), Refused> {
        self.bring_pausing(situation, wanted, |pause| signal::sleep(pause).is_ok())
    }

    /// `pause` says whether to go on after it.
    fn bring_pausing(
        &self,
        situation: &Situation,
        wanted: &BTreeMap<Place, Wanted>,
        pause: impl Fn(Duration) -> bool,
    ) -> Result<(), Refused> {
        let mut situation = situation.clone();
        for attempt in 0..=self.max_retries {
            let Err(refused) = self.commit_all(&situation.changes(wanted), wanted) else { return Ok(()) };
            if attempt == self.max_retries {
                return Err(refused);
            }
            match refused.error {
                CommitError::Busy { .. } => {
                    tracing::info!(
                        "{}; trying again in {:?} ({} of {})",
                        refused.error,
                        self.pause,
                        attempt + 1,
                        self.max_retries
                    );
                    if !pause(self.pause) {
                        return Err(refused);
                    }
                    match self.look() {
                        Ok(now) => situation = now,
                        Err(_) => return Err(refused),
                    }
                }
                // A refused block tells not reliably why; that the rules are others than a moment ago does.
                CommitError::Refused { .. } => match self.look() {
                    Ok(now) if !now.same_rules(&situation) => {
                        tracing::debug!("the rules changed meanwhile: {}", refused.error);
                        situation = now;
                    }
                    _ => return Err(refused),
                },
                CommitError::Run { .. } => return Err(refused),
            }
        }
        Ok(())
    }

    /// Goes back to what was ours before this run.
    ///
    /// # Errors
    /// Something is left that should not be; the failure lists it ([`Exit::Left`]).
    pub fn take_back(&self, before: &BTreeMap<Place, Wanted>) -> Result<(), Failure> {
        let situation = self.look()?;
        // Whoever asked us to stop has already been heard; the way back is not cut short.
        let patiently = |pause| {
            std::thread::sleep(pause);
            true
        };
        let Err(refused) = self.bring_pausing(&situation, before, patiently) else { return Ok(()) };
        let mut left = String::new();
        for (place, changes) in self.look()?.changes(before) {
            for line in changes.iter().flat_map(|change| &change.diff) {
                let _ = write!(left, "\n  {} {line}", place.1); // cannot fail
            }
        }
        Err(Failure::new(
            Exit::Left,
            format!("the way back failed too: {}; still different from before:{left}", refused.error),
        )
        .hint(
            "run 'tproxy uninstall', or correct the lines above by hand ('-' is to be removed, '+' to be added)",
        ))
    }

    /// Commits every place; where rules move from one variant to the other, the new ones first, so that traffic is
    /// redirected at every moment. The nft variant's two families go side by side: their transactions are
    /// independent, and each waits mostly for the kernel. The legacy ones would only wait for each other's lock.
    fn commit_all(&self, changes: &Changes, wanted: &BTreeMap<Place, Wanted>) -> Result<(), Refused> {
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
                commit.run().map_err(|error| Refused { place: *place, error })
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
                        Turn::First => Refused { place: *first_place, error },
                        Turn::Second => Refused { place: *second_place, error },
                    })?;
                }
                (_, commits) => commits.iter().try_for_each(one)?,
            }
        }
        Ok(())
    }
}
