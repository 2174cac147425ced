//! One process at a time in a network namespace: whoever listens at an abstract Unix address has its turn.
//!
//! Such an address belongs to the network namespace, needs no file and no directory that can be written, is the same
//! for containers that share the namespace and nothing else, and is free again when its process ends, however it ends.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen, socket, sockopt,
};

use super::holder::{self, Holder};
use super::poll;
use super::signal::{self, Interrupted, Wait};

/// How many may wait at once and be told when it is over; more of them look again from time to time.
const WAITING: i32 = 64;

/// Until who cannot be told looks again.
const PAUSE: Duration = Duration::from_millis(20);

/// The turn of this process, until the value is dropped or the process ends.
#[derive(Debug)]
pub struct Turn {
    /// Closing it tells those who wait.
    listener: OwnedFd,
}

/// Why it is not this process's turn.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// Others had it all the time.
    #[error("it is the turn of {}", .0.as_ref().map_or("another process".into(), ToString::to_string))]
    Busy(Option<Holder>),
    /// Its name is taken by somebody who does not listen, and so by none of us.
    #[error("somebody who does not listen has taken its name")]
    Silent,
    /// The name is taken by another user, whom nobody here has to wait for.
    #[error("user {0} has taken its name")]
    Stranger(u32),
    /// A signal arrived while waiting.
    #[error("{0} while waiting for the turn")]
    Interrupted(Interrupted),
    /// The kernel's reason.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Turn {
    /// Takes it in the calling thread's network namespace, and waits so long for others at most.
    ///
    /// # Errors
    /// See [`TurnError`].
    pub fn take(name: &str, wait: Duration) -> Result<Self, TurnError> {
        let address = UnixAddr::new_abstract(name.as_bytes()).map_err(io::Error::from)?;
        let deadline = poll::deadline(wait);
        loop {
            let socket = stream()?;
            match bind(socket.as_raw_fd(), &address) {
                Ok(()) => {
                    listen(&socket, Backlog::new(WAITING).map_err(io::Error::from)?)
                        .map_err(io::Error::from)?;
                    return Ok(Self { listener: socket });
                }
                Err(Errno::EADDRINUSE) => wait_for(&address, deadline)?,
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }

    /// Lets every child started from now on have the turn too, so that nobody else gets it before the children of a
    /// process that was killed have ended.
    ///
    /// # Errors
    /// The kernel's.
    pub fn share_with_children(&self) -> io::Result<()> {
        fcntl(&self.listener, FcntlArg::F_SETFD(FdFlag::empty())).map_err(io::Error::from)?;
        Ok(())
    }
}

fn stream() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Unix, SockType::Stream, flags, None)?)
}

/// Waits until whoever has the turn may have ended: a connection that nobody accepts is closed with the listener.
fn wait_for(address: &UnixAddr, deadline: Option<Instant>) -> Result<(), TurnError> {
    let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
    let queue = stream()?;
    let (told, holder) = match connect(queue.as_raw_fd(), address) {
        Ok(()) => {
            let who = getsockopt(&queue, sockopt::PeerCredentials).map_err(io::Error::from)?;
            if who.uid() != 0 && who.uid() != nix::unistd::geteuid().as_raw() {
                return Err(TurnError::Stranger(who.uid()));
            }
            // Zero: it is in a PID namespace that we do not see.
            let pid = u32::try_from(who.pid()).ok().filter(|pid| *pid > 0);
            (true, pid.map(holder::process))
        }
        // Bound, and not listening yet or any more.
        Err(Errno::ECONNREFUSED) if left.is_zero() => return Err(TurnError::Silent),
        // That, or there are too many that wait.
        Err(Errno::ECONNREFUSED | Errno::EAGAIN) => (false, None),
        Err(errno) => return Err(io::Error::from(errno).into()),
    };
    if left.is_zero() {
        return Err(TurnError::Busy(holder));
    }
    let waited =
        if told { signal::wait(Some(queue.as_fd()), left) } else { signal::wait(None, left.min(PAUSE)) };
    match waited {
        Ok(true) => Ok(()),
        Ok(false) if !told => Ok(()),
        Ok(false) => Err(TurnError::Busy(holder)),
        Err(Wait::Interrupted(interrupted)) => Err(TurnError::Interrupted(interrupted)),
        Err(Wait::Io(error)) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(what: &str) -> String {
        format!("tproxy test {what} {}", std::process::id())
    }

    #[test]
    fn one_at_a_time_and_who_it_is() {
        let name = name("one");
        let first = Turn::take(&name, Duration::ZERO).unwrap();
        let Err(TurnError::Busy(Some(holder))) = Turn::take(&name, Duration::ZERO) else { panic!("both") };
        assert_eq!(holder.pid, std::process::id());
        let Err(TurnError::Busy(_)) = Turn::take(&name, Duration::from_millis(50)) else { panic!("both") };
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
    fn one_that_does_not_listen_is_waited_for_too() {
        let name = name("deaf");
        let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
        let deaf = stream().unwrap();
        bind(deaf.as_raw_fd(), &address).unwrap();
        let Err(TurnError::Silent) = Turn::take(&name, PAUSE) else { panic!("both") };
        drop(deaf);
        Turn::take(&name, Duration::ZERO).unwrap();
    }

    #[test]
    fn children_of_a_killed_process_keep_it() {
        let name = name("killed");
        let turn = Turn::take(&name, Duration::ZERO).unwrap();
        turn.share_with_children().unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        // As the end of a process does.
        drop(turn);
        assert!(matches!(Turn::take(&name, Duration::ZERO), Err(TurnError::Busy(_))));
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
