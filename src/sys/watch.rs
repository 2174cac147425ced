//! Waits for the end of a file.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::moment::Moment;
use super::{poll, signal};

/// How soon a look is repeated that failed: what it would have seen is told only once.
const AGAIN: Duration = Duration::from_secs(1);

/// Waits until `stays` says no, which is asked whenever something in the directory is removed or renamed, or until
/// the end or until this process is asked to stop. Whether it stayed. `None` of `stays`: it could not look, and is asked
/// again in a second.
///
/// # Errors
/// The kernel's: no more inotify instances, or the directory is gone.
pub fn while_it_stays(directory: &Path, end: Moment, stays: impl Fn() -> Option<bool>) -> io::Result<bool> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    inotify.add_watch(
        directory,
        AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE | AddWatchFlags::IN_DELETE_SELF,
    )?;
    let timer = end.timer()?;
    // Asked after the watch began, so that nothing is missed.
    loop {
        let again = match stays() {
            Some(false) => return Ok(false),
            Some(true) => None,
            None => Some(Instant::now() + AGAIN),
        };
        if end.is_over() || signal::interrupted().is_some() {
            return Ok(true);
        }
        let fds = [inotify.as_fd(), timer.as_fd()].into_iter().chain(signal::wakes());
        let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        poll::wait(&mut fds, again)?;
        // What it was does not matter, only that it is read.
        let _ = inotify.read_events();
    }
}
