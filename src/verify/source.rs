//! Which configuration is verified.

use crate::apply::store::{State, Store};
use crate::config::{Config, Resolved};
use crate::exit::Failure;
use crate::status::model::Compared;
use crate::status::source::effective;

use super::rules;

/// What this command was given; else what the installation recorded; else what the rules say by themselves; else the
/// defaults. Logs which.
///
/// # Errors
/// The network namespace has no identity.
pub fn wanted(resolved: &Resolved) -> Result<Config, Failure> {
    let state = Store::unlocked()?.load();
    let (config, compared) = effective(resolved, state.as_ref().map(|state: &State| state.config.as_str()));
    match compared {
        Compared::Given => tracing::info!("verifying the given configuration"),
        Compared::Recorded => tracing::info!("verifying the configuration that the installation recorded"),
        Compared::Inferred | Compared::Nothing => {
            if let Some(inferred) = rules::read_off(&config) {
                tracing::info!(
                    "no configuration is given or recorded; verifying the one that the installed rules were made from"
                );
                return Ok(inferred);
            }
            tracing::info!("no configuration is given or recorded; verifying the defaults");
        }
    }
    Ok(config)
}
