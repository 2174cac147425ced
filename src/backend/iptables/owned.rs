//! Whose rule is it? Decides what of a saved rule set is ours. Pure.
//!
//! Ours are: rules with the owner tag as their whole comment (or the tag, a slash and more), the four chains by
//! exact name, and rules without a comment that the state file recorded. Nothing else, ever.

use std::collections::BTreeSet;

use crate::plan::{Match, OwnChain, Table, Target};

use super::decode::Canonical;
use super::save::{Saved, SavedChain, SavedRule};
use super::shape::in_catalogue;

/// A rule in a chain that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedRule {
    /// The table.
    pub table: Table,
    /// The chain.
    pub chain: String,
    /// Its place in the chain, from 0.
    pub index: usize,
    /// The rule.
    pub rule: SavedRule,
}

impl SharedRule {
    /// As an `iptables` command line would add it.
    pub fn text(&self) -> String {
        format!("-t {} -A {} {}", self.table.name(), self.chain, self.rule.args)
    }
}

/// A rule without comment that an installation of ours wrote, as its state file keeps it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecordedRule {
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// What stands behind the chain, in the words of the installation.
    pub args: String,
    /// How many rules of others in that chain said the very same when it was written. So many are not ours, and
    /// as long as there are no more than that, none is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub twins: usize,
    /// Whether it was put behind them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub behind: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What both lists record: `new`, and of `old` what is not in it. A rule that is in both is one rule.
pub fn merged(old: &[RecordedRule], new: &[RecordedRule]) -> Vec<RecordedRule> {
    let same =
        |a: &RecordedRule, b: &RecordedRule| (&a.table, &a.chain, &a.args) == (&b.table, &b.chain, &b.args);
    let mut unmatched = new.to_vec();
    let mut all = new.to_vec();
    for rule in old {
        match unmatched.iter().position(|other| same(rule, other)) {
            Some(at) => drop(unmatched.swap_remove(at)),
            None => all.push(rule.clone()),
        }
    }
    all
}

/// What of one variant's rules of one family is ours, and what touches ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ownership {
    /// Rules of ours in chains of others.
    pub shared: Vec<SharedRule>,
    /// Those of our chains that exist.
    pub chains: Vec<OwnChain>,
    /// Rules without comment that look exactly like those of an installation, where there is reason to think that
    /// one without comments was made. Not ours until somebody says so.
    pub unclaimed: Vec<SharedRule>,
    /// Rules that say nothing but their target, beside those of [`Self::unclaimed`]: an installation without comments
    /// that excludes every address writes such, and so does anybody. Nobody knows whose they are.
    pub doubtful: Vec<SharedRule>,
    /// Rules of others inside our chains.
    pub intruders: Vec<(OwnChain, SavedRule)>,
    /// Rules of others that lead to our chains.
    pub jumps: Vec<SharedRule>,
}

impl Ownership {
    /// Tells ours from theirs; `recorded` are the rules without comment of this family in the state file.
    pub fn of(saved: &Saved, recorded: &[RecordedRule]) -> Self {
        let mut own = Self::default();
        let mut candidates = Vec::new();
        for table in Table::ALL {
            let Some(saved_table) = saved.table(table.name()) else { continue };
            for chain in &saved_table.chains {
                match OwnChain::named(&chain.name).filter(|_| table == Table::Nat) {
                    Some(name) => own.chains.push(name),
                    None => own.sort_shared(table, chain, recorded, &mut candidates),
                }
            }
        }
        let tagged = own.shared.iter().any(|shared| shared.rule.is_tagged());
        if !own.chains.is_empty() && !tagged && candidates.iter().any(is_entry) {
            own.unclaimed = candidates;
        } else {
            own.doubtful.clear();
            // Without that reason such rules are simply somebody's.
            own.jumps.extend(candidates.into_iter().filter(|candidate| leads_to_us(&candidate.rule)));
        }
        own.find_intruders(saved, tagged);
        own
    }

    /// Whether there is anything of ours at all.
    pub fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.chains.is_empty()
    }

    /// Makes the unclaimed rules ours: somebody said so.
    pub fn adopt(&mut self) {
        self.shared.append(&mut self.unclaimed);
    }

    /// Makes other people's jumps to our chains removable: somebody said so.
    pub fn seize_jumps(&mut self) {
        self.shared.append(&mut self.jumps);
    }

    fn sort_shared(
        &mut self,
        table: Table,
        chain: &SavedChain,
        recorded: &[RecordedRule],
        candidates: &mut Vec<SharedRule>,
    ) {
        let recorded = recorded_places(table, chain, recorded);
        for (index, rule) in chain.rules.iter().enumerate() {
            let shared = || SharedRule { table, chain: chain.name.clone(), index, rule: rule.clone() };
            if rule.is_tagged() || recorded.contains(&index) {
                self.shared.push(shared());
                continue;
            }
            let to_us = table == Table::Nat && leads_to_us(rule);
            // Most rules of a busy host are in user chains of others; ours without comment never are.
            let canonical = (chain.builtin || to_us).then(|| Canonical::read(rule)).flatten();
            match canonical {
                Some(canonical) if chain.builtin && in_catalogue(table, &chain.name, &canonical) => {
                    candidates.push(shared());
                }
                Some(canonical)
                    if table == Table::Nat
                        && chain.builtin
                        && chain.name == "OUTPUT"
                        && says_nothing(&canonical) =>
                {
                    self.doubtful.push(shared());
                }
                _ if to_us => self.jumps.push(shared()),
                _ => {}
            }
        }
    }

    fn find_intruders(&mut self, saved: &Saved, tagged: bool) {
        let Some(nat) = saved.table(Table::Nat.name()) else { return };
        for &name in &self.chains {
            for rule in nat.chain(name.name()).map(|chain| chain.rules.as_slice()).unwrap_or_default() {
                let ours = if tagged { rule.is_tagged() } else { Canonical::read(rule).is_some() };
                if !ours {
                    self.intruders.push((name, rule.clone()));
                }
            }
        }
    }
}

/// Whether it lets everything pass, for no reason that it tells.
fn says_nothing(rule: &Canonical) -> bool {
    rule.matches().is_empty() && *rule.target() == Target::Return && *rule == rule.clone().uncommented()
}

/// Whether it sends all TCP to the chain in which an installation begins.
fn is_entry(candidate: &SharedRule) -> bool {
    Canonical::read(&candidate.rule).is_some_and(|rule| {
        matches!(rule.target(), Target::Jump(OwnChain::Inbound | OwnChain::Outbound))
            && matches!(rule.matches(), [Match::Protocol(_)])
    })
}

fn leads_to_us(rule: &SavedRule) -> bool {
    OwnChain::ALL.into_iter().any(|chain| rule.leads_to(chain.name()))
}

/// The places in a chain of the rules that the state file recorded.
fn recorded_places(table: Table, chain: &SavedChain, recorded: &[RecordedRule]) -> BTreeSet<usize> {
    let mut places = BTreeSet::new();
    let here = recorded.iter().filter(|record| record.table == table.name() && record.chain == chain.name);
    for record in here {
        let Some(said) = Canonical::read(&SavedRule::new(&record.args)) else { continue };
        let same: Vec<usize> = (0..chain.rules.len())
            .filter(|at| !places.contains(at) && Canonical::read(&chain.rules[*at]).as_ref() == Some(&said))
            .collect();
        if same.len() > record.twins {
            places.extend(if record.behind { same.last() } else { same.first() });
        }
    }
    places
}
