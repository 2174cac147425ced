//! Address translation of others that DNS questions meet.

use crate::backend::Backend;
use crate::backend::iptables::legacy;
use crate::backend::iptables::observe::Observation;
use crate::backend::iptables::situation::Situation;
use crate::backend::iptables::tools::Variant;
use crate::config::Config;
use crate::host::{HostFacts, Translated};
use crate::plan::Family;
use crate::status::ahead::{self, Ours};
use crate::status::model::Ahead;
use crate::sys::netlink::ruleset::{self, Ruleset};

use super::look;
use super::scene::Scene;

/// Looks for it. What cannot be read is taken for nothing.
pub fn find(config: &Config, facts: &HostFacts, scene: &Scene, backend: Backend) -> (Translated, Vec<Ahead>) {
    if !config.redirect.dns.enabled {
        return (Translated::default(), Vec::new());
    }
    let ruleset = ruleset::read(ahead::may_be_ahead).unwrap_or_default();
    in_ruleset(config, facts, (&scene.iptables, &scene.legacy), backend, &ruleset)
}

/// The same, where the chains of nftables are known. `legacy`: families that may have legacy tables which are not in the
/// situation.
pub fn in_ruleset(
    config: &Config,
    facts: &HostFacts,
    (situation, legacy): (&Situation, &[Family]),
    backend: Backend,
    ruleset: &Ruleset,
) -> (Translated, Vec<Ahead>) {
    let ours = Ours::of(config, facts);
    let others = legacy_of_others(situation, legacy);
    let mut found = Vec::new();
    for family in Family::BOTH {
        found.extend(ahead::translating_dns(situation, ruleset, family, &ours));
        found.extend(ahead::translating_dns(&others, &Ruleset::default(), family, &ours));
    }
    let families = found.iter().map(|ahead| ahead.family).collect();
    let in_our_chain = matches!(backend, Backend::Iptables(_));
    (Translated { families, in_our_chain }, found)
}

/// Legacy rules of others in tables that no program was asked for: one reads them only where ours go among them. `families`
/// may have such tables.
pub fn legacy_of_others(situation: &Situation, families: &[Family]) -> Situation {
    let unread = |family: &Family| situation.saved((Variant::Legacy, *family)).is_none();
    let unread: Vec<Family> = families.iter().copied().filter(unread).collect();
    let legacy = look::legacy(&unread, legacy::read);
    let others: Observation = legacy
        .iter()
        .map(|(family, tables)| ((Variant::Legacy, *family), tables))
        .filter(|(_, tables)| !tables.is_empty() && !tables.is_ours())
        .map(|(place, tables)| (place, tables.saved(false)))
        .collect();
    Situation::new(others, &std::collections::BTreeMap::new())
}

/// What to say of it.
pub fn warning(found: &[Ahead]) -> Option<String> {
    let first = found.first()?;
    let Ahead { whose, place, rule, .. } = first;
    let more = if found.len() > 1 { format!(" and {} more", found.len() - 1) } else { String::new() };
    let (whose, rule) = (crate::text::escape(whose), crate::text::escape(rule));
    Some(format!(
        "address translation of {whose} may lead DNS questions to another server than was asked ('{rule}' in {place}{more}): \
         the sidecar's own questions are left to it, and have no conntrack zone of their own"
    ))
}
