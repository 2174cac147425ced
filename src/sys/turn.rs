//! One process at a time in a network namespace: whoever has bound an abstract Unix address has its turn.
//!
//! Such an address belongs to the network namespace, needs no file and no directory that can be written, is the same
//! for containers that share the namespace and nothing else, and is free again when its process ends, however it ends.
//!
//! Any user can take such an address. So the kernel is asked whose it is (see [`owner`]): a user who is not root is not
//! waited for at all, root without proof of being a run for [`UNPROVEN`] at most.
//!
//! Nobody listens there and nobody connects: with a connection comes whatever open files its other end sends along, and
//! to close such a one can take any time (`SO_LINGER`).

mod owner;

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{UnixAddr, bind};

use super::holder::Holder;
use super::open_files::socket_holder;
use super::poll;
use super::signal::{self, Interrupted, Wait};
use owner::{Owner, owner, socket_with_proof};

/// Until the next try for a taken name.
const PAUSE: Duration = Duration::from_millis(20);

/// Until the next look at whose the name is.
const ROUND: Duration = Duration::from_secs(1);

/// How long a process waits in all for owners that do not prove to be runs, whatever names they have.
pub const UNPROVEN: Duration = Duration::from_secs(5);

/// The milliseconds for which this process has waited for those.
static WAITED: AtomicU64 = AtomicU64::new(0);

/// The turn of this process, until the value is dropped or the process ends.
#[derive(Debug)]
pub struct Turn {
    socket: OwnedFd,
}

/// Why it is not this process's turn.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// Other runs had it all the time.
    #[error("it is the turn of {}", in_words(.0.as_ref()))]
    Busy(Option<Holder>),
    /// The name is taken by another user, whom nobody here has to wait for.
    #[error("user {0} has taken its name")]
    Stranger(u32),
    /// The name is taken by a process of root's that nothing shows to be a run of ours.
    #[error("{} has taken its name without proof of being a run of tproxy", in_words(.0.as_ref()))]
    Unproven(Option<Holder>),
    /// A signal arrived while waiting.
    #[error("{0} while waiting for the turn")]
    Interrupted(Interrupted),
    /// The kernel's reason.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn in_words(holder: Option<&Holder>) -> String {
    holder.map_or("another process".into(), ToString::to_string)
}

impl Turn {
    /// Takes it in the calling thread's network namespace, and waits so long for others at most.
    ///
    /// # Errors
    /// See [`TurnError`].
    pub fn take(name: &str, wait: Duration) -> Result<Self, TurnError> {
        let address = UnixAddr::new_abstract(name.as_bytes()).map_err(io::Error::from)?;
        let deadline = poll::deadline(wait);
        let mut seen: Option<(Owner, Instant)> = None;
        let socket = socket_with_proof()?;
        loop {
            match bind(socket.as_raw_fd(), &address) {
                Ok(()) => return Ok(Self { socket }),
                Err(Errno::EADDRINUSE) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
            let now = Instant::now();
            let known = seen.filter(|(_, at)| now.duration_since(*at) < ROUND);
            let (owner, _) = *seen.insert(known.unwrap_or_else(|| (owner(name.as_bytes()), now)));
            wait_for(owner, deadline)?;
        }
    }

    /// Lets every child started from now on have the turn too, so that nobody else gets it before the children of a
    /// process that was killed have ended.
    ///
    /// # Errors
    /// The kernel's.
    pub fn share_with_children(&self) -> io::Result<()> {
        fcntl(&self.socket, FcntlArg::F_SETFD(FdFlag::empty())).map_err(io::Error::from)?;
        Ok(())
    }
}

/// Waits until the next try.
fn wait_for(owner: Owner, deadline: Option<Instant>) -> Result<(), TurnError> {
    let (proven, inode) = match owner {
        Owner::Stranger(uid) => return Err(TurnError::Stranger(uid)),
        Owner::Proven(inode) => (true, Some(inode)),
        Owner::Unproven(inode) => (false, Some(inode)),
        Owner::Nobody | Owner::Unknown => (false, None),
    };
    let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
    let left = if proven { left } else { left.min(left_for_unproven()) };
    if left.is_zero() {
        let holder = inode.and_then(socket_holder);
        return Err(if proven { TurnError::Busy(holder) } else { TurnError::Unproven(holder) });
    }
    let start = Instant::now();
    let waited = signal::wait(None, left.min(PAUSE));
    if !proven {
        let waited = u64::try_from(start.elapsed().as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
        WAITED.fetch_add(waited, Ordering::Relaxed);
    }
    match waited {
        Ok(_) => Ok(()),
        Err(Wait::Interrupted(interrupted)) => Err(TurnError::Interrupted(interrupted)),
        Err(Wait::Io(error)) => Err(error.into()),
    }
}

fn left_for_unproven() -> Duration {
    UNPROVEN.saturating_sub(Duration::from_millis(WAITED.load(Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(what: &str) -> String {
        format!("tproxy test {what} {}", std::process::id())
    }

    /// Who has the name. Without root nobody can prove to be a run.
    fn holder_of(name: &str, wait: Duration) -> Option<Holder> {
        match Turn::take(name, wait).unwrap_err() {
            TurnError::Busy(holder) => holder,
            TurnError::Unproven(holder) if !nix::unistd::geteuid().is_root() => holder,
            error => panic!("{error}"),
        }
    }

    #[test]
    fn one_at_a_time_and_who_it_is() {
        let name = name("one");
        let first = Turn::take(&name, Duration::ZERO).unwrap();
        for wait in [Duration::ZERO, Duration::from_millis(50)] {
            assert_eq!(holder_of(&name, wait).unwrap().pid, std::process::id());
        }
        drop(first);
        Turn::take(&name, Duration::ZERO).unwrap();
    }

    #[test]
    fn whoever_waits_is_next() {
        let name = name("next");
        let first = Turn::take(&name, Duration::ZERO).unwrap();
        let waiting = {
            let name = name.clone();
            std::thread::spawn(move || Turn::take(&name, Duration::from_secs(60)).map(drop))
        };
        // It does not matter whether the thread waits already.
        drop(first);
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn nobody_is_let_in() {
        let name = name("closed");
        let _turn = Turn::take(&name, Duration::ZERO).unwrap();
        let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
        let guest = owner::stream().unwrap();
        assert_eq!(nix::sys::socket::connect(guest.as_raw_fd(), &address), Err(Errno::ECONNREFUSED));
    }

    #[test]
    fn children_of_a_killed_process_keep_it() {
        let name = name("killed");
        let turn = Turn::take(&name, Duration::ZERO).unwrap();
        turn.share_with_children().unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        // As the end of a process does.
        drop(turn);
        holder_of(&name, Duration::ZERO);
        child.kill().unwrap();
        child.wait().unwrap();
        Turn::take(&name, Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn each_network_namespace_has_its_own() {
        let name = name("apart");
        let here = Turn::take(&name, Duration::ZERO).unwrap();
        crate::sys::netns::testing::apart(|| drop(Turn::take(&name, Duration::ZERO).unwrap()));
        drop(here);
    }
}
