//! Waiting for file descriptors until a point in time.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollTimeout};

/// Waits until one of `fds` is ready (`true`) or the deadline has passed (`false`). No deadline: forever. Goes on
/// waiting when a signal handler ran; whoever cares for signals passes [`super::signal`]'s descriptor too.
pub(super) fn wait(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<bool> {
    loop {
        let timeout = match deadline {
            None => PollTimeout::NONE,
            Some(deadline) => timeout(deadline.saturating_duration_since(Instant::now())),
        };
        match nix::poll::poll(fds, timeout) {
            Ok(0) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Rounded up to the next millisecond, else the last fraction of one would be a busy loop.
fn timeout(left: Duration) -> PollTimeout {
    let millis = left.as_nanos().div_ceil(1_000_000);
    i32::try_from(millis)
        .ok()
        .and_then(|millis| PollTimeout::try_from(millis).ok())
        .unwrap_or(PollTimeout::MAX)
}

/// The point in time `wait` from now; `None` where the clock cannot count that far, which means never.
pub(super) fn deadline(wait: Duration) -> Option<Instant> {
    Instant::now().checked_add(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_rounded_up_and_limited() {
        assert_eq!(timeout(Duration::ZERO), PollTimeout::ZERO);
        assert_eq!(timeout(Duration::from_nanos(1)), PollTimeout::from(1u8));
        assert_eq!(timeout(Duration::from_millis(7)), PollTimeout::from(7u8));
        assert_eq!(timeout(Duration::MAX), PollTimeout::MAX);
    }
}
