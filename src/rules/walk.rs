//! What chains do to a packet.

use std::collections::{HashMap, HashSet};

use super::model::{Action, Called, Chain, Hook, Packet, Rule, Test, Truth};
use crate::plan::Family;

/// How deep chains may lead into one another. The kernel allows 16.
const DEEPEST: usize = 32;

/// What a rule, or a policy, may do to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding<'a> {
    /// Its chain.
    pub chain: &'a Chain,
    /// The rule, or nothing for the policy.
    pub rule: Option<&'a Rule>,
    /// What it does.
    pub deed: Deed,
    /// How sure that is.
    pub sure: Truth,
    /// Whether a test that is not understood, and that other traffic may meet otherwise, has a part in it.
    pub specific: bool,
}

impl Finding<'_> {
    /// Whether both are of the same rule, or of the policy of the same chain.
    pub fn is_same_rule(&self, other: &Finding<'_>) -> bool {
        let rule = |of: &Finding<'_>| of.rule.map(std::ptr::from_ref);
        std::ptr::eq(self.chain, other.chain) && rule(self) == rule(other)
    }

    /// Whether both are of the same rule and as sure.
    pub fn is_same(&self, other: &Finding<'_>) -> bool {
        self.is_same_rule(other) && self.deed == other.deed && self.sure <= other.sure
    }
}

/// What is done to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    /// It is dropped or rejected.
    Drops,
    /// Its destination is changed before ours are asked.
    Translates,
    /// It passes our rules by.
    LetsPast,
    /// Connection tracking, and with it redirection, leaves it alone.
    Untracks,
    /// It is tracked in another zone than its answers.
    Zones,
    /// It is marked, and routing rules may go by that.
    Marks,
}

/// Where a packet may go on to.
#[derive(Debug, Clone, Copy)]
struct Ways {
    /// Behind the chain, in the one that called it.
    back: Truth,
    /// Out of all chains of this call.
    passed: Truth,
    /// Whether it may end there at all, by being passed or dropped.
    ends: bool,
}

/// Which of the chains at a hook are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Those up to a priority.
    UpTo(i32),
    /// Those after a priority.
    After(i32),
    /// All.
    All,
}

impl Part {
    fn has(self, priority: i32) -> bool {
        match self {
            Self::UpTo(last) => priority <= last,
            Self::After(first) => priority > first,
            Self::All => true,
        }
    }
}

/// What the chains at a hook may do to a packet. `translated`: it belongs to a connection whose destination is
/// decided, so that nobody translates it any more.
pub fn at<'a>(
    chains: &'a [Chain],
    hook: Hook,
    part: Part,
    translated: bool,
    packet: &Packet,
) -> Vec<Finding<'a>> {
    let mut found = Vec::new();
    for (chain, called) in asked(chains, hook, part, translated, packet.family) {
        through(chains, chain, called, packet, &mut found);
    }
    found
}

/// Whether a packet passes a hook.
#[derive(Debug, Clone)]
pub struct Passage<'a> {
    /// How sure it is that it does.
    pub passes: Truth,
    /// The chains that surely drop it, each with the rule or policy by which they do.
    pub closed: Vec<(&'a Chain, Finding<'a>)>,
}

/// Whether a packet passes all chains at a hook; of several rules that may each drop a part of it, as much as all of them
/// together do.
pub fn passage<'a>(
    chains: &'a [Chain],
    hook: Hook,
    part: Part,
    translated: bool,
    packet: &Packet,
) -> Passage<'a> {
    let mut all = Passage { passes: Truth::Yes, closed: Vec::new() };
    for (chain, called) in asked(chains, hook, part, translated, packet.family) {
        let mut found = Vec::new();
        let passes = through(chains, chain, called, packet, &mut found);
        all.passes = all.passes.min(passes);
        found.retain(|finding| finding.deed == Deed::Drops);
        let sure = found.iter().position(|finding| finding.sure == Truth::Yes);
        let by = sure.or(found.len().checked_sub(1)).filter(|_| passes == Truth::No);
        all.closed.extend(by.map(|by| (chain, found.swap_remove(by))));
    }
    all
}

/// The chains that a hook calls for a family, those for translation aside, and all that they may lead to.
pub fn reachable(chains: &[Chain], hook: Hook, family: Family) -> Vec<&Chain> {
    let called = |chain: &&Chain| {
        chain.called.is_some_and(|called| called.hook == hook && !called.translates)
            && chain.families.contains(&family)
    };
    let mut by_name: HashMap<(&str, &[Family], &str), &Chain> = HashMap::new();
    for chain in chains {
        by_name.insert((&chain.table, &chain.families, &chain.name), chain);
    }
    let mut found: Vec<&Chain> = chains.iter().filter(called).collect();
    let mut seen: HashSet<*const Chain> = found.iter().map(|chain| std::ptr::from_ref(*chain)).collect();
    let mut next = 0;
    while let Some(&chain) = found.get(next) {
        next += 1;
        for rule in &chain.rules {
            let (Action::Jump(to) | Action::Goto(to)) = &rule.action else { continue };
            let to = by_name.get(&(chain.table.as_str(), chain.families.as_slice(), to.as_str()));
            found.extend(to.filter(|to| seen.insert(std::ptr::from_ref(**to))));
        }
    }
    found
}

/// The chains that a hook calls, in the order in which it does.
fn asked(
    chains: &[Chain],
    hook: Hook,
    part: Part,
    translated: bool,
    family: Family,
) -> Vec<(&Chain, Called)> {
    let mut called: Vec<(&Chain, Called)> = chains
        .iter()
        .filter(|chain| chain.families.contains(&family))
        .filter_map(|chain| Some((chain, chain.called?)))
        .filter(|(_, called)| called.hook == hook && part.has(called.priority))
        .filter(|(_, called)| !(called.translates && translated))
        .collect();
    called.sort_by_key(|(_, called)| called.priority);
    called
}

/// Whether a packet passes a chain that a hook calls, and what may be done to it there.
fn through<'a>(
    chains: &'a [Chain],
    chain: &'a Chain,
    called: Called,
    packet: &Packet,
    found: &mut Vec<Finding<'a>>,
) -> Truth {
    let ours = called.translates && has_ours(chain);
    let mut walk = Walk { chains, packet, ours, found, lost: false };
    let ways = walk.chain(chain, Truth::Yes, false, 0);
    let lost = walk.lost;
    if called.drops && ways.back > Truth::No {
        let (rule, deed, sure) = (None, Deed::Drops, ways.back);
        found.push(Finding { chain, rule, deed, sure, specific: false });
    }
    let goes_on = if called.drops { Truth::No } else { ways.back };
    if lost || found.iter().any(|finding| finding.deed == Deed::Drops) {
        // What may be dropped does not surely pass, whatever else may happen to it.
        ways.passed.max(goes_on).min(Truth::Maybe)
    } else {
        Truth::Yes
    }
}

fn has_ours(chain: &Chain) -> bool {
    chain.rules.iter().any(|rule| rule.action == Action::Ours)
}

struct Walk<'a, 'b> {
    chains: &'a [Chain],
    packet: &'b Packet,
    /// Whether rules of ours stand in the chain that was called, so that what passes before them passes them by.
    ours: bool,
    found: &'b mut Vec<Finding<'a>>,
    /// Whether it may have gone on to a chain that is not known.
    lost: bool,
}

impl<'a> Walk<'a, '_> {
    /// What becomes of a packet that comes to a chain as surely as `reaches`.
    fn chain(&mut self, chain: &'a Chain, reaches: Truth, specific: bool, depth: usize) -> Ways {
        let mut ways = Ways { back: Truth::No, passed: Truth::No, ends: false };
        let mut here = reaches;
        for rule in &chain.rules {
            if here == Truth::No {
                break;
            }
            let meets = rule.tests.iter().map(|test| test.holds(self.packet)).min().unwrap_or(Truth::Yes);
            if meets == Truth::No {
                continue;
            }
            let hit = here.min(meets);
            let specific = specific || rule.tests.iter().any(Test::is_specific);
            // What is left of it for the rules behind.
            let rest = if meets == Truth::Yes { Truth::No } else { here.min(Truth::Maybe) };
            let deed = match &rule.action {
                Action::Drop => Some(Deed::Drops),
                Action::Translate => Some(Deed::Translates),
                Action::Untrack => Some(Deed::Untracks),
                Action::Zone(_) => Some(Deed::Zones),
                Action::Mark => Some(Deed::Marks),
                Action::Accept if self.ours => Some(Deed::LetsPast),
                Action::Return if self.ours && depth == 0 => Some(Deed::LetsPast),
                _ => None,
            };
            if let Some(deed) = deed {
                self.found.push(Finding { chain, rule: Some(rule), deed, sure: hit, specific });
            }
            match &rule.action {
                Action::Continue | Action::OursPasses | Action::Untrack | Action::Zone(_) | Action::Mark => {}
                Action::Drop => {
                    ways.ends = true;
                    here = rest;
                }
                Action::Accept | Action::Translate | Action::Ours => {
                    ways.passed = ways.passed.max(hit);
                    ways.ends = true;
                    here = rest;
                }
                Action::Return => {
                    ways.back = ways.back.max(hit);
                    here = rest;
                }
                Action::Jump(to) | Action::Goto(to) => {
                    let next = (depth < DEEPEST).then(|| self.named(chain, to)).flatten();
                    // A chain that is not known may do anything.
                    let inner = if let Some(next) = next {
                        self.chain(next, hit, specific, depth + 1)
                    } else {
                        self.lost = true;
                        let may = hit.min(Truth::Maybe);
                        Ways { back: may, passed: may, ends: true }
                    };
                    ways.passed = ways.passed.max(inner.passed);
                    ways.ends |= inner.ends;
                    if matches!(rule.action, Action::Goto(_)) {
                        ways.back = ways.back.max(inner.back);
                        here = rest;
                    } else if inner.ends {
                        here = rest.max(inner.back);
                    }
                }
            }
        }
        ways.back = ways.back.max(here);
        ways
    }

    fn named(&self, of: &Chain, name: &str) -> Option<&'a Chain> {
        self.chains
            .iter()
            .find(|chain| chain.table == of.table && chain.families == of.families && chain.name == name)
    }
}
