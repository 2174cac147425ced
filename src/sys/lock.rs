//! File locks (flock) with a limit to the waiting, and who holds one.
#![allow(unsafe_code, reason = "a descriptor is taken from a value whose end would unlock it")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};

pub use super::holder::Holder;
use super::holder::holder_of;
use super::poll;
use super::signal::{self, Interrupted, Wait};

/// A lock file that this process has locked, until the value is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
    /// Dropping it unlocks.
    locked: Flock<File>,
}

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
    pub fn acquire(path: &Path, wait: Duration) -> Result<Self, LockError> {
        let deadline = poll::deadline(wait);
        let io = |source| LockError::Io { path: path.to_owned(), source };
        loop {
            let file = open(path).map_err(io)?;
            let locked = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => locked,
                Err((_, Errno::EINTR)) => continue,
                Err((file, Errno::EWOULDBLOCK)) => wait_for(path, file, deadline)?,
                Err((_, errno)) => return Err(io(errno.into())),
            };
            // Who held it may have removed the file while we waited: then ours is a lock on nothing, and the next
            // process would make a new file and lock that.
            if same_file(&locked, path).map_err(io)? {
                return Ok(Self { path: path.to_owned(), locked });
            }
        }
    }

    /// Lets every child started from now on hold the lock too, so that nobody else gets it before the children of a
    /// process that was killed have ended.
    ///
    /// # Errors
    /// The kernel's.
    pub fn share_with_children(&self) -> io::Result<()> {
        fcntl(&*self.locked, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(())
    }

    /// Lets go of the lock in a process made by fork: the lock belongs to both until one of them unlocks it, so the
    /// descriptor is closed and nothing else.
    pub fn abandon(self) {
        let fd = self.locked.as_raw_fd();
        std::mem::forget(self.locked);
        // SAFETY: nobody owns the descriptor any more.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }

    /// Removes the file, then unlocks it; whoever waits for it finds out and makes a new one.
    ///
    /// # Errors
    /// The kernel's; the lock is released all the same.
    pub fn remove(self) -> io::Result<()> {
        let removed = std::fs::remove_file(&self.path);
        drop(self.locked);
        removed
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    // A lock behind a symbolic link would create a file wherever the link's maker likes.
    options.custom_flags(libc::O_NOFOLLOW).open(path)
}

fn same_file(locked: &File, path: &Path) -> io::Result<bool> {
    let ours = locked.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// flock(2) knows no time limit. So a thread waits in it, and we wait for the thread, for a signal, or for the
/// clock. A thread given up gives the lock back as soon as it gets it.
fn wait_for(path: &Path, file: File, deadline: Option<Instant>) -> Result<Flock<File>, LockError> {
    let io = |source| LockError::Io { path: path.to_owned(), source };
    let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
    let busy = || LockError::Busy { path: path.to_owned(), holder: holder(path) };
    if left.is_zero() {
        return Err(busy());
    }
    let (done, at_end) = io::pipe().map_err(io)?;
    let (give, take) = std::sync::mpsc::sync_channel(0);
    std::thread::Builder::new()
        .name("wait for a lock".into())
        .spawn(move || {
            let mut file = file;
            let result = loop {
                match Flock::lock(file, FlockArg::LockExclusive) {
                    Err((again, Errno::EINTR)) => file = again,
                    Err((_, errno)) => break Err(errno),
                    Ok(locked) => break Ok(locked),
                }
            };
            drop(at_end);
            // Nobody takes it any more after the deadline; then it is dropped here, which unlocks.
            let _ = give.send(result);
        })
        .map_err(io)?;
    match signal::wait(Some(std::os::fd::AsFd::as_fd(&done)), left) {
        Ok(true) => match take.recv() {
            Ok(result) => result.map_err(|errno| io(errno.into())),
            Err(_) => Err(io(Errno::ECANCELED.into())),
        },
        Ok(false) => Err(busy()),
        Err(Wait::Interrupted(interrupted)) => {
            Err(LockError::Interrupted { path: path.to_owned(), interrupted })
        }
        Err(Wait::Io(source)) => Err(io(source)),
    }
}

/// Who holds the flock on a file, also one of others such as `/run/xtables.lock`. `None`: nobody does, or the
/// holder is in another PID namespace or was too quick.
pub fn holder(path: &Path) -> Option<Holder> {
    let file = std::fs::metadata(path).ok()?;
    holder_of(&std::fs::read_to_string("/proc/locks").ok()?, file.dev(), file.ino())
}

#[cfg(test)]
mod tests;
