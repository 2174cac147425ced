//! What an installation did, as its record keeps it, and how much of that counts. Pure but for the clock.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::degrade::LeftOut;
use crate::backend::Backend;
use crate::backend::iptables::owned::RecordedRule;
use crate::backend::iptables::situation::Recorded;
use crate::backend::iptables::tools::Variant;
use crate::backend::iptables::written;
use crate::config::{self, Config};
use crate::plan::Family;
use crate::status::source;

/// The record's format.
pub(super) const SCHEMA: u32 = 1;

/// How far a run came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Written before anything is changed. Found later, it means that a run was killed.
    #[default]
    Changing,
    /// All that the state says is there.
    Installed,
}

/// What an installation did, and on whose behalf.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// Of this file's format.
    pub schema: u32,
    /// The program's.
    pub version: String,
    /// How far it came.
    pub phase: Phase,
    /// Seconds since 1970.
    pub installed_at: u64,
    /// The inode of the network namespace, by which later runs find out whether it is still there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_namespace: Option<u64>,
    /// `iptables` or `nftables`; none in files of versions that knew iptables alone.
    pub backend: String,
    /// `nft` or `legacy`; none of nftables.
    pub variant: String,
    /// The sidecar's UID.
    pub sidecar_uid: u32,
    /// The configuration, as the text of a configuration file.
    pub config: String,
    /// What of the configuration this host turned out not to be able to do.
    pub left_out: Vec<LeftOut>,
    /// Whether the sidecar's IPv6 source address on the loopback interface is our doing.
    pub added_passthrough: bool,
    /// Whether it may have been that of an installation before, whose record could not be read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unsure_of_address: bool,
    /// Rules of ours in shared chains that carry no comment, IPv4.
    pub uncommented_v4: Vec<RecordedRule>,
    /// The same, IPv6.
    pub uncommented_v6: Vec<RecordedRule>,
    /// While a change is under way: the installations before it, whose rules may be among those.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<Former>,
}

/// What an installation before wrote its rules from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Former {
    /// As in [`State`].
    pub sidecar_uid: u32,
    /// As in [`State`].
    pub config: String,
}

impl State {
    /// Of an installation that begins now.
    pub fn new(config: &Config, backend: Backend, sidecar_uid: u32) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            installed_at: now.as_secs(),
            backend: backend.name().to_owned(),
            variant: backend.variant().map(|variant| variant.to_string()).unwrap_or_default(),
            sidecar_uid,
            config: config::show::yaml(config, None),
            ..Self::default()
        }
    }

    /// The variant of iptables that the installation went by, if it did.
    pub fn variant(&self) -> Option<Variant> {
        Variant::BOTH.into_iter().find(|variant| variant.to_string() == self.variant)
    }

    /// The configuration in the text of a state file; `None` of any other text.
    pub fn config_in(text: &str) -> Option<String> {
        let state: Self = serde_json::from_str(text).ok()?;
        (state.schema == SCHEMA).then_some(state.config)
    }

    /// Whether it tells of the same installation, whenever that was made.
    pub fn says_the_same(&self, other: &Self) -> bool {
        *self == Self { installed_at: self.installed_at, version: self.version.clone(), ..other.clone() }
    }

    /// The rules without comment of a family.
    pub fn uncommented_mut(&mut self, family: Family) -> &mut Vec<RecordedRule> {
        match family {
            Family::V4 => &mut self.uncommented_v4,
            Family::V6 => &mut self.uncommented_v6,
        }
    }

    /// The rules without comment, by family.
    pub fn recorded(&self) -> Recorded {
        Recorded::from([(Family::V4, self.uncommented_v4.clone()), (Family::V6, self.uncommented_v6.clone())])
    }

    /// Of a change from this to another installation: what rules may be there.
    pub fn formers(&self, next: &Self) -> Vec<Former> {
        if self.uncommented_v4.is_empty() && self.uncommented_v6.is_empty() {
            return Vec::new();
        }
        let mut formers = self.former.clone();
        formers.push(Former { sidecar_uid: self.sidecar_uid, config: self.config.clone() });
        formers.retain(|former| (former.sidecar_uid, &former.config) != (next.sidecar_uid, &next.config));
        formers.dedup();
        formers
    }

    /// Forgets recorded rules that no installation from a recorded configuration writes, and says which. They are
    /// somebody's, whatever a record says.
    pub(super) fn forget_foreign_rules(&mut self) -> Vec<RecordedRule> {
        if self.uncommented_v4.is_empty() && self.uncommented_v6.is_empty() {
            return Vec::new();
        }
        let now = Former { sidecar_uid: self.sidecar_uid, config: self.config.clone() };
        let writers = self.former.iter().chain([&now]);
        let writers = writers.filter_map(|writer| Some((source::read(&writer.config)?, writer.sidecar_uid)));
        let writers: Vec<(Config, u32)> = writers.collect();
        let mut foreign = Vec::new();
        for family in Family::BOTH {
            let rules = self.uncommented_mut(family);
            let written = written::rules(rules, &writers, family);
            let (ours, others) = std::mem::take(rules).into_iter().partition(|rule| written.contains(rule));
            *rules = ours;
            foreign.extend(others);
        }
        foreign
    }
}
