//! `tproxy status`: what is installed, whether it is what is wanted, and who takes traffic first. Reads only.

pub(crate) mod ahead;
pub mod change;
mod compare;
pub(crate) mod doors;
pub(crate) mod listen;
pub(crate) mod look;
pub(crate) mod meets;
pub mod model;
mod own_table;
mod sequence;
pub(crate) mod source;
mod trial;
mod watch;
pub mod words;

use crate::apply::Format;
use crate::config::Resolved;
use crate::exit::{Exit, Failure};
use crate::present;
use crate::stdout::print;

use model::Verdict;

/// `tproxy status`.
#[derive(Debug)]
pub struct StatusRequest {
    /// The configuration of the command line, with where each value came from.
    pub resolved: Resolved,
    /// For whom the result is printed.
    pub format: Format,
    /// Go on and print what changes.
    pub watch: bool,
}

/// Looks and prints; what the process shall exit with.
///
/// # Errors
/// The host cannot be looked at.
pub fn status(request: &StatusRequest) -> Result<Exit, Failure> {
    if request.watch {
        return watch::watch(request).map(|()| Exit::Done);
    }
    let report = look::report(&request.resolved)?;
    print(&match request.format {
        Format::Json => present::status_json(&report),
        Format::Text => present::status_text(&report),
    })?;
    Ok(match report.verdict {
        Verdict::Installed => Exit::Done,
        Verdict::Differs => Exit::Differs,
        Verdict::NotInstalled => Exit::NotInstalled,
    })
}
