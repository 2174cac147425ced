//! The rules of both families in one list: a rule that both have is written once, one that only one has says whose
//! packets it is about.

use std::ops::Range;

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
/// depends on the family.
///
/// Most of both lists is the same, so what they begin and end with is paired at once; only between can the work grow
/// with the product of two lengths.
fn common(first: &[Rule], second: &[Rule]) -> Vec<(usize, usize)> {
    let same = |a: usize, b: usize| {
        first[a] == second[b] && !first[a].statements.iter().any(|s| matches!(s, Statement::Address(..)))
    };
    let shorter = first.len().min(second.len());
    let begin = (0..shorter).take_while(|&at| same(at, at)).count();
    let end = (1..=shorter - begin).take_while(|&n| same(first.len() - n, second.len() - n)).count();
    let (first_end, second_end) = (first.len() - end, second.len() - end);

    let mut pairs: Vec<_> = (0..begin).map(|at| (at, at)).collect();
    pairs.extend(longest((begin..first_end, begin..second_end), same));
    pairs.extend((0..end).map(|n| (first_end + n, second_end + n)));
    pairs
}

/// The longest common subsequence of two ranges, by the table of the lengths that remain.
fn longest(
    (first, second): (Range<usize>, Range<usize>),
    same: impl Fn(usize, usize) -> bool,
) -> Vec<(usize, usize)> {
    let mut lengths = vec![vec![0_usize; second.len() + 1]; first.len() + 1];
    for (row, a) in first.clone().enumerate().rev() {
        for (column, b) in second.clone().enumerate().rev() {
            lengths[row][column] = if same(a, b) {
                lengths[row + 1][column + 1] + 1
            } else {
                lengths[row + 1][column].max(lengths[row][column + 1])
            };
        }
    }
    let (mut row, mut column, mut pairs) = (0, 0, Vec::new());
    while row < first.len() && column < second.len() {
        let (a, b) = (first.start + row, second.start + column);
        if same(a, b) {
            pairs.push((a, b));
            (row, column) = (row + 1, column + 1);
        } else if lengths[row + 1][column] >= lengths[row][column + 1] {
            row += 1;
        } else {
            column += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::model::{End, Test};
    use super::*;
    use crate::config::values::Port;

    fn rule(number: u16) -> Rule {
        let port = Port::try_from(number).expect("a port");
        Rule { statements: vec![Statement::Port(End::Source, Test::Is(port.into()))], comment: None }
    }

    proptest! {
        /// Pairing the ends at once finds as many rules as looking at every pair does.
        #[test]
        fn no_common_rule_is_lost(
            first in prop::collection::vec(1_u16..6, 0..12),
            second in prop::collection::vec(1_u16..6, 0..12),
        ) {
            let (first, second): (Vec<_>, Vec<_>) =
                (first.into_iter().map(rule).collect(), second.into_iter().map(rule).collect());
            let pairs = common(&first, &second);
            prop_assert!(pairs.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 < two[1].1));
            prop_assert!(pairs.iter().all(|&(a, b)| first[a] == second[b]));
            let most = longest((0..first.len(), 0..second.len()), |a, b| first[a] == second[b]);
            prop_assert_eq!(pairs.len(), most.len());
        }
    }
}
