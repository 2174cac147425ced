//! Brings the host from what is there to what is wanted.

pub mod confirm;
pub(crate) mod degrade;
mod dns_flows;
pub(crate) mod facts;
mod first;
mod found;
pub(crate) mod guests;
mod install;
mod journal;
pub(crate) mod look;
mod open;
pub(crate) mod owners;
mod passthrough;
mod patience;
pub(crate) mod pending;
mod persist;
mod prove;
mod refused;
mod remains;
mod request;
mod scene;
mod show;
mod ssh;
mod state;
mod stop;
pub mod store;
mod sweep;
mod transaction;
pub(crate) mod translated;
mod undo;
mod uninstall;
mod warnings;

pub use install::install;
pub use request::{DryRun, Format, InstallRequest, Trial, UninstallRequest};
pub use ssh::keep as keep_ssh;
pub use uninstall::uninstall;
