//! The rules of both families in one list: a rule that both have is written once, one that only one has says whose
//! packets it is about.

use crate::plan::Family;

use super::super::model::{Rule, Statement};

/// Both lists as one, each in its own order.
pub(super) fn merge((v4, first): (Family, Vec<Rule>), (v6, second): (Family, Vec<Rule>)) -> Vec<Rule> {
    let common = common(&first, &second);
    let mut merged = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter().enumerate(), second.into_iter().enumerate());
    for (left, right) in common {
        // Until the next rule that both have, and that rule itself.
        merged.extend(first.by_ref().take_while(|(at, _)| *at < left).map(|(_, rule)| guard(v4, rule)));
        for (at, rule) in second.by_ref() {
            if at == right {
                merged.push(rule);
                break;
            }
            merged.push(guard(v6, rule));
        }
    }
    merged.extend(first.map(|(_, rule)| guard(v4, rule)));
    merged.extend(second.map(|(_, rule)| guard(v6, rule)));
    merged
}

/// The rule for packets of one family alone.
fn guard(family: Family, mut rule: Rule) -> Rule {
    let address = rule.statements.iter().position(|statement| matches!(statement, Statement::Address(..)));
    rule.statements.insert(address.unwrap_or(0), Statement::Family(family));
    rule
}

/// The rule in a chain that only packets of `family` reach: the kernel still has to be told before an address.
pub(super) fn guard_addresses(family: Family, rule: Rule) -> Rule {
    if rule.statements.iter().any(|statement| matches!(statement, Statement::Address(..))) {
        guard(family, rule)
    } else {
        rule
    }
}

/// The longest common subsequence, as pairs of places. A rule about addresses is never common: what it means
/// depends on the family. The lists are short, because what is long in them is in sets.
fn common(first: &[Rule], second: &[Rule]) -> Vec<(usize, usize)> {
    let same = |a: usize, b: usize| {
        first[a] == second[b] && !first[a].statements.iter().any(|s| matches!(s, Statement::Address(..)))
    };
    let mut lengths = vec![vec![0_usize; second.len() + 1]; first.len() + 1];
    for a in (0..first.len()).rev() {
        for b in (0..second.len()).rev() {
            lengths[a][b] =
                if same(a, b) { lengths[a + 1][b + 1] + 1 } else { lengths[a + 1][b].max(lengths[a][b + 1]) };
        }
    }
    let (mut a, mut b, mut pairs) = (0, 0, Vec::new());
    while a < first.len() && b < second.len() {
        if same(a, b) {
            pairs.push((a, b));
            (a, b) = (a + 1, b + 1);
        } else if lengths[a + 1][b] >= lengths[a][b + 1] {
            a += 1;
        } else {
            b += 1;
        }
    }
    pairs
}
