//! Hands a family's changes to the kernel.

use std::path::PathBuf;
use std::time::Duration;

use crate::sys::lock::{self, Holder};
use crate::sys::run::{self, Command, Output, RunError};

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
            Self::Run { source, .. } => source.cannot_start(),
            Self::Busy { .. } => false,
        }
    }

    /// Whether the program did not end in its time and had to be killed, and what it was asked to do will not happen
    /// any more.
    pub fn is_stuck(&self) -> bool {
        matches!(self, Self::Run { source: RunError::Deadline { alive: false, .. }, holder: None })
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
        Self { variant, command }
    }

    /// Commits it.
    ///
    /// # Errors
    /// The tables before the refused one are committed all the same; the caller looks what is there.
    pub fn run(&self) -> Result<(), CommitError> {
        self.judge(run::run(&self.command))
    }

    /// Commits two, the second after the first, and not at all if the first fails. Its program is started at once
    /// and waits for its input: it takes the xtables lock only when it reads a table's name.
    ///
    /// # Errors
    /// The first error and whose it is; for the rest as [`Commit::run`].
    pub fn run_in_turn(&self, second: &Self) -> Result<(), (Turn, CommitError)> {
        let held = (second.command.stdin.len() <= run::MOST_HELD).then(|| run::hold(&second.command));
        self.run().map_err(|error| (Turn::First, error))?;
        let output = match held {
            Some(held) => held.and_then(run::Held::release).and_then(run::Started::finish),
            None => run::run(&second.command),
        };
        second.judge(output).map_err(|error| (Turn::Second, error))
    }

    fn judge(&self, output: Result<Output, RunError>) -> Result<(), CommitError> {
        // Looked for only when it matters, and while the holder is likely to be there still.
        let holder = || (self.variant == Variant::Legacy).then(|| lock::holder(&xtables_lock())).flatten();
        let failed = |source| CommitError::Run { source, holder: holder() };
        let mut output = output.map_err(failed)?;
        if self.variant == Variant::Legacy && cannot_open_lock(&output) {
            tracing::info!("the xtables lock cannot be made; the network namespace itself is locked instead");
            let mut command = self.command.clone();
            command.env.push(("XTABLES_LOCKFILE".into(), NAMESPACE_LOCK.into()));
            output = run::run(&command).map_err(failed)?;
        }
        if output.success() {
            return Ok(());
        }
        let script = String::from_utf8_lossy(&self.command.stdin);
        let refusal = Refusal::read(&String::from_utf8_lossy(&output.stderr), &script);
        if refusal.is_busy() {
            return Err(CommitError::Busy { holder: holder(), words: refusal.words });
        }
        let program = self.command.program.clone();
        Err(CommitError::Refused { program, ending: output.ending(), refusal })
    }
}

/// Which of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The one that came first.
    First,
    /// The one that came after it.
    Second,
}

/// What can be locked where no file can be made, as on a read-only /run: it is the same for every process that could
/// change the same rules. Programs older than 1.8.6 do not know the variable, and do not insist on the lock either.
const NAMESPACE_LOCK: &str = "/proc/self/ns/net";

fn cannot_open_lock(output: &Output) -> bool {
    !output.success() && String::from_utf8_lossy(&output.stderr).contains("can't open lock file")
}

/// Where the legacy programs lock (`XT_LOCK_NAME` in their source).
fn xtables_lock() -> PathBuf {
    std::env::var_os("XTABLES_LOCKFILE").map_or_else(|| PathBuf::from("/run/xtables.lock"), PathBuf::from)
}
