//! Hands a family's changes to the kernel.

use std::path::PathBuf;
use std::time::Duration;

use crate::passing::Passing;
use crate::plan::Table;
use crate::sys::lock::{Holder, holder};
use crate::sys::run::{self, Command, Output, RunError};

use super::lock;
use super::refusal::Refusal;
use super::tools::{Programs, Variant};

/// How long a program may take beyond its wait for the lock.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How to wait for the xtables lock, which only the legacy variant has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockWait {
    /// Seconds; 0 leaves it to the program.
    pub seconds: u32,
    /// Microseconds between two tries; 0 leaves it to the program.
    pub interval: u32,
}

impl LockWait {
    /// Whether a program of this variant that is killed at its deadline has stopped waiting for the lock before.
    pub fn is_over(self, variant: Variant) -> bool {
        variant == Variant::Nft || self.seconds > 0
    }
}

/// Why changes were not committed, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Somebody held the xtables lock for too long.
    #[error("the xtables lock is held{}: {words}", holder.as_ref().map_or(String::new(), |h| format!(" by {h}")))]
    Busy {
        /// Who, where it can be found out.
        holder: Option<Holder>,
        /// What the program said.
        words: String,
    },
    /// The program or the kernel refused a table's block.
    #[error("{} failed with {ending}: {}", program.display(), describe(refusal))]
    Refused {
        /// Which program.
        program: PathBuf,
        /// How it ended.
        ending: String,
        /// What it said.
        refusal: Refusal,
    },
    /// The program crashed, or lacked memory, processes or descriptors. That says nothing of what it was to commit.
    #[error("{} failed with {ending}: {}", program.display(), describe(refusal))]
    Broken {
        /// Which program.
        program: PathBuf,
        /// How it ended.
        ending: String,
        /// What it said.
        refusal: Refusal,
    },
    /// The program could not be run to its end.
    #[error("{}{}", source, holder.as_ref().map_or(String::new(), |h| format!("; the xtables lock is held by {h}")))]
    Run {
        /// Why.
        source: RunError,
        /// Who held the xtables lock at that time, if anybody.
        holder: Option<Holder>,
    },
}

impl CommitError {
    /// Whether there is no use in ever running the program again: it is not somebody's lock or a matter of time.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Run { source, .. } => source.cannot_start() && !source.is_passing(),
            Self::Busy { .. } | Self::Broken { .. } => false,
        }
    }

    /// Whether the program may have committed something of a script before it failed.
    pub fn may_have_committed(&self, script: &str) -> bool {
        let tables = || script.lines().filter_map(|line| line.strip_prefix('*'));
        match self {
            Self::Run { source, .. } => !source.cannot_start(),
            Self::Refused { refusal, .. } => refusal.table.map(Table::name) != tables().next().map(str::trim),
            // Each table takes the lock anew.
            Self::Busy { .. } => tables().count() > 1,
            Self::Broken { .. } => true,
        }
    }

    /// Whether the program did not end in its time and had to be killed, and what it was asked to do will not happen
    /// any more.
    pub fn is_stuck(&self) -> bool {
        matches!(self, Self::Run { source: RunError::Deadline { alive: false, .. }, holder: None })
    }
}

impl Passing for CommitError {
    fn is_passing(&self) -> bool {
        match self {
            Self::Broken { .. } => true,
            Self::Run { source, .. } => source.is_passing(),
            Self::Busy { .. } | Self::Refused { .. } => false,
        }
    }
}

fn describe(refusal: &Refusal) -> String {
    let words = if refusal.words.is_empty() { "it gave no reason" } else { &refusal.words };
    match (&refusal.rule, refusal.table) {
        (Some(rule), Some(table)) => {
            format!("{words} (table {}: {})", table.name(), crate::text::escape(rule))
        }
        (None, Some(table)) => format!("{words} (table {})", table.name()),
        _ => words.to_owned(),
    }
}

/// One family's transaction, ready to be committed table by table.
#[derive(Debug)]
pub struct Commit {
    variant: Variant,
    command: Command,
}

impl Commit {
    /// Of this script.
    pub fn new(programs: &Programs, variant: Variant, wait: LockWait, script: String) -> Self {
        let mut args = Vec::new();
        let mut deadline = DEADLINE;
        if variant == Variant::Legacy && wait.seconds > 0 {
            args.push(format!("--wait={}", wait.seconds));
            if wait.interval > 0 {
                args.push(format!("--wait-interval={}", wait.interval));
            }
            deadline += Duration::from_secs(wait.seconds.into());
        }
        args.push("--noflush".to_owned());
        let mut command = Command::new(&programs.restore, args, deadline);
        command.stdin = script.into_bytes();
        if variant == Variant::Legacy {
            let other = lock::another().map(|path| (run::LOCK_VARIABLE.into(), path.into()));
            command.env.extend(other);
        }
        Self { variant, command }
    }

    /// Commits it.
    ///
    /// # Errors
    /// The tables before the refused one are committed all the same; the caller looks what is there.
    pub fn run(&self) -> Result<(), CommitError> {
        self.judge(run::run(&self.command))
    }

    /// What is committed.
    pub fn script(&self) -> &str {
        // It was made from text.
        std::str::from_utf8(&self.command.stdin).unwrap_or_default()
    }

    /// Starts its program, which has nothing to read yet and so changes nothing. What can fail for want of memory,
    /// processes or descriptors does so here.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn hold(&self) -> Result<Waiting<'_>, CommitError> {
        match run::hold(&self.command) {
            Ok(held) => Ok(Waiting { commit: self, held }),
            Err(source) => Err(self.failed(source)),
        }
    }

    fn judge(&self, output: Result<Output, RunError>) -> Result<(), CommitError> {
        let output = output.map_err(|source| self.failed(source))?;
        if output.success() && !output.unread {
            return Ok(());
        }
        let refusal = Refusal::read(&String::from_utf8_lossy(&output.stderr), self.script());
        if output.success() {
            // It takes an input that it cannot read for one that has ended.
            let ending = format!("{} before it had read its input", output.ending());
            return Err(CommitError::Broken { program: self.command.program.clone(), ending, refusal });
        }
        let (program, ending) = (self.command.program.clone(), output.ending());
        if refusal.is_busy() {
            lock::waited();
            return Err(CommitError::Busy { holder: self.holder(), words: refusal.words });
        }
        if output.is_passing() || cannot_open_lock(&output) {
            return Err(CommitError::Broken { program, ending, refusal });
        }
        Err(CommitError::Refused { program, ending, refusal })
    }

    fn failed(&self, source: RunError) -> CommitError {
        CommitError::Run { source, holder: self.holder() }
    }

    /// Who has the xtables lock. Asked only when it matters, while the holder is likely to be there still.
    fn holder(&self) -> Option<Holder> {
        (self.variant == Variant::Legacy).then(|| holder(&lock::path())).flatten()
    }
}

/// A commit whose program waits for its input. Dropping it ends the program.
pub struct Waiting<'a> {
    commit: &'a Commit,
    held: run::Held<'a>,
}

impl<'a> Waiting<'a> {
    /// Lets the program work.
    ///
    /// # Errors
    /// It cannot be given its input.
    pub fn release(self) -> Result<Working<'a>, CommitError> {
        let Self { commit, held } = self;
        match held.release() {
            Ok(started) => Ok(Working { commit, started }),
            Err(source) => Err(commit.failed(source)),
        }
    }
}

/// A commit whose program is at work.
pub struct Working<'a> {
    commit: &'a Commit,
    started: run::Started<'a>,
}

impl Working<'_> {
    /// Waits for its end.
    ///
    /// # Errors
    /// As [`Commit::run`].
    pub fn finish(self) -> Result<(), CommitError> {
        let Self { commit, started } = self;
        commit.judge(started.finish())
    }
}

fn cannot_open_lock(output: &Output) -> bool {
    !output.success() && String::from_utf8_lossy(&output.stderr).contains("can't open lock file")
}
