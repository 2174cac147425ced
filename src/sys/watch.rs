//! Waits for the end of a file.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::moment::Moment;
use super::{poll, signal};

/// How soon a look is repeated that failed, as what it would have seen is told only once, or that nothing would cause.
const AGAIN: Duration = Duration::from_secs(1);

/// Waits until `stays` says no, which is asked whenever something in the directory is removed or renamed, or until
/// the end or until this process is asked to stop. Whether it stayed. `None` of `stays`: it could not look, and is asked
/// again in a second. So it is, too, while the kernel has no more inotify instances, timers or memory.
pub fn while_it_stays(directory: &Path, end: Moment, stays: impl Fn() -> Option<bool>) -> bool {
    let (mut events, mut timer) = (None, None);
    loop {
        events = events.or_else(|| removals(directory).ok());
        timer = timer.or_else(|| end.timer().ok());
        // Asked after the watch began, so that nothing is missed.
        let again = match stays() {
            Some(false) => return false,
            Some(true) if events.is_some() && timer.is_some() => None,
            _ => Some(Instant::now() + AGAIN),
        };
        if end.is_over() || signal::interrupted().is_some() {
            return true;
        }
        let fds = events.iter().map(AsFd::as_fd).chain(timer.iter().map(AsFd::as_fd)).chain(signal::wakes());
        let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        if poll::wait(&mut fds, again).is_err() {
            std::thread::sleep(AGAIN);
        }
        // What it was does not matter, only that it is read.
        let _ = events.as_ref().map(Inotify::read_events);
    }
}

fn removals(directory: &Path) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let removed = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE | AddWatchFlags::IN_DELETE_SELF;
    inotify.add_watch(directory, removed)?;
    Ok(inotify)
}
