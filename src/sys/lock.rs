//! File locks (flock) with a limit to the waiting, and who holds one.
#![allow(unsafe_code, reason = "nix's lock panics where unlocking fails, so flock(2) is called here")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::files::Entry;
pub use super::holder::Holder;
use super::holder::{Taker, heirs, holder_of, taker, users_of};
use super::open_files::End;
use super::poll;
use super::signal::{self, Interrupted, Wait};

/// A lock file that this process has locked, until the value is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct FileLock {
    entry: Entry,
    locked: Locked,
}

/// A file that this process has locked. Dropping it unlocks, also for children that have the lock too; should that
/// fail, the lock goes when the last of them has ended.
#[derive(Debug)]
struct Locked(Option<File>);

impl Drop for Locked {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.as_ref().map(|file| flock(file, libc::LOCK_UN)) {
            tracing::debug!("unlocking failed: {error}");
        }
    }
}

/// The first pause between two tries for a lock, and the longest; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(32);

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else had it all the time.
    #[error("{} is locked by {}", path.display(), holder.as_ref().map_or("another process".into(), ToString::to_string))]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// Who, where that could be found.
        holder: Option<Holder>,
    },
    /// A signal arrived while waiting.
    #[error("{} while waiting for the lock {}", interrupted, path.display())]
    Interrupted {
        /// The lock file.
        path: PathBuf,
        /// Which signal.
        interrupted: Interrupted,
    },
    /// The file could not be made, opened or locked.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl FileLock {
    /// Locks a file, which is made (mode 0600) where it is not there, and waits so long for others at most.
    pub fn acquire(entry: &Entry, wait: Duration) -> Result<Self, LockError> {
        let deadline = poll::deadline(wait);
        let path = &entry.path();
        let io = |source| LockError::Io { path: path.clone(), source };
        loop {
            let file = entry.keep(false).map_err(io)?;
            wait_for(path, &file, deadline)?;
            let locked = Locked(Some(file));
            // Who held it may have removed the file while we waited: then ours is a lock on nothing, and the next
            // process would make a new file and lock that.
            if locked.0.as_ref().map_or(Ok(false), |file| entry.is(file)).map_err(io)? {
                return Ok(Self { entry: entry.clone(), locked });
            }
        }
    }

    /// Lets every child started from now on hold the lock too, so that nobody else gets it before the children of a
    /// process that was killed have ended.
    ///
    /// # Errors
    /// The kernel's.
    pub fn share_with_children(&self) -> io::Result<()> {
        if let Some(file) = &self.locked.0 {
            fcntl(file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    }

    /// Lets go of the lock in a process made by fork: the lock belongs to both until one of them unlocks it, so the
    /// descriptor is closed and nothing else.
    pub fn abandon(mut self) {
        drop(self.locked.0.take());
    }

    /// Removes the file, then unlocks it; whoever waits for it finds out and makes a new one.
    ///
    /// # Errors
    /// The kernel's; the lock is released all the same.
    pub fn remove(self) -> io::Result<()> {
        let removed = self.entry.remove();
        drop(self.locked);
        removed
    }
}

/// Tries again and again: flock(2) knows no time limit, and a thread that waits in it could not be ended, while this
/// process may have to fork.
fn wait_for(path: &Path, file: &File, deadline: Option<Instant>) -> Result<(), LockError> {
    let io = |source| LockError::Io { path: path.to_owned(), source };
    let mut pause = PAUSE;
    loop {
        match flock(file, libc::LOCK_EX | libc::LOCK_NB) {
            Ok(()) => return Ok(()),
            Err(Errno::EINTR) => continue,
            Err(Errno::EWOULDBLOCK) => {}
            Err(errno) => return Err(io(errno.into())),
        }
        let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Err(LockError::Busy { path: path.to_owned(), holder: holder(path) });
        }
        match signal::wait(None, left.min(pause)) {
            Ok(_) => pause = LONGEST_PAUSE.min(pause * 2),
            Err(Wait::Interrupted(interrupted)) => {
                return Err(LockError::Interrupted { path: path.to_owned(), interrupted });
            }
            Err(Wait::Io(source)) => return Err(io(source)),
        }
    }
}

/// Locks an open file until this process, and every other one that it leaves the open file to, has ended or closed it.
/// `false`: another process has the lock.
///
/// # Errors
/// The kernel's.
pub fn keep(file: &File) -> io::Result<bool> {
    match flock(file, libc::LOCK_EX | libc::LOCK_NB) {
        Ok(()) => Ok(true),
        Err(Errno::EWOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether a process has locked this file by [`keep`], in whatever mount or PID namespace it is. Two that ask at once
/// do not take each other for it.
///
/// # Errors
/// The kernel's.
pub fn is_kept(file: &File) -> io::Result<bool> {
    match flock(file, libc::LOCK_SH | libc::LOCK_NB) {
        Ok(()) => flock(file, libc::LOCK_UN).map(|()| false).map_err(Into::into),
        Err(Errno::EWOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

fn flock(file: &File, operation: libc::c_int) -> Result<(), Errno> {
    // SAFETY: the descriptor is open, and the call touches no memory.
    Errno::result(unsafe { libc::flock(file.as_raw_fd(), operation) }).map(drop)
}

/// Who holds the flock on a file, also one of others such as `/run/xtables.lock`. `None`: nobody does, or the
/// holder is in another PID namespace or was too quick.
pub fn holder(path: &Path) -> Option<Holder> {
    let file = std::fs::metadata(path).ok()?;
    holder_of(file.dev(), file.ino())
}

/// Who keeps a file locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keepers {
    /// Nobody, as far as that is to be seen.
    Nobody,
    /// This user's processes alone.
    Root,
    /// Another user's process has it too, or nobody sees who has it.
    Others,
}

/// Who can let go of the flock on a file: all processes that have the open file, whoever took it. Root's processes that
/// another user started, set-user-ID, count as that user's.
pub fn keepers(path: &Path) -> Keepers {
    let Ok(file) = std::fs::metadata(path) else { return Keepers::Nobody };
    if taker(file.dev(), file.ino()) == Taker::Nobody {
        return Keepers::Nobody;
    }
    let user = nix::unistd::geteuid().as_raw();
    let (all, end) = heirs(file.dev(), file.ino());
    let ours = |pid: &u32| users_of(*pid).is_some_and(|users| users.iter().all(|of| *of == user));
    if end == End::Whole && !all.is_empty() && all.iter().all(ours) { Keepers::Root } else { Keepers::Others }
}

#[cfg(test)]
mod tests;
