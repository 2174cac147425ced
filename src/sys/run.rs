//! Child processes: the only way this program starts one.
//!
//! A child gets a process group of its own, an environment that says nothing but where tools are, and its whole
//! input as an anonymous file, so that neither side can block the other. Its output is captured through pipes. It
//! has until its deadline; then the whole group is killed and reaped.
//!
//! The end of a child is seen through a pidfd and not through the end of its output: a grandchild that inherited
//! the pipes may keep them open for as long as it likes.
#![allow(unsafe_code, reason = "pidfd_open has no wrapper; signal(SIGCHLD) is an unsafe call")]

mod child;
mod error;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::passing;
use crate::sys::netlink;
use child::Watch;
pub use error::RunError;

static STARTED: AtomicUsize = AtomicUsize::new(0);

/// Where tools are looked for, by us and by the tools themselves (`modprobe`). Never the caller's `PATH`.
pub const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Says where the legacy programs have their lock. It is passed on, because everybody has to take the same one.
/// `XTABLES_LIBDIR` is not: programs load code from there.
pub const LOCK_VARIABLE: &str = "XTABLES_LOCKFILE";

/// The caller's lock file of xtables, if it names one that does not depend on the working directory.
pub fn xtables_lock() -> Option<PathBuf> {
    std::env::var_os(LOCK_VARIABLE).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// What to run, and for how long at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// An absolute path, or a name that is looked for in [`PATH`].
    pub program: PathBuf,
    /// Without the program's name.
    pub args: Vec<OsString>,
    /// Everything the child can read.
    pub stdin: Vec<u8>,
    /// Added to the cleared environment.
    pub env: Vec<(OsString, OsString)>,
    /// From the start of the child to its end.
    pub deadline: Duration,
}

impl Command {
    /// A command without input.
    pub fn new<A: Into<OsString>>(
        program: impl Into<PathBuf>,
        args: impl IntoIterator<Item = A>,
        deadline: Duration,
    ) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            stdin: Vec::new(),
            env: Vec::new(),
            deadline,
        }
    }
}

/// What became of a child that ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// Its exit status, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// All it wrote there until it ended.
    pub stdout: Vec<u8>,
    /// All it wrote there until it ended.
    pub stderr: Vec<u8>,
    /// Whether it did not read its whole input.
    pub unread: bool,
}

impl Output {
    /// Whether it ended with status 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Whether a signal ended it, or a shell in its place says so of a child of its own; or whether it says that it
    /// lacked memory, processes or descriptors. Another try may succeed.
    pub fn is_passing(&self) -> bool {
        passing::is_crash(self.code, self.signal)
            || !self.success() && passing::says_so(&String::from_utf8_lossy(&self.stderr))
    }

    /// How it ended, in words: "exit status 4", "killed by signal 9".
    pub fn ending(&self) -> String {
        match (self.code, self.signal) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "ended in an unknown way".to_owned(),
        }
    }
}

/// Runs a command and waits for its end. Two may run in parallel.
///
/// # Errors
/// The child could not be started, it outlived its deadline, or a system call failed while it ran. Whatever the
/// error, the child's process group has been killed and the child reaped; [`RunError::Deadline`] tells of the one
/// exception. A child that ends with another status than 0 is no error.
pub fn run(command: &Command) -> Result<Output, RunError> {
    child::run(command, Watch::Pidfd)
}

/// A child under way.
pub struct Started<'a>(child::Started<'a>);

/// Starts a command and does not wait; its deadline runs from here.
///
/// # Errors
/// As for [`run`].
pub fn start(command: &Command) -> Result<Started<'_>, RunError> {
    netlink::forget();
    child::start(command, Watch::Pidfd).map(Started)
}

impl Started<'_> {
    /// Waits for its end. Only from here on its output is read: more than a pipe holds (64 KiB) makes it wait.
    ///
    /// # Errors
    /// As for [`run`].
    pub fn finish(self) -> Result<Output, RunError> {
        self.0.finish()
    }
}

/// A child that has nothing to read yet. Dropping it ends the child.
pub struct Held<'a>(child::Held<'a>);

/// Starts a command of which only the input is still to come: its start costs no time later, and does not fail then.
/// Where no pipe takes the whole input at once, so that giving it cannot block, it is started when it is released.
///
/// # Errors
/// As for [`run`].
pub fn hold(command: &Command) -> Result<Held<'_>, RunError> {
    netlink::forget();
    child::hold(command, Watch::Pidfd).map(Held)
}

impl<'a> Held<'a> {
    /// Gives it its input; its deadline runs from here.
    ///
    /// # Errors
    /// As for [`run`].
    pub fn release(self) -> Result<Started<'a>, RunError> {
        self.0.release().map(Started)
    }
}

/// How many children this process has started so far.
pub fn started() -> usize {
    STARTED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
