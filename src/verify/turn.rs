//! One verification at a time in a network namespace: what one of them listens on, another one would take for a
//! sidecar, and there is one documentation address for each of them at most.

use std::time::Duration;

use crate::exit::{Exit, Failure};
use crate::sys::turn::{self, TurnError};

/// Names whoever verifies now.
const NAME: &str = "tproxy verify";

/// How long `tproxy verify` waits for another one. On a host in order that takes a second or two.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long an installation waits that is to be verified: longer than any verification takes.
pub const MORE_PATIENCE: Duration = Duration::from_secs(60);

/// A turn to verify, or leave to do it without one.
#[derive(Debug)]
pub struct Turn {
    _turn: Option<turn::Turn>,
}

impl Turn {
    /// Takes it, and waits so long for others at most.
    ///
    /// # Errors
    /// Others had it all the time ([`Exit::Busy`]), or this process is asked to stop.
    pub fn take(wait: Duration) -> Result<Self, Failure> {
        match turn::Turn::take(NAME, wait) {
            Ok(turn) => Ok(Self { _turn: Some(turn) }),
            Err(TurnError::Busy(holder)) => {
                let who = holder.map_or("another process".to_owned(), |holder| holder.to_string());
                let message =
                    format!("another verification is under way in this network namespace, by {who}");
                Err(Failure::new(Exit::Busy, message).hint("run the command again when that one has ended"))
            }
            Err(error @ TurnError::Interrupted(_)) => Err(Failure::new(Exit::Failed, error.to_string())),
            // An ordinary user must not be able to keep root from it.
            Err(error @ (TurnError::Unproven(_) | TurnError::Stranger(_) | TurnError::Io(_))) => {
                tracing::warn!("another verification at the same time would not be noticed: {error}");
                Ok(Self { _turn: None })
            }
        }
    }
}
