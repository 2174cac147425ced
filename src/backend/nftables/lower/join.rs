//! Which rules become one. A rule may join an earlier one when it changes nothing for any packet that both come first:
//! the rules between them do the same, or no packet can meet both.

use std::collections::HashMap;

use super::super::set::merged;
use super::fold::{Condition, Draft};

/// Joins what can be joined.
pub(super) fn fold(drafts: impl Iterator<Item = Draft>) -> Vec<Draft> {
    // First by ports, then by users: the only rules with two lists are those that have both. Rules that became alike
    // in one by this can then be joined by the other.
    let mut folded = joined(drafts, 0);
    for nth in [1, 0].into_iter().cycle() {
        let count = folded.len();
        folded = joined(folded.into_iter(), nth);
        if nth == 0 && folded.len() == count {
            break;
        }
    }
    folded
}

fn joined(drafts: impl Iterator<Item = Draft>, nth: usize) -> Vec<Draft> {
    let mut done = Done::default();
    for draft in drafts {
        done.add(draft, nth);
    }
    done.drafts.into_iter().map(merged_values).collect()
}

/// Rules that are joined as far as can be.
#[derive(Debug, Default)]
struct Done {
    drafts: Vec<Draft>,
    /// For each of them, where the rules before it begin that do the same without another one in between.
    runs: Vec<usize>,
    /// The last rule of each likeness.
    last: HashMap<u64, usize>,
    /// How many rules were compared.
    compared: usize,
}

impl Done {
    /// Joins a rule with the last one that is like it, if all between do the same or meet no packet of both.
    fn add(&mut self, draft: Draft, nth: usize) {
        let likeness = draft.likeness(nth);
        let earlier = likeness.and_then(|likeness| self.last.get(&likeness).copied());
        if let Some(earlier) = earlier.filter(|earlier| !self.is_blocked(*earlier, &draft)) {
            self.compared += 1;
            if self.drafts.get_mut(earlier).is_some_and(|earlier| earlier.join(&draft, nth)) {
                return;
            }
        }
        let place = self.drafts.len();
        let same = self.drafts.last().is_some_and(|last| last.target == draft.target);
        self.runs.push(if same { self.runs.last().copied().unwrap_or(place) } else { place });
        self.last.extend(likeness.map(|likeness| (likeness, place)));
        self.drafts.push(draft);
    }

    fn is_blocked(&mut self, earlier: usize, draft: &Draft) -> bool {
        let mut end = self.drafts.len();
        while end > earlier + 1 {
            let begin = self.runs[end - 1].max(earlier + 1);
            let run = &self.drafts[begin..end];
            if run.iter().next().is_some_and(|first| first.target != draft.target) {
                self.compared += run.len();
                if run.iter().any(|between| between.can_meet(draft)) {
                    return true;
                }
            }
            end = begin;
        }
        false
    }
}

/// The values of a list as its set has them, so that equal lists look equal.
fn merged_values(mut draft: Draft) -> Draft {
    for condition in &mut draft.conditions {
        if let Condition::List { values, .. } | Condition::Short { values, .. } = condition {
            *values = merged(std::mem::take(values));
        }
    }
    draft
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::{PortRange, Protocol, UidRange};
    use crate::plan::{BuiltinChain, ChainRef, Match, Rule, Table, Target};

    fn exclusion(n: u16) -> Rule {
        let port = |number: u16| number.try_into().unwrap();
        let ports = vec![PortRange { first: port(n), last: port(n) }];
        let uids = UidRange { first: 7 + u32::from(n), last: 7 + u32::from(n) };
        Rule {
            matches: vec![
                Match::DestinationPorts { protocol: Protocol::Tcp, ports },
                Match::Owner { uids, negated: false },
            ],
            target: Target::Return,
            why: String::new(),
        }
    }

    /// Each rule is compared with one other at most, however many there are that none can be joined with.
    #[test]
    fn exclusions_of_users_are_not_compared_with_each_other() {
        let output = ChainRef::Builtin(BuiltinChain::Output);
        for count in [10, 1000] {
            for nth in [0, 1] {
                let mut done = Done::default();
                for n in 1..=count {
                    done.add(Draft::new(Table::Nat, output, &exclusion(n)), nth);
                }
                assert_eq!((done.drafts.len(), done.compared), (usize::from(count), 0));
            }
        }
    }
}
