//! `install --verify`: an installation stays only if packets go where they should.

use crate::config::{Config, Written};
use crate::exit::{Exit, Failure};
use crate::host::HostFacts;
use crate::present::{self, Receipt};
use crate::sys::signal;
use crate::verify::{self, Budget, Report, Status};

use super::request::Format;
use super::show;

/// Why an installation may not stay.
#[derive(Debug)]
pub struct Unproven {
    /// What was found, if anything could be tested.
    pub report: Option<Report>,
    /// The end of the run.
    pub failure: Failure,
}

/// Sends packets. `written` is what a command that installs the same may refer to.
///
/// # Errors
/// Some do not go where they should, or none could be sent.
pub fn prove(config: &Config, facts: &HostFacts, written: Option<&Written>) -> Result<Report, Unproven> {
    let report = verify::run(config, facts, written, &Budget::begin()).map_err(|failure| {
        if signal::interrupted().is_some() {
            return Unproven { report: None, failure: Failure { exit: Exit::Failed, ..failure } };
        }
        let message = format!("the installation cannot be verified: {}", failure.message);
        let failure = Failure::new(Exit::Failed, message).hint("install without --verify");
        Unproven { report: None, failure }
    })?;
    if !report.failed() {
        return Ok(report);
    }
    let message = format!(
        "the installation does not work: {} of {} checks failed",
        report.count(Status::Fail),
        report.outcomes.len()
    );
    let failure = Failure::new(Exit::Failed, message).hint(
        "install without --verify to have a closer look with 'tproxy status' and 'tproxy verify' at what is in the way",
    );
    Err(Unproven { report: Some(report), failure })
}

/// What was found, and what is there now.
pub fn show(receipt: &Receipt, report: Option<&Report>, format: Format) {
    match (format, report) {
        (Format::Json, _) => {
            let found = report.map(|report| ("verify", present::verify_value(report)));
            show::tell(&receipt.json(found.into_iter().collect()));
        }
        (Format::Text, Some(report)) => show::tell(&present::verify_text(report)),
        (Format::Text, None) => {}
    }
}
