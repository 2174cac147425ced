//! What refused a change, and that as the end of a run.

use std::fmt;

use crate::backend::iptables::commit::CommitError;
use crate::backend::iptables::observe::lacks_rights;
use crate::backend::iptables::situation::{Place, Unfound};
use crate::backend::iptables::tools::Variant;
use crate::backend::nftables::send::SendError;
use crate::exit::{Exit, Failure};
use crate::passing::Passing;

use super::degrade;

/// What is to be done about a lack that passes, and about programs that crash.
const PASSING: &str =
    "see that there are memory, processes and descriptors to spare, and run the command again";

/// A try that did not succeed.
#[derive(Debug)]
pub enum Refused {
    /// By the iptables programs.
    Iptables {
        /// Where.
        place: Place,
        /// Why.
        error: CommitError,
    },
    /// In our own table.
    Native(SendError),
    /// By none: a program ended well, and put rules to other places than it was told.
    Strayed,
}

impl Refused {
    /// By which variant's programs.
    pub fn variant(&self) -> Option<Variant> {
        match self {
            Self::Iptables { place: (variant, _), .. } => Some(*variant),
            Self::Native(_) | Self::Strayed => None,
        }
    }

    /// Whether a rule was refused that is to be removed and that the programs print, and that for the first time: each of
    /// them goes by its number from then on.
    pub fn is_unfound(&self, unfound: &mut Unfound) -> bool {
        let Self::Iptables { place, error: CommitError::Refused { refusal, .. } } = self else {
            return false;
        };
        let Some(line) = refusal.rule.clone().filter(|line| line.starts_with("-D ")) else { return false };
        let lines = unfound.entry(*place).or_default();
        let is_new = !lines.contains(&line);
        if is_new {
            lines.push(line);
        }
        is_new
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iptables { error, .. } => error.fmt(f),
            Self::Native(error) => error.fmt(f),
            Self::Strayed => f.write_str("iptables put rules to other places than it was told, each time"),
        }
    }
}

impl Passing for Refused {
    fn is_passing(&self) -> bool {
        match self {
            Self::Iptables { error, .. } => error.is_passing(),
            Self::Native(error) => error.is_passing(),
            Self::Strayed => true,
        }
    }
}

/// A refusal as the end of a run.
pub fn failure(refused: &Refused, strict: bool) -> Failure {
    let (variant, family, error) = match refused {
        Refused::Iptables { place: (variant, family), error } => (variant, family, error),
        Refused::Native(error) => return native_failure(error, strict),
        Refused::Strayed => return Failure::new(Exit::Failed, refused.to_string()).hint(PASSING),
    };
    let message = format!("the {family} rules ({variant}) could not be committed: {error}");
    if let (CommitError::Refused { .. }, Some(remedy)) = (error, lacks_rights(*variant)) {
        return Failure::new(Exit::Host, message).hint(remedy);
    }
    match error {
        CommitError::Busy { .. } => {
            Failure::new(Exit::Busy, message).hint("run the command again later, or with a longer --wait")
        }
        // With --wait 0 iptables waits until it is killed.
        CommitError::Run { holder: Some(_), .. } => {
            Failure::new(Exit::Busy, message).hint("run the command again when that process has ended")
        }
        _ if error.is_passing() => Failure::new(Exit::Failed, message).hint(PASSING),
        CommitError::Refused { .. } if strict => Failure::new(Exit::Host, message)
            .hint("without --strict, parts that can be left out are left out"),
        CommitError::Refused { .. } => Failure::new(Exit::Host, message)
            .hint("the kernel or the program lacks something that is required; its own words above say what"),
        CommitError::Run { source, .. } if source.cannot_start() => {
            let failure = Failure::new(Exit::Host, message);
            let remedy = source.remedy().unwrap_or_default();
            failure.hint(format!("{remedy}; with --backend nftables, an installation needs no program"))
        }
        CommitError::Run { .. } | CommitError::Broken { .. } => Failure::new(Exit::Failed, message)
            .hint("find out what holds that program up, and run the command again"),
    }
}

/// The same of our own table.
pub fn native_failure(error: &SendError, strict: bool) -> Failure {
    let exit = match error {
        _ if error.is_passing() => Exit::Failed,
        SendError::Denied | SendError::TooBig { .. } | SendError::Unsupported | SendError::Refused(_) => {
            Exit::Host
        }
        SendError::Owned | SendError::NoMemory { .. } | SendError::Io(_) | SendError::Unread(_) => {
            Exit::Failed
        }
        SendError::Changed => Exit::Busy,
    };
    let failure = Failure::new(exit, format!("the nftables rules could not be committed: {error}"));
    match error.hint() {
        Some(hint) if strict && degrade::can_do_without(error) => {
            failure.hint(format!("{hint}; without --strict, that part is left out"))
        }
        Some(hint) => failure.hint(hint),
        None if error.is_passing() => failure.hint(PASSING),
        None => failure,
    }
}
