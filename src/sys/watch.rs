//! Waits for the end of a file.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::poll;

/// Waits until `stays` says no, which is asked whenever something in the directory is removed or renamed, or until
/// the time is over. Whether it stayed.
///
/// # Errors
/// The kernel's: no more inotify instances, or the directory is gone.
pub fn while_it_stays(directory: &Path, time: Duration, stays: impl Fn() -> bool) -> io::Result<bool> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    inotify.add_watch(
        directory,
        AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE | AddWatchFlags::IN_DELETE_SELF,
    )?;
    let end = Instant::now() + time;
    // Asked after the watch began, so that nothing is missed.
    while stays() {
        if Instant::now() >= end {
            return Ok(true);
        }
        let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        poll::wait(&mut fds, Some(end))?;
        // What it was does not matter, only that it is read.
        let _ = inotify.read_events();
    }
    Ok(false)
}
