//! Points in time that mean the same to every process until the machine starts anew, whoever sets the clock.

use std::fs;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId as Timer, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Nanoseconds since the machine started, sleep included: the kernel's `CLOCK_BOOTTIME`, which nobody can set, less what
/// a time namespace adds to it, so that every process of the machine means the same. A new start ([`boot`]) makes it
/// meaningless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(u64);

impl Moment {
    /// Now.
    pub fn now() -> Self {
        // Linux has this clock since 2.6.39, and reading one that is there cannot fail.
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        Self(nanos(now).saturating_add_signed(added().wrapping_neg()))
    }

    /// So much later.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(nanos(time)))
    }

    /// How much later this is than the other; zero if it is not.
    pub fn since(self, other: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(other.0))
    }

    /// Whether it has passed.
    pub fn is_over(self) -> bool {
        Self::now() >= self
    }

    /// Something to wait for that becomes readable then, also when the machine slept meanwhile.
    ///
    /// # Errors
    /// No more file descriptors.
    pub(super) fn timer(self) -> io::Result<TimerFd> {
        let timer = TimerFd::new(Timer::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        // Zero would switch it off.
        let at = self.0.saturating_add_signed(added()).max(1);
        let at = TimeSpec::from_duration(Duration::from_nanos(at));
        timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        Ok(timer)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What the time namespace of this process adds to the clock, in nanoseconds. It cannot change while a process is in it.
fn added() -> i64 {
    static ADDED: OnceLock<i64> = OnceLock::new();
    // A kernel without time namespaces has no such file, and a sandbox may hide it.
    *ADDED.get_or_init(|| fs::read_to_string(OFFSETS).ok().and_then(|text| boottime_in(&text)).unwrap_or(0))
}

/// The offset of that clock (`time_namespaces(7)`): its name, seconds, nanoseconds.
fn boottime_in(offsets: &str) -> Option<i64> {
    let line = offsets.lines().find_map(|line| line.strip_prefix("boottime"))?;
    let mut numbers = line.split_ascii_whitespace().map(str::parse::<i64>);
    let (seconds, nanoseconds) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// Where the kernel tells what a time namespace adds to clocks. They are those of the namespace for children, which is
/// that of the process itself unless it made one since its program was started.
const OFFSETS: &str = "/proc/self/timens_offsets";

/// Where the kernel tells which start of the machine this is.
pub const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Which start of the machine this is.
///
/// # Errors
/// The kernel's; also where a sandbox hides it.
pub fn boot() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags};
    use std::os::fd::AsFd as _;

    use super::super::poll;
    use super::*;

    #[test]
    fn time_goes_on() {
        let before = Moment::now();
        let later = before.plus(Duration::from_secs(1_000_000));
        assert!(Moment::now() >= before && !later.is_over());
        assert!(Moment(0).is_over());
        assert_eq!(later.since(before), Duration::from_secs(1_000_000));
        assert_eq!(before.since(later), Duration::ZERO);
        assert_eq!(later.plus(Duration::MAX), Moment(u64::MAX));
    }

    #[test]
    fn a_timer_of_the_past_is_ready() {
        for past in [Moment(0), Moment(1), Moment::now()] {
            let timer = past.timer().unwrap();
            assert!(poll::wait(&mut [PollFd::new(timer.as_fd(), PollFlags::POLLIN)], None).unwrap());
        }
        // What can never come can still be waited for.
        drop(Moment(u64::MAX).timer().unwrap());
    }

    #[test]
    fn offsets_of_a_time_namespace() {
        let text = "monotonic           0         0\nboottime       100000         5\n";
        assert_eq!(boottime_in(text), Some(100_000_000_000_005));
        assert_eq!(boottime_in("boottime -1 0\n"), Some(-1_000_000_000));
        for text in
            ["", "monotonic 1 0\n", "boottime\n", "boottime x 0\n", "boottime 9223372036854775807 0\n"]
        {
            assert_eq!(boottime_in(text), None, "{text}");
        }
    }

    #[test]
    fn it_is_written_as_a_number() {
        let moment = Moment(1_795_254_548_000_000_001);
        let text = serde_json::to_string(&moment).unwrap();
        assert_eq!(text, "1795254548000000001");
        assert_eq!(serde_json::from_str::<Moment>(&text).unwrap(), moment);
    }

    #[test]
    fn a_boot_has_a_name() {
        let id = boot().unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(boot().unwrap(), id);
    }
}
