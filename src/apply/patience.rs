//! How often something that failed is tried again, and how long the pauses are.

use std::fmt::Display;
use std::time::Duration;

use crate::config::Config;
use crate::passing::Passing;
use crate::sys::signal;

/// On the way back there is more at stake than the time of the one who waits, so it is tried so often at least, with
/// pauses that begin with this one and double, up to the configured pause.
const WAY_BACK_TRIES: u32 = 5;
const WAY_BACK_PAUSE: Duration = Duration::from_millis(100);

/// How often, and how long in between.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Tries after the first one.
    retries: u32,
    /// Before the first of them.
    pause: Duration,
    /// Before the last of them.
    longest: Duration,
    /// Whether a signal that asks the run to stop ends it.
    heeds_signals: bool,
}

impl Patience {
    /// As configured.
    pub fn of(config: &Config) -> Self {
        let pause = config.retry.sleep_between_retries;
        Self { retries: config.retry.max_retries, pause, longest: pause, heeds_signals: true }
    }

    /// The same on the way back, which is not cut short.
    #[must_use]
    pub fn on_the_way_back(self) -> Self {
        Self {
            retries: self.retries.max(WAY_BACK_TRIES),
            pause: WAY_BACK_PAUSE,
            longest: self.longest.max(WAY_BACK_PAUSE),
            heeds_signals: false,
        }
    }

    /// The tries, one after the other.
    pub const fn tries(self) -> Tries {
        Tries { patience: self, made: 0, pause: self.pause }
    }

    /// Does something, again as long as it fails for a reason that passes.
    ///
    /// # Errors
    /// The last one.
    pub fn persist<T, E: Passing + Display>(self, mut work: impl FnMut() -> Result<T, E>) -> Result<T, E> {
        let mut tries = self.tries();
        loop {
            match work() {
                Err(error) if error.is_passing() && tries.again(&error) => {}
                done => return done,
            }
        }
    }
}

/// How many tries are left.
#[derive(Debug)]
pub struct Tries {
    patience: Patience,
    made: u32,
    pause: Duration,
}

impl Tries {
    /// After a failure: pauses, if there is another try. `false`: there is none, or the run was asked to stop.
    pub fn again(&mut self, why: &impl Display) -> bool {
        let pause = self.pause;
        self.pause = self.patience.longest.min(pause * 2);
        self.after(why, pause)
    }

    /// The same with a pause of this length.
    pub fn after(&mut self, why: &impl Display, pause: Duration) -> bool {
        let Patience { retries, heeds_signals, .. } = self.patience;
        if self.made >= retries {
            return false;
        }
        self.made += 1;
        tracing::info!("{why}; trying again in {pause:?} ({} of {retries})", self.made);
        if heeds_signals {
            return signal::sleep(pause).is_ok();
        }
        std::thread::sleep(pause);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;

    use super::*;

    fn patience(retries: u32) -> Patience {
        let pause = Duration::from_millis(1);
        Patience { retries, pause, longest: pause, heeds_signals: false }
    }

    fn tried(patience: Patience, fails: &[i32]) -> (usize, Result<(), i32>) {
        let made = Cell::new(0);
        let done = patience.persist(|| {
            let at = made.replace(made.get() + 1);
            fails.get(at).map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(*errno)))
        });
        (made.get(), done.map_err(|error| error.raw_os_error().unwrap()))
    }

    #[test]
    fn only_what_passes_is_tried_again() {
        let (no_memory, no_right) = (libc::ENOMEM, libc::EPERM);
        assert_eq!(tried(patience(2), &[]), (1, Ok(())));
        assert_eq!(tried(patience(2), &[no_memory, no_memory]), (3, Ok(())));
        assert_eq!(tried(patience(2), &[no_memory; 3]), (3, Err(no_memory)));
        assert_eq!(tried(patience(2), &[no_memory, no_right]), (2, Err(no_right)));
        assert_eq!(tried(patience(0), &[no_memory]), (1, Err(no_memory)));
    }

    #[test]
    fn a_way_back_is_tried_several_times_whatever_is_configured() {
        let back = patience(0).on_the_way_back();
        assert_eq!((back.retries, back.pause, back.longest), (5, WAY_BACK_PAUSE, WAY_BACK_PAUSE));
        let two_seconds = Duration::from_secs(2);
        let back = Patience { longest: two_seconds, ..patience(9) }.on_the_way_back();
        assert_eq!((back.retries, back.pause, back.longest), (9, WAY_BACK_PAUSE, two_seconds));
    }
}
