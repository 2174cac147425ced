//! Whether rules came to the places that a restore program was told. One of the nft variant that gets no answer to a
//! question about a chain may put a rule at its end, and ends with 0. The kernel is asked, which takes no program.

use crate::plan::{Family, OWNER_TAG, Table};
use crate::sys::netlink;

use super::wanted::{Comments, Place, Wanted, WantedRule};

/// Whether all rules of ours in shared chains of the nft variant are where they were wanted, by their tag. What cannot
/// be told counts as it was wanted.
pub fn all(family: Family, wanted: &Wanted) -> bool {
    // A rule that a script cannot say comes back in other words, and others may be counted for it.
    let reworded = wanted.shared.values().flatten().any(|rule| rule.reworded);
    reworded
        || wanted.comments != Comments::Count
        || Table::ALL.into_iter().all(|table| of_table(family, table, wanted))
}

fn of_table(family: Family, table: Table, wanted: &Wanted) -> bool {
    let mut chains =
        wanted.shared.iter().filter(|((of, _), rules)| *of == table && !rules.is_empty()).peekable();
    if chains.peek().is_none() {
        return true;
    }
    let Ok(there) = netlink::nft_rules_in_order(family, table.name(), OWNER_TAG.as_bytes()) else {
        return true;
    };
    chains.all(|((_, chain), rules)| {
        let ours: Vec<bool> = there.iter().filter(|(of, _)| of == chain).map(|(_, ours)| *ours).collect();
        are_in_place(&ours, rules)
    })
}

fn are_in_place(ours: &[bool], rules: &[WantedRule]) -> bool {
    if !rules.iter().all(|rule| rule.args.contains(OWNER_TAG)) {
        return true;
    }
    let is_ours = |at: usize| ours.get(at).copied().unwrap_or_default();
    ours.iter().filter(|ours| **ours).count() == rules.len()
        && rules.iter().enumerate().all(|(nth, rule)| match rule.place {
            Place::Head => is_ours(nth),
            Place::At(index) => is_ours(index),
            Place::Tail => true,
        })
}

#[cfg(test)]
mod tests {
    use super::super::wanted::Key;
    use super::*;

    #[test]
    fn rules_are_at_the_head_or_where_they_were() {
        let rule = |place| {
            let args = format!("-m comment --comment {OWNER_TAG} -j X");
            WantedRule { key: Key::Text(args.clone()), args, place, reworded: false }
        };
        let heads = [rule(Place::Head), rule(Place::Head), rule(Place::Tail)];
        assert!(are_in_place(&[true, true, false, true], &heads));
        assert!(are_in_place(&[true, true, true], &heads));
        for other in [&[true, false, true, true][..], &[true, true, false], &[true, true, true, true], &[]] {
            assert!(!are_in_place(other, &heads), "{other:?}");
        }
        let back = [rule(Place::At(0)), rule(Place::At(2))];
        assert!(are_in_place(&[true, false, true], &back) && !are_in_place(&[true, true, false], &back));
    }
}
