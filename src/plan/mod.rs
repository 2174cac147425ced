//! What should exist: tables, chains and rules as data, each rule with its reason. Pure.

mod build;
mod link_local;
mod model;
mod nat;
mod ports;
mod raw;

pub use build::{build, family_plan, lacks_dns_servers, redirects_dns};
pub use link_local::{is_link_local, link_local};
pub use model::{
    BuiltinChain, ChainRef, Family, FamilyPlan, Match, OwnChain, PlacedRule, Placement, Plan, Rule, Table,
    TablePlan, Target,
};
pub use ports::MULTIPORT_SLOTS;

/// Begins the comment of every rule of ours: the whole comment, or followed by `/` and the reason.
pub const OWNER_TAG: &str = "kuma/mesh/transparent/proxy";
