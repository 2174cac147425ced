//! Being asked to stop: SIGINT, SIGTERM and SIGHUP.
//!
//! The first one is remembered and nothing else happens, so that work which must not be cut in half is not.
//! Whoever waits is woken through a pipe that stays readable from then on.
#![allow(
    unsafe_code,
    reason = "sigaction is unsafe to call, and a handler may only do what is listed for one"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::poll;

const WATCHED: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

static FIRST: AtomicI32 = AtomicI32::new(0);
static WAKE: OnceLock<(OwnedFd, OwnedFd)> = OnceLock::new();

/// A signal arrived before or during a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted by {}", name(*.0))]
pub struct Interrupted(pub i32);

/// SIGINT for 2 and so on; the number for one that has no name.
pub fn name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

/// From now on remembers the signals instead of dying from them. One that the parent had us ignore, as `nohup`
/// does with SIGHUP, stays ignored.
///
/// # Errors
/// No more file descriptors.
pub fn install() -> io::Result<()> {
    if WAKE.get().is_some() {
        return Ok(());
    }
    let pipe = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    if WAKE.set(pipe).is_err() {
        return Ok(());
    }
    // With all others held back meanwhile, the first to arrive is the first to be remembered.
    let action = SigAction::new(SigHandler::Handler(remember), SaFlags::SA_RESTART, SigSet::all());
    for signal in WATCHED {
        // SAFETY: the handler only touches atomics, reads a cell that was set before and calls write(2), all of
        // which a signal handler may do. Setting back what was there restores what the kernel gave us.
        unsafe {
            let before = sigaction(signal, &action)?;
            if matches!(before.handler(), SigHandler::SigIgn) {
                sigaction(signal, &before)?;
            }
        }
    }
    Ok(())
}

/// A file that reaches its limit (`RLIMIT_FSIZE`) is an error of the write (EFBIG) from now on, as a full disk is. SIGXFSZ
/// would end this process in the middle of a change.
pub fn outlive_file_limits() {
    // SAFETY: to ignore a signal runs no code of ours. It cannot fail for a signal that may be ignored.
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}

extern "C" fn remember(signal: libc::c_int) {
    let errno = Errno::last_raw();
    let _ = FIRST.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
    if let Some((_, write)) = WAKE.get() {
        // SAFETY: the pipe is never closed, and one byte is read from a constant. A full pipe wakes as well.
        unsafe { libc::write(write.as_raw_fd(), b"!".as_ptr().cast(), 1) };
    }
    Errno::set_raw(errno);
}

/// Forgets what arrived, and in a process made by fork what its parent got and will get: the pipe that wakes is its
/// own from now on.
///
/// # Errors
/// No more file descriptors.
pub fn forget() -> nix::Result<()> {
    if let Some((read, write)) = WAKE.get() {
        let (new_read, new_write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        for (new, old) in [(&new_read, read), (&new_write, write)] {
            // SAFETY: both numbers are open and owned here, and stay so; only what the old one leads to changes.
            Errno::result(unsafe { libc::dup3(new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC) })?;
        }
    }
    FIRST.store(0, Ordering::SeqCst);
    Ok(())
}

/// The first signal that arrived, if one did.
pub fn interrupted() -> Option<i32> {
    Some(FIRST.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
}

/// Sleeps, unless a signal arrives or has arrived.
///
/// # Errors
/// It did.
pub fn sleep(time: Duration) -> Result<(), Interrupted> {
    match wait(None, time) {
        Ok(_) => Ok(()),
        Err(Wait::Interrupted(interrupted)) => Err(interrupted),
        // The wait itself cannot fail with one descriptor, short of a kernel without memory.
        Err(Wait::Io(_)) => {
            std::thread::sleep(time);
            interrupted().map_or(Ok(()), |signal| Err(Interrupted(signal)))
        }
    }
}

/// What becomes readable when a signal arrives, if they are remembered.
pub(super) fn wakes() -> Option<BorrowedFd<'static>> {
    WAKE.get().map(|(read, _)| read.as_fd())
}

pub(super) enum Wait {
    Interrupted(Interrupted),
    Io(io::Error),
}

/// Waits until a descriptor is readable (`true`), the time is over (`false`) or a signal arrives.
pub(super) fn wait(fd: Option<BorrowedFd<'_>>, time: Duration) -> Result<bool, Wait> {
    let mut fds = Vec::with_capacity(2);
    fds.extend(fd.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    fds.extend(wakes().map(|read| PollFd::new(read, PollFlags::POLLIN)));
    let ready = poll::wait(&mut fds, poll::deadline(time)).map_err(Wait::Io)?;
    if let Some(signal) = interrupted() {
        return Err(Wait::Interrupted(Interrupted(signal)));
    }
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

    /// Signals concern a whole process, so what is tested runs in a process of its own: this test binary again,
    /// with one ignored test.
    fn alone(test: &str, prelude: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        let program = std::env::current_exe().unwrap();
        command.arg("-c").arg(format!("{prelude} exec \"$@\"")).arg("sh").arg(program);
        command.args(["--exact", &format!("sys::signal::tests::{test}"), "--ignored", "--nocapture"]);
        command.stdout(Stdio::piped());
        command
    }

    #[test]
    #[ignore = "run by the other tests, in a process of its own"]
    fn sleeper() {
        install().unwrap();
        install().unwrap();
        assert_eq!(sleep(Duration::from_millis(1)), Ok(()));
        println!("\nready");
        let first = sleep(Duration::from_secs(60)).unwrap_err();
        // It stays so.
        assert_eq!(sleep(Duration::from_secs(60)), Err(first));
        assert_eq!(interrupted(), Some(first.0));
        println!("\nended: {first}");
    }

    fn send(prelude: &str, signals: &[Signal]) -> (String, std::process::ExitStatus) {
        let mut child = alone("sleeper", prelude).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line == "ready"));
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        for signal in signals {
            nix::sys::signal::kill(pid, *signal).unwrap();
        }
        let end = lines.find_map(|line| line.strip_prefix("ended: ").map(str::to_owned)).unwrap_or_default();
        (end, child.wait().unwrap())
    }

    #[test]
    fn each_signal_ends_a_sleep() {
        for signal in WATCHED {
            let (end, status) = send("", &[signal]);
            assert_eq!(end, format!("interrupted by {signal}"));
            assert!(status.success());
        }
    }

    #[test]
    fn an_ignored_one_stays_ignored() {
        let (end, status) = send("trap '' HUP;", &[Signal::SIGHUP, Signal::SIGTERM]);
        assert_eq!(end, "interrupted by SIGTERM");
        assert!(status.success());
    }

    #[test]
    fn others_do_what_they_always_do() {
        let (end, status) = send("", &[Signal::SIGUSR1]);
        assert_eq!((end.as_str(), status.signal()), ("", Some(libc::SIGUSR1)));
    }

    #[test]
    fn names() {
        assert_eq!(Interrupted(15).to_string(), "interrupted by SIGTERM");
        assert_eq!(Interrupted(77).to_string(), "interrupted by signal 77");
    }
}
