//! The sets of a table under their names: one set for each list, however many rules ask for it.

use std::collections::{BTreeMap, HashMap};

use super::super::set::Set;

/// Sets, and under which names they are known.
#[derive(Debug, Default)]
pub(super) struct Sets {
    all: BTreeMap<String, Set>,
    names: HashMap<(String, Set), String>,
    /// How many names that begin so are taken.
    taken: HashMap<String, usize>,
}

impl Sets {
    /// The name under which a set is kept; another one when the name is taken by other values.
    pub fn name(&mut self, base: String, set: Set) -> String {
        let key = (base, set);
        if let Some(name) = self.names.get(&key) {
            return name.clone();
        }
        let (base, set) = &key;
        let count = self.taken.entry(base.clone()).or_default();
        let name = loop {
            *count += 1;
            let name = if *count == 1 { base.clone() } else { format!("{base}_{count}") };
            match self.all.get(&name) {
                None => break name,
                Some(taken) if taken == set => break name,
                Some(_) => {}
            }
        };
        self.all.insert(name.clone(), set.clone());
        self.names.insert(key, name.clone());
        name
    }

    /// All of them.
    pub fn into_all(self) -> BTreeMap<String, Set> {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::set::{Interval, Key};
    use super::*;

    #[test]
    fn equal_lists_share_a_name_and_others_get_the_next() {
        let set = |value: u128| Set::new(Key::Port, [Interval { first: value, last: value }]);
        let mut sets = Sets::default();
        let names = [("a", 1), ("a", 2), ("a", 1), ("b", 2), ("a", 3), ("a_2", 9)];
        let given = names.map(|(base, value)| sets.name(base.to_owned(), set(value)));
        assert_eq!(given, ["a", "a_2", "a", "b", "a_3", "a_2_2"]);
        assert_eq!(sets.into_all().len(), 5);
    }
}
