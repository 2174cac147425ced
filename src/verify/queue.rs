//! In which order probes are sent, how many at once, how often each, and when none is any more.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::budget::{Budget, NO_TIME, Stage};
use super::check::{Check, Id, Method, Reached};
use super::probe::BRIEFLY;
use crate::sys::threads;

/// How long a probe may take. Nothing leaves this host, so an answer takes well under a millisecond; what is lost is
/// sent again after a second.
const PATIENCE: Duration = Duration::from_millis(1500);

/// The same, once it is plain that many get lost.
const LITTLE_PATIENCE: Duration = Duration::from_millis(500);

/// How many probes may get lost twice before none is sent a second time: so many do not get lost by themselves, and
/// waiting for the rest would only take time from those that have not been sent yet.
const LOST: usize = 8;

/// Probes under way at the same time. They wait, mostly.
const WORKERS: usize = 64;

/// How long is waited, and how often something is tried.
pub struct Patience<'a> {
    budget: &'a Budget,
    method: Method,
    /// How many got lost twice.
    lost: AtomicUsize,
}

impl<'a> Patience<'a> {
    /// At the beginning nothing is lost.
    pub fn new(budget: &'a Budget, method: Method) -> Self {
        Self { budget, method, lost: AtomicUsize::new(0) }
    }

    /// The time of the run.
    pub fn budget(&self) -> &Budget {
        self.budget
    }

    /// Whether so many probes got lost that it is no accident any more.
    fn is_hopeless(&self) -> bool {
        self.lost.load(Ordering::Relaxed) >= LOST
    }

    /// Whether there is time for probes.
    pub fn has_time(&self) -> bool {
        self.budget.has_time(Stage::Probing)
    }

    /// Until when a probe that is sent now is waited for.
    pub fn until(&self) -> Instant {
        self.at_most(if self.is_hopeless() { LITTLE_PATIENCE } else { PATIENCE })
    }

    /// Until when something is waited for that takes so long at most.
    pub fn at_most(&self, patience: Duration) -> Instant {
        self.budget.until(Stage::Probing, patience)
    }

    /// Whether to go on with what lasts until a deadline at most. Asked at each turn of what others can keep busy.
    pub fn goes_on(&self, until: Instant) -> bool {
        self.budget.is_before(until)
    }

    /// Until when a sidecar is waited for that has not let go of so many connections.
    pub fn until_let_go(&self, unfinished: usize) -> Instant {
        if unfinished >= LOST { self.at_most(BRIEFLY) } else { self.until() }
    }

    /// Whether a probe got lost, as one does by itself on a busy host.
    fn is_lost(&self, reached: &Reached) -> bool {
        match reached {
            Reached::Nowhere | Reached::Unsent(_) | Reached::Dns { answered: false } => true,
            // Nobody said a word on a connection that came about. So it is with tproxy's own listeners on a busy host.
            Reached::Tracked { .. } | Reached::Somebody => self.method == Method::Listeners,
            _ => false,
        }
    }

    /// Sends a probe, and once more from another port if it got lost.
    pub fn send(&self, once: impl Fn() -> Reached) -> Reached {
        let in_time = || {
            let reached = once();
            // Silence proves nothing where nobody could listen long enough.
            let is_silence = self.is_lost(&reached) || reached == Reached::Somebody;
            if is_silence && !self.has_time() { Reached::Unknown(NO_TIME.to_owned()) } else { reached }
        };
        let first = in_time();
        if !self.is_lost(&first) || !self.has_time() || self.is_hopeless() {
            return first;
        }
        match in_time() {
            Reached::Unknown(_) => first,
            second => {
                if self.is_lost(&second) {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
                second
            }
        }
    }
}

/// Exclusions come last: there may be thousands of them, more than there is time for where each gets lost.
fn order(checks: &[Check]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..checks.len()).collect();
    order.sort_by_key(|at| checks.get(*at).is_some_and(|check| check.id == Id::Exclusion));
    order
}

/// Sends the probes of all checks, as many as there is time for.
pub fn send_all(
    patience: &Patience,
    checks: &[Check],
    send: impl Fn(&Check) -> Reached + Sync,
) -> Vec<Reached> {
    let order = order(checks);
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Reached>>> = checks.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        while let Some(&at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (Some(check), Some(place)) = (checks.get(at), results.get(at)) else { continue };
            let no_time = || Reached::Unknown(NO_TIME.to_owned());
            let reached = if patience.has_time() { patience.send(|| send(check)) } else { no_time() };
            tracing::debug!("{} {} {}: {reached:?}", check.family, check.id.name(), check.target);
            if let Ok(mut place) = place.lock() {
                *place = Some(reached);
            }
        }
    };
    // With fewer threads it takes longer.
    if threads::together(WORKERS.min(checks.len()), work) == 0 {
        work();
    }
    let nobody = || Reached::Unknown("nobody came to test it".to_owned());
    results.into_iter().map(|result| result.into_inner().ok().flatten().unwrap_or_else(nobody)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::super::budget::testing::Hands;
    use super::super::check::{Goal, Probe};
    use super::*;
    use crate::plan::Family;

    fn check(id: Id, number: usize) -> Check {
        let probe = Probe::Nothing(String::new());
        let (target, expected) = (number.to_string(), String::new());
        Check { id, family: Family::V4, target, probe, goal: Goal::Past, expected }
    }

    /// What becomes of one probe, and how often it was sent, if each time takes so many milliseconds.
    fn sent(patience: &Patience, hands: &Hands, takes: u64, reached: &Reached) -> (Reached, usize) {
        let times = AtomicUsize::new(0);
        let once = || {
            times.fetch_add(1, Ordering::Relaxed);
            hands.pass(takes);
            reached.clone()
        };
        let last = patience.send(once);
        (last, times.into_inner())
    }

    const NO_TIME_LEFT: fn() -> Reached = || Reached::Unknown(NO_TIME.to_owned());

    #[test]
    fn what_gets_lost_is_sent_twice_until_that_is_hopeless() {
        let hands = Hands::default();
        let budget = hands.budget();
        let patience = Patience::new(&budget, Method::Listeners);
        assert_eq!(patience.until(), budget.until(Stage::Probing, PATIENCE));
        assert_eq!(sent(&patience, &hands, 0, &Reached::Refused), (Reached::Refused, 1));
        for _ in 0..LOST {
            assert_eq!(sent(&patience, &hands, 0, &Reached::Nowhere), (Reached::Nowhere, 2));
        }
        assert_eq!(sent(&patience, &hands, 0, &Reached::Nowhere), (Reached::Nowhere, 1));
        assert_eq!(patience.until(), budget.until(Stage::Probing, LITTLE_PATIENCE));
    }

    #[test]
    fn silence_at_the_end_proves_nothing() {
        let silence = [Reached::Nowhere, Reached::Somebody, Reached::Dns { answered: false }];
        let there = Reached::Destination { answered: true };
        for reached in silence {
            let hands = Hands::default();
            let budget = hands.budget();
            let patience = Patience::new(&budget, Method::Counters);
            hands.pass(11_000);
            assert_eq!(sent(&patience, &hands, 1000, &reached), (NO_TIME_LEFT(), 1));
        }
        let hands = Hands::default();
        let budget = hands.budget();
        let patience = Patience::new(&budget, Method::Listeners);
        hands.pass(11_000);
        assert_eq!(sent(&patience, &hands, 1000, &there), (there.clone(), 1), "what was seen was seen");
    }

    /// The first one was waited for as long as it takes.
    #[test]
    fn a_second_time_that_is_cut_short_says_nothing() {
        let hands = Hands::default();
        let budget = hands.budget();
        let patience = Patience::new(&budget, Method::Listeners);
        hands.pass(10_000);
        assert_eq!(sent(&patience, &hands, 1500, &Reached::Nowhere), (Reached::Nowhere, 2));
    }

    #[test]
    fn no_probe_begins_when_there_is_no_time_left() {
        let hands = Hands::default();
        let budget = hands.budget();
        let patience = Patience::new(&budget, Method::Listeners);
        let checks: Vec<Check> = (0..10_000).map(|number| check(Id::Exclusion, number)).collect();
        let begun = AtomicU64::new(0);
        let reached = send_all(&patience, &checks, |_| {
            begun.fetch_add(1, Ordering::Relaxed);
            hands.pass(10);
            Reached::Nowhere
        });
        let begun = begun.into_inner();
        // 12 s at 10 ms each, and what the others had begun already.
        assert!((1_200..1_200 + WORKERS as u64).contains(&begun), "{begun}");
        assert_eq!(reached.len(), checks.len());
        let untested = reached.iter().filter(|reached| **reached == NO_TIME_LEFT()).count();
        assert!(untested >= 10_000 - 1_200, "{untested}");
    }

    #[test]
    fn exclusions_come_last_and_answers_stay_in_order() {
        let ids = [Id::Exclusion, Id::Outbound, Id::Exclusion, Id::Passthrough];
        let checks: Vec<Check> = ids.into_iter().enumerate().map(|(number, id)| check(id, number)).collect();
        assert_eq!(order(&checks), [1, 3, 0, 2]);
        let budget = Hands::default().budget();
        let patience = Patience::new(&budget, Method::Listeners);
        let reached = send_all(&patience, &checks, |check| Reached::Unknown(check.target.clone()));
        assert_eq!(reached, ["0", "1", "2", "3"].map(|target| Reached::Unknown(target.to_owned())));
    }
}
