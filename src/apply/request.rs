//! What a run is asked to do, once the command line is understood.

use std::time::Duration;

use crate::config::{Config, Written};

/// Whether anything is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DryRun {
    /// Change the host.
    #[default]
    Off,
    /// Print the rules that would be there.
    Rules,
    /// Print what would change, against the live rules.
    Diff,
}

/// For whom results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// `tproxy install`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallRequest {
    /// What is wanted.
    pub config: Config,
    /// What a command that wants the same may refer to.
    pub written: Option<Written>,
    /// Whether anything is to be changed; wins over `config.dry_run`.
    pub dry_run: DryRun,
    /// For whom results are printed.
    pub format: Format,
    /// Take over rules without comments that look exactly like an installation's.
    pub adopt: bool,
    /// Stop where an optional part would otherwise be left out with a warning.
    pub strict: bool,
    /// Go back to what was there before unless packets go where they should.
    pub verify: bool,
    /// Go back to what was there before unless it is confirmed within this time.
    pub confirm: Option<Trial>,
}

/// `--confirm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// How long it may take to confirm.
    pub time: Duration,
    /// Stay until it is confirmed or taken back.
    pub stay: bool,
}

/// `tproxy uninstall`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UninstallRequest {
    /// Where to look: executables, lock waits and retries count; the rest only has to be valid.
    pub config: Config,
    /// Whether anything is to be changed; wins over `config.dry_run`.
    pub dry_run: DryRun,
    /// For whom results are printed.
    pub format: Format,
    /// Take over rules without comments that look exactly like an installation's.
    pub adopt: bool,
    /// Remove other people's rules that jump to our chains.
    pub force: bool,
}
