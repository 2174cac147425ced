//! The rules of ours that one family shall have: those of a plan, those that were there before, or none. Pure.

use std::collections::BTreeMap;

use crate::plan::{BuiltinChain, ChainRef, FamilyPlan, OwnChain, Placement, Table};

use super::decode::Canonical;
use super::owned::{Ownership, RecordedRule};
use super::save::{Saved, SavedRule};
use super::syntax::{Style, rule_args};
use super::transition::DiffLine;
use super::typed::TypedRule;

/// Where in a shared chain a wanted rule belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Among the first ones, before everybody else's.
    Head,
    /// Anywhere behind.
    Tail,
    /// Where it was, counted from 0.
    At(usize),
}

/// Whether rules with other comments are other rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Comments {
    #[default]
    Count,
    Ignored,
}

/// What makes two rules the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Rule(Canonical),
    /// For rules that are nobody's plan: other people's inside our chains, when they are put back.
    Text(String),
}

impl Key {
    pub(super) fn of(rule: &SavedRule) -> Self {
        Canonical::read(rule).map_or_else(|| Self::Text(rule.args.clone()), Self::Rule)
    }

    /// Without the comment, where that shall not count.
    pub(super) fn counting(self, comments: Comments) -> Self {
        match (self, comments) {
            (Self::Rule(rule), Comments::Ignored) => Self::Rule(rule.uncommented()),
            (key, _) => key,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedRule {
    pub(super) args: String,
    pub(super) key: Key,
    pub(super) place: Place,
    /// Whether `args` differ from those that it had, which no script can have.
    pub(super) reworded: bool,
}

impl WantedRule {
    /// One that was there before.
    fn of(rule: &SavedRule, place: Place) -> Self {
        let args = rule.said();
        Self { reworded: args != rule.args, args, key: Key::of(rule), place }
    }
}

/// The rules of ours that one family shall have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    pub(super) shared: BTreeMap<(Table, String), Vec<WantedRule>>,
    /// A chain that is not in it shall not exist.
    pub(super) own: BTreeMap<OwnChain, Vec<WantedRule>>,
    pub(super) comments: Comments,
}

impl Wanted {
    /// None at all.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// What a plan says.
    pub fn plan(plan: &FamilyPlan, comments: bool) -> Self {
        let mut wanted = Self::default();
        for table in &plan.tables {
            for (chain, rules) in &table.chains {
                let rules = rules.iter().map(|placed| WantedRule {
                    args: rule_args(&placed.rule, comments, Style::Short).trim_start().to_owned(),
                    key: Key::Rule(Canonical::of(&placed.rule, comments)),
                    place: match placed.placement {
                        Placement::Head => Place::Head,
                        Placement::Tail => Place::Tail,
                    },
                    reworded: false,
                });
                match chain {
                    ChainRef::Own(chain) => {
                        wanted.own.insert(*chain, rules.collect());
                    }
                    ChainRef::Builtin(_) => {
                        // In the kernel's order: what goes to the head comes first.
                        let (head, tail): (Vec<_>, Vec<_>) =
                            rules.partition(|rule| rule.place == Place::Head);
                        let rules = head.into_iter().chain(tail).collect();
                        wanted.shared.insert((table.table, chain.name().to_owned()), rules);
                    }
                }
            }
        }
        wanted
    }

    /// What was there before, to go back to it.
    pub fn before(saved: &Saved, ownership: &Ownership) -> Self {
        let mut wanted = Self::default();
        for shared in &ownership.shared {
            let rules = wanted.shared.entry((shared.table, shared.chain.clone())).or_default();
            rules.push(WantedRule::of(&shared.rule, Place::At(shared.index)));
        }
        for &name in &ownership.chains {
            let chain = saved.table(Table::Nat.name()).and_then(|nat| nat.chain(name.name()));
            let rules = chain.map(|chain| chain.rules.as_slice()).unwrap_or_default();
            let rules = rules.iter().map(|rule| WantedRule::of(rule, Place::Tail));
            wanted.own.insert(name, rules.collect());
        }
        wanted
    }

    /// The same where it does not matter how rules are commented: to look, not to change.
    #[must_use]
    pub fn whatever_comments(mut self) -> Self {
        self.comments = Comments::Ignored;
        for rule in self.shared.values_mut().chain(self.own.values_mut()).flatten() {
            rule.key = rule.key.clone().counting(Comments::Ignored);
        }
        self
    }

    /// Whether anything is redirected by it: only our own chains do that.
    pub fn redirects(&self) -> bool {
        self.own.values().any(|rules| !rules.is_empty())
    }

    /// Its rules that have a say in where datagrams go.
    pub fn datagram_rules(&self) -> Vec<TypedRule> {
        let builtin = |name: &String| {
            let chains = [BuiltinChain::Prerouting, BuiltinChain::Output].map(ChainRef::Builtin);
            chains.into_iter().find(|chain| chain.name() == name)
        };
        let shared =
            self.shared.iter().filter_map(|((table, chain), rules)| Some((*table, builtin(chain)?, rules)));
        let own = self.own.iter().map(|(chain, rules)| (Table::Nat, ChainRef::Own(*chain), rules));
        let all = shared
            .chain(own)
            .flat_map(|(table, chain, rules)| rules.iter().map(move |rule| (table, chain, rule)));
        let about_them = all.filter(|(.., rule)| rule.args.contains("-p udp"));
        let typed = about_them.filter_map(|(table, chain, rule)| match &rule.key {
            Key::Rule(rule) => Some(TypedRule { table, chain, rule: rule.clone(), packets: None }),
            Key::Text(_) => None,
        });
        typed.collect()
    }

    /// Whether a line adds a rule that was there before in words that no script can have.
    pub fn rewords(&self, line: &DiffLine) -> bool {
        let shared =
            self.shared.iter().filter(|((_, chain), _)| *chain == line.chain).flat_map(|(_, rules)| rules);
        let own =
            self.own.iter().filter(|(chain, _)| chain.name() == line.chain).flat_map(|(_, rules)| rules);
        line.added && shared.chain(own).any(|rule| rule.reworded && rule.args == line.args)
    }

    /// How many rules that is.
    pub fn rule_count(&self) -> usize {
        self.shared.values().chain(self.own.values()).map(Vec::len).sum()
    }

    /// Its rules in shared chains, as the state file records them where they carry no comment; `saved` and
    /// `ownership` are from before they were written.
    pub fn recorded(&self, saved: &Saved, ownership: &Ownership) -> Vec<RecordedRule> {
        let mut records = Vec::new();
        for ((table, chain), rules) in &self.shared {
            let present = saved.table(table.name()).and_then(|table| table.chain(chain));
            let present = present.map(|chain| chain.rules.as_slice()).unwrap_or_default();
            let is_ours = |index: usize| {
                ownership
                    .shared
                    .iter()
                    .any(|own| own.table == *table && own.chain == *chain && own.index == index)
            };
            let others: Vec<Key> = (0..present.len())
                .filter(|index| !is_ours(*index))
                .map(|index| Key::of(&present[index]))
                .collect();
            records.extend(rules.iter().map(|rule| RecordedRule {
                table: table.name().to_owned(),
                chain: chain.clone(),
                args: rule.args.clone(),
                twins: others.iter().filter(|other| **other == rule.key).count(),
                behind: rule.place != Place::Head,
            }));
        }
        records
    }
}
