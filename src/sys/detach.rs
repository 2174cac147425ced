//! A second process that outlives the first one, its terminal and its process group.
#![allow(unsafe_code, reason = "fork is unsafe to call, and so are changes of signal dispositions")]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe, setsid};

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
pub struct Ear(File);

impl Ear {
    /// Waits for it. Empty: the other process ended without a word.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen(mut self) -> io::Result<Vec<u8>> {
        let mut word = Vec::new();
        self.0.read_to_end(&mut word)?;
        Ok(word)
    }
}

/// Makes the second process. It has a session of its own, reads nothing, writes to `log` alone, is deaf to SIGHUP
/// and to SIGINT, and its parent is init.
///
/// Must be called while this process has a single thread: in the other one only the calling thread goes on, and
/// locks that others held stay locked.
///
/// # Errors
/// The kernel's; then there is no second process.
pub fn detach(log: &File) -> io::Result<Side> {
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    let (ear, mouth) = pipe()?;
    // SAFETY: there is one thread (see above), so the child may go on as if nothing had happened.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(mouth);
            nix::sys::wait::waitpid(child, None)?;
            Ok(Side::Here(Ear(ear.into())))
        }
        ForkResult::Child => {
            drop(ear);
            if second(&nothing, log).is_err() {
                std::process::exit(1);
            }
            Ok(Side::There(mouth))
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
    for (number, handler) in [
        (Signal::SIGHUP, SigHandler::SigIgn),
        (Signal::SIGINT, SigHandler::SigIgn),
        (Signal::SIGTERM, SigHandler::SigDfl),
    ] {
        // SAFETY: neither handler runs code of ours.
        unsafe { signal(number, handler) }?;
    }
    dup2_stdin(nothing.as_fd())?;
    dup2_stdout(nothing.as_fd())?;
    dup2_stderr(log.as_fd())
}
