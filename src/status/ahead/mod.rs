//! What takes traffic before our rules see it. Pure but for the types of what was read.
//!
//! In one nat chain the first rule that decides wins, so what stands before our jump counts. Between two chains at
//! the same hook, of the other variant or of a native table, whichever redirects first wins, so there only what
//! redirects or drops counts. What a host sends to itself is not our traffic, nor is what a container gets.

mod exempt;
mod native;
mod rules;
mod tie;

use std::net::IpAddr;

use crate::backend::iptables::situation::Situation;
use crate::backend::iptables::tools::Variant;
use crate::config::Config;
use crate::host::HostFacts;
use crate::plan::Family;
use crate::sys::netlink::ruleset::{ChainType, HookedChain, Ruleset};

use super::model::Ahead;
pub use exempt::exempted;
use native::Stand;
pub use native::{IPTABLES, elsewhere, may_be_ahead};
pub use tie::{Found, Place, chains_at, install_findings, status_notes};

/// The traffic that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    /// The sidecar's user, whose traffic is left alone anyway.
    pub sidecar: u32,
    /// Whether TCP that leaves is redirected.
    pub outbound: bool,
    /// Whether TCP that arrives is.
    pub inbound: bool,
    /// Whose questions are.
    pub dns: Dns,
}

impl Ours {
    /// What an installation with this configuration redirects.
    pub fn of(config: &Config, facts: &HostFacts) -> Self {
        let redirect = &config.redirect;
        let servers = || facts.resolvers.iter().map(|resolver| resolver.addr).collect();
        Self {
            sidecar: facts.sidecar_uid,
            outbound: redirect.outbound.enabled,
            inbound: redirect.inbound.enabled,
            dns: match (redirect.dns.enabled, redirect.dns.capture_all) {
                (false, _) => Dns::Off,
                (true, true) => Dns::All,
                (true, false) => Dns::Servers(servers()),
            },
        }
    }
}

/// Whose DNS questions are redirected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dns {
    /// Nobody's.
    Off,
    /// Those to these servers.
    Servers(Vec<IpAddr>),
    /// All.
    All,
}

impl Dns {
    /// Whether a question to this network could be one of them.
    fn could_go_to(&self, net: &ipnet::IpNet) -> bool {
        match self {
            Self::Off => false,
            Self::Servers(servers) => servers.iter().any(|server| net.contains(server)),
            Self::All => true,
        }
    }
}

/// One kind of traffic of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// TCP that leaves.
    Outbound,
    /// TCP that arrives.
    Inbound,
    /// DNS questions that leave.
    Dns,
}

impl Traffic {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Outbound, Self::Inbound, Self::Dns];

    /// The hook at which it is redirected.
    pub const fn hook(self) -> &'static str {
        match self {
            Self::Inbound => "prerouting",
            Self::Outbound | Self::Dns => "output",
        }
    }

    /// The chain of iptables at that hook.
    const fn chain(self) -> &'static str {
        match self {
            Self::Inbound => "PREROUTING",
            Self::Outbound | Self::Dns => "OUTPUT",
        }
    }

    /// Its name in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Dns => "dns",
        }
    }

    fn is_ours(self, ours: &Ours) -> bool {
        match self {
            Self::Outbound => ours.outbound,
            Self::Inbound => ours.inbound,
            Self::Dns => ours.dns != Dns::Off,
        }
    }
}

/// Everything ahead of our rules in `variant`.
pub fn of_ours(situation: &Situation, variant: Variant, native: &Ruleset, ours: &Ours) -> Vec<Ahead> {
    let mut found = Vec::new();
    for family in Family::BOTH {
        let installed =
            situation.ownership().any(|(place, own)| place == (variant, family) && !own.is_empty());
        if !installed {
            continue;
        }
        for traffic in Traffic::ALL.into_iter().filter(|traffic| traffic.is_ours(ours)) {
            found.extend(rules::same_chain(situation, (variant, family), traffic, ours));
            found.extend(rules::untracked(situation, family, traffic, ours));
            found.extend(rules::other_variant(situation, (variant, family), traffic, ours));
            // What no program was asked for is seen as the kernel has it.
            let compat = situation.saved((Variant::Nft, family)).is_none();
            let stand = Stand { compat, ..Stand::iptables(variant) };
            found.extend(native::ahead(native, family, traffic, ours, stand));
        }
    }
    found
}

/// Everything ahead of our own table, whose chain for a traffic stands at `priority`; of iptables, `situation` has
/// the legacy rules alone.
pub fn of_own_table(
    situation: &Situation,
    native: &Ruleset,
    families: &[Family],
    ours: &Ours,
    priority: impl Fn(Traffic) -> Option<i32>,
) -> Vec<Ahead> {
    let mut found = Vec::new();
    for &family in families {
        for traffic in Traffic::ALL.into_iter().filter(|traffic| traffic.is_ours(ours)) {
            let Some(priority) = priority(traffic) else { continue };
            found.extend(rules::untracked(situation, family, traffic, ours));
            if priority >= native::IPTABLES {
                found.extend(rules::legacy(situation, family, traffic, ours));
            }
            let stand = Stand::own_table(priority);
            found.extend(native::ahead(native, family, traffic, ours, stand));
        }
    }
    found
}

/// Rules of others that lead DNS questions to another server than was asked, wherever they stand. Docker's are left
/// out: what they need, a plan knows by itself.
pub fn translating_dns(situation: &Situation, native: &Ruleset, family: Family, ours: &Ours) -> Vec<Ahead> {
    if !Traffic::Dns.is_ours(ours) {
        return Vec::new();
    }
    let mut found = rules::translating_dns(situation, family, ours);
    let nat = |chain: &&HookedChain| chain.kind == ChainType::Nat;
    let native = Ruleset {
        hooked: native.hooked.iter().filter(nat).cloned().collect(),
        rules: native.rules.clone(),
        ..Ruleset::default()
    };
    let compat = situation.saved((Variant::Nft, family)).is_none();
    let stand = Stand { compat, ..Stand::own_table(i32::MAX) };
    found.extend(native::ahead(&native, family, Traffic::Dns, ours, stand));
    found.retain(|ahead| ahead.whose != "Docker");
    found
}

/// What of a traffic something is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    None,
    Some,
    All,
}

/// Whose a rule is that nobody here knows.
pub const NOBODY_KNOWN: &str = "somebody else";

/// Whose chains begin so.
const NAMES: [(&str, &str); 15] = [
    ("KUMA_MESH_", "an installation through iptables"),
    ("DOCKER", "Docker"),
    ("KUBE-", "kube-proxy"),
    ("CNI-", "a CNI plugin"),
    ("NETAVARK", "Podman"),
    ("CILIUM_", "Cilium"),
    ("cali-", "Calico"),
    ("ISTIO_", "Istio"),
    ("PROXY_INIT_", "Linkerd"),
    ("CONSUL_PROXY_", "Consul"),
    ("LIBVIRT_", "libvirt"),
    ("POST_public", "firewalld"),
    ("PREROUTING_", "firewalld"),
    ("OUTPUT_", "firewalld"),
    ("ufw-", "ufw"),
];

/// Whose a rule most likely is, by the names in it.
fn whose<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter();
    let known = names
        .find_map(|name| NAMES.iter().find(|(start, _)| name.starts_with(start)).map(|(_, whose)| *whose));
    known.unwrap_or(NOBODY_KNOWN).to_owned()
}
