//! The whole of what a run may change on a machine, to compare.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use serde_json::Value;

use super::backend;
use super::command;
use super::firewall::{self, Family, Variant};
use super::lab;
use super::ruleset::{OWN_CHAINS, Ruleset, assert_same};

/// What a machine looks like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    rules: BTreeMap<String, Ruleset>,
    native: Vec<String>,
    /// The native backend's table without counters, in the order of its parts.
    own_table: Option<String>,
    loopback: Vec<String>,
    files: Vec<String>,
}

impl Snapshot {
    /// Looks, and changes nothing by looking.
    #[track_caller]
    pub fn take() -> Self {
        lab::in_a_namespace_of_our_own();
        let rules = lab::everywhere().map(|(variant, family)| {
            let rules = firewall::rules(variant, family).without_idle_tables();
            // Legacy tools set policy counters to zero in every table that they write. IPv6 talks to itself
            // (router solicitations, multicast reports), so its policies count while nobody does anything.
            let rules = match (variant, family) {
                (Variant::Nft, Family::V4) => rules,
                _ => rules.without_policy_counters(),
            };
            (firewall::tool(variant, family, ""), rules)
        });
        Self {
            rules: rules.collect(),
            native: native(),
            own_table: backend::own_table(),
            loopback: loopback(),
            files: files(),
        }
    }

    /// One table's, one family's view of it.
    pub fn rules(&self, variant: Variant, family: Family) -> &Ruleset {
        &self.rules[&firewall::tool(variant, family, "")]
    }

    /// Whether both have the same rules, of iptables and of our own table, as programs print them.
    pub fn says_the_same_rules(&self, other: &Self) -> bool {
        (&self.rules, &self.own_table) == (&other.rules, &other.own_table)
    }

    /// Without counters, and without what tells a rule from its equal.
    pub fn without_counters(mut self) -> Self {
        for rules in self.rules.values_mut() {
            *rules = std::mem::take(rules).quiet();
        }
        self.native.clear();
        self
    }

    /// Without what tells a rule from its equal that took its place.
    pub fn without_handles(mut self) -> Self {
        for line in &mut self.native {
            if let Some((before, after)) = line.split_once("\"handle\":") {
                let after = after.trim_start_matches(|char: char| char.is_ascii_digit());
                *line = format!("{before}{after}");
            }
        }
        self
    }

    /// The machine is as it was, even if some of it was taken away and put back meanwhile.
    #[track_caller]
    pub fn assert_put_back_since(self, before: &Self) {
        self.without_handles().assert_unchanged_since(&before.clone().without_handles());
    }

    /// The machine is as it was.
    #[track_caller]
    pub fn assert_unchanged_since(&self, before: &Self) {
        assert_same("the machine is not as it was", &before.to_string(), &self.to_string());
    }

    /// Everything of other people is as it was: rules with their counters and their order, and for `nf_tables` the
    /// handles too, which a rule that was removed and put back does not keep.
    #[track_caller]
    pub fn assert_foreign_unchanged_since(&self, before: &Self) {
        for (tool, rules) in &before.rules {
            let now = self.rules[tool].clone().without_ours().without_idle_tables();
            assert_same(&format!("foreign rules of {tool} changed"), &rules.to_string(), &now.to_string());
        }
        let kept: Vec<&String> = self.native.iter().filter(|line| before.native.contains(line)).collect();
        let kept = kept.into_iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        assert_same("foreign objects of nf_tables changed", &before.native.join("\n"), &kept);
    }
}

impl std::fmt::Display for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (tool, rules) in &self.rules {
            writeln!(f, "## {tool}\n{rules}")?;
        }
        writeln!(f, "## nft\n{}", self.native.join("\n"))?;
        writeln!(f, "## our table\n{}", self.own_table.as_deref().unwrap_or_default())?;
        writeln!(f, "## lo\n{}", self.loopback.join("\n"))?;
        writeln!(f, "## files\n{}", self.files.join("\n"))
    }
}

/// Every object of `nf_tables` that does something, with its handle: the rules, sets and elements, users' chains.
fn native() -> Vec<String> {
    let text = command::must("nft", &["-j", "-a", "list", "ruleset"]);
    let all: Value = serde_json::from_str(&text).expect("nft speaks JSON");
    let mut lines = Vec::new();
    for object in all["nftables"].as_array().expect("a list") {
        let Some((kind, body)) = object.as_object().and_then(|object| object.iter().next()) else { continue };
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        // Tables, and the chains that hooks call with the policy accept, are made by whoever looks first.
        let idle = match kind.as_str() {
            "metainfo" => true,
            "table" => ["ip", "ip6"].contains(&text("family").as_str()) && is_shared(&text("name")),
            "chain" => {
                body["hook"].is_string() && text("policy") == "accept" && is_shared(&text("table"))
                    || OWN_CHAINS.contains(&text("name").as_str()) && text("table") == "nat"
            }
            _ => false,
        };
        if !idle {
            let mut line = String::new();
            let _ = write!(line, "{kind} {body}");
            lines.push(line);
        }
    }
    lines
}

fn is_shared(table: &str) -> bool {
    ["raw", "mangle", "nat", "filter", "security"].contains(&table)
}

/// Addresses of `lo`.
pub fn loopback() -> Vec<String> {
    let text = command::must("ip", &["-o", "addr", "show", "dev", "lo"]);
    text.lines()
        .filter_map(|line| line.split_whitespace().skip_while(|word| !word.starts_with("inet")).nth(1))
        .map(str::to_owned)
        .collect()
}

/// Files in /run, but for the lab's and the lock that the legacy tools leave.
fn files() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir("/run")
        .expect("a private /run")
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name != "lab" && name != "xtables.lock" && name != "systemd" && name != "resolvconf")
        .collect();
    names.sort();
    names
}
