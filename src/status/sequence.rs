//! Comparing lists whose order counts. Pure.

use std::collections::HashMap;
use std::hash::Hash;

/// What of `one` is left when everything of `other` is taken away, each as often as it is there.
pub fn left_over<'a, T: Eq + Hash>(one: &'a [T], other: &[T]) -> Vec<&'a T> {
    let mut counts: HashMap<&T, usize> = HashMap::new();
    for item in other {
        *counts.entry(item).or_default() += 1;
    }
    let not_taken = |item: &&T| match counts.get_mut(*item) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    one.iter().filter(not_taken).collect()
}

/// Which of the wanted items are there, but not in the wanted order: all but the longest run that is.
pub fn moved<'a, T: Eq + Hash>(present: &[T], wanted: &'a [T]) -> Vec<&'a T> {
    let mut places: HashMap<&T, Vec<usize>> = HashMap::new();
    for (at, item) in present.iter().enumerate().rev() {
        places.entry(item).or_default().push(at);
    }
    let there: Vec<(&T, usize)> =
        wanted.iter().filter_map(|item| Some((item, places.get_mut(item)?.pop()?))).collect();
    // For each item the length of the longest run that ends with it, and what comes before it in that run.
    let mut runs: Vec<(usize, Option<usize>)> = Vec::with_capacity(there.len());
    for (nth, (_, at)) in there.iter().enumerate() {
        let before =
            (0..nth).filter(|earlier| there[*earlier].1 < *at).max_by_key(|earlier| runs[*earlier].0);
        runs.push((before.map_or(1, |before| runs[before].0 + 1), before));
    }
    let mut stays = vec![false; there.len()];
    let mut next = (0..there.len()).max_by_key(|nth| runs[*nth].0);
    while let Some(nth) = next {
        stays[nth] = true;
        next = runs[nth].1;
    }
    there.into_iter().zip(stays).filter(|(_, stays)| !stays).map(|((item, _), _)| item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_count_as_often_as_they_are_there() {
        assert_eq!(left_over(&[1, 2, 1, 3], &[1, 3, 3]), [&2, &1]);
        assert_eq!(left_over::<u8>(&[], &[1]), Vec::<&u8>::new());
    }

    #[test]
    fn as_few_as_can_be_have_moved() {
        assert_eq!(moved(&[1, 2, 3, 4], &[1, 2, 3, 4]), Vec::<&i32>::new());
        assert_eq!(moved(&[4, 1, 2, 3], &[1, 2, 3, 4]), [&4]);
        assert_eq!(moved(&[9, 3, 1, 2], &[1, 2, 3, 4]), [&3]);
        assert_eq!(moved(&[1, 1, 2], &[1, 1, 2]), Vec::<&i32>::new());
    }
}
