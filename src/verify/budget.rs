//! The time of one run. Everything in it shares one deadline: what it does not get to is not tested, and says so. A
//! process that holds signals back and gets one has no time left for anything.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::sys::{signal, threads};

/// Why something was not done.
pub const NO_TIME: &str = "there was no time left for it";

/// A part of a run. Each has to be over when the next one needs its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Everything before the first probe: of excluded addresses there may be many to get ready.
    Preparing,
    /// Probes, with all that is waited for.
    Probing,
    /// Waiting for the sidecar to let go of them.
    Settling,
    /// Looking for causes in the rules. What then is left is to say what was found.
    Explaining,
}

impl Stage {
    /// When it is over, counted from the beginning of the run. The last one leaves three of the twenty seconds that a
    /// run may take for what cannot be cut short, and for a machine that is busy.
    const fn end(self) -> Duration {
        match self {
            Self::Preparing => Duration::from_secs(4),
            Self::Probing => Duration::from_secs(12),
            Self::Settling => Duration::from_secs(15),
            Self::Explaining => Duration::from_secs(17),
        }
    }
}

/// How soon a signal ends a wait that it cannot wake.
const TURN: Duration = Duration::from_millis(50);

/// The same as an error.
pub fn out_of_time() -> io::Error {
    io::Error::new(io::ErrorKind::QuotaExceeded, NO_TIME)
}

/// What tells the time; another one in tests.
type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// The time that a run has.
#[derive(Clone)]
pub struct Budget {
    clock: Clock,
    begun: Instant,
    is_stopped: fn() -> bool,
}

impl Budget {
    /// The run begins now.
    pub fn begin() -> Self {
        Self::by(Arc::new(Instant::now), || signal::interrupted().is_some())
    }

    fn by(clock: Clock, is_stopped: fn() -> bool) -> Self {
        let begun = clock();
        Self { clock, begun, is_stopped }
    }

    /// When a stage is over.
    pub fn end_of(&self, stage: Stage) -> Instant {
        self.begun + stage.end()
    }

    /// Whether a stage has time left.
    pub fn has_time(&self, stage: Stage) -> bool {
        self.is_before(self.end_of(stage))
    }

    /// Whether it is not that late yet, and nobody asked this process to stop.
    pub fn is_before(&self, moment: Instant) -> bool {
        (self.clock)() < moment && !(self.is_stopped)()
    }

    /// The same as a result.
    ///
    /// # Errors
    /// There is none left ([`io::ErrorKind::QuotaExceeded`]).
    pub fn check(&self, stage: Stage) -> io::Result<()> {
        if self.has_time(stage) { Ok(()) } else { Err(out_of_time()) }
    }

    /// Until when to wait for something in a stage: so long, but not beyond its end.
    pub fn until(&self, stage: Stage, patience: Duration) -> Instant {
        self.end_of(stage).min((self.clock)() + patience)
    }

    /// Does something that reads only and that nobody can hurry, such as asking a program. `None`: it was not done when
    /// the stage was over, and is left to itself.
    pub fn within<T: Send + 'static>(
        &self,
        stage: Stage,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if !self.has_time(stage) {
            return None;
        }
        let (send, receive) = mpsc::channel();
        // Nobody may be there to hear of it any more.
        let work = move || send.send(work()).unwrap_or_default();
        threads::detached(work).ok()?;
        loop {
            let left = self.end_of(stage).saturating_duration_since((self.clock)());
            match receive.recv_timeout(left.min(TURN)) {
                Ok(done) => return Some(done),
                Err(RecvTimeoutError::Timeout) if left > TURN && !(self.is_stopped)() => {}
                Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
pub mod testing {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A clock that stands still until somebody moves it.
    #[derive(Debug, Clone, Default)]
    pub struct Hands(Arc<AtomicU64>);

    impl Hands {
        /// So many milliseconds pass.
        pub fn pass(&self, millis: u64) {
            self.0.fetch_add(millis, Ordering::SeqCst);
        }

        /// A run that begins now by this clock.
        pub fn budget(&self) -> Budget {
            let (zero, hands) = (Instant::now(), self.0.clone());
            let clock = move || zero + Duration::from_millis(hands.load(Ordering::SeqCst));
            Budget::by(Arc::new(clock), || false)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::testing::Hands;
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn stages_end_one_after_the_other_and_all_in_time() {
        let stages = [Stage::Preparing, Stage::Probing, Stage::Settling, Stage::Explaining];
        assert!(stages.is_sorted_by_key(|stage| stage.end()));
        assert!(Stage::Explaining.end() < Duration::from_secs(20));
    }

    #[test]
    fn nothing_is_waited_for_beyond_the_end() {
        let hands = Hands::default();
        let budget = hands.budget();
        let (begun, second) = (budget.begun, Duration::from_secs(1));
        assert_eq!(budget.until(Stage::Probing, second), begun + second);
        hands.pass(11_500);
        assert!(budget.check(Stage::Probing).is_ok());
        assert_eq!(budget.until(Stage::Probing, second), begun + Stage::Probing.end());
        hands.pass(500);
        assert_eq!(budget.check(Stage::Probing).map_err(|error| error.to_string()), Err(NO_TIME.to_owned()));
        assert!(budget.has_time(Stage::Explaining));
    }

    #[test]
    fn who_is_asked_to_stop_has_no_time() {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let asked = Budget::by(Arc::new(Instant::now), || true);
        assert!(asked.check(Stage::Explaining).is_err() && !asked.is_before(Instant::now() + LONG));
        assert_eq!(asked.within(Stage::Explaining, || panic!("nothing is begun")), None::<()>);
        // Asked while it waits.
        let asked = Budget::by(Arc::new(Instant::now), || CALLS.fetch_add(1, Ordering::SeqCst) > 0);
        let (end, wait) = mpsc::channel::<()>();
        assert_eq!(asked.within(Stage::Explaining, move || wait.recv()), None);
        drop(end);
    }

    #[test]
    fn what_hangs_is_left_to_itself() {
        let hands = Hands::default();
        let budget = hands.budget();
        assert_eq!(budget.within(Stage::Preparing, || 7), Some(7));
        hands.pass(3_999);
        // It ends when the sender of the channel is gone, which is after the run went on without it.
        let (end, wait) = mpsc::channel::<()>();
        assert_eq!(budget.within(Stage::Preparing, move || wait.recv()), None);
        drop(end);
        hands.pass(1);
        assert_eq!(budget.within(Stage::Preparing, || panic!("there is no time to begin it")), None::<()>);
    }
}
