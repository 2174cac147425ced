//! What an installation can do without, and what it does without on this host. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::backend::iptables::refusal::Refusal;
use crate::backend::nftables::model::Statement;
use crate::backend::nftables::send::SendError;
use crate::config::Config;
use crate::config::values::IpFamilyMode;
use crate::host::HostFacts;
use crate::passing::Passing;
use crate::plan::{self, Family, Plan, Table};

/// Every family's configuration, less what this host turned out not to be able to do. It can be long, so it is the
/// user's own as long as nothing is left out.
#[derive(Debug, Clone)]
pub struct Degraded<'a> {
    configs: BTreeMap<Family, Cow<'a, Config>>,
    left_out: Vec<LeftOut>,
}

/// What was left out, as the state file keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// Which part.
    pub part: Part,
    /// Of which family, by its name; empty: of both.
    pub family: String,
    /// Why, in the words of the kernel or the program that refused it.
    pub why: String,
}

impl LeftOut {
    fn concerns(&self, family: Family) -> bool {
        self.family.is_empty() || self.family == family.to_string()
    }
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.family.is_empty() && self.part != Part::Ipv6 {
            write!(f, "{} ", self.family)?;
        }
        write!(f, "{}: {}", self.part.name(), self.why)
    }
}

/// A part that is left out rather than the whole installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Conntrack zones.
    Zones,
    /// The drop of packets in the state INVALID.
    Invalid,
    /// LOG rules.
    Log,
    /// Comments.
    Comments,
    /// All of IPv6.
    Ipv6,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Zones => "conntrack zones",
            Self::Invalid => "the rule that drops packets in the INVALID state",
            Self::Log => "LOG rules",
            Self::Comments => "comments",
            Self::Ipv6 => "IPv6",
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Zones => {
                "without conntrack zones, so that DNS questions of applications and of the sidecar can in rare \
                 cases be taken for one another"
            }
            Self::Invalid => "without the rule that drops packets in the INVALID state",
            Self::Log => "without LOG rules",
            Self::Comments => "without comments, so that the rules are known as ours by the state file alone",
            Self::Ipv6 => "without IPv6",
        }
    }

    fn is_on(self, config: &Config) -> bool {
        let dns = &config.redirect.dns;
        match self {
            Self::Zones => dns.enabled && !dns.skip_conntrack_zone_split,
            Self::Invalid => config.drop_invalid_packets,
            Self::Log => config.log.enabled,
            Self::Comments => !config.comments.disabled,
            Self::Ipv6 => config.ip_family_mode == IpFamilyMode::DualStack,
        }
    }

    fn turn_off(self, config: &mut Config) {
        match self {
            Self::Zones => config.redirect.dns.skip_conntrack_zone_split = true,
            Self::Invalid => config.drop_invalid_packets = false,
            Self::Log => config.log.enabled = false,
            Self::Comments => config.comments.disabled = true,
            Self::Ipv6 => config.ip_family_mode = IpFamilyMode::Ipv4,
        }
    }
}

impl<'a> Degraded<'a> {
    /// Nothing left out yet.
    pub fn new(config: &'a Config) -> Self {
        let configs = Family::BOTH.into_iter().map(|family| (family, Cow::Borrowed(config))).collect();
        Self { configs, left_out: Vec::new() }
    }

    /// Without what an installation left out, as far as this configuration asks for it.
    pub fn as_recorded(config: &'a Config, left_out: &[LeftOut]) -> Self {
        let mut degraded = Self::new(config);
        for left in left_out {
            let mut was_on = false;
            for (family, config) in &mut degraded.configs {
                if left.concerns(*family) && left.part.is_on(config) {
                    was_on = true;
                    left.part.turn_off(config.to_mut());
                }
            }
            if was_on {
                degraded.left_out.push(left.clone());
            }
        }
        degraded
    }

    /// What was left out.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// What is wanted of every family, less that.
    pub fn plan(&self, facts: &HostFacts) -> Plan {
        // Long lists make large plans; there is no more than one at a time.
        let Plan { families, notes } = plan::build(self.config(Family::V4), facts);
        let families: Vec<Family> = families.into_iter().map(|family| family.family).collect();
        let less = |family| plan::family_plan(self.config(family), facts, family);
        Plan { families: families.into_iter().map(less).collect(), notes }
    }

    /// Goes on without IPv6.
    pub fn lose_ipv6(&mut self, why: &str) {
        self.configs.values_mut().for_each(|config| Part::Ipv6.turn_off(config.to_mut()));
        self.note(Part::Ipv6, None, why);
    }

    fn note(&mut self, part: Part, family: Option<Family>, why: &str) {
        let family = family.map_or(String::new(), |family| family.to_string());
        self.left_out.push(LeftOut { part, family, why: why.to_owned() });
    }

    /// What is still wanted of a family.
    pub fn config(&self, family: Family) -> &Config {
        &self.configs[&family]
    }

    /// Leaves out the part that a refusal is most likely about, and says how the installation goes on without it;
    /// `None` if there is no part left that it could do without.
    pub fn leave_out(&mut self, family: Family, refusal: &Refusal) -> Option<&'static str> {
        let config = self.configs.get_mut(&family)?;
        let part = suspects(refusal).into_iter().find(|part| part.is_on(config))?;
        part.turn_off(config.to_mut());
        self.note(part, Some(family), &refusal.words);
        Some(part.describe())
    }

    /// The same for our own table, which is of both families.
    pub fn leave_out_native(&mut self, error: &SendError) -> Option<&'static str> {
        let part = part_of(error)?;
        let mut was_on = false;
        for config in self.configs.values_mut().filter(|config| part.is_on(config)) {
            was_on = true;
            part.turn_off(config.to_mut());
        }
        was_on.then(|| {
            self.note(part, None, &error.to_string());
            part.describe()
        })
    }
}

/// Whether a refusal of our own table is about something that the installation could do without.
pub fn can_do_without(error: &SendError) -> bool {
    part_of(error).is_some()
}

/// The part without which the table can be had.
fn part_of(error: &SendError) -> Option<Part> {
    let SendError::Refused(refused) = error else { return None };
    if error.is_passing() {
        return None;
    }
    match refused.statement.as_ref()? {
        Statement::CtZone(_) | Statement::Untracked => Some(Part::Zones),
        Statement::Invalid => Some(Part::Invalid),
        Statement::Log { .. } => Some(Part::Log),
        _ => None,
    }
}

/// The parts that a refusal can be about, the likeliest first. The nft variant names the rule, the legacy one only
/// the table, and a missing extension is named by both.
fn suspects(refusal: &Refusal) -> Vec<Part> {
    if refusal.mentions("comment") {
        return vec![Part::Comments];
    }
    let extension = |names: &[&str]| names.iter().any(|name| refusal.names_extension(name));
    let rule_is = |target: &str| refusal.rule.as_ref().is_some_and(|rule| rule.contains(target));
    match refusal.table {
        Some(Table::Raw) => vec![Part::Zones],
        Some(Table::Mangle) => vec![Part::Invalid],
        Some(Table::Nat) if rule_is(" -j LOG") || refusal.mentions("LOG") => vec![Part::Log],
        Some(Table::Nat) if refusal.rule.is_some() || refusal.is_missing_table() => vec![],
        Some(Table::Nat) => vec![Part::Log, Part::Comments],
        // Nothing is left out that nobody named.
        None if extension(&["LOG"]) => vec![Part::Log],
        None if extension(&["CT"]) => vec![Part::Zones],
        None if extension(&["conntrack", "state"]) => vec![Part::Invalid],
        None => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(table: Option<Table>, words: &str, rule: Option<&str>) -> Refusal {
        Refusal { words: words.into(), table, rule: rule.map(str::to_owned) }
    }

    #[test]
    fn only_parts_that_are_on_are_left_out_and_each_once() {
        let mut config = Config::default();
        config.redirect.dns.enabled = true;
        let mut degraded = Degraded::new(&config);
        let raw = refusal(Some(Table::Raw), "RULE_APPEND failed", None);
        assert!(degraded.leave_out(Family::V4, &raw).is_some_and(|how| how.contains("zones")));
        assert!(degraded.config(Family::V4).redirect.dns.skip_conntrack_zone_split);
        assert!(!degraded.config(Family::V6).redirect.dns.skip_conntrack_zone_split);
        assert_eq!(degraded.leave_out(Family::V4, &raw), None);
    }

    #[test]
    fn only_what_was_named_is_left_out() {
        let mut config = Config::default();
        config.redirect.dns.enabled = true;
        config.drop_invalid_packets = true;
        config.log.enabled = true;
        let left_out = |words: &str| {
            let mut degraded = Degraded::new(&config);
            degraded.leave_out(Family::V4, &refusal(None, words, None));
            degraded.left_out().first().map(|left| left.part)
        };
        for nothing in [
            "",
            "it is not my day",
            "error while loading shared libraries: libmnl.so.0: cannot open shared object file: No such file or directory",
            "Could not fetch rule set generation id: Invalid argument",
        ] {
            assert_eq!(left_out(nothing), None, "{nothing}");
        }
        for (words, part) in [
            ("Couldn't load target `LOG':No such file or directory", Part::Log),
            ("Couldn't load target `CT':No such file or directory", Part::Zones),
            ("Couldn't load match `conntrack':No such file or directory", Part::Invalid),
            ("Couldn't load match `comment':No such file or directory", Part::Comments),
            ("Warning: Extension CT revision 0 not supported, missing kernel module?", Part::Zones),
        ] {
            assert_eq!(left_out(words), Some(part), "{words}");
        }
    }

    #[test]
    fn a_lack_of_memory_leaves_nothing_out() {
        use crate::backend::nftables::refusal::{Part as Of, Refused};
        let error = |errno| {
            let statement = Some(Statement::CtZone(1));
            SendError::Refused(Box::new(Refused { part: Of::Everything, statement, errno, words: None }))
        };
        // ENOENT, ENOMEM and EAGAIN, which are the same on every architecture.
        let (missing, no_memory, again) = (2, 12, 11);
        assert!(can_do_without(&error(missing)));
        assert!(!can_do_without(&error(no_memory)) && !can_do_without(&error(again)));
    }

    #[test]
    fn a_required_rule_is_not_degraded() {
        let config = Config::default();
        let mut degraded = Degraded::new(&config);
        let redirect =
            refusal(Some(Table::Nat), "RULE_APPEND failed", Some("-A X -p tcp -j REDIRECT --to-ports 1"));
        assert_eq!(degraded.leave_out(Family::V4, &redirect), None);
    }
}
