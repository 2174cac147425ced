//! A second process that outlives the first one, its terminal and its process group.
#![allow(unsafe_code, reason = "fork is unsafe to call, and so are changes of signal dispositions")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::{
    ForkResult, Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, getpid, pipe2, setsid,
};

use super::signal::{self as stop, Wait};
use super::{netlink, poll};

/// How many bytes the second process says when all is made and it can go on: its PID, or why it cannot as a negative
/// errno.
const READY: usize = size_of::<u32>();

/// How many files, sockets and pipes the second process can open at once beside those that it begins with; it needs about
/// half of them. And the limit that it gives itself where it may.
const SPARE: usize = 32;
const DESCRIPTORS: u64 = 1024;

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Side {
    /// The first one; from the pipe it reads what the other one has to say.
    Here(Ear),
    /// The other one; it must end with [`std::process::exit`], never by returning.
    There(OwnedFd),
}

/// Hears what the other process says, once, or that it ended.
#[derive(Debug)]
pub struct Ear {
    pipe: File,
    /// The other process.
    pid: Pid,
}

impl Ear {
    /// Whether the other process has ended or said its word.
    ///
    /// # Errors
    /// The kernel's.
    pub fn has_heard(&self) -> io::Result<bool> {
        poll::wait(&mut [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)], Some(Instant::now()))
    }

    /// Asks the other process to end (SIGTERM), if it has not ended.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ask_to_end(&self) -> io::Result<()> {
        if !self.has_heard()? {
            kill(self.pid, Signal::SIGTERM)?;
        }
        Ok(())
    }

    /// Waits for it. Empty: the other process ended without a word.
    ///
    /// # Errors
    /// The kernel's, or this process was asked to stop meanwhile.
    pub fn listen(&mut self) -> io::Result<Vec<u8>> {
        match stop::wait(Some(self.pipe.as_fd()), Duration::MAX) {
            Ok(_) => {}
            Err(Wait::Interrupted(interrupted)) => return Err(io::Error::other(interrupted)),
            Err(Wait::Io(error)) => return Err(error),
        }
        let mut word = Vec::new();
        self.pipe.read_to_end(&mut word)?;
        Ok(word)
    }
}

/// Whether the first process still listens, from the pipe that the second one has.
pub fn is_heard(mouth: &impl AsFd) -> bool {
    // A pipe that nobody reads any more is in error, whatever is asked.
    let mut fds = [PollFd::new(mouth.as_fd(), PollFlags::empty())];
    let polled = poll::wait(&mut fds, Some(Instant::now()));
    !polled.is_ok_and(|ready| ready)
}

/// Makes the second process. It has a session of its own, reads nothing, writes to `log` alone, is deaf to SIGHUP
/// and to SIGINT, knows nothing of signals that the first one got, is spared by the OOM killer and by the resource limits
/// of the first one where that is allowed, and its parent is init.
///
/// `let_go` runs in the other one before this one goes on: what only one of them may hold is let go of there.
///
/// Must be called while this process has a single thread: in the other one only the calling thread goes on, and
/// locks that others held stay locked.
///
/// # Errors
/// The kernel's, or the second process would have too few descriptors; then there is none.
pub fn detach(log: &File, let_go: impl FnOnce()) -> io::Result<Side> {
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    let (ear, mouth) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: there is one thread (see above), so the child may go on as if nothing had happened.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(mouth);
            nix::sys::wait::waitpid(child, None)?;
            let mut ear = File::from(ear);
            let mut pid = [0; READY];
            ear.read_exact(&mut pid).map_err(|_| io::Error::other("it ended at once"))?;
            match i32::from_ne_bytes(pid) {
                pid @ 1.. => Ok(Side::Here(Ear { pipe: ear, pid: Pid::from_raw(pid) })),
                errno => Err(io::Error::from_raw_os_error(-errno)),
            }
        }
        ForkResult::Child => {
            drop(ear);
            netlink::forget();
            let mut mouth = File::from(mouth);
            if let Err(error) = second(&nothing, log).map_err(Into::into).and_then(|()| has_spare(&nothing)) {
                let errno = error.raw_os_error().unwrap_or_default();
                let _ = mouth.write_all(&(-errno).to_ne_bytes());
                std::process::exit(1);
            }
            let_go();
            if mouth.write_all(&getpid().as_raw().to_ne_bytes()).is_err() {
                std::process::exit(1);
            }
            Ok(Side::There(mouth.into()))
        }
    }
}

fn second(nothing: &File, log: &File) -> nix::Result<()> {
    setsid()?;
    // A session leader could get a terminal; its child cannot.
    // SAFETY: as above.
    if let ForkResult::Parent { .. } = unsafe { fork() }? {
        // SAFETY: ends this process at once, without running what the first one registered for its own end.
        unsafe { libc::_exit(0) };
    }
    for number in [Signal::SIGHUP, Signal::SIGINT] {
        // SAFETY: to ignore a signal runs no code of ours.
        unsafe { signal(number, SigHandler::SigIgn) }?;
    }
    stop::forget()?;
    lift_limits();
    // Without memory the kernel ends others first, or nobody would be left to go back. Less than it is may be denied to a
    // process without CAP_SYS_RESOURCE; then it stays as it was inherited.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    // The directory that it began in may have to be unmounted.
    chdir("/")?;
    dup2_stdin(nothing.as_fd())?;
    dup2_stdout(nothing.as_fd())?;
    dup2_stderr(log.as_fd())
}

/// They were set for a command that ends soon. What exceeds one may be killed for it (`RLIMIT_CPU`).
fn lift_limits() {
    use Resource::{RLIMIT_AS, RLIMIT_CPU, RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_NOFILE, RLIMIT_NPROC};
    for resource in [RLIMIT_AS, RLIMIT_CPU, RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_NOFILE, RLIMIT_NPROC] {
        let Ok((_, hard)) = getrlimit(resource) else { continue };
        // There is no descriptor without a number, so their limit has an end.
        let none = if resource == RLIMIT_NOFILE { hard.max(DESCRIPTORS) } else { RLIM_INFINITY };
        // Beyond the hard one only with CAP_SYS_RESOURCE.
        let _ = setrlimit(resource, none, none).or_else(|_| setrlimit(resource, hard, hard));
    }
}

/// It must not learn only when it is needed that it can open nothing.
fn has_spare(nothing: &File) -> io::Result<()> {
    (0..SPARE).map(|_| nothing.try_clone()).collect::<io::Result<Vec<_>>>().map(drop)
}

/// Lets the second process go on with another log.
///
/// # Errors
/// The kernel's.
pub fn write_to(log: &File) -> io::Result<()> {
    Ok(dup2_stderr(log.as_fd())?)
}

/// Closes what this process got from its caller beside the three standard streams: somebody may wait for the end of
/// a pipe among it. Whatever this program opens by itself is closed on exec, and so told from it; call this only
/// where no other descriptor is to be kept.
pub fn let_go_of_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for number in numbers {
        // SAFETY: used for one call; a number that is not open any more is an error of that call.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let kept = fcntl(fd, FcntlArg::F_GETFD).map(FdFlag::from_bits_truncate);
        if kept.is_ok_and(|flags| !flags.contains(FdFlag::FD_CLOEXEC)) {
            // SAFETY: nothing in this program owns it, see above.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
}
