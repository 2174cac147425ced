//! What a save tool printed, as data: tables, chains, rules with their counters.

use std::collections::BTreeMap;
use std::fmt;

/// The comment that marks a rule as an installation's.
pub const TAG: &str = "kuma/mesh/transparent/proxy";

/// Chains of an installation.
pub const OWN_CHAINS: [&str; 4] =
    ["KUMA_MESH_INBOUND", "KUMA_MESH_OUTBOUND", "KUMA_MESH_INBOUND_REDIRECT", "KUMA_MESH_OUTBOUND_REDIRECT"];

/// Everything one save tool shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    pub tables: BTreeMap<String, BTreeMap<String, Chain>>,
}

/// A chain: its policy (`-` for users' chains) and its rules in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    pub policy: String,
    /// `[packets:bytes]` of the policy, empty where the save shows none.
    pub policy_counters: String,
    pub rules: Vec<Rule>,
}

/// One `-A` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `[packets:bytes]`, empty where the save shows none.
    pub counters: String,
    /// From `-A` on.
    pub text: String,
}

impl Rule {
    /// The text behind `--comment`, unescaped, if the rule has one. Other people's arguments may look like anything,
    /// so words are split as the save tools quote them.
    pub fn comment(&self) -> Option<String> {
        let words = words(&self.text);
        let at = words.iter().position(|word| word == "--comment")?;
        words.get(at + 1).cloned()
    }

    pub fn is_tagged(&self) -> bool {
        self.comment().is_some_and(|comment| {
            comment == TAG || comment.strip_prefix(TAG).is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' if quoted => word.get_or_insert_default().extend(chars.next()),
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

impl Ruleset {
    /// Reads a save, with or without counters.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let mut tables: BTreeMap<String, BTreeMap<String, Chain>> = BTreeMap::new();
        let mut current = String::new();
        for line in text.lines().map(str::trim_end) {
            if line.is_empty() || line.starts_with('#') || line == "COMMIT" {
                continue;
            }
            if let Some(table) = line.strip_prefix('*') {
                table.clone_into(&mut current);
                tables.entry(current.clone()).or_default();
                continue;
            }
            let table = tables.get_mut(&current).unwrap_or_else(|| panic!("no table before {line:?}"));
            if let Some(chain) = line.strip_prefix(':') {
                let mut words = chain.split(' ');
                let name = words.next().unwrap_or_default().to_owned();
                let policy = words.next().unwrap_or_default().to_owned();
                let policy_counters = words.next().unwrap_or_default().to_owned();
                table.insert(name, Chain { policy, policy_counters, rules: Vec::new() });
                continue;
            }
            let (counters, rule) = match line.split_once(' ') {
                Some((counters, rule)) if counters.starts_with('[') => (counters.to_owned(), rule),
                _ => (String::new(), line),
            };
            let chain = rule.strip_prefix("-A ").and_then(|rest| rest.split(' ').next());
            let chain = chain.unwrap_or_else(|| panic!("not a rule: {line:?}"));
            let rules = &mut table.entry(chain.to_owned()).or_default().rules;
            rules.push(Rule { counters, text: rule.to_owned() });
        }
        Self { tables }
    }

    /// Without counters, and without tables that do nothing: no rule, no user's chain, no policy but ACCEPT. Tools
    /// create those by looking, and no tool of the family can remove them.
    pub fn quiet(mut self) -> Self {
        for chain in self.tables.values_mut().flat_map(BTreeMap::values_mut) {
            chain.policy_counters.clear();
            for rule in &mut chain.rules {
                rule.counters.clear();
            }
        }
        self.without_idle_tables()
    }

    /// Without tables that do nothing.
    pub fn without_idle_tables(mut self) -> Self {
        self.tables.retain(|_, chains| {
            chains.values().any(|chain| !chain.rules.is_empty() || chain.policy != "ACCEPT")
        });
        self
    }

    /// Without the counters of policies.
    pub fn without_policy_counters(mut self) -> Self {
        for chain in self.tables.values_mut().flat_map(BTreeMap::values_mut) {
            chain.policy_counters.clear();
        }
        self
    }

    /// Without everything that an installation owns by tag or chain.
    pub fn without_ours(mut self) -> Self {
        if let Some(nat) = self.tables.get_mut("nat") {
            nat.retain(|name, _| !OWN_CHAINS.contains(&name.as_str()));
        }
        for chain in self.tables.values_mut().flat_map(BTreeMap::values_mut) {
            chain.rules.retain(|rule| !rule.is_tagged());
        }
        self
    }

    /// Whether anything in it is an installation's.
    pub fn has_ours(&self) -> bool {
        self.clone().without_ours() != *self
    }

    /// Rules of one chain, without counters.
    pub fn chain(&self, table: &str, chain: &str) -> Vec<&str> {
        self.tables
            .get(table)
            .and_then(|chains| chains.get(chain))
            .map(|chain| chain.rules.iter().map(|rule| rule.text.as_str()).collect())
            .unwrap_or_default()
    }

    /// Every rule.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.tables.values().flat_map(BTreeMap::values).flat_map(|chain| &chain.rules)
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (table, chains) in &self.tables {
            writeln!(f, "*{table}")?;
            for (name, chain) in chains {
                writeln!(f, ":{name} {} {}", chain.policy, chain.policy_counters)?;
                for rule in &chain.rules {
                    writeln!(f, "{} {}", rule.counters, rule.text)?;
                }
            }
        }
        Ok(())
    }
}

/// Fails with the lines that differ, when two texts are not the same.
#[track_caller]
pub fn assert_same(what: &str, wanted: &str, found: &str) {
    if wanted == found {
        return;
    }
    let (wanted, found): (Vec<&str>, Vec<&str>) = (wanted.lines().collect(), found.lines().collect());
    let missing: Vec<&str> = wanted.iter().copied().filter(|line| !found.contains(line)).collect();
    let extra: Vec<&str> = found.iter().copied().filter(|line| !wanted.contains(line)).collect();
    panic!(
        "{what}\n--- wanted, not found\n{}\n--- found, not wanted\n{}\n--- all that was found\n{}",
        missing.join("\n"),
        extra.join("\n"),
        found.join("\n")
    );
}
