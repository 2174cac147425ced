//! Sets and maps, each with its elements.

use std::collections::BTreeMap;

use super::super::model::Action;
use super::Told;
use super::compared::verdict;
use crate::attribute::{attributes, find, find_text, find_u32};

/// The elements of a set: keys, an interval's last key where it has one, and what is to be done.
#[derive(Debug, Clone, Default)]
pub struct Elements {
    /// The length of a key in bytes.
    pub width: usize,
    pub keys: Vec<Element>,
}

/// A key, the end of its interval, and what is to be done.
pub type Element = (Vec<u8>, Option<Vec<u8>>, Option<Action>);

/// By the family, table and name of the set.
pub type Sets = BTreeMap<(u8, String, String), Elements>;

/// Takes the lists of elements apart.
pub fn read(told: &[Told<'_>]) -> Sets {
    /// A key, whether it is the first that is not in an interval any more, the last one of it, and what is to be done.
    type Bytes = (Vec<u8>, bool, Option<Vec<u8>>, Option<Action>);
    let mut all: BTreeMap<(u8, String, String), Vec<Bytes>> = BTreeMap::new();
    for (family, body) in told {
        let (Some(table), Some(name)) = (find_text(body, 1), find_text(body, 2)) else { continue };
        let set = all.entry((*family, table, name)).or_default();
        for (_, element) in attributes(find(body, 3).unwrap_or_default()) {
            let value = |kind| find(element, kind).and_then(|key| find(key, 1)).map(<[u8]>::to_vec);
            let Some(key) = value(1) else { continue };
            let ends = find_u32(element, 3).is_some_and(|flags| flags & 1 != 0);
            let action = find(element, 2).and_then(|data| find(data, 2)).map(verdict);
            set.push((key, ends, value(10), action));
        }
    }
    let paired = |mut all: Vec<Bytes>| {
        // An interval may begin where another one ends.
        all.sort_by(|one, other| (&one.0, !one.1).cmp(&(&other.0, !other.1)));
        let mut set = Elements::default();
        for (key, ends, last, action) in all {
            set.width = set.width.max(key.len());
            if !ends {
                set.keys.push((key, last, action));
            } else if let Some(open) = set.keys.last_mut() {
                open.1.get_or_insert(key);
            }
        }
        set
    };
    all.into_iter().map(|(name, all)| (name, paired(all))).collect()
}
