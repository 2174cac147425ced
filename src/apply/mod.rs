//! Brings the host from what is there to what is wanted.

mod request;

pub use request::{DryRun, Format, InstallRequest, UninstallRequest};
