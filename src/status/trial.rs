//! What is to be said of an installation that waits to be confirmed.

use std::path::Path;

use crate::apply::pending::Trial;

use super::model::{Finding, OnTrial};
use super::words;

/// The same for the report.
pub fn on_trial(trial: Trial) -> OnTrial {
    let (state, until) = match trial {
        Trial::Proving => ("proving", None),
        Trial::Waits(until) => ("waiting", Some(until)),
        Trial::Over(until) => ("going-back", Some(until)),
        Trial::Abandoned(until) => ("abandoned", Some(until)),
        Trial::Stopped { until, .. } => ("stopped", Some(until)),
    };
    OnTrial { state, until }
}

/// The same in words; `log` says what became of it.
pub fn finding(trial: Trial, log: &Path) -> Finding {
    match trial {
        Trial::Proving => Finding::note(
            "on trial: packets are just being sent to prove that the installation works; the time to confirm it begins after that",
        ),
        Trial::Waits(until) => Finding::new(
            format!(
                "on trial: the installation comes undone at {} unless it is confirmed",
                words::time(until)
            ),
            "run 'tproxy confirm' to keep it",
        ),
        Trial::Over(until) => Finding::new(
            format!(
                "nobody confirmed the installation until {}, so it is being taken back; {} has the details",
                words::time(until),
                log.display()
            ),
            "if it stays so, run 'tproxy uninstall', or 'tproxy install' to keep it",
        ),
        Trial::Abandoned(until) => Finding::new(
            format!(
                "on trial until {}, but the process that would take the installation back has ended, so nothing goes \
                 back by itself; {} has the details",
                words::time(until),
                log.display()
            ),
            "run 'tproxy confirm' to keep it, 'tproxy uninstall' to remove it, or 'tproxy install' with the \
             configuration that was there before",
        ),
        Trial::Stopped { until, pid } => Finding::new(
            format!(
                "on trial until {}, but process {pid}, which takes the installation back then, is stopped: nothing goes \
                 back until it continues",
                words::time(until)
            ),
            format!(
                "run 'kill -CONT {pid}' to let it go on, 'tproxy confirm' to keep the installation, or 'tproxy \
                 uninstall' to remove it"
            ),
        ),
    }
}
