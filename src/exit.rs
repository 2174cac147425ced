//! How a run ends: the exit code, and the two lines that an error becomes.

use std::fmt;

use crate::passing::Passing;

/// The target of a log event that is the next step after what was said before it, as of a warning.
pub const HINT: &str = "hint";

/// Exit codes; scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// Failed; the host is as it was before, or on trial still goes back to that.
    Failed = 1,
    /// Wrong use of the command, or a wrong configuration.
    Usage = 2,
    /// The host cannot do it: a tool, a kernel feature, a user or a permission is missing.
    Host = 3,
    /// Another process holds a lock.
    Busy = 4,
    /// Failed, and something is left that should not be, or missing, because the way back failed too, or because an
    /// uninstall removed all but what it does not know about; the message says what.
    Left = 5,
    /// Nothing is installed.
    NotInstalled = 10,
    /// What is installed differs from what is wanted.
    Differs = 11,
    /// Packets do not go where they should.
    VerifyFailed = 12,
}

/// An error as the user sees it: what happened, in the words of whatever failed, and the one next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What the process exits with.
    pub exit: Exit,
    /// What happened; may have several lines.
    pub message: String,
    /// The one next step.
    pub hint: Option<String>,
    /// Whether it may be gone in a moment. It says nothing of what the host can do.
    pub passing: bool,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, passing: false }
    }

    /// The same with its one next step; an empty one is none.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into()).filter(|hint| !hint.is_empty());
        self
    }

    /// The same for a reason that may be gone in a moment, if it is one.
    #[must_use]
    pub fn passing(self, passing: bool) -> Self {
        Self { passing, ..self }
    }
}

impl Passing for Failure {
    fn is_passing(&self) -> bool {
        self.passing
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
